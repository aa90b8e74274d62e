"""DeePMD-kit's tensors of one model, the records that the engine computes with, and gradients back.

Most records are tensors, reshaped or stacked. Which number of a record is which number of a tensor
is not written down here: the importer is run once on tensors that hold their own indices. The other
records, type embedding and strip tables, are small nets of the elements and have a reverse.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelError, UnsupportedModelError
from ..importer.config import Model, read_config
from ..importer.contents import Source
from ..importer.exportable import refuse_cut_exclusions
from ..importer.nets import Layer, evaluate
from ..importer.records import build_records
from ..importer.source import named_file, open_source
from ..importer.tables import StripNet, strip_nets, type_inputs, type_layers
from ..importer.torch_zip import Tensor
from ..importer.weights import Weights
from .layout import is_parameter, make_tensors, neutral
from .nets import backward

_TYPE_EMBEDDING = "type_embedding"
_OLD_TYPES = "atomic_model.descriptor.type_embedding.embedding.weight"
_FIRST = 2.0**40  # indices start here, where no number of a model is


@dataclass(frozen=True)
class Parameter:
    """One tensor that is trained: its place in the flat vector of all of them."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def end(self) -> int:
        """Where the next one starts."""
        return self.offset + math.prod(self.shape)


class TrainableModel:
    """One head's tensors in float64, whatever the precision in which the model computes.

    Attributes
    ----------
    config
        The configuration as DeePMD-kit's checkpoints carry it (`model_params`, of this head).
    model
        The same as settings.
    tensors
        Every tensor below `model.<head>.` by its name, float64, in DeePMD-kit's order. Statistics
        and biases may be written to in place; parameters only through `set_flat`.
    parameters
        The tensors that DeePMD-kit trains, in the order of the flat vector. Those of the descriptor
        are left out where it has `trainable` false, and those of the fitting net where its
        `trainable` is false or a list with a false in it. `trainable_ln` changes nothing:
        DeePMD-kit's descriptor overwrites it with its own `trainable`.
    size
        The length of the flat vector.
    all_neighbors
        Whether every neighbour within the cutoffs counts, as docs/model-format.md says.
    """

    def __init__(
        self,
        config: dict[str, Any],
        tensors: Mapping[str, np.ndarray],
        head: str | None = None,
        all_neighbors: bool = False,
    ):
        """Take over the tensors (copied). ModelError when they don't fit the configuration."""
        self.config = config
        self.head = head
        self.all_neighbors = all_neighbors
        self.model: Model = read_config(config)
        every = [name for name in tensors if is_parameter(name)]
        self._all = np.concatenate([np.ravel(tensors[name]).astype(np.float64) for name in every])
        places = _places({name: tensors[name].shape for name in every})
        self.tensors: dict[str, np.ndarray] = {
            name: self._all[places[name].offset : places[name].end].reshape(array.shape)
            if name in places
            else np.array(array, dtype=np.float64)
            for name, array in tensors.items()
        }
        is_trained = _trained(config)
        self._places = places
        self._train([p for p in places.values() if is_trained(p.name)])
        self._trace(places)
        records = self.records()
        self._tables = {
            net.record: np.array(records[net.record], dtype=np.float64) for net in self._strips
        }

    @classmethod
    def read(cls, path: str | PathLike, head: str | None = None) -> TrainableModel:
        """The model in a file of DeePMD-kit: `.pt`, `.pth`, `.dp`, `.yaml` or `.pt2`.

        Parameters
        ----------
        path
            The file.
        head
            Which head of a multi-task model; its name in any case, or an alias.

        Raises
        ------
        ModelError
            When the file is damaged or of another kind, or the model is compressed: the tables of
            a compressed model can't be trained.
        OSError
            When the file can't be read.
        """
        path = Path(path)
        refuse_converted(path)
        with named_file(path), open_source(path) as contents:
            return cls.from_source(contents.choose(head))

    @classmethod
    def from_source(cls, source: Source) -> TrainableModel:
        """The model that the importer read. ModelError as `read`."""
        model = read_config(source.config)
        _refuse_untrainable(source)
        if source.exportable and not source.all_neighbors:
            refuse_cut_exclusions(model)
        weights = Weights(source.tensors)
        build_records(model, weights, source.all_neighbors)  # refuses what does not fit

        def make(name: str, shape: tuple[int, ...]) -> np.ndarray:
            found = weights.tensor(name)
            if found is None:  # not computed with: newer files have it, others not
                return neutral(name, shape, model)
            array = found.numpy() if isinstance(found, Tensor) else found
            return array.astype(np.float64)

        tensors = make_tensors(model, make)
        return cls(source.config, tensors, source.head, source.all_neighbors)

    # ---- the flat vector

    def freeze(self, names: Collection[str]) -> None:
        """Leave tensors out of `parameters`, besides those that are left out already."""
        kept = [p.name for p in self.parameters if p.name not in names]
        self._train([self._places[name] for name in kept])

    @property
    def frozen_size(self) -> int:
        """How many numbers of parameters are not in the flat vector."""
        return len(self._all) - self.size

    def _train(self, chosen: Sequence[Parameter]) -> None:
        """Make the flat vector of these parameters, by their places in the vector of all."""
        own = _places({p.name: p.shape for p in chosen})
        self.parameters: tuple[Parameter, ...] = tuple(own.values())
        self.size = sum(p.end - p.offset for p in self.parameters)
        self._whole = self.size == len(self._all)
        # where in the vector of all parameters each entry of the flat one is
        self._chosen = np.concatenate(
            [np.arange(p.offset, p.end) for p in chosen] or [np.zeros(0, dtype=np.int64)]
        )

    def flat(self) -> np.ndarray:
        """All trained numbers, float64 (size,): a copy."""
        return self._all[self._chosen]

    def set_flat(self, vector: np.ndarray, part: slice | None = None) -> None:
        """Replace all trained numbers by `vector`, (size,), or this part of them."""
        part = slice(0, self.size) if part is None else part
        if vector.shape != (part.stop - part.start,):
            raise ValueError(
                f"the vector has the shape {vector.shape} and not ({part.stop - part.start},)"
            )
        self._all[part if self._whole else self._chosen[part]] = vector

    # ---- records

    def records(self) -> dict[str, Any]:
        """All records of docs/model-format.md but `meta.*`, in the model's precision.

        Raises
        ------
        ModelError
            When a tensor is not finite.
        """
        return build_records(self.model, Weights(self.tensors), self.all_neighbors)

    def trained_records(self, present: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """The records that depend on parameters, float64, without rounding to the precision.

        Parameters
        ----------
        present
            The elements (indices of the type map) that occur; None: all. Entries of strip tables
            for other elements keep the values that they had when they were computed last.
        """
        shapes = {name: place.index.shape for name, place in self._direct.items()}
        shapes[_TYPE_EMBEDDING] = self._type_embedding().shape
        shapes |= {name: table.shape for name, table in self._tables.items()}
        found = {name: np.empty(shape) for name, shape in shapes.items()}
        self.write_records(found, present)
        return found

    def write_records(
        self, into: Mapping[str, np.ndarray], present: Sequence[int] | None = None
    ) -> None:
        """Write what `trained_records` returns into arrays of the same shapes."""
        for name, place in self._direct.items():
            into[name][...] = place.get(self._all)
        tebd = into[_TYPE_EMBEDDING]
        tebd[...] = self._type_embedding()
        chosen = self._present(present)
        for net in self._strips:
            table = net.table(self._values(self._net_layers[net.record]), tebd[chosen])
            self._tables[net.record][_block(net, chosen)] = table
            into[net.record][...] = self._tables[net.record]

    def pull(
        self, gradients: Mapping[str, np.ndarray], present: Sequence[int] | None = None
    ) -> np.ndarray:
        """The gradient with respect to the flat vector, from that with respect to records.

        Parameters
        ----------
        gradients
            Name to an array with the shape of the record; a record that is left out has none.
            That of `type_embedding` is without what comes through strip tables, which is added.
        present
            The elements that occur; None: all. Gradients of strip tables for others don't count.

        Returns
        -------
        array
            float64, (size,).
        """
        total = np.empty(len(self._all))
        total[self._indirect] = 0
        for name in self._direct.keys() - gradients.keys():
            self._direct[name].set(total, 0)
        tebd = self._type_embedding()
        d_tebd = np.zeros_like(tebd)
        strips = {net.record: net for net in self._strips}
        chosen = self._present(present)
        for name, gradient in gradients.items():
            if name in self._direct:
                self._direct[name].set(total, gradient)
            elif name in strips:
                d_tebd[chosen] += self._pull_strip(
                    strips[name], gradient, tebd[chosen], chosen, total
                )
            elif name == _TYPE_EMBEDDING:
                d_tebd += gradient
            else:
                raise ValueError(f"{name} is no record that depends on parameters")
        layers = self._values(self._type_layers)
        found, _ = backward(layers, self._type_inputs, "linear", d_tebd)
        _add(total, self._type_layers, found)
        return total if self._whole else total[self._chosen]

    def _pull_strip(
        self,
        net: StripNet,
        gradient: np.ndarray,
        tebd: np.ndarray,
        chosen: np.ndarray,
        total: np.ndarray,
    ) -> np.ndarray:
        """Adds to `total`; returns the gradient with respect to the chosen type embeddings."""
        count, dim = tebd.shape
        inputs = net.inputs(tebd)
        rows = net.as_table(np.arange(len(inputs))[:, None], count)[..., 0]
        by_row = np.zeros((len(inputs), gradient.shape[-1]))
        by_row[rows] = gradient[_block(net, chosen)]
        index = self._net_layers[net.record]
        found, d_inputs = backward(self._values(index), inputs, net.block.activation, by_row)
        _add(total, index, found)
        places = net.inputs(np.arange(count * dim).reshape(count, dim))
        summed = np.bincount(places.ravel(), weights=d_inputs.ravel(), minlength=count * dim)
        return summed.reshape(count, dim)

    # ---- where things are

    def _trace(self, places: dict[str, Parameter]) -> None:
        """Find out which numbers of the parameters each record is made of."""
        indices = self.tensors | {
            name: _FIRST + np.arange(place.offset, place.end, dtype=float).reshape(place.shape)
            for name, place in places.items()
        }
        model = replace(  # float32 has no room for indices
            self.model,
            descriptor=replace(self.model.descriptor, precision="float64"),
            fitting=replace(self.model.fitting, precision="float64"),
        )
        weights = Weights(indices)
        with np.errstate(all="ignore"):
            records = build_records(model, weights)
        self._strips = strip_nets(self.model.descriptor)
        evaluated = {_TYPE_EMBEDDING, *(net.record for net in self._strips)}
        self._direct = {
            name: _Entries.of(_as_index(array))
            for name, array in records.items()
            if name not in evaluated and _is_traced(array)
        }
        direct = np.zeros(len(self._all), dtype=int)
        for place in self._direct.values():
            direct[place.index] += 1
        assert direct.max(initial=0) <= 1  # no number is in two records
        self._indirect = np.flatnonzero(direct == 0)
        scope = weights.scope("atomic_model").scope("descriptor")
        elements = self.model.elements
        self._type_inputs = type_inputs(self.model.descriptor, elements)
        self._type_layers = _index_layers(type_layers(self.model.descriptor, elements, scope))
        self._net_layers = {net.record: _index_layers(net.layers(scope)) for net in self._strips}

    def _values(self, layers: list[Layer]) -> list[Layer]:
        return [_each(layer, lambda index: self._all[index]) for layer in layers]

    def _type_embedding(self) -> np.ndarray:
        return evaluate(self._values(self._type_layers), self._type_inputs, "linear")

    def _present(self, present: Sequence[int] | None) -> np.ndarray:
        return np.arange(len(self.model.elements)) if present is None else np.unique(present)


def refuse_converted(path: Path) -> None:
    """Raise ModelError for a `.dpa2` file."""
    if path.suffix.lower() == ".dpa2":
        raise ModelError(
            f"{path}: a .dpa2 file holds what the tensors were evaluated to, which can't be "
            "trained; give the file that it was converted from."
        )


def _places(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Parameter]:
    """Tensors one after another."""
    offset = 0
    found = {}
    for name, shape in shapes.items():
        found[name] = Parameter(name, tuple(shape), offset)
        offset = found[name].end
    return found


def _trained(config: dict[str, Any]) -> Any:
    """Which tensors the configuration lets DeePMD-kit train, by name."""
    parts = {}
    for key in ("descriptor", "fitting_net"):
        value = config.get(key, {}).get("trainable", True)
        flags = value if isinstance(value, list) and key == "fitting_net" else [value]
        if not all(isinstance(flag, bool) for flag in flags):
            raise ModelError(
                f"The configuration has {key}.trainable = {value!r:.60}, which should be true or "
                "false (or, of the fitting net, a list of them)."
            )
        parts[f"atomic_model.{key}."] = all(flags)
    return lambda name: any(name.startswith(start) for start, flag in parts.items() if flag)


def _refuse_untrainable(source: Source) -> None:
    for name, tensor in source.tensors.items():
        if ("compress_data" in name or name.endswith("type_embd_data")) and 0 not in tensor.shape:
            raise UnsupportedModelError(
                f"The model is compressed (tensor {name!r}): its tables can't be trained; "
                "give the model that it was compressed from."
            )
        if name == _OLD_TYPES:
            raise UnsupportedModelError(
                "The model is from early 2024, when DeePMD-kit kept type embeddings in another "
                "form; it can be converted, but not trained."
            )


def _is_traced(array: Any) -> bool:
    return (
        isinstance(array, np.ndarray) and array.dtype.kind == "f" and bool((array >= _FIRST).all())
    )


@dataclass(frozen=True)
class _Entries:
    """Which entries of a vector an array is made of, each once."""

    index: np.ndarray
    steps: tuple[int, ...] | None  #: along each axis, where they are even: the array is a view

    @classmethod
    def of(cls, index: np.ndarray) -> _Entries:
        first = index.flat[0]
        steps = [
            int(np.take(index, 1, axis=axis).flat[0] - first) if size > 1 else 0
            for axis, size in enumerate(index.shape)
        ]
        even = first + np.tensordot(steps, np.indices(index.shape), 1)
        return cls(index, tuple(steps) if np.array_equal(even, index) else None)

    def get(self, vector: np.ndarray) -> np.ndarray:
        """The array: a view of the vector where it can be one."""
        if self.steps is None:
            return vector[self.index]
        size = vector.itemsize
        first, strides = self.index.flat[0] * size, [step * size for step in self.steps]
        return np.ndarray(self.index.shape, vector.dtype, vector, first, strides)

    def set(self, vector: np.ndarray, values: np.ndarray | float) -> None:
        """Replace these entries of the vector."""
        if self.steps is None:
            vector[self.index] = values
        else:
            self.get(vector)[...] = values


def _as_index(array: np.ndarray) -> np.ndarray:
    return (array - _FIRST).astype(np.int64)


def _each(layer: Layer, function: Any) -> Layer:
    w, b, idt = (None if array is None else function(array) for array in layer)
    assert w is not None
    return w, b, idt


def _index_layers(layers: list[Layer]) -> list[Layer]:
    return [_each(layer, _as_index) for layer in layers]


def _add(total: np.ndarray, places: list[Layer], layers: list[Layer]) -> None:
    """Add the gradients of a net's layers to where its numbers are."""
    for where, layer in zip(places, layers, strict=True):
        for index, array in zip(where, layer, strict=True):
            if index is not None:
                total[index] += array


def _block(net: StripNet, chosen: np.ndarray) -> Any:
    """The entries of the net's table for the chosen elements."""
    return (slice(None), chosen) if net.one_side else np.ix_(chosen, chosen)
