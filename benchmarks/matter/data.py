"""Labelled frames of several classes of matter: OUT/NAME/ATOMS.extxyz, and OUT/NAME-held-out.extxyz.

    git clone https://github.com/FitSNAP/FitSNAP; git clone https://github.com/materialsvirtuallab/mlearn
    git clone https://github.com/deepmodeling/deepmd-kit
    python benchmarks/matter/data.py OUT --wbe FitSNAP --mlearn mlearn --molecules deepmd-kit [--water DATA]

Every source is read from a folder that is there already. The frames stay with their licences; none of them belongs
to dpa2md.

| name | what | where from | licence | level of theory |
|---|---|---|---|---|
| be, w, alloy | solids, liquids, defects; W-Be compounds in MD | FitSNAP, `examples/WBe_PRB2019` (Phys. Rev. B 99, 184305) | GPL-2 | PBE |
| si, ge | MD, vacancies, surfaces, strained cells | mlearn, `data` (J. Phys. Chem. A 124, 731) | BSD-3 | PBE |
| molecules | reactive C-H-O molecules, not periodic | deepmd-kit, `examples/nopbc` (Nat. Commun. 11, 5713) | LGPL-3 | MN15 |
| water | liquid, 192 atoms | deepmd-kit, `examples/water/data` | LGPL-3 | PBE0-TS |

Stresses of FitSNAP and mlearn are in kbar, positive under compression, whatever FitSNAP's files say ("bar"):
-dE/dV of its equations of state is that (`tests/house/test_matter.py` has the numbers). Only its folder `slice_sample`
has bar; it is not read. Six zeros mean that a frame has no stress. mlearn's components are xx, yy, zz, xy, yz, zx.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from dpa2md.base.files import whole_file
from dpa2md.deepmd_data import read_folder

KBAR = 1 / 1602.176634  # eV/angstrom^3
LARGEST_FORCE = 30.0  # eV/angstrom; frames with larger ones are colliding atoms
HELD_OUT = 100  # frames, or a little more: of more, every second or third is kept
VOLUMES = (6.0, 30.0)  # angstrom^3 an atom, of frames of FitSNAP that are kept
MOLECULES = ("C1H4O2", "C3H3O4")


@dataclass(frozen=True)
class Group:
    """A folder of FitSNAP's frames: every `step`-th, a tenth of them held out.

    A run of molecular dynamics has its end held out; of other folders every tenth frame is. `stress`: whether it is
    to be believed; frames of several folders, such as gamma_surface, have some of thousands of kbar.
    """

    folder: str
    step: int = 1
    run: bool = False
    stress: bool = False


GROUPS = {
    "be": (
        Group("DFTMD_300K", run=True),
        Group("DFTMD_1000K", run=True),
        Group("Liquids"),
        Group("Elast_HCP_Vol", 5, stress=True),
    ),
    "w": (
        Group("md_bulk", run=True),
        Group("vacancy"),
        Group("gamma_surface_vacancy"),
        Group("dislocation_quadrupole"),
        Group("Disordered_Struc"),
        Group("EOS_Data", stress=True),
    ),
    "alloy": (Group("DFT_MD_300K", run=True), Group("DFT_MD_1000K", run=True)),
}
Frames = tuple[list[Atoms], list[Atoms]]  # to train on, held out


def labelled(atoms: Atoms, energy: float, forces: Any, stress: np.ndarray | None = None) -> Atoms:
    """The frame with its labels; the stress is in eV/angstrom^3 with ASE's sign, (3, 3) or absent."""
    results = {"energy": float(energy), "forces": np.asarray(forces, float)}
    if stress is not None:
        results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def fitsnap_frame(path: Path, has_stress: bool) -> Atoms:
    """One file of FitSNAP's: a line of comment, then JSON."""
    text = path.read_text()
    (data,) = json.loads(text[text.index("{") :])["Dataset"]["Data"]
    atoms = Atoms(data["AtomTypes"], data["Positions"], cell=data["Lattice"], pbc=True)
    compression = np.array(data["Stress"], float)
    stress = -KBAR * compression if has_stress and compression.any() else None
    return labelled(atoms, data["Energy"], data["Forces"], stress)


def number(path: Path) -> tuple[str, int]:
    """The kind and the number of a file: Be_10.json, 2006_md_bulk.json."""
    digits = re.search(r"(?<=_)\d+$|^\d+(?=_)", path.stem)
    assert digits
    return path.stem.replace(digits.group(), "", 1), int(digits.group())


def split(frames: list[Atoms], run: bool) -> Frames:
    """A tenth held out: the end of a run, or every tenth frame."""
    if run:
        end = len(frames) - len(frames) // 10
        return frames[:end], frames[end:]
    return [f for i, f in enumerate(frames) if i % 10 != 5], frames[5::10]


def fitsnap(folder: Path, name: str) -> Frames:
    """The frames of one of `GROUPS`."""
    kept: Frames = ([], [])
    for group in GROUPS[name]:
        files = sorted((folder / "JSON" / group.folder).glob("*.json"), key=number)[:: group.step]
        kinds: dict[str, list[Atoms]] = {}
        for path in files:
            frame = fitsnap_frame(path, group.stress)
            kind = f"{number(path)[0]} {frame.symbols.formula}" if group.run else ""
            if VOLUMES[0] < frame.get_volume() / len(frame) < VOLUMES[1]:
                kinds.setdefault(kind, []).append(frame)
        for frames in kinds.values():
            for part, more in zip(kept, split(frames, group.run), strict=True):
                part.extend(more)
    return kept


def mlearn_frame(data: dict[str, Any]) -> Atoms:
    sites = data["structure"]["sites"]
    cell = data["structure"]["lattice"]["matrix"]
    atoms = Atoms([s["label"] for s in sites], [s["xyz"] for s in sites], cell=cell, pbc=True)
    results = data["outputs"]
    xx, yy, zz, xy, yz, zx = results["virial_stress"]
    stress = -KBAR * np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]])
    return labelled(atoms, results["energy"], results["forces"], stress)


def mlearn(folder: Path, element: str) -> Frames:
    """Its own division: few frames are held out, from all its groups."""
    parts = [json.loads((folder / element / f"{p}.json").read_text()) for p in ("training", "test")]
    training, held_out = ([mlearn_frame(data) for data in part] for part in parts)
    return training, held_out


def molecules(folder: Path) -> Frames:
    kept: Frames = ([], [])
    for name in MOLECULES:
        for part, more in zip(kept, split(read_folder(folder / name), run=False), strict=True):
            part.extend(more)
    return kept


def water(folder: Path) -> Frames:
    """data_0 to data_2, and data_3 held out."""
    parts = [read_folder(folder / f"data_{i}") for i in range(4)]
    return [f for part in parts[:3] for f in part], parts[3]


def save(frames: Frames, name: str, out: Path) -> None:
    """A file for each number of atoms: a batch is of one file, and small frames should be many."""
    training, held_out = (
        [f for f in part if np.abs(f.get_forces()).max() < LARGEST_FORCE] for part in frames
    )
    held_out = held_out[:: max(1, len(held_out) // HELD_OUT)]
    sizes = sorted({len(frame) for frame in training})
    parts = {f"{name}/{n}": [f for f in training if len(f) == n] for n in sizes}
    for part, kept in (parts | {f"{name}-held-out": held_out}).items():
        path = out / f"{part}.extxyz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            write(temporary, kept, format="extxyz")
    print(f"{name}: {len(training)} frames of {sizes} atoms, {len(held_out)} held out")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--wbe", metavar="FITSNAP", type=Path)
    parser.add_argument("--mlearn", type=Path)
    parser.add_argument("--molecules", metavar="DEEPMD_KIT", type=Path)
    parser.add_argument("--water", metavar="FOLDER", type=Path, help="with data_0 to data_3")
    args = parser.parse_args()
    sources: dict[str, Callable[[], Frames]] = {}
    if args.wbe:
        wbe = args.wbe / "examples" / "WBe_PRB2019"
        sources |= {name: lambda name=name: fitsnap(wbe, name) for name in GROUPS}
    if args.mlearn:
        sources |= {e.lower(): lambda e=e: mlearn(args.mlearn / "data", e) for e in ("Si", "Ge")}
    if args.molecules:
        sources["molecules"] = lambda: molecules(args.molecules / "examples" / "nopbc" / "data")
    if args.water:
        sources["water"] = lambda: water(args.water)
    for name, frames in sources.items():
        save(frames(), name, args.out)


if __name__ == "__main__":
    main()
