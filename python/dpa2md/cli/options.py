"""What the sub-commands share: how models, structures, precisions and devices are named; tables."""

from __future__ import annotations

import argparse
import errno
import json
import math
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from ..shipped import (
    MODEL_SUFFIXES,
    SHIPPED,
    UNIVERSAL,
    is_universal,
    model_path,
    universal_head,
)

if TYPE_CHECKING:
    from ase import Atoms

    from ..calculator import DPA2Calculator
    from ..engine import Engine

MODEL_HELP = f'a .dpa2 file, a model of DeePMD-kit, or a shipped one: "{SHIPPED}", "{UNIVERSAL}"'
STRUCTURE_HELP = (
    "a file of ASE or LAMMPS, a DeePMD-kit system (npy, raw, HDF5), - for extended XYZ on standard input, "
    f'or "{SHIPPED}": shipped liquid'
)


def new_parser(
    subparsers: argparse._SubParsersAction, name: str, text: str, description: str, examples: str
) -> argparse.ArgumentParser:
    """A sub-command's parser; `examples` stand at the end of its help."""
    return subparsers.add_parser(
        name,
        help=text,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """MODEL, which may be left out where there is a sensible default; ``--model`` says the same."""
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help=f"{MODEL_HELP} (default: {SHIPPED})"
    )
    parser.add_argument("--model", dest="model_option", help=argparse.SUPPRESS)


def add_engine_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """How a model is run: head, precision, threads, device."""
    add = parser.add_argument
    add("--head", metavar="NAME", help="which head of a multi-task model")
    add("--precision", choices=["float32", "float64"], help="default: that of the training")
    add("--threads", type=int, metavar="N", help="default: all cores")
    add("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1, ... (default: cpu)")
    add("--low-memory", action="store_true", help="half of the memory, slower; on the CPU only")


def add_structure(parser: argparse.ArgumentParser) -> None:
    """STRUCTURE, of which the last frame counts, with ``--elements``."""
    parser.add_argument("structure", metavar="STRUCTURE", help=f"{STRUCTURE_HELP}; the last frame")
    add_elements(parser)


def add_elements(parser: argparse.ArgumentParser) -> None:
    """Which elements the types of a structure stand for."""
    parser.add_argument(
        "--elements",
        metavar="O,H",
        help="elements of the types in a LAMMPS file or a DeePMD-kit system, in order",
    )


def add_dispersion_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """D3, for the commands that use `load_calculator`."""
    add = parser.add_argument
    add(
        "--d3",
        metavar="FUNCTIONAL",
        help="add D3 dispersion, for a model trained without: pbe, ...",
    )
    add("--d3-damping", metavar="NAME", help="bj, zero, bjm, zerom, op (default: bj)")


def named_model(args: argparse.Namespace) -> str:
    """What the command line calls the model; a `RunError` when it names two."""
    option = getattr(args, "model_option", None)
    if args.model and option and args.model != option:
        raise RunError(f"MODEL is {args.model} and --model is {option}: name one.")
    return args.model or option or SHIPPED


def load_engine(args: argparse.Namespace, frames: Iterable[Atoms] = ()) -> Engine:
    """The model of ``args.model`` with the options of `add_engine_options`.

    A head of "universal" that is not named is that for the elements of `frames`.
    """
    from ..engine import Engine

    return Engine(model_path(named_model(args)), **_options_for(args, frames))


def load_calculator(args: argparse.Namespace, frames: Iterable[Atoms] = ()) -> DPA2Calculator:
    """The same as `load_engine`, as a calculator of ASE, with the options of `add_dispersion_options`."""
    from ..calculator import DPA2Calculator

    d3 = {name: getattr(args, name, None) for name in ("d3", "d3_damping")}
    if d3["d3_damping"] and not d3["d3"]:
        raise RunError("--d3-damping is for D3: add --d3 FUNCTIONAL.")
    dispersion = {name: value for name, value in d3.items() if value is not None}
    return DPA2Calculator(model_path(named_model(args)), **_options_for(args, frames), **dispersion)


def _options_for(args: argparse.Namespace, frames: Iterable[Atoms]) -> dict[str, Any]:
    options = engine_options(args)
    elements = {symbol for atoms in frames for symbol in atoms.symbols}
    if elements and options["head"] is None and is_universal(named_model(args)):
        head = universal_head(elements)
        warnings.warn(head.trust(), UserWarning, stacklevel=3)
        options["head"] = head.name
    return options


def engine_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_engine_options` parsed, as arguments of `Engine` or `DPA2Calculator`."""
    names = ("head", "precision", "threads", "device", "low_memory")
    return {name: getattr(args, name) for name in names}


def load_structure(name: str, elements: str | None = None) -> Atoms:
    """The structure that was named on the command line: the last one of a file, without labels."""
    from ..reading import read_last_structure

    shipped = _shipped(name)
    return (
        read_last_structure(name, elements=element_names(elements)) if shipped is None else shipped
    )


def load_structures(
    name: str, elements: str | None = None, labels: str | None = None
) -> list[Atoms]:
    """All structures that were named on the command line, with the labels that are called `labels`."""
    from ..reading import read_structures

    shipped = _shipped(name)
    if shipped is not None:
        return [shipped]
    return read_structures(name, elements=element_names(elements), labels=labels)


def _shipped(name: str) -> Atoms | None:
    """The shipped structure where that is meant; refuses a model."""
    from ..structures import equilibrated_water

    if name == SHIPPED and not Path(name).exists():
        return equilibrated_water()
    if Path(name).suffix.lower() in MODEL_SUFFIXES:
        raise RunError(f"{name}: this is a model; give the model first, then the structure.")
    return None


def element_names(text: str | None) -> list[str] | None:
    """What a list of elements with commas says."""
    return None if text is None else [name.strip() for name in text.split(",")]


def refuse_to_replace(path: Path, allowed: bool, or_else: str = "") -> None:
    """Raise `RunError` for an output in a missing folder, or one that would replace a file.

    `or_else` is what can be done apart from overwriting. A folder that can't be written to is an `OSError`.
    """
    if not path.parent.is_dir():
        raise RunError(f"{path.parent}: there is no such folder; make it first.")
    if path.is_dir():
        raise RunError(f"{path}: this is a folder; name a file.")
    whole = path.is_file() or not path.exists()  # and not a device, which is written directly
    if whole and not os.access(path.parent, os.W_OK):  # before the work, not after it
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    if path.is_file() and not allowed:
        ways = ["--overwrite", *filter(None, [or_else])]
        raise RunError(f"{path} exists; add {' or '.join(ways)}, or name another file.")


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print rows with the same keys under those as headings; text to the left, numbers to the right."""
    cells = [list(rows[0])] + [[cell_text(v) for v in row.values()] for row in rows]
    left = [isinstance(v, str) for v in rows[0].values()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        padded = [
            f"{c:<{w}}" if to_left else f"{c:>{w}}"
            for c, w, to_left in zip(line, widths, left, strict=True)
        ]
        print("  ".join(padded).rstrip())


def print_json(value: Any) -> None:
    """Print JSON, which has no nan and no infinity: they become null."""
    print(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cell_text(value: Any) -> str:
    """A value as it stands in a table."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def add_progress_option(group: argparse._ArgumentGroup) -> None:
    """`--progress` and `--no-progress` of long work."""
    group.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="a moving line (default: on a terminal)",
    )
