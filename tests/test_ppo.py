"""Advantages and losses against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rlnas.agents.ppo import clipped_surrogate, discounted_sum, explained_variance, generalised_advantage


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


VALUE, REWARD, DISCOUNT = column(1, 2, 3), column(0, 1, 4), column(1, 0.5, 1)
# Temporal-difference errors: 0 + 1*2 - 1 = 1,  1 + .5*3 - 2 = .5,  4 - 3 = 1.
# Discounted returns:         0 + 1*3 = 3,      1 + .5*4 = 3,       4.


@pytest.mark.parametrize(
    ("lam", "expected"),
    [
        (0.0, (1, 0.5, 1)),
        (0.5, (1 + 0.5 * 0.75, 0.5 + 0.25 * 1, 1)),
        (1.0, (3 - 1, 3 - 2, 4 - 3)),
    ],
)
def test_advantages_match_the_numbers_worked_out_by_hand(lam: float, expected: tuple[float, ...]) -> None:
    advantage, target = generalised_advantage(VALUE, REWARD, DISCOUNT, lam)
    torch.testing.assert_close(advantage, column(*expected))
    torch.testing.assert_close(target, column(*expected) + VALUE)


def test_one_step_has_its_reward_less_its_value_as_advantage() -> None:
    advantage, target = generalised_advantage(column(0.25), column(1), column(0.9), 0.95)
    assert advantage.item() == 0.75
    assert target.item() == 1.0


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 64, 100])
def test_discounted_sums_are_those_taken_step_by_step(steps: int) -> None:
    generator = torch.Generator().manual_seed(steps)
    terms, discount = (torch.rand(steps, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    expected, following = torch.zeros_like(terms), torch.zeros(4, dtype=torch.float64)
    for t in reversed(range(steps)):
        expected[t] = following = terms[t] + discount[t] * following
    torch.testing.assert_close(discounted_sum(terms, discount), expected)


def test_trials_side_by_side_do_not_mix() -> None:
    value, reward, discount = (torch.rand(5, 3, dtype=torch.float64) for _ in range(3))
    together, _ = generalised_advantage(value, reward, discount, 0.9)
    for trial in range(3):
        alone, _ = generalised_advantage(*(x[:, [trial]] for x in (value, reward, discount)), 0.9)
        torch.testing.assert_close(together[:, [trial]], alone)


def test_credit_flows_back_through_the_end_of_an_inner_design() -> None:
    # Two designs of two decisions each; only the second design is rewarded.
    nothing, reward, discount = column(0, 0, 0, 0), column(0, 0, 0, 1), column(1, 0.9, 1, 0.9)
    advantage, _ = generalised_advantage(nothing, reward, discount, 0.5)
    torch.testing.assert_close(advantage, column(0.9 * 0.125, 0.9 * 0.25, 0.5, 1))


def test_a_design_discount_of_0_cuts_credit_at_the_end_of_a_design() -> None:
    nothing, reward, discount = column(0, 0, 0, 0), column(0, 0, 0, 1), column(1, 0, 1, 0)
    advantage, _ = generalised_advantage(nothing, reward, discount, 1.0)
    torch.testing.assert_close(advantage, column(0, 0, 1, 1))


def test_the_discount_of_the_last_step_makes_no_difference() -> None:
    one, _ = generalised_advantage(VALUE, REWARD, column(1, 0.5, 1), 0.9)
    other, _ = generalised_advantage(VALUE, REWARD, column(1, 0.5, 0), 0.9)
    torch.testing.assert_close(one, other)


def test_clipped_surrogate_matches_the_numbers_worked_out_by_hand() -> None:
    ratio, advantage = torch.tensor([1.5, 0.5, 1.1, 0.5]), torch.tensor([1.0, 1.0, -1.0, -1.0])
    # min(1.5, 1.2), min(.5, .8), min(-1.1, -1.1), min(-.5, -.8)
    assert clipped_surrogate(ratio, advantage, 0.2).tolist() == pytest.approx([-1.2, -0.5, 1.1, 0.8])


def test_clipping_stops_the_gradient_only_where_the_policy_has_gone_far_enough() -> None:
    ratio = torch.tensor([1.5, 0.5, 1.1, 0.5], requires_grad=True)
    clipped_surrogate(ratio, torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2).sum().backward()
    assert ratio.grad is not None
    assert ratio.grad.tolist() == [0.0, -1.0, 1.0, 0.0]


def test_explained_variance_of_perfect_constant_and_bad_values() -> None:
    target = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    assert explained_variance(target, target) == 1
    assert explained_variance(target + 5, target) == 1  # a bias is no variance
    assert explained_variance(torch.zeros_like(target), target) == 0
    assert explained_variance(-target, target) == pytest.approx(-3)
    assert math.isnan(explained_variance(target, torch.ones_like(target)))
