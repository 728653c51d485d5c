"""BADGE: k-means++ seeding on the gradients of the last layer, as if the model's own guess were the label."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.chance import uniform
from svp.select.geometry import float_rows, scale_of, split
from svp.select.table import Floats, Ints, Picks

# Sizes of one matrix product, and after how many picks the bounds are renewed. They decide the speed, never the answer.
_ROWS = 1024
_COLUMNS = 1024
_RENEW = 64


def badge(
    probs: NDArray[Any],
    embeddings: NDArray[Any],
    already: Ints,
    candidates: Ints,
    budget: int,
    *,
    ids: Ints,
    seed: int,
) -> Picks:
    """Uncertain and unlike each other: k-means++ on the gradients that the last layer's guess would give.

    probs       (n, c) one row per example, each sums to 1
    embeddings  (n, d) what the last layer is given
    already     positions that count as chosen
    candidates  positions to choose from; of equal ones the earlier in this list goes first
    budget      how many, at most all candidates
    returns     positions in order of choice. Each is drawn with a chance in proportion to D^2, the squared distance of its
                gradient (p - onehot(argmax p)) x e to the nearest chosen one; where nothing is chosen already the longest
                gradient goes first. When all that is left repeats what is chosen (D = 0), the rest goes in the order of the
                candidates. The first k are the answer for budget k, and choosing on from them (as `already`) gives the rest.
                The gain of a pick is its D when it was picked; NaN for the very first where nothing was chosen already
    cost        n (c + d) operations for each pick, nearly all in matrix products of blocks of picks, and n hashes; usually a few
                (m + budget) (c + d) for the pick itself, m already chosen. Memory beside the arrays: about 110 n +
                8 (m + budget) (c + d) bytes and blocks of (c + d + 3000) * 8 kB; never n c d
    Ash et al. 2020, "Deep batch active learning by diverse, uncertain gradient lower bounds", ICLR. There what was labelled
    earlier is no centre: for that leave `already` empty and give `exclude`.

    Gradients are never made: |a x e - b x f|^2 = |a|^2 |e|^2 + |b|^2 |f|^2 - 2 (a.b) (e.f). Chance is a race: of the example i
    at pick t, -log(u_it) / D_i^2 with u_it a hash of its id and of t, and the least wins, which it does with probability
    D_i^2 / sum D^2. D^2 only falls, so an old or a rounded-up one gives a bound below which its time cannot be; only who leads
    the race is compared with all centres, by one float64 formula.
    """
    race = _Race(_Gradients(probs, embeddings, already, candidates), already, candidates, budget)
    if not len(already) and budget:
        race.pick(int(race.squares.argmax()))
    own = ids[candidates]
    while len(race.picks) < budget:
        race.run(-np.log(uniform(own, seed, "badge", len(already) + len(race.picks))))
    return race.result()


class _Gradients:
    """The two factors of the gradients, in float64, each row in one piece: sums along rows go in an order that c and d set."""

    def __init__(self, probs: NDArray[Any], embeddings: NDArray[Any], already: Ints, candidates: Ints) -> None:
        self.probs, self.embeddings = probs, embeddings
        self.scale = scale_of(embeddings, already, candidates)
        self.widths = probs.shape[1], embeddings.shape[1]

    def at(self, pos: Ints) -> tuple[Floats, Floats, Floats]:
        """(k, c) errors, (k, d) rows, and (k,) squared lengths of the gradients."""
        errors = float_rows(self.probs, pos)
        errors[np.arange(len(pos)), errors.argmax(axis=1)] -= 1
        rows = float_rows(self.embeddings, pos, self.scale)
        return errors, rows, inner(errors, errors) * inner(rows, rows)


class _Race:
    """For each candidate an upper bound of its squared distance to the nearest centre, made exact where it matters.

    Candidates are numbered by their place in the list; centres by their order of arrival.

    squares  (n,) squared lengths
    bound    (n,) upper bounds; 0 for those that are picked or repeat a centre
    exact    (n,) the formula's least value for the first `seen` centres
    nearest  (n,) the first centre that gives it
    """

    def __init__(self, gradients: _Gradients, already: Ints, candidates: Ints, budget: int) -> None:
        n, capacity = len(candidates), len(already) + budget
        self.gradients, self.candidates = gradients, candidates
        self.squares = np.empty(n)
        self.bound, self.exact = np.full(n, np.inf), np.full(n, np.inf)
        self.seen, self.nearest = np.zeros(n, np.int64), np.full(n, -1)
        self.centres = np.empty(capacity, np.int64)
        self.errors, self.rows = (np.empty((capacity, width)) for width in gradients.widths)
        self.lengths = np.empty(capacity)
        self.n_centres = self.n_bounded = 0
        self.left = np.ones(n, bool)
        self.picks: list[int] = []
        self.gains: list[float] = []
        for places in split(np.arange(n), _ROWS):
            self.squares[places] = gradients.at(candidates[places])[2]
        for block in split(already, _ROWS):
            self._add(block)

    def pick(self, place: int) -> None:
        """This one is chosen, and a centre from now on."""
        self.picks.append(place)
        self.gains.append(float(self.exact[place]))
        self.left[place] = False
        self.bound[place] = 0
        self._add(self.candidates[place : place + 1])

    def run(self, times: Floats) -> None:
        """Pick who comes first if each takes (n,) times / D^2; everyone that is left, in their order, if all D are 0."""
        if self.n_centres - self.n_bounded >= min(_RENEW, max(1, self.n_bounded)):
            self._renew()
        with np.errstate(divide="ignore", over="ignore"):
            arrival = times / self.bound
            while True:
                first = int(arrival.argmin())
                if arrival[first] == np.inf:
                    break
                if self.seen[first] == self.n_centres:
                    return self.pick(first)
                self._measure(first)
                arrival[first] = times[first] / self.bound[first]
        room = len(self.centres) - self.n_centres
        for place in np.flatnonzero(self.left)[:room].tolist():
            self.pick(place)
        return None

    def _add(self, pos: Ints) -> None:
        new = slice(self.n_centres, self.n_centres + len(pos))
        self.centres[new] = pos
        self.errors[new], self.rows[new], self.lengths[new] = self.gradients.at(pos)
        self.n_centres = new.stop

    def _measure(self, place: int) -> None:
        """Let one candidate see all centres."""
        error, row, length = self.gradients.at(self.candidates[place : place + 1])
        for new in split(np.arange(self.seen[place], self.n_centres), _COLUMNS):
            part = slice(new[0], new[-1] + 1)
            products = inner(self.errors[part], error) * inner(self.rows[part], row)
            squared = np.maximum(self.lengths[part] + length - 2 * products, 0)
            least = int(squared.argmin())
            if squared[least] < self.exact[place]:
                self.exact[place], self.nearest[place] = squared[least], part.start + least
        self.seen[place] = self.n_centres
        self.bound[place] = self.exact[place]

    def _renew(self) -> None:
        """Lower the bounds by the centres that they do not know.

        Formula and product are each within (c + d + 8) eps (|g|^2 + |h|^2) of the truth, whatever the order of additions;
        twice that is added twice.
        """
        slack = 1 + 4 * (sum(self.gradients.widths) + 8) * float(np.finfo(np.float64).eps)
        for new in split(np.arange(self.n_bounded, self.n_centres), _COLUMNS):
            part = slice(new[0], new[-1] + 1)
            for places in split(np.flatnonzero(self.bound > 0), _ROWS):
                errors, rows, lengths = self.gradients.at(self.candidates[places])
                products = errors @ self.errors[part].T
                products *= rows @ self.rows[part].T
                products *= -2
                products += slack * self.lengths[part]
                upper = products.min(axis=1) + slack * lengths + 2.0**-1000  # above all that can underflow
                self.bound[places] = np.minimum(self.bound[places], np.maximum(upper, 2.0**-1000))
        self.n_bounded = self.n_centres

    def result(self) -> Picks:
        picks = np.array(self.picks, np.int64)
        nearest = self.nearest[picks]
        squared = np.array(self.gains)
        gains = np.where(nearest < 0, np.nan, np.sqrt(np.where(nearest < 0, 0, squared))) / self.gradients.scale
        return Picks(self.candidates[picks], gains, np.where(nearest < 0, -1, self.centres[nearest]), gains)


def inner(a: Floats, b: Floats) -> Floats:
    """(k,) inner products of rows: the order of additions is set by their width alone."""
    return np.asarray((a * b).sum(axis=1))
