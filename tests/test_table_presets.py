"""Known tables: found by name, split, reported on; small stand-ins take the place of the published files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rlnas.datasets import parse_tasks, source_from_spec
from rlnas.errors import ConfigurationError, DataError, UnknownNameError
from rlnas.registration import PRESETS
from rlnas.search_space import CellSpace
from rlnas.specs import available_space, evaluator_from_spec, make_space, space_from_spec
from rlnas.table import Table
from rlnas.table_presets import KNOWN_TABLES, VARIABLE, find_table
from rlnas.table_report import Report
from rlnas.tabular_evaluator import TableSource, TabularEvaluator

from .tables import OPS, SCORE, save_table

COLUMNS = {
    "nasbench201": ["cifar10", "cifar100", "imagenet16-120", "darcy"],
    "transnas": ["class_scene", "class_object", "room_layout", "jigsaw", "segmentsemantic", "normal", "autoencoder"],
    "nbgraph": ["cora", "citeseer", "pubmed", "cs", "physics", "photo", "computers", "arxiv", "proteins"],
    "nbmacro": ["cifar10"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for every published table, where no variable points."""
    monkeypatch.delenv(VARIABLE, raising=False)
    rng = np.random.default_rng(0)
    for name, columns in COLUMNS.items():
        path = tmp_path / KNOWN_TABLES[name].file
        path.parent.mkdir(parents=True)
        values = {array: rng.uniform(10, 90, (5, len(columns))) for array in ("val", "test", "test_200")}
        values["val_12"] = values["val"][:, :3]
        if name == "nbmacro":
            values = {"test": rng.uniform(10, 90, (5, 3))}
        save_table(path, score=None, tasks=np.array(columns), **values)
    return tmp_path


TABLE_IDS = [i for i, arguments in PRESETS.items() if arguments["space"].get("table", "digits") != "digits"]


@pytest.mark.parametrize("env_id", TABLE_IDS)
def test_an_environment_finds_its_table_where_it_is_made(env_id: str, folder: Path) -> None:
    with pytest.raises(DataError, match=r"neither RLNAS_DATA nor --data is set; it is made from .* \(github\.com/"):
        gym.make(env_id)
    with pytest.raises(DataError, match=rf"{folder}/elsewhere/.*\.npz is not there; .* has the arrays .*ops \("):
        gym.make(env_id, data=str(folder / "elsewhere"))
    env: Any = gym.make(env_id, data=str(folder)).unwrapped
    _, info = env.reset(seed=0)
    over = False
    while not over:
        _, _, over, _, info = env.step(int(np.flatnonzero(info["action_mask"])[0]))
    assert info["status"] == "ok"
    assert info["design"] == PRESETS[env_id]["designs_per_trial"]
    spec = json.loads(json.dumps(env.settings.spec()))  # holds paths and digests: it needs no folder
    again: Any = gym.make(
        env_id, space=spec["space"], tasks=(spec["tasks"], spec["split"]), evaluator=spec["evaluator"]
    ).unwrapped
    assert again.settings.spec() == env.settings.spec()


def test_a_known_table_that_was_moved_is_found_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env: Any = gym.make("rlnas/NASBenchGraph-v0", data=str(folder)).unwrapped
    spec = json.loads(json.dumps(env.settings.spec()))
    (folder / "nasbench_graph").rename(folder / "before")
    moved = folder / "elsewhere" / "nasbench_graph"
    moved.parent.mkdir()
    parts: list[Callable[[], Any]] = [
        lambda: space_from_spec(spec["space"]),
        lambda: source_from_spec(spec["tasks"]),
        lambda: evaluator_from_spec(spec["evaluator"]),
    ]
    for rebuild in parts:
        with pytest.raises(DataError, match="table 'nbgraph': neither RLNAS_DATA nor --data is set"):
            rebuild()
    (folder / "before").rename(moved)
    monkeypatch.setenv(VARIABLE, str(moved.parent))
    space, source, evaluator = (rebuild() for rebuild in parts)
    assert space == env.settings.space
    assert source.task("test", 1).digest == env.settings.source.task("test", 1).digest
    assert evaluator.table.space.path == moved / "nbgraph.npz"
    np.savez(moved / "nbgraph.npz", **{**np.load(moved / "nbgraph.npz"), "val": np.ones((5, 9))})
    with pytest.raises(DataError, match=r"column 'cora'|content has changed"):
        parts[2]()


def test_the_variable_names_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert available_space(PRESETS["rlnas/NASBenchGraph-v0"]["space"]) is None
    assert available_space(PRESETS["rlnas/NASBenchGraph-v0"]["space"], folder) is not None
    monkeypatch.setenv(VARIABLE, str(folder))
    assert find_table("nbgraph") == folder / "nasbench_graph/nbgraph.npz"
    assert available_space(PRESETS["rlnas/NASBenchGraph-v0"]["space"]) == make_space("table", table="nbgraph")
    assert available_space({"kind": "cell"}) == CellSpace()


def splits(text: str, folder: Path, **options: Any) -> tuple[dict[str, list[str]], str]:
    source, split = parse_tasks(text, data=folder, **options)
    return {s: [source.task(s, i).family for i in range(n)] for s, n in source.splits.items()}, split


def test_some_columns_are_held_out(folder: Path) -> None:
    training = ["cora", "citeseer", "pubmed", "cs", "physics", "photo"]
    expected = {"train": training, "test": ["computers", "arxiv"]}
    for split in ("train", "test"):
        assert splits(f"table:nbgraph:{split}", folder) == (expected, split)
    for test in ("cora,arxiv", ("arxiv", "cora")):
        found, _ = splits("table:nbgraph:train", folder, test=test)
        assert found["test"] == ["cora", "arxiv"]
        assert found["train"] == [*training[1:], "computers"]
    assert splits("table:nbgraph:all", folder) == ({"all": [*training, "computers", "arxiv"]}, "all")
    assert splits("table:nasbench201:train", folder)[0] == {
        "train": ["cifar10", "cifar100"],
        "test": ["imagenet16-120"],
    }
    assert splits("table:nasbench201:cifar10", folder) == ({"cifar10": ["cifar10"]}, "cifar10")
    assert splits("table:transnas:test", folder)[0]["test"] == ["class_scene", "jigsaw"]
    assert splits("table:nbmacro:all", folder)[0] == {"all": ["cifar10"]}
    assert splits(f"table:{folder}/nasbench_graph/nbgraph.npz:all", folder, values="val")[0]["all"][-1] == "proteins"


def test_any_table_is_searched_by_what_its_source_says(folder: Path) -> None:
    path = folder / KNOWN_TABLES["nbgraph"].file
    options = {"values": "val", "scale": "percent", "tasks": "cora,arxiv", "test": "arxiv"}
    for text in (f"table:{path}:test", "table:nbgraph:test"):
        source, split = parse_tasks(text, data=folder, **options)
        assert isinstance(source, TableSource)
        assert source.splits == {"train": 1, "test": 1}
        env: Any = gym.make("rlnas/Trial-v0", tasks=(source, split), **source.environment()).unwrapped
        env.reset(seed=0)
        infos = [env.step(int(np.flatnonzero(env.action_masks())[0]))[-1] for _ in env.search_space.decisions]
        assert infos[-1]["accuracy"] == np.load(path)["val"][1, 7] / 100  # 0-0-1 comes first
        report = env.settings.evaluator.report
        assert (None if report is None else report.values_name) == ("test" if text.startswith("table:nb") else None)


def test_a_source_by_name_is_rebuilt_from_its_spec(folder: Path) -> None:
    for text in ("table:nbgraph:test", "table:nbgraph:cora"):
        source, split = parse_tasks(text, data=folder)
        task = source.task(split, 0)
        assert task.name == f"{text}/0"
        again = source_from_spec(json.loads(json.dumps(source.spec())))
        assert again.named(task.name).digest == task.digest
        assert again.splits == source.splits


def test_names_that_are_not_known(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown table 'nbgrapf'; did you mean 'nbgraph'"):
        parse_tasks("table:nbgrapf:all", data=folder)
    with pytest.raises(UnknownNameError, match="unknown split 'tests'; did you mean 'test'"):
        parse_tasks("table:nbgraph:tests", data=folder)
    with pytest.raises(UnknownNameError, match="unknown test column 'coral'; did you mean 'cora'"):
        parse_tasks("table:nbgraph:test", data=folder, test="coral")
    with pytest.raises(DataError, match=r"none\.npz: there is no such file"):
        parse_tasks("table:none.npz:all", data=folder)
    with pytest.raises(ConfigurationError, match="table needs a path: tasks must be table:PATH or NAME:SPLIT"):
        parse_tasks("table:all", data=folder)
    with pytest.raises(UnknownNameError, match="unknown option of the task source 'table' 'tests'"):
        source_from_spec({"kind": "table", "table": "nbgraph", "tests": ["cora"]})
    with pytest.raises(UnknownNameError, match="unknown option of the evaluator 'table' 'reports'"):
        evaluator_from_spec({"kind": "table", "table": "nbgraph", "reports": {}})
    for place in ({}, {"path": "x.npz", "table": "nbgraph"}):
        with pytest.raises(ConfigurationError, match="space 'table' needs either a path or a table"):
            make_space("table", **place)
    with pytest.raises(UnknownNameError, match=r"unknown split 'train' \(known: all, cifar10\)"):
        parse_tasks("table:nbmacro:train", data=folder)
    with pytest.raises(
        ConfigurationError, match=r"table needs a path or a name \(known: digits, nasbench201, .*got {'scale'"
    ):
        evaluator_from_spec({"kind": "table", "table": {"scale": "percent"}})
    with pytest.raises(ConfigurationError, match=r"report must be a mapping, such as {'values': 'test'}, got 'test'"):
        evaluator_from_spec({"kind": "table", "table": {"name": "nbgraph", "data": folder}, "report": "test"})
    with pytest.raises(ConfigurationError, match="table must be a name or a mapping, got 3"):
        evaluator_from_spec({"kind": "table", "table": 3})


# ---- what is said of the designs chosen


def evaluator_of(name: str, folder: Path) -> tuple[TabularEvaluator, TableSource]:
    evaluator = evaluator_from_spec({"kind": "table", "table": {"name": name, "data": str(folder)}})
    source, _ = parse_tasks(f"table:{name}:all", data=folder)
    assert isinstance(evaluator, TabularEvaluator)
    assert isinstance(source, TableSource)
    return evaluator, source


def test_every_image_set_is_reported_for_nasbench201(folder: Path) -> None:
    evaluator, source = evaluator_of("nasbench201", folder)
    designs = [evaluator.table.space.decode(row) for row in OPS[[3, 0]]]
    recorded = np.load(folder / "nasbench201/nb201.npz")["test_200"]
    expected = {f"{task} test_200": recorded[[3, 0], i].tolist() for i, task in enumerate(COLUMNS["nasbench201"][:3])}
    again = evaluator_from_spec(json.loads(json.dumps(evaluator.spec())))
    assert isinstance(again, TabularEvaluator)
    for one in (evaluator, again):
        found = one.chosen_measures(designs, [source.task("all", 1), source.task("all", 0)])
        assert {measure: values.tolist() for measure, values in found.items()} == expected


def test_the_task_searched_is_reported_for_nasbench_graph(folder: Path) -> None:
    evaluator, source = evaluator_of("nbgraph", folder)
    designs = [evaluator.table.space.decode(row) for row in OPS[[3, 0]]]
    found = evaluator.chosen_measures(designs, [source.task("all", 7), source.task("all", 2)])
    recorded = np.load(folder / "nasbench_graph/nbgraph.npz")["test"]
    assert found["test"].tolist() == [recorded[3, 7], recorded[0, 2]]
    ranks = [1 + (recorded[:, 7] > recorded[3, 7]).sum(), 1 + (recorded[:, 2] > recorded[0, 2]).sum()]
    assert found["test rank"].tolist() == ranks


def test_without_a_report_it_is_the_tables_own_values(folder: Path) -> None:
    evaluator, source = evaluator_of("nbmacro", folder)
    recorded = np.load(folder / "nasbench_macro/nbmacro.npz")["test"].mean(1)
    best = int(recorded.argmax())
    found = evaluator.chosen_measures([evaluator.table.space.decode(OPS[best])], [source.task("all", 0)])
    assert {m: v.tolist() for m, v in found.items()} == {"test": [pytest.approx(recorded[best])], "test rank": [1.0]}
    assert all(len(v) == 0 for v in evaluator.chosen_measures([], []).values())


def test_each_seed_is_reported_apart(tmp_path: Path) -> None:
    score = np.stack([SCORE, np.where(OPS[:, :1] == 2, SCORE + 1, np.nan)], axis=2)
    table = Table.load(save_table(tmp_path / "small.npz", score=score), replicates="seed")
    task = TableSource(table).task("all", 0)
    found = TabularEvaluator(table).chosen_measures([table.space.decode(row) for row in OPS[[0, 3]]], [task, task])
    np.testing.assert_equal(found, {"score seed 0": [10.0, 30.0], "score seed 1": [np.nan, 31.0]})


def test_a_report_is_checked(tmp_path: Path) -> None:
    path = save_table(tmp_path / "small.npz", final=SCORE[:, :1])
    table = Table.load(path, "score")
    report = Report(table.space, "final")
    tasks = [TableSource(table).task("all", i) for i in (0, 1)]
    designs = [table.space.decode(OPS[0])] * 2
    found = TabularEvaluator(table, report).chosen_measures(designs, tasks)
    np.testing.assert_equal(found, {"final": [10.0, np.nan], "final rank": [5.0, np.nan]})
    with pytest.raises(UnknownNameError, match=r"unknown value array of .* 'finals'; did you mean 'final'"):
        Report(table.space, "finals")
    with pytest.raises(UnknownNameError, match="unknown reported task 'letters'"):
        Report(table.space, "final", ["letters"])
    with pytest.raises(ConfigurationError, match=r"report: .*value"):
        evaluator_from_spec({"kind": "table", "table": table.spec(), "report": {"value": "final"}})
    spec = TabularEvaluator(table, report).spec()
    save_table(path, final=SCORE[:, :1] + 1)
    with pytest.raises(DataError, match="final has changed"):
        evaluator_from_spec(spec)
    with pytest.raises(ConfigurationError, match="does not hold the designs of"):
        TabularEvaluator(table).chosen_measures([CellSpace().sample(np.random.default_rng(0))], tasks[:1])
