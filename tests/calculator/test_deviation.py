"""Several models in one calculator: means, model deviation, heads."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from dpa2md import DPA2Calculator, Engine, ModelDeviation, evaluate, list_heads, model_deviation
from dpa2md.dynamics import Settings
from dpa2md.md import run_md

from tests.support.small_models import crystal, small_model, two_head_checkpoint


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Three that differ by a factor of their energies."""
    folder = tmp_path_factory.mktemp("models")
    return [small_model(folder, scale=scale) for scale in (100.0, 130.0, 90.0)]


def by_hand(models, atoms: Atoms) -> dict[str, float]:
    """The definitions, written out atom by atom and component by component."""
    results = [evaluate(m, [atoms])[0] for m in models]
    count, n = len(results), len(atoms)
    per_atom = []
    for k in range(n):
        mean = sum(r["forces"][k] for r in results) / count
        per_atom.append(np.sqrt(sum(((r["forces"][k] - mean) ** 2).sum() for r in results) / count))
    components = []
    for a in range(3):
        for b in range(3):
            values = [r["virial"][a, b] / n for r in results]
            mean = sum(values) / count
            components.append(np.sqrt(sum((v - mean) ** 2 for v in values) / count))
    return {
        "max_devi_f": max(per_atom),
        "min_devi_f": min(per_atom),
        "avg_devi_f": sum(per_atom) / n,
        "max_devi_v": max(components),
        "min_devi_v": min(components),
        "avg_devi_v": np.sqrt(sum(c**2 for c in components) / 9),
    }


def test_the_definitions(models):
    atoms = crystal()
    atoms.calc = ModelDeviation(models, threads=1)
    mean = np.mean([r["forces"] for r in (evaluate(m, [atoms])[0] for m in models)], axis=0)
    np.testing.assert_allclose(atoms.get_forces(), mean, rtol=1e-12, atol=1e-12)
    wanted = by_hand(models, atoms)
    assert {k: v for k, v in atoms.calc.deviations.items() if k in wanted} == pytest.approx(
        wanted, rel=1e-9
    )
    energies = [evaluate(m, [atoms])[0]["energy"] for m in models]
    assert atoms.get_potential_energy() == pytest.approx(np.mean(energies), rel=1e-13)
    assert atoms.calc.results["devi_e"] == pytest.approx(np.std(energies) / len(atoms))
    assert atoms.get_stress().shape == (6,)
    assert atoms.calc.results["devi_f"].shape == (len(atoms),)


def test_many_structures(models):
    structures = [crystal(seed=1), crystal((1, 1, 1)), Atoms("OH", [[0, 0, 0], [0, 0, 1]])]
    done = []
    for atoms, found in zip(
        structures, model_deviation(models, structures, report=done.append), strict=True
    ):
        assert {k: found[k] for k in by_hand(models, atoms)} == pytest.approx(
            by_hand(models, atoms), rel=1e-9
        )
        assert ("stress" in found) == bool(atoms.pbc.all())
    assert done == [3, 6, 9]  # models times structures


def test_equal_models_do_not_deviate(models):
    atoms = crystal()
    engine = Engine(models[0], threads=1)
    atoms.calc = ModelDeviation([engine, DPA2Calculator(engine)])
    assert atoms.get_potential_energy() == evaluate(engine, [atoms])[0]["energy"]
    assert atoms.calc.results["max_devi_f"] == 0 and atoms.calc.results["devi_e"] == 0


def test_one_model_is_refused(models):
    for call in (lambda: ModelDeviation(models[:1]), lambda: model_deviation([], [crystal()])):
        with pytest.raises(ValueError, match="two models or more"):
            call()


def test_a_name_is_no_list(models):
    """It would be taken apart into its characters."""
    for single in (str(models[0]), models[0], Engine(models[0], threads=1)):
        for call in (lambda m: ModelDeviation(m), lambda m: model_deviation(m, [crystal()])):
            with pytest.raises(TypeError, match="two models or more, in a list"):
                call(single)


def test_a_single_structure_is_a_list_of_one(models):
    atoms = crystal((1, 1, 1))
    (found,) = model_deviation(models, atoms)
    assert found["max_devi_f"] == model_deviation(models, [atoms])[0]["max_devi_f"]


def test_parameters_are_noticed(tmp_path):
    path = small_model(tmp_path, numb_fparam=1)
    atoms = crystal((1, 1, 1))
    atoms.calc = ModelDeviation([path, DPA2Calculator(path, fparam=[0.5])], threads=1)
    atoms.info["fparam"] = [0.5]
    atoms.get_forces()
    assert atoms.calc.results["max_devi_f"] == 0
    atoms.info["fparam"] = [0.9]
    atoms.get_forces()
    assert atoms.calc.results["max_devi_f"] > 0
    found = model_deviation(atoms.calc.models, [atoms])[0]
    assert found["max_devi_f"] == atoms.calc.results["max_devi_f"]


def test_heads(tmp_path):
    """Each head of a file gives its own energies; B's are twice A's but for the constants."""
    path = two_head_checkpoint(tmp_path)
    atoms, moved = crystal(), crystal(seed=5)
    change = {}
    for head in list_heads(path):
        first, second = evaluate(path, [atoms, moved], head=head)
        change[head] = second["energy"] - first["energy"]
    assert change["B"] == pytest.approx(2 * change["A"], rel=1e-9)
    atoms.calc = ModelDeviation([Engine(path, head=head) for head in list_heads(path)])
    forces = evaluate(path, [atoms], head="A")[0]["forces"]
    np.testing.assert_allclose(atoms.get_forces(), 1.5 * forces, rtol=1e-9, atol=1e-9)
    # with F and 2 F the standard deviation is |F| / 2
    np.testing.assert_allclose(
        atoms.calc.results["devi_f"], np.linalg.norm(forces, axis=1) / 2, rtol=1e-9
    )


def test_molecular_dynamics(models, tmp_path):
    """A run with an ensemble can be stopped and continued to the same positions."""
    ends = []
    for part in (None, 4):
        atoms = crystal(rattle=0.05)
        atoms.set_masses(np.full(len(atoms), 50.0))
        for steps in filter(None, (part, 8)):
            atoms.calc = ModelDeviation(models, threads=1)
            settings = Settings(steps=steps, interval=2, checkpoint_interval=4)
            run_md(atoms, settings, checkpoint=tmp_path / f"{part}.npz", restart=True)
        ends.append(atoms.positions)
    np.testing.assert_array_equal(*ends)
