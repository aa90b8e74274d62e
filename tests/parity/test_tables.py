"""Tables of embedding nets: the same numbers as without, and the nets themselves where no table reaches."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from dpa2md.engine import Engine
from dpa2md.model_file import read_model, write_model
from dpa2md.structures import equilibrated_water

from tests.golden.suite import MODELS, STRUCTURES
from tests.support.compressed import compress
from tests.support.paths import ROOT
from tests.support.tolerances import TOLERANCES

SHIPPED = ROOT / "python" / "dpa2md" / "models" / "water.dpa2"
# Both embeddings in concat and strip mode, with nonzero davg, one-sided, without smoothness; DPA-1. In small the
# pair states of all layers come from a table, too.
NAMES = (
    "small",
    "medium",
    "strip",
    "one_side",
    "strip_one_side",
    "not_smooth_strip",
    "dpa1",
    "se_atten_v2",
)
# The tables of float32 are exact to 2e-9 of a net's largest value, a thirtieth of the net's own rounding. What
# differs is that rounding, which the layers carry on: 1e-6 of the largest force, with a factor of ten to spare.
FLOAT32 = 1e-5


def engines(path, precision: str) -> list[Engine]:
    return [Engine(path, precision, 1, tables=tables) for tables in (True, False)]


@pytest.mark.parametrize("name", NAMES)
def test_tables_change_nothing(name, evaluate):
    model = MODELS[name]
    structure = STRUCTURES["water"]
    path = evaluate.path(model)
    for precision in ("float64", "float32"):
        with_tables, without = (
            e.compute(
                structure.positions,
                model.types(structure),
                cell=structure.cell,
                pbc=structure.pbc,
            )
            for e in engines(path, precision)
        )
        assert not np.array_equal(with_tables.forces, without.forces)  # there were tables
        allowed = (
            TOLERANCES["forces"]
            if precision == "float64"
            else FLOAT32 * np.abs(without.forces).max()
        )
        assert np.abs(with_tables.forces - without.forces).max() <= allowed


def test_new_types_get_tables():
    """Hydrogens alone, then water: what an engine that has not seen the hydrogens computes."""
    water = equilibrated_water()
    used, fresh = (Engine(SHIPPED, "float64", 1) for _ in range(2))
    used.compute_atoms([water[water.numbers == 1]])
    assert np.array_equal(
        used.compute_atoms([water])[0].forces, fresh.compute_atoms([water])[0].forces
    )


@pytest.mark.parametrize("name", ["small", "medium", "strip"])
@pytest.mark.parametrize("low_memory", [False, True])
def test_some_atoms_too_close(name, low_memory, evaluate):
    """Two atoms come closer than any table reaches: they are computed, beside others that are looked up."""
    model, structure = MODELS[name], STRUCTURES["water"]
    positions = structure.positions.copy()
    away = positions[1] - positions[0]
    positions[1] = positions[0] + 0.42 * away / np.linalg.norm(away)
    a, b = (
        Engine(evaluate.path(model), "float64", 1, tables=tables, low_memory=low_memory).compute(
            positions, model.types(structure), cell=structure.cell, pbc=structure.pbc
        )
        for tables in (True, False)
    )
    assert not np.array_equal(a.forces, b.forces)
    assert np.abs(a.forces - b.forces).max() <= TOLERANCES["forces"] * max(
        1, np.abs(b.forces).max()
    )


def test_atoms_too_close_for_the_tables():
    """At 0.2 angstrom the nets are computed: to the last bit, and going there is not felt."""
    with_tables, without = engines(SHIPPED, "float64")
    pair = Atoms("OH", [[0, 0, 0], [0, 0, 0.2]])
    a, b = (e.compute_atoms([pair])[0] for e in (with_tables, without))
    assert np.array_equal(a.forces, b.forces)
    for distance in np.linspace(0.4, 0.65, 26):  # both tables end within
        pair.positions[1, 2] = distance
        a, b = (e.compute_atoms([pair])[0] for e in (with_tables, without))
        assert np.abs(a.forces - b.forces).max() <= TOLERANCES["forces"]


@pytest.mark.parametrize("name", ["strip", "se_atten_v2"])
@pytest.mark.parametrize("closest", [None, 0.42])
def test_compressed_models(name, closest, evaluate, tmp_path):
    """Larger cells stand in for those of a compressed model's file, up to where these become coarse."""
    model, structure = MODELS[name], STRUCTURES["water"]
    positions = structure.positions.copy()
    if closest:
        away = positions[1] - positions[0]
        positions[1] = positions[0] + closest * away / np.linalg.norm(away)
    path = tmp_path / "compressed.dpa2"
    compress(evaluate.path(model), 8.0, path)
    with_tables, without, uncompressed = (
        e.compute(positions, model.types(structure), cell=structure.cell, pbc=structure.pbc)
        for e in (*engines(path, "float64"), engines(evaluate.path(model), "float64")[1])
    )
    scale = max(1, np.abs(without.forces).max())
    assert not np.array_equal(with_tables.forces, without.forces)
    assert np.abs(with_tables.forces - without.forces).max() <= TOLERANCES["forces"] * scale
    # what compression itself costs: nothing in fine cells, a little in coarse ones
    allowed = 1e-5 if closest else 1e-9
    assert np.abs(without.forces - uncompressed.forces).max() <= allowed * scale


@pytest.mark.parametrize("name", ["strip", "se_atten_v2"])
def test_compressed_models_of_float32(name, evaluate, tmp_path):
    """The coefficients of the file have lost digits; the table is nearer to the model that was compressed."""
    model, structure = MODELS[name], STRUCTURES["water"]
    path = tmp_path / "compressed.dpa2"
    compress(evaluate.path(model), 8.0, path, single=True)

    def forces(engine):
        return engine.compute(
            structure.positions, model.types(structure), cell=structure.cell, pbc=structure.pbc
        ).forces

    uncompressed = forces(engines(evaluate.path(model), "float64")[1])
    # in float64: what the numbers of the file do, without the rounding of the rest
    table, pieces = (
        np.abs(forces(e) - uncompressed).max() / np.abs(uncompressed).max()
        for e in engines(path, "float64")
    )
    assert table < 2e-6  # values of float32, 6e-8, and what the layers make of them
    assert table < 0.3 * pieces


def test_pieces_that_no_table_can_follow(evaluate, tmp_path):
    model, structure = MODELS["se_atten_v2"], STRUCTURES["water"]
    path = tmp_path / "compressed.dpa2"
    compress(evaluate.path(model), 8.0, path, single=True)
    records = read_model(path)
    noise = np.random.default_rng(1).normal(size=records["repinit.table"].shape)
    write_model(path, records | {"repinit.table": noise})
    types = model.types(structure)
    with_tables, without = (
        e.compute(structure.positions, types, cell=structure.cell, pbc=structure.pbc).forces
        for e in engines(path, "float64")
    )
    assert np.array_equal(with_tables, without)
