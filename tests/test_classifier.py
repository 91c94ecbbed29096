"""The estimator: what scikit-learn asks of one, and images, folders and datasets."""

from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits, load_wine
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import rlnas
from rlnas.agents.classifier import ArchitectureSearchClassifier
from rlnas.errors import ConfigurationError, DataError
from rlnas.final_training import FinalTraining

QUICK = FinalTraining(width=1, epochs=1, min_steps=60, batch=32, refit=False, threads=1)


def classifier(**changes: Any) -> ArchitectureSearchClassifier:
    usual = {"agent": "random", "designs": 2, "rungs": 1, "fidelity": "30x5", "training": QUICK, "random_state": 0}
    return ArchitectureSearchClassifier(**{**usual, **changes})


@parametrize_with_checks([classifier()])  # type: ignore[untyped-decorator]
def test_it_is_what_scikit_learn_calls_a_classifier(estimator: Any, check: Any) -> None:
    check(estimator)


def bright_halves(examples: int = 60) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    y = np.array(["left", "right"])[np.arange(examples) % 2]
    x = rng.integers(0, 100, (examples, 8, 8))
    x[y == "left", :, :4] += 150
    x[y == "right", :, 4:] += 150
    return x.astype(np.uint8), y


def test_it_is_found_in_the_package_and_imports_nothing_before() -> None:
    assert rlnas.ArchitectureSearchClassifier is ArchitectureSearchClassifier
    assert ArchitectureSearchClassifier().agent == "pretrained"


def test_images_of_any_form_are_learned() -> None:
    x, y = bright_halves()
    fitted = classifier().fit(x, y)
    assert fitted.classes_.tolist() == ["left", "right"]
    assert fitted.n_features_in_ == 64
    assert fitted.score(x, y) > 0.9
    probabilities = fitted.predict_proba(x)
    assert probabilities.shape == (60, 2)
    assert fitted.predict(x).tolist() == fitted.classes_[probabilities.argmax(1)].tolist()
    flat = classifier(image_shape=(8, 8)).fit(x.reshape(60, -1), y)
    np.testing.assert_allclose(flat.predict_proba(x.reshape(60, -1)), probabilities, atol=1e-6)
    colours = classifier().fit(np.repeat(x[..., None], 3, axis=3), y)
    assert colours.model_.preprocessing.input_shape == (3, 8, 8)
    assert fitted.best_architecture_.text == fitted.leaderboard_[0]["architecture"]
    assert fitted.best_architecture_._repr_svg_().startswith("<svg")
    assert [row["rank"] for row in fitted.leaderboard_] == list(range(1, len(fitted.leaderboard_) + 1))


def test_folders_and_datasets_are_learned(tmp_path: Path) -> None:
    x, y = bright_halves(40)
    for number, (image, label) in enumerate(zip(x, y, strict=True)):
        (tmp_path / label).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / label / f"{number:02}.png")
    fitted = classifier().fit(tmp_path)
    assert fitted.classes_.tolist() == ["left", "right"]
    assert (fitted.predict(x) == y).mean() > 0.9
    tensors = torch.utils.data.TensorDataset(
        torch.from_numpy(x)[:, None].float() / 255, torch.from_numpy((y == "right").astype(np.int64))
    )
    learned = classifier().fit(tensors)
    assert learned.classes_.tolist() == [0, 1]
    assert learned.model_.preprocessing.input_shape == (1, 8, 8)
    assert (learned.predict(x / 255.0) == (y == "right")).mean() > 0.9


def test_it_works_in_a_pipeline_and_a_grid() -> None:
    x, y = load_wine(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), classifier())
    assert pipeline.fit(x, y).score(x, y) > 0.8
    digits, labels = load_digits(n_class=3, return_X_y=True)
    grid = GridSearchCV(classifier(image_shape=(8, 8)), {"designs": [2, 3]}, cv=2)
    grid.fit(digits[:150], labels[:150])
    assert set(grid.best_params_) == {"designs"}
    assert grid.predict(digits[:5]).shape == (5,)


def test_the_global_generators_stay_their_owners() -> None:
    x, y = bright_halves(40)
    drawn = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        classifier().fit(x, y)
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        assert drawn[-1] == (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002
    assert drawn[0] != drawn[1]


def test_numbers_of_numpy_are_numbers() -> None:
    x, y = bright_halves(40)
    fitted = classifier(
        designs=np.int64(2), max_seconds=np.int64(30), validation=np.float32(0.25), image_size=np.int64(8)
    )
    assert fitted.fit(x, y).score(x, y) > 0.8


def test_images_of_a_dataset_are_shrunk_as_they_are_read() -> None:
    x = np.random.default_rng(0).random((20, 3, 64, 80), dtype=np.float32)
    tensors = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.arange(20) % 2)
    fitted = classifier(image_size=8).fit(tensors)
    assert fitted.model_.preprocessing.input_shape == (3, 8, 10)
    assert fitted.predict_proba(np.moveaxis(x, 1, -1)).shape == (20, 2)


def test_equal_seeds_give_equal_models_that_survive_pickling() -> None:
    x, y = bright_halves(40)
    first, second = (clone(classifier(random_state=7)).fit(x, y).predict_proba(x) for _ in range(2))
    assert np.array_equal(first, second)
    fitted = classifier(random_state=7).fit(x, y)
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(x), first)


def test_what_cannot_serve_is_told_in_one_line() -> None:
    x, y = bright_halves()
    for changes, x_given, y_given, error, message in (
        ({}, x, None, ConfigurationError, "requires y to be passed"),
        ({"image_shape": (9, 9)}, x.reshape(60, -1), y, ConfigurationError, "image_shape must be"),
        ({"agent": "nobody"}, x, y, ConfigurationError, "unknown agent 'nobody'"),
        ({"fidelity": "many"}, x, y, ConfigurationError, "fidelity must be EXAMPLESxSTEPS"),
        ({}, x, np.zeros(60), DataError, "1 class"),
        ({}, [(x[0], 1), (x[1, :4], 0)], None, DataError, "items of X must be"),
        ({}, "nowhere", None, DataError, "nowhere"),
    ):
        with pytest.raises(error, match=message) as told:
            classifier(**changes).fit(x_given, y_given)
        assert "\n" not in str(told.value)
