"""Making tables: what is in them, that a kill loses nothing, and the table that the package ships."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from rlnas.digits import FAMILIES, UNSEEN_FAMILIES, DigitsSource
from rlnas.errors import ConfigurationError, DataError
from rlnas.evaluator import Evaluation, Proposal, Status
from rlnas.parallel_evaluator import ParallelEvaluator
from rlnas.search_space import CellSpace, ChainSpace
from rlnas.sequential_evaluator import SequentialEvaluator
from rlnas.specs import evaluator_from_spec, space_from_spec
from rlnas.table import TableSpace
from rlnas.tabulate import MOST_DESIGNS, Suite, Tabulation, tabulate
from rlnas.tabulate_command import tabulate as command
from tests.fake_evaluator import FakeEvaluator, fake_accuracy

SPACE = ChainSpace(max_layers=2, widths=(4,), dense_widths=(8,))
SOURCE = DigitsSource()
SMALL = Tabulation(SPACE, (Suite(SOURCE, "val", 2), Suite(SOURCE, "test", 1)), seeds=2, replicate_every=3)
COMMAND = (
    *("--space", "chain", "--space-option", "max_layers=2", "--space-option", "widths=4"),
    *("--tasks", "digits:train", "--tasks", "digits:test", "--limit", "6", "--limit", "2"),
    *("--adaptation-option", "steps=3", "--seeds", "2", "--replicate-every", "4", "--device", "cpu"),
)
PROGRAM = "import typer; from rlnas.tabulate_command import tabulate; typer.run(tabulate)"
SHIPPED = resources.files("rlnas") / "tables" / "digits.npz"


def arrays(path: Any) -> dict[str, Any]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as table:
        return dict(table)


def run(*words: object) -> Any:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(word) for word in words])


class Failing(FakeEvaluator):
    """Gives every kind of failure in turn."""

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        kinds = [status for status in Status if status is not Status.OK]
        return [Evaluation(0.0, status=kinds[i % len(kinds)]) for i in range(len(proposals))]


class TestRows:
    @pytest.mark.parametrize("space", [SPACE, ChainSpace(max_layers=3), CellSpace()], ids=lambda s: s.name)
    def test_every_network_of_the_space_is_there_once(self, space: ChainSpace | CellSpace) -> None:
        rows = Tabulation(space, ()).rows()
        assert len({row.key for row in rows}) == len(rows)
        assert {row.key for row in rows} == {architecture.key for architecture in space.enumerate()}

    def test_shorter_chains_end_in_identities(self) -> None:
        for row in Tabulation(ChainSpace(max_layers=4, widths=(8,)), ()).rows():
            names = [decision.choices[c] for decision, c in zip(row.space.decisions, row.choices, strict=True)]
            layers = [name for name in names if name != "identity"]
            assert names == layers + ["identity"] * (4 - len(layers))

    def test_a_space_that_is_too_large_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match=f"at most {MOST_DESIGNS:,}"):
            Tabulation(ChainSpace(), ())


class TestContent:
    def test_it_holds_what_the_evaluator_said(self, tmp_path: Path) -> None:
        assert tabulate(SMALL, FakeEvaluator(), tmp_path / "table.npz")
        table, rows = arrays(tmp_path / "table.npz"), SMALL.rows()
        tasks = [SOURCE.task("val", 0), SOURCE.task("val", 1), SOURCE.task("test", 0)]
        assert table["tasks"].tolist() == [task.name for task in tasks]
        assert table["families"].tolist() == [task.family for task in tasks]
        assert table["splits"].tolist() == ["val", "val", "test"]
        assert table["descriptors"] == pytest.approx(np.stack([task.descriptor for task in tasks]))
        assert table["ops"].dtype == np.int8
        assert [SPACE.decode(codes).key for codes in table["ops"]] == [row.key for row in rows]
        assert table["op_names"].tolist() == list(SPACE.decisions[0].choices)
        assert table["decision_names"].tolist() == ["layer 1", "layer 2"]
        assert table["accuracy"].shape == (len(rows), 3, 2)
        for r, row in enumerate(rows):
            for t, task in enumerate(tasks):
                for seed in (0, 1):
                    there = seed == 0 or r % 3 == 0
                    said = fake_accuracy(Proposal(row, task, seed)) if there else np.nan
                    assert table["accuracy"][r, t, seed] == pytest.approx(said, nan_ok=True)

    def test_it_says_what_it_was_made_of_and_with(self, tmp_path: Path) -> None:
        evaluator = SequentialEvaluator()
        tabulate(Tabulation(SPACE, (Suite(SOURCE, "val", 1),)), evaluator, tmp_path / "table.npz")
        table = arrays(tmp_path / "table.npz")
        about = json.loads(str(table["about"]))
        assert space_from_spec(about["space"]) == SPACE
        assert evaluator_from_spec(about["evaluator"]).spec() == evaluator.spec()
        assert about["tasks"] == [{"source": {"kind": "digits"}, "split": "val", "count": 1}]
        row, task = SMALL.rows()[5], SOURCE.task("val", 0)
        (again,) = evaluator.evaluate([Proposal(row, task)])
        assert table["accuracy"][5, 0, 0] == pytest.approx(again.accuracy)
        assert table["params_m"][5, 0] * 1e6 == pytest.approx(again.parameters)
        assert table["flops_m"][5, 0] * 1e6 == pytest.approx(again.flops)

    def test_what_could_go_better_another_time_is_unknown_and_other_failures_are_worth_nothing(
        self, tmp_path: Path
    ) -> None:
        tabulate(Tabulation(SPACE, (Suite(SOURCE, "val", 1),)), Failing(), tmp_path / "table.npz")
        diverged, memory, timeout, crashed, invalid = arrays(tmp_path / "table.npz")["accuracy"][:5, 0, 0]
        assert diverged == invalid == 0
        assert np.isnan([memory, timeout, crashed]).all()

    def test_the_rows_are_a_search_space(self, tmp_path: Path) -> None:
        tabulate(SMALL, FakeEvaluator(), tmp_path / "table.npz")
        space = TableSpace(tmp_path / "table.npz")
        assert {row.choices for row in space.enumerate()} == {row.choices for row in SMALL.rows()}
        assert [d.choices for d in space.decisions] == [d.choices for d in SPACE.decisions]

    def test_worker_processes_make_the_same_table(self, tmp_path: Path) -> None:
        tabulation = Tabulation(SPACE, (Suite(SOURCE, "val", 2),))
        evaluator = SequentialEvaluator()
        tabulate(tabulation, evaluator, tmp_path / "one.npz")
        with ParallelEvaluator(2, evaluator.spec(), cache_size=0) as processes:
            tabulate(tabulation, processes, tmp_path / "two.npz")
        assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


class TestResuming:
    def test_after_kill_9_the_same_command_makes_the_table_that_an_uninterrupted_one_makes(
        self, tmp_path: Path
    ) -> None:
        whole, killed = tmp_path / "whole.npz", tmp_path / "killed.npz"
        assert run(*COMMAND, "--out", whole).exit_code == 0
        parts = killed.with_name("killed.npz.parts")
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, *COMMAND, "--out", killed], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while not list(parts.glob("*.npz")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        kept = {file: file.stat().st_mtime_ns for file in parts.glob("*.npz")}
        assert 1 <= len(kept) < 8
        assert not killed.exists()
        outcome = run(*COMMAND, "--out", killed, "--json")
        assert outcome.exit_code == 0
        assert json.loads(outcome.stdout) == {"out": str(killed), "rows": 35, "columns": 8, "missing": 0}
        assert whole.read_bytes() == killed.read_bytes()
        assert not parts.exists()

    def test_nothing_is_evaluated_twice(self, tmp_path: Path) -> None:
        asked = iter([False, True])
        first, second = FakeEvaluator(), FakeEvaluator()
        assert not tabulate(SMALL, first, tmp_path / "table.npz", stop=lambda: next(asked))
        assert [task.name for task in SMALL.missing(tmp_path / "table.npz")] == ["digits:val/1", "digits:test/0"]
        assert tabulate(SMALL, second, tmp_path / "table.npz")
        names = [{p.task.name for call in e.calls for p in call} for e in (first, second)]
        assert names == [{"digits:val/0"}, {"digits:val/1", "digits:test/0"}]
        tabulate(SMALL, FakeEvaluator(), tmp_path / "whole.npz")
        assert (tmp_path / "whole.npz").read_bytes() == (tmp_path / "table.npz").read_bytes()

    def test_columns_serve_a_run_with_other_tasks(self, tmp_path: Path) -> None:
        asked = iter([False, True])
        tabulate(SMALL, FakeEvaluator(), tmp_path / "table.npz", stop=lambda: next(asked))
        fewer = Tabulation(SPACE, (Suite(SOURCE, "val", 1),), seeds=2, replicate_every=3)
        nobody = FakeEvaluator([])
        assert tabulate(fewer, nobody, tmp_path / "table.npz")
        assert arrays(tmp_path / "table.npz")["tasks"].tolist() == ["digits:val/0"]

    @pytest.mark.parametrize("changed", ["seeds", "space"])
    def test_parts_that_were_made_otherwise_are_refused(self, tmp_path: Path, changed: str) -> None:
        tabulate(SMALL, FakeEvaluator(), tmp_path / "table.npz", stop=lambda: True)
        space = ChainSpace(max_layers=2, widths=(8,), dense_widths=(8,)) if changed == "space" else SPACE
        other = Tabulation(space, SMALL.suites, 3 if changed == "seeds" else 2, 3)
        with pytest.raises(ConfigurationError, match=rf"table\.npz\.parts holds parts made with {changed} .* now it"):
            tabulate(other, FakeEvaluator(), tmp_path / "table.npz")

    def test_a_damaged_part_is_named(self, tmp_path: Path) -> None:
        asked = iter([False, False, True])
        tabulate(SMALL, FakeEvaluator(), tmp_path / "table.npz", stop=lambda: next(asked))
        part = next((tmp_path / "table.npz.parts").glob("*.npz"))
        part.write_bytes(part.read_bytes()[:-40])
        with pytest.raises(DataError, match=f"{part.name}: damaged: .*delete it"):
            tabulate(SMALL, FakeEvaluator(), tmp_path / "table.npz")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--limit", "0"), "greater than or equal to 1"),
        (("--limit", "1", "--limit", "2", "--limit", "3"), "once for each of the 2 --tasks, got 3"),
        (("--limit", "257"), "digits:train has 256 tasks, got a limit of 257"),
        (("--seeds", "0"), "greater than or equal to 1"),
        (("--env", "rlnas/Digit-v0"), "did you mean 'rlnas/Digits-v0'"),
        (("--evaluator", "lockstep"), "unknown evaluator 'lockstep'"),
    ],
)
def test_bad_options_are_told(tmp_path: Path, words: Sequence[str], message: str) -> None:
    outcome = run("--tasks", "digits:train", "--tasks", "digits:val", "--out", tmp_path / "table.npz", *words)
    assert outcome.exit_code != 0
    told = f"{outcome.stderr} {outcome.exception}".replace("│", " ")
    assert message in " ".join(told.split())


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    out = tmp_path / "table.npz"
    out.write_text("precious")
    outcome = run("--tasks", "digits:train", "--out", out)
    assert isinstance(outcome.exception, ConfigurationError)
    assert "exists already" in str(outcome.exception)
    assert out.read_text() == "precious"


class TestTheShippedTable:
    def test_it_is_what_the_package_promises(self) -> None:
        table = arrays(SHIPPED)
        rows, columns, seeds = table["accuracy"].shape
        assert 1_000 <= rows <= 5_000
        assert columns >= 100
        assert seeds == 2
        space = space_from_spec(json.loads(str(table["about"]))["space"])
        assert len({space.decode(codes).key for codes in table["ops"].tolist()}) == rows
        assert set(table["families"]) == {*FAMILIES, *UNSEEN_FAMILIES}
        assert set(table["splits"]) == set(SOURCE.splits)
        assert not np.isnan(table["accuracy"][..., 0]).any()
        twice = ~np.isnan(table["accuracy"][..., 1])
        assert twice.any(1).tolist() == twice.all(1).tolist() == [row % 4 == 0 for row in range(rows)]

    def test_its_tasks_are_those_of_the_digit_suite(self) -> None:
        table = arrays(SHIPPED)
        for name, family, descriptor in zip(table["tasks"], table["families"], table["descriptors"], strict=True):
            task = SOURCE.named(str(name))
            assert task.family == family
            assert task.descriptor == pytest.approx(descriptor)

    def test_its_evaluator_still_says_the_same(self) -> None:
        table = arrays(SHIPPED)
        about = json.loads(str(table["about"]))
        space, evaluator = space_from_spec(about["space"]), evaluator_from_spec(about["evaluator"])
        rng = np.random.default_rng(0)
        column = int(np.flatnonzero(table["families"] == "plain")[0])
        some = rng.choice(len(table["ops"]), 40, replace=False)
        task = SOURCE.named(str(table["tasks"][column]))
        said = evaluator.evaluate([Proposal(space.decode(table["ops"][row].tolist()), task) for row in some])
        differences = np.abs(table["accuracy"][some, column, 0] - [e.accuracy for e in said])
        # Sums in another order, on another processor or in another version of torch, move a query image now and then.
        assert np.mean(differences) < 0.01
        assert table["params_m"][some, column] * 1e6 == pytest.approx([e.parameters for e in said])
        assert table["flops_m"][some, column] * 1e6 == pytest.approx([e.flops for e in said])
