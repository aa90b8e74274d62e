"""What benchmarks of single steps have in common at the command line."""

from __future__ import annotations

import argparse
from pathlib import Path


def step_arguments(description: str | None, models: str, atoms: int) -> argparse.ArgumentParser:
    """Models (`models`: argparse's nargs), at least so many atoms, a precision, a file for the table."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", metavar="MODEL.dpa2", type=Path, nargs=models)
    parser.add_argument("--atoms", type=int, default=atoms, help=f"at least; default: {atoms}")
    parser.add_argument("--precision", choices=["float32", "float64"], default="float32")
    parser.add_argument("--csv", type=Path)
    return parser
