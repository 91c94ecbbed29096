"""Options of the form NAME=VALUE."""

from __future__ import annotations

import pytest

from rlnas.errors import ConfigurationError, UnknownNameError
from rlnas.options import learner_options, task_options

DEFAULTS = {"epochs": 6, "clip": 0.2}


def test_a_learners_settings_have_the_types_of_their_defaults() -> None:
    values = learner_options(["epochs=3", "clip=1", "clip=2e-1"], DEFAULTS)
    assert values == {"epochs": 3, "clip": 0.2}
    assert [type(value) for value in values.values()] == [int, float]
    assert learner_options([], DEFAULTS) == {}


def test_an_unknown_setting_is_named_with_its_nearest_neighbour() -> None:
    with pytest.raises(UnknownNameError, match=r"'epoch'; did you mean 'epochs'\?"):
        learner_options(["epoch=3"], DEFAULTS)


@pytest.mark.parametrize("text", ["epochs", "epochs=", "epochs=2.5", "epochs=many"])
def test_a_setting_that_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"'epochs' must be a whole number, got '{text}'"):
        learner_options([text], DEFAULTS)


def test_a_setting_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'clip' must be a number"):
        learner_options(["clip=wide"], DEFAULTS)


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("1-20", (1, 20)), ("images", "images"), ("two-words", "two-words"), ("-3", "-3"), ("a=b", "a=b")],
)
def test_task_options_are_numbers_ranges_or_words(text: str, value: object) -> None:
    assert task_options([f"ways={text}"]) == {"ways": value}


@pytest.mark.parametrize("text", ["ways", "ways="])
def test_a_task_option_needs_a_value(text: str) -> None:
    with pytest.raises(ConfigurationError, match="NAME=VALUE"):
        task_options([text])


@pytest.mark.parametrize("name", ["kind", "text", "download", "way"])
def test_a_task_option_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown task option '{name}'"):
        task_options([f"{name}=1"])
