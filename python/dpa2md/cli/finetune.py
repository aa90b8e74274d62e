"""The sub-command ``dpa2md finetune``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..shipped import UNIVERSAL, model_file
from .options import element_names, new_parser, print_table, refuse_to_replace
from .rounds import add_run_options

if TYPE_CHECKING:
    from ..train.finetuning import Finetuning, Report, Request

_EXAMPLES = """\
examples:
  dpa2md finetune big.pt frames.extxyz --head Water -o tuned.dpa2
  dpa2md finetune universal alloy.extxyz --head metals -o tuned.dpa2
  dpa2md finetune big.pt data/ --new-head --steps 5000 -o tuned.dpa2
  dpa2md finetune old.dp data/ --validation held_out/ -o tuned.dpa2
  dpa2md finetune old.pt data/ --freeze '*descriptor*' -o tuned.dpa2
  dpa2md finetune big.pt data/ --head Water --type-map H,O,Na -o tuned.dpa2
  mpirun -n 4 dpa2md finetune big.pt data/ --head Water -o tuned.dpa2
  dpa2md finetune --loop loop.yaml --dry-run     finds and labels its own frames
  dpa2md finetune --loop loop.yaml --folder RUN

First the energies of the elements are fitted to the new data, then all
parameters are trained on energies and forces, and on virials where frames have
them. The learning rate falls to its last value in the steps that there are:
give more steps where there is time. Ctrl-C ends them early, with all files.

Next to tuned.dpa2 come tuned.json, the errors of all held-out frames before
and after, tuned.lcurve.out, and tuned.pt, the last checkpoint, for
dpa2md train --init-model and dp --pt. The exit status is 0 at the end, 130
after Ctrl-C, and 2 with one sentence about what is wrong.
"""
_WRITTEN = (".dpa2", ".json", ".pt", ".lcurve.out")


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "finetune",
        "fine-tune a pretrained model with a few labelled frames",
        "Fine-tune a pretrained model with labelled frames, without an input file.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add(
        "pretrained",
        metavar="PRETRAINED",
        nargs="?",
        help=f"a .pt, .pth, .dp or .yaml file of DeePMD-kit's, or {UNIVERSAL}: the shipped one",
    )
    add(
        "data", metavar="DATA", nargs="*",
        help="labelled frames: a DeePMD-kit system (npy, raw, HDF5) or a file of ASE",
    )  # fmt: skip
    _add_model_options(parser)
    _add_run_options(parser)
    out = parser.add_argument_group("output")
    out.add_argument(
        "-o", "--output", type=Path, metavar="OUT.dpa2",
        help="the tuned model; other files next to it get its name",
    )  # fmt: skip
    out.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    out.add_argument("--quiet", action="store_true", help="the result only on the screen")
    loop = parser.add_argument_group("rounds of exploring, labelling and fine-tuning")
    loop.add_argument(
        "--loop", metavar="LOOP.yaml", help="settings, in place of PRETRAINED, DATA and all options"
    )
    add_run_options(loop)
    parser.set_defaults(run=run)
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    head = group.add_mutually_exclusive_group()
    head.add_argument("--head", metavar="NAME", help="of a pretrained model with several")
    head.add_argument(
        "--new-head", action="store_true", help="a new fitting net on the pretrained descriptor"
    )
    group.add_argument(
        "--type-map", metavar="H,O,Na",
        help="elements of the tuned model (default: the pretrained model's)",
    )  # fmt: skip
    group.add_argument(
        "--freeze", nargs="+", default=[], metavar="PATTERN",
        help="parameters that keep their values, by names as in '*descriptor*'",
    )  # fmt: skip
    group.add_argument(
        "--free", nargs="+", default=[], metavar="PATTERN", help="exceptions from --freeze"
    )


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("training").add_argument
    add("--validation", nargs="+", default=[], metavar="DATA", help="held-out frames")
    add(
        "--held-out", type=float, metavar="FRACTION",
        help="hold out so much of DATA, by the seed (default: 0.1; one frame at least)",
    )  # fmt: skip
    add("--steps", type=int, default=1000, metavar="N", help="default: 1000")
    add(
        "--lr", type=float, default=1e-3, metavar="START",
        help="the first learning rate (default: 1e-3)",
    )  # fmt: skip
    add("--stop-lr", type=float, metavar="STOP", help="the last one (default: 0.02 of the first)")
    add(
        "--batch", default="auto", metavar="N",
        help="frames of a batch, or DeePMD-kit's auto:N, max:N, mixed:N (default: auto: 32 atoms)",
    )  # fmt: skip
    add("--seed", type=int, default=1, metavar="N", help="default: 1")
    add("--threads", type=int, metavar="N", help="default: all cores")


def run(args: argparse.Namespace) -> int:
    """Do what the command line asks; returns the exit status, 130 when it was interrupted."""
    if args.loop is not None:
        return _loop(args)
    from ..train.finetuning import Finetuning
    from ..train.ranks import started_ranks
    from .train import introduce
    from .training_progress import TrainingProgress

    ranks = started_ranks()
    with ranks.together():
        request = _request(args)
        request.check()
        for suffix in _WRITTEN:
            refuse_to_replace(request.file(suffix), args.overwrite)
    tuning = Finetuning(request, args.threads or 0, ranks)
    if not args.quiet:
        introduce(tuning.trainer)
    bar = sys.stderr.isatty() if args.progress is None else args.progress
    progress = TrainingProgress(False, table=not args.quiet, bar=bar)
    try:
        report = tuning.run(progress.report)
    finally:
        progress.finish()
    if ranks.first:
        _print(report, tuning)
    return 0 if report.steps == request.steps else 130


def _loop(args: argparse.Namespace) -> int:
    """Rounds; what is said by other options stands in the settings."""
    from ..workflow.settings import Kind
    from .rounds import run_rounds

    given = [name for name in ("pretrained", "data", "output") if getattr(args, name)]
    if given:
        raise InputError(
            f"{', '.join(given)}: a loop has its settings in {args.loop}; leave them out."
        )
    return run_rounds(args.loop, Kind.FINETUNE, args)


def _request(args: argparse.Namespace) -> Request:
    from ..train.finetuning import HELD_OUT, Request

    if not args.pretrained or not args.data or args.output is None:
        raise InputError("Give PRETRAINED, DATA and -o OUT.dpa2, or --loop LOOP.yaml.")
    for option, given in (("--dry-run", args.dry_run), ("--retry-failed", args.retry_failed)):
        if given:
            raise InputError(f"{option} is for --loop: leave it out.")
    if args.threads is not None and args.threads < 1:
        raise InputError(f"The number of threads is {args.threads}; give 1 or more.")
    if args.validation and args.held_out is not None:
        raise InputError("--validation and --held-out exclude each other; leave one out.")
    return Request(
        pretrained=str(model_file(args.pretrained)),
        data=tuple(args.data),
        output=args.output,
        head=args.head,
        new_head=args.new_head,
        type_map=tuple(element_names(args.type_map) or ()),
        validation=tuple(args.validation),
        held_out=HELD_OUT if args.held_out is None else args.held_out,
        steps=args.steps,
        start_lr=args.lr,
        stop_lr=args.stop_lr,
        batch=int(args.batch) if args.batch.isdecimal() else args.batch,
        freeze=tuple(args.freeze),
        free=tuple(args.free),
        seed=args.seed,
    )


def _print(report: Report, tuning: Finetuning) -> None:
    """Errors before and after, and the files."""
    early = "" if report.steps == tuning.request.steps else "stopped after "
    print(f"{early}{report.steps} steps, {report.seconds:.1f} s")
    if report.frozen_parameters:
        print(f"frozen: {report.frozen_parameters} of the parameters")
    count = report.held_out_frames
    print(f"errors of all {count} held-out frames:" if count > 1 else "errors of a held-out frame:")
    rows = [
        {
            "": text,
            "energy / (meV/atom)": _cell(errors.energy_rmse_mev_per_atom),
            "force / (eV/angstrom)": _cell(errors.force_rmse_ev_per_angstrom),
        }
        for text, errors in (
            ("before, with the energy bias changed", report.before),
            ("after", report.after),
        )
    ]
    print_table(rows)
    print(f"wrote {report.output}, {tuning.request.file('.json')}, {report.checkpoint}")


def _cell(value: float | None) -> float | str:
    return "no labels" if value is None else value
