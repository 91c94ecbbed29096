"""REINFORCE over a table of logits, alone and after evolution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rlnas.architecture import Architecture
from rlnas.errors import ConfigurationError, at_least
from rlnas.search_space import SearchSpace

from .evolution import RegularizedEvolution
from .searchers import Searcher


class Reinforce(Searcher):
    """REINFORCE (Zoph & Le 2017, https://arxiv.org/abs/1611.01578) as NAS-Bench-201's authors ran it.

    The policy is one softmax for each decision over the choices that are legal then, with no network behind it
    (Dong & Yang 2020, https://arxiv.org/abs/2001.00326). Each design told is one step of Adam along ``(accuracy -
    baseline) * grad log p(design)``, where the baseline is a moving average of the accuracies up to and with this one.

    Args:
        space: what to search.
        seed: of everything random.
        learning_rate: Adam's, the published one; :func:`reinforce_for` has one that small budgets can learn with.
        momentum: of the moving average, in 0 .. 1.

    Raises:
        ConfigurationError: if an option is not allowed.
    """

    def __init__(self, space: SearchSpace, seed: int = 0, learning_rate: float = 0.001, momentum: float = 0.9) -> None:
        super().__init__(space, seed)
        if not learning_rate > 0.0:
            raise ConfigurationError(f"learning_rate must be above 0, got {learning_rate!r}")
        if not 0.0 <= momentum < 1.0:
            raise ConfigurationError(f"momentum must be at least 0 and below 1, got {momentum!r}")
        self.learning_rate, self.momentum = learning_rate, momentum
        self.logits = np.zeros((len(space.decisions), space.num_choices))
        self._moments = np.zeros((2, *self.logits.shape))
        self._steps = 0
        self._average = np.zeros(2)  # weighted sum of accuracies, and sum of the weights

    def probabilities(self, prefix: Sequence[int] = ()) -> NDArray[np.float64]:
        """How likely the policy is to take each choice after ``prefix``, of shape (num_choices,); 0 where illegal."""
        return self._softmax(len(prefix), self.space.legal_choices(prefix))

    def ask(self) -> Architecture:
        choices: list[int] = []
        state = 0
        for position in range(len(self.logits)):
            likely = self._softmax(position, self.space.transitions[state] >= 0)
            choices.append(int(self.rng.choice(len(likely), p=likely)))
            state = int(self.space.transitions[state, choices[-1]])
        return self.space.decode(choices)

    def tell(self, architecture: Architecture, accuracy: float) -> None:
        self._average = self.momentum * self._average + (1.0 - self.momentum) * np.array([accuracy, 1.0])
        advantage = accuracy - self._average[0] / self._average[1]
        gradient = np.zeros_like(self.logits)
        state = 0
        for position, choice in enumerate(architecture.choices):
            gradient[position] -= self._softmax(position, self.space.transitions[state] >= 0)
            gradient[position, choice] += 1.0
            state = int(self.space.transitions[state, choice])
        self._ascend(advantage * gradient)

    def start_from(self, designs: Sequence[tuple[Architecture, float]]) -> None:
        """Make these designs likely: each decision's logits are those of how often they took each choice, plus one
        choice at random; the baseline is their mean accuracy."""
        chosen = np.array([design.choices for design, _ in designs])
        counts = np.stack([np.bincount(column, minlength=self.space.num_choices) for column in chosen.T])
        self.logits = np.log((counts + 1.0 / self.space.num_choices) / (len(designs) + 1.0))
        self._average = np.array([np.mean([accuracy for _, accuracy in designs]), 1.0])

    def _softmax(self, position: int, legal: NDArray[np.bool_]) -> NDArray[np.float64]:
        logits = self.logits[position]
        weights = np.where(legal, np.exp(logits - logits[legal].max()), 0.0)
        return np.asarray(weights / weights.sum())

    def _ascend(self, gradient: NDArray[np.float64]) -> None:
        """One step of Adam with its usual constants (Kingma & Ba 2015)."""
        self._steps += 1
        for moment, decay, value in zip(self._moments, (0.9, 0.999), (gradient, gradient**2), strict=True):
            moment += (1.0 - decay) * (value - moment)
        mean, square = (m / (1.0 - d**self._steps) for m, d in zip(self._moments, (0.9, 0.999), strict=True))
        self.logits += self.learning_rate * mean / (np.sqrt(square) + 1e-8)


def reinforce_for(designs: int) -> dict[str, float]:
    """REINFORCE's learning rate for a budget of ``designs``: 10 / designs, in 0.001 .. 0.1.

    A step of Adam moves a logit by about the learning rate. With the published rate, 0.001, a hundred of them are
    random search; from 10,000 designs on it is the published one.
    """
    return {"learning_rate": min(0.1, max(0.001, 10 / designs))}


class Hybrid(Searcher):
    """Regularised evolution first; then REINFORCE, started from the best designs that evolution found.

    Args:
        space: what to search.
        seed: of everything random.
        evolution_designs: how many designs evolution has.
        elite: how many of its best REINFORCE starts from.
        learning_rate: REINFORCE's; far above the published one, since the policy starts near good designs.
        population_size: evolution's, as are the rest.
        sample_size: see :class:`RegularizedEvolution`.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int = 0,
        evolution_designs: int = 50,
        elite: int = 5,
        learning_rate: float = 0.1,
        population_size: int = 10,
        sample_size: int = 3,
    ) -> None:
        super().__init__(space, seed)
        self.evolution_designs = at_least("evolution_designs", evolution_designs, 1)
        self.elite = at_least("elite", elite, 1)
        self.evolution = RegularizedEvolution(space, seed, population_size, sample_size)
        self.policy = Reinforce(space, seed, learning_rate)
        self._told: list[tuple[Architecture, float]] = []

    def ask(self) -> Architecture:
        return (self.evolution if len(self._told) < self.evolution_designs else self.policy).ask()

    def tell(self, architecture: Architecture, accuracy: float) -> None:
        self._told.append((architecture, accuracy))
        if len(self._told) > self.evolution_designs:
            self.policy.tell(architecture, accuracy)
            return
        self.evolution.tell(architecture, accuracy)
        if len(self._told) == self.evolution_designs:
            self.policy.start_from(sorted(self._told, key=lambda told: -told[1])[: self.elite])
