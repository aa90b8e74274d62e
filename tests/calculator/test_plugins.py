"""What other programs find by name: ASE, dpdata, i-PI; and what ASE's files remember of a calculation."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import subprocess
import sys

import dpa2md
import numpy as np
import pytest
from ase import units
from ase.calculators.calculator import get_calculator_class
from ase.db import connect
from ase.io import read, write
from ase.io.jsonio import decode, encode
from dpa2md import DPA2Calculator, Engine, ModelDeviation, evaluate
from dpa2md.shipped import DEFAULT_MODEL
from dpa2md.structures import equilibrated_water

from tests.support.paths import ROOT
from tests.support.selection import skip_or_fail
from tests.support.small_models import crystal, small_model, two_head_checkpoint


def entry_points() -> dict[str, dict[str, str]]:
    text = (ROOT / "pyproject.toml").read_text()
    groups = re.findall(r'^\[project\.entry-points\."([\w.]+)"\]\n((?:.+\n)+)', text, re.MULTILINE)
    return {
        group: dict(re.findall(r'^([\w-]+) = "(.+)"$', body, re.MULTILINE))
        for group, body in groups
    }


def test_the_entry_points_lead_somewhere():
    found = entry_points()
    assert set(found) == {"ase.ioformats", "ase.plugins", "dpdata.plugins", "lammps.plugins"}
    for group, names in found.items():
        for target in names.values():
            module, _, attribute = target.partition(":")
            assert (ROOT / "python" / (module.replace(".", "/") + ".py")).exists(), target
            if group != "dpdata.plugins":
                assert not attribute or hasattr(importlib.import_module(module), attribute)


def test_ase_loads_nothing_heavy():
    code = "import dpa2md.ase_plugin, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"dpa2md._core", "dpa2md.calculator", "matplotlib"} & set(done.stdout.split())


def test_ase_run(tmp_path, monkeypatch, model):
    """`ase run dpa2 frames.xyz -p path=model.dpa2`, as ASE does it once it has loaded the plugin."""
    importlib.import_module("dpa2md.ase_plugin")
    from ase.cli.main import main

    monkeypatch.chdir(tmp_path)
    write("start.traj", crystal())
    (tmp_path / "small.dpa2").write_bytes(model.read_bytes())
    options = "path=small.dpa2,precision=float64"
    main(args=["run", "dpa2", "start.traj", "-p", options, "-o", "end.json"])
    expected = evaluate(model, [crystal()], precision="float64")[0]
    found = read("end.json")
    assert found.get_potential_energy() == pytest.approx(expected["energy"], rel=1e-12)
    np.testing.assert_allclose(found.get_forces(), expected["forces"], atol=1e-9)
    assert get_calculator_class("dpa2")(threads=1).engine.path == str(DEFAULT_MODEL)


def test_ase_plugins_names_the_calculator():
    plugins = importlib.import_module("dpa2md.ase_plugin").__ase_plugins__
    pytest.importorskip("ase._4.plugins")
    assert [plugin() for plugin in plugins] == [DPA2Calculator]


def test_ase_reads_npy_systems(tmp_path):
    from dpa2md.ase_plugin import npy_format, read_deepmd_npy

    frames = [crystal(seed=k) for k in range(3)]
    (tmp_path / "set.000").mkdir()
    (tmp_path / "type_map.raw").write_text("O H Si")
    np.savetxt(tmp_path / "type.raw", [["O", "H", "Si"].index(s) for s in frames[0].symbols], "%d")
    np.save(tmp_path / "set.000" / "coord.npy", [a.positions.ravel() for a in frames])
    np.save(tmp_path / "set.000" / "box.npy", [a.cell.array.ravel() for a in frames])
    assert npy_format.module == read_deepmd_npy.__module__ and npy_format.code == "+S"
    for index, wanted in ((slice(None), frames), (-1, frames[-1:]), (slice(0, 2), frames[:2])):
        found = read_deepmd_npy(tmp_path, index)
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one.positions, other.positions)
            assert (one.symbols == other.symbols).all()


# ---- provenance


def test_parameters(tmp_path, model):
    calculator = DPA2Calculator(model, precision="float64", threads=1)
    assert calculator.parameters == {
        "model": model.name,
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "dpa2md_version": dpa2md.__version__,
        "precision": "float64",
        "device": "cpu",
    }
    two = DPA2Calculator(two_head_checkpoint(tmp_path), head="B", tables=False, low_memory=True)
    special = {"head": "B", "tables": False, "low_memory": True, "precision": "float64"}
    assert two.parameters | special == two.parameters
    several = ModelDeviation([model, calculator])
    assert several.parameters["models"][1] == calculator.parameters
    for chosen in (calculator, two, several):
        assert decode(encode(chosen.todict())) == chosen.todict()
        assert len(json.dumps(chosen.todict())) < 1000


def test_extra_parameters_are_kept(tmp_path):
    path = small_model(tmp_path, numb_fparam=1, numb_aparam=2)
    calculator = DPA2Calculator(path, fparam=0.5, aparam=np.array([1.0, 2.0]), threads=1)
    assert calculator.todict()["fparam"] == 0.5 and calculator.todict()["aparam"] == [1.0, 2.0]
    calculator.fparam = [0.25]
    assert json.loads(json.dumps(calculator.todict()))["fparam"] == [0.25]


def test_set_changes_nothing(model):
    calculator = DPA2Calculator(model, threads=1)
    assert calculator.set() == {}
    with pytest.raises(ValueError, match="precision, head; make a new"):
        calculator.set(precision="float32", head=None)
    assert calculator.parameters["precision"] == "float64"


def test_files_of_ase_remember(tmp_path, model):
    atoms = crystal()
    atoms.calc = DPA2Calculator(model, threads=1)
    atoms.get_forces()
    write(tmp_path / "a.traj", atoms)
    assert read(tmp_path / "a.traj").calc.parameters == atoms.calc.parameters
    with connect(tmp_path / "a.db") as database:
        database.write(atoms)
        row = database.get(1)
    assert row.calculator == "dpa2" and row.calculator_parameters == atoms.calc.parameters


def test_allowed_atomic_numbers(model):
    assert DPA2Calculator(model, threads=1).allowed_atomic_numbers == {1, 8, 14}


# ---- dpdata and i-PI


def test_dpdata(model):
    try:
        import dpdata
    except ImportError:
        skip_or_fail("dpdata", "dpdata is not installed (pip install dpdata)")
    from dpa2md import dpdata_plugin

    frames = [crystal(seed=k) for k in range(3)]
    system = dpdata.System(frames[0], fmt="ase/structure")
    for atoms in frames[1:]:
        system.append(dpdata.System(atoms, fmt="ase/structure"))
    found = system.predict(model, driver="dpa2", precision="float64", threads=1)
    expected = evaluate(model, system.to_ase_structure(), precision="float64")
    for name, key in (("energies", "energy"), ("forces", "forces"), ("virials", "virial")):
        np.testing.assert_allclose(found.data[name], [r[key] for r in expected], atol=1e-9)
    assert "virials" not in system.data
    energy = dpdata_plugin.DPA2Driver(model).ase_calculator.get_potential_energy(frames[0])
    assert energy == pytest.approx(found.data["energies"][0], rel=1e-12)


@pytest.fixture
def driver_class():
    """The class as i-PI finds it: in a file that is loaded by its path."""
    try:
        from ipi.pes import load_pes
    except ImportError:
        skip_or_fail("ipi", "i-PI is not installed (pip install ipi)")
    command = [sys.executable, "-m", "dpa2md.ipi_driver"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return load_pes("custom", path)


def test_ipi(driver_class, tmp_path):
    """Atomic units, cell vectors as columns; a batch is like one by one."""
    water = equilibrated_water()
    write(tmp_path / "water.xyz", water, format="extxyz")
    options = {"precision": "float64", "threads": 1, "verbosity": None}  # the last is i-PI's own
    driver = driver_class(str(tmp_path / "water.xyz"), "water", **options)
    sheared = water.copy()
    sheared.set_cell(water.cell.array @ [[1, 0.1, 0], [0, 1, 0], [0, 0, 1]], scale_atoms=True)
    structures = [water, sheared]
    cells = [a.cell.array.T / units.Bohr for a in structures]
    places = [a.positions / units.Bohr for a in structures]
    together = driver(cells, places)
    results = Engine(DEFAULT_MODEL, "float64", 1).compute_atoms(structures)
    for result, cell, pos, (energy, forces, virial, extra) in zip(
        results, cells, places, together, strict=True
    ):
        # i-PI's units are CODATA's of another year than ASE's; they agree to 1e-8, by which bonds are longer,
        # times their stiffness of 1 and the virial's of some hundred atomic units
        assert energy == pytest.approx(result.energy / units.Hartree, rel=1e-7)
        hartree_bohr = units.Hartree / units.Bohr
        np.testing.assert_allclose(forces, result.forces / hartree_bohr, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(virial, result.virial.T / units.Hartree, rtol=1e-7, atol=1e-5)
        assert extra == ""
        alone = driver(cell, pos)
        assert alone[0] == pytest.approx(energy, rel=1e-13)
        np.testing.assert_allclose(alone[1], forces, atol=1e-11)
