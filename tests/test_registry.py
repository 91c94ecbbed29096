"""Agents by name, and users' own."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import numpy as np
import pytest

from rlnas.agents.agent import Agent
from rlnas.agents.problem import SearchProblem
from rlnas.agents.registry import AGENTS, SEARCHERS, named_agents, resolve_agent
from rlnas.agents.search_run import SearchRun, run_search
from rlnas.envs.observation import ObservationLayout
from rlnas.errors import ConfigurationError, UnknownNameError
from rlnas.table import Table

from .hidden import SPACE, HiddenEvaluator, HiddenSource, hidden_env

EXAMPLE = Path(__file__).parent / "examples" / "own_searcher.py"

OWN = """
import numpy as np
from rlnas.agents.searchers import RandomSearch, Searcher
class Own(RandomSearch):
    pass
class Bare:
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros(len(observation), dtype=np.int64), state
class Made(Bare):
    def __init__(self, problem, seed):
        self.designs, self.seed = problem.designs, seed
ready = Bare()
class NoTell(Searcher):
    def ask(self):
        return None
class OneArgument(RandomSearch):
    def __init__(self, space):
        super().__init__(space)
class AskNothing(RandomSearch):
    def ask(self):
        return None
class OnlyProblem(Bare):
    def __init__(self, problem):
        pass
def only_problem(problem):
    return Bare()
def function(problem, seed):
    return Made(problem, seed)
def wrong(problem, seed):
    return 3
number = 3
"""


def problem(designs: int = 6) -> SearchProblem:
    return SearchProblem(
        env="rlnas/Trial-v0",
        env_options={"space": SPACE},
        space=SPACE,
        layout=ObservationLayout(SPACE),
        designs=designs,
        evaluator=HiddenEvaluator(),
        training=(HiddenSource(), "train"),
        training_steps=1,
    )


def search(agent: Agent, designs: int = 6, trials: int = 3) -> SearchRun:
    return run_search(agent, hidden_env(trials, designs, split="test"), range(trials), seed=0)


@pytest.mark.parametrize(
    "name",
    [name for name in AGENTS if name not in ("rl2-cloned", "pretrained")],  # which want a table, and another space
)
def test_every_agent_searches_alike_for_equal_seeds(name: str) -> None:
    first, second = (search(resolve_agent(name)(problem(), 4)) for _ in range(2))
    assert first.architectures.tolist() == second.architectures.tolist()
    assert first.accuracy.shape == (3, 6)


@pytest.mark.parametrize("name", SEARCHERS)
def test_runs_with_consecutive_seeds_share_no_search(name: str) -> None:
    one, two = (search(resolve_agent(name)(problem(), seed)) for seed in (0, 1))
    trials = [tuple(designs) for run in (one, two) for designs in run.architectures.tolist()]
    assert len(set(trials)) == len(trials)


@pytest.mark.parametrize("name", SEARCHERS)
def test_searchers_are_made_for_a_space_a_budget_and_a_seed(name: str) -> None:
    for designs in (1, 2, 10, 100):
        searcher = SEARCHERS[name](SPACE, designs, 5)
        assert searcher.space == SPACE
        assert searcher.ask() == SEARCHERS[name](SPACE, designs, 5).ask()


PUBLISHED = {  # Dong & Yang 2020: mean and deviation of the test accuracy on CIFAR-10, CIFAR-100 and ImageNet16-120
    "random": ((93.70, 0.36), (71.04, 1.07), (44.57, 1.25)),
    "evolution": ((93.92, 0.30), (71.84, 0.99), (45.15, 0.89)),
    "reinforce": ((93.85, 0.37), (71.71, 1.09), (45.24, 1.18)),
}


@pytest.mark.slow
@pytest.mark.skipif("RLNAS_DATA" not in os.environ, reason="needs the tables that RLNAS_DATA points to")
@pytest.mark.parametrize("name", PUBLISHED)
def test_on_nas_bench_201_searchers_find_what_was_published(name: str) -> None:
    """90 networks, chosen by 12-epoch CIFAR-10 validation; the published searches had 12,000 seconds of training."""
    path = Path(os.environ["RLNAS_DATA"]) / "nasbench201" / "nb201.npz"
    table = Table.load(path, "val_12", tasks=["cifar10"])
    test = Table.load(path, "test_200", "percent", ["cifar10", "cifar100", "imagenet16-120"]).accuracy * 100
    found = []
    for seed in range(500):
        searcher, accuracy = SEARCHERS[name](table.space, 90, 10_000 + seed), {}
        for _ in range(90):
            design = searcher.ask()
            row = int(table.space.rank(np.array([design.choices]))[0])
            accuracy[row] = float(table.accuracy[row, 0])
            searcher.tell(design, accuracy[row])
        found.append(test[max(accuracy, key=lambda row: accuracy[row])])
    mean, deviation = np.transpose(PUBLISHED[name])
    assert (np.abs(np.mean(found, axis=0) - mean) < 0.25 * deviation).all()


def test_the_example_of_a_users_own_searcher_takes_part_and_has_at_most_20_lines_of_code() -> None:
    run = search(resolve_agent(f"{EXAMPLE}:KeepTheBest")(problem(30), 0), 30, trials=10)
    random = search(resolve_agent("random")(problem(30), 0), 30, trials=10)
    assert run.best_so_far[:, -1].mean() >= random.best_so_far[:, -1].mean()
    _, *code = ast.parse(EXAMPLE.read_text()).body  # without the docstring
    assert sum(bool(line.strip()) for node in code for line in ast.unparse(node).splitlines()) <= 20


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    return path


@pytest.mark.parametrize("attribute", ["Own", "Bare", "Made", "ready", "function"])
def test_users_own_agents_come_from_a_file(own: Path, attribute: str) -> None:
    agent = resolve_agent(f"{own}:{attribute}")(problem(), 7)
    action, _ = agent.predict(np.zeros((2, problem().layout.size), dtype=np.float32))
    assert action.shape == (2,)
    if attribute in ("Made", "function"):
        assert (agent.designs, agent.seed) == (6, 7)  # type: ignore[attr-defined]


def test_users_own_agents_come_from_a_module(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(own.parent)
    assert type(resolve_agent("mine:function")(problem(), 0)).__name__ == "Made"


def test_an_unknown_agent_is_named_with_the_nearest_known() -> None:
    with pytest.raises(UnknownNameError, match="unknown agent 'evolutoin'; did you mean 'evolution'"):
        resolve_agent("evolutoin")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{folder}/absent.py:Own", "FileNotFoundError"),
        ("no_such_package.at_all:Own", "ModuleNotFoundError"),
        ("{folder}/mine.py:Absent", "AttributeError.*Absent"),
        ("{folder}/broken.py:Own", "SyntaxError"),
        (":Own", "cannot be had"),
        ("{folder}/mine.py:", "cannot be had"),
        ("{folder}/mine.py:number", "must be a Searcher class"),
        ("{folder}/mine.py:NoTell", "lacks tell"),
        ("{folder}/mine.py:OneArgument", "must take a space and a seed"),
        ("{folder}/mine.py:OnlyProblem", "must take a problem and a seed, or nothing"),
        ("{folder}/mine.py:only_problem", "must take a problem and a seed"),
    ],
)
def test_where_an_agent_cannot_be_had_one_line_says_why(own: Path, text: str, said: str) -> None:
    (own.parent / "broken.py").write_text("def (:\n")
    name = text.format(folder=own.parent)
    with pytest.raises(ConfigurationError, match=f"{re.escape(repr(name))}.*{said}") as caught:
        resolve_agent(name)
    assert "\n" not in str(caught.value)


def test_a_text_may_name_settings_and_what_an_agent_is_shown_as() -> None:
    named = named_agents(["random", "large=genetic?population_size=200&mutation=.5", "runs/a"])
    assert named == {"random": "random", "large": "genetic?population_size=200&mutation=.5", "runs/a": "runs/a"}
    alike = [search(resolve_agent(text)(problem(), 4)) for text in ("evolution", "evolution?population_size=2")]
    assert alike[0].architectures.tolist() == alike[1].architectures.tolist()  # what a budget of 6 makes of it
    other = search(resolve_agent("evolution?population_size=5&sample_size=1")(problem(), 4))
    assert other.architectures.tolist() != alike[0].architectures.tolist()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("genetic?populatoin_size=3", "did you mean 'population_size'"),
        ("genetic?population_size=many", "NAME=NUMBER"),
        ("genetic?population_size=0", "population_size must be"),
        ("rl2?steps=3", "unknown searcher with settings 'rl2'"),
    ],
)
def test_a_setting_that_is_not_allowed_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        search(resolve_agent(text)(problem(), 0))


def test_two_agents_are_not_shown_under_one_name() -> None:
    with pytest.raises(ConfigurationError, match="two agents are called 'a'"):
        named_agents(["a=random", "a=evolution"])


def test_an_agent_may_have_its_memory_wiped() -> None:
    assert type(resolve_agent("wiped:random")(problem(), 0)).__name__ == "MemoryWiped"


def test_a_searcher_that_asks_for_no_architecture_is_named(own: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"AskNothing\.ask must return an Architecture, got None"):
        search(resolve_agent(f"{own}:AskNothing")(problem(), 0))
