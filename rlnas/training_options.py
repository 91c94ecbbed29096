"""How a found architecture is trained fully, and what is told of every epoch of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlnas.augmentation import AUGMENTATIONS
from rlnas.errors import ConfigurationError, at_least, one_of


@dataclass(frozen=True)
class FinalTraining:
    """How a found architecture is trained.

    Raises:
        ConfigurationError: if a value is not allowed.
    """

    width: int | None = None
    """Times as many channels and units as the search's networks have; None for as many as
    :class:`rlnas.wide_network.Limits` allow by default."""

    epochs: int = 30
    """Passes over the training part."""

    min_steps: int = 2000
    """Small data sets are passed over more often, until so many steps are made."""

    batch: int = 128
    """Examples a step, at least 4; about that many, so that none is left over alone."""

    learning_rate: float = 2e-3
    """Of AdamW, at its highest: after a linear warm-up it falls to 0 along a cosine."""

    weight_decay: float = 0.05
    """Of kernels and matrices; scales, shifts and biases do not decay."""

    warmup: float = 0.1
    """Fraction of the training in which the rate rises."""

    label_smoothing: float = 0.0
    """Share of every label that is spread evenly over the classes."""

    augmentation: str = "shift"
    """One of :data:`rlnas.augmentation.AUGMENTATIONS`; features are never augmented."""

    patience: float = 0.5
    """Training stops once this fraction of its epochs has passed without a better one, by accuracy on the validation
    part and, of equal ones, by loss; 1 for never."""

    refit: bool = True
    """Whether to train anew on the training and validation parts together, for the epochs that were found best."""

    max_seconds: float | None = None
    """Time for all of it; the learning rate then falls with the time, where that ends before the epochs."""

    threads: int | None = None
    """CPU threads; None for what OMP_NUM_THREADS says, else one a core. Their number moves results' last digits."""

    seed: int = 0
    """Of the weights, the order of the examples and the augmentation."""

    def __post_init__(self) -> None:
        for name in ("width", "epochs", "min_steps", "threads"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)
        at_least("batch", self.batch, 4)  # halves of which still have a deviation for batch norm
        at_least("seed", self.seed, 0)
        one_of("augmentation", self.augmentation, AUGMENTATIONS)
        for name in ("warmup", "label_smoothing", "patience"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"{name} must lie in 0 .. 1, got {getattr(self, name)!r}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ConfigurationError(f"weight_decay must be 0 or a positive number, got {self.weight_decay!r}")
        for name in ("learning_rate", "max_seconds"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"{name} must be a positive number, got {value!r}")

    def epochs_for(self, examples: int) -> int:
        """Passes over a training part of so many examples."""
        return max(self.epochs, math.ceil(self.min_steps / math.ceil(examples / self.batch)))


@dataclass(frozen=True)
class Epoch:
    """One pass over the training examples, or the part of it for which there was time.

    Args:
        stage: ``train``, or ``refit`` on the training and validation parts together.
        position: passes done, this one included.
        progress: how much of the stage's schedule is over, in (0, 1].
        loss: mean over the pass, of augmented examples, with label smoothing.
        validation_loss: mean cross-entropy on the validation part; None in the second stage.
        validation_accuracy: likewise.
        seconds: it took.
    """

    stage: str
    position: float
    progress: float
    loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float
