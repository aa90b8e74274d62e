"""The sub-command ``dpa2md completion``.

shtab writes the scripts once, from the very parser that runs the commands, so that the Tab key starts no
Python (argcomplete would start this program at every Tab).
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping
from typing import Any

from ..errors import RunError
from .options import new_parser

_SHELLS = ("bash", "zsh", "fish")
_EXAMPLES = """\
examples:
  dpa2md completion bash > ~/.local/share/bash-completion/completions/dpa2md
  dpa2md completion zsh > ~/.zfunc/_dpa2md                with ~/.zfunc in fpath
  dpa2md completion fish > ~/.config/fish/completions/dpa2md.fish

New shells then complete commands, options and file names.
"""


def add_parser(
    subparsers: argparse._SubParsersAction, whole: argparse.ArgumentParser
) -> argparse.ArgumentParser:
    """Add the sub-command to the `subparsers` of the `whole` parser; its ``args.run`` is `run`."""
    parser = new_parser(
        subparsers,
        "completion",
        "print a script with which a shell completes this command",
        "Print a script with which a shell completes this command. It needs shtab.",
        _EXAMPLES,
    )
    parser.add_argument("shell", metavar="SHELL", choices=_SHELLS, help=", ".join(_SHELLS))
    parser.set_defaults(run=functools.partial(run, whole))
    return parser


def run(whole: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Print the script for the `whole` parser; returns the exit status."""
    try:
        import shtab
    except ImportError:
        raise RunError("Completion needs shtab: pip install shtab.") from None
    if args.shell not in shtab.SUPPORTED_SHELLS:
        raise RunError(f"The installed shtab knows no {args.shell}: update it.")
    _complete_files(whole, shtab.FILE)
    print(shtab.complete(whole, args.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser, completion: Mapping[str, Any]) -> None:
    """Every argument that takes free text and is no number or name is a file."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, completion)
        elif action.metavar in _FILES or str(action.metavar).startswith(("FILE", "OUT")):
            action.complete = completion  # type: ignore[attr-defined]


_FILES = {"MODEL", "CALCULATOR", "STRUCTURE", "STRUCTURES", "IN", "PYTHON"}
