"""Small models with random weights, and structures for them: fast, and free of any file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from dpa2md import convert

from tests.support.checkpoints import dpa2_config, make_tensors, write_checkpoint, write_model


def small_config(nsel: int = 40, **fitting: int) -> dict:
    """A DPA-2 model of O, H and Si with a cutoff of 4 angstrom."""
    config = dpa2_config()
    repinit, repformer = config["descriptor"]["repinit"], config["descriptor"]["repformer"]
    repinit.update(rcut=4.0, nsel=nsel, three_body_rcut=3.0, three_body_rcut_smth=2.0)
    repinit.update(three_body_sel=nsel - 2)
    repformer.update(rcut=3.5, rcut_smth=2.5, nsel=nsel - 1)
    config["fitting_net"].update(fitting)
    return config


def small_tensors(config: dict, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Random weights of a size that keeps activations away from saturation.

    The energy's variable part is multiplied by `scale`.
    """
    tensors = make_tensors(config)
    for name, value in tensors.items():
        if name.endswith(".matrix") and value.ndim == 2:
            tensors[name] = value * value.shape[0] ** -0.5
        elif name.endswith((".bias", ".idt")) or "_residual." in name:
            tensors[name] = value * 0.3
        elif name.endswith(".stddev"):  # the same for x, y and z, or turning would change energies
            value[..., 2:] = value[..., 1:2]
    last = len(config["fitting_net"]["neuron"])
    for networks in ("networks", "_networks"):
        name = f"atomic_model.fitting_net.filter_layers.{networks}.0.layers.{last}.matrix"
        tensors[name] = tensors[name] * scale
    return tensors


def small_model(folder: Path, nsel: int = 40, scale: float = 300.0, **fitting: int) -> Path:
    """A converted small model in `folder`."""
    config = small_config(nsel, **fitting)
    source = write_model(folder / "small.pt", config, small_tensors(config, scale))
    return convert(source, folder / f"small-{nsel}-{scale}-{len(fitting)}.dpa2")


def deep_model(
    folder: Path,
    nlayers: int,
    *,
    g1g1: bool = True,
    attention: bool = True,
    h2: bool = True,
    g2_dim: int = 4,
) -> Path:
    """A converted model of many repformer layers, some of whose pair updates may be left out."""
    config = small_config()
    repformer = config["descriptor"]["repformer"]
    repformer.update(nlayers=nlayers, update_h2=h2, g2_dim=g2_dim)
    tensors = small_tensors(config)
    repformer.update(update_g2_has_g1g1=g1g1, update_g2_has_attn=attention)
    left_out = [] if g1g1 else ["proj_g1g1g2"]
    left_out += [] if attention else ["attn2_mh_apply", "attn2_lm"]
    left_out += [] if attention or h2 else ["attn2g_map"]
    left_out += [] if h2 else ["h2_residual"]
    updates = [True, g1g1, attention]  # of g2: linear2, g1g1, attention
    kept = {}
    for name, value in tensors.items():
        if any(f".{part}." in name for part in left_out):
            continue
        head, _, number = name.rpartition(".")
        if head.endswith("g2_residual"):
            if not updates[int(number)]:
                continue
            name = f"{head}.{sum(updates[: int(number)])}"
        kept[name] = value
    kind = f"deep-{nlayers}-{g1g1}-{attention}-{h2}-{g2_dim}"
    source = write_model(folder / f"{kind}.pt", config, kept)
    return convert(source, folder / f"{kind}.dpa2")


def two_head_checkpoint(folder: Path) -> Path:
    """A multi-task checkpoint of DeePMD-kit with the heads A and B; B's energies are twice A's
    but for the constants."""
    config = small_config()
    tensors = {}
    for head, scale in (("A", 300.0), ("B", 600.0)):
        for name, value in small_tensors(config, scale).items():
            tensors[f"model.{head}.{name}"] = value
    params = {"model_dict": {"A": config, "B": config}, "shared_dict": {}}
    return write_checkpoint(folder / "heads.pt", params, tensors)


def crystal(repeat: tuple[int, int, int] = (2, 2, 2), rattle: float = 0.1, seed: int = 3) -> Atoms:
    """A rattled, triclinic, periodic crystal of the three elements."""
    cell = [[3.6, 0, 0], [0.5, 3.4, 0], [-0.3, 0.4, 3.8]]
    spots = [[0, 0, 0], [0.5, 0.45, 0.05], [0.1, 0.5, 0.55]]
    atoms = Atoms("SiOH", scaled_positions=spots, cell=cell, pbc=True).repeat(repeat)
    atoms.rattle(rattle, seed=seed)
    return atoms


def silicon() -> Atoms:
    """A primitive cell of one atom, smaller than the cutoff."""
    return Atoms("Si", cell=[[0, 1.9, 1.9], [1.9, 0, 1.9], [1.9, 1.9, 0]], pbc=True)
