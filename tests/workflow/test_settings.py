"""Settings of distillations and loops: what is refused, what is filled in."""

from __future__ import annotations

import json

import pytest
from dpa2md.errors import InputError, ModelError, RunError
from dpa2md.workflow.costs import Costs
from dpa2md.workflow.driver import plan
from dpa2md.workflow.inputs import read_inputs
from dpa2md.workflow.plan import Plan
from dpa2md.workflow.settings import Kind, read_settings, settings_of, settings_text

from tests.support.small_rounds import STUDENT, distill_settings, loop_settings

REFUSED = [
    ({"teacher": ...}, "lacks teacher; add it"),
    ({"temperature": 300}, "temperature is no key that is known here; did you mean temperatures"),
    ({"teacher": "no.pt"}, "teacher: there is no file no.pt"),
    ({"structures": []}, "structures is empty"),
    ({"structures": ["no.cif"]}, "structures: there is no file no.cif"),
    ({"temperatures": []}, "temperatures is empty"),
    ({"temperatures": [300, 0]}, "temperatures: 0 should be a number above 0"),
    ({"temperatures": ["hot"]}, "temperatures: 'hot' should be a number"),
    ({"temperatures": [300, 300]}, "temperatures has a value twice"),
    ({"pressures": ["high"]}, "pressures: 'high' should be a number"),
    ({"steps": 0}, "steps = 0 should be at least 1"),
    ({"interval": 100}, "interval = 100 leaves no frame of 60 steps"),
    ({"timestep": 0}, "timestep = 0 should be at least 0.001"),
    ({"force_error": 0}, "force_error = 0 should be above 0"),
    ({"levels": [0.5, 0.1]}, "levels = [0.5, 0.1] should be auto"),
    ({"levels": "high"}, "levels = 'high' should be auto"),
    ({"held_out_part": 0.8}, "held_out_part = 0.8 should be at most 0.5"),
    ({"held_out": "no.extxyz"}, "held_out: there is no file no.extxyz"),
    ({"student": "tiny"}, "student = 'tiny' is not known; known are small, fast"),
    ({"student": {"descriptor": {}}}, "student lacks fitting_net"),
    ({"student": STUDENT | {"type_map": ["O"]}}, "student.type_map follows from the structures"),
    ({"trainer": "torch"}, "trainer = 'torch' is not known; known are dpa2md and deepmd"),
    ({"learning_rate": [1e-5, 1e-3]}, "learning_rate should be the first and the last rate"),
    ({"label": {}}, "label should have a calculator or a command, one of them"),
    ({"label": {"calculator": "a:b", "command": "c"}}, "label should have a calculator or a comm"),
    ({"label": {"calculator": "no_module:f"}}, "there is no module no_module"),
    ({"label": {"command": "no-such-program x"}}, "there is no program 'no-such-program'"),
    ({"label": {"command": "true", "arguments": {"a": 1}}}, "label.arguments are for a calculator"),
    ({"cluster": {"machine": "m.json"}}, "cluster lacks resources"),
    ({"pretrained": "x.pt"}, "pretrained is no key that is known here"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), REFUSED, ids=[s[:40] for _, s in REFUSED])
def test_refused(tmp_path, changes, sentence):
    with pytest.raises(InputError) as caught:
        read_settings(distill_settings(tmp_path, **changes))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


REFUSED_FILES = [
    ({"head": "A"}, ModelError, "single head"),
    ({"student": {**STUDENT, "descriptor": {"type": "se_e2_a"}}}, InputError, "se_e2_a"),
    ({"label": {"calculator": "ase.calculators.emt:NoEMT"}}, RunError, "no function 'NoEMT'"),
    ({"held_out": "box.xyz"}, InputError, "the frames have no labels"),
]


@pytest.mark.parametrize(("changes", "kind", "sentence"), REFUSED_FILES)
def test_refused_before_anything_starts(tmp_path, changes, kind, sentence):
    """What only a look into the files shows; nothing is written."""
    with pytest.raises(kind) as caught:
        read_inputs(read_settings(distill_settings(tmp_path, **changes)))
    assert sentence in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_element_that_the_teacher_does_not_know(tmp_path):
    path = distill_settings(tmp_path)
    box = tmp_path / "box.xyz"
    box.write_text(box.read_text().replace("\nO ", "\nS "))
    with pytest.raises(InputError, match="doesn't know S, which the structures have; it knows O H"):
        read_inputs(read_settings(path))


def test_pressures_need_a_cell(tmp_path):
    from ase.build import molecule

    path = distill_settings(tmp_path, pressures=[1])
    molecule("H2O").write(tmp_path / "box.xyz", format="extxyz")
    with pytest.raises(InputError, match="pressures need cells, and structure 0 has none"):
        read_inputs(read_settings(path))


def test_small_structures_are_repeated(tmp_path):
    path = distill_settings(tmp_path, min_atoms=100)
    (atoms,) = read_inputs(read_settings(path)).structures
    assert len(atoms) >= 100
    assert len(atoms) % 24 == 0


def test_text_is_read_back(tmp_path):
    """What a run writes down is the same settings, with absolute paths."""
    settings = read_settings(distill_settings(tmp_path))
    lines = [line.split(": ", 1) for line in settings_text(settings).splitlines()]
    again = settings_of({name: json.loads(value) for name, value in lines}, Kind.DISTILL)
    assert dict(again.values) == dict(settings.values)
    assert settings.values["structures"] == [str(tmp_path / "box.xyz")]


def test_yaml(tmp_path):
    """Numbers that YAML takes for texts, a single structure, comments."""
    pytest.importorskip("yaml")
    distill_settings(tmp_path)
    path = tmp_path / "distill.yaml"
    path.write_text(
        "teacher: water\nstructures: box.xyz  # one\ntemperatures: 3e2\nlearning_rate: [1e-3, 1e-5]\n"
    )
    settings = read_settings(path)
    assert settings.exploration.temperatures == (300.0,)
    assert settings.training.learning_rate == (1e-3, 1e-5)


def test_a_loop_needs_labels(tmp_path):
    with pytest.raises(InputError, match="lacks label"):
        read_settings(loop_settings(tmp_path, tmp_path / "box.xyz", label=...), Kind.FINETUNE)


def test_plan_adds_up(tmp_path):
    """The whole is the sum of its stages, and what is left shrinks to the report."""
    settings = read_settings(distill_settings(tmp_path, temperatures=[300, 400], pressures=[1, 9]))
    inputs, planned, jobs = plan(settings, tmp_path / "run")
    rounds = [planned.round(number) for number in (1, 2)]
    stages = sum(stage.seconds for one in rounds for stage in one.values())
    report = planned.left(2, "validate", 1.0)
    assert planned.seconds == pytest.approx(stages + report)
    assert planned.left(1, "explore", 0.0) == pytest.approx(planned.seconds)
    half = planned.left(1, "explore", 0.5)
    assert planned.seconds - half == pytest.approx(0.5 * rounds[0]["explore"].seconds)
    assert rounds[0]["explore"].jobs == 4 + 1  # and a job of perturbed copies
    assert rounds[1]["train"].what == "320 steps on 16 frames"
    assert [job.name for job in jobs][:2] == ["teacher", "round-1/010-explore/s0-t300-p1"]
    assert inputs.elements == ("O", "H")
    assert not (tmp_path / "run").exists()


def test_the_plan_of_another_trainer(tmp_path):
    """Its times are those of dpa2md; the plan says so."""
    costs = Costs(model=1e-5, student=1e-6, training=0.01, atoms=(24,))
    own, other = (
        Plan(read_settings(distill_settings(tmp_path, trainer=name)), costs).round(1)["train"]
        for name in ("dpa2md", "deepmd")
    )
    assert own.seconds == other.seconds
    assert own.what == "300 steps on 8 frames"
    assert other.what == f"{own.what} by deepmd: it takes longer than dpa2md, whose time this is"
