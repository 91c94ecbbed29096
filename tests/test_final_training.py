"""Full training: what it comes to, that it may be interrupted anywhere, and that the test part stays unseen."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from rlnas import final_training, training_state, wide_network
from rlnas.augmentation import AUGMENTATIONS, augment
from rlnas.checkpoint import load_checkpoint, save_checkpoint
from rlnas.data_division import divide
from rlnas.errors import CheckpointError, ConfigurationError, RlnasError
from rlnas.final_training import CHECKPOINT, Epoch, FinalTraining, train_fully, widened
from rlnas.graph import Conv, Dense
from rlnas.model import Model
from rlnas.search_space import CellSpace
from rlnas.training_state import TrainingState, rate
from tests.trained import CELL, CHAIN, QUICK, SMALL, colours, digits, trained, wine


def weights_digest(model: Model) -> str:
    return hashlib.sha256(save(model.network.state_dict())).hexdigest()


def worth(epoch: Epoch) -> tuple[float, float]:
    """By what one epoch is better than another."""
    assert epoch.validation_accuracy is not None
    assert epoch.validation_loss is not None
    return epoch.validation_accuracy, -epoch.validation_loss


def stop_after(steps: int) -> Callable[[], bool]:
    """Says so when it has been asked that often."""
    asked = itertools.count()
    return lambda: next(asked) >= steps


def test_widened_layers_have_so_many_times_the_units() -> None:
    wide = widened(SMALL, 3)
    pairs = zip(SMALL.graph(10), wide.graph(10), strict=True)
    for narrow, broad in ((a.operation, b.operation) for a, b in pairs):
        if isinstance(narrow, Conv | Dense):
            assert broad == replace(narrow, width=3 * narrow.width)
        else:
            assert broad == narrow
    assert (wide.choices, widened(SMALL, 1)) == (SMALL.choices, SMALL)
    assert widened(CELL, 2).space == CellSpace(width=8)
    assert widened(CELL, 2).text == CELL.text


def test_digits_are_learned(tmp_path: Path) -> None:
    """Nearest neighbours have .97 to .99 of the whole set; 60 epochs of a small network on a third of it, .9."""
    told: list[Epoch] = []
    data = digits()
    config = replace(QUICK, width=4, epochs=60, refit=False)
    model = train_fully(SMALL, data, divide(data), config, tmp_path, on_epoch=told.append)
    assert model is not None
    assert model.test is not None
    assert model.validation is not None
    assert model.test.accuracy > 0.9
    assert model.test.examples == len(divide(data).test)
    best = max(told, key=worth)
    assert model.validation.accuracy == best.validation_accuracy
    assert model.validation.loss == pytest.approx(best.validation_loss, abs=1e-5)
    assert [epoch.position for epoch in told] == list(range(1, len(told) + 1))


@pytest.mark.parametrize(("architecture", "data"), [(CELL, colours()), (CHAIN.parse("dense-16 > dense-16"), wine())])
def test_colours_and_features_are_learned(architecture: Any, data: Any, tmp_path: Path) -> None:
    model = trained(tmp_path, architecture, data, replace(QUICK, epochs=25, batch=32, learning_rate=5e-3))
    assert model.test is not None
    assert model.test.accuracy > 0.85


def test_an_interrupted_training_comes_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped at ten random steps of 2 x 3 epochs of 3 steps and more, with checkpoints at every epoch."""
    monkeypatch.setattr(final_training, "SECONDS_BETWEEN_SAVES", 0.0)
    data, config = digits(), replace(QUICK, epochs=3)
    division = divide(data)
    whole = train_fully(SMALL, data, division, config, tmp_path / "whole")
    rng = np.random.default_rng(0)
    for _ in range(10):
        model = train_fully(SMALL, data, division, config, tmp_path / "parts", stop=stop_after(int(rng.integers(7))))
        if model is not None:
            break
    else:
        model = train_fully(SMALL, data, division, config, tmp_path / "parts")
    assert whole is not None
    assert model is not None
    assert weights_digest(model) == weights_digest(whole)
    assert (model.test, model.validation) == (whole.test, whole.validation)
    assert not (tmp_path / "parts" / CHECKPOINT).exists()


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    first = trained(tmp_path)
    data = digits()
    again = train_fully(SMALL, data, divide(data), QUICK, tmp_path, stop=lambda: True)
    assert again is not None
    assert weights_digest(again) == weights_digest(first)


@pytest.mark.parametrize("finished", [True, False])
def test_a_folder_of_another_training_is_refused(
    finished: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(final_training, "SECONDS_BETWEEN_SAVES", 0.0)
    data, config = digits(), replace(QUICK, refit=False)
    division = divide(data)
    made = train_fully(SMALL, data, division, config, tmp_path, stop=stop_after(100 if finished else 5))
    assert (made is not None) == finished
    fewer = digits(500)
    for part, arguments in (
        ("config", (SMALL, data, division, QUICK)),
        ("division", (SMALL, data, divide(data, seed=1), config)),
        ("data", (SMALL, fewer, divide(fewer), config)),
        ("architecture", (CELL, data, division, config)),
    ):
        with pytest.raises(CheckpointError, match=f"another {part}"):
            train_fully(*arguments, tmp_path)
    assert train_fully(SMALL, data, division, replace(config, threads=None), tmp_path) is not None


def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(final_training, "SECONDS_BETWEEN_SAVES", 0.0)
    data = digits()
    division = divide(data)
    assert train_fully(SMALL, data, division, QUICK, tmp_path, stop=stop_after(5)) is None
    kept, tensors = load_checkpoint(tmp_path / CHECKPOINT)
    save_checkpoint(tmp_path / CHECKPOINT, {**kept, "stage": "refit", "history": []}, tensors)
    with pytest.raises(CheckpointError, match="the training state is damaged"):
        train_fully(SMALL, data, division, QUICK, tmp_path)


def test_the_test_part_changes_no_weight(tmp_path: Path) -> None:
    data = digits()
    division = divide(data)
    x, y = data.x.copy(), data.y.copy()
    x[division.test] = 0
    y[division.test] = 0
    models = [train_fully(SMALL, d, division, QUICK, tmp_path / d.digest) for d in (data, replace(data, x=x, y=y))]
    first, other = (model for model in models if model is not None)
    assert weights_digest(first) == weights_digest(other)
    assert first.validation == other.validation
    assert first.test != other.test


def test_a_refit_sees_the_validation_part_for_the_epochs_found(tmp_path: Path) -> None:
    told: list[Epoch] = []
    data, config = digits(), replace(QUICK, epochs=4)
    division = divide(data)
    seen: list[int] = []
    original = training_state.TrainingState._step

    def step(self: training_state.TrainingState, rows: Any, seed: int, learning_rate: float) -> float:
        seen.extend(rows.tolist() if self.stage == "refit" else [])
        return original(self, rows, seed, learning_rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_state.TrainingState, "_step", step)
        train_fully(SMALL, data, division, config, tmp_path, on_epoch=told.append)
    first = [epoch for epoch in told if epoch.stage == "train"]
    best = max(first, key=worth)
    refit = [epoch for epoch in told if epoch.stage == "refit"]
    assert refit[-1].position == best.position
    assert [epoch.progress for epoch in refit] == pytest.approx([(n + 1) / len(refit) for n in range(len(refit))])
    rows, counts = np.unique(seen, return_counts=True)
    assert np.array_equal(rows, np.sort(np.concatenate([division.train, division.validation])))
    assert (counts == best.position).all()


def test_training_stops_when_the_validation_part_gets_no_better(tmp_path: Path) -> None:
    """Of labels that mean nothing there is nothing to learn: soon no epoch is the best any more."""
    data = digits(200)
    data = replace(data, y=np.random.default_rng(0).permutation(data.y))
    told: list[Epoch] = []
    config = replace(QUICK, epochs=100, refit=False, patience=0.05)
    train_fully(SMALL, data, divide(data), config, tmp_path, on_epoch=told.append)
    assert len(told) < 100
    assert len(told) - told.index(max(told, key=worth)) - 1 == 5


class Clock:
    """A clock by which every step takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def tick(self) -> bool:
        self.now += 1
        return False


@pytest.mark.parametrize("seconds", [2, 13, 100])
def test_a_training_ends_in_time(seconds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps make an epoch of the first stage and four of the second; 20 epochs would be 140 seconds."""
    clock = Clock()
    monkeypatch.setattr(training_state.time, "monotonic", clock.monotonic)
    data, told = digits(480), list[Epoch]()
    config = replace(QUICK, epochs=20, max_seconds=seconds)
    model = train_fully(SMALL, data, divide(data), config, tmp_path, stop=clock.tick, on_epoch=told.append)
    assert model is not None
    assert clock.now <= max(seconds, 2)
    first = [epoch for epoch in told if epoch.stage == "train"]
    assert first[-1].progress == 1  # the learning rate came down all the way
    assert first[-1].position < 20


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [rate(progress, 0.1) for progress in np.linspace(0, 1, 101)]
    assert max(rates) == rates[10] == 1
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[0] > 0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)
    assert (rate(0, 0), rate(1, 1)) == (1, pytest.approx(1))
    assert rate(0, 1e-6) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"width": 0},
        {"epochs": 1.5},
        {"batch": 3},
        {"learning_rate": float("nan")},
        {"learning_rate": 0},
        {"max_seconds": -1},
        {"weight_decay": -0.1},
        {"warmup": 1.5},
        {"patience": -0.5},
        {"label_smoothing": 2},
        {"augmentation": "shfit"},
        {"threads": 0},
        {"seed": -1},
        {"learning_rate": None},
        {"learning_rate": "fast"},
        {"warmup": "a"},
        {"max_seconds": float("inf")},
        {"precision": "float64"},
    ],
)
def test_options_that_are_not_allowed_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        FinalTraining(**options)


def test_numbers_of_numpy_become_pythons() -> None:
    config = FinalTraining(epochs=np.int64(3), learning_rate=np.float32(0.5), max_seconds=np.int64(9))  # type: ignore[arg-type]
    assert json.loads(json.dumps(asdict(config)))["epochs"] == 3
    assert (type(config.learning_rate), type(config.max_seconds)) == (float, float)


@pytest.mark.parametrize(("stage", "at"), [("train", 3), ("refit", 1)])
def test_a_training_that_diverges_later_keeps_what_it_had(
    stage: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it is interrupted afterwards."""
    original = TrainingState.run_epoch

    def run_epoch(self: TrainingState, stop: Callable[[], bool]) -> Epoch | None:
        if self.stage == stage and sum(epoch.stage == stage for epoch in self.history) == at - 1:
            with torch.no_grad():
                next(self.network.parameters()).fill_(torch.nan)
        return original(self, stop)

    monkeypatch.setattr(TrainingState, "run_epoch", run_epoch)
    data, told = digits(), list[Epoch]()
    config = replace(QUICK, epochs=6)
    model = train_fully(SMALL, data, divide(data), config, tmp_path, on_epoch=told.append)
    assert model is not None
    assert [epoch.stage for epoch in told if epoch.loss is None] == [stage]
    assert np.isfinite(model.predict_proba(data.x)).all()
    assert model.facts["refitted"] is (stage == "train")
    assert model.validation is not None
    best = max((epoch for epoch in told if epoch.validation_loss is not None), key=worth)
    assert model.validation.accuracy == best.validation_accuracy
    json.dumps(dict(model.facts), allow_nan=False)


def test_answers_that_are_not_finite_are_a_divergence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though every weight is a number; a refit of them is not taken, either."""
    data = digits()
    with pytest.raises(RlnasError, match="diverged; try a smaller learning_rate"):
        train_fully(SMALL, data, divide(data), replace(QUICK, learning_rate=1e25), tmp_path / "at once")
    original = TrainingState._step

    def step(self: TrainingState, rows: Any, seed: int, learning_rate: float) -> float:
        loss = original(self, rows, seed, learning_rate)
        if self.stage == "refit":
            with torch.no_grad():
                for parameter in self.network.parameters():
                    parameter.fill_(1e38)
        return min(loss, 9.0)

    monkeypatch.setattr(TrainingState, "_step", step)
    model = train_fully(SMALL, data, divide(data), replace(QUICK, epochs=1), tmp_path / "refit")
    assert model is not None
    assert model.facts["refitted"] is False
    assert np.isfinite(model.predict_proba(data.x)).all()


def test_a_training_goes_on_in_the_precision_it_was_begun_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = digits()
    monkeypatch.setattr(final_training, "SECONDS_BETWEEN_SAVES", 0.0)
    found = []
    for name, machines in (("whole", [True]), ("moved", [True, False])):
        for number, native in enumerate(machines):
            monkeypatch.setattr(training_state, "computes_bfloat16", lambda device, native=native: native)
            stop = stop_after(10) if number + 1 < len(machines) else stop_after(10**9)
            model = train_fully(SMALL, data, divide(data), QUICK, tmp_path / name, stop=stop)
        assert model is not None
        assert model.facts["precision"] == "bfloat16"
        found.append(weights_digest(model))
    assert found[0] == found[1]
    monkeypatch.setattr(training_state, "computes_bfloat16", lambda device: True)
    exact = train_fully(SMALL, data, divide(data), replace(QUICK, precision="float32"), tmp_path / "exact")
    assert exact is not None
    assert exact.facts["precision"] == "float32"
    assert weights_digest(exact) != found[0]


def test_a_lack_of_memory_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*arguments: Any) -> float:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(TrainingState, "_step", step)
    with pytest.raises(RlnasError, match=r"takes more memory than there is, in batches of \d+; choose a smaller batch"):
        train_fully(SMALL, digits(), divide(digits()), QUICK, tmp_path)


def test_what_cannot_be_trained_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = digits()
    division = divide(data)
    nothing = CELL.space.decode([0] * 6)
    with pytest.raises(ConfigurationError, match="nothing to train"):
        train_fully(nothing, data, division, QUICK, tmp_path)
    features = wine()
    with pytest.raises(ConfigurationError, match="does not fit"):
        train_fully(SMALL, features, divide(features), QUICK, tmp_path)
    with pytest.raises(RlnasError, match="diverged"):
        train_fully(SMALL, data, division, replace(QUICK, learning_rate=1e30), tmp_path)
    monkeypatch.setattr(wide_network, "free_memory", lambda device: 1000)
    with pytest.raises(ConfigurationError, match=r"width 2 makes .* parameters"):
        train_fully(SMALL, data, division, QUICK, tmp_path)


def test_every_image_of_a_batch_is_placed_by_itself() -> None:
    image = torch.zeros(1, 1, 12, 12)
    image[..., 4:8, 3:7] = 1
    for name in ("shift", "natural"):
        placed = augment(image.expand(64, -1, -1, -1), name, seed=3)
        assert len(torch.unique(placed.flatten(1), dim=0)) == 64
        assert torch.equal(placed, augment(image.expand(64, -1, -1, -1), name, seed=3))
        assert placed.sum((1, 2, 3)).sub(16).abs().max() < 6  # all of the square is still there
    assert torch.equal(augment(image, "none", 0), image)


def test_only_natural_pictures_are_mirrored() -> None:
    """A picture that is bright on the left stays so, unless it may be mirrored."""
    image = torch.zeros(200, 3, 8, 16)
    image[..., :8] = 1
    for name, mirrored in (("shift", 0.0), ("natural", 0.5)):
        placed = augment(image, name, 0).mean((1, 2))
        assert (placed[:, :4].mean(1) < placed[:, -4:].mean(1)).float().mean() == pytest.approx(mirrored, abs=0.1)


def test_augmentation_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    augment(torch.rand(2, 1, 4, 4, generator=torch.Generator()), "shift", 1)
    assert torch.equal(torch.rand(3), expected)
    assert set(AUGMENTATIONS) == {"none", "shift", "natural"}
