"""The sub-command ``dpa2md train``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .options import add_progress_option, new_parser, refuse_to_replace

if TYPE_CHECKING:
    from ..report.training import LivePicture
    from ..train.data import Source
    from ..train.preparation import Start
    from ..train.settings import Settings
    from ..train.trainer import Trainer

_EXAMPLES = """\
examples:
  dpa2md train input.json --dry-run        reads everything, trains nothing
  dpa2md train input.json --threads 2      to model.dpa2, model.ckpt-*.pt
  mpirun -n 4 dpa2md train input.json      four batches a step, side by side
  dpa2md train input.json --restart model.ckpt-2000.pt
  dpa2md train input.json --init-model old.pt
  dpa2md train input.json --finetune big.pt --head Water --use-pretrain-script

The input is DeePMD-kit's, and so are lcurve.out and the checkpoints, which
dp --pt reads, too. Ctrl-C ends a training after a step, with a checkpoint. The
exit status is 0 at the end, 130 after Ctrl-C, and 2 with one sentence about
what is wrong.
"""


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command to a parser's `subparsers`; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "train",
        "train a model from DeePMD-kit's input.json, without torch",
        "Train DPA-2 and attention-free DPA-1 models on energies, forces and virials.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add("input", metavar="INPUT", help="DeePMD-kit's training input, JSON or YAML")
    start = parser.add_argument_group("start")
    one = start.add_mutually_exclusive_group()
    one.add_argument("-r", "--restart", metavar="CKPT", help="go on from this checkpoint")
    one.add_argument("-i", "--init-model", metavar="FILE", help="start with its parameters")
    one.add_argument(
        "-t", "--finetune", metavar="FILE", help="the same, and fit energies of elements anew"
    )
    start.add_argument(
        "--head", "--model-branch", metavar="NAME",
        help="of the pretrained model; RANDOM: a new fitting net; several tasks have "
        "finetune_head in the input instead",
    )  # fmt: skip
    start.add_argument(
        "--use-pretrain-script", action="store_true",
        help="take the pretrained model's descriptor and fitting net, and what else the input "
        "leaves out of its model section",
    )  # fmt: skip
    start.add_argument("--skip-neighbor-stat", action="store_true", help=argparse.SUPPRESS)
    start.add_argument(
        "--dry-run", action="store_true", help="read and check everything, then stop"
    )
    add("--threads", type=int, metavar="N", help="default: all cores")
    out = parser.add_argument_group("output")
    out.add_argument(
        "-o", "--output", type=Path, default=Path("model.dpa2"), metavar="OUT.dpa2",
        help="the trained model (default: model.dpa2); NAME.HEAD.dpa2 of several",
    )  # fmt: skip
    out.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="a picture of the curve, drawn as it grows"
    )
    add_progress_option(out)
    out.add_argument("--quiet", action="store_true", help="no table on the screen")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do what the command line asks; returns the exit status, 130 when it was interrupted."""
    from ..train.interrupt import ending_on_signals
    from ..train.ranks import started_ranks
    from ..train.trainer import Trainer
    from .training_progress import TrainingProgress

    ranks = started_ranks()
    with ranks.together():
        _check(args)
        start = _start(args)
        settings = _settings(args, start)
    trainer = Trainer(settings, start, args.threads or 0, ranks)
    if not args.quiet or args.dry_run:
        introduce(trainer)
    if args.dry_run:
        return 0
    bar = sys.stderr.isatty() if args.progress is None else args.progress
    progress = TrainingProgress(
        trainer.settings.multi_task, table=not args.quiet, bar=bar, picture=_picture(args, trainer)
    )
    began = time.perf_counter()
    try:
        with ending_on_signals(trainer.stop):
            path = trainer.run(progress.report)
    finally:
        progress.finish()
    seconds = time.perf_counter() - began
    with ranks.together():
        if ranks.first:
            _finish(args, trainer, path, f"{seconds:.1f} s, {progress.speed()}")
    return 0 if trainer.state.step == trainer.steps else 130


def _finish(args: argparse.Namespace, trainer: Trainer, path: Path, speed: str) -> None:
    """Write the trained models, or say how to go on."""
    from ..conversion import convert

    step = trainer.state.step
    if step < trainer.steps:
        print(f"stopped after step {step}; to go on:")
        print(f"dpa2md train {args.input} --restart {path}")
        return
    print(f"{path}: step {step}, {speed}")
    for name, head in _outputs(args, trainer):
        print(f"{convert(path, name, head=head)}: the trained model")


def _check(args: argparse.Namespace) -> None:
    """Refuse what would fail at the end only."""
    if args.output.suffix != ".dpa2":
        raise InputError(
            f"{args.output}: -o names the trained model; its name ends in .dpa2 (checkpoints are "
            "named by training.save_ckpt)."
        )
    if args.threads is not None and args.threads < 1:
        raise InputError(f"The number of threads is {args.threads}; give 1 or more.")
    refuse_to_replace(args.output, allowed=True)
    if args.plot is not None:
        from ..report.plots import check_picture

        refuse_to_replace(args.plot, allowed=True)
        check_picture(args.plot)


def _start(args: argparse.Namespace) -> Start:
    from ..train.preparation import Start

    return Start(args.restart, args.init_model, args.finetune, args.head)


def _settings(args: argparse.Namespace, start: Start) -> Settings:
    """The input, with the pretrained model's section where that is asked for."""
    from ..train.settings import read_settings

    start.check()
    change = _pretrained_section(start) if args.use_pretrain_script else None
    return read_settings(args.input, change)


def _pretrained_section(start: Start) -> Callable[[Any], dict[str, Any]]:
    """What gives the input's model section the pretrained model's settings."""
    from ..train.pretrained import merged_section, pretrained_config

    if start.finetune is not None:
        return partial(merged_section, start.finetune, start.head)
    if start.init_model is not None:
        config = pretrained_config(start.init_model, None)
        return lambda section: config
    raise InputError(
        "--use-pretrain-script takes the model section of a pretrained model; add --finetune "
        "or --init-model with its file."
    )


def _picture(args: argparse.Namespace, trainer: Trainer) -> LivePicture | None:
    if args.plot is None:
        return None
    from ..report.training import LivePicture

    return LivePicture(trainer.settings.run.curve_file, args.plot)


def _outputs(args: argparse.Namespace, trainer: Trainer) -> list[tuple[Path, str | None]]:
    """The files of trained models, with the heads that they are of."""
    if not trainer.settings.multi_task:
        return [(args.output, None)]
    names = [task.name for task in trainer.settings.tasks]
    return [(args.output.with_suffix(f".{name}.dpa2"), name) for name in names]


def introduce(trainer: Trainer) -> None:
    """What is trained, on what, for how long, and what should be known; the first rank says it."""
    with trainer.ranks.together():
        if trainer.ranks.first:
            _introduce(trainer)


def _introduce(trainer: Trainer) -> None:
    from ..train.shares import heads_of

    heads = heads_of(trainer.state.model)
    for task, source in zip(trainer.settings.tasks, trainer.data.tasks, strict=True):
        of = f" {task.name}" if trainer.settings.multi_task else ""
        kind, elements = task.model["descriptor"]["type"], task.model["type_map"]
        shown = " ".join(elements) if len(elements) <= 12 else f"{len(elements)} elements"
        precision = heads[task.name].model.descriptor.precision
        print(f"model{of}: {kind}, {precision}, {shown}")
        print(f"data{of}: {_count(source.training)}")
        if source.validation is not None:
            print(f"held out{of}: {_count(source.validation)}")
    left = trainer.steps - trainer.state.step
    first, last = (trainer.schedule.rate(k) for k in (trainer.state.step, trainer.steps - 1))
    print(f"parameters: {trainer.parameters}")
    size, atoms = trainer.memory()
    print(
        f"memory: {size / 1e6:.0f} MB for a step of {atoms} atoms, {size / atoms / 1e3:.0f} kB an atom"
    )
    print(f"run: {left} steps, learning rate {first:.1e} to {last:.1e}")
    if trainer.ranks.size > 1:
        threads = trainer.threads or os.environ["OMP_NUM_THREADS"]
        print(f"ranks: {trainer.ranks.size}, threads of each: {threads}")
    for note in trainer.notes:
        print(f"note: {note}")


def _count(source: Source) -> str:
    """Systems, frames and atoms of a frame, as text."""
    atoms = [system.natoms for system in source.systems]
    span = f"{min(atoms)} to {max(atoms)}" if min(atoms) < max(atoms) else f"{atoms[0]}"
    frames = sum(map(len, source.systems))
    return f"{len(atoms)} systems, {frames} frames of {span} atoms"
