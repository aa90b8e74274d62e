"""`dpa2md check`: good models pass, and each test can fail."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from dpa2md import check
from dpa2md.cli import main
from dpa2md.conversion import convert, load_records
from dpa2md.engine import Engine

from tests.golden.suite import MODELS, STRUCTURES
from tests.support.paths import ROOT
from tests.support.selection import golden_models
from tests.support.small_models import crystal, small_model
from tests.support.tolerances import TOLERANCES

FAULTY = np.load(ROOT / "tests" / "golden" / "faulty.npz")

pytestmark = pytest.mark.filterwarnings("ignore:Atom .* neighbours")


def verdicts(load, records, atoms, **options) -> dict[str, check.Check]:
    checks, _ = check.run_checks(load, records, atoms, **{"nve_steps": 0} | options)
    return {c.name: c for c in checks}


def failed(checks: dict[str, check.Check]) -> set[str]:
    return {name for name, c in checks.items() if c.verdict == "fail"}


def run(model, atoms, **options) -> dict[str, check.Check]:
    """A model without any fault."""
    return verdicts(lambda p: Engine(model, p, threads=1), load_records(model), atoms, **options)


class Faulty(Engine):
    """An engine whose results are changed by `fault(structure, result)`."""

    def compute_atoms(self, structures, **options):
        results = super().compute_atoms(structures, **options)
        pairs = zip(structures, results, strict=True)
        return [self.fault(a, r) for a, r in pairs]


def run_faulty(model, atoms, fault, precision: str | None = None) -> set[str]:
    """Names of the tests that notice `fault`, in one precision or both."""

    def load(p: str) -> Engine:
        engine = Faulty(model, p, threads=1)
        wanted = precision in (None, p)
        engine.fault = fault if wanted else lambda _, result: result
        return engine

    return failed(verdicts(load, load_records(model), atoms))


def changed(result, **values):
    return dataclasses.replace(result, **values)


def test_good_models_pass(model):
    atoms = crystal()
    assert not failed(run(model, atoms))
    cluster = crystal((1, 1, 1))
    cluster.pbc, cluster.cell = False, None
    checks = run(model, cluster)
    assert not failed(checks)
    assert checks["repinit cutoff"].verdict == "pass"


@golden_models("medium", "strip", "dpa1")
def test_golden_models_pass(model, evaluate):
    """Models trained by nobody, of other forms than the small one."""
    path = evaluate.path(model)
    elements = str(load_records(path)["model.elements"]).split("\n")
    atoms = crystal((1, 2, 1))
    atoms.symbols = [elements[k % len(elements)] for k in range(len(atoms))]
    checks = run(path, atoms)
    assert not {n for n in failed(checks) if "neighbours" not in n}


@golden_models("not_smooth")
def test_models_that_are_not_smooth_fail_at_a_cutoff(model, evaluate):
    path = evaluate.path(model)
    elements = str(load_records(path)["model.elements"]).split("\n")
    atoms = Atoms(elements[:2] * 2, [[0, 0, 0], [0.9, 0.3, 0.1], [-0.2, 1.0, 0.6], [1.5, 1.9, 0.3]])
    assert {n for n in failed(run(path, atoms)) if n.endswith("cutoff")}


@pytest.mark.parametrize(
    ("name", "allowed", "expected"),
    [
        ("davg_strip_exclude", check.CUTOFF_ENERGY, {"repinit cutoff"}),
        ("uneven_dstd", check.SYMMETRY_ENERGY, {"rotation", "reflection"}),
    ],
)
def test_faults_that_are_the_models_own(name, allowed, expected, evaluate):
    """Two golden models fail rightly: DeePMD-kit's own energies (golden/faulty.npz) do the same.

    An excluded pair that leaves the cutoff changes the energy of `davg_strip_exclude` by 1.7e-3 eV over 2e-4
    angstrom; a quarter turn that of `uneven_dstd` by 1.5e-2 eV. Ours are the same numbers.
    """
    model = MODELS[name]
    elements = [model.elements_used[k] for k in FAULTY["kinds"]]
    pair = [Atoms(elements, positions) for positions in FAULTY[f"{name}/positions"]]
    theirs, forces = FAULTY[f"{name}/energy"], FAULTY[f"{name}/forces"]
    assert abs(theirs[1] - theirs[0]) > 1000 * allowed
    ours = [evaluate.engine(model).compute_atoms([atoms])[0] for atoms in pair]
    assert [r.energy for r in ours] == pytest.approx(theirs, rel=TOLERANCES["energy"])
    assert abs(np.array([r.forces for r in ours]) - forces).max() <= TOLERANCES["forces"]
    molecule = STRUCTURES["molecule"]
    atoms = Atoms(model.symbols(molecule), molecule.positions)
    assert failed(run(evaluate.path(model), atoms)) == expected


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (lambda a, r: changed(r, forces=None if r.forces is None else r.forces * 1.0001),
         {"forces are -dE/dx"}),
        (lambda a, r: changed(r, virial=None if r.virial is None else r.virial + np.eye(3) * 0.01),
         {"virial is -dE/dstrain"}),
        (lambda a, r: changed(r, energy=r.energy + 1e-3 * a.positions[:, 0].sum()),
         {"forces are -dE/dx", "translation", "rotation", "reflection"}),
        (lambda a, r: changed(r, energy=r.energy + 1e-3 * a.numbers[0]), {"permutation"}),
        (lambda a, r: changed(r, energy=r.energy + 0.1 * np.linalg.det(a.positions[:3])),
         {"reflection", "forces are -dE/dx"}),
        (lambda a, r: changed(r, energy=r.energy + 1e-6 * (a.get_distance(0, 1, mic=True) > 3.5)),
         set()),  # a jump that no test looks for, as long as nothing crosses it
    ],
)  # fmt: skip
def test_faults_are_noticed(model, fault, expected):
    assert expected <= run_faulty(model, crystal((1, 2, 1)), fault)


def test_jumps_at_a_cutoff_are_noticed(model):
    """Of 1e-6 eV in the energy, or 1e-4 eV/angstrom in the force, at 3.5 angstrom."""
    atoms = Atoms("OH", [[0, 0, 0], [0, 0, 3.45]])

    def energy_jump(a, r):
        return changed(r, energy=r.energy + 1e-6 * (a.get_distance(0, 1) > 3.5))

    def force_jump(a, r):
        beyond = max(a.get_distance(0, 1) - 3.5, 0)
        pull = np.zeros((2, 3))
        pull[1] = -1e-4 * (beyond > 0) * (a.positions[1] - a.positions[0]) / a.get_distance(0, 1)
        forces = None if r.forces is None else r.forces + pull - pull[::-1]
        return changed(r, energy=r.energy + 1e-4 * beyond, forces=forces)

    for fault in (energy_jump, force_jump):
        assert run_faulty(model, atoms, fault) == {"repformer cutoff"}


def test_bad_float32_is_noticed(model):
    def noisy(a, r):
        forces = None if r.forces is None else r.forces * 1.01
        return changed(r, forces=forces, energy=r.energy + 0.001 * len(a))

    assert run_faulty(model, crystal((1, 2, 1)), noisy, "float32") == {
        "float32 forces", "float32 energy"
    }  # fmt: skip


def test_overfull_lists_are_noticed(tmp_path):
    checks = run(small_model(tmp_path, nsel=10), crystal())
    assert {"repinit neighbours", "repformer neighbours"} <= failed(checks)
    assert "widen_nsel" in checks["repinit neighbours"].reason


def test_models_that_take_all_have_no_room_to_exceed(tmp_path):
    """What is overfull otherwise is none of their checks, and they pass the others."""
    path = convert(small_model(tmp_path, nsel=10), tmp_path / "all.dpa2", all_neighbors=True)
    checks = run(path, crystal())
    assert not failed(checks)
    assert checks["repinit neighbours"].verdict == "skipped"
    assert "takes all within 4 angstrom" in checks["repinit neighbours"].reason


def test_drift(tmp_path):
    """A gentle model conserves energy; one that explodes does not, and leaves no file behind."""
    atoms = crystal()
    atoms.set_masses(np.full(len(atoms), 50.0))
    gentle = small_model(tmp_path, scale=10.0)
    assert run(gentle, atoms, nve_steps=50)["NVE drift"].verdict == "pass"
    wild = small_model(tmp_path, scale=1e5)
    drift = run(wild, atoms, nve_steps=50)["NVE drift"]
    assert drift.verdict == "fail" and "failed at step" in drift.reason


def test_parameters_come_from_the_structure(tmp_path):
    path = small_model(tmp_path, numb_fparam=1, numb_aparam=1)
    atoms = crystal((1, 1, 2))
    atoms.info["fparam"] = [0.3]
    atoms.arrays["aparam"] = np.linspace(0, 1, len(atoms))[:, None]
    assert not failed(run(path, atoms))


def test_command(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("start.extxyz", crystal((1, 2, 1)))
    command = ["check", str(model), "start.extxyz", "--threads", "1", "--nve-steps", "0"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "forces are -dE/dx" in out and "nothing failed" in out and "skipped" in out
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["failed"] == 0 and len(report["checks"]) == 15
    narrow = small_model(tmp_path, nsel=10)
    assert main(["check", str(narrow), *command[2:]]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_picture(model, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    write("start.extxyz", crystal((1, 1, 1)))
    command = ["check", str(model), "start.extxyz", "--nve-steps", "20", "--plot", "page.png"]
    assert main(command) in (0, 1)
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("option", ["--nve-steps", "--seed"])
def test_negative_numbers(option, capsys):
    assert main(["check", "water", "water", option, "-2"]) == 2
    assert capsys.readouterr().err == f"dpa2md check: {option} -2: give 0 or more.\n"
