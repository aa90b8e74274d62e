"""The blocks of docs/works-with.md run, each where its package is installed."""

from __future__ import annotations

import importlib.util
import re
import warnings

import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write
from dpa2md import evaluate
from dpa2md.shipped import DEFAULT_MODEL
from dpa2md.structures import water_box

from tests.support.paths import ROOT
from tests.support.selection import skip_or_fail

PAGE = ROOT / "docs" / "works-with.md"
BLOCKS = dict(
    re.findall(r"^```python\n# (\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
)


def small_crystal() -> Atoms:
    """A primitive cell of ice XI as measured, with ideal angles; good enough for a program to run."""
    places = [[0, 0.668, 0.064], [0.5, 0.832, 0.436]]
    cell = [4.5, 7.8, 7.3]
    atoms = Atoms(cell=cell, pbc=True)
    for place in places:
        water = molecule("H2O")
        water.translate([p * c for p, c in zip(place, cell, strict=True)])
        atoms += water
    return atoms


def test_the_page_has_blocks():
    blocks = re.findall(r"^```python$", PAGE.read_text(), re.MULTILINE)
    assert len(blocks) == len(BLOCKS) >= 8


@pytest.mark.parametrize("name", BLOCKS)
def test_block(name, tmp_path, monkeypatch):
    if importlib.util.find_spec(name) is None:
        skip_or_fail(name, f"{name} is not installed")
    if name == "atomate2" and importlib.util.find_spec("torch") is None:
        skip_or_fail(name, "atomate2 needs torch, which is not installed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.dpa2").write_bytes(DEFAULT_MODEL.read_bytes())
    frames = [water_box(8, seed=k) for k in range(2)]
    for atoms, result in zip(frames, evaluate(DEFAULT_MODEL, frames), strict=True):
        atoms.arrays["forces"] = result["forces"]
    write("md.extxyz", frames)
    if name == "dpdata":  # as its entry point does once dpa2md is installed
        for module in ("dpdata", "dpa2md.dpdata_plugin"):  # in this order: dpdata loads its plugins
            importlib.import_module(module)
    names = {"crystal": small_crystal(), "molecule": molecule("H2O")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(BLOCKS[name], names)  # noqa: S102 - our own page
    expected = {
        "phonopy": lambda n: n["result"].thermal_properties.free_energy.shape[0] > 10,
        "phono3py": lambda n: n["third"].fc3.shape == (6, 6, 6, 3, 3, 3),
        "hiphive": lambda n: len(n["container"]) == 2,
        "sella": lambda n: abs(n["molecule"].get_forces()).max() < 0.01,
        "dpdata": lambda n: n["labelled"].data["forces"].shape == (1, 6, 3),
        "MDAnalysis": lambda n: len(n["rdf"].results.rdf) > 10,
        "ovito": lambda n: len(n["forces"]) == 24,
        "janus_core": lambda n: n["found"]["energy"] < 0,
        "quacc": lambda n: n["record"]["parameters"]["model"] == "model.dpa2",
        "atomate2": lambda n: n["output"].output.energy < 0,
        "matcalc": lambda n: "bulk_modulus_bm" in n["curve"],
    }
    assert expected[name](names)
