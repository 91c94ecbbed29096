"""Scores: against scikit-learn, published intervals and hand computation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, log_loss, precision_score, recall_score

from rlnas.errors import DataError
from rlnas.scores import Scores, score_predictions, wilson_interval


def predictions(examples: int = 400, ways: int = 5, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Predictions that are right about half of the time, of classes that are not equally frequent."""
    rng = np.random.default_rng(seed)
    y = rng.choice(ways, examples, p=np.arange(1, ways + 1) / sum(range(1, ways + 1)))
    logits = rng.standard_normal((examples, ways)) + 1.2 * np.eye(ways)[y]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), y


def test_scores_agree_with_scikit_learn() -> None:
    probabilities, y = predictions()
    named, scores = probabilities.argmax(1), score_predictions(probabilities, y)
    assert scores.examples == 400
    assert scores.accuracy == (named == y).mean()
    assert scores.balanced_accuracy == pytest.approx(balanced_accuracy_score(y, named))
    assert scores.loss == pytest.approx(log_loss(y, probabilities))
    assert np.array_equal(scores.confusion, confusion_matrix(y, named))
    assert scores.recalls == pytest.approx(tuple(recall_score(y, named, average=None)))
    assert scores.precisions == pytest.approx(tuple(precision_score(y, named, average=None)))


@pytest.mark.parametrize(
    ("right", "examples", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_wilsons(right: int, examples: int, low: float, high: float) -> None:
    """The four examples of Newcombe 1998, table I, method 3."""
    assert wilson_interval(right, examples) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(examples - right, examples) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_calibration_by_hand() -> None:
    """Two at .9 of which one is right, one at .6 that is right: gaps .4, .4 and a third at .5 that is wrong."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.5, 0.5]])
    scores = score_predictions(probabilities, np.array([0, 1, 1, 1]))
    assert scores.calibration_error == pytest.approx((2 * 0.4 + 0.4 + 0.5) / 4)
    filled = [(b.count, b.confidence, b.accuracy) for b in scores.bins if b.count]
    assert filled == [(1, 0.5, 0.0), (1, 0.6, 1.0), (2, 0.9, 0.5)]
    assert all(b.accuracy is None for b in scores.bins if not b.count)
    assert [b.low for b in scores.bins[1:]] == [b.high for b in scores.bins[:-1]]


def test_a_class_without_examples_is_left_out_of_the_balanced_accuracy() -> None:
    scores = score_predictions(np.eye(3)[[0, 1, 1, 2]], np.array([0, 0, 1, 1]))
    assert scores.recalls == (0.5, 0.5, None)
    assert scores.precisions == (1.0, 0.5, 0.0)
    assert scores.balanced_accuracy == 0.5


def test_json_holds_them_whole() -> None:
    scores = score_predictions(*predictions(60))
    assert Scores.from_json(json.loads(json.dumps(scores.to_json()))) == scores


def test_probabilities_must_be_finite() -> None:
    with pytest.raises(DataError, match="finite"):
        score_predictions(np.array([[0.5, 0.5], [np.nan, np.nan]]), np.array([0, 1]))


@pytest.mark.parametrize(
    ("shape", "y", "words"),
    [((3, 2), [0, 1], "(3, 2) and (2,)"), ((0, 2), [], "N >= 1"), ((2, 2), [0, 2], "labels must lie in 0 .. 1")],
)
def test_what_does_not_fit_is_refused(shape: tuple[int, int], y: list[int], words: str) -> None:
    with pytest.raises(DataError) as caught:
        score_predictions(np.full(shape, 0.5), np.array(y, dtype=np.int64))
    assert words in str(caught.value)
