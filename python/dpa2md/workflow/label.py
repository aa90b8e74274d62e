"""Labels for many frames, written as they come; frames that fail are set aside."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import read_extxyz
from ase.stress import full_3x3_to_voigt_6_stress

from ..base.files import sha256
from ..errors import RunError
from ..run.outputs import XYZFrames
from .evaluation import chunks, frames_of
from .labellers import Labeller, Results, checked
from .notes import begin, note_of, write_note


@dataclasses.dataclass(frozen=True)
class Failure:
    """A frame without labels."""

    frame: int  #: its number in the file of frames
    reason: str  #: of the last attempt


@dataclasses.dataclass(frozen=True)
class Labelling:
    """What came of it."""

    labelled: int  #: frames with labels
    failures: tuple[Failure, ...]  #: frames without


def label(
    frames: str,
    labeller: Labeller,
    output: Path,
    *,
    attempts: int = 2,
    overwrite: bool = False,
    report: Callable[[int], None] | None = None,
) -> Labelling:
    """Label the frames of a file.

    Until all are done, labelled frames are in ``NAME.part.extxyz`` and the others in
    ``NAME.failed.extxyz``; the same call goes on after the frames that are there. At the end
    ``NAME.json`` tells how many there are and why others failed.

    Parameters
    ----------
    frames
        The file, as `dpa2md.reading.read_structures` takes it.
    labeller
        Where labels come from.
    output
        An .extxyz file. Its frames have all that the frames had, `info["frame"]` (the number in
        their file), energy (eV), forces (eV/angstrom) and the stress (eV/angstrom^3), if there is
        one.
    attempts
        A frame that fails is tried so often in all.
    overwrite
        Begin again where there is an output, or work on it.
    report
        Called with the number of frames that are done.

    Raises
    ------
    RunError
        When a file can't be read, the output is that of another request, or all frames failed.
    """
    if output.suffix != ".extxyz" or attempts < 1:
        raise RunError(f"{output}, {attempts} attempts: name an .extxyz file, give 1 or more.")
    part, failed = output.with_suffix(".part.extxyz"), failed_file(output)
    request = {"frames": {"name": frames, "sha256": _checksum(frames)}, **labeller.describe()}
    note = begin(output, request, overwrite=overwrite, working=(part, failed))
    if note is not None:
        return Labelling(note["labelled"], tuple(Failure(**f) for f in note["failures"]))
    if not part.exists():  # all failed before
        failed.unlink(missing_ok=True)
    with closing(_Frames(part)) as good, closing(_Frames(failed)) as bad:
        work = _Work(labeller, attempts, good, bad)
        for done in work.label(frames_of([frames])):
            if report:
                report(done)
        failures = tuple(Failure(n, why) for n, why in bad.reasons())
    if not good.numbers:
        part.unlink()
        raise RunError(
            f"{frames}: all {len(failures)} frames failed, the first one because: "
            f"{failures[0].reason}; they are in {failed}."
        )
    if not failures:
        failed.unlink()
    found = Labelling(len(good.numbers), failures)
    write_note(note_of(output), request, "finished", **dataclasses.asdict(found))
    os.replace(part, output)
    return found


def failed_file(output: Path) -> Path:
    """Where the frames are that failed, beside an output."""
    return output.with_suffix(".failed.extxyz")


class _Work:
    def __init__(self, labeller: Labeller, attempts: int, good: _Frames, bad: _Frames):
        self._labeller, self._attempts, self._good, self._bad = labeller, attempts, good, bad

    def label(self, frames: Iterable[Atoms]) -> Iterator[int]:
        """Label what is not done; gives the number of frames that are, again and again."""
        there = self._good.numbers | self._bad.numbers
        numbered = ((n, atoms) for n, atoms in enumerate(frames) if n not in there)
        done = len(there)
        for group in chunks(numbered, self._labeller.together):
            numbers, chosen = [n for n, _ in group], [atoms for _, atoms in group]
            results = self._tried(chosen, numbers)
            for atoms, number, result in zip(chosen, numbers, results, strict=True):
                if isinstance(result, str):
                    self._bad.add(_failed(atoms, number, result))
                else:
                    self._good.add(_labelled(atoms, number, result))
            done += len(group)
            yield done

    def _tried(self, frames: Sequence[Atoms], numbers: Sequence[int]) -> list[Results | str]:
        """The results of the first attempt that succeeded, or why the last one didn't."""
        results = [checked(r) for r in self._labeller.label(frames, numbers)]
        for _ in range(self._attempts - 1):
            for k in [k for k, result in enumerate(results) if isinstance(result, str)]:
                again = self._labeller.label([frames[k]], [numbers[k]])
                results[k] = checked(again[0])
        return results


def _labelled(atoms: Atoms, number: int, results: Results) -> Atoms:
    frame = atoms.copy()
    frame.info["frame"] = number
    kept = {"energy": results["energy"], "forces": results["forces"]}
    if "stress" in results:
        stress = np.asarray(results["stress"], float)
        kept["stress"] = full_3x3_to_voigt_6_stress(stress) if stress.shape == (3, 3) else stress
    frame.calc = SinglePointCalculator(frame, **kept)
    return frame


def _failed(atoms: Atoms, number: int, reason: str) -> Atoms:
    frame = atoms.copy()
    # a quotation mark would end the text in the file
    frame.info |= {"frame": number, "reason": " ".join(reason.replace('"', "'").split())}
    return frame


class _Frames:
    """A file of frames that grows; what a kill left of the last one is cut off.

    Parameters
    ----------
    path
        Extended XYZ; it is made where there is none.

    Raises
    ------
    RunError
        When it holds something else.
    """

    def __init__(self, path: Path):
        self._path = path
        text = path.read_bytes() if path.exists() else b""
        end = _end_of_whole_frames(text)
        try:
            found = list(read_extxyz(io.StringIO(text[:end].decode()), slice(None))) if end else []
            self._reasons = {int(a.info["frame"]): str(a.info.get("reason", "")) for a in found}
        except (KeyError, ValueError, UnicodeDecodeError):
            raise RunError(f"{path}: this is damaged; add --overwrite to begin again.") from None
        self._file = XYZFrames(path, end if path.exists() else None)

    def close(self) -> None:
        """See that all is on the disk, and close the file."""
        self._file.position()
        self._file.close()

    @property
    def numbers(self) -> set[int]:
        """Of the frames that are in the file."""
        return set(self._reasons)

    def reasons(self) -> list[tuple[int, str]]:
        """Why each frame is in the file, by its number."""
        return sorted(self._reasons.items())

    def add(self, frame: Atoms) -> None:
        """Write a frame."""
        self._file.write(frame)
        self._reasons[frame.info["frame"]] = frame.info.get("reason", "")


def _end_of_whole_frames(text: bytes) -> int:
    """How many bytes of extended XYZ are whole frames."""
    ends = [0]
    for line in text.splitlines(keepends=True):
        ends.append(ends[-1] + len(line))
    if not text.endswith(b"\n"):
        ends.pop()
    first = 0
    while first < len(ends) - 1:
        line = text[ends[first] : ends[first + 1]].strip()
        if not line.isdigit() or first + int(line) + 2 >= len(ends):
            break
        first += int(line) + 2
    return ends[first] if len(ends) > 1 else 0


def _checksum(name: str) -> str | None:
    """Of a file, also where only some of its frames are asked for; None for a folder."""
    path = name if Path(name).exists() else name.rpartition("@")[0]
    return sha256(path) if Path(path).is_file() else None
