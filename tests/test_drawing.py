"""Drawings of architectures."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from rlnas.architecture import Architecture
from rlnas.cell import EDGES
from rlnas.drawing import draw_svg
from rlnas.layered import draw_boxes
from rlnas.search_space import CellSpace, ChainSpace, SearchSpace
from rlnas.sketch import sketch, sketch_layers
from rlnas.table_space import TableSpace

from .tables import published, save_table

SVG = "{http://www.w3.org/2000/svg}"
CHAIN, CELL = ChainSpace(), CellSpace(width=4)


def boxes(root: ElementTree.Element) -> list[tuple[float, float]]:
    """Left and top of every box."""
    return [(float(box.get("x", "")), float(box.get("y", ""))) for box in root.iter(f"{SVG}rect")]


def assert_tidy(root: ElementTree.Element) -> None:
    """All boxes lie within the drawing, and no two of them overlap."""
    left, top, width, height = map(float, root.get("viewBox", "").split())
    found = [tuple(float(box.get(key, "")) for key in ("x", "y", "width", "height")) for box in root.iter(f"{SVG}rect")]
    for x, y, w, h in found:
        assert left <= x <= x + w <= left + width
        assert top <= y <= y + h <= top + height
    for (x, y, w, h), (x1, y1, w1, h1) in combinations(found, 2):
        assert x + w <= x1 or x1 + w1 <= x or y + h <= y1 or y1 + h1 <= y


def kinds(root: ElementTree.Element) -> set[str | None]:
    return {group.get("class") for group in root.iter(f"{SVG}g")}


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
    assert_tidy(root)
    assert kinds(root) <= {"input", "conv", "pool", "dense", "add", "output"}


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


def test_without_a_number_of_classes_the_drawing_names_none() -> None:
    root = ElementTree.fromstring(CHAIN.parse("dense-32")._repr_svg_())
    assert texts(root) == ["image", "dense 32", "classifier"]


def test_a_network_that_only_a_table_knows_is_drawn_as_its_choices(tmp_path: Path) -> None:
    space = TableSpace(save_table(tmp_path / "t.npz", op_names=np.array(["conv3x3-8", "identity", "mixed"])))
    root = ElementTree.fromstring(space.decode([0, 1, 2])._repr_svg_())
    assert texts(root) == ["input", "conv 3×3, 8", "identity", "mixed", "output"]
    assert kinds(root) == {"input", "conv", "pass", "other", "output"}


def test_a_design_in_the_making_lies_as_it_will_when_it_is_finished() -> None:
    for space in (CHAIN, CELL):
        names = [space.decisions[i].choices[i % 4] for i in range(6)]
        finished = sketch(space, names)
        for taken in range(6):
            so_far = sketch(space, [*names[:taken], *[None] * (6 - taken)])
            assert [box.inputs for box in so_far] == [box.inputs for box in finished]
            assert sum(box.kind == "open" for box in so_far) == 6 - taken
        assert_tidy(ElementTree.fromstring(draw_boxes(finished, "")))


def test_a_cell_is_wired_as_published() -> None:
    boxes = sketch(CELL, [f"op {source}{target}" for source, target in EDGES])
    nodes = [0, *(i for i, box in enumerate(boxes) if box.kind == "add")]
    wired = {box.label: (nodes.index(box.inputs[0])) for box in boxes if box.label.startswith("op")}
    assert wired == {f"op {source}{target}": source for source, target in EDGES}
    for target, node in enumerate(nodes[1:], start=1):
        assert [boxes[i].label for i in boxes[node].inputs] == [f"op {s}{t}" for s, t in EDGES if t == target]


def test_linked_nodes_read_what_their_links_say() -> None:
    space = TableSpace(published("nasbench_graph/nbgraph.npz"), known_as="nbgraph")
    boxes = sketch(space, ["0", "1", "1", None, "gcn", "gat", None, None])
    assert [box.inputs for box in boxes[1:]] == [(0,), (1,), (1,), (), (2, 3, 4)]
    assert [box.label for box in boxes] == ["input", "gcn", "gat", "?", "?", "output"]


def test_what_differs_from_an_earlier_design_is_marked() -> None:
    boxes = sketch(
        CHAIN,
        ["conv3x3-8", "identity", "dense-32", "dense-128", None, None],
        ["conv3x3-8", "max-pool", "identity", "dense-32", "dense-32", "identity"],
    )
    assert [(box.change, box.was) for box in boxes] == [
        ("", ""), ("", ""), ("removed", "max pool"), ("added", ""), ("changed", "dense 32"), *[("", "")] * 3
    ]  # fmt: skip
    root = ElementTree.fromstring(draw_boxes(boxes, ""))
    assert {"pass removed", "dense added", "dense changed"} <= kinds(root)
    assert {"max pool", "was dense 32", "+", "~", "−"} <= set(texts(root))


@pytest.mark.parametrize(
    ("now", "before", "changes"),
    [
        ("a b c", "a b c", ["", "", ""]),
        ("a x b c", "a b c", ["", "added", "", ""]),
        ("a c", "a b c", ["", "removed", ""]),
        ("a x c", "a b c", ["", "changed", ""]),
        ("", "a b", ["removed", "removed"]),
        ("a b", "", ["added", "added"]),
        ("", "", []),
    ],
)
def test_edited_chains_are_compared_layer_by_layer(now: str, before: str, changes: list[str]) -> None:
    boxes = sketch_layers(now.split(), before.split())
    assert [box.change for box in boxes[1:-1]] == changes
    assert [box.label for box in boxes[1:-1] if box.change != "removed"] == now.split()
