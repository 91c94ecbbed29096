"""The controller that comes with the package: which spaces it serves, and that it searches what it never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from typer.testing import CliRunner

import rlnas  # noqa: F401 - registers the environments
from rlnas import pretrained
from rlnas.agents.agent import Likeliest
from rlnas.agents.controller import Controller
from rlnas.agents.pretrained import Pretrained
from rlnas.agents.problem import SearchProblem
from rlnas.agents.registry import require_agent, resolve_agent
from rlnas.agents.search_run import SearchRun, run_search
from rlnas.cli import app
from rlnas.errors import CheckpointError, ConfigurationError
from rlnas.evaluator import Evaluation, Proposal
from rlnas.pretrained import CARD, CONTROLLER, Range, controller_path, each_network_once
from rlnas.search_space import CellSpace, ChainSpace, SearchSpace
from rlnas.sequential_evaluator import SequentialEvaluator
from rlnas.specs import space_from_spec
from rlnas.table import Table
from rlnas.tabular_evaluator import TableSource, TabularEvaluator
from rlnas.task import DESCRIPTOR, FewShotTask, TaskSource

SHOWN = Range((0.1,) * len(DESCRIPTOR), (0.5,) * len(DESCRIPTOR))


@pytest.fixture(scope="module")
def table() -> Table:
    return Table.from_spec("digits")


def agent_for(env: Any) -> Pretrained:
    settings = env.settings
    problem = SearchProblem(
        "rlnas/Trial-v0", {}, settings.space, env.layout, settings.designs_per_trial, settings.evaluator, None, 1
    )
    agent = resolve_agent("pretrained")(problem, 0)
    assert isinstance(agent, Pretrained)
    return agent


class Images(TaskSource):
    """Random images of one shape in some classes, one task."""

    def __init__(self, ways: int, shape: tuple[int, int, int]) -> None:
        self.ways, self.shape = ways, shape

    name = "images"
    splits = {"test": 1}  # noqa: RUF012

    def _build(self, split: str, index: int) -> FewShotTask:
        rng, classes = np.random.default_rng(0), np.arange(self.ways)
        support, query = rng.random((2, self.ways, *self.shape), dtype=np.float32)
        return FewShotTask(f"images:{split}/{index}", "images", support, classes, query, classes)

    def spec(self) -> dict[str, Any]:
        return {"kind": "images"}


class ByName:
    """Says of a design what its text has for letters; nothing is trained."""

    def evaluate(self, proposals: list[Proposal]) -> list[Evaluation]:
        return [Evaluation(len(p.architecture.text) % 17 / 17) for p in proposals]

    def spec(self) -> dict[str, Any]:
        return {"kind": "by name"}


def search(space: SearchSpace, tasks: TaskSource, evaluator: Any, designs: int, **options: Any) -> SearchRun:
    places = {"space": space, "tasks": (tasks, "test"), "evaluator": evaluator, "reference_designs": 2}
    env = gym.make_vec("rlnas/Trial-v0", num_envs=1, designs_per_trial=designs, **{**places, **options})
    return run_search(agent_for(env), env, [0], seed=0)


@pytest.mark.parametrize(
    "space",
    [
        pretrained.space(),
        pretrained.space(widths=(64,), dense_widths=(128, 256, 512, 1024), input_size=32),
        ChainSpace(4, 1, (3,), (1, 2, 3, 4)),
    ],
    ids=lambda space: space.name,
)
def test_it_serves_chains_of_its_form_whatever_their_sizes(space: ChainSpace) -> None:
    assert controller_path(space) == CONTROLLER


def test_it_serves_the_table_it_was_trained_on(table: Table) -> None:
    assert controller_path(table.space) == CONTROLLER


@pytest.mark.parametrize(
    "space",
    [
        ChainSpace(),
        ChainSpace(5, 8, (8,), (16, 32, 64, 128)),
        ChainSpace(4, 8, (8, 16), (32, 64, 128)),
        ChainSpace(4, 8, (8,), (128, 64, 32, 16)),
        CellSpace(),
    ],
    ids=lambda space: space.name,
)
def test_other_spaces_are_refused_in_a_line_that_says_which_it_serves(space: SearchSpace) -> None:
    with pytest.raises(ConfigurationError, match="chains of 4 layers with 1 width of convolutions and 4 rising dense"):
        controller_path(space)


def test_a_space_of_other_widths_than_it_serves_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="4 rising dense widths"):
        pretrained.space(dense_widths=(16, 32))


def test_each_network_once_is_what_the_table_holds(table: Table) -> None:
    once = each_network_once(pretrained.space())
    assert np.array_equal([design.choices for design in once.enumerate()], table.space.codes)
    assert each_network_once(table.space) is table.space


def test_descriptors_are_clamped_entry_by_entry() -> None:
    told = np.full((1, len(DESCRIPTOR)), 0.3, dtype=np.float32)
    told[0, :3] = (50.0, 0.05, np.float32(0.2))
    np.testing.assert_allclose(SHOWN.clamp(told)[0, :4], (0.5, 0.1, 0.2, 0.3), rtol=1e-6)
    assert told[0, 0] == 50.0


def test_features_count_as_rough() -> None:
    task = Images(3, (12, 1, 1)).task("test", 0)
    clamped = dict(zip(DESCRIPTOR, SHOWN.clamp(task.descriptor[None])[0].tolist(), strict=True))
    assert clamped["roughness_x"] == clamped["roughness_y"] == pytest.approx(0.5)
    assert clamped["size"] == pytest.approx(0.1)


def test_the_checkpoint_is_small_and_says_what_it_was_shown(table: Table) -> None:
    assert CONTROLLER.stat().st_size < 2_000_000
    about = Controller.load(CONTROLLER).about
    shown = Range.from_about(CONTROLLER, about)
    assert table.descriptors is not None
    train = table.descriptors[[split == "train" for split in table.splits or ()]]
    np.testing.assert_array_equal(shown.clamp(train), train)
    assert space_from_spec(about["space"]) == pretrained.space()


def test_a_checkpoint_that_does_not_say_what_it_was_shown_is_refused() -> None:
    for about in ({}, {pretrained.SHOWN: {"low": [0.0], "high": [1.0]}}, {pretrained.SHOWN: {"low": 1, "high": 2}}):
        with pytest.raises(CheckpointError, match=r"some\.zip: does not say which descriptors"):
            Range.from_about("some.zip", about)


def test_the_card_tells_tasks_budget_and_held_out_results() -> None:
    card = CARD.read_text()
    training = Controller.load(CONTROLLER).about["training"]
    assert f"seed {training['seed']}" in card
    for words in ("Trained on", "python benchmarks/pretrained.py", "unseen-families", "95%", "random", "portfolio"):
        assert words in card


def test_under_the_conditions_of_its_training_it_is_the_bare_controller(table: Table) -> None:
    """Where duplicates are refused and descriptors are those of training tasks, there is nothing to adapt."""
    places = {"space": table.space, "tasks": (TableSource(table), "train"), "evaluator": TabularEvaluator(table)}
    env = gym.make_vec("rlnas/Trial-v0", num_envs=6, designs_per_trial=20, duplicates="refuse", **places)
    bare, adapted = (
        run_search(agent, env, range(6), seed=0) for agent in (Likeliest(Controller.load(CONTROLLER)), agent_for(env))
    )
    assert bare.architectures.tolist() == adapted.architectures.tolist()


@pytest.mark.parametrize("duplicates", ["count", "refuse"])
@pytest.mark.parametrize(("ways", "shape", "input_size"), [(1000, (3, 16, 16), 16), (2, (30, 1, 1), 1)])
def test_no_network_is_designed_twice_on_tasks_of_any_size(
    ways: int, shape: tuple[int, int, int], input_size: int, duplicates: str
) -> None:
    space = pretrained.space(widths=(16,), input_size=input_size)
    found = search(space, Images(ways, shape), ByName(), 30, duplicates=duplicates)
    texts = found.architectures[0].tolist()
    assert len(set(texts)) == 30
    assert all(texts)


def test_when_every_network_is_made_it_goes_on() -> None:
    space = each_network_once(ChainSpace(1, 1, (8,), (16, 32, 64, 128)))
    assert space.size == 7
    with pytest.raises(ConfigurationError, match="chains of 4 layers"):
        require_agent("pretrained", SearchProblem("rlnas/Trial-v0", {}, space, None, 1, ByName(), None, 1))


def test_networks_trained_for_real_are_searched_in_a_wider_space() -> None:
    from rlnas.digits import DigitsSource

    found = search(
        pretrained.space(widths=(12,), dense_widths=(8, 24, 48, 96)), DigitsSource(), SequentialEvaluator(), 4
    )
    assert (found.accuracy > 0).all()
    assert len(set(found.architectures[0].tolist())) == 4


def test_where_networks_are_edited_it_is_refused() -> None:
    env: Any = gym.make_vec("rlnas/EditTrial-v0", num_envs=1, space=pretrained.space())
    with pytest.raises(ConfigurationError, match="cannot edit networks"):
        agent_for(env)


def test_search_takes_it_by_name(tmp_path: Path) -> None:
    arguments = ["--designs", "3", "--trials", "1", "--against", "wiped,random", "--duplicates", "refuse"]
    where = ["--tasks", "digits:test", "--device", "cpu", "--no-cache", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["search", "--agent", "pretrained", *arguments, *where, "--json"])
    assert result.exit_code == 0, result.output
    assert '"pretrained"' in result.output
    assert '"wiped"' in result.output
