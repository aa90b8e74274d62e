"""What a run writes as it goes: the thermo table and the trajectory.

Both can be cut back to where they stood at a checkpoint, so that a continued run leaves the very
files that a run without a break leaves.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_extxyz
from ase.io.trajectory import Trajectory

from ..base.files import named_errors, whole_file
from ..errors import RunError

# Column names carry the units.
COLUMNS = (
    "step",
    "time_ps",
    "potential_energy_eV",
    "kinetic_energy_eV",
    "total_energy_eV",
    "temperature_K",
    "pressure_bar",
    "volume_A3",
    "density_g_cm3",
)


class ThermoLog:
    """A CSV file with one row per logged step.

    Parameters
    ----------
    path
        The file.
    resume_at
        None: a new file. A number from `position`: keep what was there then and go on.
    """

    def __init__(self, path: Path, resume_at: int | None = None):
        self._path = path
        self._file = _open_text(path, resume_at)
        if resume_at is None:
            self._file.write(",".join(COLUMNS) + "\n")

    def write(self, row: Mapping[str, float]) -> None:
        """Append a row; numbers are written so that reading gives the same number back."""
        with named_errors(self._path):
            self._file.write(",".join(repr(row[name]) for name in COLUMNS) + "\n")
            self._file.flush()

    def position(self) -> int:
        """Bytes written."""
        return _synced(self._path, self._file)

    def close(self) -> None:
        """Close the file."""
        with named_errors(self._path):  # it may have something left to write
            self._file.close()


class XYZFrames:
    """Frames in extended XYZ, with momenta, energy, forces and stress; parameters as `ThermoLog`."""

    def __init__(self, path: Path, resume_at: int | None = None):
        self._path = path
        self._file = _open_text(path, resume_at)

    def write(self, atoms: Atoms) -> None:
        """Append a frame."""
        with named_errors(self._path):
            write_extxyz(self._file, [atoms])
            self._file.flush()

    def position(self) -> int:
        """Bytes written."""
        return _synced(self._path, self._file)

    def close(self) -> None:
        """Close the file."""
        with named_errors(self._path):  # it may have something left to write
            self._file.close()


class TrajFrames:
    """Frames in ASE's own binary format; parameters as `ThermoLog`."""

    def __init__(self, path: Path, resume_at: int | None = None):
        self._path = path
        self._count = 0
        if resume_at is not None:
            self._cut(path, resume_at)
            self._count = resume_at
        self._file: Any = Trajectory(os.fspath(path), "a" if self._count else "w")

    @staticmethod
    def _cut(path: Path, count: int) -> None:
        if count == 0:
            return
        with Trajectory(os.fspath(path)) as old:
            if len(old) == count:
                return
            if len(old) < count:
                raise RunError(_SHORTER.format(path))
            with whole_file(path) as temporary, Trajectory(os.fspath(temporary), "w") as new:
                for k in range(count):
                    new.write(old[k])

    def write(self, atoms: Atoms) -> None:
        """Append a frame."""
        with named_errors(self._path):
            self._file.write(atoms)
        self._count += 1

    def position(self) -> int:
        """Frames written; ASE flushes each."""
        return self._count

    def close(self) -> None:
        """Close the file."""
        with named_errors(self._path):  # it may have something left to write
            self._file.close()


def open_frames(path: Path, resume_at: int | None = None) -> XYZFrames | TrajFrames:
    """The writer for a trajectory file, by its extension.

    Raises
    ------
    RunError
        For an extension other than .traj, .xyz and .extxyz, or a file that has become shorter.
    """
    check_trajectory_name(path)
    return TrajFrames(path, resume_at) if path.suffix == ".traj" else XYZFrames(path, resume_at)


def frame_of(atoms: Atoms, **info: float) -> Atoms:
    """A copy with energy, forces and stress, and `info`, such as the step and the time.

    What a single atom has of energy and stress would only fill the disk.
    """
    frame = atoms.copy()
    frame.info |= info
    kept = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    if atoms.cell.rank == 3:
        kept["stress"] = atoms.get_stress()
    frame.calc = SinglePointCalculator(frame, **kept)
    return frame


def check_trajectory_name(path: Path) -> None:
    """Raise `RunError` unless frames can be appended to this kind of file."""
    if path.suffix not in (".traj", ".xyz", ".extxyz"):
        raise RunError(f"{path}: a trajectory's name must end in .traj, .xyz or .extxyz.")


_SHORTER = "{}: the file is shorter than when the checkpoint was written; start again."


def _open_text(path: Path, resume_at: int | None) -> IO[str]:
    if resume_at is None:
        return open(path, "w", newline="\n")
    if not path.exists() or path.stat().st_size < resume_at:
        raise RunError(_SHORTER.format(path))
    os.truncate(path, resume_at)
    return open(path, "a", newline="\n")


def _synced(path: Path, file: IO[str]) -> int:
    with named_errors(path):
        file.flush()
        os.fsync(file.fileno())
        return file.tell()
