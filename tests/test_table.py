"""Fidelities, replicates, costs, and what a file says of its columns."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlnas.errors import ConfigurationError, DataError, UnknownNameError
from rlnas.evaluator import Evaluation, Proposal, Status
from rlnas.table import Table
from rlnas.tabular_evaluator import TableSource, TabularEvaluator
from rlnas.task import DESCRIPTOR

from .tables import OPS, SCORE, TASKS, published, save_table

NAN = float("nan")
# designs 0-0-1 and 1-0-0 lack their second seed on digits, 2-1-0 has none on letters
SEEDS = np.array(
    [
        [[10.0, 14.0], [2.0, 4.0]],
        [[20.0, NAN], [4.0, 8.0]],
        [[40.0, 44.0], [NAN, NAN]],
        [[30.0, 30.0], [1.0, 3.0]],
        [[15.0, NAN], [3.0, 1.0]],
    ]
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "small.npz"


def ask(
    table: Table, design: str, task: str = "digits", seed: int = 0, steps: int | None = None, split: str = "all"
) -> Evaluation:
    source = TableSource(table, only=task)
    proposal = Proposal(table.space.parse(design), source.task(task, 0), seed, steps)
    return TabularEvaluator(table).evaluate([proposal])[0]


class TestReplicates:
    def test_by_default_every_seed_gets_the_mean_of_those_there_are(self, path: Path) -> None:
        table = Table.load(save_table(path, score=SEEDS), scale="percent")
        assert [ask(table, "0-1-2", seed=seed).accuracy for seed in (0, 1, 12345)] == pytest.approx([0.12] * 3)
        assert ask(table, "0-0-1", seed=1).accuracy == pytest.approx(0.2)
        assert ask(table, "2-1-0", "letters").status is Status.INVALID
        assert table.best("digits") == pytest.approx(0.42)
        assert table.mean("letters") == pytest.approx((3 + 6 + 2 + 2) / 4 / 100)

    def test_a_seed_gets_its_own_replicate(self, path: Path) -> None:
        table = Table.load(save_table(path, score=SEEDS), scale="percent", replicates="seed")
        assert [ask(table, "0-1-2", seed=seed).accuracy for seed in (0, 1)] == pytest.approx([0.10, 0.14])
        missing = ask(table, "0-0-1", seed=1)
        assert (missing.status, missing.accuracy) == (Status.INVALID, 0.0)
        assert missing.message == "the design was not evaluated on digits with seed 1"
        assert (table.best("digits"), table.best("digits", 1)) == (0.40, 0.44)
        assert (table.mean("letters"), table.mean("letters", 1)) == pytest.approx((0.025, 0.04))
        assert table.values.shape == table.accuracy.shape == (5, 2)
        with pytest.raises(ConfigurationError, match=r"seed must be in 0 \.\. 1, the replicates of score, got 2"):
            ask(table, "0-1-2", seed=2)

    def test_scales_cover_all_replicates(self, path: Path) -> None:
        table = Table.load(save_table(path, score=SEEDS), replicates="seed")
        assert (table.best("digits"), table.best("digits", 1)) == (pytest.approx(30 / 34), 1.0)

    def test_several_columns_of_one_task_are_replicates_too(self, path: Path) -> None:
        table = Table.load(save_table(path, tasks=TASKS[:1], score=SEEDS[:, 0]), scale="percent", replicates="seed")
        assert [ask(table, "0-1-2", seed=seed).accuracy for seed in (0, 1)] == pytest.approx([0.10, 0.14])

    def test_lookup_is_evaluate_without_proposals(self, path: Path) -> None:
        table = Table.load(save_table(path, score=SEEDS), scale="percent", replicates="seed")
        evaluator, source = TabularEvaluator(table), TableSource(table)
        choices = np.array([[0, 0, 1], [2, 1, 0], [0, 1, 2], [2, 2, 2], [0, 0, 1]])
        tasks = [source.task("all", i) for i in (0, 1, 1, 0, 0)]
        for seed in (0, 1):
            found = evaluator.lookup(choices, tasks, seed)
            assert [e.accuracy for e in found] == pytest.approx(
                [0.0 if seed else 0.2, 0, [0.02, 0.04][seed], 0, 0.2 - 0.2 * seed]
            )
            legal = [0, 1, 2, 4]
            proposals = [Proposal(table.space.decode(choices[i]), tasks[i], seed) for i in legal]
            assert evaluator.evaluate(proposals) == [found[i] for i in legal]
            assert found[3].message == f"2-2-2 is not in {path}"
        with pytest.raises(ConfigurationError, match="seed must be in"):
            evaluator.lookup(choices, tasks, 2)

    def test_unknown_ways_to_read_them_are_refused(self, path: Path) -> None:
        with pytest.raises(UnknownNameError, match="unknown replicates 'seeds'; did you mean 'seed'"):
            Table.load(save_table(path), replicates="seeds")


FIDELITIES = {"score": None, "val_4": SCORE, "val_12": SCORE + 1, "other_12": SCORE, "seconds_4": np.arange(5.0)}


class TestFidelities:
    def test_arrays_that_differ_in_their_number_of_steps_are_fidelities(self, path: Path) -> None:
        table = Table.load(save_table(path, **FIDELITIES), "val_12", "percent")
        assert list(table.fidelities) == [4, 12]
        assert [ask(table, "0-1-2", steps=s).accuracy for s in (None, 12, 4)] == pytest.approx([0.11, 0.11, 0.10])
        assert [ask(table, "0-0-1", steps=s).seconds for s in (None, 12, 4)] == [0, 0, 1]
        assert ask(table, "2-1-0", "letters", steps=4).message == "the design was not evaluated on letters for 4 steps"
        with pytest.raises(ConfigurationError, match=r"small\.npz: no values for 5 steps \(fidelities: 4, 12\)"):
            ask(table, "0-1-2", steps=5)

    def test_they_can_be_told(self, path: Path) -> None:
        save_table(path, cheap=SCORE[:, :1] / 2)
        table = Table.load(path, "score", "percent", fidelities={"3": "cheap"})
        assert ask(table, "0-1-2", steps=3).accuracy == pytest.approx(0.05)
        assert ask(table, "0-1-2", "letters", steps=3).status is Status.INVALID  # the array has no such column
        again = Table.from_spec(json.loads(json.dumps(table.spec())))
        assert again.digest == table.digest == pickle.loads(pickle.dumps(table)).digest
        assert ask(again, "0-1-2", steps=3).accuracy == pytest.approx(0.05)

    def test_a_table_without_says_so(self, path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"no values for 4 steps \(fidelities: none\)"):
            ask(Table.load(save_table(path)), "0-1-2", steps=4)

    def test_a_change_of_another_fidelity_is_noticed(self, path: Path) -> None:
        table = Table.load(save_table(path, **FIDELITIES), "val_12")
        save_table(path, **{**FIDELITIES, "val_4": SCORE * 2})
        with pytest.raises(DataError, match="its content has changed"):
            Table.from_spec(table.spec())

    def test_one_of_other_length_is_refused(self, path: Path) -> None:
        with pytest.raises(DataError, match=r"small\.npz: val_4 must be numbers of shape \(5, tasks\)"):
            Table.load(save_table(path, **{**FIDELITIES, "val_4": SCORE[:4]}), "val_12")

    @pytest.mark.parametrize("given", ["score", {"x": "score"}, {-1: "score"}, {4: "scores"}])
    def test_what_is_no_mapping_of_steps_to_arrays_is_refused(self, path: Path, given: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"fidelities must be|steps of a fidelity|unknown value array"):
            Table.load(save_table(path), "score", fidelities=given)


class TestCosts:
    def test_seconds_are_the_simulated_clock(self, path: Path) -> None:
        seconds = np.array([[1.0, 2.0], [3.0, NAN], [5.0, 6.0], [7.0, 8.0], [9.0, 10.0]], "f4")
        table = Table.load(save_table(path, seconds=seconds))
        assert table.values_name == "score"  # seconds are no values
        assert [ask(table, "0-0-1", task).seconds for task in TASKS] == [3, 0]
        assert ask(table, "2-1-0", "letters").seconds == 6  # an evaluation that failed took its time as well
        assert ask(Table.load(save_table(path, seconds=seconds[:, 0])), "0-0-1", "letters").seconds == 3

    def test_other_costs_by_name(self, path: Path) -> None:
        latency = np.arange(10.0).reshape(5, 2)
        table = Table.load(save_table(path, latency_ms=latency, memory=np.arange(5)), "score", tasks=["letters"])
        order = np.lexsort(OPS.T[::-1])
        assert table.cost("latency_ms").tolist() == latency[order, 1:].tolist()
        assert table.cost("memory")[:, 0].tolist() == order.tolist()
        with pytest.raises(
            UnknownNameError, match=r"unknown cost of .*small\.npz 'latency'; did you mean 'latency_ms'"
        ):
            table.cost("latency")

    @pytest.mark.parametrize(
        ("seconds", "message"),
        [
            (-np.ones(5), "seconds must be finite, not negative"),
            (np.full(5, np.inf), "seconds must be finite"),
            (np.ones(4), "seconds must be numbers of shape"),
            (np.array(list("abcde")), "seconds must be numbers of shape"),
        ],
    )
    def test_seconds_that_cannot_be(self, path: Path, seconds: Any, message: str) -> None:
        with pytest.raises(DataError, match=rf"small\.npz: {message}"):
            Table.load(save_table(path, seconds=seconds), "score")


COLUMNS: dict[str, Any] = {
    "tasks": np.array(["a", "b", "c"]),
    "score": np.c_[SCORE, SCORE[:, 0]],
    "families": np.array(["near", "far", "near"]),
    "splits": np.array(["train", "test", "train"]),
    "descriptors": np.arange(3.0 * len(DESCRIPTOR)).reshape(3, -1).astype("f4") / 30,
}


class TestColumns:
    def test_families_descriptors_and_splits_of_the_file(self, path: Path) -> None:
        table = Table.load(save_table(path, **COLUMNS))
        source = TableSource(table)
        assert source.splits == {"train": 2, "test": 1}
        tasks = [source.task("train", 0), source.task("train", 1), source.task("test", 0)]
        assert [(t.column, t.family) for t in tasks] == [("a", "near"), ("c", "near"), ("b", "far")]
        assert [t.descriptor.tolist() for t in tasks] == [COLUMNS["descriptors"][i].tolist() for i in (0, 2, 1)]
        assert tasks[0].digest != tasks[1].digest  # of one family, but two columns
        assert TableSource(table, test=["a"]).splits == {"train": 2, "test": 1}
        assert TableSource(table, test=["a"]).task("test", 0).column == "a"
        part = Table.load(path, tasks=["c", "b"])
        assert (part.families, part.splits) == (("near", "far"), ("train", "test"))
        assert part.descriptors is not None
        assert part.descriptors.tolist() == COLUMNS["descriptors"][[2, 1]].tolist()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"families": np.array(["near"])}, "families must be 3 strings, one for each task"),
            ({"splits": np.arange(3)}, "splits must be 3 strings"),
            ({"descriptors": np.ones((3, 2))}, r"descriptors must be finite numbers of shape \(3, 9\)"),
            ({"descriptors": np.full((3, 9), np.nan)}, "descriptors must be finite numbers"),
        ],
    )
    def test_columns_told_of_wrongly(self, path: Path, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(DataError, match=rf"small\.npz: {message}"):
            Table.load(save_table(path, **{**COLUMNS, **changes}))


LOAD = """
import sys, time
from rlnas.table_presets import KNOWN_TABLES
from rlnas.tabular_evaluator import TableSource, TabularEvaluator
start = time.perf_counter()
evaluator = TabularEvaluator.from_spec({"table": sys.argv[1]})
evaluator.table.space.transitions, evaluator.table.digest
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.perf_counter() - start, int(peak.split()[1]) / 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to tell a process's peak of memory")
@pytest.mark.parametrize("name", ["nasbench201", "transnas", "nbgraph", "nbmacro"])
def test_known_tables_load_quickly_and_stay_small(name: str) -> None:
    published("README.md")
    result = subprocess.run([sys.executable, "-c", LOAD, name], capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, result.stdout.split())
    assert seconds < 5  # 0.1 to 0.3 on an idle core; the margin is for a busy one
    assert megabytes < 200


@pytest.mark.parametrize("shape", [b"(9**9**9, )", b"(99999999999999,)", b"(4, (((", b"(-4,)"])
def test_an_array_whose_header_says_what_cannot_be_is_refused(tmp_path: Path, shape: bytes) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': " + shape + b", }"
    header = header.ljust(117) + b"\n"
    path = tmp_path / "table.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ops.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(32))
    with pytest.raises(DataError, match="'ops' cannot be read"):
        Table.load(path)
