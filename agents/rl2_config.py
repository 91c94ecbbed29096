"""How RL² learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from rlnas.errors import ConfigurationError, at_least, in_range, one_of, positive

from .controller import CELLS


@dataclass(frozen=True)
class RL2Config:
    """How RL² learns. What changes over the training does so linearly, and stays as it ends.

    Args:
        cell: of the memory, ``"lstm"`` or ``"gru"``.
        hidden_size: units of the memory.
        separate_value: whether values have a memory of their own instead of the policy's.
        learning_rate: of Adam, at the start.
        final_learning_rate: at the end.
        epochs: passes over each rollout.
        minibatches: parts a rollout is divided into, by trial, if it has so many: a trial is never cut.
        clip: PPO's clipping range.
        gae_lambda: lambda of generalised advantage estimation.
        discount: from one step to the next.
        design_discount: further discount where an inner episode of a trial (a design) ends; 0 cuts credit there.
        entropy: weight of the policy's entropy, over legal actions, at the start.
        final_entropy: at the end.
        value: weight of the value loss.
        max_grad_norm: gradients are clipped to this norm.
        autocast: whether updates compute in bfloat16; the policy judged is then not exactly the one that acted.

    Raises:
        ConfigurationError: if a value is not allowed.
    """

    cell: str = "lstm"
    hidden_size: int = 128
    separate_value: bool = False
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-4
    epochs: int = 6
    minibatches: int = 4
    clip: float = 0.2
    gae_lambda: float = 0.95
    discount: float = 1.0
    design_discount: float = 0.9
    entropy: float = 0.08
    final_entropy: float = 0.0
    value: float = 0.5
    max_grad_norm: float = 0.5
    autocast: bool = False

    def __post_init__(self) -> None:
        one_of("cell", self.cell, CELLS)
        for field in ("hidden_size", "epochs", "minibatches"):
            at_least(field, getattr(self, field), 1)
        for field in ("learning_rate", "clip", "max_grad_norm"):
            positive(field, getattr(self, field))
        for field in ("final_learning_rate", "entropy", "final_entropy", "value"):
            in_range(field, getattr(self, field), 0)
        for field in ("gae_lambda", "discount", "design_discount"):
            if not 0 <= getattr(self, field) <= 1:
                raise ConfigurationError(f"{field} must be in [0, 1], got {getattr(self, field)!r}")
        for field in ("separate_value", "autocast"):
            if not isinstance(getattr(self, field), bool):
                raise ConfigurationError(f"{field} must be True or False, got {getattr(self, field)!r}")


def config_of(settings: Mapping[str, Any]) -> RL2Config:
    """The configuration that named settings make.

    Raises:
        UnknownNameError: if one is no field of :class:`RL2Config`.
        ConfigurationError: if a value is not allowed.
    """
    known = [field.name for field in fields(RL2Config)]
    return RL2Config(**{one_of("setting of RL2", name, known): value for name, value in settings.items()})
