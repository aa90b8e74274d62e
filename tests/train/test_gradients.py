"""Gradients by the weights are DeePMD-kit's, for every parameter of every golden model."""

from __future__ import annotations

import numpy as np
import pytest
from dpa2md import _core
from dpa2md.model_file import write_model
from dpa2md.train.parameters import TrainableModel

from tests.golden.projections import loss_factors, project
from tests.golden.suite import MODELS, STRUCTURES

TRAINED = [name for name, model in MODELS.items() if model.gradients("molecule")]
# Of the norm of a parameter's gradient, and of the whole gradient's where its own is nothing beside that: the
# two are sums of rounding errors in another order.
FLOAT64, LEAST = 1e-6, 1e-9
# Of the whole gradient in float64.
FLOAT32 = 1e-4
# One of every kind of embedding, and those with the steepest functions.
FLOAT32_MODELS = [
    *("full", "medium", "small", "generation_2_0", "strip", "one_side", "three_body_strip_skips"),
    *(
        "tebd_bias_strip",
        "davg_strip",
        "not_smooth",
        "res_avg_h2",
        "direct_distance",
        "fitting_doubled",
    ),
    *(
        "repinit_dt_strip",
        "atom_ener",
        "fparam_aparam_case",
        "activation_silut_2.0",
        "activation_gelu",
    ),
    *("dpa1", "dpa1_davg", "se_atten_v2", "se_atten_v2_one_side", "random_06", "random_21"),
]


@pytest.fixture(scope="module")
def trainable(tmp_path_factory):
    """A golden model as the trainer holds it, and its file."""
    kept = {}

    def read(name: str):
        if name not in kept:
            folder = tmp_path_factory.mktemp("gradients")
            golden = MODELS[name]
            model = TrainableModel.read(golden.write(folder), head=golden.head)
            path = folder / "model.dpa2"
            write_model(path, model.records())
            kept.clear()
            kept[name] = model, path
        return kept[name]

    return read


def evaluate(engine, golden, structure) -> dict[str, np.ndarray]:
    """The results of one structure, after which the engine gives gradients for it."""
    n = len(structure)
    cell = np.zeros((1, 3, 3)) if structure.cell is None else structure.cell.reshape(1, 3, 3)
    fparam = golden.fparam()
    return engine.compute(
        structure.positions,
        golden.types(structure),
        np.array([0, n]),
        cell,
        np.asarray(structure.pbc, int).reshape(1, 3),
        skin=0.0,
        fparam=None if fparam is None else fparam.reshape(1, -1),
        aparam=golden.aparam(structure),
    )


def gradient(
    path, golden, structure, precision: str, threads: int = 1, moved: bool = False
) -> dict:
    """By record; `moved`: after the weights were set, when float32 uses the tables that follow them."""
    tables = precision == "float32"  # in float64 no gradient uses them, and they take long to make
    engine = _core.Engine(str(path), precision, threads, tables=tables)
    if moved:
        engine.set_parameters(engine.parameters())
    evaluate(engine, golden, structure)
    loss = loss_factors(structure.name, len(structure))
    flat = engine.gradient(loss.energies, loss.forces, loss.virial.reshape(1, 3, 3))
    return by_record(engine, flat)


def by_record(engine, flat) -> dict[str, np.ndarray]:
    out, at = {}, 0
    for record, shape in engine.parameter_layout():
        size = int(np.prod(shape))
        out[record] = flat[at : at + size].reshape(shape)
        at += size
    assert at == len(flat)
    return out


def norm(gradients: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(sum(np.sum(g**2) for g in gradients.values())))


@pytest.mark.parametrize("name", TRAINED)
def test_deepmd_kit(name, trainable):
    """In float64, every parameter's gradient of energies, forces and virial together."""
    golden = MODELS[name]
    model, path = trainable(name)
    for structure in STRUCTURES.values():
        expected = golden.gradients(structure.name)
        if not expected:
            continue
        flat = model.pull(gradient(path, golden, structure, "float64"))
        whole = np.linalg.norm(flat)
        found = {p.name: flat[p.offset : p.end].reshape(p.shape) for p in model.parameters}
        compared = 0
        for parameter, numbers in expected.items():
            key = next(k for k in found if k.endswith(parameter))
            own = project(parameter, found[key])
            assert np.abs(own - numbers).max() <= FLOAT64 * numbers[0] + LEAST * whole, parameter
            compared += 1
        assert compared == len(found) > 10


@pytest.mark.parametrize("name", FLOAT32_MODELS)
def test_float32(name, trainable):
    """In float32, with the embedding nets through tables."""
    golden, structure = MODELS[name], STRUCTURES["molecule"]
    _, path = trainable(name)
    exact = gradient(path, golden, structure, "float64")
    for moved in (False, True):
        found = gradient(path, golden, structure, "float32", moved=moved)
        difference = norm({record: found[record] - exact[record] for record in exact})
        assert 0 < difference <= FLOAT32 * norm(exact)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", ["full", "se_atten_v2"])
def test_threads_change_nothing(name, precision, trainable):
    golden, structure = MODELS[name], STRUCTURES["water"]
    _, path = trainable(name)
    one, two = (gradient(path, golden, structure, precision, threads) for threads in (1, 2))
    for record in one:
        np.testing.assert_array_equal(one[record], two[record])


@pytest.mark.parametrize("name", ["medium", "dpa1"])
def test_frames_add_up(name, trainable):
    """The gradient of a batch is the sum of its frames'."""
    golden = MODELS[name]
    _, path = trainable(name)
    structures = [STRUCTURES[k] for k in ("water", "molecule", "triclinic")]
    engine = _core.Engine(str(path), "float64", 1)
    start = np.cumsum([0] + [len(s) for s in structures])
    engine.compute(
        np.concatenate([s.positions for s in structures]),
        np.concatenate([golden.types(s) for s in structures]),
        start,
        np.array([np.zeros((3, 3)) if s.cell is None else s.cell for s in structures]),
        np.array([s.pbc for s in structures], int),
        skin=0.0,
    )
    losses = [loss_factors(s.name, len(s)) for s in structures]
    flat = engine.gradient(
        np.concatenate([x.energies for x in losses]),
        np.concatenate([x.forces for x in losses]),
        np.array([x.virial for x in losses]),
    )
    one_by_one = [gradient(path, golden, s, "float64") for s in structures]
    together = by_record(engine, flat)
    for record, found in together.items():
        expected = sum(g[record] for g in one_by_one)
        # sums of the same numbers in another order
        np.testing.assert_allclose(found, expected, atol=1e-12 * norm(together))


@pytest.mark.parametrize("name", ["medium", "davg_strip", "dpa1_davg"])
def test_virtual_atoms_give_nothing(name, trainable):
    """An atom of type -1 has no energy, and is nobody's neighbour: no weight feels it."""
    golden, structure = MODELS[name], STRUCTURES["molecule"]
    _, path = trainable(name)
    loss = loss_factors(structure.name, len(structure))
    found = []
    for extra in (0, 1):
        engine = _core.Engine(str(path), "float64", 1)
        n = len(structure) + extra
        engine.compute(
            np.concatenate([structure.positions, np.full((extra, 3), 0.3)]),
            np.concatenate([golden.types(structure), np.full(extra, -1)]),
            np.array([0, n]),
            np.zeros((1, 3, 3)),
            np.zeros((1, 3), int),
            skin=0.0,
        )
        energies = np.concatenate([loss.energies, np.ones(extra)])
        forces = np.concatenate([loss.forces, np.ones((extra, 3))])
        found.append(engine.gradient(energies, forces, loss.virial.reshape(1, 3, 3)))
    # sums of the same numbers in other blocks
    np.testing.assert_allclose(found[1], found[0], atol=1e-12 * np.linalg.norm(found[0]))


def test_weights_move(trainable):
    """set_parameters changes results as another file would, and the gradient with them."""
    golden, structure = MODELS["medium"], STRUCTURES["molecule"]
    _, path = trainable("medium")
    engine = _core.Engine(str(path), "float64", 1)
    loss = loss_factors(structure.name, len(structure))

    def value(flat) -> float:
        engine.set_parameters(flat)
        found = evaluate(engine, golden, structure)
        found["atom_energy"] = found["energies"]
        return loss.value({k: v[0] if k == "virial" else v for k, v in found.items()})

    start = engine.parameters()
    value(start)
    slope = engine.gradient(loss.energies, loss.forces, loss.virial.reshape(1, 3, 3))
    direction = slope / np.linalg.norm(slope)
    step = 1e-5
    difference = (value(start + step * direction) - value(start - step * direction)) / (2 * step)
    # of second order in the step
    assert difference == pytest.approx(np.linalg.norm(slope), rel=1e-6)


def test_what_is_refused(trainable, tmp_path):
    _, path = trainable("medium")
    engine = _core.Engine(str(path), "float64", 1)
    with pytest.raises(ValueError, match=r"compute\(\) before"):
        engine.gradient(np.zeros(3), np.zeros((3, 3)), np.zeros((1, 3, 3)))
    with pytest.raises(ValueError, match="wrong shape"):
        engine.set_parameters(np.zeros(3))
    evaluate(engine, MODELS["medium"], STRUCTURES["molecule"])
    with pytest.raises(ValueError, match="other sizes"):
        engine.gradient(np.zeros(3), np.zeros((3, 3)), np.zeros((1, 3, 3)))
