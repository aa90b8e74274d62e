"""D3 on top of a model: dftd3's own calculator is the reference, in every place where it can be asked for."""

from __future__ import annotations

import copy
import json
import pickle
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.mixing import SumCalculator
from ase.io import read, write
from dpa2md import DPA2Calculator, Engine, ModelDeviation, evaluate
from dpa2md.cli import main
from dpa2md.dispersion import DAMPINGS, Dispersion

from tests.support.selection import skip_or_fail
from tests.support.small_models import crystal


@pytest.fixture
def dftd3():
    try:
        import dftd3.ase
    except ImportError:
        skip_or_fail("dftd3", "dftd3 is not installed (pip install dftd3)")
    return dftd3.ase.DFTD3


@pytest.fixture(scope="module")
def engine(model) -> Engine:
    return Engine(model, "float64", 1)


def molecule() -> Atoms:
    return Atoms("OHH", [[0, 0, 0], [0.8, 0.6, 0], [-0.8, 0.6, 0]])


def slab() -> Atoms:
    atoms = crystal()
    atoms.pbc = (True, True, False)
    return atoms


@pytest.mark.parametrize("damping", ["bj", "zero"])
@pytest.mark.parametrize("make", [crystal, molecule, slab])
def test_like_the_sum_of_calculators(dftd3, engine, make, damping):
    atoms, other = make(), make()
    atoms.calc = DPA2Calculator(engine, d3="PBE", d3_damping=damping)
    other.calc = SumCalculator(
        [DPA2Calculator(engine), dftd3(method="PBE", damping=f"d3{damping}")]
    )
    plain = evaluate(engine, [make()])[0]
    assert atoms.get_potential_energy() == pytest.approx(other.get_potential_energy(), rel=1e-12)
    assert abs(atoms.get_potential_energy() - plain["energy"]) > 1e-5
    # the same library; conversions are rounded in another order
    np.testing.assert_allclose(atoms.get_forces(), other.get_forces(), atol=1e-10)
    if make is not molecule:
        np.testing.assert_allclose(atoms.get_stress(), other.get_stress(), atol=1e-10)


def test_the_stress_is_the_derivative_of_the_energy(dftd3, engine):
    atoms = crystal()
    atoms.calc = DPA2Calculator(engine, d3="pbe")
    numerical = np.zeros(6)
    h = 1e-4
    for k, (i, j) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * h / 2
            strain[j, i] += sign * h / 2
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            moved.calc = DPA2Calculator(engine, d3="pbe")
            energies.append(moved.get_potential_energy())
        numerical[k] = (energies[0] - energies[1]) / (2 * h) / atoms.get_volume()
    # central differences: h^2 times a third derivative of some hundred
    np.testing.assert_allclose(atoms.get_stress(), numerical, atol=1e-5)


def test_many_structures(dftd3, engine):
    structures = [crystal(seed=k) for k in range(3)] + [molecule()]
    together = evaluate(DPA2Calculator(engine, d3="pbe"), structures, batch_atoms=30)
    for atoms, found in zip(structures, together, strict=True):
        atoms.calc = DPA2Calculator(engine, d3="pbe")
        assert found["energy"] == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
        np.testing.assert_allclose(found["forces"], atoms.get_forces(), atol=1e-10)
        assert "energies" not in found and "stresses" not in found
        # the virial, too: it is minus the stress times the volume
        if "stress" in found:
            virial = -np.trace(found["virial"]) / 3 / atoms.get_volume()
            assert found["stress"][:3].mean() == pytest.approx(virial, rel=1e-9)
    energies = evaluate(DPA2Calculator(engine, d3="pbe"), structures, forces=False)
    assert [e["energy"] for e in energies] == pytest.approx([r["energy"] for r in together])


def test_what_single_atoms_have_is_left_out(dftd3, engine):
    atoms = crystal()
    atoms.calc = DPA2Calculator(engine, d3="pbe")
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energies()
    assert "energies" in DPA2Calculator(engine).implemented_properties
    atoms.get_forces()
    assert set(atoms.calc.results) == {"energy", "free_energy", "forces", "stress"}


def test_it_is_part_of_the_calculator(dftd3, engine):
    calculator = DPA2Calculator(engine, d3="pbe", d3_damping="zero")
    assert calculator.parameters["d3"] == "pbe" and calculator.parameters["d3_damping"] == "zero"
    assert "D3(pbe, zero)" in calculator.description
    assert "d3" not in DPA2Calculator(engine).parameters
    for again in (
        pickle.loads(pickle.dumps(calculator.dispersion)),
        copy.copy(calculator.dispersion),
    ):
        assert (
            again.compute(crystal())["energy"] == calculator.dispersion.compute(crystal())["energy"]
        )


def test_the_mean_of_models_has_it(dftd3, engine):
    atoms = crystal()
    atoms.calc = ModelDeviation([DPA2Calculator(engine, d3=f) for f in ("pbe", "b3-lyp")])
    found = [evaluate(m, [crystal()])[0] for m in atoms.calc.models]
    energies = [r["energy"] for r in found]
    assert atoms.get_potential_energy() == pytest.approx(np.mean(energies), rel=1e-12)
    assert atoms.calc.results["devi_e"] == pytest.approx(np.std(energies) / len(atoms), rel=1e-6)


@pytest.mark.parametrize("damping", DAMPINGS)
def test_every_damping(dftd3, damping):
    assert Dispersion("pbe", damping).compute(molecule(), forces=False)["energy"] < 0


@pytest.mark.parametrize(
    ("functional", "damping", "message"),
    [("nonsense", "bj", "functional 'nonsense'"), ("pbe", "soft", "no damping 'soft'; it has bj")],
)
def test_unknown_names(dftd3, functional, damping, message):
    with pytest.raises(ValueError, match=message):
        Dispersion(functional, damping)


# ---- on the command line


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write(tmp_path / "start.traj", crystal(rattle=0.02))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_eval(dftd3, model, folder, capsys):
    arguments = ["eval", str(model), "start.traj", "--threads", "1", "--json"]
    assert main([*arguments, "--d3", "pbe", "-o", "out.extxyz"]) == 0
    with_d3 = json.loads(capsys.readouterr().out)
    assert main(arguments) == 0
    without = json.loads(capsys.readouterr().out)
    expected = Dispersion("pbe").compute(crystal(rattle=0.02))["energy"]
    difference = with_d3["results"][0]["energy"] - without["results"][0]["energy"]
    assert difference == pytest.approx(expected, rel=1e-9)
    assert "D3(pbe, bj)" in with_d3["engine"]
    assert read("out.extxyz").get_potential_energy() == pytest.approx(
        with_d3["results"][0]["energy"], rel=1e-9
    )


def test_relax_and_md(dftd3, model, folder, capsys):
    options = ["--threads", "1", "--d3", "pbe", "--d3-damping", "zero"]
    assert main(["relax", str(model), "start.traj", "--steps", "2", *options]) in (0, 1)
    assert "D3(pbe, zero)" in capsys.readouterr().out
    last = read("relaxed.traj", "-1")
    calculator = DPA2Calculator(model, threads=1, d3="pbe", d3_damping="zero")
    assert last.get_potential_energy() == pytest.approx(
        calculator.get_potential_energy(last.copy()), rel=1e-10
    )
    command = ["md", str(model), "start.traj", "--threads", "1", "--steps"]
    assert main([*command, "2", "--d3", "pbe"]) == 0
    assert "D3(pbe, bj)" in capsys.readouterr().out
    # a run is not continued with another potential
    assert main([*command, "4", "--restart"]) == 2
    assert "D3(pbe, bj)" in capsys.readouterr().err
    assert main([*command, "4", "--restart", "--d3", "pbe"]) == 0


def test_refusals(dftd3, model, folder, capsys):
    assert main(["eval", str(model), "start.traj", "--d3", "nonsense"]) == 2
    assert "functional 'nonsense'" in capsys.readouterr().err
    with pytest.raises(SystemExit):  # these show the model itself
        main(["check", str(model), "start.traj", "--d3", "pbe"])


def test_without_the_package(model, folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "dftd3", None)
    assert main(["eval", str(model), "start.traj", "--d3", "pbe"]) == 2
    assert capsys.readouterr().err.strip().endswith("pip install dftd3.")
