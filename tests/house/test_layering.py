"""The rules of the house that a compiler does not check: who may know whom."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

CORE = sorted(p for p in (ROOT / "csrc").rglob("*") if p.suffix in {".cpp", ".h", ".cu", ".cuh"})
SKIPPED = {".git", ".venv", "build", "dist", "demo-output"}
TEXT = {".py", ".pyi", ".cpp", ".h", ".cu", ".cuh", ".md", ".toml", ".txt", ".yaml", ".json"}

MOST_LINES = 450
LONGER = {  # with the reason
    "tests/cpp/test_neighbors.cpp": "one brute-force reference serves all cases",
    "tests/convert/test_hostile_models.py": "one builder of damaged files serves all cases",
}


def project_files() -> list[Path]:
    """Everything a person wrote: no build products, no caches."""
    out = []
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        if any(p in SKIPPED or p.endswith("_cache") or p == "__pycache__" for p in parts):
            continue
        if path.is_file() and (path.suffix in TEXT or path.name in {"Makefile", "run"}):
            out.append(path)
    return out


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code(path: Path) -> str:
    """C++ without comments and string literals."""
    text = re.sub(r'"(\\.|[^"\\\n])*"', '""', path.read_text())
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), flags=re.MULTILINE)


def test_there_is_a_core():
    assert ROOT / "csrc" / "engine" / "engine.cpp" in CORE
    assert len(project_files()) > 50


@pytest.mark.parametrize("path", CORE, ids=name)
def test_core_includes(path):
    """Python only in the binding, CUDA only in csrc/cuda; torch, LAMMPS and MPI nowhere."""
    foreign = {
        r"torch|c10/|ATen|tensorflow": True,
        r"lammps|^pair\.h|lmptype": True,
        r"mpi\.h": True,
        r"[Pp]ython\.h|pybind11": path.name != "bind_python.cpp",
        r"cuda|cublas|cooperative_groups": "cuda" not in path.relative_to(ROOT / "csrc").parts,
    }
    for header in includes(path):
        for pattern, forbidden in foreign.items():
            # our own headers are judged themselves
            own = any((folder / header).exists() for folder in (ROOT / "csrc", path.parent))
            assert own or not (forbidden and re.search(pattern, header)), header
    assert not re.search(r"\bMPI_[A-Z]", code(path))


@pytest.mark.parametrize("path", CORE, ids=name)
def test_core_neither_prints_nor_exits(path):
    """It throws: the binding and the pair style know how to tell their users."""
    found = re.search(
        r"\b(printf|fprintf|puts|putchar|exit|_exit|quick_exit|abort|terminate|assert)\s*\("
        r"|\bstd::(cout|cerr|clog)\b|\bstd(out|err)\b",
        code(path),
    )
    assert not found, found.group()


# The floors of the core: a file includes headers of its own floor's folder and of those below.
FLOORS = {
    "include": 0,
    "base": 0,
    "model": 1,
    "neighbors": 2,
    "engine": 3,
    "cpu": 4,
    "cuda": 4,
    "python": 5,
}


# The same inside of the backends, from the lowest room to the top.
ROOMS = (
    ("cpu/vector", "cpu/parts", "cpu/stages", "cpu"),
    ("cuda/emulation", "cuda/block", "cuda/kernels", "cuda/host", "cuda"),
)


def floor_of(header: str) -> str:
    """The folder of a header of ours, "" for another; public headers are included by name."""
    first = Path(header).parts[0]
    if (ROOT / "csrc" / header).exists():
        return first
    return "include" if (ROOT / "csrc" / "include" / header).exists() else ""


def test_core_includes_one_way():
    """No arrow goes up, backends do not know each other, and stages never know the engine."""
    arrows = set()
    for path in CORE:
        where = path.relative_to(ROOT / "csrc").parts[0]
        for header in includes(path):
            target = floor_of(header)
            if not target or target == where:
                continue
            arrows.add((where, target))
            assert FLOORS[target] < FLOORS[where], f"{name(path)} includes {header}"
            if where in {"cpu", "cuda"}:
                assert Path(header).name not in {"engine.h", "exchange.h"}, name(path)
    assert ("cpu", "engine") in arrows and (
        "engine",
        "neighbors",
    ) in arrows  # the rule sees something


@pytest.mark.parametrize("rooms", ROOMS, ids=lambda rooms: rooms[-1])
def test_a_backend_includes_one_way(rooms):
    seen = set()
    for path in CORE:
        where = path.parent.relative_to(ROOT / "csrc").as_posix()
        if where not in rooms:
            continue
        for header in includes(path):
            target = Path(header).parent.as_posix()
            if target in rooms:
                seen.add((where, target))
                assert rooms.index(target) <= rooms.index(where), f"{name(path)} includes {header}"
    assert {a for a, b in seen if a != b} >= set(rooms[2:-1])  # the rule sees something


def test_core_names_headers_from_the_top():
    """A header's folder is seen where it is included."""
    for path in CORE:
        quoted = re.findall(r'^\s*#\s*include\s*"([^"]+)"', path.read_text(), flags=re.MULTILINE)
        assert all(floor_of(header) for header in quoted), name(path)


# The floors of the Python package, the lowest first: a module imports from its own folder and from below.
PYTHON = ROOT / "python" / "dpa2md"
PYTHON_FLOORS = {
    name: floor
    for floor, names in enumerate(
        (
            "_core base errors lammps_plugin results structures",
            "deepmd_data dispersion dynamics frames importer labels lammps_files model_file shipped",
            "comparison conversion deepmd_writing integrators reading relaxation writing",
            "elastic engine run",
            "batch bench doctor ipi_driver md torch_sim train",
            "estimate hessian kernels",
            "calculator",
            "ase_plugin check deviation dpdata_plugin phonons verification",
            "report",
            "workflow",
            "cli",
            "__init__ __main__ demo",
        )
    )
    for name in names.split()
}


def python_modules() -> dict[str, Path]:
    """Each by its name without dpa2md; a folder is its `__init__`."""
    out = {}
    for path in PYTHON.rglob("*.py"):
        parts = path.relative_to(PYTHON).with_suffix("").parts
        out[".".join(parts[:-1] if parts[1:] and parts[-1] == "__init__" else parts)] = path
    return out


def python_imports() -> dict[str, set[str]]:
    """What each module imports of the others: at its head, in a function, or for type checkers only."""
    modules = python_modules()
    known = {*modules, "_core"}
    out: dict[str, set[str]] = {}
    for name, path in modules.items():
        folder = path.relative_to(PYTHON).parent.parts
        targets = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                targets |= {a.name.removeprefix("dpa2md.") for a in node.names}
            elif isinstance(node, ast.ImportFrom):
                start = [*folder[: len(folder) + 1 - node.level]] if node.level else []
                start += (node.module or "").removeprefix("dpa2md.").split(".")
                source = ".".join(filter(None, start))
                inner = {f"{source}.{a.name}".removeprefix(".") for a in node.names}
                targets |= {i if i in known else source or "__init__" for i in inner}
        targets = {"__init__" if t == "dpa2md" else t for t in targets}
        out[name] = targets & known
    return out


def test_python_imports_one_way():
    """No arrow goes up, nor between modules of a floor that lie in different folders."""
    imports = python_imports()
    where = {name: name.split(".")[0] for name in {*imports, "_core"}}
    assert set(where.values()) == set(PYTHON_FLOORS)
    # the rule sees something: at the head, in a function, for type checkers
    assert {"shipped", "cli.options", "report.plots", "kernels"} <= imports["cli.bench"]
    for name, targets in imports.items():
        for target in targets:
            if where[name] != where[target]:
                floors = PYTHON_FLOORS[where[target]], PYTHON_FLOORS[where[name]]
                assert floors[0] < floors[1], f"{name} imports {target}"


def test_python_imports_have_no_circle():
    """Nor is one hidden by an import in a function."""
    graphlib.TopologicalSorter(python_imports()).prepare()


def test_no_unsafe_compiler_flags():
    """Results must not depend on the machine that built them, nor NaNs vanish."""
    files = [ROOT / "CMakeLists.txt", ROOT / "pyproject.toml", ROOT / "Makefile"]
    files += [p for p in project_files() if p.name == "CMakeLists.txt"]
    for path in files:
        assert not re.search(r"-ffast-math|-Ofast|-march=native|-mtune=native", path.read_text())


def test_no_paths_of_a_machine():
    """Nothing in the project knows where its authors kept it."""
    pattern = re.compile(r"(?<![\w.}])/(work|root|Users|home)/\w")
    found = [
        f"{name(path)}: {line.strip()}"
        for path in project_files()
        for line in path.read_text().splitlines()
        if pattern.search(line) and path != Path(__file__)
    ]
    assert not found


def test_files_stay_short():
    code_files = [p for p in project_files() if p.suffix in {".py", ".cpp", ".h", ".cu", ".cuh"}]
    too_long = {name(p) for p in code_files if len(p.read_text().splitlines()) > MOST_LINES}
    assert too_long == set(LONGER) & too_long, too_long - set(LONGER)
    assert set(LONGER) <= {name(p) for p in code_files}, "an exception without its file"


# ---- torch is never imported

NO_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "tensorflow", "deepmd"}:
            raise AssertionError(f"{name} was imported")
sys.meta_path.insert(0, Refuse())
"""


def run_without_torch(code: str, *arguments: str) -> str:
    """Runs `code` where an import of torch fails, and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_guard_guards():
    with pytest.raises(AssertionError, match="torch was imported"):
        run_without_torch("import torch")


def test_import_is_light():
    """`import dpa2md` loads neither torch nor ASE nor matplotlib."""
    out = run_without_torch("import dpa2md, sys; print(*sys.modules)").split()
    assert "dpa2md" in out
    assert not {"torch", "deepmd", "ase", "matplotlib"} & set(out)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    from tests.golden.suite import MODELS

    return MODELS["medium"].write(tmp_path_factory.mktemp("checkpoint"))


def test_convert_and_calculator_without_torch(checkpoint, tmp_path):
    model = tmp_path / "model.dpa2"
    run_without_torch(
        "from dpa2md.cli import main; sys.exit(main(sys.argv[1:]))",
        *("convert", str(checkpoint), "--output", str(model)),
    )
    out = run_without_torch(
        "import sys\n"
        "from ase.build import molecule\n"
        "from dpa2md import DPA2Calculator\n"
        "atoms = molecule('H2O')\n"
        "atoms.calc = DPA2Calculator(sys.argv[1])\n"
        "print(atoms.get_potential_energy(), abs(atoms.get_forces()).max())\n",
        str(model),
    )
    energy, force = map(float, out.split())
    assert energy != 0 and force > 0
