"""What the viewer's page knows of a trial: every decision in words, as a drawing and as the agent saw it, as JSON."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError
from rlnas.evaluator import Evaluation, Status
from rlnas.layered import ROUND, Box, box_width, draw_boxes, shortened
from rlnas.retracing import Decisions, Retracing, Told, retracing_of
from rlnas.sketch import Names, sketch, sketch_layers
from rlnas.thought import Thought, Thoughts

MOST_SHOWN = 24
"""Legal choices that are named in a step; the likeliest, where there are more."""


@dataclass(frozen=True)
class TrialRecord:
    """A trial to look at.

    Args:
        episodes: its designs, in order.
        thoughts: what the agent thought, a row for each design; None where that is not known.
        label: who designed.

    Raises:
        ConfigurationError: if there is no design, or the thoughts are not those of these designs.
    """

    episodes: Sequence[DesignEpisode]
    thoughts: Thoughts | None
    label: str

    def __post_init__(self) -> None:
        if not self.episodes:
            raise ConfigurationError(f"trial of {self.label!r} must have a design, got none")
        if self.thoughts is not None:
            wanted = [len(episode.actions) for episode in self.episodes]
            if (found := [len(row) for row in self.thoughts]) != wanted:
                raise ConfigurationError(
                    f"thoughts of {self.label!r} must be {wanted}, one for each action of each design, got {found}"
                )


class Numbered:
    """Numbers things as they come, equal ones alike."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def __call__(self, item: Hashable) -> int:
        return self._numbers.setdefault(item, len(self._numbers))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._numbers)


@dataclass(frozen=True)
class _Step:
    """One decision: its words, the names of what was legal by number, and the design after it as boxes."""

    told: Told
    names: tuple[str, ...]
    boxes: tuple[Box, ...]


def trial_data(record: TrialRecord, drawings: Numbered) -> dict[str, Any]:
    """A trial as the page's script reads it.

    Args:
        record: the trial.
        drawings: is given the drawings that it needs, as SVG without words.

    Raises:
        ConfigurationError: if the trial's space cannot be made here.
    """
    words, boxes = Numbered(), Numbered()
    designs = list(_designs(record.episodes))
    width = box_width(
        text for steps in designs for step in steps for box in step.boxes for text in (box.label, box.was)
    )
    found = []
    for number, (episode, steps) in enumerate(zip(record.episodes, designs, strict=True)):
        row = record.thoughts[number] if record.thoughts is not None else [Thought()] * len(steps)
        told = [
            {
                **_chosen(step, mask, action, thought, words),
                "design": step.told.design,
                "drawing": drawings(_outline(step.boxes, width)),
                "boxes": [boxes(_shown(box)) for box in step.boxes],
            }
            for step, mask, action, thought in zip(steps, episode.masks, episode.actions, row, strict=True)
        ]
        found.append({**_worth(episode), "steps": told})
    return {"label": record.label, "words": list(words), "boxes": list(boxes), "designs": found}


def final_boxes(episode: DesignEpisode) -> tuple[Box, ...]:
    """The design that an episode ended with, to draw."""
    return next(_designs([episode]))[-1].boxes


def result_line(evaluation: Evaluation) -> str:
    """What an evaluation says beside its accuracy."""
    parts = [str(evaluation.status)] if evaluation.status is not Status.OK else []
    if evaluation.parameters or evaluation.flops:
        parts += [f"{evaluation.parameters:,} parameters", f"{evaluation.flops:,} multiply-accumulates"]
    if evaluation.loss is not None:
        parts.append(f"loss {evaluation.loss:.3g}")
    if evaluation.seconds:
        parts.append(f"{evaluation.seconds:.3g} s")
    if evaluation.cached:
        parts.append("remembered")
    return " · ".join([*parts, *([evaluation.message] if evaluation.message else [])])


def _designs(episodes: Sequence[DesignEpisode]) -> Iterator[list[_Step]]:
    """The steps of each design, drawn against the design before."""
    retracing, env = None, None
    before: list[str] | None = None
    for episode in episodes:
        if retracing is None or episode.env != env:
            retracing, env = retracing_of(episode.env), episode.env
        steps = []
        for step, told in enumerate(told_steps := list(retracing.tell(episode))):
            layers = _layers(retracing, told_steps[: step + 1])
            steps.append(_Step(told, retracing.choices(step), _drawn(retracing, layers, before)))
        yield steps
        before = _layers(retracing, told_steps)


def _layers(retracing: Retracing, told: Sequence[Told]) -> list[str]:
    """The design after some steps: the choices taken, or the layers that edits have made."""
    if isinstance(retracing, Decisions):
        return [step.choice for step in told[: len(retracing.space.decisions)]]
    return [layer for layer in told[-1].design.split(" > ") if layer != "identity"]


def _drawn(retracing: Retracing, layers: list[str], before: list[str] | None) -> tuple[Box, ...]:
    if not isinstance(retracing, Decisions):
        return sketch_layers(layers, before)
    names: Names = [*layers, *[None] * (len(retracing.space.decisions) - len(layers))]
    return sketch(retracing.space, names, before or ())


def _chosen(step: _Step, mask: str, action: int, thought: Thought, words: Numbered) -> dict[str, Any]:
    """What was taken, of what, and what the agent thought of each."""
    legal = [choice for choice, bit in enumerate(mask) if bit == "1" and choice < len(step.names)]
    weights = dict(enumerate(thought.probabilities))
    shown = sorted(legal, key=lambda choice: (choice != action, -weights.get(choice, 0.0), choice))[:MOST_SHOWN]
    found: dict[str, Any] = {
        "name": words(step.told.step.partition(": ")[2]),
        "choice": words(step.told.choice),
        "legal": [words(step.names[choice]) for choice in sorted(shown)],
        "count": mask.count("1"),
    }
    if thought.probabilities:
        found["p"] = [_rounded(weights.get(choice, 0.0)) for choice in sorted(shown)]
    if thought.value is not None:
        found["value"] = _rounded(thought.value)
    if thought.choice is not None and thought.choice != action:
        own = thought.choice
        found["own"] = words(step.names[own] if 0 <= own < len(step.names) else f"choice {own}")
    return found


def _worth(episode: DesignEpisode) -> dict[str, Any]:
    return {
        "text": episode.architecture or "none: an illegal choice ended the design",
        "accuracy": _rounded(episode.evaluation.accuracy, 5),
        "best": _rounded(episode.best, 5),
        "reward": _rounded(sum(episode.rewards), 4),
        "failed": episode.evaluation.status is not Status.OK,
        "result": result_line(episode.evaluation),
    }


def _outline(boxes: Sequence[Box], width: int) -> str:
    """The drawing without words, the same for all designs that are wired alike."""
    blank = [replace(box, kind=box.kind if box.kind in ROUND else "", label="", change="", was="") for box in boxes]
    return draw_boxes(blank, "", width, style="")


def _shown(box: Box) -> tuple[str, str, str, str]:
    return box.kind, shortened(box.label), box.change, shortened(box.was)


def _rounded(number: float, digits: int = 3) -> float | None:
    """A number of so many significant digits; None where it is none."""
    return float(f"{number:.{digits}g}") if isfinite(number) else None
