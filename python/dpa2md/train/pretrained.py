"""What a fine-tuning takes of a pretrained model: which head for which task, and model sections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import HeadError
from ..importer.contents import Contents, Source
from ..importer.keys import first_lines
from ..importer.source import named_file, open_source
from .model_settings import SHAREABLE, SINGLE
from .parameters import TrainableModel, refuse_converted
from .sections import table
from .type_maps import config_with_elements

RANDOM = "RANDOM"  # DeePMD-kit's name of a fitting net that is new
# What DeePMD-kit's classes are given besides the keys of an input; .dp and .yaml files repeat it.
_ARGUMENTS = {
    "descriptor": ("ntypes", "type_map"),
    "fitting_net": ("ntypes", "type_map", "var_name", "dim_descrpt", "dim_out", "mixed_types"),
}
# Of the pretrained model's own training, or of its place beside other heads.
_OWN = ("info", "resuming", "new_type_stat", "finetune_head", "model_branch_alias")


@dataclass(frozen=True)
class Choice:
    """What a task starts from."""

    head: str | None  #: of the pretrained model; None: it has a single one
    new_fitting: bool = False  #: only the descriptor is taken
    resumed: bool = False  #: the task goes on as it was, with its energy bias


@dataclass(frozen=True)
class Origin:
    """The same, read."""

    model: TrainableModel
    choice: Choice


def read_origins(
    file: str, wanted: Mapping[str, str | None], multi_task: bool
) -> dict[str, Origin]:
    """The models that tasks start from.

    Parameters
    ----------
    file
        The pretrained model.
    wanted
        Each task's `finetune_head`; None: not given.
    multi_task
        Whether the tasks have names.

    Raises
    ------
    ModelError
        When the file can't be used, or has no such head.
    OSError
        When it can't be read.
    """
    models: dict[str | None, TrainableModel] = {}
    origins = {}
    with _opened(file) as contents:
        for task, head in wanted.items():
            choice = _choose(contents, task if multi_task else None, head)
            if choice.head not in models:
                models[choice.head] = TrainableModel.from_source(contents.choose(choice.head))
            origins[task] = Origin(models[choice.head], choice)
    return origins


def pretrained_config(file: str, head: str | None) -> dict[str, Any]:
    """The model section of one head, without notes about its data.

    Parameters
    ----------
    head
        None: the only one; RANDOM: the first.

    Raises
    ------
    ModelError
        When the file can't be used, or needs a head.
    OSError
        When it can't be read.
    """
    with _opened(file) as contents:
        return _section(contents.choose(_choose(contents, None, head).head))


def merged_section(file: str, head: str | None, given: Any) -> dict[str, Any]:
    """An input's model section with descriptors and fitting nets of a pretrained model.

    As in DeePMD-kit, other keys that the input has stay, its type map among them, and so does a
    fitting net that is to be new. What the input leaves out is the pretrained model's.

    Parameters
    ----------
    head
        Of the pretrained model, for a single task; None: as `given` says.
    given
        The input's section as it was read; it may be empty.

    Raises
    ------
    InputError, ModelError
        When file and section don't fit together; one sentence.
    OSError
        When the file can't be read.
    """
    given = deepcopy(table(given, "model"))
    with _opened(file) as contents:
        if "model_dict" not in given:
            choice = _choose(contents, None, head or given.get("finetune_head"))
            return _merged(given, contents, choice, given.get("type_map"))
        return _merged_tasks(given, contents)


def _merged_tasks(section: dict[str, Any], contents: Contents) -> dict[str, Any]:
    """Of several tasks. Entries of the `shared_dict` are those of the first task that names them."""
    tasks = table(section["model_dict"], "model.model_dict")
    shared = table(section.setdefault("shared_dict", {}), "model.shared_dict")
    defaults = {k: v for k, v in section.items() if k not in ("model_dict", "shared_dict")}
    done: set[str] = set()
    for task in tasks:
        given = defaults | table(tasks[task], f"model.model_dict.{task}")
        choice = _choose(contents, task, given.get("finetune_head"))
        type_map = given.get("type_map")
        type_map = shared.get(type_map) if isinstance(type_map, str) else type_map
        merged = _merged(given, contents, choice, type_map)
        for part in SHAREABLE:
            reference = given.get(part)
            if not isinstance(reference, str) or merged[part] == reference:
                continue
            entry = reference.partition(":")[0]
            if entry not in done:
                shared[entry] = merged[part]
                done.add(entry)
            merged[part] = reference
        tasks[task] = merged
    return section


def _merged(
    given: Mapping[str, Any], contents: Contents, choice: Choice, type_map: Any
) -> dict[str, Any]:
    config = _section(contents.choose(choice.head))
    if isinstance(type_map, list) and type_map != config["type_map"]:
        config = config_with_elements(config, type_map)
    taken = ("descriptor",) if choice.new_fitting else ("descriptor", "fitting_net")
    return config | {key: value for key, value in given.items() if key not in taken}


def _choose(contents: Contents, task: str | None, wanted: str | None) -> Choice:
    """DeePMD-kit's rules; `task` is None where the input has a single one."""
    names = list(contents.heads) or [SINGLE]
    resumed = wanted is None and task in names
    if resumed:
        wanted = task
    elif task is not None and wanted is None:
        wanted = RANDOM
    if wanted == RANDOM:
        return Choice(names[0] if contents.heads else None, new_fitting=True)
    if wanted is None or (contents.single is not None and wanted == SINGLE):
        return Choice(None, resumed=resumed)
    try:
        return Choice(contents.choose(wanted).head, resumed=resumed)
    except HeadError:
        if task is None:
            raise
        raise HeadError(
            f"There is no head {wanted!r:.60}, which the task {task} has as finetune_head; the "
            f"heads are {first_lines(names)}, and RANDOM is a new one."
        ) from None


@contextmanager
def _opened(file: str) -> Iterator[Contents]:
    path = Path(file)
    refuse_converted(path)
    with named_file(path), open_source(path) as contents:
        yield contents


def _section(source: Source) -> dict[str, Any]:
    out = {key: value for key, value in source.config.items() if key not in _OWN}
    for part, arguments in _ARGUMENTS.items():
        if isinstance(section := out.get(part), dict):
            out[part] = {
                k: v for k, v in section.items() if k not in arguments and not _unset(k, v)
            }
    fitting = out.get("fitting_net")
    if isinstance(fitting, dict) and fitting.get("exclude_types") == out.get("atom_exclude_types"):
        fitting.pop("exclude_types", None)  # the same once more
    return out


def _unset(key: str, value: Any) -> bool:
    """Whether a key of a file says that there is nothing, as an input does by leaving it out."""
    return value is None or (key in ("exclude_types", "tot_ener_zero") and not value)
