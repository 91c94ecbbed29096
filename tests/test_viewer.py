"""The viewer's page: complete, self-contained, harmless whatever the names, and driven in a real browser."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from html.parser import HTMLParser
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rlnas.agents.agent import State
from rlnas.agents.controller import Controller
from rlnas.agents.evolution import RegularizedEvolution
from rlnas.agents.rl2 import RL2
from rlnas.agents.search_run import run_search
from rlnas.agents.searcher_agent import SearcherAgent
from rlnas.agents.searchers import RandomSearch
from rlnas.episode import DesignEpisode
from rlnas.errors import ConfigurationError
from rlnas.evaluator import Evaluation, Status
from rlnas.retracing import retracing_of
from rlnas.thought import Thought, Thoughts
from rlnas.viewer import TrialRecord, trial_page

from .fake_evaluator import FakeEvaluator
from .tables import save_table

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TRIAL = "rlnas/DigitsTableTrial-v0"
HOSTILE = """</script><script>window.bad = 1</script><img src=x onerror="window.bad = 1">"'<!--&lt;"""


class Thinking:
    """A controller that keeps what it thought of one trial's steps."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.thoughts: list[Thought] = []

    @torch.no_grad()
    def predict(
        self,
        observation: NDArray[np.float32],
        state: State = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], State]:
        memory = self.controller.blank(1) if state is None else tuple(torch.as_tensor(part) for part in state)
        action, logits, value, memory = self.controller.act(torch.as_tensor(observation), memory, None)
        self.thoughts.append(Thought(tuple(logits[0].softmax(0).tolist()), float(value[0]), int(action[0])))
        return action.numpy(), tuple(part.numpy() for part in memory)


def search(env_id: str, make_agent: Any, designs: int, **options: Any) -> list[DesignEpisode]:
    """A recorded trial."""
    found: list[DesignEpisode] = []
    env = gym.make_vec(env_id, num_envs=1, recorder=found.extend, designs_per_trial=designs, **options)
    run_search(make_agent(env), env, [0], seed=0)  # type: ignore[arg-type]
    env.close()
    return found


@lru_cache
def searched(name: str, designs: int = 5, env_id: str = TRIAL) -> TrialRecord:
    """A trial of random search or evolution."""
    maker = {"random": RandomSearch, "evolution": RegularizedEvolution}[name]
    options: dict[str, Any] = {} if "Table" in env_id else {"evaluator": FakeEvaluator()}
    episodes = search(
        env_id,
        lambda env: SearcherAgent(lambda seed: maker(env.settings.space, seed=seed), env.layout),
        designs,
        **options,
    )
    return TrialRecord(episodes, None, name)


@lru_cache
def thought(designs: int = 5) -> TrialRecord:
    """A trial of a controller that has learned a little, with its thoughts."""
    env = gym.make_vec(TRIAL, num_envs=8, designs_per_trial=designs)
    learner = RL2(env, seed=0).learn(8 * 4 * designs)
    env.close()
    agent = Thinking(learner.controller)
    episodes = search(TRIAL, lambda env: agent, designs, duplicates="refuse")
    thoughts = iter(agent.thoughts)
    return TrialRecord(episodes, [[next(thoughts) for _ in e.actions] for e in episodes], "rl2")


def invented(episodes: list[DesignEpisode]) -> Thoughts:
    """Thoughts with probabilities of many digits."""
    rng = np.random.default_rng(0)
    masks = [[np.array([bit == "1" for bit in mask]) for mask in e.masks] for e in episodes]
    weights = [[mask * rng.exponential(size=len(mask)) for mask in row] for row in masks]
    return [[Thought(tuple((w / w.sum()).tolist()), float(rng.normal())) for w in row] for row in weights]


class Elements(HTMLParser):
    """The elements, attributes and scripts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        else:
            self.words.append(data)

    def values(self, *names: str) -> list[str]:
        return [value for name, value in self.attributes if name in names]

    @property
    def data(self) -> Any:
        return json.loads(next(text for attrs, text in self.scripts if attrs.get("id") == "data"))


def test_the_page_loads_nothing_and_runs_its_own_script_alone() -> None:
    page = Elements(trial_page([searched("random"), thought()], "Two"))
    (policy,) = [value for value in page.values("content") if "default-src" in value]
    code = [text for attrs, text in page.scripts if attrs.get("type") != "application/json"]
    digest = b64encode(hashlib.sha256(code[0].encode()).digest()).decode()
    assert len(code) == 1
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}';" in policy
    assert "unsafe-eval" not in policy
    references = page.values("src", "href", "xlink:href", "action", "data", "poster")
    assert references
    assert all(reference.startswith(("#", "data:")) for reference in references)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not re.search(r"\beval\(|new Function|innerHTML|outerHTML|document\.write|fetch\(|import\(", code[0])


@pytest.mark.parametrize(("env_id", "most"), [(TRIAL, 200_000), ("rlnas/EditTrial-v0", 400_000)])
def test_fifty_designs_stay_small(env_id: str, most: int) -> None:
    record = searched("random", 50, env_id)
    one, two = (replace(record, thoughts=invented(list(record.episodes)), label=name) for name in "ab")
    for trials in ([one], [one, two]):
        assert len(trial_page(trials, "Fifty").encode()) < most


def test_the_page_holds_every_decision_with_its_probabilities() -> None:
    record = thought()
    assert record.thoughts is not None
    (trial,) = Elements(trial_page([record], "One")).data["trials"]
    for episode, row, design in zip(record.episodes, record.thoughts, trial["designs"], strict=True):
        assert design["steps"][-1]["design"] == list(retracing_of(episode.env).tell(episode))[-1].design
        assert design["accuracy"] == pytest.approx(episode.evaluation.accuracy, abs=1e-5)
        for action, mask, what, step in zip(episode.actions, episode.masks, row, design["steps"], strict=True):
            legal = [choice for choice, bit in enumerate(mask) if bit == "1"]
            assert step["p"] == [float(f"{what.probabilities[choice]:.3g}") for choice in legal]
            assert step["legal"].index(step["choice"]) == legal.index(action)
            assert step["value"] == float(f"{what.value:.3g}")


def test_what_changed_since_the_design_before_is_said() -> None:
    (trial,) = Elements(trial_page([searched("random", 10)], "One")).data["trials"]
    finals = [[trial["boxes"][box] for box in design["steps"][-1]["boxes"]] for design in trial["designs"]]
    assert all(change == "" for _, _, change, _ in finals[0])
    for before, after in pairwise(finals):
        for (old_kind, old, *_), (kind, label, change, was) in zip(before, after, strict=True):
            same, nothing, had_nothing = (old_kind, old) == (kind, label), kind == "pass", old_kind == "pass"
            expected = "" if same else "added" if had_nothing else "removed" if nothing else "changed"
            assert change == expected
            assert was == (old if change in ("changed", "removed") else "")


def test_of_very_many_choices_the_likeliest_are_named(tmp_path: Path) -> None:
    path = save_table(tmp_path / "wide.npz", ops=np.arange(200)[:, None], score=np.ones((200, 2)))
    episode = hand_made(path, (150,), ("1" * 200,))
    weights = np.arange(200) / np.arange(200).sum()
    record = TrialRecord([episode], [[Thought(tuple(weights.tolist()))]], "wide")
    (trial,) = Elements(trial_page([record], "Wide")).data["trials"]
    (step,) = trial["designs"][0]["steps"]
    assert [trial["words"][word] for word in step["legal"]] == ["150", *map(str, range(177, 200))]
    assert step["count"] == 200


def test_what_cannot_be_shown_is_refused() -> None:
    record = thought()
    with pytest.raises(ConfigurationError, match="trials must be 1 to 2, got 0"):
        trial_page([], "None")
    with pytest.raises(ConfigurationError, match="trials must be 1 to 2, got 3"):
        trial_page([record] * 3, "Three")
    with pytest.raises(ConfigurationError, match=r"thoughts of 'rl2' must be \[4, 4, 4, 4, 4\], .* got \[4\]"):
        TrialRecord(record.episodes, [[Thought()] * 4], "rl2")
    with pytest.raises(ConfigurationError, match="must have a design"):
        TrialRecord([], None, "nobody")


def test_equal_trials_make_equal_pages() -> None:
    assert trial_page([thought()], "One") == trial_page([thought()], "One")


def hand_made(table: Path, actions: tuple[int, ...], masks: tuple[str, ...], **changes: Any) -> DesignEpisode:
    values: dict[str, Any] = {
        "agent": "agent",
        "trial": 0,
        "design": 0,
        "seed": 0,
        "env": {"id": "rlnas/Trial-v0", "space": {"kind": "table", "path": str(table)}},
        "task": "table:task",
        "task_digest": "",
        "evaluation_seed": 0,
        "actions": actions,
        "masks": masks,
        "rewards": (0.0,) * (len(actions) - 1) + (0.5,),
        "architecture": "-".join(map(str, actions)),
        "evaluation": Evaluation(0.5),
        "best": 0.5,
    }
    return DesignEpisode(**(values | changes))


def hostile(folder: Path) -> TrialRecord:
    """A trial in which every text is an attack; its second design ended with an illegal choice."""
    names = np.array([HOSTILE + str(i) for i in range(3)])
    path = save_table(folder / "hostile.npz", op_names=names, decision_names=np.array([HOSTILE, "b", "c"]))
    crashed = Evaluation(0.0, status=Status.CRASHED, message=HOSTILE)
    texts: dict[str, Any] = {"agent": HOSTILE, "task": HOSTILE, "architecture": HOSTILE, "evaluation": crashed}
    env = {"id": HOSTILE, "space": {"kind": "table", "path": str(path)}}
    invalid = Evaluation(0.0, status=Status.INVALID, message=HOSTILE)
    return TrialRecord(
        [
            hand_made(path, (0, 1, 2), ("111", "110", "011"), **texts, env=env),
            hand_made(path, (0, 9), ("111", "110"), **{**texts, "architecture": "", "evaluation": invalid}, env=env),
        ],
        None,
        HOSTILE,
    )


def test_texts_are_text_and_nothing_more(tmp_path: Path) -> None:
    page = Elements(trial_page([hostile(tmp_path)], HOSTILE))
    usual = Elements(trial_page([searched("random")], "Usual"))
    assert len(page.scripts) == len(usual.scripts) == 2
    assert set(page.elements) == set(usual.elements) | {"em"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert any(HOSTILE in words for words in page.words)
    assert page.data["trials"][0]["label"] == HOSTILE


def test_designs_draw_themselves_in_a_notebook(tmp_path: Path) -> None:
    episode = thought().episodes[2]
    page = Elements(episode._repr_html_() or "")
    assert page.elements.count("svg") == 1
    assert page.elements.count("tr") == 1 + len(episode.actions)
    assert f"{episode.evaluation.accuracy:.4f}" in page.words
    lost = replace(episode, env={"space": {"kind": "table", "path": str(tmp_path / "lost.npz")}})
    assert lost._repr_html_() is None
    attacked = Elements(hostile(tmp_path).episodes[0]._repr_html_() or "")
    assert not {"script", "img"} & set(attacked.elements)


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    driver = pytest.importorskip("playwright.sync_api")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Viewed:
    """A page in a browser, and all that it said and asked for."""

    def __init__(self, browser: Browser, path: Path, trials: list[TrialRecord], hash: str = "", **options: Any) -> None:
        path.write_text(trial_page(trials, "A trial"), encoding="utf-8")
        self.page: Page = browser.new_page(**options)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri() + hash)
        self.own = path.as_uri()

    @property
    def where(self) -> str:
        return self.page.locator("#where").inner_text()

    def press(self, *keys: str) -> str:
        for key in keys:
            self.page.keyboard.press(key)
        return self.where

    def becomes(self, where: str) -> None:
        """Wait until the page is there."""
        self.page.locator("#where", has_text=where).wait_for()

    def close(self) -> None:
        """Nothing was said, nothing was asked for, and nothing is wider than the window."""
        wide = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        self.page.close()
        assert self.said == []
        assert [url for url in self.asked if not url.startswith(("data:", self.own))] == []
        assert wide <= 0


@in_browser
def test_keys_step_through_decisions_and_designs(browser: Browser, tmp_path: Path) -> None:
    viewed = Viewed(browser, tmp_path / "one.html", [thought()])
    assert viewed.where == "Design 1 of 5, step 1 of 4"
    assert viewed.press("ArrowLeft") == "Design 1 of 5, step 1 of 4"
    assert viewed.press("ArrowRight") == "Design 1 of 5, step 2 of 4"
    assert viewed.press("ArrowRight", "ArrowRight", "ArrowRight") == "Design 2 of 5, step 1 of 4"
    assert viewed.press("Shift+ArrowRight") == "Design 3 of 5, step 1 of 4"
    assert viewed.press("PageDown", "ArrowRight") == "Design 4 of 5, step 2 of 4"
    assert viewed.press("PageUp") == "Design 3 of 5, step 2 of 4"
    assert viewed.press("Shift+ArrowLeft", "Home") == "Design 1 of 5, step 1 of 4"
    assert viewed.press("End") == "Design 5 of 5, step 4 of 4"
    viewed.page.locator("#scrubber").focus()  # the slider's own keys do the same, once
    assert viewed.press("ArrowLeft") == "Design 5 of 5, step 3 of 4"
    viewed.press("?")
    assert viewed.page.locator("#help").is_visible()
    assert viewed.press("ArrowLeft", "Escape") == "Design 5 of 5, step 3 of 4"
    viewed.page.get_by_role("button", name="Keys").click()
    viewed.page.get_by_role("button", name="Close").click()
    assert not viewed.page.locator("#help").is_visible()
    viewed.close()


@in_browser
def test_a_step_shows_what_was_recorded(browser: Browser, tmp_path: Path) -> None:
    record = thought()
    assert record.thoughts is not None
    viewed = Viewed(browser, tmp_path / "one.html", [record], "#3.4")
    assert viewed.where == "Design 3 of 5, step 4 of 4"
    episode, what = record.episodes[2], record.thoughts[2][3]
    slot = {name: viewed.page.locator(f"[data-slot={name}]") for name in ("value", "accuracy", "best", "reward")}
    assert slot["accuracy"].inner_text() == f"{episode.evaluation.accuracy:.4f}"
    assert slot["best"].inner_text() == f"{episode.best:.4f}"
    assert float(slot["value"].inner_text().replace("−", "-")) == pytest.approx(what.value, abs=2e-3)
    bars = viewed.page.locator("[data-slot=bars] li")
    assert bars.count() == episode.masks[3].count("1")
    fills = bars.locator(".fill").evaluate_all("fills => fills.map((fill) => parseFloat(fill.style.width))")
    likely = [p for p, bit in zip(what.probabilities, episode.masks[3], strict=True) if bit == "1"]
    assert fills == pytest.approx([100 * p for p in likely], abs=0.1)
    assert viewed.page.locator("[data-slot=bars] .taken .mark").inner_text() == "✓ taken"
    drawing = viewed.page.locator("[data-slot=drawing] svg")
    assert drawing.get_attribute("role") == "img"
    assert drawing.locator("g").count() == 6
    assert viewed.press("ArrowLeft") == "Design 3 of 5, step 3 of 4"
    assert slot["accuracy"].inner_text() == "–"
    assert drawing.locator("g.open").count() == 1
    viewed.page.wait_for_url("**#3.3")
    viewed.page.evaluate("location.hash = '#2.1'")
    viewed.becomes("Design 2 of 5")
    viewed.close()


@in_browser
def test_it_plays_to_the_end_at_a_speed_and_pauses(browser: Browser, tmp_path: Path) -> None:
    viewed = Viewed(browser, tmp_path / "one.html", [thought()], reduced_motion="reduce")
    button = viewed.page.get_by_role("button", name="Play", exact=True)
    button.click()
    viewed.page.get_by_role("button", name="Pause").click()
    paused = viewed.where
    assert paused.startswith(("Design 1 ", "Design 2 "))
    viewed.page.get_by_label("Speed").select_option("5")
    viewed.page.evaluate("document.activeElement.blur()")
    assert viewed.where == paused
    viewed.press("End", "ArrowLeft", "ArrowLeft", "Space")
    viewed.becomes("Design 5 of 5, step 4 of 4")
    button.wait_for()  # it stopped by itself
    viewed.page.get_by_label("Speed").select_option("1")
    viewed.page.evaluate("document.activeElement.blur()")
    viewed.press("Space")  # from the end it begins again
    viewed.becomes("Design 1 of 5, step 3 of 4")
    assert viewed.press("Space").startswith("Design 1 ")
    viewed.close()


@in_browser
def test_the_scrubber_and_the_curve_lead_to_designs(browser: Browser, tmp_path: Path) -> None:
    viewed = Viewed(browser, tmp_path / "one.html", [thought()])
    scrubber = viewed.page.get_by_role("slider", name="Decision")
    scrubber.fill("9")
    assert viewed.where == "Design 3 of 5, step 2 of 4"
    assert scrubber.get_attribute("aria-valuetext") == viewed.where
    assert viewed.page.locator("#live").inner_text().startswith(viewed.where + ". rl2: layer 2, ")
    box = viewed.page.locator("#curve svg").bounding_box()
    assert box is not None
    viewed.page.mouse.click(box["x"] + box["width"] - 15, box["y"] + 30)
    assert viewed.where == "Design 5 of 5, step 4 of 4"
    assert viewed.page.locator("#curve .point").count() == 2 * 5  # pale, and what is past
    viewed.page.get_by_text("All designs of rl2").click()
    viewed.page.get_by_role("link", name="2").click()
    viewed.becomes("Design 2 of 5, step 4 of 4")
    viewed.close()


@in_browser
@pytest.mark.parametrize(("width", "stacked"), [(400, True), (1600, False)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_two_trials_are_compared_at_any_width(
    browser: Browser, tmp_path: Path, width: int, stacked: bool, scheme: str
) -> None:
    pair = [thought(), replace(searched("evolution", 4), label="evolution?" + "unbroken" * 20)]
    options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    viewed = Viewed(browser, tmp_path / "two.html", pair, "#3.4", **options)
    assert viewed.page.get_by_role("button", name="? Keys", exact=True).is_visible()
    places = [viewed.page.locator(".trial").nth(i).bounding_box() for i in (0, 1)]
    assert places[0] is not None
    assert places[1] is not None
    assert (places[1]["x"] == places[0]["x"]) == stacked
    for panel, record in enumerate(pair):
        accuracy = viewed.page.locator("[data-slot=accuracy]").nth(panel).inner_text()
        assert accuracy == f"{record.episodes[2].evaluation.accuracy:.4f}"
    headings = viewed.page.locator("[data-slot=heading]").all_inner_texts()
    assert headings[0].startswith("Probabilities of ")
    assert headings[1].endswith("; probabilities: not known")
    back = viewed.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(back.strip("rgb()").split(",")[0]) < 64) == (scheme == "dark")
    assert viewed.press("End") == "Design 5 of 5, step 4 of 4"
    assert viewed.page.locator("[data-slot=decision]").nth(1).inner_text().startswith("ended with design 4")
    viewed.close()


@in_browser
def test_what_is_not_evaluated_yet_is_not_told(browser: Browser, tmp_path: Path) -> None:
    record = thought()
    viewed = Viewed(browser, tmp_path / "one.html", [record])
    slot = viewed.page.locator("[data-slot=best]")
    points = viewed.page.locator("#curve g:last-child .point").all()
    centres = {name: [float(point.get_attribute(name) or 0) for point in points] for name in ("cx", "cy")}
    line = viewed.page.locator("#curve g:last-child .best").get_attribute("d") or ""
    assert [float(y) for y in re.findall(r"[V ]([\d.]+)", line)] == list(accumulate(centres["cy"], min))
    shown = []
    for number in range(1, 1 + len(record.episodes)):
        for step in (1, 4):
            viewed.page.evaluate(f"location.hash = '#{number}.{step}'")
            viewed.becomes(f"Design {number} of 5, step {step} of 4")
            shown.append(slot.inner_text())
            past = float(viewed.page.locator("#past rect").get_attribute("width") or 0)
            assert sum(x < past for x in centres["cx"]) == number - (step == 1)
    best = [f"{episode.best:.4f}" for episode in record.episodes]
    assert len(set(best)) > 1
    assert shown == [text for before, after in pairwise(["–", *best]) for text in (before, after)]
    viewed.close()


@in_browser
def test_a_design_that_failed_is_told_by_its_shape(browser: Browser, tmp_path: Path) -> None:
    episodes = list(searched("random").episodes)
    lost = replace(episodes[1], evaluation=Evaluation(0.0, status=Status.DIVERGED, message="the loss is not a number"))
    viewed = Viewed(browser, tmp_path / "one.html", [TrialRecord([episodes[0], lost, *episodes[2:]], None, "random")])
    points = viewed.page.locator("#curve g:last-child .point")
    fills = [points.nth(i).evaluate("point => getComputedStyle(point).fill") for i in range(len(episodes))]
    assert fills[1] == viewed.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert fills[1] not in (fills[0], *fills[2:])
    assert viewed.page.locator(".legend").get_by_text("failed").is_visible()
    viewed.close()
    viewed = Viewed(browser, tmp_path / "one.html", [searched("random")])
    assert viewed.page.locator(".legend").get_by_text("failed").count() == 0
    viewed.close()


@in_browser
def test_without_scripts_there_are_the_tables(browser: Browser, tmp_path: Path) -> None:
    viewed = Viewed(browser, tmp_path / "one.html", [searched("random")], java_script_enabled=False)
    assert not viewed.page.get_by_role("group", name="Player").is_visible()
    assert not viewed.page.locator(".trial").is_visible()
    viewed.page.get_by_text("All designs of random").click()
    assert viewed.page.get_by_role("row").count() == 6
    viewed.page.close()


@in_browser
def test_a_trial_of_one_design_is_shown(browser: Browser, tmp_path: Path) -> None:
    viewed = Viewed(browser, tmp_path / "one.html", [searched("random", 1)])
    assert viewed.press("PageDown", "End") == "Design 1 of 1, step 4 of 4"
    assert viewed.page.locator("[data-slot=changes]").inner_text() == "The first design of the trial."
    viewed.close()


@in_browser
def test_the_browser_would_have_told(browser: Browser, tmp_path: Path) -> None:
    """Of errors and of requests, which the page's policy refuses besides."""
    viewed = Viewed(browser, tmp_path / "one.html", [searched("random", 1)])
    viewed.page.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://elsewhere.test/x.png'}))")
    viewed.page.evaluate("document.body.setAttribute('onclick', 'window.bad = 1')")
    viewed.page.evaluate("document.body.click()")
    assert viewed.page.evaluate("window.bad") is None
    assert any("elsewhere.test" in text for text in viewed.said)
    assert any("inline event handler" in text for text in viewed.said)
    with pytest.raises(AssertionError):
        viewed.close()


@in_browser
def test_hostile_texts_do_nothing_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    viewed = Viewed(browser, tmp_path / "hostile.html", [hostile(tmp_path)], viewport={"width": 400, "height": 900})
    viewed.press("End")
    assert viewed.where == "Design 2 of 2, step 2 of 2"
    assert viewed.page.locator("[data-slot=bars] .taken").inner_text().endswith("✗ illegal")
    assert viewed.page.evaluate("window.bad") is None
    assert viewed.page.locator("img").count() == 0
    viewed.close()


@in_browser
def test_everything_can_be_reached_and_is_named(browser: Browser, tmp_path: Path) -> None:
    viewed = Viewed(browser, tmp_path / "one.html", [thought()])
    reached = []
    for _ in range(9):
        viewed.page.keyboard.press("Tab")
        name = "e => e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent"
        outlined = viewed.page.evaluate("getComputedStyle(document.activeElement).outlineStyle !== 'none'")
        reached.append((viewed.page.evaluate(f"({name})(document.activeElement)").strip().split("\n")[0], outlined))
    names = [name for name, _ in reached]
    assert names[:5] == ["Previous design", "Step back", "Play", "Step on", "Next design"]
    assert {"? Keys", "Decision", "All designs of rl2"} <= set(names)
    assert all(outlined for _, outlined in reached)
    viewed.close()
