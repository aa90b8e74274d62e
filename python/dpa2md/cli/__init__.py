"""The command ``dpa2md``."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import Any, TextIO

from ..errors import ModelError, RunError
from . import (
    bench,
    check,
    completion,
    convert,
    descriptor,
    devi,
    distill,
    doctor,
    eval,
    explore,
    export,
    finetune,
    info,
    label,
    lammps,
    md,
    phonons,
    relax,
    report,
    select,
    status,
    systems,
    train,
)

# In the order of the help.
_MODULES = (
    convert,
    info,
    eval,
    devi,
    descriptor,
    check,
    relax,
    phonons,
    md,
    train,
    finetune,
    distill,
    status,
    explore,
    select,
    label,
    systems,
    export,
    report,
    bench,
    lammps,
    doctor,
)

_EXAMPLES = """\
examples:
  dpa2md convert model.pt                  a model of DeePMD-kit to model.dpa2
  dpa2md info model.dpa2                   what is in it
  dpa2md eval model.dpa2 frames.xyz        energies, forces, errors by labels
  dpa2md md model.dpa2 water.xyz --ensemble nvt --temperature 300 --steps 10000
  dpa2md train input.json                  a model from DeePMD-kit's input
  dpa2md finetune big.pt frames.xyz -o tuned.dpa2
  dpa2md report small.dpa2 big.dpa2 --labels held_out.xyz --structure start.xyz
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 2 with one sentence on stderr."""
    parser = build_parser()
    args = parser.parse_args(argv)
    warnings.showwarning = show_warning
    warnings.filterwarnings("ignore", category=FutureWarning, module="ase")
    try:
        status = args.run(args)
        sys.stdout.flush()  # here, where an error can still be told
        return status
    except BrokenPipeError:  # the reader of a pipe has gone
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        message = "stopped."
    except OSError as error:
        name = error.filename or "standard output"  # every file has its name in its errors
        message = f"{name}: {error.strerror}." if error.errno else str(error)
    except (ModelError, RunError, ValueError, ImportError, MemoryError) as error:
        message = str(error) or "out of memory; take a smaller structure."
    print(f"dpa2md {args.command}: {message}", file=sys.stderr)
    return 2


def build_parser() -> argparse.ArgumentParser:
    """The parser with all sub-commands."""
    parser = argparse.ArgumentParser(
        prog="dpa2md",
        description="Molecular dynamics with DPA-2 models of DeePMD-kit.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="show the version and stop")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in _MODULES:
        module.add_parser(commands)
    completion.add_parser(commands, parser)
    return parser


class _Version(argparse.Action):
    """Reads the version, and with it the compiled core, only when asked."""

    def __init__(self, **options: Any):
        super().__init__(nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from .._core import __version__

        print(f"dpa2md {__version__}")
        parser.exit()


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as one line, without the place in the code."""
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""  # a moving line may stand there
    print(f"{clear}dpa2md: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
