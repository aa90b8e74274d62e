"""docs/workflow.md says what is: the keys and their defaults, the settings of the tutorial."""

from __future__ import annotations

import json
import re

import pytest
from dpa2md.structures import water_box
from dpa2md.train.sections import REQUIRED
from dpa2md.workflow.setting_keys import DISTILL, FINETUNE
from dpa2md.workflow.settings import Kind, read_settings, settings_of

from tests.support.paths import ROOT
from tests.support.small_rounds import distill_settings

PAGE = (ROOT / "docs" / "workflow.md").read_text()


def test_every_key_is_there_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \|\s*(?:`(.*?)`)? \|", PAGE, re.MULTILINE))
    assert set(rows) == {*DISTILL, *FINETUNE} - {"pretrained"}
    for name, default in rows.items():
        key = DISTILL.get(name, FINETUNE.get(name))
        if key.default is REQUIRED:
            assert default == ""
        else:
            assert json.loads(default) == key.default


@pytest.mark.parametrize("kind", Kind)
def test_settings_of_the_page(kind, tmp_path):
    """They are settings, once the files are there that they name."""
    yaml = pytest.importorskip("yaml")
    for name in ("big.pt", "ice.cif", "slab.cif", "run_vasp.sh"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    model = "teacher" if kind is Kind.DISTILL else "pretrained"
    (text,) = re.findall(rf"```yaml\n({model}:.*?)```", PAGE, re.DOTALL)
    settings = settings_of(yaml.safe_load(text), kind, tmp_path)
    assert settings.head == "Water"
    assert (settings.label is None) == (kind is Kind.DISTILL)


def test_the_example():
    pytest.importorskip("yaml")
    settings = read_settings(ROOT / "examples" / "distill_water.yaml")
    assert settings.exploration.temperatures == (300.0, 350.0, 400.0)


def test_python_of_the_page(tmp_path, monkeypatch, capsys):
    """At a small size: from a checkpoint and a CIF file, one round of a few steps."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    teacher = str(ROOT / "examples" / "water.pt")
    water_box(8).write(tmp_path / "ice.cif")
    distill_settings(
        tmp_path, teacher=teacher, structures=["ice.cif"], rounds=1, perturbed=0, steps=24
    )
    monkeypatch.chdir(tmp_path)
    exec(code.replace("distill.yaml", "distill.json"), {})  # noqa: S102 - it is our own page
    lines = capsys.readouterr().out.splitlines()
    assert "1 train 1 1" in lines
    assert (tmp_path / "run" / "student.dpa2").exists()
