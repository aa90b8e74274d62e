"""The sub-command ``dpa2md export``."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options import new_parser, refuse_to_replace

_EXAMPLES = """\
examples:
  dpa2md export model.ckpt-4000.pt model.dp    for dp convert-backend
  dpa2md export model.ckpt-4000.pt model.yaml
  dpa2md export both.pt water.pt --head Water
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "export",
        "write a model as DeePMD-kit's .dp, .yaml or .pt",
        "Write one head of a model file or checkpoint in a format that DeePMD-kit reads.\n"
        "A .pt is a checkpoint without optimizer: dp --pt freeze makes a .pth of it.",
        _EXAMPLES,
    )
    parser.add_argument("model", metavar="IN", help="a .pt, .pth, .dp, .yaml or .pt2 file")
    parser.add_argument("output", type=Path, metavar="OUT", help="a .dp, .yaml or .pt file")
    parser.add_argument("--head", metavar="NAME", help="which head of a multi-task model")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do what the command line asks; returns the exit status."""
    from ..train.export import export_model
    from ..train.parameters import TrainableModel

    refuse_to_replace(args.output, args.overwrite)
    model = TrainableModel.read(args.model, args.head)
    export_model(model, args.output)
    print(f"{args.output}: {model.size} parameters")
    return 0
