"""Fine-tuning of a pretrained model with a few labelled frames, without an input file."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.files import whole_file
from ..conversion import convert
from ..errors import InputError
from ..importer.config import read_config
from .data import open_systems
from .data_settings import DataSettings, Part
from .errors_of_frames import FrameErrors, errors_of_frames
from .freezing import Frozen
from .interrupt import ending_on_signals
from .loss_settings import read_loss
from .model_settings import read_model
from .parameters import TrainableModel
from .preparation import Start
from .pretrained import RANDOM, pretrained_config
from .ranks import Ranks, started_ranks
from .settings import Settings, settings_of
from .shares import heads_of
from .systems import Needs
from .trainer import Callback, Trainer
from .type_maps import config_with_elements

STEPS = 1000
START_LR = 1e-3
STOP_PART = 0.02  # of the first learning rate, where no last one is given
HELD_OUT = 0.1
SEED = 1
_SOURCE = "fine-tuning"  # what the settings are called in messages
# Of energies and forces as in the pretraining of DPA-2; forces alone spoil an energy that is right.
_LOSS = {"start_pref_e": 0.2, "limit_pref_e": 20, "start_pref_f": 100, "limit_pref_f": 60}
_VIRIAL = {"start_pref_v": 0.02, "limit_pref_v": 1}
# Adam's first steps are of the full rate in every parameter, and undo a model that is nearly right.
_WARMUP = 0.1  # part of the steps; the first rate is that part of the highest
_CURVE_LINES = 20
_SAVE_STEPS = 500
_TRAINABLE = ("trainable", "trainable_ln")  # --freeze says it instead


@dataclass(frozen=True)
class Request:
    """What is fine-tuned, on what, and how.

    Attributes
    ----------
    pretrained
        A checkpoint (`.pt`) or a frozen model (`.pth`, `.dp`, `.yaml`) of dpa2md or DeePMD-kit.
    data
        DeePMD-kit's folders or HDF5 files, or files that ASE reads.
    output
        The tuned model, `.dpa2`. The report (`.json`), the curve (`.lcurve.out`) and the last
        checkpoint (`.pt`) get the same name.
    head
        Of a pretrained model with several.
    new_head
        A new fitting net on the pretrained descriptor.
    type_map
        The tuned model's elements, which may lack some of the pretrained model's and have others;
        empty: those of the pretrained model.
    validation
        Held-out data; none: `held_out` of the frames of `data`, one at least.
    stop_lr
        None: `STOP_PART` of `start_lr`.
    batch
        As `batch_size` in DeePMD-kit's input.
    freeze, free
        Patterns of parameters that keep their values, and of exceptions from these.
    """

    pretrained: str
    data: tuple[str, ...]
    output: Path
    head: str | None = None
    new_head: bool = False
    type_map: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    held_out: float = HELD_OUT
    steps: int = STEPS
    start_lr: float = START_LR
    stop_lr: float | None = None
    batch: int | str = "auto"
    freeze: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    seed: int = SEED

    def check(self) -> None:
        """Refuse what contradicts itself. InputError, naming options of the command."""
        if not self.data:
            raise InputError("There are no data; give a folder or a file with labelled frames.")
        if self.head and self.new_head:
            raise InputError("--head and --new-head exclude each other; leave one out.")
        if self.free and not self.freeze:
            raise InputError("--free is for exceptions from --freeze; add --freeze '*'.")
        if not 0 < self.held_out < 1:
            raise InputError(f"--held-out is {self.held_out}; give a part between 0 and 1.")
        if self.steps < 1:
            raise InputError(f"--steps is {self.steps}; give 1 or more.")
        if self.seed < 0:
            raise InputError(f"--seed is {self.seed}; give 0 or more.")
        for option, rate in (("--lr", self.start_lr), ("--stop-lr", self.last_rate)):
            if not 0 < rate <= self.start_lr:
                raise InputError(f"{option} is {rate:g}; give a rate above 0, and at most --lr.")
        self._check_files()

    def _check_files(self) -> None:
        if self.output.suffix != ".dpa2":
            raise InputError(f"{self.output}: the tuned model's name ends in .dpa2.")
        name = self.output.with_suffix("").name
        given = Path(self.pretrained)
        own = given.name == f"{name}.pt" or given.match(f"{name}-*.pt")
        if own and given.resolve().parent == self.output.resolve().parent:
            raise InputError(
                f"{given}: the checkpoint of {self.output} would replace the pretrained model; "
                "name another output."
            )

    @property
    def last_rate(self) -> float:
        """The last learning rate."""
        return STOP_PART * self.start_lr if self.stop_lr is None else self.stop_lr

    def file(self, suffix: str) -> Path:
        """One of the files next to the output."""
        return self.output.with_suffix(suffix)


@dataclass(frozen=True)
class Report:
    """What a fine-tuning has brought.

    Attributes
    ----------
    before
        Errors of all held-out frames after the energy bias was changed, before the first step.
    after
        Those of the tuned model.
    steps
        That were made: fewer than asked for where it was stopped.
    seconds
        Of the steps.
    """

    pretrained: str
    output: str
    checkpoint: str
    training_frames: int
    held_out_frames: int
    parameters: int
    frozen_parameters: int
    steps: int
    seconds: float
    before: FrameErrors
    after: FrameErrors

    def write(self, path: Path) -> None:
        """Write it as JSON; an error without labels is null. OSError."""
        data = dataclasses.asdict(self)
        data["before"]["note"] = "after the energy bias was changed, before the first step"
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


class Finetuning:
    """A fine-tuning that is ready to start: everything is read and checked, nothing written.

    Attributes
    ----------
    trainer
        The training, with its data and notes.

    Raises
    ------
    InputError, ModelError
        When the request, the model or the data can't be used; one sentence.
    OSError
        When a file can't be read.
    """

    def __init__(self, request: Request, threads: int = 0, ranks: Ranks | None = None):
        ranks = started_ranks() if ranks is None else ranks
        with ranks.together():
            request.check()
            head = RANDOM if request.new_head else request.head
            frozen = Frozen(request.freeze, request.free) if request.freeze else None
            start = Start(finetune=request.pretrained, head=head, frozen=frozen)
            settings = _settings(request, start)
        self.request = request
        self.trainer = Trainer(settings, start, threads, ranks)

    def run(self, callback: Callback | None = None) -> Report:
        """Make the steps, write all files; returns the report, on all ranks.

        Ctrl-C ends it after a step, with all files.

        Parameters
        ----------
        callback
            Called with a `trainer.Step` after every step, on the first rank.

        Raises
        ------
        RunError
            When a loss isn't finite.
        OSError
            When a file can't be written.
        """
        trainer, ranks = self.trainer, self.trainer.ranks
        before = report = None
        with ranks.together():
            if ranks.first:
                (model,) = heads_of(trainer.state.model).values()
                before = self._errors(model)
        began = time.perf_counter()
        with ending_on_signals(trainer.stop):
            checkpoint = trainer.run(callback)
        seconds = time.perf_counter() - began
        with ranks.together():
            if before is not None:
                report = self._finish(checkpoint, before, seconds)
        report = ranks.same(report)
        assert report is not None
        return report

    def _finish(self, checkpoint: Path, before: FrameErrors, seconds: float) -> Report:
        """Write the tuned model and the report."""
        request, trainer = self.request, self.trainer
        convert(checkpoint, request.output)
        (model,) = heads_of(trainer.state.model).values()
        (source,) = trainer.data.tasks
        assert source.validation is not None
        report = Report(
            pretrained=request.pretrained,
            output=str(request.output),
            checkpoint=str(checkpoint),
            training_frames=sum(map(len, source.training.systems)),
            held_out_frames=sum(map(len, source.validation.systems)),
            parameters=trainer.parameters,
            frozen_parameters=model.frozen_size,
            steps=trainer.state.step,
            seconds=seconds,
            before=before,
            after=self._errors(TrainableModel.read(checkpoint)),
        )
        report.write(request.file(".json"))
        return report

    def _errors(self, model: TrainableModel) -> FrameErrors:
        (source,) = self.trainer.data.tasks
        assert source.validation is not None
        return errors_of_frames(model, source.validation.systems, self.trainer.threads)


def finetune(
    pretrained: str | os.PathLike,
    data: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    head: str | None = None,
    new_head: bool = False,
    type_map: Sequence[str] = (),
    validation: Sequence[str | os.PathLike] = (),
    held_out: float = HELD_OUT,
    steps: int = STEPS,
    start_lr: float = START_LR,
    stop_lr: float | None = None,
    batch: int | str = "auto",
    freeze: Sequence[str] = (),
    free: Sequence[str] = (),
    seed: int = SEED,
    threads: int = 0,
    callback: Callback | None = None,
) -> Report:
    """Fine-tune a pretrained model.

    First the energy bias is changed as DeePMD-kit does: what the model misses in the mean is added
    to the energies of the elements; with `new_head` they are fitted anew. Then all parameters but
    the frozen ones are trained on energies, forces, and virials where frames have them. Existing
    files are replaced.

    Parameters
    ----------
    pretrained, data, output, head, new_head, type_map, validation, held_out, steps, start_lr, stop_lr, batch, freeze, free, seed
        See `Request`.
    threads
        0: one for each processor.
    callback
        Called with a `trainer.Step` after every step.

    Returns
    -------
    Report
        Errors of all held-out frames before and after; it is written as JSON, too.

    Raises
    ------
    InputError, ModelError
        When the request, the model or the data can't be used; nothing has started then.
    RunError
        When a loss isn't finite.
    OSError
        When a file can't be read or written.
    """  # fmt: skip
    request = Request(
        pretrained=os.fspath(pretrained),
        data=tuple(os.fspath(name) for name in data),
        output=Path(output),
        head=head,
        new_head=new_head,
        type_map=tuple(type_map),
        validation=tuple(os.fspath(name) for name in validation),
        held_out=held_out,
        steps=steps,
        start_lr=start_lr,
        stop_lr=stop_lr,
        batch=batch,
        freeze=tuple(freeze),
        free=tuple(free),
        seed=seed,
    )
    return Finetuning(request, threads).run(callback)


def _settings(request: Request, start: Start) -> Settings:
    """The input of the training, as if it had been read from a file."""
    model = pretrained_section(start, request.type_map)
    section = {"systems": list(request.data), "batch_size": request.batch}
    held_out = section | {"systems": list(request.validation or request.data)}
    settings = settings_of(
        {
            "model": model,
            "learning_rate": {
                "type": "exp",
                "start_lr": request.start_lr,
                "stop_lr": request.last_rate,
                "decay_steps": request.steps // 100 + 1,
                "warmup_ratio": _WARMUP,
                "warmup_start_factor": _WARMUP,
            },
            "loss": dict(_LOSS),
            "training": {
                "training_data": section,
                "validation_data": held_out,
                "numb_steps": request.steps,
                "seed": request.seed,
                "disp_file": str(request.file(".lcurve.out")),
                "disp_freq": -(-request.steps // _CURVE_LINES),
                "save_ckpt": str(request.output.with_suffix("")),
                "save_freq": _SAVE_STEPS,
                "max_ckpt_keep": 1,
            },
        },
        _SOURCE,
    )
    (task,) = settings.tasks
    training, validation = task.training, task.validation
    assert validation is not None
    if not request.validation:
        training, validation = (
            dataclasses.replace(data, part=Part(request.held_out, request.seed, is_held_out))
            for data, is_held_out in ((training, False), (validation, True))
        )
    loss = task.loss
    if _have_virials(training, task.model):
        loss = read_loss(_LOSS | _VIRIAL, _SOURCE)
    task = dataclasses.replace(task, training=training, validation=validation, loss=loss)
    run = dataclasses.replace(settings.run, pointer=None)
    return dataclasses.replace(settings, tasks=(task,), run=run)


def pretrained_section(start: Start, type_map: Sequence[str] = ()) -> dict[str, Any]:
    """The model section of an input that fine-tunes the model of `start`, with all of it trained.

    Parameters
    ----------
    start
        What is fine-tuned.
    type_map
        The elements of the new model; empty: those of the pretrained one.

    Raises
    ------
    InputError, ModelError
        When the file can't be fine-tuned, or its section would mean another model in an input.
    OSError
        When it can't be read.
    """
    given = pretrained_config(str(start.finetune), start.head)
    if type_map:
        given = config_with_elements(given, type_map)
    model = _all_trained(given)
    descriptor, keys = model["descriptor"], {"smooth_type_embedding", "smooth_type_embdding"}
    if descriptor.get("type") in ("dpa1", "se_atten") and not keys & set(descriptor):
        # where nothing is said, DeePMD-kit's class is smooth, and its input is not
        smooth = read_config(model).descriptor.smooth
        model["descriptor"] = descriptor | {"smooth_type_embedding": smooth}
    (complete,) = read_model(model, f"{start.finetune}: model").tasks.values()
    if read_config(complete) != read_config(model):
        raise InputError(
            f"{start.finetune}: its model section leaves settings out that an input would have; "
            "write it into an input, and give that to dpa2md train --finetune."
        )
    return model


def _all_trained(model: dict[str, Any]) -> dict[str, Any]:
    """The section without what its own training froze."""
    out = dict(model)
    for part in ("descriptor", "fitting_net"):
        if isinstance(out.get(part), dict):
            out[part] = _without_flags(out[part])
    return out


def _without_flags(section: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_flags(value) if isinstance(value, dict) else value
        for key, value in section.items()
        if key not in _TRAINABLE
    }


def _have_virials(data: DataSettings, model: dict[str, Any]) -> bool:
    """Whether any frame has a virial; in files of ASE some may, and others not."""
    systems = open_systems(data, Needs.of(model))
    return any(s.frame(k).virial is not None for s in systems for k in range(len(s)))
