from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlnas.cell import OPERATIONS, canonical_cell
from rlnas.digits import DigitsSource
from rlnas.errors import ConfigurationError, DataError, IllegalChoiceError, UnknownNameError
from rlnas.evaluator import Evaluation, Evaluator, Proposal, Status
from rlnas.search_space import CellSpace, ChainSpace
from rlnas.specs import architecture_from_json, make_space, space_from_spec
from rlnas.table import Table
from rlnas.table_space import TableSpace
from rlnas.tabular_evaluator import TableSource, TableTask, TabularEvaluator

from .contracts.evaluator import EvaluatorContract
from .tables import OPS, SCORE, TASKS, published, save_table

Writer = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    def writer(name: str = "small", **changes: Any) -> Path:
        return save_table(tmp_path / f"{name}.npz", **changes)

    return writer


def answers(table: Table, column: int = 0, split: str = "all") -> dict[str, Evaluation]:
    task = TableSource(table).task(split, column)
    designs = list(table.space.enumerate())
    found = TabularEvaluator(table).evaluate([Proposal(design, task) for design in designs])
    return {design.text: evaluation for design, evaluation in zip(designs, found, strict=True)}


class TestTabularEvaluator(EvaluatorContract):
    @pytest.fixture(autouse=True)
    def _table(self, write: Writer) -> None:
        self.path = write()

    def make(self) -> Evaluator:
        return TabularEvaluator(Table.load(self.path))

    def make_proposals(self) -> list[Proposal]:
        source = TableSource(Table.load(self.path))
        designs = TableSpace(self.path).enumerate()
        return [Proposal(design, source.task("all", i), 3) for design in designs for i in (0, 1)]


def test_answers_are_the_recorded_values(write: Writer) -> None:
    found = answers(Table.load(write(), scale="percent", tasks=["digits"]))
    assert {text: e.accuracy for text, e in found.items()} == pytest.approx(
        {"0-0-1": 0.2, "0-1-2": 0.1, "1-0-0": 0.15, "2-1-0": 0.4, "2-1-1": 0.3}
    )
    assert all(e == Evaluation(e.accuracy) for e in found.values())


def test_scales(write: Writer) -> None:
    table = Table.load(write())
    assert answers(table)["2-1-1"].accuracy == pytest.approx(2 / 3)
    assert answers(table, 1)["0-0-1"].accuracy == 1.0
    assert answers(table, 1)["2-1-1"].accuracy == 0.0
    assert (table.best("digits"), table.best("letters")) == (1.0, 1.0)
    assert table.mean("digits") == pytest.approx((0 + 10 + 30 + 20 + 5) / 5 / 30)
    fraction = Table.load(write(), scale="fraction", tasks=["letters"])
    assert fraction.best("letters") == 0.4
    assert fraction.mean("letters") == pytest.approx(0.25)  # of the four that have a value


def test_a_design_that_was_not_evaluated_on_a_task_is_invalid_there(write: Writer) -> None:
    table = Table.load(write())
    assert answers(table, 0)["2-1-0"].status is Status.OK
    missing = answers(table, 1)["2-1-0"]
    assert missing.status is Status.INVALID
    assert missing.accuracy == 0
    assert missing.message == "the design was not evaluated on letters"


def test_costs_are_counts(write: Writer) -> None:
    path = write(params_m=np.array([1.0, 2.0, 3.5, 4.0, 5.0], "f4"), flops_m=np.arange(10.0).reshape(5, 2))
    for tasks, column, flops in ((None, 1, 5_000_000), (["letters"], 0, 5_000_000), (["digits"], 0, 4_000_000)):
        found = answers(Table.load(path, "score", tasks=tasks), column)["2-1-0"]
        assert (found.parameters, found.flops) == (3_500_000, flops)


def test_rows_that_occur_twice_are_averaged(write: Writer) -> None:
    ops, score = np.vstack([OPS, OPS[1:2]]), np.vstack([SCORE, [[26.0, 0.0]]])
    table = Table.load(write(ops=ops, score=score), scale="percent")
    assert table.space.size == 5
    assert answers(table)["0-0-1"].accuracy == pytest.approx(0.23)


def test_replicates_of_a_single_task_are_averaged(write: Writer) -> None:
    table = Table.load(write(tasks=TASKS[:1], score=np.nan_to_num(SCORE)), "score", scale="percent")
    assert table.tasks == ("digits",)
    assert answers(table)["0-0-1"].accuracy == pytest.approx(0.102)


def test_fewer_columns_than_names_are_the_first_ones(write: Writer) -> None:
    table = Table.load(write(short=SCORE[:, :1]), "short")
    assert table.tasks == ("digits",)
    with pytest.raises(UnknownNameError, match=r"unknown task 'letters' \(known: digits\)"):
        Table.load(write(short=SCORE[:, :1]), "short", tasks=["letters"])


def test_a_single_unnamed_column_is_called_as_its_array(write: Writer) -> None:
    table = Table.load(write(tasks=None, score=SCORE[:, 0], ops=None, decisions=OPS))
    assert table.tasks == ("score",)
    assert table.best("score") == 1.0


def test_links_are_decided_before_operations(write: Writer) -> None:
    links = np.array([[0, 1], [0, 0], [1, 1], [1, 1], [0, 1]])
    space = TableSpace(write(links=links, op_names=np.array(["conv", "pool", "skip"])))
    assert [d.name for d in space.decisions] == ["links[0]", "links[1]", "ops[0]", "ops[1]", "ops[2]"]
    assert [d.choices for d in space.decisions[1:3]] == [("0", "1"), ("conv", "pool", "skip")]
    assert sorted(a.text for a in space.enumerate()) == [
        "0-0-0-0-1",
        "0-1-0-1-2",
        "0-1-1-0-0",
        "1-1-2-1-0",
        "1-1-2-1-1",
    ]


# ---- the space of a table


@st.composite
def code_tables(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    decisions = draw(st.integers(1, 5))
    row = st.lists(st.integers(0, 3), min_size=decisions, max_size=decisions)
    return np.array(draw(st.lists(row, min_size=1, max_size=30)))


@settings(deadline=None, max_examples=60)
@given(codes=code_tables())
def test_the_legal_designs_are_the_rows(tmp_path_factory: pytest.TempPathFactory, codes: Any) -> None:
    path = tmp_path_factory.mktemp("table") / "codes.npz"
    np.savez(path, ops=codes)
    space = TableSpace(path)
    rows = sorted(set(map(tuple, codes.tolist())))
    assert [a.choices for a in space.enumerate()] == rows
    assert space.size == len(rows)
    assert space.rank(np.array(rows)).tolist() == list(range(len(rows)))
    rng = np.random.default_rng(0)
    for choices in map(tuple, rng.integers(0, space.num_choices, (30, codes.shape[1])).tolist()):
        assert space.is_legal(choices) == (choices in rows)
    some = rng.integers(-1, space.num_choices + 1, (30, codes.shape[1]))
    assert space.rank(some).tolist() == [rows.index(tuple(c)) if tuple(c) in rows else -1 for c in some.tolist()]
    sample = space.sample(rng)
    assert sample.choices in rows
    assert all(n.choices in rows for n in [*space.neighbours(sample), space.mutate(sample, rng)])
    assert space.crossover(sample, space.sample(rng), rng).choices in rows
    assert space.parse(sample.text) == sample


def test_masks_lead_to_rows_only(write: Writer) -> None:
    space = TableSpace(write())
    assert space.legal_choices().tolist() == [True, True, True]
    assert space.legal_choices([2]).tolist() == [False, True, False]
    assert space.legal_choices([2, 1]).tolist() == [True, True, False]
    with pytest.raises(IllegalChoiceError, match=r"ops\[1\]: '0' is illegal here \(legal: 1\)"):
        space.decode([2, 0, 0])


def test_a_complete_table_needs_one_state_a_decision(write: Writer) -> None:
    codes = np.stack(np.meshgrid(*[np.arange(4)] * 5, indexing="ij"), -1).reshape(-1, 5)
    assert TableSpace(write(ops=codes)).transitions.shape == (6, 4)


def test_table_spaces_are_values(write: Writer) -> None:
    path = write()
    space = TableSpace(path)
    for again in (
        pickle.loads(pickle.dumps(space)),
        space_from_spec(json.loads(json.dumps(space.spec()))),
        make_space("table", path=str(path)),
        Table.load(write(score=SCORE * 2)).space,
        TableSpace(write("copy")),
    ):
        assert again == space
        assert hash(again) == hash(space)
        assert again.name == space.name
    assert TableSpace(write("small2", ops=OPS[:4])) != space
    assert space != CellSpace()
    architecture = space.decode([2, 1, 0])
    assert architecture_from_json(json.loads(json.dumps(architecture.to_json()))) == architecture
    assert len(pickle.dumps(architecture)) < 1_000


def test_a_tables_networks_cannot_be_built(write: Writer) -> None:
    with pytest.raises(ConfigurationError, match=r"networks of .*small\.npz cannot be built"):
        TableSpace(write()).decode([2, 1, 0]).graph(3)


@pytest.mark.parametrize("text", ["", "2-1", "2-1-0-0", "2-0-0", "2-1-x", "2--1"])
def test_text_that_is_no_design(write: Writer, text: str) -> None:
    with pytest.raises(IllegalChoiceError):
        TableSpace(write()).parse(text)


def test_an_unknown_option_of_the_space_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"space 'table'.*size"):
        make_space("table", path="x.npz", size=3)


# ---- tasks


def test_splits(write: Writer) -> None:
    table = Table.load(write())
    assert TableSource(table).splits == {"all": 2}
    source = TableSource(table, test=["digits"])
    assert source.splits == {"train": 1, "test": 1}
    assert source.name == "table:small"
    task = source.task("test", 0)
    assert (task.name, task.family) == ("table:small:test/0", "digits")
    assert source.named(task.name) is task
    assert not task.descriptor.any()
    assert task.digest == TableSource(table).task("all", 0).digest
    again = TableSource.from_spec(json.loads(json.dumps(source.spec())))
    assert again.splits == source.splits
    assert again.task("test", 0).digest == task.digest


def test_held_out_columns_are_checked(write: Writer) -> None:
    table = Table.load(write())
    with pytest.raises(UnknownNameError, match="unknown test column 'digit'; did you mean 'digits'"):
        TableSource(table, test=["digit"])
    with pytest.raises(ConfigurationError, match="must leave a column to train on"):
        TableSource(table, test=["digits", "letters"])


def test_digests_tell_tasks_apart(write: Writer) -> None:
    tables = [
        Table.load(write()),
        Table.load(write(), tasks=["letters", "digits"]),
        Table.load(write(score=SCORE + 1)),
        Table.load(write(score=np.nan_to_num(SCORE)), scale="percent"),
        Table.load(write(ops=OPS[::-1])),
    ]
    digests = {TableSource(t).task("all", i).digest for t in tables for i in (0, 1)}
    assert len(digests) == 10
    np.savez_compressed(write(), ops=OPS.astype("i2"), score=SCORE, tasks=TASKS)
    assert Table.load(write()).digest == tables[0].digest


# ---- the evaluator


def test_best_and_mean_of_a_task(write: Writer) -> None:
    table = Table.load(write(), scale="fraction", tasks=["letters"])
    evaluator, task = TabularEvaluator(table), TableSource(table).task("all", 0)
    assert (evaluator.best(task), evaluator.mean(task)) == (0.4, pytest.approx(0.25))


def test_spec_round_trip_and_pickle(write: Writer) -> None:
    table = Table.load(write(), tasks=["letters"])
    evaluator, source = TabularEvaluator(table), TableSource(table)
    proposals = [Proposal(design, source.task("all", 0)) for design in table.space.enumerate()]
    for again in (
        TabularEvaluator.from_spec(json.loads(json.dumps(evaluator.spec()))),
        pickle.loads(pickle.dumps(evaluator)),
    ):
        assert again.spec() == evaluator.spec()
        assert again.evaluate(pickle.loads(pickle.dumps(proposals))) == evaluator.evaluate(proposals)


def test_a_changed_file_is_noticed(write: Writer) -> None:
    table = Table.load(write())
    path = write(score=SCORE * 1.5)
    for spec_reader in (TabularEvaluator.from_spec, TableSource.from_spec):
        with pytest.raises(
            DataError, match=rf"{path.name}: its content has changed: SHA-256 \w+, expected {table.digest}"
        ):
            spec_reader({"kind": "table", "table": table.spec()})
    write(ops=OPS[:, ::-1])
    with pytest.raises(DataError, match="its designs have changed"):
        space_from_spec(table.space.spec())


def test_what_the_table_does_not_know_is_refused(write: Writer) -> None:
    table = Table.load(write())
    evaluator, task = TabularEvaluator(table), TableSource(table).task("all", 0)
    design = table.space.decode([2, 1, 0])
    with pytest.raises(ConfigurationError, match="digits:train/0 is no column of a table"):
        evaluator.evaluate([Proposal(design, DigitsSource().task("train", 0))])
    with pytest.raises(ConfigurationError, match="column of another table"):
        evaluator.evaluate([Proposal(design, TableTask(task.name, "digits", "digits", "0" * 64))])
    for space in (ChainSpace(), CellSpace(), TableSpace(write("other", ops=OPS[:3]))):
        with pytest.raises(ConfigurationError, match=r"small\.npz does not hold the designs of"):
            evaluator.evaluate([Proposal(space.sample(np.random.default_rng(0)), task)])


def test_cells_are_looked_up_by_their_choices(write: Writer) -> None:
    rng = np.random.default_rng(0)
    ops = rng.permutation(np.stack(np.meshgrid(*[np.arange(5)] * 6, indexing="ij"), -1).reshape(-1, 6))[:9000]
    score = rng.random((9000, 1))
    path = write(ops=ops, score=score, tasks=TASKS[:1], op_names=np.array(OPERATIONS))
    table = Table.load(path, scale="fraction")
    space, task = CellSpace(width=5), TableSource(table).task("all", 0)
    found = TabularEvaluator(table).evaluate([Proposal(space.decode(row), task) for row in ops[:50]])
    assert [e.accuracy for e in found] == pytest.approx(score[:50, 0])
    present = set(map(tuple, ops.tolist()))
    absent = next(a for a in space.enumerate() if a.choices not in present)
    (missing,) = TabularEvaluator(table).evaluate([Proposal(absent, task)])
    assert missing.status is Status.INVALID
    assert f"is not in {path}" in missing.message


# ---- files that cannot serve


BAD: Mapping[str, tuple[dict[str, Any], str]] = {
    "no codes": ({"ops": None}, "array 'ops' is missing"),
    "codes of one dimension": ({"ops": OPS[:, 0]}, r"ops must be integers of shape \(rows, decisions\)"),
    "codes that are floats": ({"ops": OPS * 1.0}, "ops must be integers"),
    "no rows": ({"ops": OPS[:0]}, "ops must be integers"),
    "negative codes": ({"ops": OPS - 1}, r"ops must lie in 0 \.\. 1023, found -1 \.\. 1"),
    "huge codes": ({"ops": OPS * 1000}, r"ops must lie in 0 \.\. 1023, found 0 \.\. 2000"),
    "links of other length": ({"links": OPS[:3]}, r"links and ops differ in rows: \[3, 5\]"),
    "object arrays": ({"notes": np.array([{}, 1], dtype=object)}, "array 'notes' cannot be read: Object arrays"),
    "values of other length": (
        {"score": SCORE[:4]},
        r"score must be numbers of shape \(5, tasks\) or \(5, tasks, seeds\), got float64",
    ),
    "values that are text": ({"score": SCORE.astype(str)}, "score must be numbers"),
    "values of four dimensions": ({"score": SCORE[..., None, None]}, "score must be numbers"),
    "no replicates": ({"score": np.ones((5, 2, 0))}, "score must have a replicate"),
    "more columns than names": ({"score": np.ones((5, 3))}, "score has 3 columns, but tasks has 2 names"),
    "a column twice": ({"tasks": TASKS[[0, 0]]}, "tasks must be distinct names"),
    "names that are numbers": ({"tasks": np.arange(2)}, "tasks must be a 1-D array of strings"),
    "no names": ({"tasks": TASKS[:0]}, "tasks must be distinct names and not empty"),
    "infinity": ({"score": np.where(SCORE == 40, np.inf, SCORE)}, "score: column 'digits' holds infinity"),
    "nothing but NaN": ({"score": SCORE * [1, np.nan]}, "score: column 'letters' holds infinity or nothing but NaN"),
    "a constant column": ({"score": SCORE * [0, 1]}, "score: column 'digits': scale 'minmax' needs different values"),
    "too few operation names": ({"op_names": TASKS}, "ops has code 2, op_names 2 names"),
    "too few decision names": ({"decision_names": TASKS}, "decision_names has 2 names for 3 decisions"),
    "negative parameters": ({"params_m": -np.ones(5)}, "params_m must be finite, not negative"),
    "infinite FLOPs": ({"flops_m": np.full(5, np.inf)}, "flops_m must be finite"),
    "parameters of other length": ({"params_m": np.ones(4)}, "params_m must be numbers of shape"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_data_errors_that_name_file_and_field(write: Writer, case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(DataError, match=rf"small\.npz: {message}"):
        Table.load(write(**changes), values="score")


def test_files_that_are_no_tables(tmp_path: Path, write: Writer) -> None:
    path = tmp_path / "bad.npz"
    with pytest.raises(DataError, match=r"bad\.npz: there is no such file"):
        Table.load(path)
    for content in (b"", b"not an archive", b"PK\x03\x04 broken", pickle.dumps({"ops": 1})):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.npz: not a readable \.npz file"):
            Table.load(path)
    with path.open("wb") as file:
        np.save(file, OPS)
    with pytest.raises(DataError, match=r"bad\.npz: a file of named arrays \(\.npz\) is needed"):
        Table.load(path)
    whole = write().read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"bad\.npz"):
            Table.load(path)
    for place in range(0, len(whole), 41):  # a flipped byte is noticed or harmless, never another exception
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            Table.load(path)
        except (DataError, ConfigurationError):
            continue
    with pytest.raises(DataError):
        Table.load(tmp_path)


def test_options_are_checked(write: Writer) -> None:
    path = write(other=SCORE)
    with pytest.raises(ConfigurationError, match=r"small\.npz: values must name one of: score \(5, 2\), other"):
        Table.load(path)
    with pytest.raises(UnknownNameError, match=r"unknown value array of .* 'scores'; did you mean 'score'"):
        Table.load(path, values="scores")
    with pytest.raises(UnknownNameError, match="unknown scale 'percents'; did you mean 'percent'"):
        Table.load(path, "score", "percents")
    with pytest.raises(DataError, match=r"column 'digits': values 10 \.\. 40 are not in 0 \.\. 1"):
        Table.load(path, "score", "fraction")
    for tasks in ([], ["digits", "digits"]):
        with pytest.raises(ConfigurationError, match="tasks must be distinct and not empty"):
            Table.load(path, "score", tasks=tasks)
    with pytest.raises(ConfigurationError, match="column"):
        TabularEvaluator.from_spec({"table": {"path": str(path), "column": 1}})
    with pytest.raises(ConfigurationError, match="path"):
        TabularEvaluator.from_spec({"kind": "table"})


# ---- the published benchmarks, where they are at hand


@pytest.mark.parametrize(
    ("name", "options", "best"),
    [
        (
            "nasbench201/nb201.npz",
            {"values": "test_200", "tasks": ("cifar10", "cifar100", "imagenet16-120")},
            {"cifar10": 94.37, "cifar100": 73.51, "imagenet16-120": 47.31},
        ),
        (
            "transnas101/micro.npz",
            {"tasks": ("class_scene", "jigsaw", "autoencoder")},
            {"class_scene": 54.94, "jigsaw": 95.37, "autoencoder": 0.577},
        ),
        (
            "nasbench_graph/nbgraph.npz",
            {"values": "test"},
            {"cora": 83.1, "citeseer": 71.6, "pubmed": 78.6, "arxiv": 72.4},
        ),
        ("nasbench_macro/nbmacro.npz", {"values": "test"}, {"cifar10": 93.13}),
        ("accel_nasbench/accel.npz", {"values": "val_top1"}, {"val_top1": 67.1}),
    ],
)
def test_published_optima(name: str, options: dict[str, Any], best: dict[str, float]) -> None:
    table = Table.load(published(name), scale="percent", **options)
    for task, value in best.items():
        assert 100 * table.best(task) == pytest.approx(value, abs=0.05 if value > 60 else 0.006)


def test_nasbench201_cells() -> None:
    table = Table.load(published("nasbench201/nb201.npz"), "test_200")
    assert table.space.size == 15_625
    assert table.space.transitions.shape == (7, 5)
    evaluator = TabularEvaluator(table)
    task = TableSource(table, test=["darcy"]).task("train", 0)
    designs = list(CellSpace().enumerate())
    found = evaluator.evaluate([Proposal(design, task) for design in designs])
    assert max(e.accuracy for e in found) == 1.0 == evaluator.best(task)
    unreached = {e.accuracy for a, e in zip(designs, found, strict=True) if canonical_cell(a.choices) == ((), ())}
    assert max(unreached) < 0.01
    best = max(zip(designs, found, strict=True), key=lambda pair: pair[1].accuracy)[0]
    (same,) = evaluator.evaluate([Proposal(table.space.decode(best.choices), task)])
    assert same.accuracy == 1.0
    assert same.parameters > 0
    assert same.flops > same.parameters


def test_nasbench_graph_walks_end_in_rows() -> None:
    table = Table.load(published("nasbench_graph/nbgraph.npz"), "test")
    space, rng = table.space, np.random.default_rng(0)
    assert space.size == 26_206
    assert len(space.decisions) == 8
    assert sum(1 for _ in space.enumerate()) == 26_206
    assert space.rank(np.array([space.sample(rng).choices for _ in range(300)])).min() >= 0
    assert space.rank(space.codes).tolist() == list(range(space.size))
    evaluations = answers(table, table.column("proteins"))
    assert sum(e.status is Status.OK for e in evaluations.values()) == 2_021


def test_accel_designs_that_occur_twice() -> None:
    assert TableSpace(published("accel_nasbench/accel.npz")).size == 5_138 - 13
