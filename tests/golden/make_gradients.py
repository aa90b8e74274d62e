"""Makes `gradients.npz`: gradients by the parameters of golden models, by DeePMD-kit's autograd.

In the environment that `make_golden.py` describes, after it:

    cd tests
    OMP_NUM_THREADS=1 python -m golden.make_gradients             # all models, a minute
    OMP_NUM_THREADS=1 python -m golden.make_gradients strip full  # these; the others are kept
    OMP_NUM_THREADS=1 python -m golden.make_gradients --full FOLDER strip  # whole gradients

Weights and arithmetic are float64, as for the results. `projections.py` has the loss and says what
is kept of a gradient. Every gradient is checked against finite differences of DeePMD-kit's results.
Models of the exportable backend are evaluated eagerly, and their parameters get the names that the
PyTorch backend gives them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from deepmd.infer import DeepPot

from .make_golden import in_precision
from .projections import LossFactors, loss_factors, project, random_directions
from .suite import MODELS, STRUCTURES, Golden
from .systems import Structure, atom_parameters, periodic_box

HERE = Path(__file__).parent
# A cell smaller than the cutoff and a molecule: the first of each line that overfills no list. The
# other elements of a model are in the third.
PERIODIC = ("metal_2", "three_elements", "tilted")
FREE = ("molecule", "isolated")
OTHER_ELEMENTS = ("three_elements", "five_elements")
PREFIX = "atomic_model."
# The exportable backend's names, and those of the same tensors in the PyTorch backend.
RENAMED = {
    "._module_networks.": ".networks.",
    ".embeddings.": ".filter_layers.",
    ".embeddings_strip.": ".filter_layers_strip.",
    "fitting_net.nets.": "fitting_net.filter_layers.",
    "type_embedding.embedding_net.": "type_embedding.embedding.embedding_net.",
}
# Of the finite difference, in the parameters' own units: rounding leaves about 1e-10 of the gradient.
# A larger step carries activations over the kinks of relu. The third derivatives, which leave 4e-6 of
# the steepest model's, are extrapolated away with half of the step.
STEP = 1e-6
AGREEMENT = 1e-7


def choose(golden: Golden) -> list[str]:
    """The structures for a model."""
    lines = [PERIODIC, FREE]
    if len(golden.types_used) > 2:
        lines.append(OTHER_ELEMENTS)
    overfull = dict(zip(golden.structures, golden.overfull, strict=True))
    return [next((name for name in line if not overfull[name]), line[0]) for line in lines]


def load(golden: Golden) -> torch.nn.Module:
    """The model (one head of it) in float64, as training uses it."""
    with tempfile.TemporaryDirectory() as folder:
        path = golden.write(Path(folder))
        path.write_bytes(in_precision(path.read_bytes(), "float64"))
        if golden.set:
            head = {"head": golden.head} if golden.head else {}
            model = DeepPot(str(path), **head).deep_eval._dpmodel
        else:
            potential = DeepPot(str(path), head=golden.head, no_jit=True, nlist_backend="native")
            model = potential.deep_eval.dp.model["Default"]
    return model.train()  # in training, forces can be differentiated


def parameters_of(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """What is trained, by its name in the state dict after `atomic_model.`; shared ones once."""
    found = {}
    for key, parameter in model.named_parameters():
        assert key.startswith(PREFIX), key
        if parameter.requires_grad and parameter.numel():
            found[common_name(key.removeprefix(PREFIX))] = parameter
    return found


def common_name(key: str) -> str:
    """The name in the PyTorch backend."""
    for theirs, name in RENAMED.items():
        key = key.replace(theirs, name)
    stem, _, kind = key.rpartition(".")
    return f"{stem}.{ {'w': 'matrix', 'b': 'bias'}.get(kind, kind) }"


def compute(
    model: torch.nn.Module, golden: Golden, structure: Structure
) -> dict[str, torch.Tensor]:
    """What a loss is made of, differentiable by the parameters."""
    box = periodic_box(structure, model.get_rcut())
    fparam, n_aparam = golden.fparam(), model.get_dim_aparam()
    aparam = atom_parameters(len(structure), n_aparam) if n_aparam else None
    positions = torch.from_numpy(structure.positions)[None]
    output = model(
        positions.requires_grad_() if golden.set else positions,
        torch.from_numpy(golden.types(structure))[None],
        box=None if box is None else torch.from_numpy(box.reshape(1, 9)),
        fparam=None if fparam is None else torch.from_numpy(fparam)[None],
        aparam=None if aparam is None else torch.from_numpy(aparam)[None],
    )
    return {
        "atom_energy": output["atom_energy"].reshape(-1),
        "forces": output["force"].reshape(-1, 3),
        "virial": output["virial"].reshape(3, 3),
    }


def loss(results: dict[str, torch.Tensor], factors: LossFactors) -> torch.Tensor:
    """L of projections.py, differentiable."""
    return (
        torch.sum(torch.from_numpy(factors.energies) * results["atom_energy"])
        + torch.sum(torch.from_numpy(factors.forces) * results["forces"])
        + torch.sum(torch.from_numpy(factors.virial) * results["virial"])
    )


def check_results(results: dict[str, torch.Tensor], golden: Golden, structure: Structure) -> None:
    """The model in training is the one that make_golden.py evaluated."""
    expected = golden.expected(structure.name)
    for key, value in results.items():
        np.testing.assert_allclose(
            value.detach().numpy(), expected[key], rtol=1e-9, atol=1e-9, err_msg=key
        )


def check_by_differences(
    model: torch.nn.Module,
    golden: Golden,
    structure: Structure,
    factors: LossFactors,
    gradients: dict[str, np.ndarray],
) -> float:
    """Relative error of the gradient along one random direction, against central differences."""
    parameters = parameters_of(model)
    directions = {key: random_directions(key, tuple(p.shape))[0] for key, p in parameters.items()}
    original = {key: p.detach().clone() for key, p in parameters.items()}

    def value(step: float) -> float:
        with torch.no_grad():
            for key, p in parameters.items():
                p.copy_(original[key] + step * torch.from_numpy(directions[key]))
        return loss(compute(model, golden, structure), factors).item()

    whole, half = ((value(h) - value(-h)) / (2 * h) for h in (STEP, STEP / 2))
    value(0.0)
    products = {key: np.sum(directions[key] * g) for key, g in gradients.items()}
    size = np.linalg.norm(list(products.values()))
    return abs((4 * half - whole) / 3 - sum(products.values())) / size


def gradients_of(golden: Golden, structure: Structure, model: torch.nn.Module):
    """By parameter: dL/d(parameter) in the shape of the state dict."""
    factors = loss_factors(structure.name, len(structure))
    parameters = parameters_of(model)
    results = compute(model, golden, structure)
    check_results(results, golden, structure)
    found = torch.autograd.grad(
        loss(results, factors), list(parameters.values()), allow_unused=True
    )
    gradients = {
        key: np.zeros(tuple(p.shape)) if g is None else g.numpy()
        for (key, p), g in zip(parameters.items(), found, strict=True)
    }
    error = check_by_differences(model, golden, structure, factors, gradients)
    assert error < AGREEMENT, f"{golden.name}, {structure.name}: {error}"
    return gradients, error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="names in index.json; default: all")
    parser.add_argument("--full", type=Path, metavar="FOLDER", help="whole gradients, nothing else")
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    file = HERE / "gradients.npz"
    arrays = dict(np.load(file)) if options.models and file.exists() and not options.full else {}
    for name in options.models or MODELS:
        start, golden = time.time(), MODELS[name]
        model = load(golden)
        whole, errors = {}, []
        for structure in map(STRUCTURES.get, choose(golden)):
            gradients, error = gradients_of(golden, structure, model)
            errors.append(error)
            whole |= {f"{structure.name}/{key}": g for key, g in gradients.items()}
            rows = [project(key, g) for key, g in gradients.items()]
            arrays[f"{name}/{structure.name}"] = np.array(rows)
            arrays[f"{name}/parameters"] = np.array("\n".join(gradients).encode())
        if options.full:
            options.full.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(options.full / f"{name}.npz", **whole)
        print(
            f"{name}: {len(gradients)} parameters, {time.time() - start:.1f} s, "
            f"differences agree to {max(errors):.1e}",
            flush=True,
        )
    if not options.full:
        np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    main()
