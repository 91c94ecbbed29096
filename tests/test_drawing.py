"""Drawings of architectures."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

import numpy as np
import pytest

from rlnas.architecture import Architecture
from rlnas.drawing import BOX, draw_svg
from rlnas.search_space import CellSpace, ChainSpace, SearchSpace

SVG = "{http://www.w3.org/2000/svg}"
CHAIN, CELL = ChainSpace(), CellSpace(width=4)


def boxes(root: ElementTree.Element) -> list[tuple[float, float]]:
    """Left and top of every box."""
    return [(float(box.get("x", "")), float(box.get("y", ""))) for box in root.iter(f"{SVG}rect")]


def texts(root: ElementTree.Element) -> list[str]:
    return [str(text.text) for text in root.iter(f"{SVG}text")]


def samples() -> list[Architecture]:
    rng = np.random.default_rng(0)
    spaces: list[SearchSpace] = [CHAIN] * 5 + [CELL] * 5
    return [*(space.sample(rng) for space in spaces), CELL.decode([0] * 6)]


@pytest.mark.parametrize("architecture", samples(), ids=str)
def test_every_node_is_a_box_within_the_drawing_and_every_edge_an_arrow(architecture: Architecture) -> None:
    root = ElementTree.fromstring(draw_svg(architecture, ways=5))
    graph = architecture.graph(5)
    assert root.tag == f"{SVG}svg"
    assert len(boxes(root)) == len(texts(root)) == len(graph) + 1  # and the image
    assert len(list(root.iter(f"{SVG}path"))) == sum(len(node.inputs) for node in graph)
    assert len(set(boxes(root))) == len(boxes(root))
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    for left, top in boxes(root):
        assert -width / 2 <= left <= width / 2 - BOX[0]
        assert 0 <= top <= height - BOX[1]
    assert {element.get("class") for element in root.iter(f"{SVG}rect")} <= {
        *("image", "conv", "pool", "dense", "add", "answer")
    }


def test_boxes_say_what_the_network_does_from_image_to_classes() -> None:
    architecture = CHAIN.parse("conv3x3-8 > max-pool > dense-32")
    root = ElementTree.fromstring(draw_svg(architecture, ways=7))
    found = dict(zip(texts(root), boxes(root), strict=True))
    order = sorted(found, key=lambda text: found[text][1])
    assert order[0] == "image"
    assert order[-1] == "classifier, 7 classes"
    assert [text for text in order if text in ("conv 3×3, 8", "max pool 2×2", "dense 32")] == [
        *("conv 3×3, 8", "max pool 2×2", "dense 32")
    ]


def test_the_title_tells_the_design_to_those_who_cannot_see_it() -> None:
    for architecture in samples():
        root = ElementTree.fromstring(draw_svg(architecture, ways=2))
        assert root.get("role") == "img"
        assert root.findtext(f"{SVG}title") == architecture.text


@dataclass(frozen=True)
class Named(Architecture):
    """An architecture whose text is hostile to XML."""

    @property
    def text(self) -> str:  # type: ignore[override]
        return '</title><script>"a" & b'


def test_text_cannot_break_out_of_the_drawing() -> None:
    architecture = CHAIN.parse("dense-32")
    root = ElementTree.fromstring(draw_svg(Named(architecture.space, architecture.choices), ways=2))
    assert root.findtext(f"{SVG}title") == '</title><script>"a" & b'
    assert not list(root.iter(f"{SVG}script"))
