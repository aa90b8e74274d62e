"""`dpa2md devi` writes DeePMD-kit's file; `dpa2md descriptor` what eval-desc does, for any structures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from dpa2md import DPA2Calculator, Engine, evaluate, model_deviation
from dpa2md.batch import descriptors
from dpa2md.cli import main

from tests.support.small_models import crystal, small_model

# What `dp model-devi` of DeePMD-kit 3.2.0 writes for the three models and structures below with -f 10 ...
PLAIN = """\
# frames.traj
# step      max_devi_v         min_devi_v         avg_devi_v         max_devi_f         min_devi_f         avg_devi_f         devi_e             
           0       2.381678e-02       1.982698e-03       9.800379e-03       5.904211e-02       2.842039e-03       2.149032e-02       7.647413e-01
          10       2.250654e-02       9.716870e-04       8.764590e-03       6.139625e-02       4.205555e-03       2.883949e-02       7.648299e-01
          20       2.220051e-02       7.594215e-04       8.639834e-03       7.396643e-02       9.964003e-03       3.820982e-02       7.639800e-01
"""
# ... and the virial's columns for the first structure with --relative_v 0.5.
RELATIVE_V = [3.479374e-02, 2.896508e-03, 1.431730e-02]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    return [str(small_model(folder, scale=scale)) for scale in (100.0, 130.0, 90.0)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write(tmp_path / "frames.traj", [crystal(seed=k) for k in range(3)])
    write(
        tmp_path / "mixed.traj",
        [crystal(), crystal((1, 1, 1)), Atoms("OH", [[0, 0, 0], [0, 0, 1]])],
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def devi(models, *options: str) -> int:
    return main(["devi", "-m", *models, "--threads", "1", *options])


def test_the_file_of_deepmd(models, folder):
    assert devi(models, "-s", "frames.traj", "-f", "10", "--precision", "float64") == 0
    text = (folder / "model_devi.out").read_text()
    assert text.splitlines()[:2] == PLAIN.splitlines()[:2]
    assert [len(line) for line in text.splitlines()] == [len(line) for line in PLAIN.splitlines()]
    # the last of seven digits may be rounded the other way
    np.testing.assert_allclose(
        np.loadtxt("model_devi.out"), np.loadtxt(PLAIN.splitlines()), rtol=2e-6
    )


def test_relative_and_atomic(models, folder):
    options = ("-s", "frames.traj@0:2", "--relative", "0.7", "--relative_v", "0.5", "--atomic")
    assert devi(models, *options, "--precision", "float64") == 0
    rows = np.loadtxt("model_devi.out")
    assert rows.shape == (2, 8 + 24)
    np.testing.assert_allclose(rows[0, 1:4], RELATIVE_V, rtol=2e-6)
    found = model_deviation(models, [crystal(seed=0)], precision="float64")[0]
    ratio = found["devi_f"] / (np.linalg.norm(found["forces"], axis=1) + 0.7)
    np.testing.assert_allclose(rows[0, 8:], ratio, rtol=1e-6)
    np.testing.assert_allclose(rows[0, 4:7], [ratio.max(), ratio.min(), ratio.mean()], rtol=1e-6)
    assert (
        (folder / "model_devi.out").read_text().splitlines()[1].rstrip().endswith("atm_devi_f(N)")
    )


def test_several_systems_and_json(models, folder, capsys):
    assert devi(models, "-s", "frames.traj", "mixed.traj", "-o", "out", "--json") == 0
    systems = json.loads(capsys.readouterr().out)["systems"]
    assert {name: len(rows) for name, rows in systems.items()} == {
        "frames.traj": 3,
        "mixed.traj": 3,
    }
    rows = np.loadtxt("out")
    assert rows[:, 0].tolist() == [0, 1, 2, 0, 1, 2]
    listed = [list(row.values()) for rows in systems.values() for row in rows]
    np.testing.assert_allclose(rows, listed, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("stress", [True, False])
def test_real_errors(models, folder, stress):
    """Known errors against labels come out; without a label the column has no number."""
    atoms = crystal()
    result = evaluate(models[0], [atoms], precision="float64")[0]
    labels = {"energy": result["energy"] - 0.5 * len(atoms), "forces": result["forces"].copy()}
    labels["forces"][3] += [0.0, 0.3, 0.4]
    if stress:
        labels["stress"] = result["stress"] + [0.01, 0, 0, 0, 0, 0]
    atoms.calc = SinglePointCalculator(atoms, **labels)
    write("labelled.traj", atoms)
    options = ("-s", "labelled.traj", "--real_error", "--precision", "float64", "--atomic")
    assert devi(models[:1], *options) == 0
    row = np.loadtxt("model_devi.out")
    assert row[7] == pytest.approx(0.5, rel=1e-6)
    assert row[4] == pytest.approx(0.5, rel=1e-6) and row[5] == pytest.approx(0, abs=1e-9)
    assert row[8 + 3] == pytest.approx(0.5, rel=1e-6)
    virial = 0.01 * atoms.get_volume() / len(atoms)
    # stress labels are symmetric, the model's virial is so within rounding
    wanted = [virial, 0, virial / 3] if stress else [np.nan] * 3
    np.testing.assert_allclose(row[1:4], wanted, rtol=1e-6, atol=1e-9)
    # with two models it is the root of the mean square
    options = ("-s", "labelled.traj", "--real-error", "-o", "two", "--precision", "float64")
    assert devi(models[:2], *options) == 0
    other = evaluate(models[1], [crystal()], precision="float64")[0]["energy"] / len(atoms)
    error = np.sqrt((0.5**2 + (other - labels["energy"] / len(atoms)) ** 2) / 2)
    assert np.loadtxt("two")[7] == pytest.approx(error, rel=1e-6)


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (1, ("-s", "frames.traj"), "two models"),
        (2, ("-s", "frames.traj", "--relative", "0"), "relative is 0.0"),
        (2, ("-s", "frames.traj", "-f", "0"), "--frequency"),
        (2, ("-s", "mixed.traj", "--atomic"), "mixed.traj: a column for each atom"),
        (2, ("-s", "nothing.xyz"), "nothing.xyz"),
        (1, ("-s", "frames.traj", "--real-error"), "frames.traj: there are no labels"),
    ],
)
def test_refusals(models, folder, capsys, count, options, message):
    assert devi(models[:count], *options) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "model_devi.out").exists()


def test_an_existing_file_stays(models, folder, capsys):
    (folder / "model_devi.out").write_text("mine")
    assert devi(models, "-s", "frames.traj") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "model_devi.out").read_text() == "mine"
    assert devi(models, "-s", "frames.traj", "--overwrite") == 0


def test_descriptors_of_many(models, folder):
    """Together as one by one, whatever the batches."""
    structures = [crystal(seed=k) for k in range(3)] + [crystal((1, 1, 1))]
    engine = Engine(models[0], "float64", 1)
    alone = [DPA2Calculator(engine).get_descriptors(atoms) for atoms in structures]
    done = []
    for size in (1, 30, 1000):
        found = descriptors(engine, structures, batch_atoms=size, report=done.append)
        for one, other in zip(alone, found, strict=True):
            # the same sums, perhaps in another order
            np.testing.assert_allclose(other, one, atol=1e-12)
    assert done == [1, 2, 3, 4, 2, 4, 4]
    assert descriptors(engine, []) == []
    with pytest.raises(ValueError, match=r"structure 1: .*He"):
        descriptors(engine, [crystal(), Atoms("He")])


def test_descriptor_command(models, folder, capsys):
    options = ["--threads", "1", "--precision", "float64"]
    assert main(["descriptor", models[0], "mixed.traj", "-o", "out.npz", *options]) == 0
    data = np.load("out.npz")
    engine = Engine(models[0], "float64", 1)
    expected = descriptors(engine, [crystal(), crystal((1, 1, 1))])
    for k, wanted in enumerate(expected):
        np.testing.assert_allclose(data["descriptors"][data["structure"] == k], wanted, atol=1e-12)
    assert (data["numbers"][data["structure"] == 1] == crystal((1, 1, 1)).numbers).all()
    assert main(["descriptor", models[0], "frames.traj", "-o", "out.npy", *options, "--json"]) == 0
    assert np.load("out.npy").shape == (3, 24, engine.descriptor_dim)
    assert '"dimension"' in capsys.readouterr().out
    for output, message in (
        ("new.npy", "one size"),
        ("new.txt", ".npz or .npy"),
        ("out.npz", "--over"),
    ):
        assert main(["descriptor", models[0], "mixed.traj", "-o", output]) == 2
        assert message in capsys.readouterr().err
        assert not (folder / "new.npy").exists() and not (folder / "new.txt").exists()
