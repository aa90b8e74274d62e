"""DeePMD-kit's backend-independent files: one tree of dictionaries with arrays in its leaves.

`.dp` keeps the tree as JSON in an HDF5 attribute and the arrays as datasets, `.yaml` is the tree
as text, `.pt2` and `.pte` have it as JSON beside compiled code, which is not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelError, UnsupportedModelError
from .contents import Contents
from .exportable import exported_for_all_neighbors
from .keys import MAX_DEPTH, plain
from .torch_zip import TorchZip
from .tree import tree_source

_DTYPES = ("float64", "float32", "int64", "int32", "bool")


@contextmanager
def read_hdf5(path: Path) -> Iterator[Contents]:
    """A `.dp` file."""
    try:
        import h5py
    except ImportError:
        raise ModelError("Reading a .dp file needs the Python package h5py; install it.") from None
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs["json"]
            tree = _from_json(text if isinstance(text, str) else str(text, "utf-8"))
            size = path.stat().st_size
            tree = _fill(tree, lambda name: _dataset(h5py, file, name, size))
    except (OSError, KeyError, RuntimeError, TypeError, UnicodeError) as error:
        raise ModelError(
            f"The file is not a .dp file of DeePMD-kit, or it is damaged ({error})."
        ) from None
    yield Contents(single=tree_source(tree))


def _dataset(h5py: Any, file: Any, name: Any, file_size: int) -> np.ndarray:
    """One array; only what lies in this file, at full length and uncompressed."""
    if not isinstance(name, str) or "/" in name.removeprefix("/"):
        raise ModelError(f"The file refers to the array {name!r:.60}, which can't be; refused.")
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ModelError(f"The array {name!r:.60} is missing or outside the file; refused.")
    dataset = file[name]
    if (
        not isinstance(dataset, h5py.Dataset)
        or dataset.is_virtual
        or dataset.external
        or dataset.chunks is not None
        or dataset.dtype.name not in _DTYPES
        or dataset.nbytes > file_size
    ):
        raise ModelError(f"The array {name!r:.60} has an unusual form or size; refused.")
    return dataset[()] if dataset.shape else np.array(dataset[()])


@contextmanager
def read_yaml(path: Path) -> Iterator[Contents]:
    """A `.yaml` file."""
    try:
        import yaml
    except ImportError:
        raise ModelError(
            "Reading a .yaml model needs the Python package pyyaml; install it."
        ) from None
    try:
        with open(path, encoding="utf-8") as file:
            tree = _yaml_tree(yaml, file)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError("The file is not valid YAML; it is damaged.") from None
    # an alias can repeat a part of the tree, which real files do for short lists only
    tree = plain(tree, path.stat().st_size + 100_000)
    yield Contents(single=tree_source(_fill(tree, None)))


def _yaml_tree(yaml: Any, file: Any) -> Any:
    """Build the tree from the parser's events: no tags, no objects, no deep recursion."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    resolver = yaml.SafeLoader("")
    stack: list[Any] = [[]]
    keys: list[Any] = [None]
    anchors: dict[str, Any] = {}

    def add(value: Any) -> None:
        top = stack[-1]
        if isinstance(top, list):
            top.append(value)
        elif keys[-1] is None:
            if not isinstance(value, str):
                raise ModelError("The file has a key that is no text; refused.")
            keys[-1] = value
        else:
            top[keys[-1]] = value
            keys[-1] = None

    for event in yaml.parse(file, Loader=loader):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            if event.tag is not None or len(stack) > MAX_DEPTH:
                raise ModelError("The file has a YAML tag or is nested too deeply; refused.")
            value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
            if event.anchor is not None:
                anchors[event.anchor] = value
            add(value)
            stack.append(value)
            keys.append(None)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            stack.pop()
            keys.pop()
        elif isinstance(event, yaml.ScalarEvent):
            add(_yaml_scalar(yaml, resolver, event))
        elif isinstance(event, yaml.AliasEvent):
            add(anchors.get(event.anchor))
    if len(stack[0]) != 1:
        raise ModelError("The file does not hold one YAML document; it is damaged.")
    return stack[0][0]


def _yaml_scalar(yaml: Any, resolver: Any, event: Any) -> Any:
    if event.tag is not None:
        raise ModelError(f"The file has the YAML tag {event.tag!r:.60}; refused.")
    if not event.implicit[0]:  # quoted
        return event.value
    tag = resolver.resolve(yaml.ScalarNode, event.value, (True, False)).rsplit(":", 1)[-1]
    if tag in ("int", "float", "bool", "null"):
        node = yaml.ScalarNode(f"tag:yaml.org,2002:{tag}", event.value)
        return getattr(resolver, f"construct_yaml_{tag}")(node)
    return event.value


@contextmanager
def read_exported(path: Path) -> Iterator[Contents]:
    """A `.pt2` or `.pte` file, of which only JSON is read; DeePMD-kit puts that of a `.pt2` beside torch's folder."""
    with closing(TorchZip(path, beside="model")) as archive:
        weights, about = (
            str(archive.read(name), "utf-8", "replace") if name in archive.names() else None
            for name in ("extra/model.json", "extra/metadata.json")
        )
    if weights is None:
        raise UnsupportedModelError(
            f"The {path.suffix.lower()} file holds no weights outside its compiled code; "
            "convert the checkpoint or the .pth file that it was made from."
        )
    source = tree_source(_fill(_from_json(weights), None))
    metadata = None if about is None else _from_json(about)
    takes_all = exported_for_all_neighbors(metadata)
    yield Contents(single=replace(source, exportable=True, all_neighbors=takes_all))


def _from_json(text: str) -> dict[str, Any]:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        raise ModelError("The model in the file is not valid JSON; it is damaged.") from None
    # plain text can't share entries, so the number of them is bounded by its length
    return plain(tree, len(text) + 1)


def _fill(tree: Any, fetch: Any) -> Any:
    """Put arrays where the tree refers to them: below "@variables", by name or written out."""

    def visit(value: Any, variable: bool) -> Any:
        if isinstance(value, dict) and value.get("@class") == "np.ndarray":
            return _array(value)
        if isinstance(value, dict):
            return {
                key: visit(entry, variable or key == "@variables") for key, entry in value.items()
            }
        if isinstance(value, list):
            return [visit(entry, variable) for entry in value]
        return fetch(value) if variable and fetch and value is not None else value

    return visit(tree, False)


def _array(node: dict[str, Any]) -> np.ndarray:
    dtype = node.get("dtype")
    if dtype not in _DTYPES:
        raise ModelError(f"The file has an array of the type {dtype!r:.40}; refused.")
    try:
        return np.array(node.get("value"), dtype=dtype)
    except (ValueError, TypeError, OverflowError):
        raise ModelError("The file has an array that is not rectangular; it is damaged.") from None
