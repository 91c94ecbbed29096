"""What is installed: ``rlnas`` with its two wings, and nothing that takes a user's own names."""

from __future__ import annotations

import email
import importlib
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import rlnas
from rlnas.registration import PRESETS, PROBLEMS

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {"rlnas": "rlnas", "rlnas.envs": "envs", "rlnas.agents": "agents"}
"""Every package and the folder that it is made from."""


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run code with the installed packages alone: neither the current folder nor PYTHONPATH is searched."""
    return subprocess.run([sys.executable, "-I", "-c", code], cwd=cwd, capture_output=True, text=True, check=False)


def test_the_listed_packages_are_the_folders_that_hold_modules() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    assert setuptools["packages"] == list(FOLDERS)
    assert setuptools["package-dir"] == {name: folder for name, folder in FOLDERS.items() if name != folder}
    found = {str(path.parent.relative_to(ROOT)) for top in FOLDERS.values() for path in (ROOT / top).rglob("*.py")}
    assert found == set(FOLDERS.values())


def test_the_versions_agree() -> None:
    assert rlnas.__version__ == PROJECT["project"]["version"]


def test_every_core_module_has_its_place_under_the_import_rule() -> None:
    (contract,) = PROJECT["tool"]["importlinter"]["contracts"]
    listed = [name.strip() for layer in contract["layers"] for name in layer.replace("|", ":").split(":")]
    modules = {path.stem for path in (ROOT / "rlnas").glob("*.py")} - {"__init__"}
    assert sorted(listed) == sorted(modules | {"agents", "envs"})


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: setuptools leaves its work in the folder, and takes up what it left before
    for name in FOLDERS.values():
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", str(source), "--no-deps", "--quiet", "--wheel-dir", str(folder)]
    build = [*command, "--no-build-isolation"] if _builds_here() else command
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    result = subprocess.run(build, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if result.returncode and "Could not find a version that satisfies the requirement setuptools" in result.stderr:
        pytest.skip("setuptools is neither installed nor to be had")
    assert result.returncode == 0, result.stderr
    (path,) = folder.glob("*.whl")
    return path


def _builds_here() -> bool:
    """Whether the setuptools that is installed can build the package."""
    try:
        setuptools = importlib.import_module("setuptools")
    except ImportError:
        return False
    return int(setuptools.__version__.split(".")[0]) >= 77


def test_the_wheel_holds_the_three_folders_as_one_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {name for name in names if ".dist-info/" not in name}
    expected = {
        f"{package.replace('.', '/')}/{path.name}"
        for package, folder in FOLDERS.items()
        for path in (ROOT / folder).glob("*.py")
    }
    data = {"py.typed", "controllers/chain.md", "controllers/chain.zip", "tables/digits.npz", "viewer.css", "viewer.js"}
    assert modules == expected | {f"rlnas/{name}" for name in data}


def test_the_wheel_says_what_it_is_and_brings_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        (scripts,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        fields = email.message_from_bytes(archive.read(metadata))
        assert fields["Name"] == "rlnas"
        assert fields["Version"] == rlnas.__version__
        assert "rlnas = rlnas.cli:main" in archive.read(scripts).decode()


def test_the_wheel_works_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import rlnas, rlnas.envs.design, rlnas.agents.agent\n"
        "print(rlnas.__file__, rlnas.envs.design.__file__, rlnas.agents.agent.__file__, sep='\\n')"
    )
    result = python(code, tmp_path)
    assert result.returncode == 0, result.stderr
    assert all(Path(line).is_relative_to(tmp_path / "site") for line in result.stdout.split())


@pytest.mark.parametrize("name", ["envs", "agents", "tests", "benchmarks"])
def test_users_keep_their_own_names(name: str, tmp_path: Path) -> None:
    assert python("import rlnas", tmp_path).returncode == 0
    result = python(f"import {name}", tmp_path)
    assert f"ModuleNotFoundError: No module named '{name}'" in result.stderr


def test_importing_rlnas_registers_every_id_and_loads_neither_torch_nor_a_wing(tmp_path: Path) -> None:
    code = (
        "import sys, rlnas, gymnasium\n"
        "loaded = [name for name in sys.modules if name.split('.')[0] == 'torch'"
        " or name.startswith(('rlnas.envs', 'rlnas.agents'))]\n"
        "print(*sorted(id for id in gymnasium.registry if id.startswith('rlnas/')), *loaded, sep='\\n')"
    )
    result = python(code, tmp_path)
    assert result.stdout.split() == sorted([*PRESETS, *PROBLEMS]), result.stderr


@pytest.mark.parametrize("env_id", [*PRESETS, *PROBLEMS])
def test_every_id_leads_to_classes_that_exist(env_id: str) -> None:
    spec = gym.spec(env_id)
    for entry_point in (spec.entry_point, spec.vector_entry_point):
        assert isinstance(entry_point, str)
        module, _, name = entry_point.partition(":")
        assert isinstance(getattr(importlib.import_module(module), name), type)
