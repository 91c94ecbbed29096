"""Meta-learned starts: what is shared, what it is worth to a network that was never trained, and files of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlnas.adaptation import Adaptation, adapt, relation_shapes, standardise
from rlnas.checkpoint import DATA, MANIFEST, TENSORS, save_checkpoint
from rlnas.digits import DigitsSource
from rlnas.errors import CheckpointError, ConfigurationError
from rlnas.graph import INPUT, Add, Classifier, Conv, Node, input_shapes
from rlnas.initialisation import Initialisation, matched, rate_name, start, tensor_names
from rlnas.meta_learning import Episode, meta_gradients
from rlnas.meta_training import MetaTraining, meta_train
from rlnas.network import Network, parameter_shapes, random_weights
from rlnas.search_space import CellSpace, ChainSpace, SearchSpace
from rlnas.specs import space_from_spec

CHAIN = ChainSpace(max_layers=3, widths=(4, 8), dense_widths=(16,))
CELL = CellSpace(width=4)
SOURCE = DigitsSource()
TASK = SOURCE.task("train", 0)
SAMPLE = partial(SOURCE.sample, "train")
DESIGN = CHAIN.parse("conv3x3-8 > max-pool > dense-16")
MAML = Adaptation(2, 0.1, 0.5, "maml")


def learned(method: str = "maml", iterations: int = 2) -> Initialisation:
    return meta_train(CHAIN, SAMPLE, replace(MAML, method=method), MetaTraining(iterations, 3))


@pytest.fixture(scope="module")
def init() -> Initialisation:
    names = (n for node in tensor_names(DESIGN.graph(TASK.ways), TASK.image_shape)[:-1] for n in node)
    shapes = (
        shape
        for n, s in zip(DESIGN.graph(TASK.ways), input_shapes(DESIGN.graph(TASK.ways), TASK.image_shape), strict=True)
        for shape in parameter_shapes(n.operation, s)
    )
    generator = torch.Generator().manual_seed(0)
    return Initialisation({n: torch.randn(s, generator=generator) for n, s in zip(names, shapes, strict=False)}, MAML)


def test_a_name_says_where_a_node_stands_and_what_it_does() -> None:
    conv = Conv(3, 4)
    graph = (
        Node(conv, (INPUT,)),
        Node(conv, (0,)),
        Node(conv, (0,)),
        Node(Add(), (0, 1, 2)),
        Node(conv, (3,)),
        Node(Conv(1, 4), (0,)),
        Node(Add(), (4, 5)),
        Node(Classifier(5), (6,)),
    )
    names = tensor_names(graph, (1, 2, 2))
    assert [node[0] for node in names if node] == [
        "1.conv3x3-4.1.0/kernel",
        "2.conv3x3-4.4.0/kernel",
        "2.conv3x3-4.4.1/kernel",
        "3.conv3x3-4.4.0/kernel",
        "2.conv1x1-4.4.0/kernel",
        "4.classifier-5.16.0/matrix",
    ]
    assert names[0][1:] == ("1.conv3x3-4.1.0/scale", "1.conv3x3-4.1.0/shift")
    dense = CHAIN.parse("max-pool > dense-16").graph(3)
    assert tensor_names(dense, (1, 8, 8))[1] == ("2.dense-16.1x4x4.0/matrix", "2.dense-16.1x4x4.0/bias")


@settings(deadline=None)
@given(st.sampled_from([CHAIN, CELL]), st.integers(0, 2**32))
def test_names_are_unique_within_a_network_and_fix_the_shape(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {}
    for _ in range(2):
        graph = space.sample(rng).graph(3)
        names = tensor_names(graph, (1, 8, 8))
        flat = [name for node in names for name in node]
        assert len(set(flat)) == len(flat)
        expected = (
            parameter_shapes(n.operation, s) for n, s in zip(graph, input_shapes(graph, (1, 8, 8)), strict=True)
        )
        for name, shape in zip(flat, (shape for node in expected for shape in node), strict=True):
            assert shapes.setdefault(name, shape) == shape


def test_rates_of_a_classifier_are_those_of_any_number_of_ways() -> None:
    assert rate_name("4.classifier-5.16.0/matrix") == rate_name("4.classifier-20.16.0/matrix")
    assert rate_name("1.conv3x3-4.1.0/kernel") == "1.conv3x3-4.1.0/kernel"


def test_architectures_share_what_they_have_in_common(init: Initialisation) -> None:
    other = CHAIN.parse("conv3x3-8 > avg-pool > conv3x3-8")
    mine, its = start(DESIGN, TASK, 0, init)[0], start(other, TASK, 0, init)[0]
    assert all(torch.equal(a, b) for a, b in zip(mine[0], its[0], strict=True))
    assert torch.equal(mine[0][0], init.weights["1.conv3x3-8.1.0/kernel"])


def test_what_was_never_met_starts_at_random(init: Initialisation) -> None:
    other = CHAIN.parse("conv5x5-8 > max-pool > conv3x3-8")
    weights, rates = start(other, TASK, 3, init)
    drawn = random_weights(other, TASK, 3)
    assert rates == ()
    for mine, its in zip(weights[:-1], drawn[:-1], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, its, strict=True))
    assert not torch.equal(weights[2][0], start(other, TASK, 4, init)[0][2][0])


def test_without_a_learned_start_all_is_random() -> None:
    weights, rates = start(DESIGN, TASK, 3)
    assert rates == ()
    assert all(
        torch.equal(a, b)
        for mine, its in zip(weights, random_weights(DESIGN, TASK, 3), strict=True)
        for a, b in zip(mine, its, strict=True)
    )


def test_one_row_for_all_classes_would_change_nothing() -> None:
    """Why a classifier starts from zero: with a common row the adapted network gives the same probabilities."""
    support_x, support_y, query_x, _ = (
        t.double() if t.is_floating_point() else t for t in standardise(TASK, torch.device("cpu"))
    )
    predictions = []
    for row in (0.0, 2.0):
        network = Network(DESIGN.graph(TASK.ways), TASK.image_shape).double()
        network.load_weights(random_weights(DESIGN, TASK))
        classifier = network.nodes[-1][1]
        torch.nn.init.constant_(classifier.weight, row)
        torch.nn.init.constant_(classifier.bias, row)
        adapt(network, support_x, support_y, Adaptation(5, 0.1, 0.9, clip=0.5))
        predictions.append(network.eval()(query_x).softmax(1))
    assert torch.allclose(*predictions, atol=1e-10)
    assert predictions[0].std() > 0.01


def test_a_classifier_serves_any_number_of_ways(init: Initialisation) -> None:
    for index in range(5):
        task = SOURCE.task("train", index)
        weights, _ = start(DESIGN, task, 0, init)
        assert weights[-1][0].shape[0] == task.ways
        assert not any(tensor.any() for tensor in weights[-1])


def test_images_that_are_too_small_are_refused(init: Initialisation) -> None:
    small = replace(TASK, support_x=TASK.support_x[:, :, :1, :1], query_x=TASK.query_x[:, :, :1, :1])
    for each in (None, init):
        with pytest.raises(ConfigurationError, match=r"does not fit \(1, 1, 1\) images"):
            start(DESIGN, small, 0, each)


class TestFiles:
    @pytest.mark.parametrize("method", ["maml", "meta-sgd", "relation"])
    def test_what_was_saved_is_loaded(self, method: str, tmp_path: Path) -> None:
        kept = learned(method)
        kept.save(tmp_path)
        found = Initialisation.load(tmp_path)
        assert found.path == tmp_path
        assert found.adaptation == kept.adaptation
        assert found.about == kept.about
        assert found.digest == kept.digest
        for mine, its in ((found.weights, kept.weights), (found.rates, kept.rates)):
            assert mine.keys() == its.keys()
            assert all(torch.equal(mine[name], its[name]) for name in its)
        assert [torch.equal(a, b) for a, b in zip(found.head, kept.head, strict=True)] == [True] * len(kept.head)
        assert bool(kept.rates) == (method == "meta-sgd")
        assert bool(kept.head) == (method == "relation")
        assert space_from_spec(found.about["space"]) == CHAIN

    def test_the_digest_tells_starts_apart(self, init: Initialisation) -> None:
        name = next(iter(init.weights))
        nudged = {**init.weights, name: init.weights[name] + 1e-6}
        others = [
            replace(init, weights=nudged),
            replace(init, rates=init.weights),
            replace(init, adaptation=replace(MAML, steps=3)),
            replace(init, weights={}),
        ]
        assert len({each.digest for each in (init, *others)}) == 5
        assert replace(init, about={"note": 1}).digest == init.digest

    def test_a_description_leads_back_to_it(self, init: Initialisation, tmp_path: Path) -> None:
        init.save(tmp_path / "a")
        spec = json.loads(json.dumps(Initialisation.load(tmp_path / "a").spec()))
        assert Initialisation.from_spec(spec).digest == init.digest
        replace(init, weights={}).save(tmp_path / "a")
        with pytest.raises(CheckpointError, match="not the meta-learned start that the record was made with"):
            Initialisation.from_spec(spec)
        with pytest.raises(ConfigurationError, match="was never saved"):
            Initialisation.from_spec(init.spec())

    @pytest.mark.parametrize("name", [DATA, TENSORS, MANIFEST])
    @pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
    def test_damage_is_refused_in_one_line(self, name: str, damage: str, init: Initialisation, tmp_path: Path) -> None:
        init.save(tmp_path)
        (path,) = (p for p in tmp_path.iterdir() if p.name.endswith(name))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        if damage == "remove":
            path.unlink()
        else:
            path.write_bytes(content if damage == "flip" else content[: len(content) // 2])
        with pytest.raises(CheckpointError) as caught:
            Initialisation.load(tmp_path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("data", "tensors", "message"),
        [
            ({"kind": "controller"}, {}, "holds no meta-learned start, but 'controller'"),
            ({}, {}, "holds no meta-learned start"),
            ({"kind": "initialisation"}, {}, "damaged: 'adaptation'"),
            ({"kind": "initialisation", "adaptation": {"steps": -1}, "about": {}}, {}, "steps must be"),
            ({"kind": "initialisation", "adaptation": {"pace": 1}, "about": {}}, {}, "damaged: .*pace"),
            ({"kind": "initialisation", "adaptation": {}, "about": {}}, {"x": torch.zeros(1)}, "tensor 'x' is no"),
            (
                {"kind": "initialisation", "adaptation": {}, "about": {}},
                {"weight:x": torch.full((2,), torch.nan)},
                "tensor 'weight:x' is no finite part",
            ),
            ({"kind": "initialisation", "adaptation": {"method": "relation"}, "about": {}}, {}, "the head of relation"),
        ],
    )
    def test_other_contents_are_refused(
        self, data: dict[str, Any], tensors: dict[str, torch.Tensor], message: str, tmp_path: Path
    ) -> None:
        save_checkpoint(tmp_path, data, tensors)
        with pytest.raises(CheckpointError, match=message):
            Initialisation.load(tmp_path)

    def test_a_newer_version_is_refused(self, init: Initialisation, tmp_path: Path) -> None:
        init.save(tmp_path)
        manifest = json.loads((tmp_path / MANIFEST).read_text())
        path = tmp_path / manifest[DATA]["file"]
        path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
        manifest[DATA]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        (tmp_path / MANIFEST).write_text(json.dumps(manifest))
        with pytest.raises(CheckpointError, match="schema 99"):
            Initialisation.load(tmp_path)

    def test_tensors_of_other_shapes_than_their_names_say_are_refused(self, init: Initialisation) -> None:
        name = "1.conv3x3-8.1.0/kernel"
        wrong = replace(init, weights={**init.weights, name: torch.zeros(8, 2, 3, 3)})
        missing = replace(init, weights={n: t for n, t in init.weights.items() if n != name})
        for each in (wrong, missing):
            with pytest.raises(CheckpointError, match=r"no tensor '1.conv3x3-8.1.0/kernel' of shape \(8, 1, 3, 3\)"):
                start(DESIGN, TASK, 0, each)


class TestMatching:
    def test_a_start_brings_its_own_adaptation(self, init: Initialisation, tmp_path: Path) -> None:
        init.save(tmp_path)
        for place in (tmp_path, str(tmp_path)):
            adaptation, found = matched(None, place)
            assert adaptation == MAML
            assert found is not None
            assert found.digest == init.digest
        assert matched(None, None) == (Adaptation(), None)

    @pytest.mark.parametrize("method", ["sgd", "maml", "fomaml", "reptile"])
    def test_starts_for_the_same_inner_loop_are_interchangeable(self, method: str, init: Initialisation) -> None:
        asked = replace(MAML, method=method, steps=7)
        assert matched(asked, init) == (asked, init)

    @pytest.mark.parametrize("method", ["anil", "meta-sgd", "prototype", "relation"])
    def test_others_are_refused(self, method: str, init: Initialisation) -> None:
        with pytest.raises(ConfigurationError, match=f"{method} cannot begin from a start that was learned for maml"):
            matched(replace(MAML, method=method), init)
        with pytest.raises(ConfigurationError, match="sgd cannot begin from a start that was learned for"):
            matched(Adaptation(), replace(init, adaptation=replace(MAML, method=method)))

    def test_a_missing_start_is_asked_for(self) -> None:
        with pytest.raises(
            ConfigurationError, match=r"reptile needs a meta-learned start .*`rlnas meta-train` makes one"
        ):
            matched(Adaptation(method="reptile"), None)


class TestTraining:
    @pytest.mark.parametrize("method", ["fomaml", "meta-sgd", "relation"])
    def test_the_same_arguments_give_the_same_start(self, method: str) -> None:
        assert learned(method).digest == learned(method).digest

    def test_seeds_and_lengths_give_others(self) -> None:
        settings = (MetaTraining(2, 3), MetaTraining(3, 3), MetaTraining(2, 3, seed=1))
        assert len({meta_train(CHAIN, SAMPLE, MAML, each).digest for each in settings}) == 3

    def test_the_global_generator_is_left_alone(self) -> None:
        before = torch.get_rng_state()
        learned()
        assert torch.equal(torch.get_rng_state(), before)

    def test_the_engine_is_asked_for_every_gradient(self) -> None:
        asked: list[int] = []

        def engine(episodes: Any, adaptation: Adaptation) -> Any:
            asked.append(len(episodes))
            return meta_gradients(episodes, adaptation)

        told: list[tuple[int, float, float]] = []
        found = meta_train(
            CHAIN, SAMPLE, MAML, MetaTraining(3, 2), engine, on_iteration=lambda *figures: told.append(figures)
        )
        assert asked == [2, 2, 2]
        assert [done for done, _, _ in told] == [1, 2, 3]
        assert found.digest == meta_train(CHAIN, SAMPLE, MAML, MetaTraining(3, 2)).digest

    def test_gradients_are_averaged_over_those_that_share_a_tensor(self) -> None:
        """Three episodes, of which two have the tensor: Adam's first step is against the sign of their mean."""
        designs = [CHAIN.parse(text) for text in ("conv3x3-8", "conv3x3-8 > max-pool", "dense-16")]

        class Listed(ChainSpace):
            def sample(self, rng: np.random.Generator) -> Any:
                return left.pop(0)

        left, seen, before = list(designs), [], []

        def engine(episodes: list[Episode], adaptation: Adaptation) -> Any:
            before.append(episodes[0].weights[0][0].clone())
            seen.extend(meta_gradients(episodes, adaptation))
            return seen

        space = Listed(max_layers=3, widths=(4, 8), dense_widths=(16,))
        found = meta_train(space, SAMPLE, MAML, MetaTraining(1, 3, 0.01), engine)
        mean = (seen[0].weights[0][0] + seen[1].weights[0][0]) / 2
        moved = found.weights["1.conv3x3-8.1.0/kernel"] - before[0]
        clear = mean.abs() > 1e-5
        assert clear.sum() > 10
        assert torch.allclose(moved[clear], -0.01 * mean.sign()[clear], rtol=0.01)

    def test_episodes_that_diverge_are_left_out(self) -> None:
        found = meta_train(CHAIN, SAMPLE, Adaptation(5, 1e30, 0.0, "fomaml"), MetaTraining(2, 3))
        assert all(bool(tensor.isfinite().all()) for tensor in found.weights.values())

    def test_it_stops_when_asked_or_when_time_is_over(self) -> None:
        answers = iter([False, False, True])
        found = meta_train(CHAIN, SAMPLE, MAML, MetaTraining(9, 1), stop=lambda: next(answers))
        assert found.about["meta_training"]["iterations_done"] == 2
        late = meta_train(CHAIN, SAMPLE, MAML, MetaTraining(9, 1, minutes=1e-9))
        assert late.about["meta_training"]["iterations_done"] == 0

    @pytest.mark.parametrize("method", ["maml", "meta-sgd"])
    def test_a_classifier_is_learned_if_asked_for(self, method: str) -> None:
        task, adaptation = TASK, replace(MAML, method=method)
        found = meta_train(DESIGN, lambda rng: task, adaptation, MetaTraining(2, 2, learn_classifier=True))
        weights, _ = start(DESIGN, task, 0, found)
        assert weights[-1][0].std() > 0
        other = next(t for i in range(20) if (t := SOURCE.task("train", i)).ways != task.ways)
        assert not start(DESIGN, other, 0, found)[0][-1][0].any()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"iterations": 0}, "iterations must be an integer >= 1, got 0"),
            ({"episodes": 0}, "episodes must be"),
            ({"learning_rate": 0.0}, "learning_rate must be a positive number, got 0.0"),
            ({"minutes": -1.0}, "minutes must be a positive number, got -1.0"),
            ({"seed": -1}, "seed must be"),
        ],
    )
    def test_settings_are_checked(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigurationError, match=message):
            MetaTraining(**options)

    def test_sgd_has_no_start_to_learn(self) -> None:
        with pytest.raises(ConfigurationError, match="unknown adaptation to meta-train for 'sgd'"):
            meta_train(CHAIN, SAMPLE, Adaptation())


def test_the_relation_head_has_the_shapes_it_says() -> None:
    assert tuple(tuple(t.shape) for t in learned("relation", 1).head) == relation_shapes()
