"""What the test files share: the golden models, how they are evaluated, and every tolerance."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from golden.suite import MODELS, Golden
from golden.systems import Structure

# Each is the largest deviation allowed; those that multiply a scale of the case say so.
TOLERANCES = {
    # float64 against DeePMD-kit's float64. Both carry rounding of about 1e-16 times the few thousand
    # terms of an atom, times at most 1e3 where short distances or small dstd amplify it.
    "energy": 1e-10,  # eV, times max(1, |energy|)
    "atom_energy": 1e-10,  # eV, times max(1, |atom energy|)
    "forces": 1e-9,  # eV/angstrom: a derivative divides by distances and dstd of about 0.1
    "virial": 1e-8,  # eV: sums forces times distances over all pairs
    # float32: our error over DeePMD-kit's own float32 error, as the geometric mean over the
    # structures of a model. Both are rounding errors of the same size, in another order of sums; an
    # arithmetic that loses a digit is ten times worse everywhere.
    "float32_factor": 3.0,
    # ... and for a single structure. Its atoms may share one rounding error, so that the ratio is
    # that of two random numbers: above 10 once in a hundred even when everything is right ...
    "float32_factor_single": 10.0,
    # ... and much oftener for a dimer, so that smaller structures count in the mean only.
    "float32_single_atoms": 14,
    # Units in the last place of float32 (2^-24) of the quantity itself, added to both errors:
    # DeePMD-kit's may be zero by luck or by symmetry.
    "float32_floor": 4 * 2.0**-24,
    # Symmetry operations change only the order of sums and the rounding of positions (1e-15 of
    # distances up to 1e2 angstrom), amplified as above.
    "invariance": 1e-9,  # eV and eV/angstrom, times max(1, the quantity)
    # Central differences: their order of convergence, fitted over halved steps. Pairs that cross a
    # cutoff, where the third derivative jumps, bend it a little.
    "order_of_convergence": 0.25,
    # Richardson's extrapolation removes the h^2 term; what is left are such jumps and the rounding
    # of the energy, 1e-13 eV divided by the smallest step, 6e-5.
    "extrapolated_derivative": 2e-7,  # eV/angstrom or eV, times max(1, the derivative)
}


# What `make check` runs (-m quick): one test of every kind that an ordinary change can break, in less than a
# minute. Of the golden models these, which have every block and no block twice.
QUICK = {
    "test_calculator",
    "test_convert",
    "test_labels",
    "test_layering",
    "test_model_file",
    "test_packaging",
    "test_parity",
    "test_reading",
    "test_reference",
}
QUICK_MODELS = {"medium", "full", "strip", "not_smooth", "generation_2_0", "se_atten_v2"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        model = getattr(item, "callspec", None) and item.callspec.params.get("model")
        if item.module.__name__ in QUICK and (not model or model.name in QUICK_MODELS):
            item.add_marker(pytest.mark.quick)


class Results(dict):
    """`energy` (), `atom_energy` (n,), `forces` (n, 3), `virial` (3, 3); eV and angstrom."""

    def __getattr__(self, name: str) -> np.ndarray:
        return self[name]


class Evaluator:
    """Converts golden models and evaluates them with the compiled engine; keeps what it loaded."""

    def __init__(self, folder: Path, device: str = "cpu"):
        self._folder, self._device = folder, device
        self._engines: dict = {}

    def path(self, model: Golden) -> Path:
        """The `.dpa2` file of a golden model."""
        from dpa2md.conversion import convert

        output = self._folder / f"{model.name}.dpa2"
        if not output.exists():
            convert(model.write(self._folder), output, head=model.head)
        return output

    def engine(self, model: Golden, precision: str | None = "float64"):
        """The engine of a golden model; `precision` None: the file's own."""
        from dpa2md.engine import Engine

        key = (model.name, precision)
        if key not in self._engines:
            path = self.path(model)
            self._engines[key] = Engine(path, precision, threads=1, device=self._device)
        return self._engines[key]

    def __call__(
        self, model: Golden, structure: Structure, precision: str | None = "float64"
    ) -> Results:
        """Results of a golden model for any structure."""
        result = self.engine(model, precision).compute(
            structure.positions,
            model.types(structure),
            cell=structure.cell,
            pbc=structure.pbc,
            fparam=model.fparam(),
            aparam=model.aparam(structure),
        )
        return Results(
            energy=result.energy,
            atom_energy=result.energies,
            forces=result.forces,
            virial=result.virial,
        )


@pytest.fixture(scope="session")
def evaluate(tmp_path_factory) -> Evaluator:
    return Evaluator(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="session")
def cpp_programs() -> Path:
    """The directory of the freshly built C++ test programs."""
    from cpp_programs import build_programs

    programs = build_programs()
    if programs is None:
        skip_or_fail("cpp", "the C++ tests need cmake: pip install cmake ninja")
    return programs


def golden_models(*names: str) -> pytest.MarkDecorator:
    """Parametrises `model` over golden models, all of them without `names`."""
    return pytest.mark.parametrize(
        "model", [MODELS[n] for n in names or MODELS], ids=lambda m: m.name
    )


def skip_or_fail(what: str, reason: str) -> NoReturn:
    """Skips the test, or fails it when DPA2MD_REQUIRE (names separated by commas) lists `what`.

    Where a machine should have everything, a skip would hide that it has not.
    """
    if what in os.environ.get("DPA2MD_REQUIRE", "").split(","):
        pytest.fail(f"{reason} (required by DPA2MD_REQUIRE={what})", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def lammps() -> None:
    """For tests that need LAMMPS and the plugin."""
    from lammps_runs import require_lammps

    require_lammps()


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A small model of O, H and Si; tests over golden models put those in its place."""
    from small_models import small_model

    return small_model(tmp_path_factory.mktemp("model"))
