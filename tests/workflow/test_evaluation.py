"""Frames that are read one after the other, and elements that a model knows, or was trained on."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from dpa2md import DPA2Calculator, Engine, convert
from dpa2md.workflow.evaluation import check_elements, chunks, evaluate_each, frames_of

from tests.support.checkpoints import write_model
from tests.support.small_models import crystal, small_config, small_tensors


def test_frames_of_files(tmp_path):
    """Of any format, in order, without labels and velocities."""
    frames = [crystal((1, 1, 1), seed=k) for k in range(5)]
    for atoms in frames:
        atoms.set_momenta(np.ones((3, 3)))
        atoms.info |= {"energy": 1.0, "start": "x"}
        atoms.arrays["forces"] = np.ones((3, 3))
    write(tmp_path / "a.extxyz", frames[:3])
    write(tmp_path / "b.traj", frames[3:])
    names = [str(tmp_path / "a.extxyz"), str(tmp_path / "b.traj"), f"{tmp_path}/a.extxyz@1:"]
    found = list(frames_of(names))
    assert len(found) == 7
    for atoms, original in zip(found, [*frames, *frames[1:3]], strict=True):
        np.testing.assert_allclose(atoms.positions, original.positions, atol=1e-8)
        assert atoms.calc is None and not atoms.has("momenta") and "forces" not in atoms.arrays
        assert "energy" not in atoms.info and atoms.info["start"] == "x"


def test_chunks():
    assert list(chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(chunks([], 2)) == []


def test_one_bad_frame_spoils_no_other(teacher):
    frames = [crystal((1, 1, 1), seed=k) for k in range(3)]
    frames[1].positions[2] = frames[1].positions[0]
    engine = Engine(teacher, threads=1)
    first, bad, last = evaluate_each(engine, frames)
    assert isinstance(bad, str) and "atom" in bad.lower()
    for atoms, result in zip((frames[0], frames[2]), (first, last), strict=True):
        atoms.calc = DPA2Calculator(teacher, threads=1)
        # sums of float64 in another order
        np.testing.assert_allclose(result["forces"], atoms.get_forces(), rtol=1e-9, atol=1e-10)


def test_elements_that_were_not_in_the_training(tmp_path):
    config = small_config()
    config["info"] = {"observed_type": ["O", "H"]}
    source = write_model(tmp_path / "seen.pt", config, small_tensors(config))
    for path in (source, convert(source, tmp_path / "seen.dpa2")):
        engine = Engine(path, threads=1)
        check_elements(engine, Atoms("OH2").symbols)
        with pytest.warns(UserWarning, match=r"seen\.\w+ was never trained on Si: its forces"):
            check_elements(engine, crystal().symbols)
        with pytest.raises(ValueError, match="doesn't know the element Au"):
            check_elements(engine, ["Au", "O"])
