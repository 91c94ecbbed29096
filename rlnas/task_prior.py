"""What designs are worth on a task that nobody has searched yet, learned from tasks of which much is known.

A Gaussian process over designs *and* tasks: an evaluation of design ``x`` on task ``t`` yields ``level_t + scale_t
f(x, t)`` plus noise, and

    cov(f(x, t), f(x', t')) = k(x, x') (shared + alike k(descriptor_t, descriptor_t') + own [t = t']),

so that a task resembles all others a little and those with a like descriptor much (Bonilla et al. 2008, "Multi-task
Gaussian process prediction"). Designs resemble each other if they make the same choices in the same places, make the
same choices anywhere, or cost as much. The numbers in this are those of greatest marginal likelihood, found by
stochastic gradient descent on samples of designs. Level, scale and noise of a task follow from its descriptor by
Gaussian processes of their own.

Everything is computed on a basis of ``M`` functions of the designs, which are independent of each other given the known
tasks. ``R`` designs, ``T`` known tasks, ``D`` entries of a descriptor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlnas.errors import DataError

Floats = NDArray[np.float64]

BASIS = 400
"""Designs at most that the basis is made of (Nyström's approximation)."""
STEPS, SAMPLE, RATE = 120, 200, 0.06
"""Steps of fitting, the designs that each looks at, and Adam's first rate; it falls linearly to a tenth."""
OWN = 0.2
"""Least share of the variance that is a task's own: descriptors say less of unseen kinds of tasks than of known ones.
Chosen on families left out of the digits table's training tasks."""
PECULIAR = 0.02
"""Least share of what seems noise that must be a design's own on every task to be taken for that. On published tables
it is two thirds; on the digits table, where each evaluation stands alone, less than half a percent."""
SMALLEST_DEVIATION = 1e-3
"""Accuracies on a known task are not taken to be closer together than this."""
JITTER = 1e-6
GRID = [(length, noise) for length in (1.5, 3.0, 6.0) for noise in (0.03, 0.1, 0.3, 1.0)]
"""Length scales, in deviations of the descriptors, and shares of noise from which level, scale and noise choose."""


@dataclass(frozen=True, eq=False)
class Belief:
    """What is believed of a task of which only the descriptor is known.

    An evaluation yields ``level + scale * (mean + basis @ w)`` plus noise, with independent ``w`` of these variances.

    Args:
        mean: (R,).
        basis: (R, M).
        variance: (M,).
        level: mean and standard deviation.
        log_scale: mean and standard deviation.
        noise: standard deviation of an evaluation of each design, (R,).
    """

    mean: Floats
    basis: Floats
    variance: Floats
    level: tuple[float, float]
    log_scale: tuple[float, float]
    noise: Floats

    def sample(self, rng: np.random.Generator) -> Floats:
        """One evaluation of each design on a task that may be, (R,), in [0, 1]."""
        worth = self.mean + self.basis @ (np.sqrt(self.variance) * rng.standard_normal(len(self.variance)))
        worth /= max(worth.std(), JITTER)
        level, log_scale = (mean + sd * rng.standard_normal() for mean, sd in (self.level, self.log_scale))
        evaluated = level + np.exp(log_scale) * worth + self.noise * rng.standard_normal(len(worth))
        return np.asarray(np.clip(evaluated, 0.0, 1.0))


class TaskPrior:
    """Learns from the columns of known tasks what to believe of another.

    Args:
        codes: the designs, integers of shape (R, decisions).
        costs: of the designs, such as the logarithm of their parameters, (R, C); C may be 0.
        rows: of the designs that were evaluated on the known tasks, (E,); every design by default.
        accuracy: of those on the known tasks, (E, T); NaN, where a design was not evaluated, becomes the task's mean.
        descriptors: of the known tasks, (T, D).
        seed: of the samples and the basis.

    Raises:
        DataError: if shapes disagree, or there is no task or only one design.
    """

    def __init__(
        self,
        codes: NDArray[np.integer],
        costs: Floats,
        accuracy: Floats,
        descriptors: NDArray[np.floating],
        rows: NDArray[np.int64] | None = None,
        seed: int = 0,
    ) -> None:
        rows = np.arange(len(codes)) if rows is None else rows
        if accuracy.shape != (len(rows), len(descriptors)) or accuracy.shape[1] < 1 or len(rows) < 2:
            raise DataError(
                f"accuracy must be of {len(rows)} designs (2 at least) on {len(descriptors)} tasks (1 at least), "
                f"got shape {accuracy.shape}"
            )
        rng = np.random.default_rng(seed)
        known = np.where(np.isnan(accuracy), np.nanmean(accuracy, axis=0), accuracy)
        level, deviation = known.mean(0), np.maximum(known.std(0), SMALLEST_DEVIATION)
        spread = descriptors.std(0)
        self._middle, self._spread = descriptors.mean(0)[spread > 0], spread[spread > 0]
        self._telling = spread > 0
        self.tasks = self._standard(descriptors)
        features = _features(codes, costs)
        fitted = _fit([part[rows] for part in features], (known - level) / deviation, self.tasks, rng)
        self._fitted = fitted
        share = fitted.noise_share
        scale = deviation * np.sqrt(1 - share)
        self._worth = (known - level) / scale - fitted.mean
        self._noise = share / (1 - share)
        self._basis = _basis(features, fitted.nearness, rng)
        self._condition(rows, np.ones(len(codes)))
        self._condition(rows, self._relative_noise(rows))
        self._peculiar, self._left = np.zeros(len(codes)), 1.0
        self._notice_what_is_peculiar(rows)
        self._basis = self._basis - self._basis.mean(0)  # what all designs have in common is the task's level
        moments = (level, np.log(scale), np.log(deviation * np.sqrt(share)))
        self._moments = [_Smooth(self.tasks, moment) for moment in moments]

    def believe(self, descriptor: NDArray[np.floating]) -> Belief:
        """What to believe of a task with this descriptor, (D,)."""
        fitted, task = self._fitted, self._standard(descriptor[None])
        with_known = fitted.shared + fitted.alike * _alike(task, self.tasks, fitted.lengths)[0]  # (T,)
        explained = self._strength * (self._precision @ with_known @ with_known)
        level, log_scale, log_noise = (moment(task) for moment in self._moments)
        return Belief(
            mean=self._basis @ (self._weights @ with_known) + self._peculiar,
            basis=self._basis,
            variance=np.maximum(fitted.shared + fitted.alike + fitted.own - explained, 0.0),
            level=level,
            log_scale=log_scale,
            noise=np.exp(log_noise[0]) * np.sqrt(self._left * self._relative),
        )

    def _standard(self, descriptors: NDArray[np.floating]) -> Floats:
        """Those entries that differ between known tasks, in units of their deviation."""
        return np.asarray((descriptors[:, self._telling] - self._middle) / self._spread, dtype=np.float64)

    def _between_known(self) -> Floats:
        fitted = self._fitted
        similar = fitted.alike * _alike(self.tasks, self.tasks, fitted.lengths)
        return np.asarray(fitted.shared + similar + fitted.own * np.eye(len(self.tasks)))

    def _condition(self, rows: NDArray[np.int64], relative: Floats) -> None:
        """Turn the basis so that its functions are independent given the known tasks; find their weights there.

        Args:
            rows: that were evaluated, (E,).
            relative: variance of each design's noise in units of its task's, (R,).
        """
        self._relative = relative
        noise = np.sqrt(relative[rows])[:, None]
        left, strength, right = np.linalg.svd(self._basis[rows] / noise, full_matrices=False)
        self._basis, self._strength = self._basis @ right.T, strength**2
        between = self._strength[:, None, None] * self._between_known() + np.diag(self._noise)
        self._precision = np.linalg.inv(between)  # (M, T, T)
        projected = left.T @ (self._worth / noise)
        self._weights = strength[:, None] * np.einsum("mtu,mu->mt", self._precision, projected)

    def _unexplained(self, rows: NDArray[np.int64]) -> Floats:
        """What the basis says nothing of in the known columns, (E, T)."""
        return np.asarray(self._worth - self._basis[rows] @ (self._weights @ self._between_known()))

    def _notice_what_is_peculiar(self, rows: NDArray[np.int64]) -> None:
        """Part of what seemed noise comes back on every task: it belongs to the design, whatever it resembles.

        Its variance is the mean covariance of what two tasks leave unexplained.
        """
        unexplained, tasks = self._unexplained(rows), len(self.tasks)
        if tasks < 2:
            return
        covariance = unexplained.T @ unexplained / len(rows)
        total = float(np.trace(covariance)) / tasks
        shared = max((float(covariance.sum()) - total * tasks) / (tasks * (tasks - 1)), 0.0)
        sure = shared / (shared + (total - shared) / tasks + JITTER)
        if sure * shared > PECULIAR * total:
            self._peculiar[rows] = sure * unexplained.mean(1)
            self._left = 1 - sure * shared / total

    def _relative_noise(self, rows: NDArray[np.int64]) -> Floats:
        """How noisy each design is by what the known tasks leave unexplained of it and of those near it, (R,)."""
        unexplained = self._unexplained(rows) ** 2
        logs = np.log((unexplained / unexplained.mean(0)).mean(1) + JITTER)
        by_chance = 2 / len(self.tasks)
        weight = (by_chance + 0.02) / max(logs.var() - by_chance, 0.02)
        basis = self._basis[rows]
        found = np.linalg.solve(basis.T @ basis + weight * np.eye(basis.shape[1]), basis.T @ (logs - logs.mean()))
        relative = np.exp(self._basis @ found)
        return np.asarray(relative / relative.mean())


@dataclass(frozen=True, eq=False)
class _Fitted:
    """The numbers of greatest marginal likelihood."""

    nearness: Floats
    shared: float
    alike: float
    own: float
    lengths: Floats
    mean: float
    noise_share: Floats


def _fit(features: Sequence[Floats], worth: Floats, tasks: Floats, rng: np.random.Generator) -> _Fitted:
    """Ascends the marginal likelihood of the known columns.

    Args:
        features: of the designs, each (E, F).
        worth: standardised accuracies, (E, T).
        tasks: standardised descriptors, (T, D).
        rng: of the designs that each step looks at.
    """
    count, known = worth.shape
    target, described = torch.from_numpy(worth), torch.from_numpy(tasks)
    start = {
        "nearness": torch.log(torch.tensor([0.025, 0.02, 0.15], dtype=torch.float64))[: len(features)],
        "variances": torch.log(torch.tensor([0.4, 0.7, 0.06], dtype=torch.float64)),
        "lengths": torch.ones(tasks.shape[1], dtype=torch.float64),
        "mean": torch.zeros(1, dtype=torch.float64),
        "noise": torch.full((known,), -1.5, dtype=torch.float64),
    }
    free = {name: value.clone().requires_grad_(True) for name, value in start.items()}
    optimizer = torch.optim.Adam(free.values())
    identity = torch.eye(known, dtype=torch.float64)
    for step in range(STEPS):
        rows = rng.choice(count, min(SAMPLE, count), replace=False)
        distances = [torch.from_numpy(_squared(part[rows], part[rows])) for part in features]
        weighted = sum(weight.exp() * d for weight, d in zip(free["nearness"], distances, strict=True))
        # Unequal, since eigenvectors have no gradient where eigenvalues are equal.
        jitter = JITTER * torch.linspace(1, 10, len(rows), dtype=torch.float64)
        near = torch.exp(-weighted) + torch.diag(jitter)
        strength, turned = torch.linalg.eigh(near)
        shared, alike, own = free["variances"].exp()
        gaps = ((described[:, None] - described) / free["lengths"].exp()) ** 2
        share = torch.sigmoid(free["noise"])
        between = shared + alike * torch.exp(-0.5 * gaps.sum(-1)) + own * identity
        covariance = strength[:, None, None] * between + torch.diag(share / (1 - share))
        projected = turned.T @ (target[rows] / (1 - share).sqrt() - free["mean"])
        loss = _negative_log_likelihood(projected, covariance) / len(rows) + (1 - share).log().sum() / 2
        # Weak beliefs about the numbers themselves keep what little data says nothing about where it began.
        doubt = 2 * ((free["lengths"] - 1) ** 2).sum() + ((free["noise"] + 1.5) ** 2).mean()
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - 0.9 * step / STEPS)
        optimizer.zero_grad()
        (loss / known + 1e-3 * doubt).backward()
        optimizer.step()
    found = {name: value.detach().numpy() for name, value in free.items()}
    shared, alike, own = np.exp(found["variances"]).tolist()
    return _Fitted(
        nearness=np.exp(found["nearness"]),
        shared=shared,
        alike=alike,
        own=max(own, OWN * (shared + alike + own)),
        lengths=np.exp(found["lengths"]),
        mean=float(found["mean"][0]),
        noise_share=1 / (1 + np.exp(-found["noise"])),
    )


def _negative_log_likelihood(values: Tensor, covariance: Tensor) -> Tensor:
    """Of rows (M, T) under normal distributions of these covariances (M, T, T), but for a constant."""
    factor = torch.linalg.cholesky(covariance)
    solved = torch.cholesky_solve(values[:, :, None], factor)[:, :, 0]
    distance: Tensor = (values * solved).sum()
    spread: Tensor = factor.diagonal(dim1=1, dim2=2).log().sum()
    return 0.5 * distance + spread


class _Smooth:
    """A number of a task as a Gaussian process of its descriptor: mean and standard deviation for another task."""

    def __init__(self, tasks: Floats, values: Floats) -> None:
        self._tasks, self._mean, self._variance = tasks, float(values.mean()), float(values.var()) + JITTER
        best = np.inf
        for length, noise in GRID:
            covariance = self._variance * (self._near(tasks, length) + noise * np.eye(len(tasks)))
            weights = np.linalg.solve(covariance, values - self._mean)
            likelihood = (values - self._mean) @ weights + np.linalg.slogdet(covariance)[1]
            if likelihood < best:
                best, self._length, self._noise, self._weights = likelihood, length, noise, weights
                self._inverse = np.linalg.inv(covariance)

    def __call__(self, task: Floats) -> tuple[float, float]:
        near = self._variance * self._near(task, self._length)[0]
        variance = self._variance * (1 + self._noise) - near @ self._inverse @ near
        return float(self._mean + near @ self._weights), float(np.sqrt(max(variance, JITTER)))

    def _near(self, task: Floats, length: float) -> Floats:
        return _alike(task, self._tasks, np.full(task.shape[1], length))


def _features(codes: NDArray[np.integer], costs: Floats) -> list[Floats]:
    """What designs are compared by: choices in their places, how often each choice occurs, costs; each (R, F)."""
    placed = np.eye(int(codes.max()) + 1)[codes]
    spread = costs.std(0)
    scaled = ((costs - costs.mean(0)) / np.where(spread > 0, spread, 1.0))[:, spread > 0]
    return [placed.reshape(len(codes), -1), placed.sum(1), *([scaled] if scaled.size else [])]


def _basis(features: Sequence[Floats], nearness: Floats, rng: np.random.Generator) -> Floats:
    """Functions of the designs, (R, M), whose products are the designs' covariance."""
    count = len(features[0])
    chosen = rng.choice(count, min(BASIS, count), replace=False)
    within, across = (
        np.exp(-sum(w * _squared(part[rows], part[chosen]) for w, part in zip(nearness, features, strict=True)))
        for rows in (chosen, np.arange(count))
    )
    strength, turned = np.linalg.eigh(within + JITTER * np.eye(len(chosen)))
    return np.asarray(across @ turned / np.sqrt(strength))


def _squared(a: Floats, b: Floats) -> Floats:
    """Squared distances between rows, (A, F) and (B, F) to (A, B)."""
    return np.asarray(np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T, 0.0))


def _alike(a: Floats, b: Floats, lengths: Floats) -> Floats:
    return np.asarray(np.exp(-0.5 * (((a[:, None] - b) / lengths) ** 2).sum(-1)))
