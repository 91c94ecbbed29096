"""Several processes: the same results as one, whatever happens to the processes."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from rlnas.adaptation import Adaptation
from rlnas.architecture import Architecture
from rlnas.digits import DigitsSource
from rlnas.errors import ConfigurationError, RlnasError
from rlnas.evaluator import Evaluation, Evaluator, Proposal, Status
from rlnas.graph import Graph
from rlnas.parallel_evaluator import ParallelEvaluator
from rlnas.search_space import ChainSpace
from rlnas.sequential_evaluator import SequentialEvaluator
from rlnas.specs import evaluator_from_spec
from rlnas.task import Task

from .contracts.evaluator import EvaluatorContract, assert_same

SPACE = ChainSpace(max_layers=3, widths=(4,), dense_widths=(8,))
FAST = Adaptation(steps=3)
DEADLINE = 120.0
"""Seconds after which a process that should have got somewhere is given up."""


def make_proposals(count: int = 6) -> list[Proposal]:
    rng, source = np.random.default_rng(0), DigitsSource()
    designs = [SPACE.sample(rng) for _ in range(count)]
    return [Proposal(design, source.task("train", index % 3), index) for index, design in enumerate(designs)]


PROPOSALS = make_proposals()


@pytest.fixture(scope="module")
def expected() -> list[Evaluation]:
    return SequentialEvaluator(FAST).evaluate(PROPOSALS)


@pytest.fixture(scope="module")
def shared() -> Iterator[ParallelEvaluator]:
    """An evaluator that remembers nothing, and has its workers left after whatever a test does to them."""
    with ParallelEvaluator(2, FAST, cache_size=0) as evaluator:
        yield evaluator


def pids() -> set[int]:
    """The worker processes that run."""
    return {process.pid for process in multiprocessing.active_children() if process.pid is not None}


@dataclass(frozen=True)
class Deadly(Architecture):
    """Ends the process that builds it, unless that is the one that made it.

    Args:
        space: see :class:`Architecture`.
        choices: likewise.
        maker: the process that is spared.
        spares: a file; while it is absent the process that makes it dies, and no other does.
    """

    maker: int = 0
    spares: str = ""

    def graph(self, ways: int) -> Graph:
        if os.getpid() != self.maker and not (self.spares and os.path.exists(self.spares)):
            if self.spares:
                Path(self.spares).touch()
            os._exit(9)
        return super().graph(ways)


def deadly(proposal: Proposal, spares: str = "") -> Proposal:
    """The proposal, of a design that ends its workers: the first alone if ``spares`` names a file."""
    design = proposal.architecture
    return replace(proposal, architecture=Deadly(design.space, design.choices, os.getpid(), spares))


class Unreadable(Task):
    """Ends the process that unpickles it."""

    @property
    def digest(self) -> str:
        return "unreadable"

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (9,)


class TestContract(EvaluatorContract):
    @pytest.fixture
    def evaluator(self, shared: ParallelEvaluator) -> Evaluator:  # type: ignore[override]
        return shared

    def make(self) -> Evaluator:
        return SequentialEvaluator(FAST)  # what is compared with: starting workers for each proposal takes minutes

    def make_proposals(self) -> list[Proposal]:
        return PROPOSALS[:4]


@pytest.mark.parametrize("workers", [1, 3])  # two: see the contract
def test_any_number_of_workers_gives_the_sequential_results_in_order(workers: int, expected: list[Evaluation]) -> None:
    with ParallelEvaluator(workers, FAST) as evaluator:
        assert len(pids()) >= workers
        found = evaluator.evaluate(PROPOSALS)
    assert_same(found, expected)
    assert [e.cached for e in found] == [False] * len(PROPOSALS)


def test_an_equal_proposal_is_remembered_even_after_the_workers_are_gone(expected: list[Evaluation]) -> None:
    with ParallelEvaluator(1, FAST) as evaluator:
        evaluator.evaluate(PROPOSALS[:2])
    again = evaluator.evaluate(PROPOSALS[:2])
    assert_same(again, expected[:2])
    assert all(e.cached for e in again)


def test_workers_are_processes_of_their_own_and_end_when_closed() -> None:
    before = pids()
    evaluator = ParallelEvaluator(2, FAST)
    assert len(pids() - before) == 2
    evaluator.close()
    assert pids() <= before
    evaluator.close()  # twice is harmless
    with pytest.raises(RlnasError, match="closed"):
        evaluator.evaluate(PROPOSALS[:1])


def test_leaving_the_with_block_ends_the_workers_after_an_error_too() -> None:
    before = pids()
    with pytest.raises(KeyError), ParallelEvaluator(1, FAST):
        raise KeyError
    assert pids() <= before


@pytest.mark.parametrize("workers", [0, -1, True])
def test_the_number_of_workers_is_checked(workers: int) -> None:
    with pytest.raises(ConfigurationError, match="workers"):
        ParallelEvaluator(workers, FAST)


def test_the_description_is_that_of_the_sequential_evaluator(shared: ParallelEvaluator) -> None:
    assert shared.spec() == SequentialEvaluator(FAST).spec()
    made = evaluator_from_spec(shared.spec(), workers=2)
    assert isinstance(made, ParallelEvaluator)
    made.close()


def test_a_worker_killed_while_idle_is_replaced(shared: ParallelEvaluator, expected: list[Evaluation]) -> None:
    before = pids()
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    assert_same(shared.evaluate(PROPOSALS), expected)
    assert victim not in pids()
    assert len(pids()) == len(before)


def test_a_proposal_whose_worker_dies_once_gets_its_result_all_the_same(
    shared: ParallelEvaluator, expected: list[Evaluation], tmp_path: Path
) -> None:
    spares = tmp_path / "died"
    before = pids()
    found = shared.evaluate([PROPOSALS[0], deadly(PROPOSALS[1], str(spares)), *PROPOSALS[2:]])
    assert spares.exists()
    assert len(before - pids()) == 1
    assert_same(found, expected)


def test_workers_killed_in_the_middle_of_a_batch_cost_no_result_and_double_none(
    shared: ParallelEvaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_proposals(30)
    sent: list[Proposal] = []
    victims = sorted(pids())
    worker_class = type(shared._workers[0])
    send = worker_class.send

    def send_and_kill(worker: object, proposal: Proposal) -> None:
        sent.append(proposal)
        send(worker, proposal)  # type: ignore[arg-type]
        if len(sent) in (6, 15):
            os.kill(victims.pop(), signal.SIGKILL)

    monkeypatch.setattr(worker_class, "send", send_and_kill)
    found = shared.evaluate(batch)
    assert victims == []
    assert len(sent) in range(30, 33)  # what the dead had at hand was sent once more
    assert_same(found, SequentialEvaluator(FAST).evaluate(batch))


@pytest.mark.parametrize("kind", ["built", "unpickled"])
def test_a_proposal_that_kills_two_workers_is_crashed_and_its_neighbours_are_unharmed(
    kind: str, shared: ParallelEvaluator, expected: list[Evaluation]
) -> None:
    bad = deadly(PROPOSALS[2]) if kind == "built" else replace(PROPOSALS[2], task=Unreadable("unreadable", "none"))
    found = shared.evaluate([*PROPOSALS[:2], bad, *PROPOSALS[3:]])
    assert found[2].status is Status.CRASHED
    assert found[2].accuracy == 0
    assert found[2].message == "2 worker processes died on it"
    assert_same([*found[:2], *found[3:]], [*expected[:2], *expected[3:]])
    assert len(shared._workers) == 2


def test_what_a_worker_raises_is_raised_here_and_spoils_nothing_after_it(
    shared: ParallelEvaluator, expected: list[Evaluation]
) -> None:
    table_column = replace(PROPOSALS[0], task=Imageless("table:train/0", "none"))
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="table:train/0"):
            shared.evaluate([table_column, *PROPOSALS[:2]])
        assert_same(shared.evaluate(PROPOSALS[2:]), expected[2:])


class Imageless(Task):
    """A task that cannot be trained on."""

    @property
    def digest(self) -> str:
        return "imageless"


class TwoWordError(RlnasError):
    """An error that pickle writes but cannot read."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


@dataclass(frozen=True)
class Complaining(Architecture):
    """Raises an error in the process that unpickles it."""

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return complain, ()


def complain() -> None:
    raise TwoWordError("cannot", "say")


def test_an_error_that_cannot_be_sent_is_told_all_the_same(
    shared: ParallelEvaluator, expected: list[Evaluation]
) -> None:
    design = PROPOSALS[0].architecture
    before = pids()
    with pytest.raises(RlnasError, match="cannot say"):
        shared.evaluate([replace(PROPOSALS[0], architecture=Complaining(design.space, design.choices))])
    assert pids() == before
    assert_same(shared.evaluate(PROPOSALS[:1]), expected[:1])


def test_ctrl_c_does_not_reach_the_workers(shared: ParallelEvaluator, expected: list[Evaluation]) -> None:
    shared.evaluate(PROPOSALS[:1])
    before = pids()
    for pid in before:
        os.kill(pid, signal.SIGINT)
    assert_same(shared.evaluate(PROPOSALS), expected)
    assert pids() == before
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])  # it does reach this process


def test_workers_that_cannot_start_are_no_proposals_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    before = pids()
    unknown = {"kind": "sequential", "device": "abacus"}
    monkeypatch.setattr(ParallelEvaluator, "spec", lambda self: unknown)
    with pytest.raises(RlnasError, match="ended as it started"):
        ParallelEvaluator(1, FAST)
    assert pids() <= before


def test_workers_end_when_the_process_that_started_them_is_killed() -> None:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    owner = context.Process(target=_own_workers, args=(theirs,))
    owner.start()
    theirs.close()
    assert mine.poll(DEADLINE)
    workers = mine.recv()
    owner.kill()
    owner.join()
    deadline = time.monotonic() + DEADLINE
    while any(_runs(pid) for pid in workers):
        assert time.monotonic() < deadline, "workers outlive their owner"
        mine.poll(0.05)
    mine.close()


def _own_workers(connection: multiprocessing.connection.Connection) -> None:
    with ParallelEvaluator(1, FAST):
        connection.send(sorted(pids()))
        signal.pause()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
