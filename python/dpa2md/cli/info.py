"""The sub-command ``dpa2md info``."""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np

from ..conversion import load_records, trained_elements
from ..model_file import Record
from ..shipped import model_path
from .options import (
    MODEL_HELP,
    STRUCTURE_HELP,
    add_elements,
    add_engine_options,
    load_engine,
    load_structure,
    new_parser,
    print_json,
)

_EXAMPLES = """\
examples:
  dpa2md info water.dpa2
  dpa2md info multitask.pt --head Water       reads DeePMD-kit's files, too
  dpa2md info water.dpa2 --atoms 100000       what they would cost here
  dpa2md info cu.dpa2 --atoms 100000 --structure cu.cif    at its density
  dpa2md info water.dpa2 --json               for programs
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "info",
        "show what a model file holds, and what it costs",
        "Show what a model file holds (elements, cutoffs, sizes, source), and its cost.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help=MODEL_HELP)
    add(
        "--atoms",
        type=int,
        metavar="N",
        help="measure a small system and scale time and memory to N atoms",
    )
    add("--structure", metavar="STRUCTURE", help=f"what the atoms are like: {STRUCTURE_HELP}")
    add_elements(parser)
    add_engine_options(parser)
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the summary; returns the exit status."""
    _refuse_what_is_ignored(args)
    summary = summarize(load_records(model_path(args.model), args.head))
    if args.atoms is not None:
        summary |= _cost(args)
    _warn_of_untrained(summary)
    if args.json:
        print_json(summary)
        return 0
    width = max(map(len, summary))
    for name, value in summary.items():
        print(f"{name:{width}}  {_text(value)}")
    return 0


def _refuse_what_is_ignored(args: argparse.Namespace) -> None:
    """What says how to measure is of no account without a measurement."""
    usual = {
        "structure": None,
        "precision": None,
        "threads": None,
        "device": "cpu",
        "low_memory": False,
    }
    for name, default in usual.items():
        if args.atoms is None and getattr(args, name) != default:
            raise ValueError(f"--{name.replace('_', '-')} is for measuring: add --atoms N.")


def summarize(records: dict[str, Record]) -> dict[str, Any]:
    """The facts about a model that a user asks for, from its records."""
    kind = str(records["model.kind"])
    elements = str(records["model.elements"]).split("\n")
    trained = trained_elements(records)
    summary: dict[str, Any] = {
        "kind": kind,
        "elements": elements,
        **({} if trained is None else {"trained elements": trained}),
        "precision": records["model.precision"],
        "fitting precision": records["model.fitting_precision"],
    }
    takes_all = bool(records.get("model.all_neighbors", 0))
    summary["neighbours"] = "all within the cutoffs" if takes_all else "the nearest that have room"
    for block in ("repinit", "three_body", "repformer"):
        if f"{block}.rcut" in records:
            summary[block.replace("_", "-")] = {
                "cutoff / angstrom": records[f"{block}.rcut"],
                "smooth from / angstrom": records[f"{block}.rcut_smth"],
                "sums divided by" if takes_all else "neighbours at most": records[f"{block}.nsel"],
            }
    if kind == "dpa2":
        summary["layers"] = records["repformer.nlayers"]
        summary["g1 dimension"] = records["repformer.g1_dim"]
        summary["g2 dimension"] = records["repformer.g2_dim"]
        parts = ("conv", "grrg", "drrd", "g1_attn", "g1g1", "g2_attn")
        summary["layer parts"] = [p for p in parts if records[f"repformer.has_{p}"]]
        summary["update style"] = records["repformer.update_style"]
    tables = "compressed (tabulated)" if "repinit.table" in records else "embedding net"
    summary["repinit form"] = f"{tables}, {records['repinit.mode']}"
    summary["fitting layers"] = records["fitting.net.layers"]
    summary["parameters"] = sum(v.size for v in records.values() if isinstance(v, np.ndarray))
    for name in ("fparam", "aparam"):
        if f"fitting.{name}_avg" in records:
            summary[name] = int(np.size(records[f"fitting.{name}_avg"]))
    if "fitting.default_fparam" in records:
        summary["default fparam"] = np.ravel(records["fitting.default_fparam"]).tolist()
    for name in ("source", "source_sha256", "head", "converter"):
        if f"meta.{name}" in records:
            summary[name.replace("_", " ")] = records[f"meta.{name}"]
    return summary


def _warn_of_untrained(summary: dict[str, Any]) -> None:
    trained = summary.get("trained elements", summary["elements"])
    untrained = [name for name in summary["elements"] if name not in trained]
    if untrained:
        shown = " ".join(untrained[:10]) + (" ..." if len(untrained) > 10 else "")
        keep = ",".join(trained) if len(trained) <= 10 else f"{','.join(trained[:10])},..."
        warnings.warn(
            f"The model was never trained on {shown} ({len(untrained)} of "
            f"{len(summary['elements'])} elements); dpa2md convert --elements {keep} leaves them out.",
            stacklevel=2,
        )


def _cost(args: argparse.Namespace) -> dict[str, Any]:
    from ..estimate import estimate

    engine = load_engine(args)
    structure = load_structure(args.structure, args.elements) if args.structure else None
    found = estimate(engine, args.atoms, structure)
    sizes = " and ".join(map(str, found.measured_atoms))
    cost: dict[str, Any] = {"seconds a step": float(f"{found.seconds:.3g}")}
    if found.megabytes is not None:
        cost["memory / MB"] = round(found.megabytes)
    if found.free_megabytes is not None:
        cost["free memory / MB"] = round(found.free_megabytes)
    if found.device is not None:
        cost["GPU memory / MB"] = round(found.device.needed / 1e6)
        cost["free GPU memory / MB"] = round(found.device.free / 1e6)
        cost["atoms that fit on the GPU"] = found.device.atoms
    cost["atoms"] = found.atoms
    cost["scaled from"] = f"steps of {sizes} atoms {found.structure}, {engine.description}"
    return {"cost": cost}


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
