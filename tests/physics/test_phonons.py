"""Second derivatives of the energy, and the phonons that come of them."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from ase import Atoms, units
from ase.io import write
from ase.phonons import Phonons
from ase.thermochemistry import HarmonicThermo
from ase.vibrations import Vibrations, VibrationsData
from dpa2md import DPA2Calculator, Engine
from dpa2md.cli import main
from dpa2md.errors import RunError
from dpa2md.hessian import force_constants, hessian

from tests.support.selection import skip_or_fail
from tests.support.small_models import crystal, silicon


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Engine:
    from tests.support.small_models import small_model

    return Engine(small_model(tmp_path_factory.mktemp("model")), "float64", 1)


def energy(engine: Engine, atoms: Atoms, *moves: tuple[int, int, float]) -> float:
    moved = atoms.copy()
    for atom, direction, distance in moves:
        moved.positions[atom, direction] += distance
    return engine.compute_atoms([moved], forces=False)[0].energy


def test_second_differences_of_the_energy(engine):
    """Some elements against the energies themselves; both stencils err by delta^2."""
    atoms = crystal((1, 1, 1))
    found = hessian(engine, atoms, delta=1e-3)
    h = 1e-3
    for (a, i), (b, j) in (((0, 0), (1, 2)), ((2, 1), (2, 1)), ((1, 0), (2, 0))):
        four = [
            s * t * energy(engine, atoms, (a, i, s * h), (b, j, t * h))
            for s in (1, -1)
            for t in (1, -1)
        ]
        # rounding of energies, 1e-12 of some hundred eV, divided by 4 h^2
        assert found[a, i, b, j] == pytest.approx(sum(four) / (4 * h * h), rel=1e-4, abs=1e-3)
    assert abs(found).max() > 1


def test_symmetry_and_sum_rule(engine):
    atoms = crystal((1, 1, 1))
    found = hessian(engine, atoms)
    assert found.shape == (3, 3, 3, 3)
    np.testing.assert_array_equal(found, found.transpose(2, 3, 0, 1))
    # moving everything costs nothing: the sum of forces is zero but for rounding, divided by 2 delta
    assert abs(force_constants(engine, atoms, [0, 1, 2]).sum(axis=2)).max() < 1e-9
    # a difference of forces is not symmetric by itself, in the order delta^2
    wrong = []
    for delta in (2e-2, 1e-2):
        raw = force_constants(engine, atoms, [0, 1, 2], delta)
        wrong.append(abs(raw - raw.transpose(2, 3, 0, 1)).max())
    assert wrong[0] / wrong[1] == pytest.approx(4, rel=0.1)


def test_batches_and_parts(engine):
    atoms = crystal()
    done = []
    whole = force_constants(engine, atoms, [3, 5, 7], batch_atoms=10_000)
    parts = force_constants(engine, atoms, [3, 5, 7], batch_atoms=1, report=done.append)
    # the same sums in another order, divided by 2 delta
    np.testing.assert_allclose(parts, whole, atol=1e-8)
    assert done == [1, 2, 3]
    some = hessian(engine, atoms, indices=[3, 5, 7])
    assert some.shape == (3, 3, 3, 3)
    np.testing.assert_allclose(some[0, :, 0], (whole[0, :, 3] + whole[0, :, 3].T) / 2, atol=1e-8)


def test_of_the_calculator(engine):
    calculator = DPA2Calculator(engine)
    with pytest.raises(ValueError, match="no atoms yet"):
        calculator.get_hessian()
    atoms = crystal((1, 1, 1))
    found = calculator.get_hessian(atoms)
    np.testing.assert_array_equal(found, hessian(engine, atoms))
    assert len(VibrationsData(atoms, found).get_frequencies()) == 9
    with pytest.raises(ValueError, match="displacement of 0"):
        hessian(engine, atoms, delta=0)


def test_like_ases_vibrations(engine, tmp_path):
    atoms = Atoms("OHH", [[0, 0, 0], [0.8, 0.6, 0], [-0.8, 0.6, 0]])
    atoms.calc = DPA2Calculator(engine)
    theirs = Vibrations(atoms, name=str(tmp_path / "vib"))
    theirs.run()
    expected = theirs.get_vibrations().get_hessian()
    # the same differences; forces are rounded at 1e-13 and divided by 2 delta
    np.testing.assert_allclose(hessian(engine, atoms), expected, atol=1e-9)


# ---- phonons


@pytest.fixture
def phonons():
    try:
        import phonopy  # noqa: F401
    except ImportError:
        skip_or_fail("phonopy", "phonopy is not installed (pip install phonopy)")
    from dpa2md import phonons

    return phonons


def thz(eigenvalues: np.ndarray) -> np.ndarray:
    """Frequencies from eigenvalues in eV/angstrom^2/amu; imaginary ones negative."""
    squared = eigenvalues * units._e * 1e20 / units._amu
    return np.sign(squared) * np.sqrt(abs(squared)) / (2 * np.pi * 1e12)


def test_the_supercells_own_frequencies(phonons, engine):
    """At the points that fit into the supercell, bands are the normal modes of the supercell."""
    atoms = crystal((1, 1, 1))
    found = phonons.phonons(engine, atoms, (2, 1, 1), delta=1e-3)
    found.run_qpoints([[0, 0, 0], [0.5, 0, 0]])
    repeated = atoms.repeat((2, 1, 1))
    masses = np.repeat(repeated.get_masses(), 3)
    matrix = hessian(engine, repeated, delta=1e-3).reshape(18, 18) / np.sqrt(
        np.outer(masses, masses)
    )
    expected = thz(np.linalg.eigvalsh(matrix))
    bands = np.sort(np.ravel(found.qpoints.frequencies))
    # the acoustic sum rule is enforced in one and within rounding in the other, which are roots of zero
    moving = abs(expected) > 0.1
    assert moving.sum() == 15
    # phonopy moves atoms in other directions, so that the errors of order delta^2 differ
    np.testing.assert_allclose(bands[moving], expected[moving], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(phonons.gamma(found), found.qpoints.frequencies[0], atol=1e-6)


def test_like_ase(phonons, engine, tmp_path):
    """An odd supercell, where ASE treats both directions alike, at a point in between, too."""
    atoms = silicon()
    ours = phonons.phonons(engine, atoms, (3, 3, 3))
    assert len(ours.supercells_with_displacements) == 1  # by symmetry, with as many as six for ASE
    theirs = Phonons(atoms, DPA2Calculator(engine), (3, 3, 3), name=str(tmp_path / "phonon"))
    theirs.run()
    theirs.read(acoustic=True)
    points = [[0, 0, 0], [1 / 3, 0, 0], [1 / 3, 1 / 3, 0]]
    expected = theirs.band_structure(points, verbose=False) / units._hplanck * units._e * 1e-12
    ours.run_qpoints(points)
    # ASE's translations are zero within 0.05 THz
    np.testing.assert_allclose(ours.qpoints.frequencies, expected, rtol=1e-3, atol=0.05)


def test_with_dispersion(phonons, engine):
    """Force constants add up."""
    from dpa2md.dispersion import Dispersion

    try:
        dispersion = Dispersion("pbe")
    except ImportError:
        skip_or_fail("dftd3", "dftd3 is not installed (pip install dftd3)")
    atoms, repeat = silicon(), (2, 2, 2)
    both = phonons.phonons(DPA2Calculator(engine, d3="pbe"), atoms, repeat).force_constants
    plain = phonons.phonons(engine, atoms, repeat).force_constants
    supercell = atoms.repeat(repeat)
    h = 1e-2
    forces = []
    for sign in (1, -1):
        moved = supercell.copy()
        moved.positions[0, 0] += sign * h
        forces.append(dispersion.compute(moved)["forces"])
    own = (forces[1] - forces[0])[0, 0] / (2 * h)
    # phonopy moves along other directions, with errors of order h^2; symmetrizing shifts the sum rule
    assert (both - plain)[0, 0, 0, 0] == pytest.approx(own, rel=1e-2)
    assert abs(own) > 1e-3


def test_thermodynamics(phonons, engine):
    """Against the sums over modes; the heat capacity against the entropy's derivative."""
    found = phonons.phonons(engine, silicon(), (2, 2, 2))
    mesh = (5, 5, 5)
    rows = phonons.thermodynamics(found, mesh, [0, 299, 300, 301])
    found.run_mesh(mesh, is_mesh_symmetry=False)
    modes = found.mesh.frequencies
    assert (
        modes > -1e-3
    ).all()  # this crystal is stable, and its translations are zero but for rounding
    quanta = modes[modes > 1e-3].ravel() * 1e12 * units._hplanck / units._e
    thermo = HarmonicThermo(quanta)
    count = len(modes)
    free = thermo.get_helmholtz_energy(300, verbose=False) / count
    entropy = thermo.get_entropy(300, verbose=False) / count
    # phonopy's constants are CODATA's of another year
    assert rows[2]["free energy / eV"] == pytest.approx(free, rel=1e-4)
    joule = units.J / units.mol
    assert rows[2]["entropy / (J/K/mol)"] == pytest.approx(entropy / joule, rel=1e-4)
    slope = (rows[3]["entropy / (J/K/mol)"] - rows[1]["entropy / (J/K/mol)"]) / 2
    assert rows[2]["heat capacity / (J/K/mol)"] == pytest.approx(300 * slope, rel=1e-4)
    assert rows[0]["free energy / eV"] == pytest.approx(quanta.sum() / 2 / count, rel=1e-4)


def test_command(phonons, engine, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("silicon.traj", silicon())
    options = ["--mesh", "4", "4", "4", "--threads", "1"]
    command = ["phonons", engine.path, "silicon.traj", *options]
    pytest.importorskip("matplotlib")
    assert main([*command, "--plot", "bands.png"]) == 0
    out = capsys.readouterr().out
    assert "float64" in out and "lowest on the path" in out and "heat capacity" in out
    assert (tmp_path / "bands.png").read_bytes().startswith(b"\x89PNG")
    from phonopy import load

    again = load("phonopy_params.yaml", log_level=0)
    again.run_qpoints([[0.5, 0.5, 0]])
    assert main([*command, "--path", "GX", "--overwrite", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["labels"] == ["G", "X"] and found["displacements"] == 1
    assert len(found["bands / THz"]) == len(found["points"]) == len(found["distances"])
    k = int(np.argmin(np.linalg.norm(np.array(found["points"]) - [0.5, 0, 0.5], axis=1)))
    np.testing.assert_allclose(
        found["bands / THz"][k], again.qpoints.frequencies[0], rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--path", "GQ", "-o", "new"], "points of this lattice are G"),
        (["--supercell", "0", "1", "1", "-o", "new"], "three positive numbers"),
        (["--supercell", "-1", "-1", "1", "-o", "new"], "three positive numbers"),
        (["--delta", "-1", "-o", "new"], "positive length"),
        (["--mesh", "0", "1", "1", "-o", "new"], "--mesh must be positive"),
        (["--temperatures", "-1", "-o", "new"], "--temperatures not negative"),
        (["--plot", "new", "-o", "new"], "name two"),
        (["-o", "old"], "--overwrite"),
    ],
)
def test_refusals(phonons, engine, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    write("silicon.traj", silicon())
    (tmp_path / "old").write_text("mine")
    assert main(["phonons", engine.path, "silicon.traj", *options]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "old").read_text() == "mine" and not (tmp_path / "new").exists()


def test_large_forces_are_told(phonons, engine, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("start.traj", crystal((1, 1, 1)))
    options = ["--supercell", "1", "1", "1", "--mesh", "1", "1", "1", "--threads", "1"]
    assert main(["phonons", engine.path, "start.traj", *options]) == 0
    assert "relax the structure first" in capsys.readouterr().err


def test_bad_meshes_and_temperatures(phonons, engine):
    found = phonons.phonons(engine, silicon(), (1, 1, 1))
    with pytest.raises(RunError, match="three positive numbers"):
        phonons.density_of_states(found, (0, 1, 1))
    with pytest.raises(RunError, match="zero or positive"):
        phonons.thermodynamics(found, (2, 2, 2), [-1.0])


def test_a_molecule_is_no_crystal(phonons):
    with pytest.raises(RunError, match="need a crystal"):
        phonons.displace(Atoms("O"), (1, 1, 1))


def test_without_phonopy(engine, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("silicon.traj", silicon())
    monkeypatch.setitem(sys.modules, "phonopy", None)
    assert main(["phonons", engine.path, "silicon.traj"]) == 2
    assert "pip install phonopy" in capsys.readouterr().err
