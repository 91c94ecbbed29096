"""Any training evaluator's results, from several processes that may hang or die."""

from __future__ import annotations

import contextlib
import copy
import math
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any, TypeAlias

from rlnas.cached_evaluator import CachedEvaluator, stated_version
from rlnas.errors import ConfigurationError, RlnasError, at_least
from rlnas.evaluator import Evaluation, Evaluator, Proposal, Status
from rlnas.specs import evaluator_from_spec

if TYPE_CHECKING:
    from rlnas.evaluation_cache import EvaluationCache

DEATHS_TO_QUARANTINE = 2
FAILED_STARTS = 10
"""Starts that may fail for each worker, with nothing heard from any in between, before they are given up."""
START_SECONDS = 300.0
"""Within which a worker must be ready: importing torch takes seconds, from a slow disk a minute."""
DYING_SECONDS = 1.0
"""For a process whose pipe broke to end by itself, because its own exit code says more than that of our SIGKILL."""


def evaluator_in_processes(
    spec: Mapping[str, Any],
    *,
    workers: int = 1,
    timeout: float | None = None,
    cache: EvaluationCache | None = None,
    **options: Any,
) -> Evaluator:
    """The evaluator that ``spec`` describes, in worker processes where these are asked for.

    Args:
        spec: as :func:`rlnas.specs.evaluator_from_spec` reads it.
        workers: processes that train; 1 is this one unless there is a ``timeout``. A table, which trains nothing, is
            always read in this process.
        timeout: seconds that a worker may take for a share of proposals; None for as long as it likes.
        cache: evaluations of other runs; None for none.
        options: of the evaluator's kind, in place of those described; of worker processes also ``share``. A table has
            no use for any.

    Raises:
        ConfigurationError: as :func:`rlnas.specs.evaluator_from_spec`, or as :class:`ParallelEvaluator`.
    """
    if spec.get("kind") == "table":
        return evaluator_from_spec(spec)
    here: dict[str, Any] = {} if cache is None else {"cache": cache}  # other kinds of evaluators may know of none
    if workers == 1 and timeout is None:
        return evaluator_from_spec(spec, **options, **here)
    here |= {name: options.pop(name) for name in ("share", "cache_size") if name in options}
    return ParallelEvaluator(workers, {**spec, **options}, timeout=timeout, **here)


class ParallelEvaluator(CachedEvaluator):
    """Evaluates proposals in worker processes; what a proposal is worth does not depend on how many there are.

    The proposals of one call are divided into shares, see :func:`divide`, and a worker is given a share at a time. A
    worker that dies, or misses its deadline and is killed, is replaced while the others go on, and each proposal of its
    share is done again, alone. One that misses the deadline alone is ``TIMEOUT``, one that two workers died with, alone
    ``CRASHED``; its neighbours have their results. Workers use one thread each. Close it, or use it as a context
    manager.

    Args:
        workers: number of processes.
        spec: describes the evaluator that every worker makes, as :func:`rlnas.specs.evaluator_from_spec` reads it.
        timeout: seconds within which a worker must answer a share; None to wait for ever.
        share: the most proposals that a worker is given at once.
        cache_size: evaluations to remember, 0 for none; they are kept here, not in the workers.
        cache: evaluations of other runs; None for none. It is read and written here, not in the workers.

    Raises:
        ConfigurationError: if an option has a value that is not allowed, or ``spec`` describes no evaluator.
        RlnasError: if a worker process ends as it starts.
    """

    def __init__(
        self,
        workers: int,
        spec: Mapping[str, Any],
        *,
        timeout: float | None = None,
        share: int = 32,
        cache_size: int = 500_000,
        cache: EvaluationCache | None = None,
    ) -> None:
        at_least("workers", workers, 1)
        super().__init__(at_least("cache_size", cache_size, 0), cache)
        self.share = at_least("share", share, 1)
        if timeout is not None and not (_is_number(timeout) and 0 < timeout < math.inf):
            raise ConfigurationError(f"timeout must be a positive number of seconds or None, got {timeout!r}")
        self.timeout = timeout
        self._spec: dict[str, Any] | None = None
        self._version: dict[str, Any] | None = None
        self._failed_starts = 0
        self._workers = [_Worker(dict(spec)) for _ in range(workers)]
        try:
            nothing = _Shares([])
            while not all(worker.ready for worker in self._workers):
                self._hand_out(nothing, [])
                self._hear(nothing)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ParallelEvaluator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; what was remembered can still be asked for."""
        for worker in self._workers:
            worker.end()
        self._workers = []

    def spec(self) -> dict[str, Any]:
        """The description of the workers' evaluator: in this process it gives equal results."""
        assert self._spec is not None
        return copy.deepcopy(self._spec)

    def version(self) -> dict[str, Any] | None:
        """What the workers' evaluator states: processes change no results."""
        return copy.deepcopy(self._version)

    def _train_all(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        if proposals and not self._workers:
            raise RlnasError("this evaluator is closed")
        shares = _Shares(divide(len(proposals), len(self._workers), self.share))
        try:
            while len(shares.results) < len(proposals):
                self._hand_out(shares, proposals)
                self._hear(shares)
        except BaseException:  # a late answer must not be taken for the answer to something else
            for worker in self._workers:
                if worker.share is not None:
                    worker.end()
            raise
        return [shares.results[index] for index in range(len(proposals))]

    def _hand_out(self, shares: _Shares, proposals: Sequence[Proposal]) -> None:
        """Start every worker that does not run, and give every idle one a share."""
        for worker in self._workers:
            if worker.idle and not worker.process.is_alive():  # no share is to blame for that
                worker.end()
            if not worker.running:
                worker.start()
            if worker.idle and shares.waiting:
                share = shares.waiting.popleft()
                worker.send(share, [proposals[index] for index in share.indices], self.timeout)

    def _hear(self, shares: _Shares) -> None:
        """Wait until a starting or busy worker has something to say, dies, or misses its deadline."""
        awaited = {worker.connection: worker for worker in self._workers if not worker.idle}
        nearest = min(worker.deadline for worker in awaited.values())
        seconds = None if nearest == math.inf else max(0.0, nearest - time.monotonic())
        for connection in wait(list(awaited), seconds):
            assert isinstance(connection, Connection)
            self._take(awaited.pop(connection), shares)
        now = time.monotonic()
        for worker in awaited.values():
            if worker.deadline <= now:
                self._lose(worker, shares, hung=True)

    def _take(self, worker: _Worker, shares: _Shares) -> None:
        """Deal with what a worker says, be it nothing because it died."""
        share, answer = worker.share, worker.receive()
        if answer is None:
            self._lose(worker, shares, hung=False)
            return
        self._failed_starts = 0
        if isinstance(answer, Exception):
            if not worker.ready:
                worker.end()
            raise answer
        if share is None:
            assert isinstance(answer, dict)
            worker.ready, self._spec, self._version = True, answer["spec"], answer["version"]
        else:
            assert isinstance(answer, list)
            shares.results.update(zip(share.indices, answer, strict=True))

    def _lose(self, worker: _Worker, shares: _Shares, hung: bool) -> None:
        """End a worker that died or hangs, and have its share done again."""
        if not hung:
            worker.process.join(DYING_SECONDS)
        share, exit_code = worker.share, worker.end()
        if share is None:
            self._failed_starts += 1
            if self._spec is None or self._failed_starts >= FAILED_STARTS * len(self._workers):
                raise RlnasError(f"a worker process ended as it started (exit code {exit_code})")
        elif hung and self.timeout is not None:
            message = f"no answer within {self.timeout:g} s, alone"
            shares.lose(share, Evaluation(0.0, status=Status.TIMEOUT, seconds=self.timeout, message=message))
        else:
            message = f"{DEATHS_TO_QUARANTINE} worker processes died with it, alone (exit code {exit_code})"
            shares.lose(share, Evaluation(0.0, status=Status.CRASHED, message=message))


def divide(count: int, workers: int, most: int) -> list[list[int]]:
    """Deal ``count`` proposals out in shares of at most ``most``, in as few whole rounds of ``workers`` as will do.

    Shares differ in size by one at most and every worker has equally many, so that lock-step batches are large and none
    waits for a last odd share. Neighbours in the list, which often cost alike, are dealt to different shares.

    Returns:
        For each share the indices of its proposals.
    """
    rounds = math.ceil(count / (workers * most)) if count else 0
    shares = min(count, rounds * workers)
    return [list(range(first, count, shares)) for first in range(shares)]


@dataclass(frozen=True, slots=True)
class _Share:
    """The indices of some proposals, and how many workers died while they had it and nothing else."""

    indices: list[int]
    deaths: int = 0


class _Shares:
    """What is still to be done, and the results so far by the index of their proposal."""

    def __init__(self, shares: list[list[int]]) -> None:
        self.waiting = deque(_Share(indices) for indices in shares)
        self.results: dict[int, Evaluation] = {}

    def lose(self, share: _Share, verdict: Evaluation) -> None:
        """Have a lost share's proposals done again, each alone; one that was alone often enough gets the verdict.

        Of several proposals none can be blamed for a death, and of one that is alone the blame may be another's, who
        kills worker processes: hence two deaths. But who is alone when a deadline is missed is the one that missed it.
        """
        deaths = share.deaths + (len(share.indices) == 1)
        if deaths == DEATHS_TO_QUARANTINE or (deaths and verdict.status is Status.TIMEOUT):
            self.results[share.indices[0]] = verdict
        else:  # first in the queue: one that hangs again should not be what all wait for in the end
            self.waiting.extendleft(_Share([index], deaths) for index in reversed(share.indices))


_Answer: TypeAlias = dict[str, Any] | list[Evaluation] | Exception
"""A worker sends its evaluator's spec and version when it is ready, then a share's evaluations; or the error it met."""


class _Worker:
    """One process and the pipe to it: not running, starting, idle, or busy with a share."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self.running = False
        self.ready = False
        self.share: _Share | None = None
        self.deadline = math.inf

    @property
    def idle(self) -> bool:
        return self.ready and self.share is None

    def start(self) -> None:
        """Start the process; the first thing to receive from it is that it is ready."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, self._spec), daemon=True)
        with _unmoved_by_ctrl_c():
            self.process.start()
        theirs.close()  # so that the pipe breaks when the process dies
        self.running = True
        self.deadline = time.monotonic() + START_SECONDS

    def send(self, share: _Share, proposals: list[Proposal], timeout: float | None) -> None:
        """Make it busy; it has ``timeout`` seconds."""
        self.share = share
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is dead: receive() will find out
            self.connection.send(proposals)
        self.deadline = math.inf if timeout is None else time.monotonic() + timeout

    def receive(self) -> _Answer | None:
        """What it says, after which it is no longer busy; None if it died."""
        try:
            answer: _Answer = self.connection.recv()
        except (EOFError, OSError):  # OSError: it died in the middle of an answer
            return None
        self.share = None
        return answer

    def end(self) -> int | None:
        """End the process, if it runs, whatever it does; its exit code."""
        if not self.running:
            return None
        self.running = self.ready = False
        self.share = None
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@contextlib.contextmanager
def _unmoved_by_ctrl_c() -> Iterator[None]:
    """A process started within never sees SIGINT, which a terminal sends to all: it is for the parent to handle."""
    resource_tracker.ensure_running()  # starting it would undo what follows
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, spec: dict[str, Any]) -> None:
    threading.Thread(target=die_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        try:
            evaluator = evaluator_from_spec(spec, cache_size=0)
        except Exception as error:
            connection.send(_portable(error))
            return
        connection.send({"spec": evaluator.spec(), "version": stated_version(evaluator)})
        while True:
            request = connection.recv_bytes()
            try:
                answer: _Answer = evaluator.evaluate(pickle.loads(request))
            except Exception as error:
                answer = _portable(error)
            connection.send(answer)


def die_with_parent() -> None:
    """Ends this process as soon as its parent has: what is at work for long would not notice that its pipe broke."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same where it cannot be sent to another process."""
    try:
        pickle.loads(ForkingPickler.dumps(error))
    except Exception:
        return RlnasError(str(error))
    return error
