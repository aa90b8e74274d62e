"""Draws how the errors of trainings fall: a line for every lcurve.out, held-out forces and energies.

    python benchmarks/learning_curves.py OUT.png NAME=LCURVE ...

Lines of names that begin with the same word have one colour; those of DeePMD-kit are dashed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from dpa2md.report.plots import check_picture, new_figure, save_figure

SHOWN = {"rmse_f_val": "forces, eV/angstrom", "rmse_e_val": "energy, eV/atom"}
COLORS = ("#4477aa", "#cc6677", "#228833", "#aa7700")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", metavar="OUT.png", type=Path)
    parser.add_argument("curves", metavar="NAME=LCURVE", nargs="+")
    args = parser.parse_args()
    check_picture(args.picture)
    figure, axes = new_figure(len(SHOWN), size=(6.4, 6.0))
    colors: dict[str, str] = {}
    for given in args.curves:
        name, _, path = given.partition("=")
        curve = np.genfromtxt(path, names=True)
        color = colors.setdefault(name.split()[0], COLORS[len(colors) % len(COLORS)])
        for axis, column in zip(axes, SHOWN, strict=True):
            dashed = "DeePMD-kit" in name
            axis.plot(
                curve["step"], curve[column], "--" if dashed else "-", color=color, label=name
            )
    for axis, label in zip(axes, SHOWN.values(), strict=True):
        axis.set(ylabel=f"held-out {label}", yscale="log")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    axes[-1].set_xlabel("step")
    save_figure(figure, args.picture)


if __name__ == "__main__":
    main()
