"""Tables that are known by name: public benchmarks, whose files a user has to bring, and where they are looked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlnas.errors import ConfigurationError, DataError, one_of

VARIABLE = "RLNAS_DATA"
"""The environment variable that names the folder of tables, unless a ``data`` option does."""


@dataclass(frozen=True)
class KnownTable:
    """A table that has a name.

    Args:
        title: of the benchmark.
        repository: where its values are published.
        file: where the table lies in the folder of tables; an absolute path lies there whatever the folder.
        layout: the arrays that the file must have.
        options: of :meth:`rlnas.table.Table.load`.
        test: columns that the split ``test`` holds out.
        report: of :class:`~rlnas.tabular_evaluator.TabularEvaluator`.
    """

    title: str
    repository: str
    file: str
    layout: str
    options: Mapping[str, Any]
    test: tuple[str, ...] = ()
    report: Mapping[str, Any] | None = None


KNOWN_TABLES: dict[str, KnownTable] = {
    "digits": KnownTable(
        title="the digits table of this package",
        repository="rlnas",
        file=str(Path(__file__).parent / "tables" / "digits.npz"),
        layout="ops, op_names, tasks, families, splits, descriptors, accuracy (rows, tasks, seeds)",
        options={"values": "accuracy", "scale": "fraction", "replicates": "seed"},
    ),
    "nasbench201": KnownTable(
        title="NAS-Bench-201",
        repository="github.com/D-X-Y/NAS-Bench-201",
        file="nasbench201/nb201.npz",
        layout="ops (15625, 6), op_names, tasks, val_12 and test_200 in %",
        options={"values": "val_12", "scale": "percent"},
        test=("imagenet16-120",),
        report={"values": "test_200", "tasks": ("cifar10", "cifar100", "imagenet16-120")},
    ),
    "transnas": KnownTable(
        title="TransNAS-Bench-101, micro",
        repository="github.com/yawen-d/TransNASBench",
        file="transnas101/micro.npz",
        layout="ops (4096, 6), op_names, tasks, val",
        options={"values": "val", "scale": "minmax"},
        test=("class_scene", "jigsaw"),
    ),
    "nbgraph": KnownTable(
        title="NAS-Bench-Graph",
        repository="github.com/THUMNLab/NAS-Bench-Graph",
        file="nasbench_graph/nbgraph.npz",
        layout="links and ops (26206, 4), op_names, tasks, val and test in %",
        options={  # without proteins, on which one design in thirteen was evaluated
            "values": "val",
            "scale": "percent",
            "tasks": ("cora", "citeseer", "pubmed", "cs", "physics", "photo", "computers", "arxiv"),
        },
        test=("computers", "arxiv"),
        report={"values": "test"},
    ),
    "nbmacro": KnownTable(
        title="NAS-Bench-Macro",
        repository="github.com/xiusu/NAS-Bench-Macro",
        file="nasbench_macro/nbmacro.npz",
        layout="ops (6561, 8), op_names, tasks, test in % with three seeds (6561, 3)",
        options={"values": "test", "scale": "percent"},
    ),
}
"""Every table that has a name; add your own here."""


def is_available(name: str, data: str | Path | None = None) -> bool:
    """Whether the file of a known table is there.

    Raises:
        UnknownNameError: if there is no table of that name.
    """
    place = _place(name, data)
    return place is not None and place.exists()


def find_table(name: str, data: str | Path | None = None) -> Path:
    """The file of a known table.

    Args:
        name: one of :data:`KNOWN_TABLES`.
        data: the folder of tables; by default the one that :data:`VARIABLE` names.

    Raises:
        UnknownNameError: if there is no table of that name.
        DataError: if the file is missing; the message says where the table comes from and what it must hold.
    """
    place = _place(name, data)
    if place is not None and place.exists():
        return place
    known = KNOWN_TABLES[name]
    fault = f"neither {VARIABLE} nor --data is set" if place is None else f"{place} is not there"
    raise DataError(
        f"table {name!r}: {fault}; it is made from {known.title} ({known.repository}) and has the arrays "
        f"{known.layout} (see rlnas.table); the folder that holds {known.file} is named by {VARIABLE} or --data"
    )


def load_arguments(spec: str | Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :meth:`rlnas.table.Table.load` that a table's spec stands for.

    Args:
        spec: a known table's name; or a mapping with the ``name`` of one, perhaps the folder ``data`` or the ``path``
            where it used to be, and what to change of its options; or the arguments themselves.

    Raises:
        UnknownNameError: if there is no table of that name.
        DataError: if its file is missing.
    """
    name = known_name(spec)
    if name is None:
        return dict(spec) if isinstance(spec, Mapping) else {}
    given = dict(spec) if isinstance(spec, Mapping) else {}
    given.pop("name", None)
    path, data = given.pop("path", None), given.pop("data", None)
    if path is None or not Path(path).exists():
        path = find_table(name, data)
    return {"path": path, "known_as": name, **KNOWN_TABLES[name].options, **given}


def known_name(spec: object) -> str | None:
    """The name of the known table that a table's spec stands for; None if it stands for a file.

    Raises:
        UnknownNameError: if there is no table of that name.
        ConfigurationError: if it is neither a name nor a mapping.
    """
    if not isinstance(spec, str | Mapping):
        raise ConfigurationError(f"table must be a name or a mapping, got {spec!r}")
    name = spec.get("name") if isinstance(spec, Mapping) else spec
    return None if name is None else one_of("table", name, KNOWN_TABLES)


def with_data(spec: Any, data: str | Path | None) -> Any:
    """The spec of a space, source or evaluator with the folder in which to look for the table that it names, if any."""
    table = spec.get("table") if isinstance(spec, Mapping) else None
    if data is None or table is None or known_name(table) is None:
        return spec
    return {**spec, "table": {"data": str(data), **({"name": table} if isinstance(table, str) else table)}}


def _place(name: str, data: str | Path | None) -> Path | None:
    """Where the file must be; None if nothing says in which folder."""
    file, folder = Path(KNOWN_TABLES[one_of("table", name, KNOWN_TABLES)].file), data or os.environ.get(VARIABLE)
    if file.is_absolute():
        return file
    return Path(folder).expanduser() / file if folder else None
