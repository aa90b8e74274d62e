"""Where everything is in the folder of a run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .settings import Kind


@dataclass(frozen=True)
class RoundFolder:
    """The folder of one round."""

    path: Path
    number: int

    @property
    def explore(self) -> Path:
        """Its jobs make new frames."""
        return self.path / "010-explore"

    @property
    def select(self) -> Path:
        """A job."""
        return self.path / "020-select"

    @property
    def selected(self) -> Path:
        """The frames to be labelled and trained on."""
        return self.select / "selected.extxyz"

    @property
    def held_out(self) -> Path:
        """The frames to be labelled and validated with, where labels are dear."""
        return self.select / "selected.held_out.extxyz"

    @property
    def counts(self) -> Path:
        """How many frames were accurate, candidates, chosen, ..."""
        return self.select / "selected.json"

    @property
    def label(self) -> Path:
        """Its jobs label frames."""
        return self.path / "030-label"

    @property
    def train(self) -> Path:
        """A job."""
        return self.path / "040-train"

    @property
    def model(self) -> Path:
        """The model that was trained."""
        return self.train / "model.dpa2"

    @property
    def validate(self) -> Path:
        """Its jobs compare the model with labels."""
        return self.path / "050-validate"

    @property
    def state(self) -> Path:
        """What came of the round."""
        return self.path / "round.json"


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run."""

    path: Path
    kind: Kind

    @property
    def settings(self) -> Path:
        """The settings with all defaults."""
        return self.path / f"{self.kind.value}.yaml"

    @property
    def log(self) -> Path:
        """One line for every event."""
        return self.path / "log.txt"

    @property
    def progress(self) -> Path:
        """How far the run was at its last event, for those who look."""
        return self.path / "progress.json"

    @property
    def costs(self) -> Path:
        """What steps cost, measured when the run began."""
        return self.path / "costs.json"

    @property
    def start(self) -> Path:
        """A job: the given model as one .dpa2 file."""
        return self.path / ("teacher" if self.kind is Kind.DISTILL else "pretrained")

    @property
    def model(self) -> Path:
        """The given model: the teacher, or the pretrained one."""
        return self.start / "model.dpa2"

    def pretrained(self, suffix: str) -> Path:
        """The pretrained model as it was given, in the format that a name of this end has."""
        return self.start / f"pretrained{suffix}"

    def structure(self, index: int) -> Path:
        """A structure to start from."""
        return self.path / "structures" / f"{index}.extxyz"

    def round(self, number: int) -> RoundFolder:
        """From 1 on."""
        return RoundFolder(self.path / f"round-{number}", number)

    @property
    def report_job(self) -> Path:
        """A job."""
        return self.path / "report"

    @property
    def result(self) -> Path:
        """The model that the run ends with."""
        return self.path / ("student.dpa2" if self.kind is Kind.DISTILL else "tuned.dpa2")


def relative(path: Path, folder: Path) -> str:
    """A path as a command in `folder` names it, so that the whole run can be moved."""
    return os.path.relpath(path, folder)
