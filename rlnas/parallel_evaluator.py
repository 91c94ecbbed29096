"""The sequential evaluator's results, from several processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from rlnas.errors import RlnasError, at_least
from rlnas.evaluator import Evaluation, Proposal, Status
from rlnas.sequential_evaluator import SequentialEvaluator

if TYPE_CHECKING:
    from rlnas.adaptation import Adaptation

DEATHS_TO_QUARANTINE = 2


class ParallelEvaluator(SequentialEvaluator):
    """Evaluates proposals in worker processes; what a proposal is worth does not depend on how many there are.

    A worker that dies is replaced and its proposal tried once more; a proposal that has ended two workers is
    ``CRASHED``. Workers use one thread each. Close it, or use it as a context manager.

    Args:
        workers: number of processes.
        adaptation: as for :class:`~rlnas.sequential_evaluator.SequentialEvaluator`.
        device: likewise.
        cache_size: likewise; the cache is kept here, not in the workers.

    Raises:
        ConfigurationError: if ``workers`` is no positive number, or the device is unknown or absent.
        RlnasError: if a worker process ends as it starts.
    """

    def __init__(
        self,
        workers: int,
        adaptation: Adaptation | None = None,
        device: str = "cpu",
        cache_size: int = 500_000,
    ) -> None:
        at_least("workers", workers, 1)
        super().__init__(adaptation, device, cache_size)
        self._workers = [_Worker(self.spec()) for _ in range(workers)]
        self._start_workers()

    def __enter__(self) -> ParallelEvaluator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; what was remembered can still be asked for."""
        for worker in self._workers:
            worker.end()
        self._workers = []

    def _start_workers(self) -> None:
        """Start those that do not run, all at once."""
        started = [worker for worker in self._workers if not worker.running]
        try:
            for worker in started:
                worker.start()
            for worker in started:
                worker.wait_until_ready()
        except BaseException:
            for worker in started:
                worker.end()
            raise

    def _train_all(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        if proposals and not self._workers:
            raise RlnasError("this evaluator is closed")
        self._start_workers()
        busy: dict[Connection, tuple[_Worker, int]] = {}
        try:
            return self._share_out(proposals, busy)
        except BaseException:  # a late answer must not be taken for the answer to something else
            for worker, _ in busy.values():
                worker.end()
            raise

    def _share_out(
        self, proposals: Sequence[Proposal], busy: dict[Connection, tuple[_Worker, int]]
    ) -> list[Evaluation]:
        """Give every idle worker a proposal until all are answered; ``busy`` tells who has which."""
        waiting = deque(range(len(proposals)))
        deaths: Counter[int] = Counter()
        results: dict[int, Evaluation] = {}
        idle = list(self._workers)
        while len(results) < len(proposals):
            while idle and waiting:
                worker, index = idle.pop(), waiting.popleft()
                busy[worker.connection] = worker, index
                worker.send(proposals[index])
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                worker, index = busy[connection]
                answer = worker.receive()
                del busy[connection]
                idle.append(worker)
                if isinstance(answer, Exception):
                    raise answer
                if answer is not None:
                    results[index] = answer
                    continue
                worker.end()
                self._start_workers()
                deaths[index] += 1
                if deaths[index] < DEATHS_TO_QUARANTINE:
                    waiting.append(index)
                else:
                    message = f"{deaths[index]} worker processes died on it"
                    results[index] = Evaluation(0.0, status=Status.CRASHED, message=message)
        return [results[index] for index in range(len(proposals))]


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self.running = False

    def start(self) -> None:
        """Start the process; it is of use once :meth:`wait_until_ready` has returned."""
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, self._spec), daemon=True)
        with _unmoved_by_ctrl_c():
            self.process.start()
        theirs.close()  # so that the pipe breaks when the process dies
        self.running = True

    def wait_until_ready(self) -> None:
        """Return once the process waits for proposals.

        Raises:
            RlnasError: if it ended before. No proposal is to blame for that.
        """
        try:
            self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            raise RlnasError(f"a worker process ended as it started (exit code {self.process.exitcode})") from None

    def send(self, proposal: Proposal) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is dead: receive() will find out
            self.connection.send(proposal)

    def receive(self) -> Evaluation | Exception | None:
        """The worker's answer, or the error that it met; None if it died."""
        try:
            answer = self.connection.recv()
        except (EOFError, ConnectionResetError):
            return None
        assert isinstance(answer, Evaluation | Exception)
        return answer

    def end(self) -> None:
        """End the process, if it runs."""
        if self.running:
            self.running = False
            self.process.kill()
            self.process.join()
            self.connection.close()


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
    import torch

    from rlnas.adaptation import Adaptation

    torch.set_num_threads(1)
    evaluator = SequentialEvaluator(Adaptation(**spec["adaptation"]), spec["device"], cache_size=0)
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        connection.send("ready")
        while True:
            request = connection.recv_bytes()
            try:
                answer: Evaluation | Exception = evaluator.evaluate([pickle.loads(request)])[0]
            except Exception as error:
                answer = _portable(error)
            connection.send(answer)


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same where it cannot be sent to another process."""
    try:
        pickle.loads(ForkingPickler.dumps(error))
    except Exception:
        return RlnasError(str(error))
    return error
