"""How a found architecture is trained fully, and what is told of every epoch of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlnas.augmentation import AUGMENTATIONS
from rlnas.errors import at_least, in_range, one_of, positive

PRECISIONS = ("auto", "bfloat16", "float32")


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

    precision: str = "auto"
    """``float32``, ``bfloat16``, or ``auto`` for bfloat16 where the processor or GPU multiplies in it by itself, which
    is faster and rounds differently. Validation and the model are float32 either way."""

    threads: int | None = None
    """CPU threads; None for what OMP_NUM_THREADS says, else one a core. Their number moves results' last digits."""

    seed: int = 0
    """Of the weights, the order of the examples and the augmentation."""

    def __post_init__(self) -> None:
        # At least 4 a batch: halves of it still have a deviation for batch norm. Numbers of numpy become Python's.
        least = {"epochs": 1, "min_steps": 1, "batch": 4, "seed": 0, "width": 1, "threads": 1}
        whole: dict[str, float | None] = {
            name: at_least(name, getattr(self, name), minimum)
            for name, minimum in least.items()
            if getattr(self, name) is not None or name not in ("width", "threads")
        }
        one_of("augmentation", self.augmentation, AUGMENTATIONS)
        one_of("precision", self.precision, PRECISIONS)
        shares = {name: in_range(name, getattr(self, name), 0, 1) for name in ("warmup", "label_smoothing", "patience")}
        decay = in_range("weight_decay", self.weight_decay, 0)
        rate = positive("learning_rate", self.learning_rate)
        seconds = None if self.max_seconds is None else positive("max_seconds", self.max_seconds)
        kept = {**whole, **shares, "weight_decay": decay, "learning_rate": rate, "max_seconds": seconds}
        for name, value in kept.items():
            object.__setattr__(self, name, value)

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
        loss: mean over the pass, of augmented examples, with label smoothing; None if it diverged.
        validation_loss: mean cross-entropy on the validation part; None in the second stage.
        validation_accuracy: likewise.
        seconds: it took.
    """

    stage: str
    position: float
    progress: float
    loss: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float
