"""What LAMMPS computes from pair_style dpa2 beside forces: descriptors, heat flux; and what it gives to it:
frame and atomic parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from dpa2md.engine import Engine

from tests.golden.suite import MODELS, STRUCTURES
from tests.support.lammps_runs import (
    AFTER,
    ELEMENTS,
    MOTION,
    REPORT,
    TOLERANCE,
    assert_stops,
    calculator,
    compare,
    last_dump,
    preamble,
    read_report,
    run,
    start,
    write_data,
)
from tests.support.small_models import crystal, small_model

pytestmark = pytest.mark.usefixtures("lammps")


# ---- compute dpa2/descriptor

DESCRIPTORS = """
compute descriptors all dpa2/descriptor
dump descriptors all custom 1 descriptors.dump id x y z c_descriptors[*]
dump_modify descriptors sort id format float %.17g
"""


def dumped(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Positions and descriptors of the last frame."""
    table = last_dump(folder / "descriptors.dump")
    return table[:, 1:4], table[:, 4:]


@pytest.mark.parametrize("ranks", [1, 2])
def test_descriptors(tmp_path, model, ranks):
    """In every frame of a run, with the first of two models."""
    atoms = crystal()
    write_data(tmp_path / "data.test", atoms, ELEMENTS)
    second = small_model(tmp_path, scale=290.0)
    script = preamble(atoms, ELEMENTS, f"{model} {second}", keywords="out_freq 1")
    run(tmp_path, script + MOTION + DESCRIPTORS + "fix 1 all nve\nrun 3\n", ranks)
    assert (tmp_path / "descriptors.dump").read_text().count("ITEM: TIMESTEP") == 4
    positions, found = dumped(tmp_path)
    assert np.abs(positions - atoms.positions).max() > 1e-4
    atoms.positions = positions
    assert np.abs(found - calculator(model).get_descriptors(atoms)).max() <= TOLERANCE


@pytest.mark.parametrize("name", ["no_output_tebd", "dpa1"])
def test_descriptors_of_generations_of_models(tmp_path, evaluate, name):
    golden, structure = MODELS[name], STRUCTURES["triclinic"]
    symbols = golden.symbols(structure)
    atoms = Atoms(symbols, structure.positions, cell=structure.cell, pbc=True)
    path = evaluate.path(golden)
    write_data(tmp_path / "data.test", atoms, ["O", "H"])
    script = preamble(atoms, ["O", "H"], path, keywords="precision float64")
    run(tmp_path, script + DESCRIPTORS + "run 0\n", 2)
    found = dumped(tmp_path)[1]
    assert np.abs(found - calculator(path).get_descriptors(atoms)).max() <= TOLERANCE


def test_descriptors_of_some_atoms(tmp_path, model):
    """Zeros for atoms outside of the group and for types of other styles; one column as a variable."""
    atoms = crystal()
    write_data(tmp_path / "data.test", atoms, ELEMENTS)
    script = (
        preamble(atoms, ELEMENTS, model).split("pair_style")[0]
        + f"""
pair_style hybrid dpa2 {model} zero 4.0
pair_coeff * * dpa2 O H NULL
pair_coeff * 3 zero
group half id <= 12
"""
        + DESCRIPTORS.replace("descriptors all dpa2", "descriptors half dpa2")
    )
    script += """
variable second atom c_descriptors[2]
compute second half reduce sum v_second
thermo_style custom step c_second
run 0
print "summed: $(c_second:%.17g)"
"""
    output = run(tmp_path, script, 2)
    found = dumped(tmp_path)[1]
    seen = np.array(atoms.get_chemical_symbols()) != "Si"
    expected = np.zeros_like(found)
    expected[seen] = calculator(model).get_descriptors(atoms[seen])
    expected[12:] = 0
    assert np.abs(found - expected).max() <= TOLERANCE
    second = float(output.split("summed: ")[-1].split()[0])
    assert second == pytest.approx(expected[:, 1].sum(), rel=TOLERANCE)


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("compute d all dpa2/descriptor\n", "", "needs one pair_style dpa2 before it"),
        ("", "compute d all dpa2/descriptor 3\n", "takes nothing after the group"),
        (
            "",
            "compute d all dpa2/descriptor\nrun 0\npair_style dpa2 OTHER\npair_coeff * * O H\n",
            "columns, but the model that pair_style dpa2 has now gives",
        ),
        (
            "",
            "compute d all dpa2/descriptor\ncompute s all reduce sum c_d[1]\n"
            + "run 0\nreset_timestep 5\nvariable s equal c_s\nprint ${s}\n",
            "has not computed the forces of this step yet",
        ),
    ],
    ids=["no pair style", "arguments", "another model", "no forces"],
)
def test_descriptors_that_cannot_be(tmp_path, evaluate, before, after, sentence):
    atoms = Atoms("OH", positions=[[0, 0, 0], [1.0, 0, 0]], cell=[6, 6, 6], pbc=True)
    write_data(tmp_path / "data.test", atoms, ["O", "H"])
    path, other = (evaluate.path(MODELS[name]) for name in ("no_output_tebd", "dpa1"))
    script = preamble(atoms, ["O", "H"], path).replace("pair_style", before + "pair_style")
    done = start(tmp_path, script + after.replace("OTHER", str(other)) + "run 1\n", 2)
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert sentence in text, text[-2000:]


# ---- compute heat/flux


@pytest.mark.parametrize("stress", ["stress/atom", "centroid/stress/atom"])
def test_heat_flux(tmp_path, model, stress):
    """J V = sum e v - sum S v over atoms, with the energies and virials that the core gives."""
    atoms = crystal()
    write_data(tmp_path / "data.test", atoms, ELEMENTS)
    script = (
        preamble(atoms, ELEMENTS, model)
        + MOTION
        + f"""
compute ke all ke/atom
compute pe all pe/atom
compute stress all {stress} NULL virial
compute flux all heat/flux ke pe stress
dump 1 all custom 1 motion.dump id x y z vx vy vz c_ke
dump_modify 1 sort id format float %.17g
thermo_style custom step c_flux[*]
fix 1 all nve
run 2
print "flux $(c_flux[1]:%.17g) $(c_flux[2]:%.17g) $(c_flux[3]:%.17g)"
"""
    )
    output = run(tmp_path, script, 2)
    found = np.array(output.split("flux ")[-1].split()[:3], dtype=float)
    table = last_dump(tmp_path / "motion.dump")
    velocities, kinetic = table[:, 4:7], table[:, 7]
    engine = Engine(model, precision="float64", threads=1)
    result = engine.compute(
        table[:, 1:4],
        engine.types(atoms.get_chemical_symbols()),
        cell=atoms.cell.array,
        pbc=True,
    )
    virials = np.swapaxes(
        result.virials, 1, 2
    )  # ours: force by distance; the flux: distance by force
    if stress == "stress/atom":
        virials = (virials + result.virials) / 2
    expected = (kinetic + result.energies) @ velocities
    virial_part = np.einsum("iab,ib->a", virials, velocities)
    assert np.abs(virial_part).max() > 1e-4 * np.abs(expected).max()  # against 1e-9 below
    expected += virial_part
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9 * np.abs(expected).max())


# ---- parameters from computes


@pytest.mark.parametrize(("compute", "steps"), [("temp", 0), ("gyration", 3)])
def test_frame_parameter_from_a_compute(tmp_path, compute, steps):
    """A scalar that depends on another compute, at the first step and at later ones."""
    path = small_model(tmp_path, numb_fparam=1)
    atoms = crystal()
    write_data(tmp_path / "data.test", atoms, ELEMENTS)
    script = preamble(atoms, ELEMENTS, path, keywords="fparam_from_compute scaled")
    script += f"""
compute given all {compute}
{MOTION}
variable scaled equal c_given/100
variable same atom v_scaled
compute scaled all reduce max v_same
fix 1 all nve
compute energies all pe/atom
dump 1 all custom 3 last.dump id x y z fx fy fz c_energies
dump_modify 1 sort id format float %.17g
thermo 10
run {steps}
print "scaled: $(c_scaled:%.17g)"
"""
    output = run(tmp_path, script, 2)
    fparam = float(output.split("scaled: ")[-1].split()[0])
    assert 0.01 < fparam < 10
    table = last_dump(tmp_path / "last.dump")
    atoms.positions = table[:, 1:4]
    atoms.calc = calculator(path, fparam=[fparam])
    for found, expected in [
        (table[:, 4:7], atoms.get_forces()),
        (table[:, 7], atoms.get_potential_energies()),
    ]:
        assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_frame_parameters_from_a_vector(tmp_path):
    path = small_model(tmp_path, numb_fparam=3)
    atoms = crystal()
    write_data(tmp_path / "data.test", atoms, ELEMENTS)
    script = preamble(atoms, ELEMENTS, path, keywords="fparam_from_compute place")
    script += "group first id 1:9\ncompute place first com\n" + REPORT + "run 0\n" + AFTER
    run(tmp_path, script, 2)
    fparam = atoms[:9].get_center_of_mass()
    compare(read_report(tmp_path, atoms.get_volume()), atoms, calculator(path, fparam=fparam))


@pytest.mark.parametrize("count", [1, 2])
def test_atom_parameters_from_a_compute(tmp_path, count):
    """Numbers that the input sets per atom, one or several."""
    path = small_model(tmp_path, numb_aparam=count)
    atoms = crystal()
    write_data(tmp_path / "data.test", atoms, ELEMENTS)
    names = ["d_a", "d_b"][:count]
    before = f"atom_modify map yes\nfix given all property/atom {' '.join(names)}\n"
    script = preamble(atoms, ELEMENTS, path, keywords="aparam_from_compute given")
    script = script.replace("pair_style", before.splitlines()[1] + "\npair_style")
    script = script.replace("box tilt", "atom_modify map yes\nbox tilt")
    script += """
variable a atom id*0.01
variable b atom -id*0.02
set group all d_a v_a
""" + ("set group all d_b v_b\n" if count == 2 else "")
    script += f"compute given all property/atom {' '.join(names)}\n" + REPORT + "run 0\n" + AFTER
    run(tmp_path, script, 2)
    index = np.arange(1, len(atoms) + 1)
    aparam = np.stack([0.01 * index, -0.02 * index], axis=1)[:, :count]
    found = read_report(tmp_path, atoms.get_volume())
    compare(found, atoms, calculator(path, aparam=aparam))


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ("fparam_from_compute none", "names the compute none, which does not exist"),
        ("fparam_from_compute hot", "a compute that gives a vector of 2, and hot does not"),
        ("aparam_from_compute ke", "a compute that gives 2 numbers per atom, and ke does not"),
        ("aparam_from_compute hot", "a compute that gives 2 numbers per atom, and hot does not"),
    ],
    ids=lambda value: value.split()[-1],
)
def test_computes_that_do_not_fit(tmp_path, keywords, sentence):
    path = small_model(tmp_path, numb_fparam=2, numb_aparam=2)
    write_data(tmp_path / "data.test", crystal(), ELEMENTS)
    other = "aparam 0 0 " if "fparam" in keywords else "fparam 0 0 "
    script = preamble(crystal(), ELEMENTS, path, keywords=other + keywords)
    script += "compute hot all ke\ncompute ke all ke/atom\nrun 1\n"
    assert_stops(start(tmp_path, script, 2), sentence)
