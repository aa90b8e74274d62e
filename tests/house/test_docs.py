"""The documentation: links lead somewhere, the drawing is the engine's."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from dpa2md import _core

from tests.support.paths import ROOT
from tests.support.selection import skip_or_fail

BUILT = {".venv", "build", "dist", "demo-output", "node_modules"}
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(p in BUILT or p.startswith(".") for p in path.relative_to(ROOT).parts)
)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    """A page without its code blocks and code spans."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "code", text)


def anchors(path: Path) -> set[str]:
    """What `#...` may follow the page's name, by the rule of GitHub and Sphinx."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ +(.+?)\s*$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def broken_links(path: Path) -> list[str]:
    """The links and pictures of a page that lead to no file or heading of the repository."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"https?:", target):
            continue
        file, _, anchor = target.partition("#")
        page = (path.parent / file).resolve() if file else path
        if not page.exists() or (anchor and anchor not in anchors(page)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links(page):
    assert not broken_links(page)


def test_broken_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Here\n[a](#here) [b](page.md#here) ![c](no.png) [d](#there) `[e](no.md)`\n")
    assert broken_links(page) == ["no.png", "#there"]


def test_site_builds_without_a_warning(tmp_path):
    """`make docs`: also checks references, code languages, and that every page is in the contents."""
    for module in ("sphinx", "myst_parser", "furo"):
        if importlib.util.find_spec(module) is None:
            skip_or_fail("docs", f"{module} is not installed (pip install sphinx myst-parser furo)")
    command = ["-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs", "-d", tmp_path / "cache"]
    done = subprocess.run(
        [sys.executable, *map(str, command), ".", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "site" / "docs" / "api.html").read_text()
    assert "dpa2md.calculator.DPA2Calculator.get_descriptors" in page


def drawing():
    """docs/draw_story.py as a module."""
    spec = importlib.util.spec_from_file_location("draw_story", ROOT / "docs" / "draw_story.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_drawing_has_every_stage_once():
    d = drawing()
    boxes = [*d.FORWARD, *d.LAYER, d.FITTING, *d.LAYER_BACKWARD, *d.BACKWARD, *d.OUTPUT]
    drawn = [name for kind, name, _ in boxes if kind in {"forward", "backward"}]
    assert sorted(drawn) == sorted(name for name, *_ in _core.stages)


def test_drawing_is_up_to_date():
    assert (ROOT / "docs" / "story.svg").read_text() == drawing().drawing()


def test_readme_runs_as_it_stands(tmp_path):
    """What a visitor pastes first."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", block],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert "eV/angstrom^3" in done.stdout
