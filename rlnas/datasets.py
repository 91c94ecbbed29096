"""Task sources by name.

A source is asked for in two ways: as a person types it (:func:`parse_tasks`: ``digits:test``, ``omniglot:train``,
``folder:PATH:test``) and as a record keeps it (:func:`source_from_spec`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.digits import DigitsSource
from rlnas.errors import ConfigurationError, DataError, UnknownNameError, one_of
from rlnas.few_shot import SPLITS, FewShotOptions, FewShotSource
from rlnas.image_files import absolute, read_folder, read_npz
from rlnas.table_presets import KNOWN_TABLES, with_data
from rlnas.task import TaskSource
from rlnas.torchvision_sets import TORCHVISION_SETS, read_torchvision
from rlnas.user_data import read_data
from rlnas.user_source import UserSource

if TYPE_CHECKING:
    from rlnas.tabular_evaluator import TableSource


def parse_tasks(
    text: str, *, download: bool = False, data: str | Path | None = None, **options: Any
) -> tuple[TaskSource, str]:
    """The source and the split that ``SOURCE:SPLIT`` or ``SOURCE:PATH:SPLIT`` names.

    Args:
        text: ``digits:test``, ``omniglot:train``, ``folder:PATH:test``, ``npz:PATH:test``, ``table:PATH:all``,
            ``table:nbgraph:train`` (a known table, see :mod:`rlnas.table_presets`), ``user:PATH:all`` (any data that
            :func:`rlnas.user_data.read_data` reads, as one task) ... A table's split may also be ``all`` or, unless
            its file names the splits, one of its columns.
        download: whether torchvision may download its sets.
        data: the folder of torchvision's sets, see :func:`rlnas.torchvision_sets.read_torchvision`, or of known tables.
        **options: of images, the fields of :class:`~rlnas.few_shot.FewShotOptions` and ``image_size``; of a table,
            ``test`` (see :class:`~rlnas.tabular_evaluator.TableSource`) and ``tasks``, ``values``, ``scale`` and
            ``replicates`` (see :meth:`rlnas.table.Table.load`); columns may be a text such as ``cora,arxiv``. None
            stands for the default.

    Raises:
        UnknownNameError: if there is no such source, split or option.
        ConfigurationError: if the text has another form or an option is not allowed.
        DataError: if the images cannot serve.
    """
    source, _, split = text.rpartition(":")
    kind, _, path = source.partition(":")
    if not kind:
        raise ConfigurationError(f"tasks must be SOURCE:SPLIT, such as digits:test or folder:PATH:test, got {text!r}")
    one_of("task source", kind, KINDS)
    if path and kind not in _READ_FROM_PATH:
        raise ConfigurationError(f"{kind} takes no path: tasks must be {kind}:SPLIT, got {text!r}")
    if not path and kind in _READ_FROM_PATH:
        place = "PATH or NAME" if kind == "table" else "PATH"
        raise ConfigurationError(f"{kind} needs a path: tasks must be {kind}:{place}:SPLIT, got {text!r}")
    if kind in _FEW_SHOT_KINDS:  # before a download or a long read, not after it
        one_of("split", split, SPLITS)
    spec = {"kind": kind, **{field: value for field, value in options.items() if value is not None}}
    if path:
        spec["source" if kind == "user" else "path"] = path
    if data is not None and (kind in TORCHVISION_SETS or path in TORCHVISION_SETS):
        spec["data"] = str(data)
    if kind == "table":
        return _table_source(_nested(spec, data), download).with_split(split), split
    built = source_from_spec(spec, download=download)
    return built, one_of("split", split, built.splits)


def source_from_spec(spec: Mapping[str, Any], *, download: bool = False) -> TaskSource:
    """The source that :meth:`~rlnas.task.TaskSource.spec` described.

    Args:
        spec: ``kind``, one of :data:`KINDS`, and the options of that kind.
        download: whether torchvision may download the set.

    Raises:
        UnknownNameError: if the kind or an option is unknown.
        ConfigurationError: if an option is missing or not allowed.
        DataError: if the images cannot serve, or are not those that the spec's ``digest`` describes.
    """
    return KINDS[one_of("task source", str(spec.get("kind")), KINDS)](spec, download)


def _digits_source(spec: Mapping[str, Any], download: bool) -> TaskSource:
    _require_known(spec, ("kind",))
    return DigitsSource()


def _table_source(spec: Mapping[str, Any], download: bool) -> TableSource:
    from rlnas.tabular_evaluator import TableSource

    return TableSource.from_spec(spec)


def _nested(spec: Mapping[str, Any], data: str | Path | None) -> dict[str, Any]:
    """The spec of a table source from options typed side by side."""
    of_table, of_columns = ("values", "scale", "replicates"), ("tasks", "test")
    _require_known(spec, ("kind", "path", *of_columns, *of_table))
    columns = {field: _names(spec[field]) for field in of_columns if field in spec}
    held_out = {"test": columns.pop("test")} if "test" in columns else {}
    table = {**{field: spec[field] for field in of_table if field in spec}, **columns}
    place = str(spec["path"])
    if place in KNOWN_TABLES or not (place.endswith(".npz") or Path(place).exists()):
        table["name"] = one_of("table", place, KNOWN_TABLES)
    else:
        table["path"] = place
    return dict(with_data({"kind": "table", "table": table, **held_out}, data))


def _names(given: Any) -> tuple[str, ...]:
    """Several names, or one text with commas between them."""
    return tuple(given.split(",")) if isinstance(given, str) else tuple(map(str, np.ravel(given).tolist()))


def _user_source(spec: Mapping[str, Any], download: bool) -> TaskSource:
    of_data = ("image_size", "label", "pixel_cap", "data")
    of_tasks = ("examples", "seed", "validation", "test")
    _require_known(spec, ("kind", "source", "digest", *of_data, *of_tasks))
    if "source" not in spec:
        raise ConfigurationError("user needs a path")
    data = read_data(spec["source"], **{field: spec[field] for field in of_data if field in spec}, download=download)
    _require_digest(data.name, data.digest, spec)
    return UserSource(data, **{field: spec[field] for field in of_tasks if field in spec})


def _require_digest(name: str, digest: str, spec: Mapping[str, Any]) -> None:
    wanted = spec.get("digest", digest)
    if digest != wanted:
        raise DataError(
            f"{name}: its images are not those that the record was made with "
            f"(digest {digest[:12]}, recorded {str(wanted)[:12]})"
        )


def _few_shot_source(spec: Mapping[str, Any], download: bool) -> TaskSource:
    kind, place = str(spec["kind"]), "path" if spec["kind"] in _READ_FROM_PATH else "data"
    option_names = [field.name for field in fields(FewShotOptions)]
    _require_known(spec, ("kind", place, "image_size", "digest", *option_names))
    options = FewShotOptions(**{field: spec[field] for field in option_names if field in spec})
    origin = {field: spec[field] for field in ("kind", place, "image_size") if spec.get(field) is not None}
    if place in origin:
        origin[place] = str(absolute(str(origin[place])))
    size = origin.get("image_size")
    if isinstance(size, tuple):
        origin["image_size"] = list(size)
    if place == "data":
        images = read_torchvision(kind, origin.get("data"), size, download)
    elif place in origin:
        images = {"folder": read_folder, "npz": read_npz}[kind](origin[place], size)
    else:
        raise ConfigurationError(f"{kind} needs a path")
    _require_digest(images.name, images.digest, spec)
    return FewShotSource(images, options, origin)


_FEW_SHOT_KINDS = (*TORCHVISION_SETS, "folder", "npz")
_READ_FROM_PATH = ("folder", "npz", "table", "user")

KINDS: dict[str, Callable[[Mapping[str, Any], bool], TaskSource]] = {
    "digits": _digits_source,
    "table": _table_source,
    "user": _user_source,
    **dict.fromkeys(_FEW_SHOT_KINDS, _few_shot_source),
}
"""Every kind of source and what makes one from its spec and whether it may download."""


def _require_known(spec: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for field in spec:
        if field not in known:
            raise UnknownNameError(f"option of the task source {spec['kind']}", field, known)
