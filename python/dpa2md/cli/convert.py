"""The sub-command ``dpa2md convert``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..conversion import convert, list_heads, load_records, trained_elements
from .options import element_names

_EXAMPLES = """\
examples:
  dpa2md convert model.pt                          writes model.dpa2
  dpa2md convert frozen.pth -o water.dpa2
  dpa2md convert multitask.pt --list-heads         which heads there are
  dpa2md convert multitask.pt -o water.dpa2 --head Water
  dpa2md convert model.pt -o water.dpa2 --elements O,H
  dpa2md convert model.pt --all-neighbors          no jumps where lists overflow
  dpa2md convert model.pt --verify                 compares with DeePMD-kit
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = subparsers.add_parser(
        "convert",
        help="convert a DeePMD-kit model (.pt .pth .pt2 .pte .dp .yaml) to .dpa2",
        description="Convert a DPA-2 or attention-free DPA-1 energy model of DeePMD-kit to one\n"
        ".dpa2 file. Neither DeePMD-kit nor torch is needed, and no code in the model\n"
        "file is run.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="IN", help="the model file to convert")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT.dpa2",
        help="the file to write (default: IN with the extension .dpa2)",
    )  # fmt: skip
    parser.add_argument("--head", metavar="NAME", help="which head of a multi-task model")
    parser.add_argument(
        "--list-heads", action="store_true", help="list the heads of a multi-task model and stop"
    )
    parser.add_argument("--elements", metavar="O,H", help="keep only these elements, in this order")
    parser.add_argument(
        "--all-neighbors", action="store_true",
        help="take all neighbours within the cutoffs, not the nearest that the model has room for",
    )  # fmt: skip
    parser.add_argument(
        "--verify", action="store_true",
        help="compare energies and forces with DeePMD-kit, which must be installed",
    )  # fmt: skip
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do what the command line asks; returns the exit status."""
    if args.list_heads:
        heads = list_heads(args.model)
        print("\n".join(heads) if heads else "The model has a single head; no --head needed.")
        return 0
    output = convert(
        args.model,
        args.output,
        head=args.head,
        elements=element_names(args.elements),
        all_neighbors=args.all_neighbors,
    )
    print(f"{output}: {_summary(output)}")
    if args.verify:
        from ..verification import verify

        print(f"agrees with DeePMD-kit: {verify(args.model, output, args.head)}")
    return 0


def _summary(path: Path) -> str:
    records = load_records(path)
    elements = str(records["model.elements"]).split("\n")
    shown = " ".join(elements) if len(elements) <= 12 else f"{len(elements)} elements"
    text = f"{records['model.kind']}, {records['model.precision']}, {shown}"
    trained = trained_elements(records)
    if trained is not None and len(trained) < len(elements):
        text += f", trained on {' '.join(trained)}"
    if records.get("model.all_neighbors", 0):
        text += ", all neighbours"
    return f"{text}, head {records['meta.head']}" if "meta.head" in records else text
