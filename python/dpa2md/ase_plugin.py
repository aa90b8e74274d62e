"""What ASE finds by name where dpa2md is installed; the entry points of pyproject.toml lead here.

ASE loads this with its readers, so that nothing heavy may be imported before it is used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ase.calculators.calculator import external_calculators
from ase.utils.plugins import ExternalIOFormat

if TYPE_CHECKING:
    from ase import Atoms

    from .calculator import DPA2Calculator

#: ``ase.io.read(folder, format="deepmd-npy")``
npy_format = ExternalIOFormat(desc="DeePMD-kit npy system", code="+S", module="dpa2md.ase_plugin")


def read_deepmd_npy(name: str | os.PathLike, index: int | slice) -> list[Atoms]:
    """Structures of a folder in DeePMD-kit's npy format, see `deepmd_data.read_folder`."""
    from pathlib import Path

    from .deepmd_data import read_folder

    frames = read_folder(Path(name))
    return frames[index] if isinstance(index, slice) else [frames[index]]


def dpa2(path: str = "water", **options: Any) -> DPA2Calculator:
    """The calculator by the name that ASE's commands take: ``ase run dpa2 h2o.xyz -p path=model.dpa2``.

    `path` may be "water", the shipped model; `options` are those of `DPA2Calculator`.
    """
    from .calculator import DPA2Calculator

    return DPA2Calculator(path, **options)


dpa2.nolabel = True  # type: ignore[attr-defined]  # there are no files that a label would name
external_calculators.setdefault("dpa2", dpa2)  # type: ignore[arg-type]  # as ASE calls it, no class is needed


def _plugins() -> set[Any]:
    try:
        from ase._4.plugins.plugin import CalculatorPlugin  # since ASE 3.29
    except ImportError:
        return set()
    return {
        CalculatorPlugin(
            "dpa2",
            citation="D. Zhang et al., npj Comput. Mater. 10, 293 (2024)",
            implementation="dpa2md.calculator.DPA2Calculator",
        )
    }


def __getattr__(name: str) -> Any:
    """ASE's new way to find plugins, which is in no hurry."""
    if name == "__ase_plugins__":
        return _plugins()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
