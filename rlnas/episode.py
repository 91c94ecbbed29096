"""The record of one design episode: frozen, and holding all that is needed to do the same again."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Any

from rlnas.canonical import canonical_json
from rlnas.errors import RlnasError, StoreError
from rlnas.evaluator import Evaluation

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class DesignEpisode:
    """Making one architecture, decision by decision or edit by edit, and the evaluation it ended in.

    Args:
        agent: who designed it.
        trial: number of the trial within the agent's run.
        design: number of this episode within its trial.
        seed: seed from which the environment drew the trial's task and evaluation seeds; None if it was not seeded.
        env: what is needed to rebuild the environment: its space, tasks, evaluator and options, as JSON.
        task: name of the task, ``source:split/index``.
        task_digest: SHA-256 of the task's arrays.
        evaluation_seed: seed of the proposal.
        actions: choices or edits, in order.
        masks: for each action the legal ones then, as a string of ``0`` and ``1``.
        rewards: reward after each action.
        architecture: canonical text of the design; empty where an illegal action ended it.
        evaluation: what the design was worth.
        best: best accuracy of the trial up to and including this episode.
        start: canonical text of the network that the first action edited; empty where the design began with none.
    """

    agent: str
    trial: int
    design: int
    seed: int | None
    env: dict[str, Any]
    task: str
    task_digest: str
    evaluation_seed: int
    actions: tuple[int, ...]
    masks: tuple[str, ...]
    rewards: tuple[float, ...]
    architecture: str
    evaluation: Evaluation
    best: float
    start: str = ""

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if not self.start:
            del values["start"]  # most designs begin with none, and their records are as before there was a start
        return {"schema": SCHEMA_VERSION, **values, "evaluation": self.evaluation.to_json()}

    def record(self, env: str) -> str:
        """Canonical JSON of :meth:`to_json` with ``env`` in place of the environment's description.

        Written out because a run makes hundreds of episodes a second, and a general encoder takes twice as long.
        """
        number, text, of = _number, encode_basestring_ascii, self.evaluation
        cached = "true" if of.cached else "false"
        start = f'"start":{text(self.start)},' if self.start else ""
        return (
            f'{{"actions":{_numbers(self.actions)},"agent":{text(self.agent)},'
            f'"architecture":{text(self.architecture)},"best":{number(self.best)},"design":{number(self.design)},'
            f'"env":{text(env)},"evaluation":{{"accuracy":{number(of.accuracy)},"cached":{cached},'
            f'"flops":{number(of.flops)},"loss":{number(of.loss)},"message":{text(of.message)},'
            f'"parameters":{number(of.parameters)},"seconds":{number(of.seconds)},"status":{text(of.status)}}},'
            f'"evaluation_seed":{number(self.evaluation_seed)},"masks":{_masks(self.masks)},'
            f'"rewards":{_numbers(self.rewards)},"schema":{SCHEMA_VERSION},"seed":{number(self.seed)},'
            f'{start}"task":{text(self.task)},"task_digest":{text(self.task_digest)},"trial":{number(self.trial)}}}'
        )

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> DesignEpisode:
        """The episode that :meth:`to_json` described.

        Raises:
            StoreError: if it was written in another schema, or lacks a field.
        """
        if data.get("schema") != SCHEMA_VERSION:
            raise StoreError(f"an episode has schema {data.get('schema')!r}; this rlnas reads schema {SCHEMA_VERSION}")
        values = {name: value for name, value in data.items() if name != "schema"}
        try:
            _require_forms(values)
            for name in ("actions", "masks", "rewards"):
                values[name] = tuple(values[name])
            return cls(**{**values, "evaluation": Evaluation.from_json(values["evaluation"])})
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"an episode does not have the fields of schema {SCHEMA_VERSION}: {error}") from None

    def same_record(self, other: DesignEpisode) -> bool:
        """Whether both record the same designing and the same result, however long the evaluation took."""
        mine, its = (canonical_json(episode._timeless().to_json()) for episode in (self, other))
        return mine == its

    def _repr_html_(self) -> str | None:
        """What a notebook shows; plain text where the episode's space cannot be made here."""
        from rlnas.viewer import episode_html  # which shows episodes

        try:
            return episode_html(self)
        except RlnasError:
            return None

    def _timeless(self) -> DesignEpisode:
        # What Evaluation.same_result leaves out too: a message may name a time or the memory then in use.
        return replace(self, evaluation=replace(self.evaluation, seconds=0.0, cached=False, message=""))


def _is_whole(value: object) -> bool:
    return type(value) is int


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_list(of: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(of, value))


_FORMS: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("trial", "design", "evaluation_seed"), _is_whole),
    **dict.fromkeys(("agent", "task", "task_digest", "architecture", "start"), _is_text),
    "seed": lambda value: value is None or _is_whole(value),
    **dict.fromkeys(("env", "evaluation"), lambda value: isinstance(value, dict)),
    "actions": _is_list(_is_whole),
    "masks": _is_list(_is_text),
    "rewards": _is_list(_is_number),
    "best": _is_number,
}
_EVALUATION_FORMS: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("accuracy", "seconds"), _is_number),
    **dict.fromkeys(("parameters", "flops"), _is_whole),
    "loss": lambda value: value is None or _is_number(value),
    "message": _is_text,
    "cached": lambda value: isinstance(value, bool),
}


def _require_forms(values: dict[str, Any]) -> None:
    """Refuses values that a record cannot have; what is missing is not asked for here.

    Raises:
        ValueError: naming the first one.
    """
    for forms, found in ((_FORMS, values), (_EVALUATION_FORMS, values["evaluation"])):
        for name, has_form in forms.items():
            if name in found and not has_form(found[name]):
                raise ValueError(f"{name} cannot be {str(found[name])[:60]!r}")


def _number(value: float | None) -> str:
    """What :func:`canonical_json` makes of a number or None."""
    if value is None:
        return "null"
    kind = type(value)
    if kind is int or (kind is float and value - value == 0):  # neither infinite nor NaN
        return repr(value)
    return canonical_json(value)


def _numbers(values: tuple[float, ...]) -> str:
    """What :func:`canonical_json` makes of a tuple of numbers."""
    kinds = set(map(type, values))
    if kinds == {int} or (kinds == {float} and all(map(math.isfinite, values))):
        return repr(list(values)).replace(" ", "")
    return canonical_json(values)


@lru_cache(4096)
def _masks(masks: tuple[str, ...]) -> str:
    """What :func:`canonical_json` makes of masks; remembered, because designs often have the same."""
    return canonical_json(masks)
