"""All of it, one after the other: trainings, students, the shipped model, tables and picture of the page.

    python benchmarks/matter/whole.py --data DATA --out OUT --csv benchmarks/results/MACHINE-matter [--deepmd PYTHON]

DATA is what `data.py` and `salt.py` wrote. It takes hours on two cores; where it was stopped, the same command goes on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--csv", metavar="RESULTS", required=True)
    parser.add_argument("--deepmd", metavar="PYTHON", help="one that has deepmd-kit with torch")
    args = parser.parse_args()
    where = ["--data", args.data, "--out", args.out]
    peer = ["--deepmd", args.deepmd] if args.deepmd else []
    for words in (
        ["run.py", *where, "--csv", args.csv],
        ["distill.py", *where, "--csv", args.csv, *peer],
        ["universal.py", *where, str(ROOT / "python" / "dpa2md" / "models")],
        ["results.py", args.csv, str(ROOT / "docs" / "matter.md")],
    ):
        done = subprocess.run([sys.executable, str(HERE / words[0]), *words[1:]], check=False)
        if done.returncode:
            sys.exit(done.returncode)


if __name__ == "__main__":
    main()
