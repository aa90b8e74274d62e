"""Derivatives, symmetries and smoothness: what any interatomic potential must obey."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.golden.suite import MODELS, STRUCTURES
from tests.golden.systems import Structure
from tests.support.derivatives import check_derivative
from tests.support.selection import golden_models
from tests.support.tolerances import TOLERANCES

# The structure `overfull` is meant to be; test_overfull_lists_are_told looks at the warning.
pytestmark = pytest.mark.filterwarnings("ignore:Atom .* neighbours")

SMOOTH = (
    "medium",
    "full",
    "generation_2_0",
    "strip",
    "res_incr_h2",
    "direct_distance",
    "env_protection",
    "davg_strip",
    "fparam_aparam_case",
    "dpa1",
    "se_atten_v2",
    "graph",
)
# Without `smooth` the energy jumps at cutoffs, but between them forces are still its derivative.
NOT_SMOOTH = ("not_smooth", "not_smooth_mean", "not_smooth_strip")
# Where a pair crosses a cutoff of the models within the steps of the derivative tests.
CROSSING = ("triclinic", "dense", "tilted")
PERIODIC = ("triclinic", "tilted", "metal_2", "slab", "wire")


def derivative_cases(*structures: str) -> pytest.MarkDecorator:
    """Parametrises `model` and `name`: the structures for smooth models, those without a crossing
    for the others."""
    smooth = (*SMOOTH, "activation_gelu", "activation_silut_2.0")
    cases = [(model, name) for model in smooth for name in structures]
    cases += [(model, name) for model in NOT_SMOOTH for name in structures if name not in CROSSING]
    return pytest.mark.parametrize(
        ("model", "name"), [pytest.param(MODELS[m], name, id=f"{m}-{name}") for m, name in cases]
    )


def replaced(structure: Structure, **changes) -> Structure:
    return dataclasses.replace(structure, **changes)


def assert_same(a, b, scale=1.0):
    allowed = TOLERANCES["invariance"] * max(1, np.abs(np.asarray(b)).max()) * scale
    np.testing.assert_allclose(a, b, rtol=0, atol=allowed)


@derivative_cases("molecule", "triclinic", "slab", "metal_2", "dense")
def test_forces_are_the_gradient(model, name, evaluate):
    structure = STRUCTURES[name]
    direction = np.random.RandomState(1).normal(size=structure.positions.shape)
    direction /= np.linalg.norm(direction)
    forces = evaluate(model, structure).forces

    def energy(step):
        moved = replaced(structure, positions=structure.positions + step * direction)
        return evaluate(model, moved).energy

    check_derivative(energy, -np.sum(forces * direction))


@derivative_cases("molecule", "triclinic", "wire", "metal_1", "tilted")
def test_virial_is_the_strain_derivative(model, name, evaluate):
    structure = STRUCTURES[name]
    strain = np.random.RandomState(1).normal(size=(3, 3))
    strain /= np.linalg.norm(strain)
    virial = evaluate(model, structure).virial

    def energy(step):
        deformation = np.eye(3) + step * strain
        strained = replaced(
            structure,
            positions=structure.positions @ deformation,
            cell=structure.cell @ deformation,
        )
        return evaluate(model, strained).energy

    check_derivative(energy, -np.sum(virial * strain))


@pytest.mark.parametrize("name", ["molecule", *PERIODIC])
@golden_models(*SMOOTH, "not_smooth")
def test_translation(model, name, evaluate):
    structure = STRUCTURES[name]
    before = evaluate(model, structure)
    after = evaluate(model, replaced(structure, positions=structure.positions + [1.3, -7.7, 20.1]))
    for quantity, value in before.items():
        assert_same(after[quantity], value)


@pytest.mark.parametrize("name", ["molecule", *PERIODIC])
@golden_models(*SMOOTH, "not_smooth")
def test_rotation_and_reflection(model, name, evaluate):
    structure = STRUCTURES[name]
    rotation = np.linalg.qr(np.random.RandomState(2).normal(size=(3, 3)))[0]
    before = evaluate(model, structure)
    for matrix in (rotation, -rotation):
        rotated = replaced(
            structure, positions=structure.positions @ matrix, cell=structure.cell @ matrix
        )
        after = evaluate(model, rotated)
        assert_same(after.atom_energy, before.atom_energy)
        assert_same(after.forces, before.forces @ matrix)
        assert_same(after.virial, matrix.T @ before.virial @ matrix)


@pytest.mark.parametrize("name", ["water", "overfull", "five_elements"])
@golden_models(*(name for name in SMOOTH if name != "fparam_aparam_case"), "not_smooth")
def test_permutation(model, name, evaluate):
    """Relabelling atoms relabels results. (Atomic parameters belong to a place in the list.)"""
    structure = STRUCTURES[name]
    order = np.random.RandomState(3).permutation(len(structure))
    shuffled = replaced(
        structure, positions=structure.positions[order], kinds=structure.kinds[order]
    )
    before, after = evaluate(model, structure), evaluate(model, shuffled)
    assert_same(after.atom_energy, before.atom_energy[order])
    assert_same(after.forces, before.forces[order])
    assert_same(after.virial, before.virial)


@golden_models("medium", "full", "dpa1", "not_smooth")
def test_virtual_atoms_are_not_there(model, evaluate):
    """Atoms of negative type, even on top of others, change nothing and have no energy."""
    structure = STRUCTURES["triclinic"]
    before = evaluate(model, structure)
    positions = np.insert(structure.positions, [0, 7], structure.positions[[3, 5]] + 0.1, axis=0)
    types = np.insert(model.types(structure), [0, 7], -1)
    after = evaluate.engine(model).compute(positions, types, cell=structure.cell, pbc=True)
    real = types >= 0
    assert_same(after.energies[real], before.atom_energy)
    assert_same(after.forces[real], before.forces)
    assert_same(after.virial, before.virial)
    assert not after.energies[~real].any() and not after.forces[~real].any()


@pytest.mark.parametrize("name", ["water", *PERIODIC])
@golden_models(*SMOOTH, "not_smooth")
def test_lattice_shifts_of_single_atoms(model, name, evaluate):
    structure = STRUCTURES[name]
    shifts = np.random.RandomState(4).randint(-3, 4, size=(len(structure), 3)) * structure.pbc
    moved = replaced(structure, positions=structure.positions + shifts @ structure.cell)
    before, after = evaluate(model, structure), evaluate(model, moved)
    for quantity, value in before.items():
        assert_same(after[quantity], value)


@pytest.mark.parametrize("name", [*PERIODIC, "overfull"])
@golden_models(*(name for name in SMOOTH if name != "fparam_aparam_case"), "not_smooth")
def test_supercell(model, name, evaluate):
    """Doubling the cell along a periodic axis doubles energy and virial and repeats the forces."""
    structure = STRUCTURES[name]
    before = evaluate(model, structure)
    for axis in np.flatnonzero(structure.pbc):
        cell = structure.cell.copy()
        cell[axis] *= 2
        double = replaced(
            structure,
            positions=np.concatenate([structure.positions, structure.positions + cell[axis] / 2]),
            kinds=np.tile(structure.kinds, 2),
            cell=cell,
        )
        after = evaluate(model, double)
        assert_same(after.energy, 2 * before.energy)
        assert_same(after.forces, np.tile(before.forces, (2, 1)))
        assert_same(after.virial, 2 * before.virial)


@golden_models("medium", "full", "small", "dpa1")
@pytest.mark.parametrize("threads", [1, 3])
def test_many_blocks(model, threads, evaluate):
    """Enough atoms that what they give to neighbours is gathered several times: the copies of a small box."""
    from dpa2md.engine import Engine

    small = STRUCTURES["water"]
    expected = evaluate(model, small)
    repeat = (4, 4, 5 * threads)
    shifts = np.array(list(np.ndindex(repeat))) @ small.cell
    many = len(shifts)
    engine = Engine(evaluate.path(model), "float64", threads)
    found = engine.compute(
        (shifts[:, None] + small.positions).reshape(-1, 3),
        np.tile(model.types(small), many),
        cell=small.cell * np.array(repeat)[:, None],
        pbc=True,
    )
    assert (
        many * len(small.positions) > 2 * 16 * 32 * threads
    )  # chunks: 16 blocks of 32 atoms a thread
    scale = max(1, np.abs(expected.forces).max())
    forces = found.forces.reshape(many, -1, 3)
    assert np.abs(forces - expected.forces).max() <= TOLERANCES["invariance"] * scale
    assert found.energy / many == pytest.approx(expected.energy, rel=1e-12)
    virial = found.virial / many
    assert np.abs(virial - expected.virial).max() <= TOLERANCES["invariance"] * max(
        1, np.abs(expected.virial).max()
    )


@pytest.mark.parametrize("cutoff", [3.5, 4.0, 5.0])
@golden_models(*(name for name in SMOOTH if name != "generation_2_0"))
def test_smooth_at_the_cutoffs(model, cutoff, evaluate):
    """An atom crosses a cutoff: between both sides the energy changes by what the forces say.

    The trapezoid rule errs by step^3; a jump of the energy or of the forces would stand out.
    """
    rng = np.random.RandomState(5)
    core = np.array([[0, 0, 0], [0.9, 0.3, 0.1], [-0.2, 1.0, 0.6]])
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    step = 1e-4

    def at(distance):
        positions = np.concatenate([core, [distance * direction]])
        structure = Structure(
            "probe", positions, np.array([0, 1, 1, 0]), np.zeros((3, 3)), (False,) * 3
        )
        result = evaluate(model, structure)
        return result.energy, result.forces[3] @ direction

    (inner, pull_inner), (outer, pull_outer) = at(cutoff - step), at(cutoff + step)
    assert abs(outer - inner + step * (pull_inner + pull_outer)) < 1e-9
