"""Models: what was saved is loaded, predicts the same, and cannot run code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import rlnas
from rlnas import model as model_module
from rlnas.checkpoint import load_checkpoint, save_checkpoint
from rlnas.data_division import divide
from rlnas.errors import CheckpointError, DataError
from rlnas.images import covering
from rlnas.model import Model, load_model
from rlnas.scores import score_predictions
from tests.trained import CELL, CHAIN, colours, digits, trained, wine


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return trained(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(
    ("architecture", "data"),
    [(CELL, colours()), (CHAIN.parse("dense-16"), wine())],
    ids=["cell, colours", "chain, features"],
)
def test_what_is_loaded_predicts_the_same(architecture: object, data: object, tmp_path: Path) -> None:
    made = trained(tmp_path / "folder", architecture, data)  # type: ignore[arg-type]
    made.save(tmp_path / "file.zip")
    x = data.x[:40]  # type: ignore[attr-defined]
    for place in ("folder", "file.zip"):
        found = rlnas.load_model(tmp_path / place)
        assert np.array_equal(found.predict_proba(x), made.predict_proba(x))
        for part in ("architecture", "classes", "validation", "test", "facts"):
            assert getattr(found, part) == getattr(made, part)


def test_the_recorded_accuracy_is_that_of_the_loaded_model(model: Model, tmp_path: Path) -> None:
    data = digits()
    rows = divide(data).test
    model.save(tmp_path)
    found = load_model(tmp_path)
    assert score_predictions(found.predict_proba(data.x[rows]), data.y[rows]) == model.test
    assert np.array_equal(found.predict(data.x[rows]), found.predict_proba(data.x[rows]).argmax(1))


def test_raw_images_of_any_form_are_predicted(model: Model) -> None:
    """With and without channels, and of another size."""
    x = digits().x[:20]
    expected = model.predict_proba(x)
    assert expected.shape == (20, 10)
    assert expected.dtype == np.float32
    assert np.allclose(expected.sum(1), 1, atol=1e-5)
    assert np.array_equal(model.predict_proba(x[..., 0]), expected)
    large = np.random.default_rng(0).random((5, 20, 26, 1), dtype=np.float32)
    resized = np.stack([covering(image, (8, 8)) for image in large])
    assert np.array_equal(model.predict_proba(large), model.predict_proba(resized))
    assert model.predict_proba(x[:0]).shape == (0, 10)


def test_an_example_is_predicted_alike_in_any_company(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    x = digits().x[:50]
    whole = model.predict_proba(x)
    monkeypatch.setattr(model_module, "PREDICTED_AT_ONCE", 7)
    assert np.allclose(model.predict_proba(x), whole, atol=1e-6)


def test_what_the_network_cannot_see_is_refused(model: Model) -> None:
    with pytest.raises(DataError, match="grey"):
        model.predict(np.zeros((2, 8, 8, 3)))
    with pytest.raises(DataError, match="finite"):
        model.predict(np.full((2, 8, 8), np.nan))
    with pytest.raises(DataError, match=r"must be floats, as those trained on \(up to 16\), got int64"):
        model.predict(digits().x[:2].astype(np.int64))


def test_an_answer_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    data = wine()
    model = trained(tmp_path, CHAIN.parse("dense-16"), data)
    with pytest.raises(DataError, match="example 1 is too far from those trained on"):
        model.predict(np.stack([data.x[0], np.full(14, 3e38)]))


def test_facts_tell_where_a_model_comes_from(model: Model) -> None:
    data, facts = digits(), json.loads(json.dumps(dict(model.facts)))
    assert facts["architecture"] == "conv3x3-4 > max-pool > conv5x5-4 > avg-pool > dense-16"
    assert model.architecture.text == "conv3x3-8 > max-pool > conv5x5-8 > avg-pool > dense-32"
    sizes = {part: len(getattr(divide(data), part)) for part in ("train", "validation", "test")}
    assert facts["data"] == {"name": "digits", "kind": "images", "digest": data.digest, **sizes}
    assert facts["training"]["config"]["seed"] == 0
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["parameters"] == sum(p.numel() for p in model.network.parameters())
    assert [epoch["stage"] for epoch in facts["epochs"]][:3] == ["train", "train", "refit"]


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("kind", "agent", "holds 'agent', not a trained network"),
        ("classes", ["a", "b"], "damaged"),
        ("architecture", {"space": {"kind": "chain"}, "choices": [0]}, "damaged"),
        ("preprocessing", {}, "damaged"),
        ("mean", None, "damaged"),
        ("mean", [0.0, 1.0], "damaged"),
        ("test", {"accuracy": 1}, "damaged"),
    ],
)
def test_a_damaged_model_is_refused_in_one_line(
    field: str, value: object, words: str, model: Model, tmp_path: Path
) -> None:
    model.save(tmp_path)
    data, tensors = load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, {**data, field: value}, tensors)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_model(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_package_hands_out_load_model_and_no_unknown_name() -> None:
    assert rlnas.load_model is load_model
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        rlnas.load_modle  # noqa: B018
