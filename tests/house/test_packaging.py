"""What is installed is complete and says the same version everywhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import dpa2md
import pytest
from dpa2md import DPA2Calculator
from dpa2md.shipped import DEFAULT_MODEL
from dpa2md.structures import equilibrated_water

from tests.support.paths import ROOT

PACKAGE = Path(dpa2md.__file__).parent
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def quoted(key: str) -> list[str]:
    """The texts of a one-line list of pyproject.toml."""
    line = re.search(rf"^{key} = \[(.*)\]$", PYPROJECT, flags=re.MULTILINE)
    return re.findall(r'"([^"]+)"', line.group(1))


def test_one_version():
    """pyproject.toml has it; everything else reads it there."""
    version = re.search(r'^version = "(.*)"$', PYPROJECT, flags=re.MULTILINE).group(1)
    assert dpa2md.__version__ == version
    others = ("CMakeLists.txt", "docs/conf.py", "conda/meta.yaml", "Makefile")
    assert not [name for name in others if version in (ROOT / name).read_text()]


def test_the_package_is_complete():
    for file in ("py.typed", "_core.pyi", "models/water.dpa2", "models/README.md"):
        assert (PACKAGE / file).is_file(), file
    water = equilibrated_water()
    water.calc = DPA2Calculator(DEFAULT_MODEL, threads=1)
    assert water.get_potential_energy() < 0


def test_conda_asks_for_what_pip_asks_for():
    recipe = (ROOT / "conda" / "meta.yaml").read_text()
    wanted = re.findall(r"^ +- ([\w-]+ ?>=[\d.]+)$", recipe, flags=re.MULTILINE)
    wanted = {requirement.replace(" ", "") for requirement in wanted}
    assert set(quoted("dependencies") + quoted("requires")) <= wanted


def test_what_conda_runs_after_a_build():
    recipe = (ROOT / "conda" / "meta.yaml").read_text()
    lines = re.search(r"^  commands:\n((?:    - .*\n)+)", recipe, flags=re.MULTILINE).group(1)
    commands = [shlex.split(line) for line in re.findall(r"- (.*)", lines)]
    assert len(commands) > 1
    programs = {"python": [sys.executable], "dpa2md": [sys.executable, "-m", "dpa2md"]}
    for program, *arguments in commands:
        subprocess.run([*programs[program], *arguments], check=True)


@pytest.mark.parametrize("version", ["Unreleased"])
def test_release_notes(version):
    """`make release-notes` prints one section of CHANGELOG.md, without its heading and the next."""
    command = ["make", "-s", "release-notes", f"VERSION={version}"]
    notes = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "### Added" in notes and "## [" not in notes


def test_what_the_workflows_run_exists():
    """Targets of make, and files of this repository, in .github/workflows."""
    yaml = pytest.importorskip("yaml")
    targets = set(
        re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    )
    lines = []
    for workflow in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        for job in yaml.safe_load(workflow.read_text())["jobs"].values():
            lines += [line for step in job["steps"] for line in step.get("run", "").splitlines()]
    assert len(lines) > 5
    for line in lines:
        for word in line.split():
            if re.match(r"(tests|benchmarks|\.ci)/", word):
                assert (ROOT / word).exists(), line
        if line.startswith("make "):
            assert line.split()[1] in targets, line
