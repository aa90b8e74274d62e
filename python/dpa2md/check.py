"""Tests of a user's own model on a user's own structure: derivatives, symmetries, smoothness, drift.

Each test compares a measured deviation with one that is allowed; the reason for each allowance stands
where it is defined, and in docs/commands.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

from .calculator import DPA2Calculator
from .engine import Engine, Result
from .errors import RunError
from .model_file import Record

EPS = float(np.finfo(float).eps)

# Of the forces (their rms) or virials. Richardson's extrapolation leaves terms of h^4: with h = 1e-3
# angstrom and forces that change over a tenth of an angstrom, 1e-8 of them. A missing or wrong term of a
# derivative is rarely below 1e-3 of it. This lies in the middle.
DERIVATIVE = 1e-5
STEPS = np.array([4e-3, 2e-3, 1e-3, 5e-4])  # angstrom; the last two are extrapolated
# ... but not below what the rounding of the energy leaves of a difference: a sum over atoms and their
# neighbours carries some ten times the rounding of its value.
ROUNDING = 10 * EPS
# Forces below this (eV/angstrom), as in a relaxed structure, are measured by it.
LEAST_FORCE = 0.1
# A symmetry changes only the order of sums and the rounding of positions; the tests of this package
# allow DeePMD-kit's own models as much (eV/angstrom, times the largest force if that is above 1).
SYMMETRY_FORCE = 1e-9
SYMMETRY_ENERGY = 1e-10  # of the energy
# float32 has 6e-8 of each number, of which sums and small distances make some 1e-5 of a force. A thousandth
# is still ten times below the errors of the best models.
SINGLE_FORCE = 1e-3
SINGLE_ENERGY = 1e-4  # eV/atom; energies of models are not quoted more exactly than to 0.1 meV
# A smooth model's attention leaves e^-20 = 2e-9 of an atom's energy at a cutoff, and that is a few eV.
CUTOFF_ENERGY = 1e-7  # eV
CUTOFF_FORCE = (
    1e-5  # eV/angstrom: the same, divided by the tenth of an angstrom over which it builds up
)
CUTOFF_STEP = 1e-4  # angstrom: the trapezoid rule then errs by some 1e-10 eV
# Of the mean kinetic energy, over the whole run: 3 K at 300 K. A step that is too long, a jump of the
# energy or a wrong force gives more within a few hundred steps.
DRIFT = 0.01
NVE_STEPS, NVE_TIMESTEP, NVE_TEMPERATURE = 400, 0.5, 300.0  # fs, K


@dataclasses.dataclass(frozen=True)
class Check:
    """One test and its verdict."""

    name: str  #: what was tested
    verdict: str  #: pass, fail, skipped
    measured: float  #: the deviation, NaN when skipped
    allowed: float  #: the largest that passes
    unit: str  #: of both
    reason: str  #: what it means; for a failure what to do

    @staticmethod
    def judge(name: str, measured: float, allowed: float, unit: str, good: str, bad: str) -> Check:
        """Pass when `measured` is at most `allowed`; a NaN fails."""
        passed = bool(measured <= allowed)
        verdict, reason = ("pass", good) if passed else ("fail", bad)
        return Check(name, verdict, measured, allowed, unit, reason)

    @staticmethod
    def skip(name: str, reason: str) -> Check:
        """A test that says nothing about this structure."""
        return Check(name, "skipped", float("nan"), float("nan"), "", reason)


class Subject:
    """A model in float64 and float32, and a structure; `curves` collects what a picture shows."""

    def __init__(
        self, load: Callable[[str], Engine], records: dict[str, Record], atoms: Atoms, seed: int
    ):
        self.double, self.single = load("float64"), load("float32")
        self.records, self.atoms = records, atoms
        self.rng = np.random.default_rng(seed)
        self.curves: dict[str, Any] = {}
        self.reference = self(atoms)

    def __call__(self, atoms: Atoms, forces: bool = True, engine: Engine | None = None) -> Result:
        """Results of any structure, in float64."""
        engine = engine or self.double
        fparam = atoms.info.get("fparam") if engine.nfparam else None
        aparam = atoms.arrays.get("aparam") if engine.naparam else None
        return engine.compute_atoms(
            [atoms],
            fparam=None if fparam is None else [fparam],
            aparam=None if aparam is None else [aparam],
            forces=forces,
        )[0]

    def energy(self, atoms: Atoms) -> float:
        """Of any structure, eV, in float64."""
        return self(atoms, forces=False).energy

    @property
    def forces(self) -> np.ndarray:
        """Of the structure itself, (n, 3) eV/angstrom."""
        assert self.reference.forces is not None
        return self.reference.forces

    @property
    def force_scale(self) -> float:
        """The rms of the force components, eV/angstrom."""
        return max(float(np.sqrt(np.mean(self.forces**2))), LEAST_FORCE)

    def blocks(self) -> Iterator[tuple[str, float, int]]:
        """Name, cutoff (angstrom) and room for neighbours of each block."""
        for name in ("repinit", "three_body", "repformer"):
            if f"{name}.rcut" in self.records:
                rcut, nsel = self.records[f"{name}.rcut"], self.records[f"{name}.nsel"]
                yield name, float(rcut), int(nsel)  # type: ignore[arg-type]


def run_checks(
    load: Callable[[str], Engine],
    records: dict[str, Record],
    atoms: Atoms,
    *,
    precision: str | None = None,
    nve_steps: int = NVE_STEPS,
    seed: int = 1,
    report: Callable[[int], None] | None = None,
) -> tuple[list[Check], Subject]:
    """All tests of a model on a structure.

    Parameters
    ----------
    load
        Gives the model in a precision.
    records
        The model's records, as `dpa2md.conversion.load_records` gives them.
    precision
        Of the short run; None: the model's own.
    seed
        Of directions, rotations, permutations and velocities.
    report
        Called after each group of tests with the number of groups done, of `GROUPS`.

    Returns
    -------
    checks, subject
        The verdicts, and the curves behind them.

    Raises
    ------
    ValueError
        When the structure can't be evaluated at all.
    """
    atoms = atoms.copy()
    atoms.set_constraint()
    subject = Subject(load, records, atoms, seed)
    own = str(records["model.precision"]) if precision is None else precision
    checks: list[Check] = []
    for k, group in enumerate(GROUPS):
        checks += group(subject)
        if report:
            report(k + 1)
    engine = subject.single if own == "float32" else subject.double
    checks += check_drift(subject, engine, nve_steps, seed)
    return checks, subject


def check_forces(s: Subject, directions: int = 4) -> list[Check]:
    """Forces against central differences along random directions of all atoms at once."""
    worst, curve = 0.0, np.zeros(len(STEPS))
    for _ in range(directions):
        direction = s.rng.normal(size=s.forces.shape)
        direction /= np.linalg.norm(direction)
        differences, limit = _differences(s, _moved, direction, 1.0)
        exact = -float(np.sum(s.forces * direction))
        worst = max(worst, abs(limit - exact))
        curve = np.maximum(curve, np.abs(differences - exact))
    s.curves["forces"] = curve
    allowed = DERIVATIVE * s.force_scale + ROUNDING * abs(s.reference.energy) / STEPS[-1]
    return [
        Check.judge(
            "forces are -dE/dx",
            worst,
            allowed,
            "eV/angstrom",
            f"differences along {directions} random directions agree",
            "the forces are not the energy's derivative here: a jump of the energy is near (see "
            "neighbours and cutoffs), or the model is damaged",
        )
    ]


def check_stress(s: Subject, strains: int = 3) -> list[Check]:
    """The virial against central differences along random symmetric strains."""
    assert s.reference.virial is not None and s.reference.virials is not None
    worst, curve = 0.0, np.zeros(len(STEPS))
    reach = s.double.rcut  # neighbours at the cutoff then move by the steps of the forces
    for _ in range(strains):
        strain = s.rng.normal(size=(3, 3))
        strain = (strain + strain.T) / np.linalg.norm(strain + strain.T)
        differences, limit = _differences(s, _strained, strain, reach)
        exact = -float(np.sum(s.reference.virial * strain))
        worst = max(worst, abs(limit - exact))
        curve = np.maximum(curve, np.abs(differences - exact))
    s.curves["virial"] = curve
    # the virial may cancel to nothing; its parts, an atom's each, say how large it could be
    scale = max(float(np.linalg.norm(s.reference.virials)), LEAST_FORCE)
    allowed = DERIVATIVE * scale + ROUNDING * abs(s.reference.energy) / (STEPS[-1] / reach)
    return [
        Check.judge(
            "virial is -dE/dstrain",
            worst,
            allowed,
            "eV",
            f"differences along {strains} random strains agree",
            "the stress is not the energy's derivative here: see forces",
        )
    ]


def _differences(
    s: Subject, change: Callable[[Atoms, np.ndarray], Atoms], by: np.ndarray, reach: float
) -> tuple[np.ndarray, float]:
    """Central differences of the energy for changes of STEPS / reach, and Richardson's limit."""
    steps = STEPS / reach
    ends = [[s.energy(change(s.atoms, sign * h * by)) for sign in (1, -1)] for h in steps]
    found = np.array([(up - down) / (2 * h) for (up, down), h in zip(ends, steps, strict=True)])
    return found, float((4 * found[-1] - found[-2]) / 3)


def _moved(atoms: Atoms, shift: np.ndarray) -> Atoms:
    moved = atoms.copy()
    moved.positions += shift
    return moved


def _strained(atoms: Atoms, strain: np.ndarray) -> Atoms:
    deformation = np.eye(3) + strain
    strained = atoms.copy()
    strained.set_cell(atoms.cell.array @ deformation)
    strained.positions = atoms.positions @ deformation
    return strained


def check_symmetries(s: Subject) -> list[Check]:
    """Moving, turning, reflecting and renumbering the structure."""
    rotation = np.linalg.qr(s.rng.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    order = s.rng.permutation(len(s.atoms))
    everyone = np.arange(len(s.atoms))
    shift = s.rng.uniform(-20, 20, 3)
    return [
        _symmetry(s, "translation", _moved(s.atoms, shift), np.eye(3), everyone),
        _symmetry(s, "rotation", _turned(s.atoms, rotation), rotation, everyone),
        _symmetry(s, "reflection", _turned(s.atoms, -rotation), -rotation, everyone),
        _symmetry(s, "permutation", s.atoms[order], np.eye(3), order),
    ]


def _turned(atoms: Atoms, matrix: np.ndarray) -> Atoms:
    turned = atoms.copy()
    turned.set_cell(atoms.cell.array @ matrix)
    turned.positions = atoms.positions @ matrix
    return turned


def _symmetry(s: Subject, name: str, atoms: Atoms, matrix: np.ndarray, order: np.ndarray) -> Check:
    result = s(atoms)
    force = float(np.abs(result.forces - s.forces[order] @ matrix).max())
    energy = abs(result.energy - s.reference.energy) / max(1.0, abs(s.reference.energy))
    allowed = SYMMETRY_FORCE * max(1.0, float(np.abs(s.forces).max()))
    # one number for both: what part of the allowance the worse one takes
    measured = max(force, allowed * energy / SYMMETRY_ENERGY)
    return Check.judge(
        name,
        measured,
        allowed,
        "eV/angstrom",
        "energy and forces follow",
        "results change: see neighbours (of equal distances, those beyond the room are cut off at "
        "random), or the model's statistics prefer a direction",
    )


def check_single(s: Subject) -> list[Check]:
    """float32 against float64."""
    single = s(s.atoms, engine=s.single)
    difference = single.forces - s.forces
    s.curves["single"] = np.abs(difference).ravel()
    rms = float(np.sqrt(np.mean(difference**2)))
    energy = abs(single.energy - s.reference.energy) / len(s.atoms)
    bad = "use --precision float64 for this model"
    return [
        Check.judge(
            "float32 forces", rms, SINGLE_FORCE * s.force_scale, "eV/angstrom",
            "rms difference from float64", bad,
        ),
        Check.judge(
            "float32 energy", energy, SINGLE_ENERGY, "eV/atom", "difference from float64", bad
        ),
    ]  # fmt: skip


def check_cutoffs(s: Subject) -> list[Check]:
    """A neighbour crosses each cutoff: neither the energy nor the force on it may jump."""
    checks = []
    for name, rcut, _ in s.blocks():
        jumps = [_crossing(s, name, rcut, *pair) for pair in _pairs_near(s.atoms, rcut)]
        title = f"{name.replace('_', '-')} cutoff"
        if not jumps:
            checks.append(Check.skip(title, "the structure has no two atoms to move apart"))
            continue
        energy, force = np.max(jumps, axis=0)
        # one number for both, as above
        measured = max(energy, force * CUTOFF_ENERGY / CUTOFF_FORCE)
        checks.append(
            Check.judge(
                title,
                float(measured),
                CUTOFF_ENERGY,
                "eV",
                f"energy and force pass {rcut:g} angstrom smoothly",
                "a jump: the model is not smooth (trained with smooth: false), or has not enough "
                "room for its neighbours",
            )
        )
    return checks


def _pairs_near(atoms: Atoms, rcut: float) -> list[tuple[int, int, np.ndarray]]:
    """For each two elements the pair whose distance is nearest to `rcut`: i, j, vector from i to j."""
    i, j, d, vector = neighbor_list("ijdD", atoms, rcut + 1.0)
    symbols = np.array(atoms.get_chemical_symbols())
    pairs = []
    for a in dict.fromkeys(symbols):
        for b in dict.fromkeys(symbols):
            # an atom's own image never gets nearer when it moves
            mine = np.flatnonzero((symbols[i] == a) & (symbols[j] == b) & (i != j) & (d > 0))
            if mine.size:
                k = mine[np.argmin(np.abs(d[mine] - rcut))]
                pairs.append((int(i[k]), int(j[k]), vector[k]))
    return pairs


def _crossing(
    s: Subject, name: str, rcut: float, i: int, j: int, vector: np.ndarray
) -> tuple[float, float]:
    """Jumps of energy (eV) and force (eV/angstrom) when j moves outwards through the cutoff of i.

    Between two sides of a smooth point the energy changes by the trapezoid rule of the forces, and the
    force by as much as between two points further out.
    """
    unit = vector / np.linalg.norm(vector)
    at = CUTOFF_STEP * np.array([-3, -1, 1, 3])
    energies, pulls = np.empty(4), np.empty(4)
    for k, beyond in enumerate(at):
        atoms = s.atoms.copy()
        atoms.positions[j] += (rcut + beyond) * unit - vector
        result = s(atoms)
        assert result.forces is not None
        energies[k], pulls[k] = result.energy, result.forces[j] @ unit
    energy = abs(energies[2] - energies[1] + CUTOFF_STEP * (pulls[1] + pulls[2]))
    force = abs((pulls[2] - pulls[1]) - ((pulls[1] - pulls[0]) + (pulls[3] - pulls[2])) / 2)
    work = np.concatenate([[0], np.cumsum(np.diff(at) * (pulls[1:] + pulls[:-1]) / 2)])
    s.curves.setdefault("cutoffs", []).append((name, at, energies - energies[0] + work))
    return float(energy), float(force)


def check_room(s: Subject) -> list[Check]:
    """No atom may have more neighbours than the model has room for, unless it takes all."""
    checks = []
    for name, rcut, nsel in s.blocks():
        counts = np.bincount(neighbor_list("i", s.atoms, rcut), minlength=len(s.atoms))
        s.curves.setdefault("room", {})[name] = (counts, nsel)
        title, most = f"{name.replace('_', '-')} neighbours", int(counts.max())
        if s.records.get("model.all_neighbors", 0):
            reason = (
                f"the model takes all within {rcut:g} angstrom, {most} here of the atom with most"
            )
            checks.append(Check.skip(title, reason))
            continue
        over = int((counts > nsel).sum())
        checks.append(
            Check.judge(
                title,
                most,
                nsel,
                "",
                f"of the atom with most, within {rcut:g} angstrom",
                f"{over} of {len(counts)} atoms have more than the model has room for; the energy "
                "jumps there: convert with --all-neighbors, give the model room with "
                "examples/widen_nsel.py, or train with more",
            )
        )
    return checks


def check_drift(s: Subject, engine: Engine, steps: int, seed: int) -> list[Check]:
    """The total energy of a short run without thermostat."""
    from .dynamics import Settings
    from .md import run_md

    name = "NVE drift"
    if steps < 10:
        return [Check.skip(name, "no run was asked for")]
    atoms = s.atoms.copy()
    atoms.calc = DPA2Calculator(engine)
    settings = Settings(
        ensemble="nve", steps=steps, timestep=NVE_TIMESTEP, temperature=NVE_TEMPERATURE,
        seed=seed, interval=1, checkpoint_interval=steps,
    )  # fmt: skip
    rows: list[dict[str, float]] = []
    try:
        run_md(atoms, settings, report=lambda _, row: rows.append(row or {}))
    except RunError as error:
        return [Check(name, "fail", float("nan"), float("nan"), "eV/atom", str(error))]
    time = np.array([row["time_ps"] for row in rows])
    total = np.array([row["total_energy_eV"] for row in rows]) / len(atoms)
    kinetic = np.mean([row["kinetic_energy_eV"] for row in rows]) / len(atoms)
    s.curves["nve"] = (time, total - total[0])
    drift = abs(float(np.polyfit(time, total, 1)[0])) * time[-1]
    return [
        Check.judge(
            name,
            drift,
            DRIFT * float(kinetic),
            "eV/atom",
            f"over {steps} steps of {NVE_TIMESTEP:g} fs in {engine.precision}",
            "energy is not conserved: relax the structure first, or see the failures above",
        )
    ]


GROUPS: tuple[Callable[[Subject], list[Check]], ...] = (
    check_forces,
    check_stress,
    check_symmetries,
    check_single,
    check_cutoffs,
    check_room,
)
