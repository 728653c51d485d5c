"""Who is asked about what, and what they say: the only one on the page's side who knows the label store."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from svp.errors import LabelError
from svp.labels import WORDS, Kind, LabelStore, Rule
from svp.serve.cards import Card

IN_HAND = 3  # examples a person has: the one that is shown, and those that the browser fetches meanwhile
IDLE_SECONDS = 300.0  # after which a person's examples go to others
RECENT = 30  # answers over which it is said how often the model was right
_NOTHING = ("", None)  # what the answers come to where there is none
_KEPT = 200  # cards kept after they were answered, for those who take an answer back


@dataclass
class Hand:
    """The examples of one person, in order, and when that person was last heard of."""

    ids: list[int] = field(default_factory=list)
    seen: float = 0.0


class Desk:
    """Hands out examples, so that no two people have the same one while there is another, and stores what they say.

    An answer is on the disk when `answer` returns. Who has what in hand is kept in memory alone: after a restart all that is not
    answered is handed out anew. Commands and other servers may tell the same store meanwhile. One object belongs to one thread.

    clock  seconds
    """

    def __init__(self, store: LabelStore, rule: Rule, clock: Callable[[], float] = time.monotonic) -> None:
        self.exhausted = False  # nothing is left to ask
        self.news = 0  # how often there was something to ask anew: others asked, or people were divided
        self.told = 0  # answers that were new, through this desk
        self.right: dict[int, bool] = {}  # by example, in order of the answers: had the proxy taken it for what it is?
        self._store, self._rule, self._clock = store, rule, clock
        self._cards: dict[int, Card] = {}
        self._open: dict[int, None] = {}  # what can be handed out, in order
        self._hands: dict[str, Hand] = {}
        self._event = 0
        self._counts: Counter[tuple[str, int | None]] = Counter()  # examples by (kind, label)
        self.classes = store.classes
        self._catch_up()

    # --- examples ------------------------------------------------------------------------------------------------------------

    def put(self, cards: Iterable[Card], sought: Iterable[int] = ()) -> None:
        """More to hand out; what was sought and has no card still is no longer in the pool."""
        for card in cards:
            self._cards[card.id] = card
            self._open[card.id] = None
        for id_ in sought:
            if id_ not in self._cards:
                self._open.pop(id_, None)

    @property
    def open(self) -> frozenset[int]:
        """What can be handed out, or is in somebody's hands."""
        return frozenset(self._open.keys() & self._cards.keys())

    @property
    def lacking(self) -> frozenset[int]:
        """What was taken back and has no card here: it was answered before this start, long ago, or by a command."""
        return frozenset(self._open.keys() - self._cards.keys())

    @property
    def n_free(self) -> int:
        """How many examples are in nobody's hands, without those that only some may be asked about."""
        return sum(not self._cards[id_].again for id_ in self._open.keys() - self._taken() if id_ in self._cards)

    def card(self, id_: int) -> Card | None:
        """What is shown of an example that was put here lately."""
        return self._cards.get(id_)

    def hand(self, who: str) -> list[Card]:
        """What this person is asked now, first to last, IN_HAND at most; from others' hands only where nothing else is left."""
        hand = self._hands.setdefault(who, Hand())
        hand.seen = self._clock()
        hand.ids = [id_ for id_ in hand.ids if id_ in self._open][:IN_HAND]
        taken = self._taken()
        self._fill(hand, who, (id_ for id_ in self._open if id_ not in taken))
        if not hand.ids and self.exhausted:
            self._fill(hand, who, self._open)
        return [self._cards[id_] for id_ in hand.ids if id_ in self._cards]

    def _fill(self, hand: Hand, who: str, ids: Iterable[int]) -> None:
        for id_ in ids:
            if len(hand.ids) >= IN_HAND:
                return
            card = self._cards.get(id_)
            if card is not None and not (card.again and self._store.answered(id_, who)):
                hand.ids.append(id_)

    def _taken(self) -> set[int]:
        """What is in the hands of people who were heard of lately."""
        now = self._clock()
        return {id_ for hand in self._hands.values() if now - hand.seen < IDLE_SECONDS for id_ in hand.ids}

    # --- answers -------------------------------------------------------------------------------------------------------------

    def answer(self, who: str, id_: int, said: int | Kind) -> None:
        """Store what a person says of an example: a class number or one of WORDS. The same answer twice is one.

        Raises LabelError for another answer than this person gave before, and for what was never asked.
        """
        self._catch_up()
        before = self._standing(id_)
        new = self._store.tell({id_: said}, who=who)
        self._open.pop(id_, None)
        self._note(id_, before, new)
        self.told += new
        card = self._cards.get(id_)
        if card is not None and card.guess is not None and said not in WORDS:
            self.right[id_] = card.guess[0] == said

    def undo(self, who: str) -> int:
        """Take back this person's last answer; the example comes first in this person's hand. Returns its id.

        Raises LabelError where there is none, or where the last came with others: in a file, by a pull.
        """
        self._catch_up()
        last = self._store.last_told(who)
        if not last:
            raise LabelError(f"There is nothing to take back of {who}")
        if len(last) > 1:
            raise LabelError(
                f"The last {len(last):,} answers of {who} came in a file; svp session undo takes them back"
            )
        (id_,) = last
        before = self._standing(id_)
        self._store.undo(who)
        self._open = {id_: None, **self._open}
        hand = self._hands.setdefault(who, Hand())
        hand.ids = [id_, *(other for other in hand.ids if other != id_)]
        self.right.pop(id_, None)
        self._note(id_, before, 1)
        return id_

    def _standing(self, id_: int) -> tuple[str, int | None] | None:
        found = self._store.standings(self._rule, id_)
        return (found[0].kind, found[0].label) if found else None

    def _note(self, id_: int, before: tuple[str, int | None] | None, n_events: int) -> None:
        """Count what this desk has stored; all anew, where somebody else stored something at the same moment."""
        changes = self._store.changes(self._event)
        if len(changes) != n_events:
            self._catch_up()
            return
        for event, _ in changes:
            self._event = event
            self._counts[before or _NOTHING] -= 1
            now = self._standing(id_) or _NOTHING
            self._counts[now] += 1
            if now[0] == "tie" and now != before:
                self._renew()
        for stale in [other for other in self._cards if other not in self._open][:-_KEPT]:
            del self._cards[stale]

    def _catch_up(self) -> None:
        """Know what others have stored since. Cost: a lookup; where it was more than questions, a pass over the answers."""
        changes = self._store.changes(self._event)
        if not changes:
            return
        self._event = changes[-1][0]
        if any(verb == "ask" for _, verb in changes):
            self._renew()  # a second look, perhaps: whoever puts cards here knows
        if any(verb != "ask" for _, verb in changes):
            self.classes = self._store.classes
            n_ties = self._counts["tie", None]
            self._counts = Counter((s.kind, s.label) for s in self._store.standings(self._rule))
            if self._counts["tie", None] > n_ties:
                self._renew()
            waiting = {each.id for each in self._store.waiting()}
            self._open = {id_: None for id_ in self._open if id_ in waiting}

    def _renew(self) -> None:
        self.exhausted = False
        self.news += 1

    # --- what is known -------------------------------------------------------------------------------------------------------

    @property
    def labelled(self) -> list[int]:
        """How many examples of each class there are."""
        return [self._counts["label", number] for number in range(len(self.classes))]

    def progress(self) -> dict[str, Any]:
        """Counts in plain values."""
        self._catch_up()
        now = self._clock()
        right = list(self.right.values())
        return {
            "labelled": self.labelled,
            "others": {kind: self._counts[kind, None] for kind in ("none", "open", "tie")},
            "people": sorted(who for who, hand in self._hands.items() if now - hand.seen < IDLE_SECONDS),
            "right": [sum(right[-RECENT:]), len(right[-RECENT:])],
            "curve": curve(right),
        }


def curve(right: Sequence[bool], points: int = 60) -> list[tuple[int, float]]:
    """How often the model was right over the RECENT answers before: (answers so far, share), about `points` of them."""
    sums = [0, *accumulate(right)]
    first, step = RECENT // 3, max(1, len(right) // points)
    ends = range(len(right), first - 1, -step)[::-1]
    return [(end, (sums[end] - sums[max(0, end - RECENT)]) / min(end, RECENT)) for end in ends]
