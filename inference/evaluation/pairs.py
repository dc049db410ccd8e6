"""Choose the view pairs that are scored, and measure the angles between cameras."""

import hashlib
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rendering.cameras import Array, pose_between

MIN_WRONG_DEGREES = 45.0  # minimum angle between the target camera and a wrong one


@dataclass(frozen=True)
class Pair:
    """An input view and a target view of one object.

    Attributes:
        input: Index of the input view.
        target: Index of the target view.
        wrong: Camera centre `[3]` that lies at least `MIN_WRONG_DEGREES` from the target's.
    """

    input: int
    target: int
    wrong: tuple[float, float, float]


def random_generator(*words: object) -> np.random.Generator:
    """Return a generator that depends on the words only, such as a seed and a uid."""
    return np.random.default_rng(np.frombuffer(_digest(*words), dtype="<u4"))


def hashed_seed(*words: object) -> int:
    """Return a seed in [0, 2^63) that depends on the words only."""
    return int.from_bytes(_digest(*words)[:8], "big") >> 1


def choose_pairs(seed: int, uid: str, centres: Array, count: int) -> list[Pair]:
    """Return the pairs of an object, which depend on `seed` and `uid` only and are spread over the angles.

    Pair k is the one whose angle between the cameras is nearest to a random angle in the k-th of `count` equal parts of
    [0°, 180°]. A view is repeated as input (or target) only after all others.

    Args:
        seed: Seed of the choice.
        uid: Object.
        centres: Camera centres `[views, 3]`.
        count: Number of pairs; at most views · (views - 1).
    """
    rng = random_generator("pairs", seed, uid)
    ordered = list(itertools.permutations(range(len(centres)), 2))
    candidates = [ordered[i] for i in rng.permutation(len(ordered))]
    angles = {(i, j): angle_degrees(centres[i], centres[j]) for i, j in ordered}
    goals = (rng.permutation(count) + rng.random(count)) * 180 / count
    inputs, targets, pairs = [0] * len(centres), [0] * len(centres), list[Pair]()
    for goal in goals:
        best = min(candidates, key=lambda pair: (inputs[pair[0]], targets[pair[1]], abs(angles[pair] - goal)))
        candidates.remove(best)
        input, target = best
        inputs[input] += 1
        targets[target] += 1
        pairs += fixed_pairs(seed, uid, centres, input, [target])
    return pairs


def fixed_pairs(seed: int, uid: str, centres: Array, input: int, targets: Iterable[int]) -> list[Pair]:
    """Return the pairs of one input view and several targets; only their wrong cameras depend on `seed` and `uid`."""
    return [
        Pair(input, target, _wrong_camera(random_generator("wrong", seed, uid, target), centres, input, target))
        for target in targets
    ]


def _wrong_camera(rng: np.random.Generator, centres: Array, input: int, target: int) -> tuple[float, float, float]:
    """Return the centre of another view of the object, far from the target's; opposite the target if there is none."""
    far = [
        i for i in range(len(centres)) if i != input and angle_degrees(centres[i], centres[target]) >= MIN_WRONG_DEGREES
    ]
    x, y, z = (centres[rng.choice(far)] if far else -centres[target]).tolist()
    return x, y, z


def angle_degrees(one: ArrayLike, two: ArrayLike) -> float:
    """Return the great-circle angle between the directions of two camera centres `[3]`, degrees."""
    one, two = np.asarray(one, dtype=np.float64), np.asarray(two, dtype=np.float64)
    return math.degrees(math.atan2(np.linalg.norm(np.cross(one, two)), one @ two))  # exact near 0° and 180°


def azimuth_change_degrees(target: ArrayLike, input: ArrayLike) -> float:
    """Return the absolute change of the azimuth between two camera centres `[3]`, degrees in [0, 180]."""
    _, sine, cosine, _ = pose_between(np.asarray(target), np.asarray(input))
    return abs(math.degrees(math.atan2(sine, cosine)))


def _digest(*words: object) -> bytes:
    return hashlib.sha256(" ".join(map(str, words)).encode()).digest()
