"""What known tasks teach about another, on tasks whose best designs follow from their descriptors."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from rlnas import task_prior
from rlnas.errors import DataError
from rlnas.task_prior import Floats, TaskPrior

CODES = np.array(list(product(range(4), repeat=3)))
NOISE = 0.02


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_prior, "STEPS", 40)


def worth(descriptor: float) -> Floats:
    """0 prefers small codes, 1 large ones, in the first two decisions; the third does not matter."""
    return np.asarray(0.5 + 0.05 * (2 * descriptor - 1) * (CODES[:, 0] + CODES[:, 1] - 3))


def known(tasks: int = 12, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    descriptors = np.column_stack([rng.uniform(size=tasks), np.ones(tasks)])
    columns = np.stack([worth(d) for d in descriptors[:, 0]], axis=1)
    return columns + NOISE * rng.standard_normal(columns.shape), descriptors


def test_a_descriptor_says_what_to_expect_of_every_design_and_how_sure_that_is() -> None:
    prior = TaskPrior(CODES, np.empty((64, 0)), *known())
    for descriptor in (0.05, 0.95):
        belief = prior.believe(np.array([descriptor, 1.0]))
        assert np.corrcoef(belief.mean, worth(descriptor))[0, 1] > 0.95
        assert belief.level[0] == pytest.approx(0.5, abs=0.03)
        assert 0.3 * NOISE < belief.noise.mean() < 2 * NOISE
    far = prior.believe(np.array([9.0, 1.0]))
    assert far.variance.sum() > 1.3 * prior.believe(np.array([0.5, 1.0])).variance.sum()


def test_samples_scatter_about_what_is_expected() -> None:
    prior, rng = TaskPrior(CODES, np.empty((64, 0)), *known()), np.random.default_rng(0)
    samples = np.stack([prior.believe(np.array([0.95, 1.0])).sample(rng) for _ in range(40)])
    assert samples.min() >= 0
    assert samples.max() <= 1
    assert np.corrcoef(samples.mean(0), worth(0.95))[0, 1] > 0.95
    assert len({tuple(sample) for sample in samples}) == 40


def test_designs_that_nobody_evaluated_are_judged_by_those_they_resemble() -> None:
    accuracy, descriptors = known()
    rows = np.random.default_rng(1).permutation(64)[:32]
    accuracy[3, 0] = np.nan
    belief = TaskPrior(CODES, np.empty((64, 0)), accuracy[rows], descriptors, rows).believe(np.array([0.95, 1.0]))
    others = np.setdiff1d(np.arange(64), rows)
    assert np.corrcoef(belief.mean[others], worth(0.95)[others])[0, 1] > 0.9


def test_costs_make_designs_alike() -> None:
    """Two tasks, on which accuracy follows from the cost alone, which the codes say nothing of."""
    cost = np.random.default_rng(2).permutation(64) / 64
    rows = np.arange(0, 64, 2)
    accuracy = np.column_stack([0.2 + 0.6 * cost[rows]] * 2)
    belief = TaskPrior(CODES, cost[:, None], accuracy, np.zeros((2, 1)), rows).believe(np.zeros(1))
    others = np.setdiff1d(np.arange(64), rows)
    assert np.corrcoef(belief.mean[others], cost[others])[0, 1] > 0.9


def test_what_is_peculiar_to_a_design_on_every_task_is_expected_of_it_again() -> None:
    accuracy, descriptors = known()
    peculiar = 0.05 * np.random.default_rng(3).standard_normal(64)
    prior = TaskPrior(CODES, np.empty((64, 0)), accuracy + peculiar[:, None], descriptors)
    belief = prior.believe(np.array([0.5, 1.0]))  # where the codes say nothing
    assert np.corrcoef(belief.mean, peculiar)[0, 1] > 0.9
    assert belief.noise.mean() < 2 * NOISE


def test_shapes_that_disagree_are_refused() -> None:
    accuracy, descriptors = known()
    with pytest.raises(DataError, match=r"of 64 designs .* on 11 tasks .* got shape \(64, 12\)"):
        TaskPrior(CODES, np.empty((64, 0)), accuracy, descriptors[1:])
