"""The ASE calculator, as a user of ASE meets it."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.optimize import BFGS, FIRE
from ase.phonons import Phonons
from dpa2md import DPA2Calculator, evaluate

from tests.support.small_models import crystal, silicon, small_model, two_head_checkpoint

try:
    from ase.filters import FrechetCellFilter
    from ase.mep import NEB
except ImportError:  # before ase 3.23
    from ase.constraints import ExpCellFilter as FrechetCellFilter
    from ase.neb import NEB

# Results of the same structure differ only by the order of sums: 1e-16 times a few thousand terms
# of up to 1e2 eV.
SAME = 1e-10


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def calculator(path):
    return DPA2Calculator(path, threads=1)


def richardson(energy, h=2e-3):
    """The derivative at 0 from central differences of steps h and h/2; errs by h^4."""

    def difference(step):
        return (energy(step) - energy(-step)) / (2 * step)

    return (4 * difference(h / 2) - difference(h)) / 3


# h^4 = 1.6e-11 times a fifth derivative of up to 1e4 eV/angstrom^5 of these random models.
DERIVATIVE = 1e-6


def test_forces_are_the_gradient(calculator):
    atoms = crystal()
    atoms.calc = calculator
    forces = atoms.get_forces()
    assert np.abs(forces).max() > 0.1
    direction = np.random.default_rng(0).normal(size=forces.shape)
    direction /= np.linalg.norm(direction)
    start = atoms.positions.copy()

    def energy(step):
        atoms.positions = start + step * direction
        return atoms.get_potential_energy()

    assert richardson(energy) == pytest.approx(-np.sum(forces * direction), abs=DERIVATIVE)


@pytest.mark.parametrize("pbc", [True, (True, True, False), False])
def test_stress_is_the_strain_derivative(calculator, pbc):
    atoms = crystal()
    atoms.pbc = pbc
    atoms.calc = calculator
    stress = atoms.get_stress()
    assert np.abs(stress).max() > 1e-4
    cell, volume = atoms.cell.array.copy(), atoms.get_volume()
    for component, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        strain = np.zeros((3, 3))
        strain[i, j] += 0.5
        strain[j, i] += 0.5

        def energy(step, strain=strain):
            atoms.set_cell(cell @ (np.eye(3) + step * strain), scale_atoms=True)
            return atoms.get_potential_energy()

        assert richardson(energy) / volume == pytest.approx(stress[component], abs=DERIVATIVE)


def test_properties_fit_together(calculator):
    atoms = crystal()
    atoms.calc = calculator
    energy = atoms.get_potential_energy()
    assert energy == atoms.get_potential_energy(force_consistent=True)
    assert atoms.get_potential_energies().sum() == pytest.approx(energy, abs=SAME)
    stresses = atoms.get_stresses()
    assert stresses.shape == (len(atoms), 6)
    np.testing.assert_allclose(stresses.sum(axis=0), atoms.get_stress(), rtol=0, atol=SAME)
    assert atoms.get_forces().sum(axis=0) == pytest.approx(np.zeros(3), abs=SAME)


def test_energy_alone_costs_no_forces(calculator):
    atoms = crystal()
    atoms.calc = calculator
    energy = atoms.get_potential_energy()
    assert "forces" not in calculator.results
    atoms.get_forces()
    assert {"forces", "stress"} <= set(calculator.results)
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=SAME)


def test_stress_needs_a_cell(calculator):
    atoms = molecule("H2O")
    atoms.calc = calculator
    assert atoms.get_forces().shape == (3, 3)
    with pytest.raises(PropertyNotImplementedError, match="three independent vectors"):
        atoms.get_stress()


def test_anything_may_change_between_calls(calculator, path):
    """Other atom counts, cells and elements: as with a new calculator each time."""
    moved, other = crystal(), crystal((1, 1, 1))
    moved.positions[3] += [0.2, 0, -7.0]
    squeezed, renamed = crystal(), crystal()
    squeezed.set_cell(squeezed.cell * 0.97, scale_atoms=True)
    renamed.symbols[0] = "O"
    for atoms in (
        crystal(),
        moved,
        other,
        squeezed,
        silicon(),
        renamed,
        molecule("H2O"),
        crystal(),
    ):
        atoms.calc = calculator
        results = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = DPA2Calculator(path, threads=1)
        assert results[0] == pytest.approx(atoms.get_potential_energy(), abs=SAME)
        np.testing.assert_allclose(results[1], atoms.get_forces(), rtol=0, atol=SAME)


def test_results_do_not_depend_on_the_skin(path):
    atoms = crystal()
    calculators = [DPA2Calculator(path, threads=1, skin=skin) for skin in (0.0, 0.5, 2.0)]
    rng = np.random.default_rng(0)
    for _ in range(6):
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        forces = []
        for atoms.calc in calculators:
            forces.append(atoms.get_forces())
        np.testing.assert_allclose(forces[1], forces[0], rtol=0, atol=SAME)
        np.testing.assert_allclose(forces[2], forces[0], rtol=0, atol=SAME)


def test_unknown_element(calculator):
    atoms = molecule("CH4")
    atoms.calc = calculator
    with pytest.raises(ValueError, match=r"doesn't know the element C; its elements are O H Si\.$"):
        atoms.get_potential_energy()


def test_copies(calculator):
    atoms = crystal()
    atoms.calc = calculator
    energy = atoms.get_potential_energy()
    assert atoms.copy().calc is None
    twin = copy.deepcopy(atoms)
    assert twin.calc is not calculator
    twin.positions[0] += 0.3
    assert twin.get_potential_energy() != energy
    assert atoms.get_potential_energy() == energy
    again = pickle.loads(pickle.dumps(calculator))
    assert again.get_potential_energy(crystal()) == pytest.approx(energy, abs=SAME)


def test_pickle_from_another_folder(path, monkeypatch, tmp_path):
    monkeypatch.chdir(path.parent)
    data = pickle.dumps(DPA2Calculator(path.name, precision="float32", threads=1))
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(data).engine.precision == "float32"


def test_overfull_atoms_are_told_once(tmp_path):
    atoms = crystal()
    atoms.calc = DPA2Calculator(small_model(tmp_path, nsel=6), threads=1)
    with pytest.warns(UserWarning, match=r"^Atom \d+ has \d+ neighbours .* nearest 6 are kept"):
        atoms.get_forces()
    atoms.rattle(0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        atoms.get_forces()
    pair = [
        Atoms("H2", [[0, 0, 0], [0, 0, 1]]),
        Atoms("H9", np.random.default_rng(0).random((9, 3))),
    ]
    with pytest.warns(UserWarning, match=r"^Atom 0 of structure 1 has 8 neighbours"):
        evaluate(atoms.calc.engine.path, pair, threads=1)
    # a batch for each structure: still the number in the whole list
    with pytest.warns(UserWarning, match=r"^Atom 0 of structure 1 has 8 neighbours"):
        evaluate(atoms.calc.engine.path, pair, threads=1, batch_atoms=1)
    with pytest.warns(UserWarning, match=r"^Atom 0 of structure 2 has 8 neighbours"):
        evaluate(atoms.calc.engine.path, [pair[0], *pair], threads=1, batch_atoms=4)
    with pytest.warns(UserWarning, match=r"^Atom 0 has 8 neighbours"):
        evaluate(atoms.calc.engine.path, pair[1:], threads=1)


def test_frame_and_atom_parameters(tmp_path):
    model = small_model(tmp_path, numb_fparam=2, numb_aparam=1)
    atoms = crystal()
    atoms.calc = DPA2Calculator(model, threads=1, fparam=[0.3, -0.2], aparam=0.5)
    energy = atoms.get_potential_energy()
    atoms.calc = DPA2Calculator(model, threads=1)
    atoms.info["fparam"] = [0.3, -0.2]
    atoms.arrays["aparam"] = np.full(len(atoms), 0.5)
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=SAME)
    atoms.info["fparam"] = [0.3, -0.1]  # noticed, although no atom has moved
    assert abs(atoms.get_potential_energy() - energy) > 1e-6
    atoms.info["fparam"] = [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match=r"fparam has the shape \(3,\); the model needs 2 numbers"):
        atoms.get_potential_energy()
    del atoms.info["fparam"]
    with pytest.raises(ValueError, match="2 frame parameters"):
        atoms.get_potential_energy()


def test_no_parameters_wanted(path):
    atoms = crystal()
    atoms.calc = DPA2Calculator(path, threads=1, fparam=1.0)
    with pytest.raises(ValueError, match="takes no fparam"):
        atoms.get_potential_energy()


def test_checkpoints_are_converted_on_the_fly(tmp_path):
    source = two_head_checkpoint(tmp_path)
    energies = []
    for head in ("A", "B"):
        calculator = DPA2Calculator(source, threads=1, head=head)
        energies.append(calculator.get_potential_energy(crystal()))
    assert abs(energies[0] - energies[1]) > 1e-3
    assert pickle.loads(pickle.dumps(calculator)).get_potential_energy(crystal()) == energies[1]
    with pytest.raises(ValueError, match="A, B"):
        DPA2Calculator(source)
    assert [file.name for file in tmp_path.iterdir()] == [source.name]


def test_errors_of_the_constructor(path):
    with pytest.raises(FileNotFoundError):
        DPA2Calculator("missing.dpa2")
    with pytest.raises(ValueError, match="single head"):
        DPA2Calculator(path, head="A")
    with pytest.raises(ValueError, match="precision"):
        DPA2Calculator(path, precision="double")
    with pytest.raises(ValueError, match="threads is 0"):
        DPA2Calculator(path, threads=0)


def test_float32_is_close(path):
    exact = DPA2Calculator(path, "float64", threads=1).get_forces(crystal())
    single = DPA2Calculator(path, "float32", threads=1).get_forces(crystal())
    deviation = np.abs(single - exact).max()
    # Rounding of 2^-24 in forces of this size, grown by a hundred operations in a row.
    assert 0 < deviation < 100 * 2.0**-24 * np.abs(exact).max() * 10


@pytest.mark.parametrize("optimizer", [BFGS, FIRE])
@pytest.mark.parametrize("cell", [False, True], ids=["atoms", "atoms and cell"])
def test_relaxation(calculator, optimizer, cell):
    """Every few steps go downhill. (Random models have no repulsion, so nothing converges.)"""
    atoms = crystal((1, 1, 1), rattle=0.02)
    atoms.calc = calculator
    dynamics = optimizer(FrechetCellFilter(atoms) if cell else atoms, logfile=None)
    volume = atoms.get_volume()
    energies: list[float] = []
    dynamics.attach(lambda: energies.append(atoms.get_potential_energy()), interval=3)
    dynamics.run(fmax=1e-3, steps=12)
    assert len(energies) == 5
    assert np.all(np.diff(energies) < -1e-4)
    assert (atoms.get_volume() != volume) == cell


def test_phonons(calculator, tmp_path):
    """The acoustic modes at Gamma vanish although the primitive cell is smaller than the cutoff."""
    phonons = Phonons(silicon(), calculator, supercell=(3, 3, 3), delta=0.01,
                      name=str(tmp_path / "phonon"))  # fmt: skip
    phonons.run()
    phonons.read(acoustic=False)
    gamma, other = phonons.band_structure([[0, 0, 0], [0.3, 0.1, 0.2]], verbose=False)
    # Frequencies are square roots: rounding of 1e-12 in force constants shows as 1e-6.
    assert np.abs(gamma).max() < 1e-4 * np.abs(other).max()


def test_band_with_one_calculator(path):
    """A nudged elastic band with a shared calculator has the forces of one with separate ones."""

    def band(calculators, shared):
        first, last = crystal((1, 1, 2), seed=1), crystal((1, 1, 2), seed=2)
        images = [first, *(first.copy() for _ in range(3)), last]
        for image, calculator in zip(images, calculators, strict=True):
            image.calc = calculator
        neb = NEB(images, allow_shared_calculator=shared, method="improvedtangent")
        neb.interpolate()
        return neb.get_forces()

    one = DPA2Calculator(path, threads=1)
    separate = [DPA2Calculator(path, threads=1) for _ in range(5)]
    shared = band([one] * 5, True)
    assert np.abs(shared).max() > 0.01
    np.testing.assert_allclose(shared, band(separate, False), rtol=0, atol=1e-8)


@pytest.mark.parametrize("batch_atoms", [1, 50, 2000])
def test_evaluate(path, batch_atoms):
    """Batches give what the calculator gives, one structure after the other."""
    structures = [crystal(), molecule("H2O"), crystal((1, 1, 1)), silicon(), crystal(seed=9)]
    results = evaluate(path, structures, threads=1, batch_atoms=batch_atoms)
    calculator = DPA2Calculator(path, threads=1)
    assert len(results) == len(structures)
    for atoms, result in zip(structures, results, strict=True):
        atoms.calc = calculator
        assert result["energy"] == pytest.approx(atoms.get_potential_energy(), abs=SAME)
        np.testing.assert_allclose(result["forces"], atoms.get_forces(), rtol=0, atol=SAME)
        assert ("stress" in result) == (atoms.cell.rank == 3)
        if "stress" in result:
            np.testing.assert_allclose(result["stress"], atoms.get_stress(), rtol=0, atol=SAME)
            np.testing.assert_allclose(
                np.diag(-result["virial"]) / atoms.get_volume(),
                result["stress"][:3],
                rtol=0,
                atol=SAME,
            )


def test_evaluate_options(path):
    assert evaluate(path, []) == []
    energies = evaluate(DPA2Calculator(path, threads=1), [crystal()], forces=False)
    assert set(energies[0]) == {"energy", "free_energy", "energies"}
    with pytest.raises(ValueError, match="2 entries for 1 structures"):
        evaluate(path, [crystal()], fparam=[1, 2])


def test_import_is_light():
    """Neither torch nor matplotlib is imported, nor ASE before it is needed."""
    code = (
        "import sys, dpa2md; assert 'ase' not in sys.modules; dpa2md.DPA2Calculator;"
        "assert not {'torch', 'deepmd', 'matplotlib', 'h5py'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
