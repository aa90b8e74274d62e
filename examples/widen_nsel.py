"""Gives a model room for more neighbours without changing its energies.

    python examples/widen_nsel.py IN.dpa2 OUT.dpa2 --repformer 56 --three-body 56

DPA-2 divides its sums over neighbours by powers of `nsel`, the number of slots, and keeps the nearest `nsel` of more
neighbours than that, where the energy jumps. Multiplying the weights that read those sums by the same powers of
new/old leaves every energy as it was, while the larger lists no longer overflow. What changes is the number of
empty slots in the softmax denominators of the attention, each e^-20: 1e-8 of an attention weight. A list that still
overflows jumps again: `dpa2md convert --all-neighbors` has no end of room, but is no model that DeePMD-kit evaluates.

For dpa2 models with `smooth`, whose statistics of empty slots are zero (davg = 0); anything else is refused.
"""

from __future__ import annotations

import argparse

import numpy as np
from dpa2md.conversion import load_records
from dpa2md.model_file import write_model


def scale_rows(records: dict, name: str, first: int, count: int, factor: float) -> None:
    """Multiplies `count` rows of the matrix from row `first` on."""
    matrix = np.array(records[name], copy=True)
    matrix[first : first + count] *= factor
    records[name] = matrix


def widen_repformer(records: dict, nsel: int) -> None:
    """conv is divided by N; grrg and drrd are products of two sums divided by sqrt(N) or N each."""
    ratio = nsel / int(records["repformer.nsel"])
    squared = ratio if int(records["repformer.use_sqrt_nnei"]) else ratio**2
    flag = {
        k: bool(int(records[f"repformer.{k}"]))
        for k in ("has_conv", "has_grrg", "has_drrd", "g1_out_conv")
    }
    g1, g2, axis = (int(records[f"repformer.{k}"]) for k in ("g1_dim", "g2_dim", "axis"))
    for layer in range(int(records["repformer.nlayers"])):
        linear = f"repformer.{layer}.linear1.w"
        row = 0 if int(records["repformer.g1_out_mlp"]) else g1
        if flag["has_conv"] and flag["g1_out_conv"]:
            weight = f"repformer.{layer}.conv.w"
            scale_rows(records, weight, 0, len(records[weight]), ratio)
        elif flag["has_conv"]:
            scale_rows(records, linear, row, g2, ratio)
            row += g2
        if flag["has_grrg"]:
            scale_rows(records, linear, row, axis * g2, squared)
            row += axis * g2
        if flag["has_drrd"]:
            scale_rows(records, linear, row, axis * g1, squared)
    records["repformer.nsel"] = nsel


def widen_three_body(records: dict, nsel: int) -> None:
    """Its sum over pairs of neighbours is divided by N^2 and read by the last rows of g1_transform."""
    ratio = nsel / int(records["three_body.nsel"])
    last = int(records["three_body.net.layers"]) - 1
    width = np.shape(records[f"three_body.net.{last}.w"])[1]
    scale_rows(records, "g1_transform", len(records["g1_transform"]) - width, width, ratio**2)
    records["three_body.nsel"] = nsel


def main() -> None:
    """Reads the arguments, refuses what can't be widened, writes the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("output")
    parser.add_argument("--repformer", type=int, metavar="NSEL")
    parser.add_argument("--three-body", type=int, metavar="NSEL")
    args = parser.parse_args()
    records = load_records(args.model)
    davg = [np.any(value) for name, value in records.items() if name.endswith(".davg")]
    if records["model.kind"] != "dpa2" or not int(records["descriptor.smooth"]) or any(davg):
        parser.error(
            "only smooth dpa2 models with davg = 0 can be widened without changing energies"
        )
    limit = int(records["repinit.nsel"])
    if max(args.repformer or 0, args.three_body or 0) > limit:
        parser.error(f"repinit has room for {limit} neighbours, the other blocks can't have more")
    if args.repformer:
        widen_repformer(records, args.repformer)
    if args.three_body:
        widen_three_body(records, args.three_body)
    write_model(args.output, records)


if __name__ == "__main__":
    main()
