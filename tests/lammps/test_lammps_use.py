"""pair_style dpa2 beside other styles, with several models, and what it tells its users."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import dpa2md
import numpy as np
import pytest
from ase import Atoms
from dpa2md.engine import Engine

from tests.support.lammps_runs import (
    AFTER,
    BIN,
    ELEMENTS,
    MOTION,
    REPORT,
    assert_stops,
    calculator,
    compare,
    last_values,
    preamble,
    read_report,
    run,
    single_point,
    start,
    write_data,
)
from tests.support.paths import ROOT
from tests.support.selection import skip_or_fail
from tests.support.small_models import crystal, small_model

pytestmark = pytest.mark.usefixtures("lammps")


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


def virial(path, atoms: Atoms) -> np.ndarray:
    """(3, 3) eV: random models are not symmetric, so all nine components count."""
    engine = Engine(path, precision="float64", threads=1)
    types = engine.types(atoms.get_chemical_symbols())
    return engine.compute(atoms.positions, types, cell=atoms.cell.array, pbc=True).virial


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
            virials.append(virial(path, atoms) / len(atoms))
        per_atom = np.linalg.norm(np.std(forces, axis=0), axis=1)
        assert per_atom.max() > 1e-3
        expected = [per_atom.max(), per_atom.min(), per_atom.mean(), *per_atom]
        assert table[0, 4:] == pytest.approx(expected, rel=1e-5)  # six decimals in the file
        per_component = np.std(virials, axis=0)
        rms = np.sqrt(np.mean(per_component**2))
        expected = [per_component.max(), per_component.min(), rms]
        assert table[0, 1:4] == pytest.approx(expected, rel=1e-5)
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
        (("MODEL", "missing.dpa2"), "cannot open the model file 'missing.dpa2'"),
        (("MODEL", "data.test"), "is not a .dpa2 model; convert a DeePMD-kit model"),
        (("MODEL", "half.dpa2"), "half.dpa2' is truncated"),
        (("MODEL", "."), "is a directory: name the .dpa2 file"),
        (("O H Si", "O H Xx"), "does not know the element Xx"),
        (("O H Si", "O H"), "one element (or NULL) for each of the 3 atom types"),
        (("O H Si", "O H NULL"), "All pair coeffs are not set"),
        (("units metal", "units lj"), "units metal or real"),
        (("KEYWORDS", "precision half"), 'The precision "half" is unknown'),
        (("KEYWORDS", "out_freq x"), "out_freq needs a number"),
        (("KEYWORDS", "threads 0"), "threads needs a whole number of at least 1"),
        (("KEYWORDS", "fparam 1.0"), "takes 0 numbers after the keyword fparam, and 1 are given"),
        (("KEYWORDS", "device abacus"), "abacus"),
        (("KEYWORDS", "fparam_from_compute none"), "takes no fparam: leave out"),
        (("KEYWORDS", "aparam 1 aparam_from_compute c"), "exclude each other"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[1],
)
def test_errors_are_one_sentence_and_stop_all_ranks(tmp_path, model, change, sentence):
    write_data(tmp_path / "data.test", crystal(), ELEMENTS)
    content = model.read_bytes()
    (tmp_path / "half.dpa2").write_bytes(content[: len(content) // 2])
    script = preamble(crystal(), ELEMENTS, "MODEL", keywords="KEYWORDS") + "run 5\n"
    script = script.replace(*change, 1).replace("MODEL", str(model)).replace("KEYWORDS", "")
    assert_stops(start(tmp_path, script, 2), sentence)


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


def test_forces_that_are_no_numbers(tmp_path):
    """Weights beyond the range of float32."""
    write_data(tmp_path / "data.test", crystal(), ELEMENTS)
    path = small_model(tmp_path, scale=1e300)
    script = preamble(crystal(), ELEMENTS, path, keywords="precision float32")
    done = start(tmp_path, script + MOTION + "fix 1 all nve\nrun 5\n", 2)
    assert_stops(done, "is not a finite number: the structure is far outside")
    assert "the atom with ID" in done.stdout + done.stderr


def test_lost_atoms(tmp_path, model):
    """LAMMPS's own sentence comes through: nothing of ours goes wrong before it."""
    atoms = crystal()
    atoms.positions[:, 2] += 2
    atoms.cell[2] = [0, 0, 12]
    write_data(tmp_path / "data.test", atoms, ELEMENTS)
    script = preamble(atoms, ELEMENTS, model, before="boundary p p f") + MOTION
    script += "velocity all set 0 0 500 units box\nfix 1 all nve\nthermo 1\nrun 200\n"
    assert_stops(start(tmp_path, script, 2), "Lost atoms")


def test_out_of_memory(tmp_path, model):
    """Some 240000 atoms a rank, with memory for LAMMPS and not for the model."""
    write_data(tmp_path / "data.test", crystal(), ELEMENTS)
    script = preamble(crystal(), ELEMENTS, model) + "replicate 27 27 27\nrun 1\n"
    assert_stops(
        start(tmp_path, script, 2, memory=600 * 2**20),
        "out of memory: use more ranks or fewer atoms",
    )


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


EXAMPLES = ROOT / "lammps_plugin" / "examples"


@pytest.mark.parametrize("name", ["in.water", "in.npt", "in.hybrid", "in.deviation"])
def test_examples(tmp_path, model, name):
    """Each example runs as it stands, for a few steps and with another model."""
    shutil.copy(EXAMPLES / "water.data", tmp_path)
    second = tmp_path / "second.dpa2"
    subprocess.run([sys.executable, EXAMPLES / "make_second.py", model, second], check=True)
    output = run(
        tmp_path,
        (EXAMPLES / name).read_text(),
        2,
        *("-var", "model", str(model), "-var", "second", str(second), "-var", "steps", "4"),
    )
    assert np.isfinite(last_values(output)).all()
    if name == "in.deviation":
        devi = np.loadtxt(tmp_path / "model_devi.out")
        assert (devi[1:] > 0).all()


def test_example_as_the_page_says(tmp_path):
    """docs/lammps.md: in the folder of the examples, with the shipped model and no options."""
    for name in ("in.water", "water.data"):
        shutil.copy(EXAMPLES / name, tmp_path)
    values = last_values(run(tmp_path, (EXAMPLES / "in.water").read_text()))
    assert values[0] == 200
    assert 150 < values[1] < 600  # K; liquid water that a thermostat keeps at 300


def test_example_of_a_band(tmp_path):
    """A few steps with the model that it is made for: the ends are minima, and a barrier is between."""
    for name in ("neb.data", "neb.final"):
        shutil.copy(EXAMPLES / name, tmp_path)
    path = Path(dpa2md.__file__).parent / "models" / "water.dpa2"
    options = ("-partition", "3x1", "-var", "model", str(path), "-var", "steps", "12")
    output = run(tmp_path, (EXAMPLES / "in.neb").read_text(), 3, *options)
    rows = [line.split() for line in output.splitlines() if line.split()[:1] in (["0"], ["14"])]
    start, end = (np.array(row, dtype=float) for row in rows)
    forward, reverse, energies = end[6], end[7], end[10::2]
    assert len(energies) == 3
    assert 0.02 < reverse < forward < start[6]  # eV; a coarse band underestimates it
    # no step of the ends goes far: make_neb.py left no force above 0.03 eV/angstrom
    assert np.abs(end[[10, -1]] - start[[10, -1]]).max() < 0.05


OTHER_VERSION = 'extern "C" int lammps_version(void*) { return 20200303; }'


def test_a_plugin_for_another_version_refuses(tmp_path):
    """A library in front of LAMMPS pretends that it is an older one."""
    compiler = shutil.which("c++") or skip_or_fail("lammps", "there is no C++ compiler")
    (tmp_path / "other.cpp").write_text(OTHER_VERSION)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", "libother.so", "other.cpp"], cwd=tmp_path, check=True
    )
    script = 'pair_style zero 4.0\nprint "still running"\n'
    done = start(tmp_path, script, 1, preload=tmp_path / "libother.so")
    assert "still running" in done.stdout
    assert "this LAMMPS is version 20200303, but the plugin was built for version" in done.stderr
    done = start(tmp_path, "pair_style dpa2 x\n", 1, preload=tmp_path / "libother.so")
    assert_stops(done, "dpa2")
