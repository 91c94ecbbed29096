"""Episode records: they survive JSON, and two are the same whatever time they took."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.canonical import canonical_json, sha256
from rlnas.episode import DesignEpisode
from rlnas.errors import StoreError
from rlnas.evaluator import Evaluation, Status

EPISODE = DesignEpisode(
    agent="random",
    trial=3,
    design=1,
    seed=7,
    env={"id": "rlnas/Trial-v0", "space": {"kind": "chain", "widths": [4]}},
    task="digits:test/17",
    task_digest="ab" * 32,
    evaluation_seed=5,
    actions=(0, 2),
    masks=("111", "101"),
    rewards=(0.0, 0.5),
    architecture="conv3x3-4 > max-pool",
    evaluation=Evaluation(0.5, 1.25, Status.OK, seconds=0.1, parameters=10, flops=20),
    best=0.75,
)


@given(
    accuracy=st.floats(0, 1),
    loss=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    status=st.sampled_from(Status),
    agent=st.text(),
    actions=st.lists(st.integers(0, 10), min_size=1),
    masks=st.lists(st.text("01")),
    seed=st.none() | st.integers(0),
)
def test_an_episode_survives_json(
    accuracy: float,
    loss: float | None,
    status: Status,
    agent: str,
    actions: list[int],
    masks: list[str],
    seed: int | None,
) -> None:
    evaluation = Evaluation(accuracy, loss, status, message=agent)
    episode = replace(EPISODE, agent=agent, evaluation=evaluation, best=accuracy, seed=seed)
    episode = replace(episode, actions=tuple(actions), masks=tuple(masks))
    again = DesignEpisode.from_json(json.loads(canonical_json(episode.to_json())))
    assert again == episode
    assert again.evaluation.status is status
    assert episode.record("ab") == canonical_json({**episode.to_json(), "env": "ab"})


@pytest.mark.parametrize("number", [0, -3, 0.1 + 0.2, 1e22, -0.0, np.float64(0.1), True, None])
def test_a_record_is_the_canonical_json_whatever_kind_its_numbers_are(number: Any) -> None:
    evaluation = replace(EPISODE.evaluation, accuracy=number, seconds=number, cached=True)
    episode = replace(EPISODE, seed=number, rewards=(number,), best=number, evaluation=evaluation, start="größer")
    assert episode.record("ab") == canonical_json({**episode.to_json(), "env": "ab"})


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_no_record_has_a_number_that_json_lacks(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(EPISODE, best=number).record("ab")


def test_the_time_an_evaluation_took_makes_no_other_record() -> None:
    slower = replace(EPISODE.evaluation, seconds=9.0, cached=True, message="9 s")
    assert EPISODE.same_record(replace(EPISODE, evaluation=slower))


@pytest.mark.parametrize(
    "changes",
    [
        {"agent": "ppo"},
        {"seed": None},
        {"env": {"id": "rlnas/Trial-v0"}},
        {"actions": (0, 1)},
        {"evaluation": replace(EPISODE.evaluation, accuracy=0.51)},
        {"best": 0.8},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_anything_else_does(changes: dict[str, object]) -> None:
    assert not EPISODE.same_record(replace(EPISODE, **changes))  # type: ignore[arg-type]


def test_tuples_and_lists_in_the_environment_are_the_same() -> None:
    env = {**EPISODE.env, "space": {"kind": "chain", "widths": (4,)}}
    assert EPISODE.same_record(replace(EPISODE, env=env))


def test_another_schema_is_refused() -> None:
    with pytest.raises(StoreError, match="schema 2; this rlnas reads schema 1"):
        DesignEpisode.from_json({**EPISODE.to_json(), "schema": 2})


@pytest.mark.parametrize("changes", [{"masks": None}, {"extra": 1}, {"evaluation": {"status": "odd"}}])
def test_other_fields_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(StoreError, match="does not have the fields of schema 1"):
        DesignEpisode.from_json({**EPISODE.to_json(), **changes})


def test_canonical_json_knows_no_order_and_no_nan() -> None:
    assert canonical_json({"b": 1, "a": (1, 2)}) == '{"a":[1,2],"b":1}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_sha256_is_that_of_utf8() -> None:
    assert sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trial", "0"),
        ("trial", True),
        ("agent", None),
        ("seed", 0.5),
        ("env", []),
        ("actions", "012"),
        ("actions", [0.5]),
        ("masks", [1, 1]),
        ("rewards", [float("nan")]),
        ("best", 10**400),
        ("best", "high"),
        ("evaluation", None),
    ],
)
def test_a_value_that_no_record_has_is_refused(name: str, value: object) -> None:
    data = json.loads(canonical_json(EPISODE.to_json()))
    with pytest.raises(StoreError, match=name if value is not None or name == "agent" else "fields"):
        DesignEpisode.from_json({**data, name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("accuracy", None), ("accuracy", float("inf")), ("loss", "low"), ("cached", 1), ("flops", 0.5)]
)
def test_a_value_that_no_evaluation_has_is_refused(name: str, value: object) -> None:
    data = json.loads(canonical_json(EPISODE.to_json()))
    data["evaluation"][name] = value
    with pytest.raises(StoreError, match=name):
        DesignEpisode.from_json(data)
