"""Meta-gradients: against finite differences, and against what can be derived by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rlnas.adaptation import Adaptation, adapt, relation_shapes, score, score_by_comparison
from rlnas.errors import ConfigurationError
from rlnas.graph import Graph, input_shapes
from rlnas.meta_learning import LEARNED, Episode, adapted_logits, meta_gradients, reptile_batches
from rlnas.network import Network, Weights, parameter_shapes
from rlnas.search_space import CellSpace, ChainSpace

CHAIN = ChainSpace(max_layers=3, input_size=4, widths=(2,), dense_widths=(3,))
CONVOLUTIONAL = CHAIN.parse("conv3x3-2 > max-pool").graph(2)
LINEAR = CHAIN.parse("identity").graph(3)
EXACT = ("maml", "anil", "meta-sgd")


def drawn(shapes: tuple[tuple[int, ...], ...], generator: torch.Generator) -> tuple[Tensor, ...]:
    return tuple(0.5 * torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes)


def make_episode(graph: Graph = CONVOLUTIONAL, shape: tuple[int, int, int] = (1, 4, 4), seed: int = 0) -> Episode:
    """Random images and weights in float64: two support images a class, three query images."""
    generator = torch.Generator().manual_seed(seed)
    ways = graph[-1].operation.output_shape(shape)[0]
    labels = torch.arange(ways)
    support_x, query_x = (torch.randn(n * ways, *shape, dtype=torch.float64, generator=generator) for n in (2, 3))
    nodes = list(zip(graph, input_shapes(graph, shape), strict=True))
    weights, rates = (tuple(drawn(parameter_shapes(n.operation, s), generator) for n, s in nodes) for _ in range(2))
    rates = tuple(tuple(0.1 + 0.1 * rate.abs() for rate in node) for node in rates)
    tensors = support_x, labels.repeat_interleave(2), query_x, labels.repeat_interleave(3)
    return Episode(graph, weights, *tensors, rates, drawn(relation_shapes(), generator))


def loss(episode: Episode, adaptation: Adaptation) -> float:
    return float(F.cross_entropy(adapted_logits(episode, adaptation), episode.query_y))


def flat(weights: Weights) -> Tensor:
    return torch.cat([tensor.flatten() for node in weights for tensor in node])


def differences(episode: Episode, adaptation: Adaptation, part: str, step: float = 1e-6) -> Tensor:
    """Central differences of the query loss by every number of a part of the episode."""
    nodes: Weights = (episode.head,) if part == "head" else getattr(episode, part)
    slopes = []
    for i, node in enumerate(nodes):
        for j, tensor in enumerate(node):
            for k in range(tensor.numel()):
                ends = []
                for sign in (1, -1):
                    moved = tensor.clone()
                    moved.view(-1)[k] += sign * step
                    other = (*node[:j], moved, *node[j + 1 :])
                    changed = other if part == "head" else (*nodes[:i], other, *nodes[i + 1 :])
                    ends.append(loss(replace(episode, **{part: changed}), adaptation))
                slopes.append((ends[0] - ends[1]) / (2 * step))
    return torch.tensor(slopes, dtype=torch.float64)


@pytest.mark.parametrize("transductive", [False, True])
@pytest.mark.parametrize("method", [*EXACT, "prototype", "relation"])
def test_gradients_are_the_slopes_of_the_loss_after_adaptation(method: str, transductive: bool) -> None:
    episode = replace(make_episode(), transductive=transductive)
    adaptation = Adaptation(3, 0.2, 0.5, method)
    (found,) = meta_gradients([episode], adaptation)
    assert found.score.loss == pytest.approx(loss(episode, adaptation))
    assert torch.allclose(flat(found.weights), differences(episode, adaptation, "weights"), atol=1e-7)
    assert flat(found.weights).abs().max() > 1e-2
    if method == "meta-sgd":
        assert torch.allclose(flat(found.rates), differences(episode, adaptation, "rates"), atol=1e-7)
        assert flat(found.rates).abs().max() > 1e-2
    if method == "relation":
        assert torch.allclose(flat((found.head,)), differences(episode, adaptation, "head"), atol=1e-7)
        assert flat((found.head,)).abs().max() > 1e-2


@pytest.mark.parametrize("method", EXACT)
def test_gradients_are_exact_where_steps_are_clipped(method: str) -> None:
    episode, adaptation = make_episode(), Adaptation(3, 0.2, 0.5, method, clip=0.1)
    assert abs(loss(episode, adaptation) - loss(episode, replace(adaptation, clip=None))) > 1e-3
    (found,) = meta_gradients([episode], adaptation)
    assert torch.allclose(flat(found.weights), differences(episode, adaptation, "weights"), atol=1e-7)


def softmax_loss(flat_weights: Tensor, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient and Hessian of a linear classifier's mean cross-entropy, by hand.

    With p = softmax(W x): the gradient is the mean of (p - y) x', the Hessian that of (diag(p) - p p') (x) x x'.
    """
    ways, width = len(labels.unique()), features.shape[1]
    p = (features @ flat_weights.view(ways, width).T).softmax(1)
    gradient = (p - F.one_hot(labels, ways)).T @ features / len(labels)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    hessian = torch.einsum("nab,nc,nd->acbd", curvature, features, features) / len(labels)
    return gradient.flatten(), hessian.reshape(ways * width, ways * width)


def by_hand(episode: Episode, adaptation: Adaptation, rates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(dL/dstart, dL/dadapted, dL/drates) of a linear classifier, from recursions for the derivatives of each step.

    v = m v + g(w), w = w - r v; so dv = m dv + H dw, dw = dw - r dv, and by the rates dw = dw - diag(v) - r dv.
    """
    (matrix, bias) = episode.weights[-1]
    w = torch.cat([matrix, bias[:, None]], 1).flatten()
    support, query = (F.pad(x.flatten(1), (0, 1), value=1.0) for x in (episode.support_x, episode.query_x))
    v, eye, zero = torch.zeros_like(w), torch.eye(len(w)).double(), torch.zeros(len(w), len(w)).double()
    dw, dv, dw_rates, dv_rates = eye, zero, zero, zero
    for _ in range(adaptation.steps):
        gradient, hessian = softmax_loss(w, support, episode.support_y)
        v = adaptation.momentum * v + gradient
        dv, dv_rates = adaptation.momentum * dv + hessian @ dw, adaptation.momentum * dv_rates + hessian @ dw_rates
        w, dw = w - rates * v, dw - rates[:, None] * dv
        dw_rates = dw_rates - torch.diag(v) - rates[:, None] * dv_rates
    outer, _ = softmax_loss(w, query, episode.query_y)
    return dw.T @ outer, outer, dw_rates.T @ outer


def as_rows(weights: Weights) -> Tensor:
    matrix, bias = weights[-1]
    return torch.cat([matrix, bias[:, None]], 1).flatten()


@pytest.mark.parametrize(("steps", "momentum"), [(1, 0.0), (2, 0.0), (3, 0.5)])
def test_a_linear_classifier_by_hand(steps: int, momentum: float) -> None:
    episode = make_episode(LINEAR, (1, 1, 2))
    options = {"steps": steps, "learning_rate": 0.3, "momentum": momentum}
    one_rate = torch.full((9,), 0.3, dtype=torch.float64)
    exact, first_order, _ = by_hand(episode, Adaptation(**options), one_rate)
    found = {m: meta_gradients([episode], Adaptation(**options, method=m))[0] for m in ("maml", "anil", "fomaml")}
    assert torch.allclose(as_rows(found["maml"].weights), exact)
    assert torch.allclose(as_rows(found["anil"].weights), exact)  # nothing but a head: all of it is adapted
    assert torch.allclose(as_rows(found["fomaml"].weights), first_order)
    assert (exact - first_order).abs().max() > 1e-2

    rates = as_rows(episode.rates)
    exact, _, by_rates = by_hand(episode, Adaptation(**options), rates)
    (meta_sgd,) = meta_gradients([episode], Adaptation(**options, method="meta-sgd"))
    assert torch.allclose(as_rows(meta_sgd.weights), exact)
    assert torch.allclose(as_rows(meta_sgd.rates), by_rates)


def test_fomaml_drops_the_hessian_and_nothing_else() -> None:
    """After one step dL/dθ = (1 - r H) dL/dθ'; the Hessian of a convolutional network by differences of gradients."""
    episode, adaptation = make_episode(), Adaptation(1, 0.2, 0.0, "maml")
    exact = flat(meta_gradients([episode], adaptation)[0].weights)
    first_order = flat(meta_gradients([episode], replace(adaptation, method="fomaml"))[0].weights)
    on_support = replace(episode, query_x=episode.support_x, query_y=episode.support_y, transductive=True)

    def support_gradient(shift: Tensor) -> Tensor:
        parts = iter(shift.split([t.numel() for node in episode.weights for t in node]))
        moved = tuple(tuple(t + next(parts).view_as(t) for t in node) for node in episode.weights)
        no_steps = Adaptation(0, 0.2, 0.0, "maml")
        return flat(meta_gradients([replace(on_support, weights=moved)], no_steps)[0].weights)

    step = 1e-5 * first_order
    product = (support_gradient(step) - support_gradient(-step)) / 2e-5
    assert torch.allclose(exact, first_order - 0.2 * product, atol=1e-6)
    assert (exact - first_order).abs().max() > 1e-3


def test_reptile_points_from_the_adapted_weights_to_the_start() -> None:
    episode, adaptation = make_episode(), Adaptation(4, 0.1, 0.5, "reptile")
    network = Network(episode.graph, (1, 4, 4)).double()
    network.load_weights(episode.weights)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.5)
    batches = [
        (episode.support_x, episode.support_y),
        (episode.query_x[:4], episode.query_y[:4]),  # the query set has six images: one part of the support's size
    ]
    for step in range(4):
        optimiser.zero_grad()
        images, labels = batches[step % 2]
        F.cross_entropy(network.train()(images), labels).backward()
        optimiser.step()
    adapted = torch.cat([p.detach().flatten() for p in network.parameters()])
    (found,) = meta_gradients([episode], adaptation)
    assert torch.allclose(flat(found.weights), flat(episode.weights) - adapted)


def test_reptiles_batches_are_disjoint_and_of_one_size() -> None:
    episode = make_episode()
    images = torch.arange(13.0).reshape(13, 1, 1, 1).expand(13, 1, 4, 4)
    labels = torch.arange(13) // 7
    wide = replace(episode, query_x=images, query_y=labels)
    batches = reptile_batches(wide)
    assert [len(y) for _, y in batches] == [4, 4, 4, 4]
    seen = [int(x) for batch, _ in batches[1:] for x in batch[:, 0, 0, 0]]
    assert len(set(seen)) == 12
    assert all(len(y.unique()) == 2 for _, y in batches)
    assert [len(y) for _, y in reptile_batches(replace(episode, query_x=images[:3], query_y=labels[:3]))] == [4, 3]


@pytest.mark.parametrize("method", ["sgd", *LEARNED])
def test_what_is_judged_is_what_the_reference_makes(method: str) -> None:
    episode, adaptation = make_episode(), Adaptation(3, 0.1, 0.5, method, clip=0.4)
    network = Network(episode.graph, (1, 4, 4)).double()
    network.load_weights(episode.weights)
    task = episode.support_x, episode.support_y
    query = episode.query_x, episode.query_y
    adapt(network, *task, adaptation, episode.rates)
    if adaptation.adapts == "none":
        expected = score_by_comparison(network, *task, *query, episode.head if method == "relation" else ())
    else:
        expected = score(network, *query)
    assert loss(episode, adaptation) == pytest.approx(expected.loss)


@pytest.mark.parametrize("method", LEARNED)
def test_a_constant_network_has_nothing_to_say(method: str) -> None:
    graph = CellSpace().decode([0] * 6).graph(3)
    episode = replace(make_episode(LINEAR, (1, 1, 2)), graph=graph, weights=((),), rates=((),))
    (found,) = meta_gradients([episode], Adaptation(2, method=method))
    assert found.weights == ((),)
    assert found.score.accuracy == pytest.approx(1 / 3)


def test_what_is_missing_is_named() -> None:
    episode = replace(make_episode(), rates=(), head=())
    for method, message in (
        ("meta-sgd", "needs a rate for every weight"),
        ("relation", "needs the head"),
        ("sgd", "sgd learns no start; use one of maml"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            meta_gradients([episode], Adaptation(method=method))


@pytest.mark.parametrize("method", ["maml", "fomaml"])
def test_meta_gradients_leave_their_episodes_alone(method: str) -> None:
    episode = make_episode()
    before = flat(episode.weights).clone()
    with torch.no_grad():
        first, second = (meta_gradients([episode], Adaptation(2, method=method))[0] for _ in range(2))
    assert torch.equal(flat(first.weights), flat(second.weights))
    assert torch.equal(flat(episode.weights), before)
    assert not any(t.requires_grad for node in (*first.weights, *episode.weights) for t in node)
