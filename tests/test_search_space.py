from __future__ import annotations

import json
import pickle
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlnas.adaptation import standardise
from rlnas.architecture import Architecture
from rlnas.errors import ConfigurationError, IllegalChoiceError, UnknownNameError
from rlnas.graph import AvgPool, Conv, Dense, MaxPool, Operation, input_shapes
from rlnas.network import build_network
from rlnas.search_space import (
    CellSpace,
    ChainSpace,
    SearchSpace,
)
from rlnas.specs import architecture_from_json, make_space, space_from_spec
from rlnas.task import FewShotTask

SPACES = {
    "chain": ChainSpace(max_layers=4, input_size=5, widths=(2, 3), dense_widths=(4,)),
    "flat chain": ChainSpace(max_layers=3, input_size=1, dense_widths=(3, 5), spatial=False),
    "tiny chain": ChainSpace(max_layers=3, input_size=1, widths=(2,), dense_widths=(3, 5)),
    "cell": CellSpace(width=3, cells=2),
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


@cache
def task(side: int = 5) -> FewShotTask:
    rng = np.random.default_rng(side)
    images = rng.random((12, 2, side, side))
    labels = np.arange(12) % 3
    return FewShotTask(f"t:train/{side}", "noise", images[:6], labels[:6], images[6:], labels[6:])


@st.composite
def designs(draw: st.DrawFn, space: SearchSpace | None = None) -> Architecture:
    """Any legal design, drawn choice by choice through the mask, so that failures shrink to early choices."""
    space = space or draw(st.sampled_from(list(SPACES.values())))
    choices: list[int] = []
    for _ in space.decisions:
        choices.append(draw(st.sampled_from(np.flatnonzero(space.legal_choices(choices)).tolist())))
    return space.decode(choices)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Architecture, Architecture]:
    space = draw(st.sampled_from(list(SPACES.values())))
    return draw(designs(space)), draw(designs(space))


@settings(deadline=None, max_examples=150)
@given(designs())
def test_every_legal_design_builds_and_runs(architecture: Architecture) -> None:
    side = 5 if architecture.space != SPACES["tiny chain"] else 1
    network = build_network(architecture, task(side))
    support_x, _, query_x, _ = standardise(task(side), torch.device("cpu"))
    assert network(support_x).shape == (6, 3)
    logits = network.eval()(query_x)
    assert logits.shape == (6, 3)
    assert torch.isfinite(logits).all()


@settings(deadline=None)
@given(designs())
def test_encode_inverts_decode(architecture: Architecture) -> None:
    space = architecture.space
    encoded = space.encode(architecture)
    assert encoded.dtype == np.int64
    assert encoded.tolist() == list(architecture.choices)
    assert space.decode(encoded) == architecture
    assert all(type(choice) is int for choice in space.decode(encoded).choices)


@settings(deadline=None)
@given(designs())
def test_the_text_reads_back_as_the_same_network(architecture: Architecture) -> None:
    again = architecture.space.parse(architecture.text)
    assert again.text == architecture.text == str(architecture)
    assert again.key == architecture.key
    assert again.graph(4) == architecture.graph(4)


@settings(deadline=None)
@given(designs())
def test_json_and_pickle_keep_an_architecture(architecture: Architecture) -> None:
    assert architecture_from_json(json.loads(json.dumps(architecture.to_json()))) == architecture
    again = pickle.loads(pickle.dumps(architecture))
    assert again == architecture
    assert hash(again) == hash(architecture)
    assert again.text == architecture.text


@settings(deadline=None)
@given(designs())
def test_neighbours_are_one_choice_away_and_other_networks(architecture: Architecture) -> None:
    space = architecture.space
    found = space.neighbours(architecture)
    assert len(set(found)) == len(found)
    expected = set()
    for position in range(len(space.decisions)):
        for choice in range(space.num_choices):
            choices = list(architecture.choices)
            choices[position] = choice
            if space.is_legal(choices) and space.decode(choices).key != architecture.key:
                expected.add(space.decode(choices))
    assert set(found) == expected


@settings(deadline=None)
@given(designs(), st.integers(0, 2**32))
def test_a_mutation_is_a_neighbour_and_follows_the_generator(architecture: Architecture, seed: int) -> None:
    space = architecture.space
    mutant = space.mutate(architecture, np.random.default_rng(seed))
    assert mutant in space.neighbours(architecture)
    assert mutant == space.mutate(architecture, np.random.default_rng(seed))


@settings(deadline=None)
@given(pairs(), st.integers(0, 2**32))
def test_crossover_inherits_wherever_that_is_legal(parents: tuple[Architecture, Architecture], seed: int) -> None:
    space = parents[0].space
    child = space.crossover(*parents, np.random.default_rng(seed))
    assert space.is_legal(child.choices)
    for position, gene in enumerate(child.choices):
        legal = space.legal_choices(child.choices[:position])
        heritable = {p.choices[position] for p in parents if legal[p.choices[position]]}
        assert gene in heritable or not heritable


def test_crossover_of_a_design_with_itself_is_itself() -> None:
    rng = np.random.default_rng(0)
    for space in SPACES.values():
        parent = space.sample(rng)
        assert space.crossover(parent, parent, rng) == parent


def test_crossover_mixes_both_parents() -> None:
    space = SPACES["cell"]
    children = {
        space.crossover(space.decode([0] * 6), space.decode([1] * 6), np.random.default_rng(seed)).choices
        for seed in range(300)
    }
    assert len(children) > 55  # of 2^6


def test_a_design_without_neighbours_mutates_into_itself() -> None:
    space = ChainSpace(max_layers=1, input_size=1, widths=(1,), dense_widths=(1,))
    assert len(space.neighbours(space.parse("identity"))) == 3  # two convolutions, one dense layer
    alone = _Single()
    only = alone.decode([0])
    assert alone.neighbours(only) == []
    assert alone.mutate(only, np.random.default_rng(0)) is only


class _Single(ChainSpace):
    """Leaves the first convolution as the only legal layer."""

    @property
    def transitions(self) -> Any:
        return np.array([[0] + [-1] * 10], dtype=np.int32)

    @property
    def decisions(self) -> Any:
        return super().decisions[:1]


@pytest.mark.parametrize("space", [SPACES["chain"], SPACES["tiny chain"], CellSpace()], ids=["chain", "tiny", "cell"])
def test_size_counts_what_enumerate_yields(space: SearchSpace) -> None:
    everything = [architecture.choices for architecture in space.enumerate()]
    assert space.size == len(everything) == len(set(everything))
    assert everything == sorted(everything)
    assert all(space.is_legal(choices) for choices in everything[::37])


def test_size_does_not_overflow() -> None:
    assert ChainSpace(max_layers=60).size > 2**63


@every_space
def test_enumerate_agrees_with_trying_every_list_of_choices(space: SearchSpace) -> None:
    rng = np.random.default_rng(1)
    legal = {architecture.choices for architecture in space.enumerate()}
    for choices in map(tuple, rng.integers(0, space.num_choices, (500, len(space.decisions))).tolist()):
        assert space.is_legal(choices) == (choices in legal)


@every_space
def test_samples_are_legal_and_each_decision_is_uniform(space: SearchSpace) -> None:
    rng = np.random.default_rng(2)
    samples = [space.sample(rng) for _ in range(2000)]
    assert all(space.is_legal(s.choices) for s in samples)
    legal = space.legal_choices()
    counts = np.bincount([s.choices[0] for s in samples], minlength=space.num_choices)
    assert (counts[~legal] == 0).all()
    expected = 2000 / legal.sum()
    assert (abs(counts[legal] - expected) < 5 * np.sqrt(expected)).all()
    again = np.random.default_rng(2)
    assert [space.sample(again) for _ in range(5)] == samples[:5]


@every_space
def test_illegal_designs_are_refused(space: SearchSpace) -> None:
    complete = space.sample(np.random.default_rng(0)).choices
    with pytest.raises(IllegalChoiceError, match=f"{len(complete)} choices, got {len(complete) - 1}"):
        space.decode(complete[:-1])
    with pytest.raises(IllegalChoiceError, match=f"got {len(complete) + 1}"):
        space.decode((*complete, 0))
    for unknown in (-1, space.num_choices):
        with pytest.raises(IllegalChoiceError, match=rf"choice {unknown} is not in 0\.\."):
            space.decode((unknown, *complete[1:]))
        with pytest.raises(IllegalChoiceError):
            space.legal_choices((unknown,))
    with pytest.raises(IllegalChoiceError, match="all are taken"):
        space.legal_choices(complete)
    assert not space.is_legal((*complete, 0))


def test_encode_refuses_an_architecture_of_another_space() -> None:
    architecture = CellSpace(width=4).decode([1] * 6)
    with pytest.raises(IllegalChoiceError, match=r"belongs to cell\(width=4,cells=2\), not to cell\(width=8"):
        CellSpace(width=8).encode(architecture)


@every_space
def test_spaces_are_values(space: SearchSpace) -> None:
    again = space_from_spec(json.loads(json.dumps(space.spec())))
    assert again == space
    assert hash(again) == hash(space)
    assert again.name == space.name
    assert pickle.loads(pickle.dumps(space)) == space
    assert len({space, again, *SPACES.values()}) == len(SPACES)


def test_names_tell_apart_what_options_tell_apart() -> None:
    spaces = [
        ChainSpace(),
        ChainSpace(max_layers=5),
        ChainSpace(input_size=9),
        ChainSpace(widths=(8, 16)),
        ChainSpace(dense_widths=(8,)),
        CellSpace(),
        CellSpace(width=8),
        CellSpace(cells=1),
    ]
    assert len({space.name for space in spaces}) == len(set(spaces)) == len(spaces)


def test_an_architecture_pickles_small() -> None:
    space = CellSpace(width=5)
    architecture = space.decode([4, 3, 2, 1, 0, 1])
    assert architecture.text  # numbers the space's isomorphism classes, which must not travel along
    assert len(pickle.dumps(architecture)) < 5_000


# ---- chains


def _layers(architecture: Architecture) -> list[Operation]:
    return [node.operation for node in architecture.graph(3)][:-1]


@settings(deadline=None)
@given(designs(SPACES["chain"]))
def test_a_chain_keeps_its_order_and_never_pools_below_two_pixels(architecture: Architecture) -> None:
    layers = _layers(architecture)
    kinds = [isinstance(layer, Dense) for layer in layers]
    assert kinds == sorted(kinds)  # nothing spatial after a fully connected layer
    assert sum(isinstance(layer, MaxPool | AvgPool) for layer in layers) <= 2  # 5 -> 2 -> 1
    shapes = input_shapes(architecture.graph(3), (2, 5, 5))
    for layer, shape in zip(layers, shapes, strict=False):
        if isinstance(layer, MaxPool | AvgPool):
            assert min(shape[1:]) >= 2


def test_chain_masks() -> None:
    space = ChainSpace(max_layers=4, input_size=4, widths=(8,), dense_widths=(32,))
    names = space.decisions[0].choices
    assert names == ("conv3x3-8", "conv5x5-8", "max-pool", "avg-pool", "dense-32", "identity")

    def legal(*layers: str) -> set[str]:
        mask = space.legal_choices([names.index(layer) for layer in layers])
        return {name for name, allowed in zip(names, mask, strict=True) if allowed}

    assert legal() == set(names)
    assert legal("max-pool", "conv3x3-8") == set(names)
    assert legal("max-pool", "avg-pool") == set(names) - {"max-pool", "avg-pool"}
    assert legal("dense-32") == legal("dense-32", "identity") == {"dense-32", "identity"}
    with pytest.raises(IllegalChoiceError, match=r"layer 2: 'max-pool' is illegal here \(legal: dense-32, identity\)"):
        space.decode([names.index(n) for n in ("dense-32", "max-pool", "identity", "identity")])


def test_identities_do_not_make_another_network() -> None:
    space = ChainSpace(max_layers=3)
    conv, none = (space.decisions[0].choices.index(name) for name in ("conv3x3-8", "identity"))
    designs = [space.decode(c) for c in ([conv, none, none], [none, conv, none], [none, none, conv])]
    assert len({d.key for d in designs}) == 1
    assert len(set(designs)) == 3
    assert designs[0].text == "conv3x3-8"
    assert space.decode([none] * 3).text == "identity"
    assert designs[1].graph(2)[0].operation == Conv(3, 8)


def test_chain_text_that_cannot_be_read() -> None:
    space = ChainSpace(max_layers=2)
    with pytest.raises(UnknownNameError, match=r"layer 'conv3x3-9'; did you mean 'conv3x3-8'"):
        space.parse("conv3x3-9")
    with pytest.raises(IllegalChoiceError, match="has 2 choices, got 3"):
        space.parse("max-pool > max-pool > dense-32")
    with pytest.raises(IllegalChoiceError, match="illegal here"):
        space.parse("dense-32 > max-pool")


# ---- making spaces


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_layers": 0}, "max_layers must be an integer >= 1, got 0"),
        ({"input_size": True}, "input_size must be an integer"),
        ({"widths": ()}, "widths must be distinct and not empty"),
        ({"widths": (8, 8)}, r"widths must be distinct and not empty, got \[8, 8\]"),
        ({"dense_widths": (0,)}, "dense_widths must be an integer >= 1, got 0"),
        ({"depth": 3}, "depth"),
    ],
)
def test_chain_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_space("chain", **options)


@pytest.mark.parametrize("options", [{"width": 0}, {"cells": 0}, {"cells": 1.5}, {"edges": 6}])
def test_cell_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        make_space("cell", **options)


def test_unknown_spaces_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="'chian'; did you mean 'chain'"):
        make_space("chian")
    with pytest.raises(UnknownNameError):
        space_from_spec({})


def test_a_chain_for_features_has_no_convolutions_and_the_same_decisions() -> None:
    flat = SPACES["flat chain"]
    assert isinstance(flat, ChainSpace)
    whole = replace(flat, spatial=True)
    assert flat.decisions == whole.decisions
    assert flat.size == 3**3  # two fully connected layers and the identity
    assert "spatial" not in whole.spec()
    assert space_from_spec(flat.spec()) == flat != whole
