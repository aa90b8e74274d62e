"""DPA-2 in plain numpy: what a step computes, every intermediate by its name."""

from .dpa2 import evaluate, forces_and_virial, slope

__all__ = ["evaluate", "forces_and_virial", "slope"]
