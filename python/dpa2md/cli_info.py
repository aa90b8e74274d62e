"""The sub-command ``dpa2md info``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from .conversion import load_records
from .model_file import Record

_EXAMPLES = """\
examples:
  dpa2md info water.dpa2
  dpa2md info multitask.pt --head Water     reads DeePMD-kit's files, too
  dpa2md info water.dpa2 --json             for programs
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = subparsers.add_parser(
        "info",
        help="show what a model file holds",
        description="Show what a model file holds: elements, cutoffs, sizes, provenance.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="a .dpa2 file, or a model file of DeePMD-kit")
    parser.add_argument("--head", metavar="NAME", help="which head of a multi-task model")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the summary; returns the exit status."""
    summary = summarize(load_records(args.model, args.head))
    if args.json:
        print(json.dumps(summary, indent=2))
        return 0
    width = max(map(len, summary))
    for name, value in summary.items():
        print(f"{name:{width}}  {_text(value)}")
    return 0


def summarize(records: dict[str, Record]) -> dict[str, Any]:
    """The facts about a model that a user asks for, from its records."""
    kind = str(records["model.kind"])
    elements = str(records["model.elements"]).split("\n")
    summary: dict[str, Any] = {
        "kind": kind,
        "elements": elements,
        "precision": records["model.precision"],
        "fitting precision": records["model.fitting_precision"],
    }
    for block in ("repinit", "three_body", "repformer"):
        if f"{block}.rcut" in records:
            summary[block.replace("_", "-")] = {
                "cutoff / angstrom": records[f"{block}.rcut"],
                "smooth from / angstrom": records[f"{block}.rcut_smth"],
                "neighbours at most": records[f"{block}.nsel"],
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


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v:g}" for k, v in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
