"""A model whose embedding net has been replaced by a table of quintic pieces, as DeePMD-kit compresses it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dpa2md.model_file import Record, read_model, write_model

FINE, COARSE = 0.01, 0.1  # DeePMD-kit's cells


def compress(model: Path, upper: float, to: Path, single: bool = False) -> None:
    """Writes `model`, in strip mode with tanh, with repinit's table: fine up to `upper`, coarse up to five times that.

    `single`: as a float32 model, whose coefficients DeePMD-kit makes in float32.
    """
    records = read_model(model)
    assert records["repinit.mode"] == "strip"
    assert records["repinit.activation"] == "tanh"
    davg, dstd = records["repinit.davg"], records["repinit.dstd"]
    lower = np.floor((-davg[:, 0] / dstd[:, 0]).min())
    maximum = 5 * upper
    table = np.concatenate(
        [
            _pieces(records, lower, upper, FINE, single),
            _pieces(records, upper, maximum, COARSE, single),
        ]
    )
    kept = {k: v for k, v in records.items() if not k.startswith("repinit.net.")}
    kept |= {"repinit.table": table.astype(np.float64)}
    kept |= {"repinit.table_info": np.array([lower, upper, maximum, FINE, COARSE])}
    if single:
        kept |= dict.fromkeys(("model.precision", "model.fitting_precision"), "float32")
    write_model(to, kept)


def _pieces(
    records: dict[str, Record], lower: float, upper: float, width: float, single: bool
) -> np.ndarray:
    """(cells, 6 ng): coefficients by channel, from values, slopes and curvatures at the ends of the cells."""
    cells = round((upper - lower) / width)
    number = np.float32 if single else np.float64
    v, d, c = (a.astype(number) for a in _net(records, lower + width * np.arange(cells + 1)))
    rise, h = v[1:] - v[:-1], number(width)
    a = [v[:-1], d[:-1], c[:-1] / 2]
    a += [(20 * rise - (8 * d[1:] + 12 * d[:-1]) * h - (3 * c[:-1] - c[1:]) * h**2) / (2 * h**3)]
    a += [
        (-30 * rise + (14 * d[1:] + 16 * d[:-1]) * h + (3 * c[:-1] - 2 * c[1:]) * h**2) / (2 * h**4)
    ]
    a += [(12 * rise - 6 * (d[1:] + d[:-1]) * h + (c[1:] - c[:-1]) * h**2) / (2 * h**5)]
    return np.stack(a, axis=2).reshape(cells, -1)


def _net(records: dict[str, Record], x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The embedding net and its first two derivatives, (n, ng) each."""
    v = x[:, None]
    d, c = np.ones_like(v), np.zeros_like(v)
    for k in range(records["repinit.net.layers"]):
        w, skip = records[f"repinit.net.{k}.w"], int(records["repinit.net.skip"][k])
        assert f"repinit.net.{k}.idt" not in records
        y = np.tanh(v @ w + records.get(f"repinit.net.{k}.b", 0.0))
        slope, dy, cy = 1 - y**2, d @ w, c @ w
        new = (y, slope * dy, slope * cy - 2 * y * slope * dy**2)
        v, d, c = (
            a + np.tile(old, skip) if skip else a for a, old in zip(new, (v, d, c), strict=True)
        )
    return v, d, c
