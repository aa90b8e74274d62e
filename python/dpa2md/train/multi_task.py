"""Models of several heads, which share tensors: one flat vector that holds each of them once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import ModelError
from ..importer.contents import Source
from ..importer.source import named_file, open_source
from ..importer.torch_zip import Tensor
from .initial import initial_tensors
from .parameters import Parameter, TrainableModel

Place = tuple[str, str]  # a head and the name of one of its tensors

_OWN_OF_FITTING = ("bias_atom_e", "case_embd", "default_fparam_tensor")


class SharedPart(Protocol):
    """A part of a head's model that other heads have, too."""

    @property
    def task(self) -> str:
        """The head."""

    @property
    def part(self) -> str:
        """`descriptor` or `fitting_net`."""

    @property
    def name(self) -> str:
        """What it is called in the `shared_dict`."""

    @property
    def level(self) -> int:
        """0: the whole part (but a fitting net's energy bias); 1: the type embedding."""


class MultiTaskModel:
    """The heads of a multi-task model.

    Attributes
    ----------
    params
        The configuration of all heads as a checkpoint carries it: `shared_dict` and `model_dict`
        with every head's configuration written out.
    heads
        Each head's model. Their parameters are kept equal by `set_flat`; statistics that heads
        share are the same array.
    parameters
        The tensors that are trained, each once, by the name `<head>.<name>` of its first owner.
    size
        The length of the flat vector.
    indices
        Of each head: where the entries of its own flat vector are in that of all.
    """

    def __init__(
        self,
        params: dict[str, Any],
        heads: Mapping[str, TrainableModel],
        links: Mapping[Place, Place],
    ):
        """`links`: the tensors that are those of another head, with their owner."""
        self.params = params
        self.heads = dict(heads)
        self.links = dict(links)
        for (head, name), (owner, same) in links.items():
            mine, theirs = heads[head].tensors, heads[owner].tensors
            if mine[name].shape != theirs[same].shape:
                raise ModelError(
                    f"The heads {owner!r} and {head!r} share the tensor {name!r} and have "
                    f"different shapes of it, {theirs[same].shape} and {mine[name].shape}."
                )
        self._number()
        self.set_flat(self.flat())  # shared parameters: those of the first owner
        for (head, name), (owner, same) in links.items():
            if name not in {p.name for p in heads[head].parameters}:
                heads[head].tensors[name] = heads[owner].tensors[same]

    @classmethod
    def initial(
        cls,
        configs: Mapping[str, dict[str, Any]],
        shares: Sequence[SharedPart],
        seed: int,
        shared: Mapping[str, Any] | None = None,
    ) -> MultiTaskModel:
        """Models that were never trained.

        Parameters
        ----------
        configs
            The complete `model` section of each head.
        shares
            The parts that heads have in common, those with the lowest level first: the first head
            of a name owns the tensors.
        seed
            As for `initial_tensors`.
        shared
            The `shared_dict` of the input, which checkpoints keep.

        Raises
        ------
        ModelError
            When a configuration describes no model that dpa2md can compute, or the heads' case
            embeddings don't fit together.
        """
        dims = {c.get("fitting_net", {}).get("dim_case_embd", 0) for c in configs.values()}
        if len(dims) > 1:
            raise ModelError("The heads differ in dim_case_embd; give all of them the same one.")
        heads = {}
        for head, config in configs.items():
            tensors = initial_tensors(config, seed, head)
            if dims != {0}:  # DeePMD-kit tells the heads apart by their alphabetical place
                _set_case(tensors, sorted(configs).index(head), head)
            heads[head] = TrainableModel(config, tensors, head)
        params = {"shared_dict": dict(shared or {}), "model_dict": dict(configs)}
        return cls(params, heads, _links(heads, shares))

    @classmethod
    def read(cls, path: str | PathLike) -> MultiTaskModel:
        """All heads of a multi-task checkpoint (`.pt`); tensors are shared as they are in the file.

        Raises
        ------
        ModelError
            As `TrainableModel.read`, or when the file has a single head.
        """
        path = Path(path)
        with named_file(path), open_source(path) as contents:
            if not contents.heads:
                raise ModelError("The file has no several heads; train it as a single model.")
            heads = {name: TrainableModel.from_source(s) for name, s in contents.heads.items()}
            links = _stored_links(heads, contents.heads)
        configs = {name: model.config for name, model in heads.items()}
        return cls({"shared_dict": {}, "model_dict": configs}, heads, links)

    def flat(self) -> np.ndarray:
        """All trained numbers, float64 (size,): a copy."""
        vector = np.empty(self.size)
        for head in reversed(self.heads):  # the first owner counts
            vector[self.indices[head]] = self.heads[head].flat()
        return vector

    def set_flat(self, vector: np.ndarray) -> None:
        """Replace all trained numbers of all heads by `vector`, (size,)."""
        for head, model in self.heads.items():
            model.set_flat(vector[self.indices[head]])

    def pull(
        self,
        head: str,
        gradients: Mapping[str, np.ndarray],
        present: Sequence[int] | None = None,
    ) -> np.ndarray:
        """As `TrainableModel.pull` of one head: (size,), zero for what is only other heads'."""
        total = np.zeros(self.size)
        total[self.indices[head]] = self.heads[head].pull(gradients, present)
        return total

    def _number(self) -> None:
        places: dict[Place, Parameter] = {}
        self.size = 0
        self.indices: dict[str, np.ndarray] = {}
        for head, model in self.heads.items():
            parts = [np.zeros(0, dtype=np.int64)]
            for own in model.parameters:
                owner = self.links.get((head, own.name), (head, own.name))
                if owner not in places:
                    places[owner] = Parameter(f"{owner[0]}.{owner[1]}", own.shape, self.size)
                    self.size = places[owner].end
                parts.append(np.arange(places[owner].offset, places[owner].end))
            self.indices[head] = np.concatenate(parts)
        self.parameters = tuple(places.values())


def _links(heads: Mapping[str, TrainableModel], shares: Sequence[SharedPart]) -> dict[Place, Place]:
    owners: dict[tuple[str, str], str] = {}
    links: dict[Place, Place] = {}
    for share in shares:
        owner = owners.setdefault((share.part, share.name), share.task)
        if owner == share.task:
            continue
        for name in heads[share.task].tensors:
            if _is_shared(name, share.part, share.level):
                links[share.task, name] = (owner, name)
    return links


def _is_shared(name: str, part: str, level: int) -> bool:
    """Whether DeePMD-kit shares a tensor of the descriptor or fitting net at a level."""
    start = f"atomic_model.{part}."
    if not name.startswith(start):
        return False
    inner = name.removeprefix(start)
    if part == "fitting_net":
        return inner not in _OWN_OF_FITTING
    if level == 1:
        return inner.startswith("type_embedding.")
    return not inner.startswith("tebd_transform.")  # which it forgets


def _stored_links(
    heads: Mapping[str, TrainableModel], sources: Mapping[str, Source]
) -> dict[Place, Place]:
    """Tensors of different heads that are the same bytes of the file."""
    owners: dict[Any, Place] = {}
    links: dict[Place, Place] = {}
    for head, source in sources.items():
        for name, tensor in source.tensors.items():
            if not isinstance(tensor, Tensor) or name not in heads[head].tensors:
                continue
            where = (tensor.storage.key, tensor.offset, tensor.shape, tensor.stride)
            owner = owners.setdefault(where, (head, name))
            if owner[0] != head:
                links[head, name] = owner
    return links


def _set_case(tensors: dict[str, np.ndarray], place: int, head: str) -> None:
    embedding = tensors["atomic_model.fitting_net.case_embd"]
    if place >= len(embedding):
        raise ModelError(
            f"dim_case_embd = {len(embedding)} is less than the number of heads (head {head!r}); "
            "give it the number of heads."
        )
    embedding[:] = 0.0
    embedding[place] = 1.0
