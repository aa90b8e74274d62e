"""How far dpa2md is from DeePMD-kit over the golden suite: a table for docs/accuracy.md and a plot.

    python benchmarks/accuracy.py [--plot docs/accuracy.png]

Run it with dpa2md (and matplotlib, for the plot) installed. Every model of the suite meets every one of its
structures in float64 and in float32; DeePMD-kit's results come with the suite (tests/golden/README.md).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.golden.suite import MODELS, STRUCTURES
from tests.support.evaluator import Evaluator


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


QUANTITIES = {"energy": "eV/atom", "forces": "eV/angstrom", "virial": "eV/atom"}


def deviations(evaluate: Evaluator, precision: str) -> dict[str, np.ndarray]:
    """Largest deviation of every (model, structure): per atom for energy and virial."""
    out: dict[str, list[float]] = {name: [] for name in QUANTITIES}
    for model in MODELS.values():
        for name in model.structures:
            result, expected = (
                evaluate(model, STRUCTURES[name], precision),
                model.expected(name),
            )
            for quantity, unit in QUANTITIES.items():
                scale = len(STRUCTURES[name]) if unit.endswith("atom") else 1
                out[quantity].append(np.abs(result[quantity] - expected[quantity]).max() / scale)
    return {name: np.array(values) for name, values in out.items()}


def float32_ratios(evaluate: Evaluator) -> np.ndarray:
    """Our float32 error of the forces over DeePMD-kit's own, one number a model (geometric mean)."""
    ratios = []
    for model in MODELS.values():
        logs = []
        for name in model.structures:
            ours = rms(
                evaluate(model, STRUCTURES[name], "float32").forces - model.expected(name)["forces"]
            )
            theirs = float(model.original_errors(name, "float32")[2])
            if ours > 0 and theirs > 0:
                logs.append(np.log(ours / theirs))
        ratios.append(np.exp(np.mean(logs)))
    return np.array(ratios)


def plot(path: str, by_precision: dict[str, dict[str, np.ndarray]]) -> None:
    """Cumulative share of the cases below a deviation of the forces."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.6, 3.4), constrained_layout=True)
    for precision, values in by_precision.items():
        ordered = np.sort(values["forces"][values["forces"] > 0])  # isolated atoms agree exactly
        axes.step(ordered, np.arange(1, len(ordered) + 1) / len(ordered), label=precision)
    axes.axvline(1e-9, color="0.6", linestyle=":", label="tolerance of the tests (float64)")
    axes.set(
        xscale="log",
        xlabel="largest force deviation from DeePMD-kit in float64 (eV/Å)",
        ylabel="share of cases",
    )
    axes.legend(frameon=False, loc="center right")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--plot", metavar="PNG", help="also draw the distribution of force deviations"
    )
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="Atom .* neighbours")
    with tempfile.TemporaryDirectory() as folder:
        evaluate = Evaluator(Path(folder))
        by_precision = {
            precision: deviations(evaluate, precision) for precision in ("float64", "float32")
        }
        ratios = float32_ratios(evaluate)
    count = len(by_precision["float64"]["energy"])
    print(f"{len(MODELS)} models, {count} cases\n")
    print(
        "| deviation from DeePMD-kit in float64 | median | 99 % below | largest |\n|---|---|---|---|"
    )
    for precision, values in by_precision.items():
        for quantity, unit in QUANTITIES.items():
            x = values[quantity]
            row = f"{np.median(x):.1e} | {np.quantile(x, 0.99):.1e} | {x.max():.1e}"
            print(f"| {precision}, {quantity} ({unit}) | {row} |")
    print(
        f"\nfloat32 force error over DeePMD-kit's own float32 error, per model: median {np.median(ratios):.2f}, "
        f"{ratios.min():.2f} to {ratios.max():.2f}"
    )
    if args.plot:
        plot(args.plot, by_precision)


if __name__ == "__main__":
    main()
