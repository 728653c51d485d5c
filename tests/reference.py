"""Slow, obvious versions of the methods, written from their papers: one example, one number, one line at a time."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def least_confidence(probs: NDArray[np.float64]) -> list[float]:
    return [1 - max(float(p) for p in row) for row in probs]


def margin(probs: NDArray[np.float64]) -> list[float]:
    values = []
    for row in probs:
        first, second, *_ = sorted([float(p) for p in row] + [0.0], reverse=True)
        values.append(-(first - second))
    return values


def entropy(probs: NDArray[np.float64]) -> list[float]:
    return [-math.fsum(float(p) * math.log(p) for p in row if p > 0) for row in probs]


def forgetting(correct: NDArray[np.uint8]) -> list[float]:
    values = []
    for history in correct.T:
        seen = [int(shown) for shown in history if shown != 255]
        events = sum(before == 1 and after == 0 for before, after in pairwise(seen))
        values.append(float(events if 1 in seen else len(history)))
    return values


def squared(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(((a - b) ** 2).sum())


def k_center(
    points: NDArray[np.float64], chosen: Sequence[int], candidates: Sequence[int], budget: int
) -> tuple[list[int], list[float]]:
    """Positions and gains; `chosen` is not empty; of equally far candidates the earlier in the list goes first."""
    chosen, left = list(chosen), list(candidates)
    picks, gains = [], []
    for _ in range(budget):
        distances = [min(squared(points[i], points[c]) for c in chosen) for i in left]
        farthest = distances.index(max(distances))
        gains.append(math.sqrt(distances[farthest]))
        picks.append(left.pop(farthest))
        chosen.append(picks[-1])
    return picks, gains


def radius(points: NDArray[np.float64], chosen: Sequence[int]) -> float:
    """The largest distance of a point to its nearest chosen one: what k-center makes small."""
    return math.sqrt(max(min(squared(p, points[c]) for c in chosen) for p in points))


def coverage(similarity: Sequence[Sequence[float]], ground: Sequence[int], chosen: Sequence[int]) -> float:
    """What facility location maximises."""
    return math.fsum(max([0.0, *(similarity[v][s] for s in chosen)]) for v in ground)


def cut(similarity: Sequence[Sequence[float]], ground: Sequence[int], chosen: Sequence[int], lambda_: float) -> float:
    """What graph cut maximises."""
    represented = math.fsum(similarity[v][s] for v in ground for s in chosen)
    return lambda_ * represented - math.fsum(similarity[s][t] for s in chosen for t in chosen)


def greedy(
    value: Callable[[Sequence[int]], float], chosen: Sequence[int], candidates: Sequence[int], budget: int
) -> tuple[list[int], list[float]]:
    """Positions and gains: what adds most to `value`, again and again; of equals the earlier candidate goes first."""
    chosen, left = list(chosen), list(candidates)
    picks, gains = [], []
    for _ in range(budget):
        now = value(chosen)
        added = [value([*chosen, c]) - now for c in left]
        best = added.index(max(added))
        gains.append(added[best])
        picks.append(left.pop(best))
        chosen.append(picks[-1])
    return picks, gains


def neighbors(
    points: NDArray[np.float64], queries: Sequence[int], base: Sequence[int], k: int
) -> list[tuple[list[int], list[float]]]:
    """For each query the nearest of the base but itself, and their squared distances; of equals the earlier in the list."""
    found = []
    for i in queries:
        pairs = [(squared(points[i], points[j]), place) for place, j in enumerate(base) if j != i]
        best = sorted(pairs)[:k]
        found.append(([int(base[place]) for _, place in best], [square for square, _ in best]))
    return found


def nearest_centre(points: NDArray[np.float64], centres: NDArray[np.float64]) -> list[int]:
    """The number of the nearest centre of each point; of equally near ones the first."""
    labels = []
    for point in points:
        squares = [squared(point, centre) for centre in centres]
        labels.append(squares.index(min(squares)))
    return labels


def typiclust(
    points: NDArray[np.float64],
    clusters: Sequence[Sequence[int]],
    already: Sequence[int],
    candidates: Sequence[int],
    budget: int,
) -> list[int]:
    """From the largest of the clusters with the fewest chosen, of 5 or more where there are: the most typical candidate."""
    chosen, picks = list(already), []
    while len(picks) < budget:
        open_ = [c for c in clusters if any(i in candidates and i not in chosen for i in c)]
        big = [c for c in open_ if len(c) >= 5] or open_
        fewest = min(sum(i in chosen for i in c) for c in big)
        cluster = max((c for c in big if sum(i in chosen for i in c) == fewest), key=len)
        typicality = []
        for i in (i for i in candidates if i in cluster and i not in chosen):
            near = sorted(math.sqrt(squared(points[i], points[j])) for j in cluster if j != i)[:20]
            typicality.append((-float(np.mean(near)) if near else 0.0, i))
        best = max(value for value, _ in typicality)
        picks.append(next(i for value, i in typicality if value == best))
        chosen.append(picks[-1])
    return picks


def max_cover(
    points: NDArray[np.float64],
    ground: Sequence[int],
    already: Sequence[int],
    candidates: Sequence[int],
    budget: int,
    radius: float,
) -> tuple[list[int], list[int]]:
    """The candidate whose ball holds the most uncovered points, again and again, until all are covered."""
    balls = {i: {j for j in ground if math.sqrt(squared(points[i], points[j])) <= radius} for i in ground}
    covered = set().union(*(balls[i] for i in already))
    picks: list[int] = []
    gains: list[int] = []
    while len(picks) < budget:
        counts = [len(balls[i] - covered) if i not in picks else 0 for i in candidates]
        if not max(counts):
            break
        picks.append(candidates[counts.index(max(counts))])
        gains.append(max(counts))
        covered |= balls[picks[-1]]
    return picks, gains


def purity(points: NDArray[np.float64], labels: Sequence[int], radius: float) -> float:
    """The share of points in whose ball there is nobody with another label."""
    pure = [
        all(math.sqrt(squared(x, y)) > radius or a == b for y, b in zip(points, labels, strict=True))
        for x, a in zip(points, labels, strict=True)
    ]
    return sum(pure) / len(pure)


def d2(
    scores: Sequence[float],
    points: NDArray[np.float64],
    ground: Sequence[int],
    already: Sequence[int],
    candidates: Sequence[int],
    budget: int,
    k: int,
    gamma_f: float,
    gamma_r: float,
    chosen: Sequence[int] | None = None,
) -> tuple[list[int], list[float], list[float]]:
    """Forward messages once, then the highest score, then backward messages, and so on; before them those of `already`, in turn.

    chosen   take these, whatever their scores
    returns  the picks, their scores, and the highest score at the time of each
    """
    near = {
        i: [(j, math.sqrt(square)) for j, square in zip(names, squares, strict=True)]
        for i, (names, squares) in zip(ground, neighbors(points, ground, ground, k), strict=True)
    }
    lengths = [length for pairs in near.values() for _, length in pairs]
    mean = sum(lengths) / len(lengths) if sum(lengths) else 1.0
    first = {i: scores[i] - min(0.0, *(scores[j] for j in ground)) for i in ground}
    now = {i: first[i] + sum(math.exp(-gamma_f * (x / mean) ** 2) * first[j] for j, x in near[i]) for i in ground}

    def take(places: Sequence[int], n: int, order: Sequence[int] | None) -> tuple[list[int], list[float], list[float]]:
        waiting, picks, gains, highest = list(places), [], [], []
        for step in range(n):
            best = max(waiting, key=now.__getitem__)
            picks.append(best if order is None else order[step])
            gains.append(now[picks[-1]])
            highest.append(now[best])
            waiting.remove(picks[-1])
            for j, x in near[picks[-1]]:
                now[j] -= math.exp(-gamma_r * (x / mean) ** 2) * gains[-1]
        return picks, gains, highest

    take(already, len(already), already)
    return take(candidates, budget, chosen)


def seals(
    scores: Sequence[float],
    points: NDArray[np.float64],
    ground: Sequence[int],
    already: Sequence[int],
    candidates: Sequence[int],
    budget: int,
    k: int,
) -> list[int]:
    """The highest scores among the neighbours of `already`, then those of the rest; of equals the earlier in the list."""
    pool = {j for names, _ in neighbors(points, already, ground, k) for j in names}
    order = sorted(range(len(candidates)), key=lambda p: (candidates[p] not in pool, -scores[candidates[p]], p))
    return [candidates[p] for p in order[:budget]]


def shown(history: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in history if not math.isnan(value)]


def el2n(norms: NDArray[np.float64], epochs: int) -> list[float]:
    return [math.fsum(shown(history[:epochs])) / len(shown(history[:epochs])) for history in norms.T]


def aum(margins: NDArray[np.float64]) -> list[float]:
    return [-math.fsum(shown(history)) / len(shown(history)) for history in margins.T]


def data_map(p_true: NDArray[np.float64], correct: NDArray[np.uint8]) -> dict[str, list[float]]:
    maps: dict[str, list[float]] = {"variability": [], "confidence": [], "correctness": []}
    for probabilities, right in zip(p_true.T, correct.T, strict=True):
        seen = shown(probabilities)
        mean = math.fsum(seen) / len(seen)
        maps["variability"].append(math.sqrt(math.fsum((p - mean) ** 2 for p in seen) / len(seen)))
        maps["confidence"].append(-mean)
        answers = [int(r) for r in right if r != 255]
        maps["correctness"].append(-sum(answers) / len(answers))
    return maps


def grand(probs: NDArray[np.float64], embeddings: NDArray[np.float64], labels: Sequence[int]) -> list[float]:
    """The norm of the gradient itself, entry by entry: d loss / d W_cj = (p_c - y_c) e_j, d loss / d b_c = p_c - y_c."""
    values = []
    for p, e, y in zip(probs, embeddings, labels, strict=True):
        gradient = [(float(p[c]) - (c == y)) * float(x) for c in range(len(p)) for x in [*e, 1.0]]
        values.append(math.sqrt(math.fsum(g * g for g in gradient)))
    return values


def moderate(embeddings: NDArray[np.float64], labels: Sequence[int], *, per_class: bool) -> list[float]:
    labels = list(labels)
    centre = {
        y: [math.fsum(embeddings[i, j] for i in range(len(labels)) if labels[i] == y) / labels.count(y)
            for j in range(embeddings.shape[1])]
        for y in set(labels)
    }  # fmt: skip
    distance = [math.dist(e, centre[y]) for e, y in zip(embeddings.tolist(), labels, strict=True)]
    values = []
    for i, y in enumerate(labels):
        peers = sorted(d for d, other in zip(distance, labels, strict=True) if other == y or not per_class)
        median = (peers[(len(peers) - 1) // 2] + peers[len(peers) // 2]) / 2
        values.append(-abs(distance[i] - median))
    return values


def evenly(total: int, sizes: Sequence[int], have: Sequence[int]) -> list[int]:
    """One more for whoever has least and is not full, again and again."""
    counts = list(have)
    while sum(counts) < total:
        counts[min((c, i) for i, c in enumerate(counts) if c < sizes[i])[1]] += 1
    return counts


def strata_counts(scores: Sequence[float], budget: int, drop: int, bins: int) -> dict[int, int]:
    """How many of each bin (by number, from the lowest scores) coverage-centric selection takes; algorithm 1, line by line."""
    kept = sorted(scores)[: len(scores) - drop]
    low, high = kept[0], kept[-1]
    members: dict[int, int] = dict.fromkeys(range(bins), 0)
    for s in kept:
        members[min(int((s - low) / (high - low) * bins), bins - 1)] += 1
    left, m, taken = set(members), budget, {}
    while left:
        smallest = min(left, key=lambda b: (members[b], b))
        taken[smallest] = min(members[smallest], m // len(left))
        left.remove(smallest)
        m -= taken[smallest]
    return taken


def average_linkage(points: NDArray[np.float64], n_clusters: int) -> list[set[int]]:
    clusters = [{i} for i in range(len(points))]

    def apart(a: set[int], b: set[int]) -> float:
        return math.fsum(math.dist(points[i], points[j]) for i in a for j in b) / (len(a) * len(b))

    while len(clusters) > n_clusters:
        pairs = [(apart(a, b), i, j) for i, a in enumerate(clusters) for j, b in enumerate(clusters) if i < j]
        _, i, j = min(pairs)
        clusters[i] |= clusters.pop(j)
    return clusters


def cluster_margin(
    scores: Sequence[float],
    points: NDArray[np.float64],
    order: Sequence[int],
    budget: int,
    pool: int,
    n_clusters: int,
    already: Sequence[int] = (),
) -> list[int]:
    """Positions; `order` is the chance by which a cluster's members come, and by which clusters of one size come."""
    first = [*already, *sorted((i for i in order if i not in already), key=lambda i: -scores[i])[:pool]]
    clusters = [{first[i] for i in c} for c in average_linkage(points[first], n_clusters)]
    sizes = {i: len(cluster) for cluster in clusters for i in cluster}
    # Who is chosen already had the first turns of the cluster.
    queues = [[i for i in order if i in cluster and i in already] for cluster in clusters]
    queues = [own + [i for i in order if i in c and i not in already] for own, c in zip(queues, clusters, strict=True)]
    queues = [queue for queue in queues if set(queue) - set(already)]
    own = [min(i for i in map(list(order).index, queue) if order[i] not in already) for queue in queues]
    queues = [queue for _, queue in sorted(zip(own, queues, strict=True), key=lambda q: (sizes[q[1][0]], q[0]))]
    picks: list[int] = []
    while len(picks) < budget:
        picks += [i for i in [queue.pop(0) for queue in queues if queue] if i not in already]
    return picks[:budget]


def herding_distances(points: NDArray[np.float64], chosen: Sequence[int], mean: NDArray[np.float64]) -> list[float]:
    """|(t + 1) mu - sum of the chosen - e_i| for each point."""
    total = (len(chosen) + 1) * mean - sum((points[c] for c in chosen), np.zeros(points.shape[1]))
    return [math.dist(total, e) for e in points]


def badge(
    probs: NDArray[np.float64],
    embeddings: NDArray[np.float64],
    chosen: Sequence[int],
    candidates: Sequence[int],
    budget: int,
    uniform: Callable[[int], NDArray[np.float64]],
) -> tuple[list[int], list[float]]:
    """k-means++ on the gradients themselves, (n, c d). `uniform(t)` are the (n,) chances of pick t."""
    guess = np.eye(probs.shape[1])[probs.argmax(axis=1)]
    gradients = [np.outer(p, e).ravel() for p, e in zip(probs - guess, embeddings, strict=True)]
    chosen, left, picks, gains = list(chosen), list(candidates), [], []
    for _ in range(budget):
        if not chosen:
            lengths = [float((gradients[i] ** 2).sum()) for i in left]
            pick, gain = left[lengths.index(max(lengths))], math.nan
        else:
            near = [min(squared(gradients[i], gradients[c]) for c in chosen) for i in left]
            chance = uniform(len(chosen))
            arrivals = [-math.log(chance[i]) / d if d else math.inf for i, d in zip(left, near, strict=True)]
            first = arrivals.index(min(arrivals))
            pick, gain = left[first], math.sqrt(near[first])
        left.remove(pick)
        chosen.append(pick)
        picks.append(pick)
        gains.append(gain)
    return picks, gains
