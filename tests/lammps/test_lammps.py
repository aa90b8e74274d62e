"""pair_style dpa2 in the real LAMMPS, on one rank and on several, against the ASE calculator."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from tests.golden.suite import MODELS, STRUCTURES
from tests.support.lammps_runs import (
    AFTER,
    ELEMENTS,
    MOTION,
    REPORT,
    TOLERANCE,
    calculator,
    compare,
    last_values,
    preamble,
    read_report,
    run,
    single_point,
    write_data,
)
from tests.support.small_models import crystal

pytestmark = pytest.mark.usefixtures("lammps")


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
        (2, {"after_data": "comm_style tiled\nbalance 1.0 rcb\n"}),  # after pair_style
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


@pytest.mark.parametrize("name", ["medium", "full", "se_atten_v2", "strip_one_side", "graph_steep"])
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


def test_clear_and_start_again(tmp_path, evaluate):
    """Forty rounds need no more memory than ten."""
    path = evaluate.path(MODELS["large"])
    atoms = Atoms("OH", positions=[[0, 0, 0], [1.0, 0, 0]], cell=[6, 6, 6], pbc=True)
    write_data(tmp_path / "data.test", atoms, ["O", "H"])
    block = preamble(atoms, ["O", "H"], path) + "thermo_style custom pe\nrun 0\ninfo memory\n"
    loop = f"label again\nvariable i loop 40\nclear\n{block}next i\njump SELF again\n"
    used = [
        float(line.split()[-2])
        for line in run(tmp_path, loop).splitlines()
        if line.startswith("Maximum resident set size")
    ]
    assert len(used) == 40
    # MB. LAMMPS without us settles after 2; of a model that is not freed, at least the file's content stays.
    allowed = 4.0
    assert 30 * path.stat().st_size > 2 * allowed * 1e6
    assert used[-1] - used[9] < allowed


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


def test_rerun_gives_the_energies_of_the_run(tmp_path, model):
    write_data(tmp_path / "data.test", crystal(), ELEMENTS)
    head = preamble(crystal(), ELEMENTS, model)
    motion = """
dump 1 all custom 2 path.dump id type x y z
dump_modify 1 format float %.17g
fix 1 all nve
run 6
"""
    end = last_values(run(tmp_path, head + MOTION + motion, 2))
    again = """
thermo_style custom step pe
thermo_modify format float %.15g
rerun path.dump dump x y z
"""
    step, energy = last_values(run(tmp_path, head + again, 2))
    assert (step, energy) == (6, pytest.approx(end[2], rel=1e-12))


def test_evaporation(tmp_path, model):
    """Atoms vanish in the middle of a run; the last step is what the atoms that are left give."""
    write_data(tmp_path / "data.test", crystal(), ELEMENTS)
    script = (
        preamble(crystal(), ELEMENTS, model)
        + REPORT
        + """
region box block 0 6 0 6 0 6
fix 1 all evaporate 2 3 box 4981
run 6
"""
        + AFTER
    )
    run(tmp_path, script, 2)
    rows = (tmp_path / "report.dump").read_text().split("ITEM: ATOMS ")[-1].splitlines()[1:]
    left = [int(row.split()[0]) - 1 for row in rows]
    assert 9 <= len(left) < 24
    atoms = crystal()[left]
    compare(read_report(tmp_path, atoms.get_volume()), atoms, calculator(model))


def test_nudged_elastic_band(tmp_path, model):
    write_data(tmp_path / "data.test", crystal(), ELEMENTS)
    (tmp_path / "final").write_text("2\n1 0.3 0.1 0.1\n2 2.0 1.7 0.4\n")
    script = (
        preamble(crystal(), ELEMENTS, model, before="atom_modify map yes")
        + """
timestep 0.001
fix 1 all neb 1.0
min_style quickmin
neb 0.0 0.1 5 5 5 final final
"""
    )
    output = run(tmp_path, script, 3, "-partition", "3x1")
    forces = [float(line.split()[1]) for line in output.splitlines() if line.split()[:1] == ["5"]]
    assert forces and np.isfinite(forces).all()
