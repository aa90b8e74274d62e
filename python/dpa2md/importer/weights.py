"""The tensors of one head, taken by name: shapes are checked and nothing is left unexplained."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ModelError, UnsupportedModelError
from .torch_zip import Tensor

# Tensors that can't change an energy or a force, or that only repeat the configuration.
_HARMLESS = re.compile(
    r"_?min_nbor_dist$|atomic_model\.out_std$|.*\.type_mask$|.*\.econf_tebd$"
    r"|atomic_model\.fitting_net\.default_fparam_tensor$"
    r"|.*\.(compress_info|compress_data)\.\d+$|.*\.type_embd_data$"
)
# Of those, the ones that count when they aren't empty; `records` takes them where it knows how.
_ONLY_EMPTY = re.compile(r".*\.(compress_info|compress_data)\.\d+$|.*\.type_embd_data$")


class Weights:
    """Tensors by name, seen below a prefix and in one precision."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor | np.ndarray],
        prefix: str = "",
        dtype: Any = np.float64,
        used: set[str] | None = None,
    ):
        self._tensors = tensors if used is not None else _without_aliases(tensors)
        self._prefix = prefix
        self._dtype = np.dtype(dtype)
        self._used = set() if used is None else used

    def scope(self, prefix: str, dtype: Any = None) -> Weights:
        """The tensors whose names continue with `prefix` and a dot."""
        return type(self)(
            self._tensors, f"{self._prefix}{prefix}.", dtype or self._dtype, self._used
        )

    def has(self, name: str) -> bool:
        """Whether there is such a tensor."""
        return self._prefix + name in self._tensors

    def tensor(self, name: str) -> Tensor | np.ndarray | None:
        """A tensor as it is in the file; None when there is none."""
        return self._tensors.get(self._prefix + name)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; (0,) when there is none."""
        tensor = self._tensors.get(self._prefix + name)
        return (0,) if tensor is None else tuple(tensor.shape)

    def take(self, name: str, *shape: int | None) -> np.ndarray:
        """A tensor of the given shape (None: any size) in this scope's precision.

        Raises
        ------
        ModelError
            When it is missing, or has another shape, or holds integers, infinities or NaN.
        """
        full = self._prefix + name
        if full not in self._tensors:
            raise ModelError(
                f"The file has no tensor {full!r}, which its configuration asks for; "
                "it is incomplete, or from a version of DeePMD-kit that dpa2md doesn't know."
            )
        found = self.shape(name)
        if len(found) != len(shape) or any(
            want not in (None, have) for want, have in zip(shape, found, strict=True)
        ):
            raise ModelError(
                f"The tensor {full!r} has the shape {found} and the configuration asks for "
                f"{tuple('any' if size is None else size for size in shape)}; the file is "
                "inconsistent."
            )
        tensor = self._tensors[full]
        array = tensor.numpy() if isinstance(tensor, Tensor) else tensor
        if array.dtype.kind != "f":
            raise ModelError(f"The tensor {full!r} holds {array.dtype} and not real numbers.")
        if not np.isfinite(array).all():
            raise ModelError(f"The tensor {full!r} holds infinite or undefined numbers; refused.")
        self._used.add(full)
        with np.errstate(over="ignore"):
            array = array.astype(self._dtype)
        if not np.isfinite(array).all():
            raise ModelError(f"The tensor {full!r} does not fit into {self._dtype}; refused.")
        return array

    def skip(self, prefix: str) -> None:
        """Leave out, knowingly, every tensor below a prefix."""
        start = f"{self._prefix}{prefix}."
        self._used.update(name for name in self._tensors if name.startswith(start))

    def finish(self) -> None:
        """Refuse the model when it has a tensor that was neither used nor known to be harmless."""
        for name, tensor in self._tensors.items():
            if name in self._used:
                continue
            empty = 0 in tensor.shape
            if not _HARMLESS.match(name) or (_ONLY_EMPTY.match(name) and not empty):
                raise UnsupportedModelError(
                    f"The file has the tensor {name!r}, for which its configuration has no use; "
                    "the model is refused instead of being computed wrongly."
                )


def _without_aliases(
    tensors: Mapping[str, Tensor | np.ndarray],
) -> dict[str, Tensor | np.ndarray]:
    """DeePMD-kit saves each net twice, as `networks` and `_networks`; keep one, if they agree."""
    kept = {name: tensor for name, tensor in tensors.items() if "._networks." not in name}
    for name, tensor in tensors.items():
        if "._networks." not in name:
            continue
        twin = kept.setdefault(name.replace("._networks.", ".networks."), tensor)
        if twin is tensor or (isinstance(tensor, Tensor) and tensor == twin):
            continue
        first, second = (t.numpy() if isinstance(t, Tensor) else t for t in (tensor, twin))
        if not np.array_equal(first, second):
            raise ModelError(
                f"The tensor {name!r} differs from its twin in `networks`; the file is damaged."
            )
    return kept
