"""Edits of chain networks, against the same edits of lists of layers' names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlnas.architecture import Architecture
from rlnas.edits import ChainEdits
from rlnas.errors import ConfigurationError, IllegalChoiceError, UnknownNameError
from rlnas.search_space import CellSpace, ChainSpace

SPACE = ChainSpace(max_layers=3, input_size=2, widths=(8, 4), dense_widths=(16, 64, 32))
EDITS = ChainEdits(SPACE, max_edits=6)
NETWORKS = sorted({EDITS.normal(architecture.choices) for architecture in SPACE.enumerate()})
ADDS = [f"add {layer}" for layer in SPACE.decisions[0].choices if layer != "identity"]


def layers_of(network: tuple[int, ...]) -> list[str]:
    text = SPACE.text(network)
    return [] if text == "identity" else text.split(" > ")


def edited(layers: list[str], action: str) -> list[str] | None:
    """The layers after an action, None where it is illegal: written for one network and read off its names."""
    verb, _, rest = action.partition(" ")
    layers = layers.copy()
    if verb == "submit":
        return layers
    if verb == "add":
        spatial = [layer for layer in layers if not layer.startswith("dense")]
        layers.insert(len(layers) if rest.startswith("dense") else len(spatial), rest)
        pools = sum("pool" in layer for layer in layers)
        return layers if len(layers) <= 3 and pools <= 1 else None
    place = int(rest[-1]) - 1
    if place >= len(layers):
        return None
    if verb == "delete":
        del layers[place]
        return layers
    kind, _, width = layers[place].partition("-")
    if verb == "change":
        other = {"conv3x3": f"conv5x5-{width}", "conv5x5": f"conv3x3-{width}", "max": "avg-pool", "avg": "max-pool"}
        if kind not in other:
            return None
        layers[place] = other[kind]
        return layers
    widths = {"conv3x3": (4, 8), "conv5x5": (4, 8), "dense": (16, 32, 64)}.get(kind, ())
    if not widths:
        return None
    wanted = widths.index(int(width)) + (1 if verb == "widen" else -1)
    if not 0 <= wanted < len(widths):
        return None
    layers[place] = f"{kind}-{widths[wanted]}"
    return layers


def test_every_action_on_every_network_does_what_its_name_says() -> None:
    made, legal = EDITS.outcomes(np.array(NETWORKS))
    assert made.shape == (len(NETWORKS), len(EDITS.names), 3)
    assert legal.shape == made.shape[:2]
    for row, network in enumerate(NETWORKS):
        for action, name in enumerate(EDITS.names):
            wanted = edited(layers_of(network), name)
            assert legal[row, action] == (wanted is not None), (SPACE.text(network), name)
            if wanted is not None:
                assert layers_of(tuple(made[row, action].tolist())) == wanted, (SPACE.text(network), name)
                assert tuple(made[row, action].tolist()) in NETWORKS
    assert legal[:, EDITS.submit].all()
    assert legal[:, : EDITS.submit].any(1).all()  # there is always something to edit


def test_actions_are_named_in_order() -> None:
    assert list(EDITS.names) == [
        *ADDS,
        *(f"{verb} layer {place}" for verb in ("change filter of", "widen", "narrow", "delete") for place in (1, 2, 3)),
        "submit",
    ]
    assert EDITS.names[EDITS.submit] == "submit"


def test_a_network_is_one_whatever_the_identities_between_its_layers() -> None:
    identity, conv = SPACE.decisions[0].choices.index("identity"), 1
    assert EDITS.normal((identity, conv, identity)) == (conv, identity, identity)
    assert EDITS.normal((identity,) * 3) == EDITS.empty
    assert len(NETWORKS) == len({SPACE.text(network) for network in NETWORKS})


@given(st.sampled_from(NETWORKS), st.data())
@settings(max_examples=60, deadline=None)
def test_a_plan_makes_any_network_of_any_other_in_twice_the_layers(network: tuple[int, ...], data: Any) -> None:
    target = data.draw(st.sampled_from(list(SPACE.enumerate())))
    plan = EDITS.plan(target, network)
    assert plan[-1] == EDITS.submit
    assert len(plan) - 1 <= 2 * SPACE.max_layers
    networks = EDITS.follow(network, plan)
    assert networks[0] == network
    assert SPACE.text(networks[-1]) == target.text
    assert networks[-1] == networks[-2]


def test_a_plan_from_nothing_adds_layers_in_order() -> None:
    plan = EDITS.plan(SPACE.parse("conv5x5-4 > max-pool > dense-32"))
    assert [EDITS.names[action] for action in plan] == ["add conv5x5-4", "add max-pool", "add dense-32", "submit"]
    kept = EDITS.plan(SPACE.parse("conv5x5-4 > dense-16"), SPACE.parse("conv5x5-4 > max-pool > dense-32").choices)
    assert [EDITS.names[action] for action in kept] == [
        "delete layer 3",
        "delete layer 2",
        "add dense-16",
        "submit",
    ]


def test_following_an_illegal_action_is_refused_by_name() -> None:
    add_pool = EDITS.names.index("add max-pool")
    with pytest.raises(IllegalChoiceError, match=r"^edit 2: 'add max-pool' is illegal here \(legal: add conv3x3-8, "):
        EDITS.follow(EDITS.empty, [add_pool, add_pool])
    for unknown in (-1, len(EDITS.names)):
        with pytest.raises(IllegalChoiceError, match=f"edit 1: 'action {unknown}' is illegal"):
            EDITS.follow(EDITS.empty, [unknown])


def test_a_design_is_complete_when_it_is_submitted_or_out_of_edits() -> None:
    submit = EDITS.submit
    assert EDITS.steps([0, 1, submit]) == 3
    assert EDITS.steps([submit, 0, submit]) == 1
    assert EDITS.steps([0] * 9) == EDITS.steps([0] * 6 + [submit]) == EDITS.steps([0]) == 6


def test_only_chains_have_layers_to_edit() -> None:
    with pytest.raises(ConfigurationError, match="space must be a chain"):
        ChainEdits(CellSpace(), 6)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="max_edits must be an integer >= 1, got 0"):
        ChainEdits(SPACE, 0)
    with pytest.raises(UnknownNameError, match="did you mean 'incumbent'"):
        ChainEdits(SPACE, 6, "incumbant")


def test_a_target_of_another_networks_choices_needs_no_normal_form() -> None:
    identity = SPACE.decisions[0].choices.index("identity")
    assert EDITS.plan(Architecture(SPACE, (identity, 0, identity))) == EDITS.plan(
        Architecture(SPACE, (0, identity, identity))
    )
