"""One head in the compiled core: results of a batch of frames, and gradients by its parameters."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .._core import Engine
from ..model_file import write_model
from .loss import BatchResults, LossResult
from .parameters import TrainableModel
from .systems import Batch, LabeledFrame


class CoreModel:
    """A head's model, computed by the core in the model's own precision.

    Parameters
    ----------
    model
        The tensors. Statistics and biases are read here, parameters by `load`.
    elements
        The elements (indices of the type map) that frames have.
    threads
        Of the core; 0: one for each processor.
    """

    def __init__(self, model: TrainableModel, elements: Sequence[int], threads: int):
        self.model = model
        self._elements = sorted(elements)
        with tempfile.TemporaryDirectory(prefix="dpa2md-") as folder:
            file = Path(folder) / "model.dpa2"
            write_model(file, model.records())
            self._core = Engine(str(file), "", threads, "cpu")
        layout = self._core.parameter_layout()
        self._numbers = np.empty(sum(math.prod(shape) for _, shape in layout))
        self._records: dict[str, np.ndarray] = {}  # places in the vector above
        self._slices: dict[str, tuple[slice, tuple[int, ...]]] = {}
        end = 0
        for name, shape in layout:
            part = slice(end, end := end + math.prod(shape))
            self._slices[name] = part, tuple(shape)
            self._records[name] = self._numbers[part].reshape(shape)

    def load(self) -> None:
        """Take over the parameters that the model has now."""
        self.model.write_records(self._records, self._elements)
        self._core.set_parameters(self._numbers)

    def compute(self, batch: Batch, virials: bool) -> BatchResults:
        """Energies and forces of all frames; virials are zeros unless they are wanted."""
        found = self._core.compute(
            batch.positions,
            batch.types,
            batch.frame_start,
            batch.cells,
            batch.pbc,
            0.0,
            fparam=batch.fparam,
            aparam=batch.aparam,
            virials=virials,
        )
        virial = found["virial"] if virials else np.zeros((len(batch), 3, 3))
        return BatchResults(found["energies"], found["forces"], virial)

    def memory(self, batch: Batch) -> int:
        """Bytes of the core's buffers after a step of this batch, but for scratch."""
        self.compute(batch, False)
        atoms = len(batch.types)
        zeros = np.zeros(atoms), np.zeros((atoms, 3)), np.zeros((len(batch), 3, 3))
        self._core.gradient(*zeros)
        return self._core.step_bytes

    def gradient(self, loss: LossResult) -> np.ndarray:
        """The gradient by the model's flat vector, of the batch that was computed last."""
        flat = self._core.gradient(loss.denergies, loss.dforces, loss.dvirial)
        records = {name: flat[part].reshape(shape) for name, (part, shape) in self._slices.items()}
        return self.model.pull(records, self._elements)

    def atom_energies(self, frames: Sequence[LabeledFrame]) -> list[np.ndarray]:
        """Energies of the atoms of each frame, (n,) eV."""
        return [self.compute(Batch.of([frame]), False).energies for frame in frames]
