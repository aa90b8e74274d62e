"""What a step costs on this machine: measured on the structures themselves, in some seconds."""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ..base.files import whole_file
from ..batch import evaluate
from ..deepmd_writing import write_systems
from ..engine import Engine
from ..shipped import model_file
from ..train.preparation import Start
from ..train.settings import settings_of
from ..train.structure_systems import StructureSystem
from ..train.systems import Needs
from ..train.trainer import Trainer
from .inputs import Inputs
from .outcomes import read_json
from .settings import Settings
from .students import student_model
from .training_input import training_input

_REPEATS = 3
_TRAINING_STEPS = 5  # the first of them does not count


@dataclass(frozen=True)
class Costs:
    """Seconds of wall time."""

    model: float  #: of the given model, an atom and step
    student: float  #: of the model that is trained, an atom and step
    training: float  #: a step of the training
    atoms: tuple[int, ...]  #: of each structure; the largest was measured

    def write(self, path: Path) -> None:
        """As JSON. OSError."""
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Costs:
        """Of a file that `write` wrote; RunError for another one."""
        data = read_json(path)
        return cls(**data | {"atoms": tuple(data["atoms"])})


def measure(settings: Settings, inputs: Inputs) -> Costs:
    """Evaluate the given model on the largest structure, and take a few steps of a training there.

    Raises
    ------
    InputError, ModelError, ValueError
        When the model can't compute the structure, or the student can't be trained.
    """
    atoms = max(inputs.structures, key=len)
    engine = Engine(model_file(settings.model), head=settings.head, threads=settings.threads)
    (result,) = evaluate(engine, [atoms])
    labels = {name: result[name] for name in ("energy", "forces", "stress") if name in result}
    labelled = atoms.copy()
    labelled.calc = SinglePointCalculator(labelled, **labels)
    with tempfile.TemporaryDirectory(prefix="dpa2md-") as name:
        training, student = _training(settings, inputs, labelled, Path(name))
    return Costs(
        model=_seconds(lambda: engine.compute_atoms([atoms])) / len(atoms),
        student=student / len(atoms),
        training=training,
        atoms=tuple(len(structure) for structure in inputs.structures),
    )


def _training(
    settings: Settings, inputs: Inputs, labelled: Atoms, folder: Path
) -> tuple[float, float]:
    """Seconds of a step of the training, and of the trained model for these atoms."""
    (system,) = write_systems([labelled], folder / "data")
    model, start = inputs.pretrained, Start()
    if model is None:
        assert settings.student is not None
        systems = [StructureSystem(str(system), Needs(inputs.elements))]
        model = student_model(settings.student, inputs.elements, systems, settings.source)
    else:
        start = Start(finetune=settings.model, head=settings.head)
    content = training_input(
        model,
        steps=_TRAINING_STEPS,
        rates=settings.training.learning_rate,
        batch=settings.training.batch,
        seed=settings.seed,
        pretrained=not settings.distils,
    )
    files: dict[str, Any] = {
        "training_data": {"systems": [str(system)], "batch_size": settings.training.batch}
    }
    files |= {"disp_file": str(folder / "curve"), "save_ckpt": str(folder / "model")}
    read = settings_of(content | {"training": content["training"] | files}, settings.source)
    read = dataclasses.replace(read, run=dataclasses.replace(read.run, pointer=None))
    times: list[float] = []
    checkpoint = Trainer(read, start, settings.threads or 0).run(
        lambda step: times.append(time.perf_counter())
    )
    engine, atoms = Engine(checkpoint, threads=settings.threads), labelled.copy()
    seconds = _seconds(lambda: engine.compute_atoms([atoms]))
    return (times[-1] - times[0]) / (len(times) - 1), seconds


def _seconds(call: Callable[[], object]) -> float:
    """The median of a few calls, after one that allocates."""
    call()
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
