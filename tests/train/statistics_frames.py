"""Systems of no meaning for statistics, and the models that take them; numpy only."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tests.golden.bases import DPA1, MEDIUM, merge


@dataclass(frozen=True)
class Frame:
    """One structure with labels."""

    positions: np.ndarray
    types: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray
    energy: float | None = None
    atom_energies: np.ndarray | None = None
    fparam: np.ndarray | None = None
    aparam: np.ndarray | None = None


def system(types: list[int], count: int, seed: int, periodic: bool = True) -> list[Frame]:
    """`count` frames of atoms near a grid in a box that is sheared, with all kinds of labels."""
    rng = np.random.RandomState(seed)
    kinds = np.array(types)
    n = len(kinds)
    side = int(np.ceil(n ** (1 / 3)))
    grid = np.array([[i, j, k] for i in range(side) for j in range(side) for k in range(side)])[:n]
    cell = 2.4 * side * (np.eye(3) + 0.05 * rng.uniform(-1, 1, (3, 3)))
    energies = np.array([-10.0, -3.0, -5.5, 1.0])
    frames = []
    for _ in range(count):
        positions = (grid / side) @ cell + rng.normal(scale=0.25, size=(n, 3))
        own = energies[kinds] + rng.normal(scale=0.1, size=n)
        frames.append(
            Frame(
                positions=positions,
                types=kinds,
                cell=cell if periodic else np.zeros((3, 3)),
                pbc=np.full(3, int(periodic)),
                energy=float(own.sum()),
                fparam=rng.normal(size=2) * [1.0, 1e-4] + [0.5, 2.0],
                aparam=rng.normal(loc=-0.3, size=(n, 1)),
            )
        )
    return frames


def systems() -> list[list[Frame]]:
    """Three systems of different compositions; the fourth element of models occurs in none."""
    return [
        system([0, 1, 1] * 5, 4, seed=1),
        system([0, 2, 1, 2] * 5 + [0], 3, seed=2),
        system([1, 0, 1], 2, seed=3, periodic=False),
    ]


def with_atomic(frames: list[Frame]) -> list[Frame]:
    """The same frames with energies of the atoms, and no other label."""
    rng = np.random.RandomState(7)
    means = np.array([-9.0, -2.0, -4.0, 0.0])
    return [
        replace(
            frame,
            energy=None,
            fparam=None,
            aparam=None,
            atom_energies=means[frame.types] + rng.normal(size=len(frame.types)),
        )
        for frame in frames
    ]


FOUR = {"type_map": ["O", "H", "Na", "Cl"]}
MODELS = {
    # every block with averages of its own, lists that overflow, and both kinds of exclusion
    "dpa2": merge(
        MEDIUM,
        FOUR,
        {
            "descriptor": {
                "exclude_types": [[1, 2]],
                "env_protection": 0.03,
                "repinit": {
                    "tebd_input_mode": "strip",
                    "set_davg_zero": False,
                    "nsel": 18,
                    "three_body_sel": 8,
                },
                "repformer": {"nsel": 5, "set_davg_zero": False},
            },
            "pair_exclude_types": [[0, 0]],
        },
    ),
    "zero_averages": merge(MEDIUM, FOUR),
    "se_atten_v2": merge(
        DPA1,
        FOUR,
        {
            "descriptor": {"type": "se_atten_v2", "set_davg_zero": False, "sel": [20, 10]},
            "fitting_net": {"numb_fparam": 2, "numb_aparam": 1},
            "data_stat_protect": 0.005,
            "atom_exclude_types": [2],
        },
    ),
    "preset": merge(DPA1, FOUR, {"preset_out_bias": {"energy": [None, -3.25, [2.0], None]}}),
}
