"""The learning curve is written as DeePMD-kit writes it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from dpa2md.errors import InputError
from dpa2md.train import train
from dpa2md.train.curve import Curve, Row, TaskErrors, read_curve

from tests.support.deepmd_kit import run_deepmd
from tests.support.tiny_training import double, single

# A run of DeePMD-kit 3.2.0 on water.
DEEPMD = """\
# step       rmse_val    rmse_trn    rmse_e_val  rmse_e_trn    rmse_f_val  rmse_f_trn   lr      
# If there is no available reference data, rmse_*_{val,trn} will print nan
      1      1.76e+01    1.19e+01      4.69e-01    6.98e-01      5.56e-01    3.74e-01    1.0e-03
     50      1.15e+01    1.19e+01      4.99e-01    5.68e-01      3.67e-01    3.79e-01    9.5e-04
"""


def row(step: int, values: list[float], rate: float) -> Row:
    names = ["rmse", "rmse_e", "rmse_f"]
    training, validation = (dict(zip(names, values[k::2], strict=True)) for k in (1, 0))
    return Row(step, (TaskErrors("Default", training, validation),), rate)


ROWS = [
    row(1, [17.6, 11.9, 0.469, 0.698, 0.556, 0.374], 1e-3),
    row(50, [11.5, 11.9, 0.499, 0.568, 0.367, 0.379], 9.5e-4),
]


def test_lines_are_deepmds(tmp_path):
    curve = Curve(tmp_path / "lcurve.out", False)
    for one in ROWS:
        curve.write(one)
    curve.close()
    assert (tmp_path / "lcurve.out").read_text() == DEEPMD


def test_a_curve_goes_on(tmp_path):
    path = tmp_path / "lcurve.out"
    path.write_text(DEEPMD + DEEPMD[: DEEPMD.index("     50")] + "    100   1.0\n    15")
    curve = Curve(path, False, after=1)
    assert list(read_curve(path)["step"]) == [1]
    curve.write(ROWS[1])
    curve.close()
    # of two lines of step 1 both stay: they were there before
    assert path.read_text().splitlines()[-1] == DEEPMD.splitlines()[-1]
    curve = Curve(path, False)
    curve.close()
    assert path.read_text() == ""


def test_curves_are_read(tmp_path):
    path = tmp_path / "lcurve.out"
    path.write_text(DEEPMD + "    100   nan\n")
    found = read_curve(path)
    assert list(found) == DEEPMD.splitlines()[0].split()[1:]
    np.testing.assert_array_equal(found["rmse_f_trn"], [0.374, 0.379])
    path.write_text("step\n1\n")
    with pytest.raises(InputError, match="no learning curve"):
        read_curve(path)


def test_missing_values_are_nan(tmp_path):
    curve = Curve(tmp_path / "c", True)
    errors = {"rmse": 1.0, "rmse_v": math.nan}
    curve.write(Row(7, (TaskErrors("a", errors, None), TaskErrors("b", errors, errors)), 1.0))
    curve.close()
    head, _, line = (tmp_path / "c").read_text().splitlines()
    assert head.split()[2:] == [
        "rmse_trn_a", "rmse_v_trn_a", "rmse_val_b", "rmse_trn_b", "rmse_v_val_b", "rmse_v_trn_b", "lr"
    ]  # fmt: skip
    assert line.split() == ["7", *["1.00e+00", "nan"], *["1.00e+00"] * 2, *["nan"] * 2, "1.0e+00"]


@pytest.mark.parametrize("make", [single, double])
def test_columns_as_deepmd_kit(tmp_path, monkeypatch, make):
    """Its own run of the same input has the same header and the same form of lines."""
    monkeypatch.chdir(tmp_path)
    data = make(tmp_path, numb_steps=5)
    (tmp_path / "input.json").write_text(json.dumps(data))
    run_deepmd("-m", "deepmd", "--pt", "train", "input.json", "--skip-neighbor-stat",
               folder=tmp_path)  # fmt: skip
    theirs = Path("lcurve.out").read_text().splitlines()
    train(data, threads=1)
    ours = Path("lcurve.out").read_text().splitlines()
    assert ours[:2] == theirs[:2]
    assert [len(line) for line in ours] == [len(line) for line in theirs]
    assert [line.split()[0] for line in ours] == [line.split()[0] for line in theirs]
    assert ours[-1].split()[-1] == theirs[-1].split()[-1]  # the learning rate
