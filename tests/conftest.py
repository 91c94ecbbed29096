"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _no_cache_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Commands that fixtures run share evaluations among themselves at most."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLNAS_CACHE", str(folder / "session.sqlite"))
        yield folder


@pytest.fixture(autouse=True)
def _own_cache(_no_cache_of_the_users: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test finds no evaluations of another's, or what takes time alone would take none after it."""
    monkeypatch.setenv("RLNAS_CACHE", str(_no_cache_of_the_users / f"{abs(hash(request.node.nodeid))}.sqlite"))
