"""Makes labelled frames to train on: python examples/make_training_data.py OUT

Molecular dynamics of the shipped water model, which labels frames of its path with energies, forces
and virials. OUT/training and OUT/held_out are systems of DeePMD-kit (deepmd/npy). With your own
labels, such as those of a DFT program, dpdata makes the same folders.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import units
from ase.md.langevin import Langevin
from dpa2md import DPA2Calculator
from dpa2md.shipped import DEFAULT_MODEL
from dpa2md.structures import equilibrated_water


def main(argv: Sequence[str] | None = None) -> None:
    """Runs and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--frames", type=int, default=60, help="a fifth of them is held out")
    parser.add_argument("--every", type=int, default=20, help="steps of 0.5 fs between two")
    parser.add_argument("--temperature", type=float, default=400.0, help="K")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args(argv)

    atoms = equilibrated_water()
    atoms.calc = DPA2Calculator(DEFAULT_MODEL, threads=args.threads)
    dynamics = Langevin(
        atoms,
        0.5 * units.fs,
        temperature_K=args.temperature,
        friction=0.02 / units.fs,
        fixcm=False,
        rng=np.random.default_rng(1),
    )
    rows: dict[str, list[np.ndarray]] = {
        "coord": [],
        "box": [],
        "energy": [],
        "force": [],
        "virial": [],
    }
    for _ in range(args.frames):
        dynamics.run(args.every)
        virial = -atoms.get_stress(voigt=False) * atoms.get_volume()
        frame = (
            atoms.positions,
            atoms.cell.array,
            atoms.get_potential_energy(),
            atoms.get_forces(),
            virial,
        )
        for column, values in zip(rows.values(), frame, strict=True):
            column.append(np.array(values).ravel())  # a copy: positions move on
    last = args.frames - args.frames // 5
    for name, part in (("training", slice(0, last)), ("held_out", slice(last, None))):
        write(
            args.output / name, atoms.get_chemical_symbols(), {k: v[part] for k, v in rows.items()}
        )
        print(f"{args.output / name}: {len(rows['energy'][part])} frames")


def write(folder: Path, symbols: Sequence[str], rows: dict[str, list[np.ndarray]]) -> None:
    """One system of DeePMD-kit."""
    names = sorted(set(symbols))
    (folder / "set.000").mkdir(parents=True)
    (folder / "type_map.raw").write_text("\n".join(names) + "\n")
    np.savetxt(folder / "type.raw", [names.index(symbol) for symbol in symbols], fmt="%d")
    for name, values in rows.items():
        np.save(
            folder / "set.000" / f"{name}.npy", np.squeeze(values) if name == "energy" else values
        )


if __name__ == "__main__":
    main()
