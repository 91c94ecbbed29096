"""How good a trained classifier is: accuracy with its interval, each class's share, and calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import DataError

BINS = 15
"""Bins of a reliability diagram, as Guo et al. 2017 (https://arxiv.org/abs/1706.04599) draw it."""


@dataclass(frozen=True)
class ReliabilityBin:
    """The predictions whose confidence, the probability of the class they name, lies in (low, high].

    Args:
        low: lower end.
        high: upper end.
        count: predictions in the bin.
        confidence: their mean confidence; None where there are none.
        accuracy: the share of them that is right; likewise.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Scores:
    """What predictions are worth against the true classes. Rates lie in [0, 1].

    Args:
        examples: how many were predicted.
        accuracy: the share that is right.
        interval: Wilson's 95% interval of the accuracy, (low, high).
        balanced_accuracy: mean of :attr:`recalls` over the classes that occur.
        loss: mean cross-entropy in nats.
        calibration_error: the expected calibration error: the mean distance of a bin's accuracy from its confidence,
            weighted by its predictions.
        confusion: how many examples of each class (row) were named as each class (column).
        bins: the reliability diagram.
    """

    examples: int
    accuracy: float
    interval: tuple[float, float]
    balanced_accuracy: float
    loss: float
    calibration_error: float
    confusion: tuple[tuple[int, ...], ...]
    bins: tuple[ReliabilityBin, ...]

    @property
    def recalls(self) -> tuple[float | None, ...]:
        """Of each class the share of its examples that is named right; None where it has none."""
        return tuple(_share(row[i], sum(row)) for i, row in enumerate(self.confusion))

    @property
    def precisions(self) -> tuple[float | None, ...]:
        """Of each class the share of the examples named so that is right; None where none is."""
        columns = zip(*self.confusion, strict=True)
        return tuple(_share(column[i], sum(column)) for i, column in enumerate(columns))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        numbers = {f.name: getattr(self, f.name) for f in fields(self)}
        confusion, bins = [list(row) for row in self.confusion], [asdict(b) for b in self.bins]
        return {**numbers, "interval": list(self.interval), "confusion": confusion, "bins": bins}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scores:
        """The scores that :meth:`to_json` described."""
        low, high = data["interval"]
        read = {
            "interval": (low, high),
            "confusion": tuple(tuple(row) for row in data["confusion"]),
            "bins": tuple(ReliabilityBin(**entry) for entry in data["bins"]),
        }
        return cls(**{f.name: read.get(f.name, data[f.name]) for f in fields(cls)})


def score_predictions(probabilities: NDArray[Any], y: NDArray[np.int64]) -> Scores:
    """Score predicted probabilities.

    Args:
        probabilities: of shape (N, ways), each row summing to 1; the most probable class is the one named.
        y: the true classes in 0 .. ways - 1, of shape (N,).

    Raises:
        DataError: if the shapes disagree, there is no example, a class is out of range, or a probability is not finite.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2 or y.shape != probabilities.shape[:1] or not len(y):
        raise DataError(f"needs probabilities (N, ways) of N >= 1 labels, got {probabilities.shape} and {y.shape}")
    examples, ways = probabilities.shape
    if not np.isfinite(probabilities).all():
        raise DataError("probabilities must be finite")
    if y.min() < 0 or y.max() >= ways:
        raise DataError(f"labels must lie in 0 .. {ways - 1}, found {y.min()} .. {y.max()}")
    named = probabilities.argmax(1)
    confusion = np.zeros((ways, ways), dtype=np.int64)
    np.add.at(confusion, (y, named), 1)
    of_class, right = confusion.sum(1), int(confusion.trace())
    recalls = confusion.diagonal()[of_class > 0] / of_class[of_class > 0]
    bins = _reliability(probabilities.max(1), named == y)
    gaps = [
        b.count * abs(b.accuracy - b.confidence) for b in bins if b.accuracy is not None and b.confidence is not None
    ]
    truth = probabilities[np.arange(examples), y]
    return Scores(
        examples=examples,
        accuracy=right / examples,
        interval=wilson_interval(right, examples),
        balanced_accuracy=float(recalls.mean()),
        loss=float(-np.log(np.maximum(truth, np.finfo(np.float32).tiny)).mean()),
        calibration_error=sum(gaps) / examples,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        bins=bins,
    )


def wilson_interval(right: int, examples: int) -> tuple[float, float]:
    """The 95% interval of a share of which ``right`` of ``examples`` were seen (Wilson 1927)."""
    z2 = 1.959963984540054**2
    share = right / examples
    centre = (share + z2 / (2 * examples)) / (1 + z2 / examples)
    half = math.sqrt(z2 * (share * (1 - share) + z2 / (4 * examples)) / examples) / (1 + z2 / examples)
    # At the ends the formula gives exactly 0 and 1, but for rounding.
    return (0.0 if right == 0 else centre - half), (1.0 if right == examples else centre + half)


def _reliability(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[ReliabilityBin, ...]:
    edges = np.linspace(0, 1, BINS + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS).tolist()
    confidences = np.bincount(place, confidence, BINS).tolist()
    rights = np.bincount(place, right, BINS).tolist()
    return tuple(
        ReliabilityBin(float(low), float(high), count, _share(total, count), _share(hits, count))
        for low, high, count, total, hits in zip(edges[:-1], edges[1:], counts, confidences, rights, strict=True)
    )


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None
