"""Models of several heads, which share tensors: one flat vector that holds each of them once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelError
from ..importer.contents import Source
from ..importer.source import named_file, open_source
from ..importer.torch_zip import Tensor
from .initial import initial_tensors
from .parameters import Parameter, TrainableModel

Place = tuple[str, str]  # a head and the name of one of its tensors

_PARTS = ("descriptor", "fitting_net")
_OWN_OF_FITTING = ("bias_atom_e", "case_embd", "default_fparam_tensor")


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
                self._share(head, name, owner, same)

    @classmethod
    def initial(cls, params: dict[str, Any], seed: int) -> MultiTaskModel:
        """Models that were never trained.

        Parameters
        ----------
        params
            The `model` section of a multi-task training input: `shared_dict`, and `model_dict`
            with names of shared entries (`"name"` or `"name:level"`) or own configurations.
        seed
            As for `initial_tensors`.

        Raises
        ------
        ModelError
            When a head names something that is not shared, or at a level that is unknown.
        """
        configs, groups = expand(params)
        dims = {c.get("fitting_net", {}).get("dim_case_embd", 0) for c in configs.values()}
        if len(dims) > 1:
            raise ModelError("The heads differ in dim_case_embd; give all of them the same one.")
        heads = {}
        for place, head in enumerate(sorted(configs)):
            tensors = initial_tensors(configs[head], seed, head)
            if dims != {0}:  # DeePMD-kit tells the heads apart by their alphabetical place
                _set_case(tensors, place, head)
            heads[head] = TrainableModel(configs[head], tensors, head)
        heads = {head: heads[head] for head in configs}
        written_out = {"shared_dict": params.get("shared_dict", {}), "model_dict": configs}
        return cls(written_out, heads, _links(heads, groups))

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

    def _share(self, head: str, name: str, owner: str, same: str) -> None:
        self.heads[head].tensors[name] = self.heads[owner].tensors[same]


def expand(
    params: dict[str, Any],
) -> tuple[dict[str, dict[str, Any]], dict[tuple[str, str], list[tuple[int, str]]]]:
    """Write out what heads share.

    Returns
    -------
    dict, dict
        Head to its configuration; (part, shared name) to the heads that refer to it, each with its
        level, the lowest level first: that head owns the tensors.
    """
    shared, branches = params.get("shared_dict", {}), params["model_dict"]
    defaults = {k: v for k, v in params.items() if k not in ("model_dict", "shared_dict")}
    configs: dict[str, dict[str, Any]] = {}
    groups: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for head, branch in branches.items():
        config = defaults | branch
        for part in ("type_map", *_PARTS):
            if not isinstance(config.get(part), str):
                continue
            name, _, level = config[part].partition(":")
            known = ("0", "1", "") if part == "descriptor" else ("0", "")
            if name not in shared or level not in known:
                raise ModelError(
                    f"The head {head!r} has {part} = {config[part]!r}, which is not in "
                    "shared_dict, or at a level that DeePMD-kit does not share at."
                )
            config[part] = shared[name]
            if part in _PARTS:
                groups.setdefault((part, name), []).append((int(level or 0), head))
        configs[head] = config
    for group in groups.values():
        group.sort(key=lambda entry: entry[0])
    return configs, groups


def _links(
    heads: Mapping[str, TrainableModel], groups: Mapping[tuple[str, str], list[tuple[int, str]]]
) -> dict[Place, Place]:
    links: dict[Place, Place] = {}
    for (part, _), ((_, owner), *others) in groups.items():
        for level, head in others:
            for name in heads[head].tensors:
                if _is_shared(name, part, level):
                    links[head, name] = (owner, name)
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
