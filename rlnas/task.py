"""Tasks, and the sources they come from.

A task is what a proposed network is worth something *on*: a few-shot problem with a support set to adapt on and a query
set to be scored on, or a column of a table of recorded evaluations. A task is named ``source:split/index`` and its
source rebuilds it from that name alone.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import ConfigurationError, DataError, one_of

DESCRIPTOR = (
    "ways",
    "shots",
    "channels",
    "size",
    "mean",
    "deviation",
    "roughness_x",
    "roughness_y",
    "separation",
)
"""What each entry of :attr:`Task.descriptor` says, in order; all lie in about [0, 1]."""


@dataclass(frozen=True, eq=False)
class Task:
    """One task. Attributes that only table tasks lack are documented in :class:`FewShotTask`.

    Args:
        name: ``source:split/index``, unique within a source.
        family: what kind of task it is; splits and results are grouped by it.
    """

    name: str
    family: str

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides what a network is worth on this task, in hexadecimal."""
        raise NotImplementedError

    @property
    def descriptor(self) -> NDArray[np.float32]:
        """What an agent is told of the task before it designs, of shape (len(DESCRIPTOR),): see :data:`DESCRIPTOR`."""
        return np.zeros(len(DESCRIPTOR), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class FewShotTask(Task):
    """A classification problem with few labelled images.

    Args:
        name: ``source:split/index``.
        family: see :class:`Task`.
        support_x: images to adapt on, float32 of shape (S, C, H, W), pixels in [0, 1].
        support_y: their classes in 0 .. ways - 1, int64 of shape (S,); every class has ``shots`` images.
        query_x: images to be scored on, of shape (Q, C, H, W).
        query_y: their classes, of shape (Q,).

    Raises:
        DataError: if the arrays disagree in shape, hold NaN or infinity, have fewer than two classes or no query image.
    """

    support_x: NDArray[np.float32]
    support_y: NDArray[np.int64]
    query_x: NDArray[np.float32]
    query_y: NDArray[np.int64]

    def __post_init__(self) -> None:
        for part in ("support_x", "support_y", "query_x", "query_y"):
            dtype = np.float32 if part.endswith("x") else np.int64
            # A copy: the caller's own array must neither become read-only nor change the task later.
            array = np.array(getattr(self, part), dtype=dtype, order="C")
            array.setflags(write=False)
            object.__setattr__(self, part, array)
        if self.support_x.ndim != 4 or self.support_x.shape[1:] != self.query_x.shape[1:]:
            raise DataError(
                f"{self.name}: support and query images must have one shape (N, C, H, W), "
                f"got {self.support_x.shape} and {self.query_x.shape}"
            )
        for images, labels in ((self.support_x, self.support_y), (self.query_x, self.query_y)):
            if labels.shape != (len(images),):
                raise DataError(f"{self.name}: {len(images)} images but labels of shape {labels.shape}")
            if not np.isfinite(images).all():
                raise DataError(f"{self.name}: pixels must be finite, found NaN or infinity")
        classes = np.unique(self.support_y)
        if len(classes) < 2 or not np.array_equal(classes, np.arange(len(classes))):
            found = classes.tolist()
            raise DataError(f"{self.name}: support classes must be 0 .. ways - 1 with ways >= 2, got {found}")
        if len(self.query_x) == 0:
            raise DataError(f"{self.name}: the query set is empty")
        if not np.isin(self.query_y, classes).all():
            raise DataError(f"{self.name}: the query set has classes that the support set lacks")

    @property
    def ways(self) -> int:
        """Number of classes."""
        return int(self.support_y.max()) + 1

    @property
    def shots(self) -> int:
        """Support images of the rarest class."""
        return int(np.bincount(self.support_y).min())

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.support_x.shape[1:]
        return channels, height, width

    @cached_property
    def digest(self) -> str:
        sha = hashlib.sha256()
        for array in (self.support_x, self.support_y, self.query_x, self.query_y):
            sha.update(repr((array.shape, array.dtype.str)).encode())
            sha.update(array.data)
        return sha.hexdigest()

    @cached_property
    def descriptor(self) -> NDArray[np.float32]:
        """Computed from the support set alone; the query set stays unseen."""
        x = self.support_x.astype(np.float64)
        deviation = x.std() + 1e-8
        flat = x.reshape(len(x), -1)
        means = np.stack([flat[self.support_y == c].mean(0) for c in range(self.ways)])
        within = ((flat - means[self.support_y]) ** 2).mean()
        between = means.var(0).mean()
        values = (
            self.ways / 20,
            np.log1p(self.shots) / 5,
            self.image_shape[0] / 3,
            np.log2(max(self.image_shape[1:])) / 8,
            x.mean(),
            deviation,
            np.abs(np.diff(x, axis=3)).mean() / deviation / 2 if x.shape[3] > 1 else 0.0,
            np.abs(np.diff(x, axis=2)).mean() / deviation / 2 if x.shape[2] > 1 else 0.0,
            between / (between + within + 1e-8),
        )
        return np.array(values, dtype=np.float32)


class TaskSource(ABC):
    """A family of tasks, divided into named splits that share no task."""

    cache_size: int = 256
    """Tasks to keep in memory; sources of large tasks keep fewer."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What ``--tasks`` calls it, before the split."""

    @property
    @abstractmethod
    def splits(self) -> dict[str, int]:
        """Each split's name and its number of tasks."""

    @abstractmethod
    def _build(self, split: str, index: int) -> Task:
        """The task of that number; the same at every call and in every process."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """A JSON object from which :func:`rlnas.datasets.source_from_spec` makes an equal source."""

    def task(self, split: str, index: int) -> Task:
        """Task number ``index`` of a split.

        Raises:
            UnknownNameError: if there is no such split.
            ConfigurationError: if the split has no task of that number.
        """
        count = self.splits[one_of("split", split, self.splits)]
        if not 0 <= index < count:
            raise ConfigurationError(f"{self.name}:{split} has tasks 0 .. {count - 1}, got {index}")
        return self._cached(split, index)

    def named(self, name: str) -> Task:
        """The task that calls itself ``name``: ``source:split/index``.

        Raises:
            ConfigurationError: if no task of this source has that name.
        """
        source, _, place = name.rpartition(":")
        split, _, index = place.partition("/")
        if source != self.name or not index.isdecimal():
            raise ConfigurationError(f"{name!r} is not a task of {self.name} (those are {self.name}:SPLIT/NUMBER)")
        return self.task(split, int(index))

    def sample(self, split: str, rng: np.random.Generator) -> Task:
        """A random task of a split, uniform over its tasks."""
        return self.task(split, int(rng.integers(self.splits[one_of("split", split, self.splits)])))

    def _cached(self, split: str, index: int) -> Task:
        cache: dict[tuple[str, int], Task] = self.__dict__.setdefault("_cache", {})
        key = (split, index)
        if key not in cache:
            if len(cache) >= self.cache_size:
                cache.pop(next(iter(cache)))
            cache[key] = self._build(split, index)
        return cache[key]
