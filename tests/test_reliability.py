"""The faults of ``make reliability``, fewer of each: their figures are what they must be."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
PARTS = (
    "killed_writer",
    "full_disk",
    "several_writers",
    "bit_flips",
    "torn_log",
    "refused_or_same",
    "newer_versions",
    "stopped_training",
)


@pytest.fixture(name="reliability")
def _reliability(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("reliability")


def test_every_part_is_tested(reliability: Any) -> None:
    assert set(reliability.PARTS) == set(PARTS)


@pytest.mark.parametrize("name", PARTS)
def test_figures_are_what_they_must_be(reliability: Any, tmp_path: Path, name: str) -> None:
    part = reliability.PARTS[name]
    figures = part.inject(tmp_path, **part.quick)
    assert reliability.missed(part, figures) == []
    assert part.required.keys() <= figures.keys()


def test_a_figure_that_is_not_what_it_must_be_is_missed(reliability: Any) -> None:
    part = reliability.PARTS["bit_flips"]
    assert reliability.missed(part, {**part.required, "not found": 3}) == ["not found is 3, must be 0"]


def test_a_disk_that_cannot_be_mounted_is_stood_in_for(
    reliability: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = importlib.import_module("reliability_store")
    monkeypatch.setattr(store, "_small_disk", lambda folder: ((folder / "disk").mkdir(), ([], store.LIMIT))[1])
    figures = store.full_disk(tmp_path, 1)
    assert figures["kind of disk"] == store.LIMIT
    assert reliability.missed(reliability.PARTS["full_disk"], figures) == []


def test_a_loader_that_unpickles_is_caught(reliability: Any, tmp_path: Path) -> None:
    """The canary does sing where somebody lets it."""
    mutations = importlib.import_module("reliability_mutations")
    pickle, random = importlib.import_module("pickle"), importlib.import_module("random")
    canary = tmp_path / "canary"
    numbers = (random.Random(seed) for seed in range(20))
    plain = next(content for rng in numbers if (content := mutations.pickled(canary, rng)).startswith(b"\x80\x04"))
    assert not canary.exists()
    pickle.loads(plain).close()
    assert canary.exists()
