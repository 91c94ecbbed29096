"""The sequential evaluator's results, from several processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from rlnas.errors import at_least
from rlnas.evaluator import Evaluation, Proposal, SequentialEvaluator, Status, evaluator_from_spec

if TYPE_CHECKING:
    from rlnas.adaptation import Adaptation

DEATHS_TO_QUARANTINE = 2


class ParallelEvaluator(SequentialEvaluator):
    """Evaluates proposals in worker processes; what a proposal is worth does not depend on how many there are.

    A worker that dies is replaced and its proposal tried once more; a proposal that has ended two workers is
    ``CRASHED``. Workers use one thread each. Close it, or use it as a context manager.

    Args:
        workers: number of processes.
        adaptation: as for :class:`~rlnas.evaluator.SequentialEvaluator`.
        device: likewise.
        cache_size: likewise; the cache is kept here, not in the workers.
    """

    def __init__(
        self,
        workers: int,
        adaptation: Adaptation | None = None,
        device: str = "cpu",
        cache_size: int = 500_000,
    ) -> None:
        super().__init__(adaptation, device, cache_size)
        self._workers = [_Worker(self.spec()) for _ in range(at_least("workers", workers, 1))]

    def __enter__(self) -> ParallelEvaluator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.end()
        self._workers = []

    def _train_all(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        waiting = deque(range(len(proposals)))
        deaths: Counter[int] = Counter()
        results: dict[int, Evaluation] = {}
        busy: dict[Connection, tuple[_Worker, int]] = {}
        idle = list(self._workers)
        while len(results) < len(proposals):
            while idle and waiting:
                worker, index = idle.pop(), waiting.popleft()
                worker.send(proposals[index])
                busy[worker.connection] = worker, index
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                worker, index = busy.pop(connection)
                answer = worker.receive()
                if answer is not None:
                    results[index] = answer
                else:
                    worker.replace()
                    deaths[index] += 1
                    if deaths[index] < DEATHS_TO_QUARANTINE:
                        waiting.append(index)
                    else:
                        message = f"{deaths[index]} worker processes died on it"
                        results[index] = Evaluation(0.0, status=Status.CRASHED, message=message)
                idle.append(worker)
        return [results[index] for index in range(len(proposals))]


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, self._spec), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe breaks when the process dies

    def send(self, proposal: Proposal) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is dead: receive() will find out
            self.connection.send(proposal)

    def receive(self) -> Evaluation | None:
        """The worker's answer; None if it died."""
        try:
            answer = self.connection.recv()
        except (EOFError, ConnectionResetError):
            return None
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Evaluation)
        return answer

    def replace(self) -> None:
        self.end()
        self._start()

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()
        self.process.close()


def _serve(connection: Connection, spec: dict[str, Any]) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle
    torch.set_num_threads(1)
    evaluator = evaluator_from_spec(spec, cache_size=0)
    while True:
        try:
            proposal = connection.recv()
        except (EOFError, ConnectionResetError, OSError):
            return
        try:
            answer: Evaluation | Exception = evaluator.evaluate([proposal])[0]
        except Exception as error:
            answer = error
        connection.send(answer)
