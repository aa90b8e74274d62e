"""Heads, elements, output files, the command and the comparison with DeePMD-kit."""

from __future__ import annotations

import functools
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from dpa2md.cli import main
from dpa2md.conversion import convert, list_heads, load_records
from dpa2md.errors import HeadError, ModelError
from dpa2md.model_file import read_model
from dpa2md.verification import verify

from tests.support.checkpoints import (
    assert_same,
    changed,
    dpa2_config,
    make_tensors,
    records_of,
    write_checkpoint,
    write_model,
)


@pytest.fixture
def load(tmp_path):
    """Records of a model given by its configuration and tensors."""
    return functools.partial(records_of, tmp_path)


@pytest.fixture
def two_heads(tmp_path):
    water, rock = dpa2_config(), dpa2_config()
    water["fitting_net"]["neuron"] = [4]
    water["model_branch_alias"] = ["Wet", "h2o"]
    params = {
        "model_dict": {"Water": water, "ROCK": rock | {"descriptor": "shared:1"}},
        "shared_dict": {"shared": rock["descriptor"]},
    }
    tensors = {}
    for name, config in (("Water", water), ("ROCK", rock)):
        tensors |= {f"model.{name}.{key}": value for key, value in make_tensors(config).items()}
    return write_checkpoint(tmp_path / "heads.pt", params, tensors)


def test_heads_are_found_by_name_case_and_alias(two_heads):
    assert list_heads(two_heads) == ["Water", "ROCK"]
    for name in ("Water", "water", "Wet", "H2O"):
        records = load_records(two_heads, head=name)
        assert records["meta.head"] == "Water" and records["fitting.net.layers"] == 2
    assert load_records(two_heads, head="rock")["fitting.net.layers"] == 4


@pytest.mark.parametrize("head", [None, "Air", ""])
def test_other_heads_are_refused_with_a_list(two_heads, head):
    with pytest.raises(HeadError, match="Water, ROCK"):
        load_records(two_heads, head=head)


def test_single_models_have_no_heads(load, tmp_path):
    with pytest.raises(HeadError, match="single head"):
        load(dpa2_config(), head="Water")
    assert list_heads(tmp_path / "model.pt") == []


@pytest.mark.parametrize("one_side", [False, True])
def test_elements_are_kept_in_the_order_asked_for(load, one_side):
    config = changed(dpa2_config(), "model", pair_exclude_types=[[0, 2]])
    config = changed(config, "descriptor.repinit", tebd_input_mode="strip", type_one_side=one_side)
    full = load(config)
    few = load(config, elements=["Si", "O"])
    assert few["model.elements"] == "Si\nO"
    np.testing.assert_array_equal(few["type_embedding"], full["type_embedding"][[2, 0]])
    table = full["repinit.strip_table"]
    table = table[:, [2, 0]] if one_side else table[[2, 0]][:, [2, 0]]
    np.testing.assert_array_equal(few["repinit.strip_table"], table)
    assert few["three_body.strip_table"].shape[:2] == (2, 2)
    assert few["model.pair_exclude"].tolist() == [[0, 1], [1, 0]]
    for name in ("repinit.dstd", "three_body.dstd", "repformer.dstd", "fitting.bias_atom_e",
                 "fitting.out_bias"):  # fmt: skip
        np.testing.assert_array_equal(few[name], full[name][[2, 0]])
    for name in ("repinit.net.0.w", "fitting.net.0.w", "repformer.0.linear1.w"):
        np.testing.assert_array_equal(few[name], full[name])


@pytest.mark.parametrize("elements, words", [(["O", "Xe"], "Xe"), ([], "once"),
                                             (["O", "O"], "once")])  # fmt: skip
def test_wrong_elements_are_refused(load, elements, words):
    with pytest.raises(ModelError, match=words):
        load(dpa2_config(), elements=elements)


# Files and the command


def test_convert_writes_beside_the_source_and_reads_its_own_files(tmp_path):
    source = write_model(tmp_path / "water.pt", dpa2_config(), make_tensors(dpa2_config()))
    output = convert(source)
    assert output == tmp_path / "water.dpa2"
    assert_same(read_model(output), load_records(source))
    again = convert(output, tmp_path / "few.dpa2", elements=["H"])
    assert_same(read_model(again), load_records(source, elements=["H"]))
    with pytest.raises(ModelError, match="replace the source"):
        convert(output)


def test_a_refused_model_leaves_no_file(tmp_path):
    config = changed(dpa2_config(), "model", spin={})
    source = write_model(tmp_path / "spin.pt", config, make_tensors(dpa2_config()))
    with pytest.raises(ModelError, match="spin.pt"):
        convert(source)
    assert list(tmp_path.iterdir()) == [source]


def test_the_command(tmp_path, capsys, two_heads):
    def run(*words):
        return main(["convert", *map(str, words)]), *capsys.readouterr()

    assert run(two_heads, "--list-heads") == (0, "Water\nROCK\n", "")
    output = tmp_path / "out.dpa2"
    status, text, _ = run(two_heads, "-o", output, "--head", "wet", "--elements", "H, O")
    assert status == 0 and "dpa2, float64, H O, head Water" in text and output.exists()
    status, _, errors = run(two_heads)
    assert status == 2 and "--head" in errors and len(errors.splitlines()) == 1
    assert run(tmp_path / "none.pt")[0] == 2
    assert run(__file__)[2].count(".pth") == 1


# Comparing with DeePMD-kit


@pytest.fixture
def stand_ins(monkeypatch, tmp_path):
    """Replaces DeePMD-kit and the engine by springs to the origin; returns a dial for the first."""
    dial = {"stiffness": 1.0}

    class DeepPot:
        def __init__(self, path, head=None):
            assert Path(path).exists() and head is None

        def get_type_map(self):
            return ["O", "H", "Si"]

        def get_dim_aparam(self):
            return 0

        def eval(self, positions, cell, types):
            assert set(types) == {0, 2}
            k = dial["stiffness"]
            return k * (positions**2).sum(keepdims=True) / 2, -k * positions.reshape(1, -1, 3), 0

    class Springs:
        def __init__(self, path, tables):
            assert tables  # not a compressed model

        def compute_atoms(self, structures):
            return [
                types.SimpleNamespace(energy=(r**2).sum() / 2, forces=-r)
                for r in (atoms.positions for atoms in structures)
            ]

    monkeypatch.setitem(sys.modules, "deepmd", types.ModuleType("deepmd"))
    monkeypatch.setitem(sys.modules, "deepmd.infer", types.SimpleNamespace(DeepPot=DeepPot))
    monkeypatch.setattr("dpa2md.verification.Engine", Springs)
    source = write_model(tmp_path / "m.pt", dpa2_config(), make_tensors(dpa2_config()))
    return source, convert(source, elements=["Si", "O"]), dial


def test_verify_tells_agreement_from_disagreement(stand_ins):
    source, output, dial = stand_ins
    result = verify(source, output)
    assert result.atoms == 64 and result.force_scale > 1.0
    # ASE and the stand-in sum the same squares in another order
    assert result.energy_difference < 1e-12 and result.force_difference == 0.0
    dial["stiffness"] = 1.0 + 1e-6
    with pytest.raises(ModelError, match="does not agree"):
        verify(source, output)
    dial["stiffness"] = float("nan")
    with pytest.raises(ModelError, match="does not agree"):
        verify(source, output)
    dial["stiffness"] = "broken"
    with pytest.raises(ModelError, match="could not evaluate"):
        verify(source, output)


def test_verify_without_deepmd_kit_says_what_to_install(stand_ins, monkeypatch):
    source, output, _ = stand_ins
    monkeypatch.setitem(sys.modules, "deepmd.infer", None)
    with pytest.raises(ModelError, match="pip install deepmd-kit"):
        verify(source, output)
