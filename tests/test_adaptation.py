from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rlnas.adaptation import (
    METHODS,
    Adaptation,
    adapt,
    class_means,
    prototype_logits,
    relation_logits,
    relation_shapes,
    score,
    score_by_comparison,
    standardise,
)
from rlnas.digits import DigitsSource
from rlnas.errors import ConfigurationError
from rlnas.network import Network, build_network
from rlnas.search_space import CellSpace, ChainSpace
from rlnas.task import FewShotTask

CPU = torch.device("cpu")
CHAIN = ChainSpace(max_layers=4, widths=(4, 8), dense_widths=(16,))
TASK = DigitsSource().task("train", 0)
TEXTS = ("conv3x3-8 > max-pool > conv3x3-4", "dense-16", "identity")


def network(text: str = TEXTS[0], seed: int = 0) -> Network:
    return build_network(CHAIN.parse(text), TASK, seed)


@pytest.mark.parametrize("text", TEXTS)
def test_adaptation_fits_the_support_set(text: str) -> None:
    support_x, support_y, _, _ = standardise(TASK, CPU)
    net = network(text)
    before = F.cross_entropy(net.train()(support_x), support_y).item()
    adapt(net, support_x, support_y, Adaptation(steps=20))
    assert F.cross_entropy(net(support_x), support_y).item() < 0.7 * before


def test_adaptation_helps_on_the_query_set() -> None:
    support_x, support_y, query_x, query_y = standardise(TASK, CPU)
    gains = []
    for seed in range(5):
        scores = []
        for steps in (0, 30):
            net = network(seed=seed)
            adapt(net, support_x, support_y, Adaptation(steps))
            scores.append(score(net, query_x, query_y).accuracy)
        gains.append(scores[1] - scores[0])
    assert np.mean(gains) > 0.1


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_are_those_of_torchs_sgd(momentum: float) -> None:
    support_x, support_y, _, _ = standardise(TASK, CPU)
    net, reference = network(), network()
    optimiser = torch.optim.SGD(reference.parameters(), lr=0.03, momentum=momentum)
    for _ in range(5):
        optimiser.zero_grad()
        F.cross_entropy(reference.train()(support_x), support_y).backward()
        optimiser.step()
    adapt(net, support_x, support_y, Adaptation(5, 0.03, momentum))
    for mine, its in zip(net.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(mine, its, atol=1e-6)


def test_two_steps_by_hand() -> None:
    """Momentum m and rate r: v1 = g1, w1 = w0 - r v1; v2 = m v1 + g2, w2 = w1 - r v2, with the gradient of softmax."""
    support_x, support_y, _, _ = standardise(TASK, CPU)
    net = network("identity")
    linear = net.nodes[0][1]
    flat, one_hot = support_x.flatten(1).double(), F.one_hot(support_y).double()
    w, v, rate, momentum = linear.weight.detach().double(), 0.0, 0.1, 0.5
    b, u = linear.bias.detach().double(), 0.0
    for _ in range(2):
        error = (flat @ w.T + b).softmax(1) - one_hot
        v, u = momentum * v + error.T @ flat / len(flat), momentum * u + error.mean(0)
        w, b = w - rate * v, b - rate * u
    adapt(net, support_x, support_y, Adaptation(2, rate, momentum))
    assert torch.allclose(linear.weight.double(), w, atol=1e-5)
    assert torch.allclose(linear.bias.double(), b, atol=1e-5)


def test_no_steps_change_no_weight_but_measure_the_support_set() -> None:
    support_x, support_y, _, _ = standardise(TASK, CPU)
    net = network()
    before = deepcopy(list(net.parameters()))
    adapt(net, support_x, support_y, Adaptation(steps=0))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before, strict=True))
    assert torch.allclose(net.nodes[0][1].running_mean, net.nodes[0][0](support_x).mean((0, 2, 3)), atol=1e-5)


def test_batch_norm_ends_on_the_statistics_of_the_final_weights() -> None:
    support_x, support_y, _, _ = standardise(TASK, CPU)
    net = network()
    adapt(net, support_x, support_y, Adaptation(steps=3))
    assert torch.allclose(net.nodes[0][1].running_mean, net.nodes[0][0](support_x).mean((0, 2, 3)), atol=1e-5)


@pytest.mark.parametrize("ways", [2, 3, 6, 7, 10])
@pytest.mark.parametrize("queries", [1, 7, 75])
def test_a_constant_network_scores_exactly_chance(ways: int, queries: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(ways)
    x, y = rng.random((queries, 1, 4, 4)), np.zeros(queries, dtype=int)
    task = FewShotTask("t:train/0", "noise", rng.random((ways, 1, 4, 4)), labels, x, y)
    net = build_network(CellSpace().decode([0] * 6), task)
    support_x, support_y, query_x, query_y = standardise(task, CPU)
    adapt(net, support_x, support_y, Adaptation(steps=3))
    result = score(net, query_x, query_y)
    assert result.accuracy == 1 / ways
    assert result.loss == pytest.approx(math.log(ways), rel=1e-6)


def test_accuracy_counts_the_right_answers() -> None:
    class Says(torch.nn.Module):
        def forward(self, logits: torch.Tensor) -> torch.Tensor:
            return logits

    logits = torch.tensor([[3.0, 1.0], [0.0, 1.0], [2.0, 1.0], [5.0, 5.0]])
    result = score(Says(), logits, torch.tensor([0, 1, 1, 0]))  # type: ignore[arg-type]
    assert result.accuracy == (1 + 1 + 0 + 0.5) / 4
    expected = [math.log(1 + math.exp(d)) for d in (-2, -1, 1, 0)]
    assert result.loss == pytest.approx(np.mean(expected))


def test_standardising_looks_at_the_support_set_alone() -> None:
    support_x, support_y, query_x, query_y = standardise(TASK, CPU)
    assert support_x.mean().item() == pytest.approx(0, abs=1e-5)
    assert support_x.std().item() == pytest.approx(1, abs=1e-4)
    bright = replace(TASK, query_x=TASK.query_x * 0.1 + 5)
    support_again, _, bright_x, _ = standardise(bright, CPU)
    assert torch.equal(support_again, support_x)
    mean, deviation = TASK.support_x.mean(), TASK.support_x.std(ddof=1)
    assert np.allclose(bright_x, (bright.query_x - mean) / deviation, atol=1e-3)
    assert np.allclose(query_x, (TASK.query_x - mean) / deviation, atol=1e-4)
    assert support_y.tolist() == TASK.support_y.tolist()
    assert query_y.tolist() == TASK.query_y.tolist()


def test_a_support_set_of_one_colour_stays_finite() -> None:
    flat = replace(TASK, support_x=np.full_like(TASK.support_x, 0.5))
    assert all(torch.isfinite(part).all() for part in standardise(flat, CPU))


@pytest.mark.parametrize("text", TEXTS)
def test_query_images_are_judged_alone(text: str) -> None:
    support_x, support_y, query_x, query_y = standardise(TASK, CPU)
    net = network(text)
    adapt(net, support_x, support_y, Adaptation(steps=5))
    score(net, query_x, query_y)  # leaves it in the mode in which it judges
    with torch.no_grad():
        logits = net(query_x)
        order = torch.randperm(len(query_x), generator=torch.Generator().manual_seed(0))
        assert torch.allclose(net(query_x[order]), logits[order], atol=1e-5)
        assert torch.allclose(net(query_x[:1]), logits[:1], atol=1e-5)
        crowd = torch.cat([query_x[:3], query_x[3:] * 50 + 9])
        assert torch.allclose(net(crowd)[:3], logits[:3], atol=1e-5)


def test_scoring_changes_nothing() -> None:
    support_x, support_y, query_x, query_y = standardise(TASK, CPU)
    net = network()
    adapt(net, support_x, support_y, Adaptation(steps=2))
    state = deepcopy(net.state_dict())
    assert score(net, query_x, query_y) == score(net, query_x, query_y)
    assert all(torch.equal(state[k], v) for k, v in net.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps must be an integer >= 0, got -1"),
        ({"steps": 1.5}, "steps must be an integer >= 0, got 1.5"),
        ({"learning_rate": 0.0}, "learning_rate must be a positive number, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate must be a positive number, got nan"),
        ({"learning_rate": math.inf}, "learning_rate must be a positive number, got inf"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"momentum": math.nan}, "momentum must be"),
        ({"method": "mamal"}, "unknown adaptation 'mamal'; did you mean 'maml'?"),
        ({"clip": 0.0}, "clip must be a positive number or None, got 0.0"),
        ({"clip": math.nan}, "clip must be"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Adaptation(**options)


def test_every_start_that_serves_is_a_method() -> None:
    assert all(start in METHODS for method in METHODS.values() for start in method.starts)


def test_clipping_bounds_the_whole_gradient() -> None:
    """Without momentum, a step moves all parameters together by at most rate x clip, in the gradient's direction."""
    support_x, support_y, _, _ = standardise(TASK, CPU)
    moves = []
    for clip in (None, 0.1, 1e6):
        net = network()
        before = torch.cat([p.detach().flatten() for p in net.parameters()])
        adapt(net, support_x, support_y, Adaptation(1, 0.5, 0.0, clip=clip))
        moves.append(torch.cat([p.detach().flatten() for p in net.parameters()]) - before)
    free, short, loose = moves
    assert free.norm() > 0.06
    assert short.norm().item() == pytest.approx(0.05, rel=1e-3)
    assert torch.allclose(short / short.norm(), free / free.norm(), atol=1e-4)
    assert torch.equal(loose, free)


def test_anil_changes_the_classifier_alone() -> None:
    support_x, support_y, _, _ = standardise(TASK, CPU)
    net, reference = network(), network()
    adapt(net, support_x, support_y, Adaptation(4, 0.1, 0.9, "anil"))
    for module in reference.nodes[:-1]:
        module.requires_grad_(False)
    optimiser = torch.optim.SGD(reference.nodes[-1].parameters(), lr=0.1, momentum=0.9)
    for _ in range(4):
        optimiser.zero_grad()
        F.cross_entropy(reference.train()(support_x), support_y).backward()
        optimiser.step()
    for mine, its in zip(net.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(mine, its, atol=1e-6)
    assert torch.allclose(net.nodes[0][1].running_mean, net.nodes[0][0](support_x).mean((0, 2, 3)), atol=1e-5)


def test_meta_sgd_steps_each_parameter_at_its_own_rate() -> None:
    support_x, support_y, _, _ = standardise(TASK, CPU)
    net, reference = network(), network()
    rates = tuple(
        tuple(torch.full_like(p, 0.1 * (i % 3)) for p in node.parameters()) for i, node in enumerate(net.nodes)
    )
    adapt(net, support_x, support_y, Adaptation(1, 0.1, 0.9, "meta-sgd"), rates)
    adapt(reference, support_x, support_y, Adaptation(1, 0.1, 0.9))
    for i, (mine, its) in enumerate(zip(net.nodes, reference.nodes, strict=True)):
        for a, b, c in zip(mine.parameters(), its.parameters(), network().nodes[i].parameters(), strict=True):
            assert torch.allclose(a - c, (i % 3) * (b - c), atol=1e-6)
    with pytest.raises(ConfigurationError, match="meta-sgd needs the rates"):
        adapt(network(), support_x, support_y, Adaptation(method="meta-sgd"))


@pytest.mark.parametrize("method", ["prototype", "relation"])
def test_a_comparison_takes_no_steps(method: str) -> None:
    support_x, support_y, _, _ = standardise(TASK, CPU)
    net = network()
    before = deepcopy(list(net.parameters()))
    adapt(net, support_x, support_y, Adaptation(5, method=method))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before, strict=True))
    assert torch.allclose(net.nodes[0][1].running_mean, net.nodes[0][0](support_x).mean((0, 2, 3)), atol=1e-5)


def test_prototypes_by_hand() -> None:
    support = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [0.0, 6.0]])
    labels = torch.tensor([0, 0, 1, 1])
    assert class_means(support, labels, 2).tolist() == [[1.0, 0.0], [0.0, 5.0]]
    logits = prototype_logits(support, labels, torch.tensor([[1.0, 1.0], [3.0, 4.0]]), 2)
    distances = torch.tensor([[1.0, 17.0], [20.0, 10.0]])  # squared
    assert torch.allclose(logits.log_softmax(1), (-distances / math.sqrt(2)).log_softmax(1), atol=1e-6)


def draw_embeddings(*batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.randn(*batch, n, 7, generator=generator, dtype=torch.float64) for n in (9, 5))
    order = torch.argsort(torch.rand(*batch, 9, generator=generator))
    head = tuple(torch.randn(s, generator=generator, dtype=torch.float64) for s in relation_shapes())
    return support, order % 3, query, head


def test_comparisons_take_batches() -> None:
    support, labels, query, head = draw_embeddings(2, 4)
    prototypes, relations = (
        prototype_logits(support, labels, query, 3),
        relation_logits(head, support, labels, query, 3),
    )
    assert prototypes.shape == relations.shape == (2, 4, 5, 3)
    for i, j in np.ndindex(2, 4):
        one = support[i, j], labels[i, j], query[i, j], 3
        assert torch.allclose(prototypes[i, j], prototype_logits(*one))
        assert torch.allclose(relations[i, j], relation_logits(head, *one))


def test_comparisons_do_not_care_how_classes_and_features_are_numbered() -> None:
    support, labels, query, head = draw_embeddings()
    features, classes = torch.tensor([3, 6, 0, 2, 5, 1, 4]), torch.tensor([2, 0, 1])
    for compare in (prototype_logits, lambda *task: relation_logits(head, *task)):
        logits = compare(support, labels, query, 3)
        assert torch.allclose(compare(support[:, features], labels, query[:, features], 3), logits)
        assert torch.allclose(compare(support, classes[labels], query, 3)[:, classes], logits)
        assert logits.std() > 0.01


def test_a_relation_does_not_care_for_the_embeddings_scale_and_serves_any_size() -> None:
    support, labels, query, head = draw_embeddings()
    logits = relation_logits(head, support, labels, query, 3)
    assert torch.allclose(relation_logits(head, 100 * support, labels, 100 * query, 3), logits, rtol=1e-3)
    assert relation_logits(head, support[:, :2], labels, query[:, :2], 3).shape == (5, 3)


@pytest.mark.parametrize("text", TEXTS)
def test_a_comparison_scores_queries_one_by_one(text: str) -> None:
    support_x, support_y, query_x, query_y = standardise(TASK, CPU)
    net = network(text)
    found = score_by_comparison(net, support_x, support_y, query_x, query_y)
    with torch.no_grad():
        net.train()
        means = class_means(net.embed(support_x), support_y, TASK.ways)
        net.eval()
        nearest = [torch.cdist(net.embed(image[None]), means).argmin().item() for image in query_x]
    assert found.accuracy == pytest.approx(np.mean(np.array(nearest) == query_y.numpy()))
    assert found.accuracy > 1 / TASK.ways


def test_a_constant_network_compares_to_chance() -> None:
    net = build_network(CellSpace().decode([0] * 6), TASK)
    assert score_by_comparison(net, *standardise(TASK, CPU)).accuracy == pytest.approx(1 / TASK.ways)
