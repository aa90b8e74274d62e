from typing import Any

import numpy as np

__version__: str
cuda_build: str
# name, once a layer, only with forces, what it gives: csrc/engine/stages.h
stages: list[tuple[str, bool, bool, str]]

class CoreError(ValueError):
    sentence: str  # with "{atom}" and "{of}" where names belong
    atom: int  # among all atoms of all frames; -1: none
    frame: int

def neighbor_list(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, rcut: float, threads: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...

# vector, mean and square (n) change in place
def adam_step(
    vector: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    gradient: np.ndarray,
    rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    decoupled: bool,
    factor: float,
    count: int,
    threads: int,
) -> None: ...

class Engine:
    def __init__(
        self,
        path: str,
        precision: str = "",
        threads: int = 0,
        device: str = "cpu",
        tables: bool = True,
        low_memory: bool = False,
    ) -> None: ...
    def copy(self) -> Engine: ...
    def compute(
        self,
        positions: np.ndarray,
        types: np.ndarray,
        frame_start: np.ndarray,
        cells: np.ndarray,
        pbc: np.ndarray,
        skin: float,
        forces: bool = True,
        fparam: np.ndarray | None = None,
        aparam: np.ndarray | None = None,
        descriptors: bool = False,
        virials: bool = True,
    ) -> dict[str, Any]: ...
    def parameter_layout(self) -> list[tuple[str, tuple[int, ...]]]: ...
    def parameters(self) -> np.ndarray: ...
    def set_parameters(self, flat: np.ndarray) -> None: ...
    @property
    def step_bytes(self) -> int: ...
    def gradient(
        self, denergies: np.ndarray, dforces: np.ndarray, dvirials: np.ndarray
    ) -> np.ndarray: ...
    def forget_neighbors(self) -> None: ...
    def device_memory(self, natoms: int) -> tuple[float, float, float] | None: ...
    def measure_stages(self) -> None: ...
    def stage_seconds(self) -> dict[str, float]: ...
    def measure_kernels(self, yes: bool) -> None: ...
    def kernel_times(self) -> list[dict[str, Any]]: ...
    @property
    def info(self) -> dict[str, Any]: ...
    @property
    def precision(self) -> str: ...
    @property
    def description(self) -> str: ...
