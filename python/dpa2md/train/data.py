"""The data of a training: systems of all formats, and batches as a function of seed and step."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..deepmd_data import is_hdf5, systems_of_folder, systems_of_hdf5
from ..errors import InputError, RunError
from .data_checks import check_frames, count_neighbors, doubts
from .data_settings import BatchRule, DataSettings, Weights
from .deepmd_systems import DeepmdSystem
from .draws import Draws, order
from .parts import part_of
from .ranks import ALONE, Ranks
from .settings import Length, Settings, Task
from .structure_systems import StructureSystem
from .systems import Batch, LabeledFrame, Needs, System

__all__ = ["Batch", "Needs", "Source", "TrainingData", "count_neighbors", "open_systems"]


def open_systems(settings: DataSettings, needs: Needs, named: bool = False) -> list[System]:
    """The systems that a data section lists, in its order.

    A folder stands for all of DeePMD-kit's systems in and below it, by name; an HDF5 file likewise,
    or ``file.hdf5#/group``; any other file is one system of what ASE reads in it.

    Parameters
    ----------
    needs
        What the model needs of the data.
    named
        Whether systems must have a type_map.raw, as DeePMD-kit asks for with several tasks.

    Raises
    ------
    InputError
        When there is no such system, or it lacks something; one sentence that names the file.
    """
    systems: list[System] = []
    for name in settings.systems:
        systems += _open(name, settings.patterns, needs, named)
    if settings.part is not None:
        systems = part_of(systems, settings.part)
    if settings.batch.rule != "filter":
        return systems
    kept = [system for system in systems if system.natoms <= settings.batch.atoms]
    if not kept:
        raise InputError(
            f"{settings.where}.batch_size: all systems have more than {settings.batch.atoms} "
            "atoms, so filter leaves none; raise it."
        )
    return kept


def _open(
    name: str, patterns: Sequence[str] | None, needs: Needs, named: bool
) -> list[DeepmdSystem] | list[StructureSystem]:
    path = Path(name)
    file, mark, group = name.partition("#")
    if name.endswith(".lmdb") or (path / "data.mdb").exists():
        raise InputError(f"{name}: LMDB data are not supported; convert them to deepmd/npy.")
    try:
        if path.is_dir():
            return [DeepmdSystem(s, needs, named) for s in systems_of_folder(path, patterns)]
        if is_hdf5(path):
            return [DeepmdSystem(s, needs, named) for s in systems_of_hdf5(path)]
        if mark and is_hdf5(Path(file)):
            return [DeepmdSystem(s, needs, named) for s in systems_of_hdf5(Path(file), group)]
    except RunError as error:
        raise InputError(str(error)) from None
    if not os.path.exists(name) and "@" not in name:
        raise InputError(f"{name}: there is no such folder or file of training data.")
    return [StructureSystem(name, needs)]


class Source:
    """Batches of one data section.

    Parameters
    ----------
    systems
        As `open_systems` gives them.
    settings
        The section.
    seed, stream
        Of the random choices; sources with different streams are independent.
    ranks
        That share the batches: of a step each takes its own of as many as there are ranks.

    Raises
    ------
    InputError
        When the rules of the section don't fit the number of systems.
    """

    def __init__(
        self,
        systems: Sequence[System],
        settings: DataSettings,
        seed: int,
        stream: int,
        ranks: Ranks = ALONE,
    ):
        self.systems = tuple(systems)
        self.sizes = batch_sizes(self.systems, settings.batch, settings.where)
        #: batches in each system, the last of which may have fewer frames
        self.batches = [
            math.ceil(len(s) / size) for s, size in zip(self.systems, self.sizes, strict=True)
        ]
        self.probabilities = probabilities(settings.weights, self.batches, settings.where)
        self._frames_each = settings.batch.sizes[0] if settings.batch.rule == "mixed" else 0
        self._draws = Draws(self.probabilities, seed, stream)
        self._seed, self._stream, self._ranks = seed, stream, ranks
        self._orders: dict[int, tuple[int, np.ndarray]] = {}  # by system: epoch, order of frames

    @property
    def epoch(self) -> int:
        """Steps after which all frames are expected to have come once, as DeePMD-kit counts."""
        pairs = zip(self.batches, self.probabilities, strict=True)
        total = math.ceil(max(count / p for count, p in pairs if p > 0))
        return math.ceil(total / (self._frames_each or 1) / self._ranks.size)

    def chosen(self, index: int) -> list[tuple[int, int]]:
        """Systems and frames of this rank's batch number `index`."""
        return self._chosen(index * self._ranks.size + self._ranks.rank)

    def frames(self, index: int) -> int:
        """Frames of all ranks' batches number `index`."""
        first = index * self._ranks.size
        return sum(len(self._chosen(first + rank)) for rank in range(self._ranks.size))

    def _chosen(self, number: int) -> list[tuple[int, int]]:
        """Those of a batch in the order in which one rank alone would take them."""
        if not self._frames_each:
            return self._take(number)
        each = range(number * self._frames_each, (number + 1) * self._frames_each)
        return [pair for draw in each for pair in self._take(draw)]

    def batch(self, index: int) -> Batch:
        """This rank's batch number `index`, from 0 on: the same whenever it is asked for."""
        return Batch.of([self.systems[s].frame(k) for s, k in self.chosen(index)])

    def sample(self, batches: int) -> list[LabeledFrame]:
        """Frames for statistics: of each system those of so many batches, in random order."""
        out = []
        for number, system in enumerate(self.systems):
            chosen = order(len(system), 0, number, self._seed, self._stream)
            out += [system.frame(int(k)) for k in chosen[: batches * self.sizes[number]]]
        return out

    def _take(self, draw: int) -> list[tuple[int, int]]:
        """The next frames, in this epoch's order, of the system that a draw gives."""
        system, before = self._draws.at(draw)
        epoch, batch = divmod(before, self.batches[system])
        if self._orders.get(system, (-1,))[0] != epoch:
            count = len(self.systems[system])
            self._orders[system] = epoch, order(count, epoch, system, self._seed, self._stream)
        frames, size = self._orders[system][1], self.sizes[system]
        return [(system, int(k)) for k in frames[batch * size : (batch + 1) * size]]


def batch_sizes(systems: Sequence[System], rule: BatchRule, where: str) -> list[int]:
    """Frames of a batch of each system; in a mixed batch each frame is drawn alone.

    Raises
    ------
    InputError
        When a list has another length than there are systems.
    """
    if rule.rule == "mixed":
        return [1] * len(systems)
    if rule.rule == "auto":
        return [math.ceil(rule.atoms / system.natoms) for system in systems]
    if rule.rule in ("max", "filter"):
        return [max(1, rule.atoms // system.natoms) for system in systems]
    if len(rule.sizes) == 1:
        return [rule.sizes[0]] * len(systems)
    if len(rule.sizes) != len(systems):
        raise InputError(
            f"{where}.batch_size lists {len(rule.sizes)} numbers, and there are {len(systems)} "
            "systems; give one for each."
        )
    return list(rule.sizes)


def probabilities(weights: Weights, batches: Sequence[int], where: str) -> np.ndarray:
    """How often each system is drawn; they add up to 1.

    Raises
    ------
    InputError
        When the rule doesn't fit the number of systems, or gives no system anything.
    """
    sizes = np.array(batches, float)
    if weights.given:
        return _given(np.array(weights.given), sizes, where)
    if weights.uniform:
        return np.full(len(sizes), 1 / len(sizes))
    if not weights.blocks:
        return sizes / sizes.sum()
    out = np.zeros(len(sizes))
    for block in weights.blocks:
        part = slice(block.start, block.end)
        if block.end > len(sizes) or out[part].any():
            raise InputError(
                f"{where}.auto_prob: the block {block.start}:{block.end} overlaps another one or "
                f"goes beyond the {len(sizes)} systems; correct it."
            )
        out[part] = block.weight * sizes[part] / sizes[part].sum()
    if not out.any():
        raise InputError(f"{where}.auto_prob gives no system a weight; raise one.")
    return out / out.sum()


def _given(given: np.ndarray, sizes: np.ndarray, where: str) -> np.ndarray:
    """sys_probs, where negative ones share the rest by their numbers of batches."""
    if len(given) != len(sizes):
        raise InputError(
            f"{where}.sys_probs lists {len(given)} numbers, and there are {len(sizes)} systems; "
            "give one for each."
        )
    shared = given < 0
    rest = 1 - given[~shared].sum()
    if (abs(rest) > 1e-8) != shared.any():  # DeePMD-kit's tolerance, about
        left = "nothing is left for the negative ones" if shared.any() else f"{rest:g} is left over"
        raise InputError(f"{where}.sys_probs: {left}; change the others.")
    shares = np.where(shared, sizes, 0)
    out = np.where(shared, rest * shares / (shares.sum() or 1), given)
    return out / out.sum()


@dataclass(frozen=True)
class TaskSource:
    """The batches of one task."""

    name: str
    training: Source
    validation: Source | None
    elements: frozenset[int] = frozenset()  #: that frames have, as indices of the type map
    validation_batches: int = 0  #: of one validation


class TrainingData:
    """The data of all tasks. What comes at a step depends on the seed and the step alone.

    Parameters
    ----------
    settings
        The input.
    seed
        Of the random choices, from 0 on.
    ranks
        That share the training batches.

    Raises
    ------
    InputError
        For data that can't be used, with file, frame and remedy. Every frame is read once.
    """

    def __init__(self, settings: Settings, seed: int, ranks: Ranks = ALONE):
        self.tasks = tuple(
            _task_source(task, settings.multi_task, seed, 1 + 2 * number, ranks)
            for number, task in enumerate(settings.tasks)
        )
        systems = [s for task in self.tasks for s in task.training.systems]
        #: what may be wrong and need not be, and what was not read; sentences
        self.notes = [note for s in systems for note in getattr(s, "notes", ())]
        self.notes += doubts(systems, settings.tasks[0].model["type_map"])
        lengths = [task.training.epoch for task in self.tasks]
        self.steps, self.task_probabilities = run_length(
            settings, lengths, [len(task.training.systems) for task in self.tasks]
        )
        self._draws = Draws(self.task_probabilities, seed, 0)

    def draw(self, step: int) -> tuple[int, int]:
        """The task of a step, from 0 on, and the number of its batch; the same on all ranks."""
        return self._draws.at(step)


def _task_source(task: Task, named: bool, seed: int, stream: int, ranks: Ranks) -> TaskSource:
    needs = Needs.of(task.model)
    sources: list[Source | None] = []
    elements: set[int] = set()
    for number, section in enumerate((task.training, task.validation)):
        if section is None:
            sources.append(None)
            continue
        systems = open_systems(section, needs, named)
        elements |= check_frames(systems)
        sharing = ALONE if number else ranks  # held-out frames are the first rank's
        sources.append(Source(systems, section, seed, stream + number, sharing))
    training, validation = sources
    assert training is not None
    return TaskSource(
        task.name,
        training,
        validation,
        frozenset(elements),
        task.validation.batches if task.validation else 0,
    )


def run_length(
    settings: Settings, epochs: Sequence[int], systems: Sequence[int]
) -> tuple[int, np.ndarray]:
    """The number of steps, and how often each task is drawn, as DeePMD-kit has them.

    Parameters
    ----------
    epochs
        Batches of an epoch of each task.
    systems
        Systems of each task, by which tasks are drawn where the input doesn't say.
    """
    length: Length = settings.run.length
    names = [task.name for task in settings.tasks]
    if length.epochs_of is not None:
        steps = np.array([length.epochs_of[name] for name in names]) * epochs
        return math.ceil(steps.sum()), steps / steps.sum()
    given = settings.run.task_weights
    weights = np.array(systems if given is None else [given[name] for name in names], float)
    if length.epochs is not None:
        return math.ceil(length.epochs * epochs[0]), weights / weights.sum()
    assert length.steps is not None
    return length.steps, weights / weights.sum()
