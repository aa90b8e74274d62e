"""A teacher and a student: small models whose energies differ by a factor."""

from __future__ import annotations

from pathlib import Path

import pytest
from dpa2md import DPA2Calculator

from tests.support.small_models import small_model


@pytest.fixture(scope="session")
def teacher(tmp_path_factory) -> Path:
    return small_model(tmp_path_factory.mktemp("teacher"), scale=100.0)


@pytest.fixture(scope="session")
def student(tmp_path_factory) -> Path:
    return small_model(tmp_path_factory.mktemp("student"), scale=80.0)


@pytest.fixture(scope="session")
def forces_of():
    """Forces by a calculator of its own, a structure at a time."""

    def compute(model: Path, atoms):
        atoms = atoms.copy()
        atoms.calc = DPA2Calculator(model, threads=1)
        return atoms.get_forces()

    return compute
