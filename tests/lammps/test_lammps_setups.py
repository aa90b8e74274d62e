"""Runs that change the box or the atoms, against the calculator on the structure that they end with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from tests.support.lammps_runs import (
    AFTER,
    ELEMENTS,
    MOTION,
    REPORT,
    calculator,
    compare,
    last_dump,
    preamble,
    read_report,
    run,
    write_data,
)
from tests.support.small_models import crystal

pytestmark = pytest.mark.usefixtures("lammps")

# The structure as it is, without velocities, so that the pressure is that of the virial.
END = (
    """
velocity all set 0 0 0
dump end all custom 1 end.dump id type x y z
dump_modify end sort id format float %.17g
"""
    + REPORT
    + "run 0\n"
    + AFTER
    + """
print "$(lx:%.17g) $(ly:%.17g) $(lz:%.17g) $(xy:%.17g) $(xz:%.17g) $(yz:%.17g)" file end.cell
"""
)


def end_of_run(folder: Path, pbc: tuple[bool, bool, bool] = (True, True, True)) -> Atoms:
    """The structure that `END` wrote."""
    table = last_dump(folder / "end.dump")
    lx, ly, lz, xy, xz, yz = map(float, (folder / "end.cell").read_text().split())
    return Atoms(
        [ELEMENTS[int(t) - 1] for t in table[:, 1]],
        table[:, 2:5],
        cell=[[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]],
        pbc=pbc,
    )


def slab() -> Atoms:
    """Room for the surface on both sides."""
    atoms = crystal((2, 2, 1))
    atoms.cell[2] = [0, 0, 9.0]
    atoms.positions[:, 2] += 2
    atoms.pbc = (True, True, False)
    return atoms


@pytest.mark.parametrize("newton", ["on", "off"])
@pytest.mark.parametrize("kind", ["f", "s", "m", "fs"])
def test_boundaries(tmp_path, model, kind, newton):
    """Fixed, and shrunk around atoms that move."""
    atoms = slab()
    write_data(tmp_path / "data.test", atoms, ELEMENTS)
    script = preamble(atoms, ELEMENTS, model, before=f"boundary p p {kind}", newton=newton)
    run(tmp_path, script + MOTION + "fix 1 all nve\nrun 5\nunfix 1\n" + END, 2)
    end = end_of_run(tmp_path, (True, True, False))
    assert (abs(end.cell[2, 2] - 9.0) < 1e-9) == (kind in "fm")
    compare(read_report(tmp_path, end.get_volume()), end, calculator(model))


@pytest.mark.parametrize(
    ("motion", "box_changes"),
    [
        ("fix 1 all npt temp 300 300 0.02 tri 0 0 0.2\nrun 10\nunfix 1", True),
        ("minimize 0 1e-8 20 40", False),
        ("fix 1 all box/relax tri 0.0\nminimize 0 1e-8 10 40\nunfix 1", True),
        ("fix 1 all box/relax iso 1e4\nmin_style sd\nminimize 0 1e-8 10 40\nunfix 1", True),
        ("fix 1 all deform 1 xy erate 5 z scale 1.02 remap x\nrun 10\nunfix 1", True),
        ("change_box all triclinic xy delta 0.3 y scale 0.97 remap\nrun 0\nrun 0", True),
    ],
    ids=["npt", "minimize", "box-relax-tri", "box-relax-iso", "deform", "change_box"],
)
@pytest.mark.parametrize("ranks", [1, 2])
def test_box_and_atoms_move(tmp_path, model, ranks, motion, box_changes):
    atoms = crystal()
    write_data(tmp_path / "data.test", atoms, ELEMENTS)
    script = preamble(atoms, ELEMENTS, model) + MOTION
    output = run(tmp_path, script + "fix 0 all nve\nrun 1\nunfix 0\n" + motion + END, ranks)
    end = end_of_run(tmp_path)
    assert (np.abs(end.cell.array - atoms.cell.array).max() > 1e-4) == box_changes
    compare(read_report(tmp_path, end.get_volume()), end, calculator(model))
    if "minimize" in motion and "box" not in motion:
        first, _, last = output.split("Energy initial, next-to-last, final =")[1].split()[:3]
        assert float(last) < float(first) - 1e-3


def test_deposition_and_balance(tmp_path, model):
    """Atoms appear in the middle of a run, while atoms move between ranks."""
    write_data(tmp_path / "data.test", slab(), ELEMENTS)
    script = preamble(slab(), ELEMENTS, model, before="comm_style tiled")
    script += """
mass * 1
region above block 1 6 1 6 6.5 8.5
fix 1 all deposit 4 2 1 4981 region above near 1.2 attempt 200
fix 2 all balance 1 1.0 rcb
run 8
unfix 1
"""
    run(tmp_path, script + END, 3)
    end = end_of_run(tmp_path, (True, True, False))
    assert end.get_chemical_symbols() == [*slab().get_chemical_symbols(), *"HHHH"]
    compare(read_report(tmp_path, end.get_volume()), end, calculator(model))


def test_run_0_twice_is_the_same(tmp_path, model):
    """Also after another run; but for the order of sums, since LAMMPS sorts its atoms."""
    write_data(tmp_path / "data.test", crystal(), ELEMENTS)
    script = f"""
{preamble(crystal(), ELEMENTS, model)}
{MOTION}
compute force all reduce sumsq fx
thermo_style custom step pe pxx c_force
thermo_modify format float %.17g
fix 1 all nve
run 5
run 0
run 0
"""
    tables = run(tmp_path, script, 2).split("Step")[1:]
    end, *again = (
        np.array(t.split("Loop time")[0].splitlines()[-1].split(), float) for t in tables
    )
    assert len(again) == 2
    for values in again:
        assert values == pytest.approx(end, rel=1e-12)
