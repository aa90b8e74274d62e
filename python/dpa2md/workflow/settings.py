"""The settings of a run: distill.yaml or loop.yaml, completed, each value checked."""

from __future__ import annotations

import enum
import importlib.util
import json
import math
import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..shipped import SHIPPED, UNIVERSAL
from ..train.input_file import read_input
from ..train.sections import Key, fill, shown, table, without_comments
from .setting_keys import CLUSTER, DISTILL, FINETUNE, LABEL
from .students import STUDENTS

AUTO = "auto"
TRAINERS = ("dpa2md", "deepmd")
_FINAL = 4  # times train_steps, where final_train_steps is not given


class Kind(enum.Enum):
    """What a run is for; the value is the name of its settings file."""

    DISTILL = "distill"  #: a small student of a large teacher, which labels
    FINETUNE = "loop"  #: the pretrained model itself is trained on labels of another calculator


@dataclass(frozen=True)
class Label:
    """What labels frames in the place of the teacher; one of calculator and command is given."""

    calculator: str | None  #: a model file, module:function or file.py:function
    arguments: Mapping[str, Any]  #: of the function
    command: str | None  #: a shell command, run in a folder for each frame


@dataclass(frozen=True)
class Exploration:
    """How new frames are looked for."""

    structures: tuple[str, ...]
    temperatures: tuple[float, ...]  #: K
    pressures: tuple[float, ...]  #: bar; none: constant volume
    min_atoms: int  #: smaller periodic structures are repeated to as many
    steps: int  #: of every molecular dynamics run
    timestep: float | None  #: fs; None: 0.5 with hydrogen, otherwise 1
    interval: int  #: steps between two frames
    perturbed: int  #: rattled and strained copies of every structure
    rattle: float  #: angstrom
    strain: float  #: relative
    max_force: float  #: eV/angstrom; beyond it a run has blown up


@dataclass(frozen=True)
class Selection:
    """Which of the new frames are labelled."""

    frames_per_round: int
    levels: tuple[float, float] | None  #: eV/angstrom; None: found from the frames
    held_out_part: float  #: of the selected frames


@dataclass(frozen=True)
class Training:
    """How a model is trained in a round."""

    trainer: str  #: one of `TRAINERS`
    ranks: int  #: processes that train together
    steps: int
    final_steps: int  #: of the last round
    batch: int | str  #: as batch_size of DeePMD-kit
    learning_rate: tuple[float, float]  #: the first and the last


@dataclass(frozen=True)
class Cluster:
    """dpdispatcher's files."""

    machine: Path
    resources: Path


@dataclass(frozen=True)
class Settings:
    """A whole settings file."""

    kind: Kind
    source: str  #: the file's name in messages
    model: str  #: the teacher, or the pretrained model
    head: str | None
    exploration: Exploration
    selection: Selection
    training: Training
    student: Mapping[str, Any] | None  #: its model section without type_map; None: fine-tuning
    label: Label | None  #: None: the teacher labels
    data: tuple[str, ...]  #: labelled frames to begin with
    held_out: tuple[str, ...]  #: labelled frames to validate with
    rounds: int
    force_error: float  #: eV/angstrom
    report_steps: int  #: of molecular dynamics in the report
    seed: int
    threads: int | None  #: of a job; None: all cores, shared by the workers
    workers: int
    cluster: Cluster | None
    values: Mapping[str, Any]  #: all keys, with defaults and absolute paths

    @property
    def distils(self) -> bool:
        """Whether a student is made of a teacher."""
        return self.kind is Kind.DISTILL


def read_settings(path: str | os.PathLike, kind: Kind = Kind.DISTILL) -> Settings:
    """The settings in a YAML or JSON file; names of files in it are relative to its folder.

    Raises
    ------
    InputError
        For a file that can't be read, or a key that is unknown, missing or wrong; one sentence.
    """
    path = Path(path)
    data = read_input(path, f"the settings, as {kind.value}.yaml")
    return settings_of(data, kind, path.absolute().parent, os.fspath(path))


def settings_of(
    data: Any, kind: Kind = Kind.DISTILL, folder: Path | None = None, source: str = "settings"
) -> Settings:
    """The settings in a table that has been read.

    Parameters
    ----------
    folder
        What names of files are relative to; None: the working directory.
    source
        What the table is called in messages.

    Raises
    ------
    InputError
        As `read_settings`.
    """
    keys = DISTILL if kind is Kind.DISTILL else FINETUNE
    given = _numbers(without_comments(table(data, source)), keys)
    values = fill(given, keys, source)
    reader = _Reader(values, source, (folder or Path.cwd()).absolute())
    return reader.settings(kind)


def settings_text(settings: Settings) -> str:
    """All keys as YAML, one on a line; every value is JSON, too."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.values.items())


def _numbers(data: dict[str, Any], keys: Mapping[str, Key]) -> dict[str, Any]:
    """With the numbers that YAML takes for texts, as 1e-3."""

    def read(value: Any) -> Any:
        if isinstance(value, list):
            return [read(entry) for entry in value]
        try:
            return float(value) if isinstance(value, str) else value
        except ValueError:
            return value

    numeric = ("temperatures", "pressures", "learning_rate", "levels")
    return {
        name: read(value)
        if name in numeric or (name in keys and "number" in keys[name].kinds)
        else value
        for name, value in data.items()
    }


class _Reader:
    """Typed settings from filled values."""

    def __init__(self, values: dict[str, Any], source: str, folder: Path):
        self._values, self._source, self._folder = values, source, folder

    def settings(self, kind: Kind) -> Settings:
        values = self._values
        model = "teacher" if kind is Kind.DISTILL else "pretrained"
        values[model] = self._file(model, values[model], SHIPPED, UNIVERSAL)
        for name in ("structures", "held_out", "data"):
            if name in values:
                values[name] = self._files(name)
        label = self._label()
        return Settings(
            kind=kind,
            source=self._source,
            model=values[model],
            head=values["head"],
            exploration=self._exploration(),
            selection=self._selection(),
            training=self._training(),
            student=self._student() if kind is Kind.DISTILL else None,
            label=label,
            data=tuple(values.get("data", ())),
            held_out=tuple(values["held_out"]),
            rounds=values["rounds"],
            force_error=self._above_zero("force_error"),
            report_steps=values["report_steps"],
            seed=values["seed"],
            threads=values["threads"],
            workers=values["workers"],
            cluster=self._cluster(),
            values=values,
        )

    def _where(self, name: str) -> str:
        return f"{self._source}: {name}"

    def _above_zero(self, name: str) -> float:
        if not self._values[name] > 0:
            raise InputError(f"{self._where(name)} = {self._values[name]} should be above 0.")
        return float(self._values[name])

    def _file(self, name: str, given: Any, *shipped: str) -> str:
        """An absolute path, which may have an @INDEX; or one of the shipped names."""
        if not isinstance(given, str) or not given:
            raise InputError(f"{self._where(name)} = {shown(given)} should be the name of a file.")
        path = self._folder / Path(given).expanduser()
        base = path if path.exists() else Path(str(path).rpartition("@")[0] or path)
        if base.exists():
            return str(path)
        if given in shipped:
            return given
        raise InputError(f"{self._where(name)}: there is no file {given}; see that it is there.")

    def _files(self, name: str) -> list[str]:
        given = self._values[name]
        listed = [given] if isinstance(given, str) else given
        shipped = (SHIPPED,) if name == "structures" else ()
        if name == "structures" and not listed:
            raise InputError(f"{self._where(name)} is empty; give a structure to start from.")
        return [self._file(name, entry, *shipped) for entry in listed]

    def _list(self, name: str, least: float) -> tuple[float, ...]:
        """Numbers, or a single one."""
        given = self._values[name]
        listed = given if isinstance(given, list) else [given]
        for entry in listed:
            if type(entry) not in (int, float) or not math.isfinite(entry) or entry <= least:
                bound = "" if least == -math.inf else f" above {least:g}"
                raise InputError(
                    f"{self._where(name)}: {shown(entry)} should be a number{bound}; correct it."
                )
        self._values[name] = listed
        return tuple(float(entry) for entry in listed)

    def _conditions(self, name: str, least: float) -> tuple[float, ...]:
        """Numbers, each only once."""
        listed = self._list(name, least)
        if len(set(listed)) < len(listed):
            raise InputError(f"{self._where(name)} has a value twice; leave one out.")
        return listed

    def _exploration(self) -> Exploration:
        values = self._values
        temperatures = self._conditions("temperatures", 0.0)
        if not temperatures:
            raise InputError(f"{self._where('temperatures')} is empty; give one in K.")
        if values["interval"] > values["steps"]:
            raise InputError(
                f"{self._where('interval')} = {values['interval']} leaves no frame of "
                f"{values['steps']} steps; lower it, or raise steps."
            )
        kept = ("min_atoms", "steps", "timestep", "interval", "perturbed", "rattle", "strain")
        return Exploration(
            structures=tuple(values["structures"]),
            temperatures=temperatures,
            pressures=self._conditions("pressures", -math.inf),
            max_force=self._above_zero("max_force"),
            **{name: values[name] for name in kept},
        )

    def _selection(self) -> Selection:
        values = self._values
        levels, where = values["levels"], self._where("levels")
        if levels != AUTO:
            numbers = self._list("levels", 0.0) if isinstance(levels, list) else ()
            if len(numbers) != 2 or numbers[0] >= numbers[1]:
                raise InputError(
                    f"{where} = {shown(levels)} should be auto, or the lower and the upper one in "
                    "eV/angstrom, as [0.05, 0.5]."
                )
            levels = numbers
        part = values["held_out_part"]
        if not part <= 0.5:
            raise InputError(f"{self._where('held_out_part')} = {part} should be at most 0.5.")
        return Selection(values["frames_per_round"], None if levels == AUTO else levels, part)

    def _training(self) -> Training:
        values = self._values
        if values["trainer"] not in TRAINERS:
            raise InputError(
                f"{self._where('trainer')} = {shown(values['trainer'])} is not known; known are "
                f"{' and '.join(TRAINERS)}."
            )
        rates = self._list("learning_rate", 0.0)
        if len(rates) != 2 or rates[1] > rates[0]:
            raise InputError(
                f"{self._where('learning_rate')} should be the first and the last rate, as "
                "[1e-3, 1e-5]."
            )
        if values["final_train_steps"] is None:
            values["final_train_steps"] = _FINAL * values["train_steps"]
        return Training(
            values["trainer"],
            values["ranks"],
            values["train_steps"],
            values["final_train_steps"],
            values["batch"],
            (rates[0], rates[1]),
        )

    def _student(self) -> Mapping[str, Any]:
        given, where = self._values["student"], self._where("student")
        if isinstance(given, str):
            if given not in STUDENTS:
                raise InputError(
                    f"{where} = {shown(given)} is not known; known are {', '.join(STUDENTS)}, or "
                    "write a model section of DeePMD-kit."
                )
            return STUDENTS[given]
        for part in ("descriptor", "fitting_net"):
            if part not in given:
                raise InputError(f"{where} lacks {part}; write a whole model section.")
        if "type_map" in given:
            raise InputError(f"{where}.type_map follows from the structures; leave it out.")
        return given

    def _label(self) -> Label | None:
        given, where = self._values["label"], self._where("label")
        if given is None:
            return None
        filled = fill(given, LABEL, where)
        if (filled["calculator"] is None) == (filled["command"] is None):
            raise InputError(f"{where} should have a calculator or a command, one of them.")
        if filled["command"] is not None and filled["arguments"]:
            raise InputError(f"{where}.arguments are for a calculator; leave them out.")
        if filled["calculator"] is not None:
            filled["calculator"] = self._calculator(filled["calculator"], f"{where}.calculator")
        else:
            filled["command"] = self._command(filled["command"], f"{where}.command")
        self._values["label"] = filled
        return Label(**filled)

    def _calculator(self, given: str, where: str) -> str:
        """With the whole path of a file that lies beside the settings."""
        module, colon, function = given.rpartition(":")
        if not colon:
            return self._file("label.calculator", given, SHIPPED)
        if module.endswith(".py"):
            return f"{self._file('label.calculator', module)}:{function}"
        beside = self._folder / f"{module}.py"
        if beside.exists():
            return f"{beside}:{function}"
        try:
            known = importlib.util.find_spec(module) is not None
        except (ImportError, ValueError):
            known = False
        if not known:
            raise InputError(
                f"{where}: there is no module {module}; install it, or put {module}.py beside the "
                "settings."
            )
        return given

    def _command(self, given: str, where: str) -> str:
        """With the whole path of a program that lies beside the settings."""
        word, _, rest = given.strip().partition(" ")
        beside = self._folder / word
        if word and beside.is_file() and os.access(beside, os.X_OK):
            return f"{shlex.quote(str(beside))} {rest}".strip()
        if not word or shutil.which(word) is None:
            raise InputError(
                f"{where}: there is no program {word!r} that can be run; see that it is there."
            )
        return given

    def _cluster(self) -> Cluster | None:
        if self._values["cluster"] is None:
            return None
        filled = fill(self._values["cluster"], CLUSTER, self._where("cluster"))
        files = {name: self._file(f"cluster.{name}", value) for name, value in filled.items()}
        self._values["cluster"] = files
        return Cluster(Path(files["machine"]), Path(files["resources"]))
