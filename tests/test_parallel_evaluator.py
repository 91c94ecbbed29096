"""Several processes: the same results as one, whatever happens to the processes."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlnas.adaptation import Adaptation
from rlnas.architecture import Architecture
from rlnas.digits import DigitsSource
from rlnas.errors import ConfigurationError, RlnasError, UnknownNameError
from rlnas.evaluator import Evaluation, Evaluator, Proposal, Status
from rlnas.parallel_evaluator import FAILED_STARTS, ParallelEvaluator, divide, evaluator_in_processes
from rlnas.search_space import ChainSpace
from rlnas.sequential_evaluator import SequentialEvaluator
from rlnas.task import Task

from .contracts.evaluator import EvaluatorContract, assert_same
from .faulty_space import faulty

SPACE = ChainSpace(max_layers=3, widths=(4,), dense_widths=(8,))
FAST = Adaptation(steps=3)
SPEC = SequentialEvaluator(FAST).spec()
TIMEOUT = 5.0
"""Seconds that a hanging share is given; an honest one takes a tenth of one."""
DEADLINE = 120.0
"""Seconds after which a process that should have got somewhere is given up."""


def make_proposals(count: int = 8) -> list[Proposal]:
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
    with ParallelEvaluator(2, SPEC, timeout=DEADLINE, cache_size=0) as evaluator:
        yield evaluator


@pytest.fixture
def impatient(shared: ParallelEvaluator, monkeypatch: pytest.MonkeyPatch) -> ParallelEvaluator:
    """The same evaluator with a short deadline."""
    monkeypatch.setattr(shared, "timeout", TIMEOUT)
    return shared


@pytest.fixture
def sizes(shared: ParallelEvaluator, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many proposals the workers were sent, each time that they were sent some."""
    sizes: list[int] = []
    worker_class = type(shared._workers[0])
    send = worker_class.send

    def spy(worker: Any, share: Any, proposals: list[Proposal], timeout: float | None) -> None:
        sizes.append(len(proposals))
        send(worker, share, proposals, timeout)

    monkeypatch.setattr(worker_class, "send", spy)
    return sizes


def pids() -> set[int]:
    """The worker processes that run."""
    return {process.pid for process in multiprocessing.active_children() if process.pid is not None}


def await_all(evaluator: ParallelEvaluator) -> None:
    """Return when every worker is ready, those too that replace others."""
    while not all(worker.ready for worker in evaluator._workers):
        evaluator.evaluate(PROPOSALS)


def fifos(folder: Path, count: int) -> list[Path]:
    """What designs that hang while they are announced announce themselves through."""
    paths = [folder / f"fifo{number}" for number in range(count)]
    for path in paths:
        os.mkfifo(path)
    return paths


def kill_announced(paths: list[Path]) -> threading.Thread:
    """Kill the workers, all at once, when each of the FIFOs has told of one that hangs; none hangs after that."""

    def kill() -> None:
        victims = [int(path.read_text()) for path in paths]
        for path in paths:
            path.unlink()
        for victim in victims:
            os.kill(victim, signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


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


def test_any_number_of_workers_gives_the_sequential_results_in_order(expected: list[Evaluation]) -> None:
    with ParallelEvaluator(3, SPEC) as evaluator:  # with one or two: see below
        found = evaluator.evaluate(PROPOSALS)
    assert_same(found, expected)
    assert [e.cached for e in found] == [False] * len(PROPOSALS)


def test_an_equal_proposal_is_remembered_even_after_the_workers_are_gone(expected: list[Evaluation]) -> None:
    with ParallelEvaluator(1, SPEC) as evaluator:
        evaluator.evaluate(PROPOSALS[:2])
    again = evaluator.evaluate(PROPOSALS[:2])
    assert_same(again, expected[:2])
    assert all(e.cached for e in again)


def test_workers_are_processes_of_their_own_and_end_when_closed() -> None:
    before = pids()
    evaluator = ParallelEvaluator(2, SPEC)
    assert len(pids() - before) == 2
    evaluator.close()
    assert pids() <= before
    evaluator.close()  # twice is harmless
    with pytest.raises(RlnasError, match="closed"):
        evaluator.evaluate(PROPOSALS[:1])


def test_leaving_the_with_block_ends_the_workers_after_an_error_too() -> None:
    before = pids()
    with pytest.raises(KeyError), ParallelEvaluator(1, SPEC):
        raise KeyError
    assert pids() <= before


@pytest.mark.parametrize("workers", [0, -1, True])
def test_the_number_of_workers_is_checked(workers: int) -> None:
    with pytest.raises(ConfigurationError, match="workers"):
        ParallelEvaluator(workers, SPEC)


@pytest.mark.parametrize("share", [0, -1, True, 1.5])
def test_the_size_of_a_share_is_checked(share: Any) -> None:
    with pytest.raises(ConfigurationError, match="share must be an integer >= 1"):
        ParallelEvaluator(1, SPEC, share=share)


@pytest.mark.parametrize("timeout", [0, -1.0, float("inf"), float("nan"), True, "5"])
def test_the_deadline_is_checked(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout must be a positive number of seconds or None"):
        ParallelEvaluator(1, SPEC, timeout=timeout)


def test_the_size_of_the_cache_is_checked() -> None:
    with pytest.raises(ConfigurationError, match="cache_size"):
        ParallelEvaluator(1, SPEC, cache_size=-1)


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ({"kind": "sequentail"}, UnknownNameError, "did you mean 'sequential'"),
        ({"kind": "sequential", "workers": 2}, ConfigurationError, "workers"),
    ],
)
def test_a_description_that_no_worker_understands_is_refused_at_once(
    spec: dict[str, Any], error: type[Exception], says: str
) -> None:
    before = pids()
    with pytest.raises(error, match=says):
        ParallelEvaluator(1, spec)
    assert pids() <= before


def test_the_description_is_that_of_the_workers_evaluator(shared: ParallelEvaluator) -> None:
    assert shared.spec() == SPEC
    shared.spec()["adaptation"]["steps"] = 99
    assert shared.spec() == SPEC


def test_workers_and_deadlines_are_options_and_no_part_of_a_description(expected: list[Evaluation]) -> None:
    brief = {"kind": "sequential", "adaptation": asdict(FAST)}
    made = evaluator_in_processes(brief, workers=1, timeout=DEADLINE, share=2, cache_size=1)
    assert isinstance(made, ParallelEvaluator)
    with made:
        assert made.spec() == SPEC
        assert (made.timeout, made.share, made.cache_size) == (DEADLINE, 2, 1)
        assert_same(made.evaluate(PROPOSALS), expected)
    assert isinstance(evaluator_in_processes(brief, workers=1), SequentialEvaluator)
    with pytest.raises(ConfigurationError, match="workers"):
        evaluator_in_processes(brief, workers=0)


@given(st.integers(0, 300), st.integers(1, 9), st.integers(1, 40))
def test_shares_are_as_large_as_they_may_be_and_as_even_as_they_can_be(count: int, workers: int, most: int) -> None:
    shares = divide(count, workers, most)
    sizes = [len(share) for share in shares]
    assert sorted(index for share in shares for index in share) == list(range(count))
    assert all(1 <= size <= most for size in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert len(shares) == count or len(shares) % workers == 0
    assert len(shares) <= max(0, count + workers * most - 1) // (workers * most) * workers


def test_two_workers_have_two_shares_of_what_fits_and_neighbours_are_apart() -> None:
    assert [len(share) for share in divide(64, 2, 32)] == [32, 32]
    assert [len(share) for share in divide(65, 2, 32)] == [17, 16, 16, 16]
    assert divide(5, 2, 32) == [[0, 2, 4], [1, 3]]


def test_the_workers_are_given_shares(
    shared: ParallelEvaluator, expected: list[Evaluation], sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_same(shared.evaluate(PROPOSALS), expected)
    assert sizes == [4, 4]
    monkeypatch.setattr(shared, "share", 3)
    assert_same(shared.evaluate(PROPOSALS), expected)
    assert sizes[2:] == [2, 2, 2, 2]


def test_a_worker_killed_while_idle_is_replaced_and_no_share_is_lost(
    shared: ParallelEvaluator, expected: list[Evaluation], sizes: list[int]
) -> None:
    await_all(shared)
    sizes.clear()
    victim = shared._workers[0].process
    victim.kill()
    victim.join()
    assert_same(shared.evaluate(PROPOSALS), expected)
    assert victim.pid not in pids()
    assert sizes == [4, 4]


def test_a_worker_that_dies_in_the_middle_of_an_answer_has_said_nothing(shared: ParallelEvaluator) -> None:
    worker = type(shared._workers[0])(SPEC)
    worker.connection, theirs = multiprocessing.Pipe()
    os.write(theirs.fileno(), struct.pack("!i", 100) + b"a beginning")
    theirs.close()
    assert worker.receive() is None
    worker.connection.close()


def test_a_proposal_whose_worker_dies_once_gets_its_result_all_the_same(
    shared: ParallelEvaluator, expected: list[Evaluation], tmp_path: Path
) -> None:
    bad = faulty(PROPOSALS[1], "die_once", tmp_path / "died")
    before = pids()
    found = shared.evaluate([PROPOSALS[0], bad, *PROPOSALS[2:]])
    assert (tmp_path / "died").exists()
    assert len(before - pids()) == 1
    assert_same(found, [expected[0], *SequentialEvaluator(FAST).evaluate([bad]), *expected[2:]])


@pytest.mark.parametrize("victims", [1, 2])  # two: all there are
def test_workers_killed_in_the_middle_of_their_shares_cost_no_result_and_double_none(
    victims: int, shared: ParallelEvaluator, expected: list[Evaluation], tmp_path: Path
) -> None:
    paths = fifos(tmp_path, victims)
    announced = [faulty(p, "hang_while_announced", path) for p, path in zip(PROPOSALS, paths, strict=False)]
    before = pids()
    killer = kill_announced(paths)
    found = shared.evaluate([*announced, *PROPOSALS[victims:]])
    killer.join()
    assert len(before - pids()) == victims
    assert_same(found, [*SequentialEvaluator(FAST).evaluate(announced), *expected[victims:]])


@pytest.mark.parametrize("kind", ["built", "unpickled"])
def test_a_proposal_that_kills_two_workers_is_crashed_and_its_neighbours_are_unharmed(
    kind: str, shared: ParallelEvaluator, expected: list[Evaluation]
) -> None:
    unreadable = replace(PROPOSALS[2], task=Unreadable("unreadable", "none"))
    bad = faulty(PROPOSALS[2], "die") if kind == "built" else unreadable
    found = shared.evaluate([*PROPOSALS[:2], bad, *PROPOSALS[3:]])
    assert found[2].status is Status.CRASHED
    assert found[2].accuracy == 0
    assert found[2].message == "2 worker processes died with it, alone (exit code 9)"
    assert_same([*found[:2], *found[3:]], [*expected[:2], *expected[3:]])
    assert len(shared._workers) == 2


def test_what_hung_alone_is_tried_again_when_it_is_proposed_again(
    impatient: ParallelEvaluator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (path,) = fifos(tmp_path, 1)
    hanging = faulty(PROPOSALS[1], "hang_while_announced", path)
    threading.Thread(target=path.read_text, daemon=True).start()
    monkeypatch.setattr(impatient, "cache_size", 1)
    assert [e.status for e in impatient.evaluate([hanging])] == [Status.TIMEOUT]
    path.unlink()
    assert [(e.status, e.cached) for e in impatient.evaluate([hanging] * 2)] == [(Status.OK, False), (Status.OK, True)]


def test_two_that_hang_in_one_share_are_timeouts_and_its_others_have_their_results(
    impatient: ParallelEvaluator, expected: list[Evaluation]
) -> None:
    hanging = {0: "hang", 2: "hang_deaf"}
    assert set(hanging) <= set(divide(len(PROPOSALS), 2, impatient.share)[0])
    batch = [faulty(p, hanging[i]) if i in hanging else p for i, p in enumerate(PROPOSALS)]
    found = impatient.evaluate(batch)
    for index, (mine, its) in enumerate(zip(found, expected, strict=True)):
        if index in hanging:
            assert (mine.status, mine.accuracy, mine.seconds) == (Status.TIMEOUT, 0, TIMEOUT)
            assert mine.message == f"no answer within {TIMEOUT:g} s, alone"
        else:
            assert_same([mine], [its])
    assert_same(impatient.evaluate(PROPOSALS), expected)


def test_the_others_go_on_while_a_dead_worker_is_replaced(
    shared: ParallelEvaluator, expected: list[Evaluation], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    replaced: list[int] = []
    worker_class = type(shared._workers[0])
    start = worker_class.start

    def start_and_stop(worker: Any) -> None:
        start(worker)
        os.kill(worker.process.pid, signal.SIGSTOP)
        replaced.append(worker.process.pid)

    await_all(shared)
    bad = faulty(PROPOSALS[0], "die_once", tmp_path / "died")
    with monkeypatch.context() as patch:
        patch.setattr(worker_class, "start", start_and_stop)
        found = shared.evaluate([bad, *PROPOSALS[1:]])  # would not return if the replacement were waited for
    assert_same(found[1:], expected[1:])
    assert found[0].status is Status.OK
    assert len(replaced) == 1
    assert [worker.ready for worker in shared._workers].count(False) == 1
    os.kill(replaced[0], signal.SIGCONT)
    assert_same(shared.evaluate(PROPOSALS), expected)


@pytest.mark.parametrize("starts", [1, 100])
def test_a_replacement_that_dies_as_it_starts_is_replaced_in_turn_but_not_for_ever(
    starts: int, expected: list[Evaluation], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with ParallelEvaluator(1, SPEC, timeout=DEADLINE) as evaluator:
        worker_class, killed = type(evaluator._workers[0]), []
        start = worker_class.start

        def start_and_kill(worker: Any) -> None:
            start(worker)
            if len(killed) < starts:
                worker.process.kill()
                killed.append(worker.process.pid)

        monkeypatch.setattr(worker_class, "start", start_and_kill)
        batch = [faulty(PROPOSALS[0], "die_once", tmp_path / "died"), *PROPOSALS[1:]]
        if starts == 1:
            assert_same(evaluator.evaluate(batch)[1:], expected[1:])
        else:
            with pytest.raises(RlnasError, match=r"ended as it started \(exit code -9\)"):
                evaluator.evaluate(batch)
    assert len(killed) == min(starts, FAILED_STARTS)


def test_what_a_worker_raises_is_raised_here_and_spoils_nothing_after_it(
    shared: ParallelEvaluator, expected: list[Evaluation]
) -> None:
    table_column = replace(PROPOSALS[0], task=Imageless("table:train/0", "none"))
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="table:train/0"):
            shared.evaluate([table_column, *PROPOSALS[:2]])
        assert_same(shared.evaluate(PROPOSALS[2:]), expected[2:])


def test_what_the_others_were_at_when_one_raised_is_given_up(
    shared: ParallelEvaluator, expected: list[Evaluation]
) -> None:
    await_all(shared)
    before = pids()
    table_column = replace(PROPOSALS[0], task=Imageless("table:train/0", "none"))
    with pytest.raises(ConfigurationError, match="table:train/0"):
        shared.evaluate([table_column, faulty(PROPOSALS[1], "hang")])
    assert len(before & pids()) == 1
    assert_same(shared.evaluate(PROPOSALS), expected)


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


class Fatal:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (9,)


def test_workers_that_cannot_start_are_no_proposals_fault() -> None:
    before = pids()
    with pytest.raises(RlnasError, match=r"ended as it started \(exit code 9\)"):
        ParallelEvaluator(1, {**SPEC, "device": Fatal()})
    assert pids() <= before


def test_workers_end_when_the_process_that_started_them_is_killed_whatever_they_do(tmp_path: Path) -> None:
    (path,) = fifos(tmp_path, 1)
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    owner = context.Process(target=_own_workers, args=(theirs, [faulty(PROPOSALS[0], "hang_while_announced", path)]))
    owner.start()
    theirs.close()
    assert mine.poll(DEADLINE)
    workers = mine.recv()
    assert len(workers) == 2
    assert int(path.read_text()) in workers  # one hangs, the other has nothing to do
    owner.kill()
    owner.join()
    deadline = time.monotonic() + DEADLINE
    while any(_runs(pid) for pid in workers):
        assert time.monotonic() < deadline, "workers outlive their owner"
        mine.poll(0.05)
    mine.close()


def _own_workers(connection: multiprocessing.connection.Connection, proposals: Sequence[Proposal]) -> None:
    with ParallelEvaluator(2, SPEC) as evaluator:
        connection.send(sorted(pids()))
        evaluator.evaluate(proposals)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
