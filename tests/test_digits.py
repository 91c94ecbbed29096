"""The embedded digit tasks: real images, splits that share none, and every kind of task that was promised."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from functools import lru_cache

import numpy as np
import pytest
from sklearn.datasets import load_digits

from rlnas.datasets import source_from_spec
from rlnas.digits import FAMILIES, QUERIES_PER_CLASS, SPLITS, UNSEEN_FAMILIES, DigitsSource
from rlnas.task import FewShotTask

SOURCE = DigitsSource()


@lru_cache(maxsize=4)
def tasks(split: str, count: int = 256) -> tuple[FewShotTask, ...]:
    return tuple(SOURCE._build(split, index) for index in range(min(count, SPLITS[split])))


def image_hashes(split: str) -> set[str]:
    """Hashes of the plain images of a split: only the untransformed family shows them as they are."""
    plain = [t for t in tasks(split) if t.family == "plain"]
    images = [image for t in plain for image in (*t.support_x, *t.query_x)]
    return {hashlib.sha256(image.tobytes()).hexdigest() for image in images}


def test_images_are_the_embedded_digits() -> None:
    known = {hashlib.sha256((i / 16).astype(np.float32).tobytes()).hexdigest() for i in load_digits().images}
    for split in ("train", "val", "test"):
        shown = image_hashes(split)
        assert len(shown) > 200
        assert shown <= known


@pytest.mark.parametrize(("one", "other"), [("train", "val"), ("train", "test"), ("val", "test")])
def test_splits_share_no_image(one: str, other: str) -> None:
    assert not image_hashes(one) & image_hashes(other)


def test_unseen_families_use_the_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    # With a transformation that changes nothing in place of its own, a task shows which images it draws on.
    monkeypatch.setitem(UNSEEN_FAMILIES, "rotated-noisy", FAMILIES["plain"])
    built = [SOURCE._build("unseen-families", index) for index in range(60)]
    plain = [t for t in built if t.family == "rotated-noisy"]
    shown = {hashlib.sha256(i.tobytes()).hexdigest() for t in plain for i in (*t.support_x, *t.query_x)}
    assert len(shown) > 200
    assert not shown & (image_hashes("train") | image_hashes("val"))


@pytest.mark.parametrize("split", SPLITS)
def test_no_image_is_in_support_and_query_both(split: str) -> None:
    for task in (t for t in tasks(split) if t.family in ("plain", "permuted")):
        both = np.concatenate([task.support_x, task.query_x]).reshape(-1, 64)
        assert len(np.unique(both, axis=0)) == len(both)


@pytest.mark.parametrize("split", SPLITS)
def test_query_sets_are_balanced_and_finely_graded(split: str) -> None:
    for task in tasks(split):
        assert np.bincount(task.query_y).tolist() == [QUERIES_PER_CLASS] * task.ways
        assert np.bincount(task.support_y).tolist() == [task.shots] * task.ways
        assert 1 / len(task.query_y) < 0.02


def test_every_number_of_ways_and_shots_occurs() -> None:
    drawn = tasks("train", 1024)
    assert {t.ways for t in drawn} == set(range(3, 11))
    assert {t.shots for t in drawn} == set(range(1, 21))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_family_occurs(split: str) -> None:
    counts = Counter(t.family for t in tasks(split))
    assert set(counts) == set(FAMILIES)
    assert min(counts.values()) >= 4


def test_unseen_families_are_new() -> None:
    assert {t.family for t in tasks("unseen-families")} == set(UNSEEN_FAMILIES)
    assert not set(UNSEEN_FAMILIES) & set(FAMILIES)
    assert not set(UNSEEN_FAMILIES.values()) & set(FAMILIES.values())
    assert not {frozenset(f) for f in UNSEEN_FAMILIES.values()} & {frozenset(f) for f in FAMILIES.values()}


@pytest.mark.parametrize("split", SPLITS)
def test_pixels_are_in_range_and_one_grey_channel(split: str) -> None:
    for task in tasks(split):
        assert task.image_shape in {(1, 8, 8), (1, 12, 12)}
        for x in (task.support_x, task.query_x):
            assert x.min() >= -1e-6
            assert x.max() <= 1 + 1e-6


def test_all_tasks_differ() -> None:
    digests = [t.digest for split in SPLITS for t in tasks(split)]
    assert len(set(digests)) == len(digests)


def test_another_process_makes_the_same_tasks() -> None:
    program = (
        "from rlnas.digits import DigitsSource, SPLITS\n"
        "for split in SPLITS:\n"
        "    for index in (9, 3):\n"
        "        print(DigitsSource().task(split, index).digest)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [SOURCE.task(split, index).digest for split in SPLITS for index in (9, 3)]


def test_the_spec_makes_an_equal_source() -> None:
    rebuilt = source_from_spec(SOURCE.spec())
    assert isinstance(rebuilt, DigitsSource)
    assert rebuilt.task("val", 5).digest == SOURCE.task("val", 5).digest


def test_noise_is_seen_in_the_background_and_negatives_in_the_mean() -> None:
    """Families do what their names say, on real tasks."""
    by_family = {family: [t for t in tasks("train") if t.family == family] for family in FAMILIES}
    noisy = [(t.support_x[:, 0, :, 0] == 0).mean() for t in by_family["noisy"]]
    plain = [(t.support_x[:, 0, :, 0] == 0).mean() for t in by_family["plain"]]
    assert max(noisy) < 0.8 < min(plain)
    for task in by_family["inverted"]:
        corners = task.query_x[:, 0, :, 0].mean(1)
        assert 0.25 < (corners > 0.5).mean() < 0.75
    for task in by_family["coarse"]:
        np.testing.assert_array_equal(task.query_x[:, :, ::2, ::2], task.query_x[:, :, 1::2, 1::2])
