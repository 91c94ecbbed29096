"""A recorded design as plain text: step by step, with what an agent thought, and what is new in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from rlnas.episode import DesignEpisode
from rlnas.retracing import Retracing, retracing_of
from rlnas.search_space import ChainSpace, SearchSpace
from rlnas.thought import Thought

SHOWN = 5
"""Choices whose probabilities are shown at most, and the one taken."""
BAR = 30
"""Characters that stand for probability 1."""


def render_steps(
    episode: DesignEpisode,
    best_before: float | None = None,
    thoughts: Sequence[Thought] = (),
    previous: DesignEpisode | None = None,
) -> Iterator[str]:
    """Tell an episode as plain text: one block of lines for its beginning, one for each step, one for its result.

    Args:
        episode: what to tell.
        best_before: best accuracy earlier in the trial, where it is known.
        thoughts: what an agent thought before each action; none where it is not known.
        previous: an earlier design of the trial, with which the result is compared.

    Raises:
        ConfigurationError: if the episode's space cannot be made here.
    """
    start = f"\n  start        {episode.start}" if episode.start else ""
    yield f"{episode.agent}: trial {episode.trial}, design {episode.design}\n  task         {episode.task}{start}"
    retracing = retracing_of(episode.env)
    told = retracing.tell(episode)
    for step, (words, mask, reward) in enumerate(zip(told, episode.masks, episode.rewards, strict=True)):
        best = episode.best if step == len(episode.actions) - 1 else best_before
        lines = [
            words.step,
            f"  choice       {words.choice}, of {mask.count('1')} legal",
            f"  design       {words.design}",
            *(_render_thought(thoughts[step], retracing.choices(step), episode.actions[step]) if thoughts else ()),
            f"  reward       {reward:.4f}",
            f"  best so far  {'unknown' if best is None else format(best, '.4f')}",
        ]
        yield "\n".join(lines)
    yield "\n".join(_render_result(episode, retracing, previous))


def changes_between(before: DesignEpisode, after: DesignEpisode, space: SearchSpace) -> list[str]:
    """What is new in a design, in words; nothing if it is the same network.

    Chains are compared layer by layer, other designs decision by decision.

    Args:
        before: an earlier design.
        after: the design; both are complete.
        space: of both.
    """
    if before.architecture == after.architecture:
        return []
    if isinstance(space, ChainSpace):
        return _changed_layers(*(_layers(episode.architecture) for episode in (before, after)))
    decisions = zip(space.decisions, before.actions, after.actions, strict=True)
    return [f"{d.name}: {d.choices[old]} -> {d.choices[new]}" for d, old, new in decisions if old != new]


def _layers(architecture: str) -> list[str]:
    return [] if architecture == "identity" else architecture.split(" > ")


def _changed_layers(before: list[str], after: list[str]) -> list[str]:
    changes = []
    for _, old, old_end, new, new_end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        gone, come = before[old:old_end], after[new:new_end]
        if gone == come:
            continue
        for place in range(max(len(gone), len(come))):
            if place >= len(gone):
                changes.append(f"layer {new + place + 1} added: {come[place]}")
            elif place >= len(come):
                changes.append(f"layer {old + place + 1} removed: {gone[place]}")
            else:
                changes.append(f"layer {new + place + 1}: {gone[place]} -> {come[place]}")
    return changes


def _render_thought(thought: Thought, choices: Sequence[str], taken: int) -> list[str]:
    lines = _render_policy(thought.probabilities, choices, taken)
    if thought.value is not None:
        lines.append(f"  value        {thought.value:.4f}")
    if thought.choice not in (None, taken):
        lines.append(f"  would take   {choices[thought.choice]}")
    return lines


def _render_policy(probabilities: Sequence[float], choices: Sequence[str], taken: int) -> list[str]:
    """The likeliest choices and the one taken, each with a bar; the others together."""
    likely = sorted((i for i, p in enumerate(probabilities) if p > 0), key=lambda i: -probabilities[i])
    shown = [i for place, i in enumerate(likely) if place < SHOWN or i == taken]
    rows = []
    for i in shown:
        bar = "#" * round(BAR * probabilities[i])
        rows.append((choices[i], probabilities[i], f"{bar} <- taken" if i == taken else bar))
    if len(shown) < len(likely):
        rows.append((f"{len(likely) - len(shown)} more", sum(probabilities[i] for i in likely if i not in shown), ""))
    width = max((len(name) for name, _, _ in rows), default=0)
    return [
        f"  {'' if place else 'policy':13}{name:{width}} {probability:.3f} {bar}".rstrip()
        for place, (name, probability, bar) in enumerate(rows)
    ]


def _render_result(episode: DesignEpisode, retracing: Retracing, previous: DesignEpisode | None) -> list[str]:
    evaluation = episode.evaluation
    loss = "none" if evaluation.loss is None else f"{evaluation.loss:.4f}"
    lines = [
        f"result: {evaluation.status}",
        f"  architecture {episode.architecture or 'none: an illegal choice ended the design'}",
        f"  accuracy     {evaluation.accuracy:.4f}",
        f"  loss         {loss}",
        f"  size         {evaluation.parameters:,} parameters, {evaluation.flops:,} multiply-accumulates",
        f"  time         {evaluation.seconds:.3f} s{', remembered' if evaluation.cached else ''}",
    ]
    if previous is not None and previous.architecture and episode.architecture:
        new = changes_between(previous, episode, retracing.space) or ["nothing"]
        lines[2:2] = [f"  {'' if place else 'changed':13}{change}" for place, change in enumerate(new)]
    return [*lines, f"  message      {evaluation.message}"] if evaluation.message else lines
