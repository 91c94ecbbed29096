"""What a few-shot task accepts, and what it says of itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.digits import FAMILIES, DigitsSource
from rlnas.errors import ConfigurationError, DataError, UnknownNameError
from rlnas.task import DESCRIPTOR, FewShotTask


def make_task(**changes: Any) -> FewShotTask:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "support_x": rng.random((6, 1, 5, 4)),
        "support_y": np.array([0, 0, 1, 1, 2, 2]),
        "query_x": rng.random((9, 1, 5, 4)),
        "query_y": np.repeat(np.arange(3), 3),
    }
    return FewShotTask(name="made:test/0", family="made", **{**arrays, **changes})


def describe(task: FewShotTask) -> dict[str, float]:
    return dict(zip(DESCRIPTOR, task.descriptor.tolist(), strict=True))


def test_a_task_tells_its_shape() -> None:
    task = make_task()
    assert (task.ways, task.shots, task.image_shape) == (3, 2, (1, 5, 4))
    assert task.support_x.dtype == np.float32
    assert task.support_y.dtype == np.int64


def test_shots_are_those_of_the_rarest_class() -> None:
    assert make_task(support_y=np.array([0, 0, 0, 1, 2, 2])).shots == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"support_x": np.zeros((6, 5, 4))}, r"one shape \(N, C, H, W\)"),
        ({"query_x": np.zeros((9, 1, 5, 5))}, "support and query images must have one shape"),
        ({"support_y": np.array([0, 1, 2])}, r"6 images but labels of shape \(3,\)"),
        ({"query_y": np.zeros((9, 1))}, r"9 images but labels of shape \(9, 1\)"),
        ({"support_x": np.full((6, 1, 5, 4), np.nan)}, "finite"),
        ({"query_x": np.full((9, 1, 5, 4), np.inf)}, "finite"),
        ({"support_y": np.zeros(6)}, r"ways >= 2, got \[0\]"),
        ({"support_y": np.array([0, 0, 1, 1, 3, 3])}, r"0 \.\. ways - 1"),
        ({"support_y": np.array([-1, -1, 0, 0, 1, 1])}, r"0 \.\. ways - 1"),
        ({"query_y": np.full(9, 3)}, "classes that the support set lacks"),
        ({"query_x": np.zeros((0, 1, 5, 4)), "query_y": np.zeros(0)}, "query set is empty"),
    ],
)
def test_arrays_that_cannot_serve_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        make_task(**changes)
    assert str(caught.value).startswith("made:test/0: ")


def test_a_task_neither_changes_nor_freezes_the_arrays_it_was_given() -> None:
    support = np.random.default_rng(1).random((6, 1, 5, 4)).astype(np.float32)
    task = make_task(support_x=support)
    digest, first = task.digest, task.support_x[0, 0, 0, 0]
    support[:] = 0
    assert task.support_x[0, 0, 0, 0] == first
    assert make_task(support_x=task.support_x).digest == digest
    with pytest.raises(ValueError, match="read-only"):
        task.support_x[0] = 0


@given(part=st.sampled_from(["support_x", "query_x"]), place=st.integers(0, 119))
def test_the_digest_depends_on_every_pixel(part: str, place: int) -> None:
    task = make_task()
    pixels = np.array(getattr(task, part))
    pixels.flat[place] += 0.5
    assert make_task(**{part: pixels}).digest != task.digest


def test_the_digest_depends_on_labels_and_on_nothing_but_content() -> None:
    task = make_task()
    assert replace(task, name="other:test/7", family="other").digest == task.digest
    assert make_task(query_y=np.repeat([0, 2, 1], 3)).digest != task.digest


def test_the_digest_tells_shapes_apart() -> None:
    task = make_task()
    turned = make_task(support_x=task.support_x.reshape(6, 1, 4, 5), query_x=task.query_x.reshape(9, 1, 4, 5))
    assert turned.digest != task.digest


@given(
    ways=st.integers(2, 20),
    shots=st.integers(1, 20),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    kind=st.sampled_from(["noise", "black", "stripes"]),
)
def test_descriptors_are_finite_and_within_their_range(
    ways: int, shots: int, channels: int, height: int, width: int, kind: str
) -> None:
    shape = (ways * shots, channels, height, width)
    if kind == "noise":
        x = np.random.default_rng(ways).random(shape)
    else:
        x = np.zeros(shape) if kind == "black" else np.broadcast_to(np.arange(width) % 2, shape)
    y = np.repeat(np.arange(ways), shots)
    descriptor = make_task(support_x=x, support_y=y, query_x=x, query_y=y).descriptor
    assert descriptor.shape == (len(DESCRIPTOR),)
    assert descriptor.dtype == np.float32
    assert np.isfinite(descriptor).all()
    assert descriptor.min() >= 0
    assert descriptor.max() <= 1.5


def test_the_descriptor_does_not_see_the_query_set() -> None:
    task = make_task()
    other = make_task(query_x=np.ones((3, 1, 5, 4)), query_y=np.array([2, 2, 0]))
    np.testing.assert_array_equal(other.descriptor, task.descriptor)


def test_the_descriptor_says_ways_shots_channels_and_mean() -> None:
    said = describe(make_task(support_x=np.full((6, 3, 5, 4), 0.25), query_x=np.zeros((9, 3, 5, 4))))
    assert said["ways"] == pytest.approx(3 / 20)
    assert said["shots"] == pytest.approx(np.log(3) / 5)
    assert said["channels"] == 1
    assert said["size"] == pytest.approx(np.log2(5) / 8)
    assert said["mean"] == pytest.approx(0.25)


def test_the_descriptor_tells_permuted_digits_from_plain_ones() -> None:
    source = DigitsSource()
    roughness: dict[str, list[float]] = {family: [] for family in FAMILIES}
    for index in range(150):
        task = source.task("train", index)
        said = dict(zip(DESCRIPTOR, task.descriptor.tolist(), strict=True))
        roughness[task.family].append(said["roughness_x"] + said["roughness_y"])
    assert min(roughness["permuted"]) > max(roughness["plain"])


def test_separation_is_larger_where_classes_lie_apart() -> None:
    y, noise = np.repeat(np.arange(3), 2), np.random.default_rng(2).random((6, 1, 5, 4)) / 10
    apart = noise + y[:, None, None, None] / 4
    assert describe(make_task(support_x=apart))["separation"] > 0.9
    assert describe(make_task(support_x=noise))["separation"] < 0.7


def test_tasks_are_found_by_number_and_by_name() -> None:
    source = DigitsSource()
    task = source.task("test", 255)
    assert task.name == "digits:test/255"
    assert source.named(task.name) is task


def test_an_unknown_split_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'train'"):
        DigitsSource().task("trian", 0)
    with pytest.raises(UnknownNameError, match="unknown split"):
        DigitsSource().sample("all", np.random.default_rng(0))


@pytest.mark.parametrize("index", [-1, 256])
def test_a_number_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"digits:test has tasks 0 \.\. 255, got {index}"):
        DigitsSource().task("test", index)


@pytest.mark.parametrize("name", ["omniglot:test/0", "digits", "digits:test", "digits:test/", "digits:test/-1", ""])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a task of digits"):
        DigitsSource().named(name)


def test_sampling_follows_the_generator_and_reaches_many_tasks() -> None:
    source = DigitsSource()
    names = [[source.sample("val", rng).name for _ in range(60)] for rng in map(np.random.default_rng, (1, 1, 2))]
    assert names[0] == names[1] != names[2]
    assert len(set(names[0])) > 30


def test_only_so_many_tasks_stay_in_memory() -> None:
    source = DigitsSource()
    source.cache_size = 2
    first = source.task("test", 0)
    assert source.task("test", 0) is first
    for index in (1, 2):
        source.task("test", index)
    again = source.task("test", 0)
    assert again is not first
    assert again.digest == first.digest
