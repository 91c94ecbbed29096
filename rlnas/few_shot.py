"""Few-shot tasks drawn from images that are grouped by class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlnas.errors import ConfigurationError, DataError, at_least, one_of
from rlnas.images import ImageSet, Parts
from rlnas.task import FewShotTask, TaskSource

SPLITS = {"train": 1024, "val": 128, "test": 256}
"""Number of tasks in each split of a :class:`FewShotSource`."""

_STREAM = {"train": 1, "val": 2, "test": 3}
_PARTITION_STREAM = 0
_CACHE_BYTES = 2**28

Range: TypeAlias = int | tuple[int, int]
"""A number, or the lowest and the highest that may be drawn."""


@dataclass(frozen=True)
class FewShotOptions:
    """How tasks are drawn from images.

    Args:
        ways: classes of a task; a number, or (low, high) to draw from uniformly.
        shots: support images of each class, likewise.
        queries: query images of each class.
        split_by: whether splits share no ``classes``, or share classes but no ``images``. By default classes, where
            that leaves every split as many classes as ``ways`` may ask for, otherwise images. Either way train, val and
            test get 60, 20 and 20 %. An official split goes before this rule: where it lacks val, val is a quarter of
            its train.
        seed: of the splits and the tasks.

    Raises:
        ConfigurationError: if a value is not allowed.
    """

    ways: Range = 5
    shots: Range = (1, 5)
    queries: int = 15
    split_by: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for field, minimum in (("ways", 2), ("shots", 1)):
            object.__setattr__(self, field, _checked_range(field, getattr(self, field), minimum))
        at_least("queries", self.queries, 1)
        at_least("seed", self.seed, 0)
        if self.split_by is not None:
            one_of("split_by", self.split_by, ("classes", "images"))

    @property
    def ways_range(self) -> tuple[int, int]:
        """The fewest and the most classes of a task."""
        return _low_high(self.ways)

    @property
    def shots_range(self) -> tuple[int, int]:
        """The fewest and the most support images of a class."""
        return _low_high(self.shots)


class FewShotSource(TaskSource):
    """Few-shot tasks drawn from images: splits ``train``, ``val`` and ``test``, which share no image.

    A task depends on the images, the options, its split and its index alone. Its family is the name of the images.
    Images are kept as they came; a task's are float32 in [0, 1].

    Args:
        images: the images by class.
        options: how tasks are drawn.
        origin: where the images were read from, for :meth:`spec`; a source of images that were handed over in memory
            has none and cannot be rebuilt from its spec.

    Raises:
        ConfigurationError: if a split has fewer classes than ``ways`` may ask for, or ``split_by`` contradicts an
            official split.
        DataError: if a class has too few images in a split for ``shots`` and ``queries``.
    """

    def __init__(
        self, images: ImageSet, options: FewShotOptions | None = None, origin: Mapping[str, Any] | None = None
    ) -> None:
        self.images = images
        self.options = options or FewShotOptions()
        self._origin = dict(origin or {"kind": "arrays"})
        self._pools = _pools(images, self.options)
        task_images = self.options.ways_range[1] * (self.options.shots_range[1] + self.options.queries)
        task_bytes = task_images * int(np.prod(images.image_shape)) * np.dtype(np.float32).itemsize
        self.cache_size = int(np.clip(_CACHE_BYTES // task_bytes, 1, TaskSource.cache_size))

    @property
    def name(self) -> str:
        return self.images.name

    @property
    def splits(self) -> dict[str, int]:
        return dict(SPLITS)

    def spec(self) -> dict[str, Any]:
        options = {field: list(v) if isinstance(v, tuple) else v for field, v in asdict(self.options).items()}
        return {**self._origin, **options, "digest": self.images.digest}

    def members(self, split: str) -> dict[str, NDArray[np.int64]]:
        """For each class of a split, the numbers of its images in the split.

        Raises:
            UnknownNameError: if there is no such split.
        """
        pool = self._pools[one_of("split", split, self.splits)]
        return {self.images.classes[label]: numbers.copy() for label, numbers in pool}

    def _build(self, split: str, index: int) -> FewShotTask:
        rng = np.random.default_rng([self.options.seed, _STREAM[split], index])
        ways = int(rng.integers(*self.options.ways_range, endpoint=True))
        shots = int(rng.integers(*self.options.shots_range, endpoint=True))
        pool, queries = self._pools[split], self.options.queries
        support, query = [], []
        for number in rng.permutation(len(pool))[:ways]:
            label, members = pool[number]
            chosen = self.images.images[label][rng.permutation(members)[: shots + queries]]
            support.append(chosen[:shots])
            query.append(chosen[shots:])
        return FewShotTask(
            name=f"{self.name}:{split}/{index}",
            family=self.name,
            support_x=self._scaled(support),
            support_y=np.repeat(np.arange(ways), shots),
            query_x=self._scaled(query),
            query_y=np.repeat(np.arange(ways), queries),
        )

    def _scaled(self, chosen: list[Any]) -> NDArray[np.float32]:
        """(N, C, H, W) in [0, 1] from images of shape (n, H, W, C) by class."""
        return np.concatenate(chosen).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(self.images.white)


def _checked_range(field: str, value: object, minimum: int) -> Range:
    if isinstance(value, int):
        return at_least(field, value, minimum)
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ConfigurationError(f"{field} must be an integer or (low, high), got {value!r}")
    low, high = at_least(field, value[0], minimum), at_least(field, value[1], minimum)
    if low > high:
        raise ConfigurationError(f"{field} must be (low, high) with low <= high, got {value!r}")
    return low, high


def _low_high(value: Range) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _pools(images: ImageSet, options: FewShotOptions) -> dict[str, list[tuple[int, NDArray[np.int64]]]]:
    """For each split its classes, each with the numbers of its images in the split; checked to be large enough."""
    parts, by_classes = _partition(images, options)
    ways, shots = options.ways_range[1], options.shots_range[1]
    pools = {}
    for number, split in enumerate(SPLITS):
        pool = [(label, np.flatnonzero(part == number)) for label, part in enumerate(parts)]
        if by_classes:
            pool = [(label, members) for label, members in pool if len(members)]
        if len(pool) < ways:
            raise ConfigurationError(
                f"ways up to {ways} are asked for, but {images.name}:{split} has {len(pool)} classes"
            )
        for label, members in pool:
            if len(members) < shots + options.queries:
                raise DataError(
                    f"{images.name}: class {images.classes[label]!r} has {len(parts[label])} images, {len(members)} of "
                    f"them for {split}; {shots} shots and {options.queries} queries need {shots + options.queries}"
                )
        pools[split] = pool
    return pools


def _partition(images: ImageSet, options: FewShotOptions) -> tuple[list[Parts], bool]:
    """The split of every image, by class, and whether splits share no class."""
    rng = np.random.default_rng([options.seed, _PARTITION_STREAM])
    sizes = [len(array) for array in images.images]
    if images.parts is not None:
        return _complete_official(images, options, rng)
    by_classes = len(sizes) // 5 >= options.ways_range[1]
    if options.split_by is not None:
        by_classes = options.split_by == "classes"
    if by_classes:
        split_of_class = _shuffled_parts(len(sizes), len(sizes) // 5, len(sizes) // 5, rng)
        return [np.full(n, part, dtype=np.int8) for n, part in zip(sizes, split_of_class, strict=True)], True
    return [_shuffled_parts(n, n // 5, n // 5, rng) for n in sizes], False


def _complete_official(images: ImageSet, options: FewShotOptions, rng: np.random.Generator) -> tuple[list[Parts], bool]:
    """The official split; where it lacks val, with a quarter of its train classes or images as val."""
    assert images.parts is not None
    parts = [part.astype(np.int8) for part in images.parts]
    by_classes = all(len(np.unique(part)) == 1 for part in parts)
    official = "classes" if by_classes else "images"
    if options.split_by not in (None, official):
        raise ConfigurationError(f"split_by must be {official}, as {images.name} has an official split by {official}")
    if any(1 in part for part in parts):
        return parts, by_classes
    if by_classes:
        train = [part for part in parts if part[0] == 0]
        for part, number in zip(train, _shuffled_parts(len(train), len(train) // 4, 0, rng), strict=True):
            part[:] = number
    else:
        for part in parts:
            members = np.flatnonzero(part == 0)
            part[members] = _shuffled_parts(len(members), len(members) // 4, 0, rng)
    return parts, by_classes


def _shuffled_parts(count: int, val: int, test: int, rng: np.random.Generator) -> Parts:
    """Of ``count`` things at random ``val`` to val (1), ``test`` to test (2) and the rest to train (0)."""
    return rng.permutation(np.repeat(np.array([0, 1, 2], dtype=np.int8), [count - val - test, val, test]))
