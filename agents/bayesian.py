"""Bayesian optimisation: searchers that model what has been told."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from rlnas.architecture import Architecture
from rlnas.errors import at_least
from rlnas.search_space import SearchSpace

from .searchers import Searcher, first_designs


class TPE(Searcher):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), Optuna's, over all decisions at once.

    Every decision is one categorical parameter with all its choices; where Optuna asks for an illegal one, a random
    legal one is taken, and the model is told what was taken. It so learns from every design about every decision. One
    parameter for each decision *and* state would know what is legal, but splits the evidence among as many parameters
    as there are states: thousands in a table.

    Args:
        space: what to search.
        seed: of everything random.
        startup: random designs before there is a model.
        candidates: designs among which Optuna chooses the most promising.
    """

    def __init__(self, space: SearchSpace, seed: int = 0, startup: int = 10, candidates: int = 24) -> None:
        super().__init__(space, seed)
        self._parameters: dict[str, BaseDistribution] = {
            f"{i} {decision.name}": CategoricalDistribution(tuple(range(len(decision.choices))))
            for i, decision in enumerate(space.decisions)
        }
        with _quiet():
            sampler = optuna.samplers.TPESampler(
                seed=int(self.rng.integers(2**31)),
                multivariate=True,
                n_startup_trials=at_least("startup", startup, 1),
                n_ei_candidates=at_least("candidates", candidates, 1),
            )
            self._study = optuna.create_study(direction="maximize", sampler=sampler)

    def ask(self) -> Architecture:
        with _quiet():
            trial = self._study.ask(self._parameters)
            self._study.tell(trial, state=TrialState.FAIL)  # what comes of it is told as a trial of its own
        choices: list[int] = []
        state = 0
        for wanted in trial.params.values():
            following = self.space.transitions[state]
            legal = following[wanted] >= 0
            choices.append(int(wanted if legal else self.rng.choice(np.flatnonzero(following >= 0))))
            state = int(following[choices[-1]])
        return self.space.decode(choices)

    def tell(self, architecture: Architecture, accuracy: float) -> None:
        params = dict(zip(self._parameters, architecture.choices, strict=True))
        with _quiet():
            self._study.add_trial(
                optuna.trial.create_trial(params=params, distributions=self._parameters, value=accuracy)
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """No word from Optuna: neither of new trials nor that some option is experimental."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def tpe_for(designs: int) -> dict[str, int]:
    """TPE's random designs for a budget of ``designs``: 10, at most a third of a small budget."""
    return {"startup": first_designs(designs)}


class GaussianProcess(Searcher):
    """Expected improvement under a Gaussian process whose kernel counts the decisions in which designs differ.

    The kernel is ``a * exp(-d / l) + noise`` with Hamming distance d: a Gaussian kernel over one-hot choices. Its three
    parameters maximise the marginal likelihood, anew whenever a tenth more designs have been told. The next design is
    the one with the highest expected improvement (Jones et al. 1998) over the best told, among random designs and the
    neighbours of the best, none of them told yet.

    Args:
        space: what to search.
        seed: of everything random.
        startup: random designs before there is a model.
        candidates: random designs among which to choose.
        incumbents: of how many of the best designs the neighbours are candidates too.
    """

    def __init__(
        self, space: SearchSpace, seed: int = 0, startup: int = 10, candidates: int = 100, incumbents: int = 3
    ) -> None:
        super().__init__(space, seed)
        self.startup = at_least("startup", startup, 1)
        self.candidates = at_least("candidates", candidates, 1)
        self.incumbents = at_least("incumbents", incumbents, 0)
        self._told: list[tuple[Architecture, float]] = []
        self._known: set[tuple[int, ...]] = set()
        self._kernel = ConstantKernel(1.0, (1e-2, 1e2)) * RBF(2.0, (0.5, 20.0)) + WhiteKernel(0.1, (1e-4, 1.0))
        self._fitted = 0

    def ask(self) -> Architecture:
        if len(self._told) < self.startup:
            return self.space.sample(self.rng)
        best = sorted(self._told, key=lambda told: -told[1])[: self.incumbents]
        near = [other for design, _ in best for other in self.space.neighbours(design)]
        pool = [*near, *(self.space.sample(self.rng) for _ in range(self.candidates))]
        fresh = list(dict.fromkeys(design for design in pool if design.choices not in self._known))
        if not fresh:
            return self.space.sample(self.rng)
        return fresh[int(self._expected_improvement(fresh).argmax())]

    def tell(self, architecture: Architecture, accuracy: float) -> None:
        self._told.append((architecture, accuracy))
        self._known.add(architecture.choices)

    def _expected_improvement(self, designs: list[Architecture]) -> NDArray[np.float64]:
        refit = len(self._told) >= 1.1 * self._fitted
        model = GaussianProcessRegressor(self._kernel, optimizer="fmin_l_bfgs_b" if refit else None, normalize_y=True)
        accuracies = np.array([accuracy for _, accuracy in self._told])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a parameter at its bound is a good one here
            model.fit(self._one_hot([design for design, _ in self._told]), accuracies)
            mean, deviation = model.predict(self._one_hot(designs), return_std=True)
        if refit:
            self._kernel, self._fitted = model.kernel_, len(self._told)
        noise = model.kernel_.k2.noise_level * (accuracies.std() or 1.0) ** 2  # of evaluations, not of the design
        deviation = np.sqrt(np.maximum(deviation**2 - noise, 0.0))
        gain = mean - accuracies.max()
        scaled = gain / np.maximum(deviation, 1e-12)
        return np.asarray(gain * norm.cdf(scaled) + deviation * norm.pdf(scaled))

    def _one_hot(self, designs: list[Architecture]) -> NDArray[np.float64]:
        choices = np.array([design.choices for design in designs])
        return np.asarray(np.eye(self.space.num_choices)[choices].reshape(len(designs), -1))


def gaussian_process_for(designs: int) -> dict[str, int]:
    """The Gaussian process's random designs for a budget of ``designs``: 10, at most a third of a small budget."""
    return {"startup": first_designs(designs)}
