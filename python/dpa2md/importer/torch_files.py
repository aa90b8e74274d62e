"""The files of DeePMD-kit's PyTorch backend: `.pt` training checkpoints, `.pth` frozen models."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ..errors import ModelError, UnsupportedModelError
from .contents import Contents, Source
from .exportable import in_common_names, is_exportable, takes_all_neighbors
from .keys import plain
from .old_files import modernise
from .torch_zip import Tensor, TorchZip
from .unpickle import ScriptObject, read_pickle

MAX_CONFIG_ENTRIES = 300_000
_MAX_ATTRIBUTES = 500_000
_ENERGY_MODEL = "deepmd.pt.model.model.ener_model.EnergyModel"
_SHARED = ("type_map", "descriptor", "fitting_net")


@contextmanager
def read_checkpoint(path: Path) -> Iterator[Contents]:
    """A `.pt` file: the state of a training run, with one or several heads."""
    with closing(TorchZip(path)) as archive:
        state = read_pickle(archive)
        if isinstance(state, ScriptObject):
            raise ModelError("The file is a frozen model; give it the extension .pth.")
        takes_all = _trained_with_all_neighbors(state)
        if isinstance(state, dict) and isinstance(state.get("model"), dict):
            state = state["model"]
        extra = state.get("_extra_state") if isinstance(state, dict) else None
        if not isinstance(extra, dict) or not isinstance(extra.get("model_params"), dict):
            raise ModelError(
                "The file has no configuration of a model (_extra_state, model_params); "
                "it is not a training checkpoint of DeePMD-kit."
            )
        params = plain(extra["model_params"], MAX_CONFIG_ENTRIES)
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        if "model_dict" in params:
            yield _heads(params, tensors, takes_all)
        else:
            yield Contents(single=_source(params, tensors, "Default", None, takes_all))


def _trained_with_all_neighbors(state: Any) -> frozenset[str]:
    """Heads that take every neighbour, in a checkpoint of dpa2md's own training (train/checkpoint.py)."""
    own = state.get("dpa2md") if isinstance(state, dict) else None
    heads = own.get("all_neighbors") if isinstance(own, dict) else None
    return (
        frozenset(n for n in heads if isinstance(n, str))
        if isinstance(heads, list)
        else frozenset()
    )


def _heads(
    params: dict[str, Any], tensors: dict[str, Tensor], takes_all: frozenset[str]
) -> Contents:
    """The heads of a multi-task model."""
    branches, shared = params["model_dict"], params.get("shared_dict", {})
    if not isinstance(branches, dict) or not isinstance(shared, dict):
        raise ModelError("The configuration's model_dict or shared_dict is no dictionary.")
    defaults = {k: v for k, v in params.items() if k not in ("model_dict", "shared_dict")}
    heads: dict[str, Source] = {}
    aliases: dict[str, str] = {}
    for name, branch in branches.items():
        if not isinstance(branch, dict):
            raise ModelError(f"The configuration of the head {name!r} is no dictionary.")
        config = defaults | branch
        for key in _SHARED:
            value = config.get(key)
            if isinstance(value, str):  # "name" or "name:level" of a shared entry
                entry = value.split(":")[0]
                if entry not in shared:
                    raise ModelError(f"The head {name!r} refers to {value!r}, which is not shared.")
                config[key] = shared[entry]
        heads[name] = _source(config, tensors, name, name, takes_all)
        listed = branch.get("model_branch_alias") or []
        if not isinstance(listed, list) or not all(isinstance(alias, str) for alias in listed):
            raise ModelError(f"The aliases of the head {name!r} are no list of names; refused.")
        aliases |= dict.fromkeys(listed, name)
    return Contents(heads=heads, aliases=aliases)


def _source(
    config: dict[str, Any],
    tensors: dict[str, Tensor],
    key: str,
    head: str | None,
    takes_all: frozenset[str],
) -> Source:
    prefix = f"model.{key}."
    own = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    if not is_exportable(own):
        return Source(*modernise(config, own), head, all_neighbors=key in takes_all)
    named = modernise(config, in_common_names(own))
    return Source(*named, head, exportable=True, all_neighbors=takes_all_neighbors(config, own))


@contextmanager
def read_script(path: Path) -> Iterator[Contents]:
    """A `.pth` file: a frozen TorchScript model, whose code is not looked at."""
    with closing(TorchZip(path)) as archive:
        root = read_pickle(archive)
        if not isinstance(root, ScriptObject):
            raise ModelError("The file is not a frozen model; a checkpoint's extension is .pt.")
        class_name = re.sub(r"\.___torch_mangle_\d+", "", root.class_name)
        if class_name != _ENERGY_MODEL:
            raise UnsupportedModelError(
                f"The frozen model is a {class_name:.100}, and only DeePMD-kit's plain energy "
                "models are supported (no spin, no ZBL table, no linear combination)."
            )
        script = root.attributes.get("model_def_script")
        if not isinstance(script, str):
            raise ModelError("The frozen model has no model_def_script; freeze it again.")
        config = plain(_parse_json(script, "model_def_script"), MAX_CONFIG_ENTRIES)
        if not isinstance(config, dict):
            raise ModelError("The frozen model's model_def_script is no dictionary.")
        yield Contents(single=Source(*modernise(config, _module_tensors(root)), None))


def _module_tensors(root: ScriptObject) -> dict[str, Tensor]:
    """All tensors of a tree of modules, named by the path of attributes."""
    tensors: dict[str, Tensor] = {}
    pending = [("", root)]
    count = 0
    while pending:
        prefix, module = pending.pop()
        for name, value in module.attributes.items():
            count += 1
            if count > _MAX_ATTRIBUTES or prefix.count(".") > 50:
                raise ModelError("The frozen model's modules are nested without end; refused.")
            if isinstance(value, Tensor):
                tensors[prefix + name] = value
            elif isinstance(value, ScriptObject):
                pending.append((f"{prefix}{name}.", value))
    return tensors


def _parse_json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ModelError(f"The file's {what} is not valid JSON; the file is damaged.") from None
