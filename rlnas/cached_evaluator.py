"""What evaluators that train networks share: equal proposals are trained once, here and in other runs."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from rlnas.errors import CacheError, ConfigurationError
from rlnas.evaluation_cache import EvaluationCache
from rlnas.evaluator import LASTING, Evaluation, Evaluator, Proposal

_log = logging.getLogger(__name__)

_Key: TypeAlias = tuple[str, str, int, int | None]


class CachedEvaluator(ABC):
    """Remembers evaluations and has each of several equal proposals trained once; how, a subclass says.

    Args:
        cache_size: evaluations to remember in memory by (canonical architecture, task digest, seed, fidelity); 0 for
            none.
        cache: what other runs evaluated, which is asked before anything is trained and told what was; None for nothing.
            Should its file fail later, a warning is logged and evaluating goes on without it.

    Raises:
        ConfigurationError: if ``cache`` is something else.
    """

    def __init__(self, cache_size: int = 500_000, cache: EvaluationCache | None = None) -> None:
        if not isinstance(cache, EvaluationCache | None):  # a record's description, say, must not name a file to trust
            raise ConfigurationError(f"cache must be an EvaluationCache or None, got {cache!r}")
        self.cache_size = cache_size
        self._cache: OrderedDict[_Key, Evaluation] = OrderedDict()
        self._shared = cache

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """See :meth:`rlnas.evaluator.Evaluator.spec`."""

    def version(self) -> dict[str, Any] | None:
        """All that results depend on to the last digit beside the proposal, as JSON; None if nothing can vouch for it.

        Evaluators whose versions are equal share evaluations across runs: one left out here gives wrong answers to
        other runs. A number must be in it that is raised whenever a change to the program changes results, and every
        option that does, by content (a file's digest, not its path). It is never inherited: a class that does not state
        its own shares nothing, see :func:`stated_version`.
        """
        return None

    @abstractmethod
    def _train_all(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        """One evaluation for each of the proposals, all of them different, in the same order."""

    def evaluate(self, proposals: Sequence[Proposal]) -> list[Evaluation]:
        """See :meth:`rlnas.evaluator.Evaluator.evaluate`."""
        keys = [(p.architecture.key, p.task.digest, p.seed, p.steps) for p in proposals]
        unknown = {key: p for key, p in zip(keys, proposals, strict=True) if key not in self._cache}
        shared = self._find_shared(unknown)
        untrained = {key: p for key, p in unknown.items() if key not in shared}
        trained = dict(zip(untrained, self._train_all(list(untrained.values())), strict=True))
        lasting = {key: e for key, e in trained.items() if e.status in LASTING}
        self._share(untrained, lasting)
        answers = []
        for key in keys:
            if key in untrained:  # the first of equal proposals is the one that was trained
                del untrained[key]
                answers.append(trained[key])
            elif key in trained:
                answers.append(replace(trained[key], cached=True))
            elif key in shared:
                answers.append(shared[key])
            else:
                self._cache.move_to_end(key)
                answers.append(replace(self._cache[key], cached=True))
        self._cache.update(shared | lasting)
        while len(self._cache) > self.cache_size:
            self._cache.popitem(last=False)
        return answers

    def _find_shared(self, proposals: Mapping[_Key, Proposal]) -> dict[_Key, Evaluation]:
        """What other runs found of the proposals."""
        if self._shared is None or not proposals or (version := stated_version(self)) is None:
            return {}
        try:
            found = self._shared.find(list(proposals.values()), version)
        except CacheError as error:
            return self._go_on_alone(error)
        return {key: evaluation for key, evaluation in zip(proposals, found, strict=True) if evaluation is not None}

    def _share(self, proposals: Mapping[_Key, Proposal], evaluations: Mapping[_Key, Evaluation]) -> None:
        """Tell other runs what was found of some of the proposals."""
        if self._shared is None or not evaluations or (version := stated_version(self)) is None:
            return
        try:
            self._shared.keep([proposals[key] for key in evaluations], version, list(evaluations.values()))
        except CacheError as error:
            self._go_on_alone(error)

    def _go_on_alone(self, error: CacheError) -> dict[_Key, Evaluation]:
        assert self._shared is not None
        _log.warning("rlnas: going on without sharing evaluations: %s", error)
        self._shared.close()
        self._shared = None
        return {}


def stated_version(evaluator: Evaluator) -> dict[str, Any] | None:
    """The version that an evaluator's own class states; None if none, or only its parent does.

    A parent does not know what its subclass changed.
    """
    if isinstance(evaluator, CachedEvaluator) and "version" in vars(type(evaluator)):
        return evaluator.version()
    return None
