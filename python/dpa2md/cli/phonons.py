"""The sub-command ``dpa2md phonons``."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from .options import (
    MODEL_HELP,
    STRUCTURE_HELP,
    add_dispersion_options,
    add_elements,
    add_engine_options,
    load_calculator,
    load_structure,
    new_parser,
    print_json,
    print_table,
    refuse_to_replace,
)

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms

    from ..calculator import DPA2Calculator
    from ..phonons import Bands

_EXAMPLES = """\
examples:
  dpa2md relax cu.dpa2 cu.cif --cell --fmax 0.0001 -o relaxed.cif
  dpa2md phonons cu.dpa2 relaxed.cif --supercell 4 4 4 --plot phonons.png
  dpa2md phonons cu.dpa2 relaxed.cif --path GXWLG --temperatures 100 300
  phonopy-load phonopy_params.yaml --mesh 20 20 20 -p    goes on with phonopy

Needs phonopy. Runs in float64 where --precision does not say otherwise. Make
the supercell larger until frequencies no longer change: forces of a DPA-2 model
reach as far as all its layers together.
"""
_LARGE = 0.01  # eV/angstrom; forces that shift frequencies by more than the differences do


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "phonons",
        "phonon bands, density of states and heat capacity of a crystal",
        "Displace atoms in a supercell; from the forces come frequencies.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help=MODEL_HELP)
    add("structure", metavar="STRUCTURE", help=f"{STRUCTURE_HELP}; a relaxed unit cell")
    add_elements(parser)
    add("--supercell", type=int, nargs=3, default=(2, 2, 2), metavar="N", help="default: 2 2 2")
    add("--delta", type=float, default=0.01, metavar="D", help="angstrom (default: 0.01)")
    add("--path", metavar="POINTS", help="of the bands, as GXMG,XR (default: of the lattice)")
    add("--mesh", type=int, nargs=3, default=(20, 20, 20), metavar="N", help="default: 20 20 20")
    add(
        "--temperatures",
        type=float,
        nargs="+",
        default=[0.0, 100.0, 300.0],
        metavar="K",
        help="of the thermodynamics (default: 0 100 300)",
    )
    model = parser.add_argument_group("model")
    add_engine_options(model)
    add_dispersion_options(model)
    out = parser.add_argument_group("output").add_argument
    out(
        "-o",
        "--output",
        type=Path,
        default=Path("phonopy_params.yaml"),
        metavar="FILE",
        help="phonopy's file, with force constants (default: phonopy_params.yaml)",
    )
    out(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw bands and density of states: .png, .pdf, .svg",
    )
    out("--overwrite", action="store_true", help="replace existing outputs")
    out("--json", action="store_true", help="print JSON, with the bands")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Compute, write and print; returns the exit status."""
    from .. import phonons
    from .progress import progress_bar

    _check_options(args)
    args.precision = args.precision or "float64"
    atoms = load_structure(args.structure, args.elements)
    calculator = load_calculator(args, [atoms])
    _check_forces(calculator, atoms)
    crystal = phonons.displace(atoms, args.supercell, args.delta)
    path = phonons.band_path(crystal, args.path)
    with progress_bar("supercells", len(crystal.supercells_with_displacements)) as show:
        phonons.compute_forces(crystal, calculator, show)
    bands = phonons.bands(crystal, path)
    table = phonons.thermodynamics(crystal, args.mesh, args.temperatures)
    _write(crystal, args.output)
    if args.plot:
        from ..report.phonons import plot_phonons

        dos = phonons.density_of_states(crystal, args.mesh)
        title = f"{Path(args.model).name}, {atoms.get_chemical_formula()}"
        plot_phonons(bands, dos, args.plot, title)
    facts: dict[str, Any] = {
        "atoms": len(crystal.primitive),
        "supercell atoms": len(crystal.supercell),
        "displacements": len(crystal.supercells_with_displacements),
    }
    frequencies = phonons.gamma(crystal)
    if args.json:
        summary = {"model": args.model, "engine": calculator.description, **facts}
        summary |= _lists(crystal, frequencies, bands)
        print_json(summary | {"thermodynamics": table, "output": str(args.output)})
        return 0
    text = ", ".join(f"{name}: {value}" for name, value in facts.items())
    print(f"{text}, {calculator.description}")
    _print(frequencies, bands, table)
    print("wrote " + ", ".join(str(path) for path in (args.output, args.plot) if path))
    return 0


def _check_options(args: argparse.Namespace) -> None:
    """What can be refused before the work."""
    from ..phonons import check_phonopy

    if args.output == args.plot:
        raise RunError("-o and --plot name one file; name two.")
    if min(args.mesh) < 1 or not all(0 <= t < float("inf") for t in args.temperatures):
        raise RunError("--mesh must be positive numbers, and --temperatures not negative.")
    for file in filter(None, (args.output, args.plot)):
        refuse_to_replace(file, args.overwrite)
    check_phonopy()
    if args.plot:
        from ..report.plots import check_picture

        check_picture(args.plot)


def _lists(crystal: Any, frequencies: np.ndarray, bands: Bands) -> dict[str, Any]:
    arrays = {
        "primitive cell": crystal.primitive.cell,
        "gamma / THz": frequencies,
        "distances": bands.distances,
        "points": bands.points,
        "bands / THz": bands.frequencies,
        "ticks": bands.ticks,
    }
    return {name: values.tolist() for name, values in arrays.items()} | {"labels": bands.labels}


def _check_forces(calculator: DPA2Calculator, atoms: Atoms) -> None:
    from ..batch import evaluate

    largest = float(abs(evaluate(calculator, [atoms])[0]["forces"]).max())
    if largest > _LARGE:
        warnings.warn(
            f"The largest force is {largest:.2g} eV/angstrom: relax the structure first, "
            "with dpa2md relax --cell.",
            stacklevel=2,
        )


def _print(frequencies: np.ndarray, bands: Bands, table: list[dict[str, float]]) -> None:
    from ..phonons import INVCM

    shown = " ".join(f"{value:.1f}" for value in frequencies * INVCM)
    print(f"at the zone centre / (1/cm): {shown}")
    k, _ = divmod(int(bands.frequencies.argmin()), bands.frequencies.shape[1])
    lowest = bands.frequencies[k].min() * INVCM
    where = " ".join(f"{x:.3f}" for x in bands.points[k])
    kind = "imaginary ones are negative" if lowest < 0 else "none is imaginary"
    print(f"lowest on the path: {lowest:.1f} at {where}; {kind}")
    print_table(table)


def _write(crystal: Any, path: Path) -> None:
    from ..base.files import whole_file

    with whole_file(path) as temporary:
        crystal.save(filename=str(temporary), settings={"force_constants": True})
