"""Converting DeePMD-kit's model files to ``.dpa2``.

Nothing in a model file is executed, and neither DeePMD-kit nor torch is needed. Every key of the
configuration and every tensor is either used or known to be harmless; otherwise the model is
refused by name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np

from .base.files import sha256
from .errors import ModelError
from .importer.config import observed_types, read_config
from .importer.contents import Source
from .importer.elements import keep_elements
from .importer.exportable import refuse_cut_exclusions
from .importer.records import build_records
from .importer.source import named_file, open_source
from .importer.weights import Weights
from .model_file import Record, is_model_file, read_model, write_model

_NO_BIAS = 1e-6  # eV; DeePMD-kit's own bound


def convert(
    source: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    head: str | None = None,
    elements: Sequence[str] | None = None,
    all_neighbors: bool = False,
) -> Path:
    """Convert a model file of DeePMD-kit to ``.dpa2``.

    Parameters
    ----------
    source
        A ``.pt``, ``.pth``, ``.pt2``, ``.pte``, ``.dp`` or ``.yaml`` file (or a ``.dpa2`` file,
        to keep fewer elements or to take all neighbours).
    output
        The file to write; default: `source` with the extension ``.dpa2``.
    head
        Which head of a multi-task model; its name in any case, or an alias.
    elements
        Keep only these elements, in this order.
    all_neighbors
        Take every neighbour within the cutoffs into account instead of the nearest `sel`, so
        that the energy stays continuous where lists would overflow. Where none does, nothing
        changes. Files that DeePMD-kit itself evaluates so are of this kind without being asked.

    Returns
    -------
    Path
        The file written; it appears under its name only when it is complete.

    Raises
    ------
    ModelError
        When the file is damaged, malicious, or describes something that dpa2md can't compute.
    OSError
        When a file can't be read or written.
    """
    source = Path(source)
    output = source.with_suffix(".dpa2") if output is None else Path(output)
    if output.exists() and output.samefile(source):
        raise ModelError(f"{source}: the output would replace the source; name another output.")
    write_model(output, load_records(source, head, elements, all_neighbors))
    return output


def list_heads(source: str | os.PathLike) -> list[str]:
    """The heads of a multi-task model file; an empty list for a model with a single head.

    Raises
    ------
    ModelError
        When the file is damaged, malicious, or no model file.
    OSError
        When the file can't be read.
    """
    source = Path(source)
    if is_model_file(source):
        return []
    with named_file(source), open_source(source) as contents:
        return list(contents.heads)


def load_records(
    source: str | os.PathLike,
    head: str | None = None,
    elements: Sequence[str] | None = None,
    all_neighbors: bool = False,
) -> dict[str, Record]:
    """The records of a model file of any supported format, as docs/model-format.md lists them.

    Parameters
    ----------
    source
        A ``.dpa2`` file, or a model file of DeePMD-kit.
    head
        Which head of a multi-task model.
    elements
        Keep only these elements, in this order.
    all_neighbors
        As a model that takes all neighbours within the cutoffs, whatever the file says.

    Returns
    -------
    dict
        Name to text, number or array; lengths in angstrom, energies in eV.

    Raises
    ------
    ModelError
        When the file is damaged, malicious, or describes something that dpa2md can't compute.
    OSError
        When the file can't be read.
    """
    source = Path(source)
    if is_model_file(source):
        records = read_model(source)
        with named_file(source):
            if head is not None:
                raise ModelError(f"A .dpa2 file has a single head, so leave out --head {head}.")
    else:
        with named_file(source), open_source(source) as contents:
            chosen = contents.choose(head)
            model = read_config(chosen.config)
            if chosen.exportable and not (chosen.all_neighbors or all_neighbors):
                refuse_cut_exclusions(model)
            records = _meta(source, chosen) | build_records(
                model, Weights(chosen.tensors), chosen.all_neighbors
            )
    if all_neighbors:
        records["model.all_neighbors"] = 1
    if elements is not None:
        with named_file(source):
            records = keep_elements(records, list(elements))
    return records


def trained_elements(records: Mapping[str, Record]) -> list[str] | None:
    """The elements of a model that its training data had, by DeePMD-kit's note; None: not known.

    Models of DeePMD-kit before 3.2 have no note of it: then those with an energy of their own, as it judges.
    """
    elements = str(records["model.elements"]).split("\n")
    note = records.get("meta.observed_types")
    if isinstance(note, str):
        observed = note.split("\n")
        return [name for name in elements if name in observed]
    bias = np.abs(np.ravel(records["fitting.out_bias"])) > _NO_BIAS
    return [name for name, has in zip(elements, bias, strict=True) if has] if bias.any() else None


def _meta(path: Path, source: Source) -> dict[str, Record]:
    try:
        version = import_module("._core", __package__).__version__
    except ImportError:  # run from a source tree without the compiled core
        version = "unknown"
    meta: dict[str, Record] = {
        # a name on disk may be no text
        "meta.source": os.fsencode(path.name).decode("utf-8", "replace"),
        "meta.source_sha256": sha256(path),
        "meta.converter": version,
        "meta.config": json.dumps(source.config),
    }
    if source.head is not None:
        meta["meta.head"] = source.head
    if observed := observed_types(source.config):
        meta["meta.observed_types"] = "\n".join(observed)
    return meta
