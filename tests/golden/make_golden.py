"""Makes the golden models and their expected results with DeePMD-kit.

    python -m venv venv && . venv/bin/activate
    pip install deepmd-kit==3.2.0 e3nn torch==2.11.0+cpu \\
        --extra-index-url https://download.pytorch.org/whl/cpu
    cd tests
    OMP_NUM_THREADS=2 python -m golden.make_golden             # all cases, about 10 minutes
    OMP_NUM_THREADS=2 python -m golden.make_golden strip full  # these; the others are kept
    OMP_NUM_THREADS=2 python -m golden.make_golden --exportable  # the other set, 3 minutes

Writes beside itself `models.zip` (a training checkpoint NAME.pt per case), `results.npz` and
`index.json`, or the same with `exportable_` in front of their names; README.md says what they hold.
Weights depend on the names of case and tensor only.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from deepmd import __version__ as deepmd_version
from deepmd.infer import DeepPot
from deepmd.pt.model.model import get_model
from deepmd.pt.train.wrapper import ModelWrapper
from deepmd.pt.utils.multi_task import preprocess_shared_params
from deepmd.utils.argcheck import model_args

from .configs import CASES, Case
from .configs_exportable import EXPORTABLE, TREES
from .systems import (
    Structure,
    all_structures,
    atom_parameters,
    frame_parameters,
    neighbour_distances,
    periodic_box,
)

HERE = Path(__file__).parent
# Two neighbours on either side of a truncated list, or a neighbour and a cutoff, must differ by
# more than rounding; else the expected result would be a matter of luck.
CLEAR_GAP = 1e-6  # angstrom


def build(name: str, case: Case) -> ModelWrapper:
    """The case's model with its random weights, wrapped as `dp train` wraps it."""
    if name in EXPORTABLE:
        return build_exportable(name, case)
    params = copy.deepcopy(case.model)
    if case.heads:
        params, links = preprocess_shared_params(params)
        models = {head: get_model(p) for head, p in params["model_dict"].items()}
        for index, model in enumerate(models.values()):
            model.set_case_embd(index)
        wrapper = ModelWrapper(models, model_params=params)
        wrapper.share_params(links, dict.fromkeys(models, 1.0), resume=True)
    else:
        if case.normalized:
            params = model_args().normalize_value(params, trim_pattern="_*")
        wrapper = ModelWrapper(get_model(params), model_params=params)
    fill(name, case, wrapper)
    return wrapper


def build_exportable(name: str, case: Case) -> torch.nn.Module:
    """The same as `dp --pt-expt train` wraps it."""
    from deepmd.pt_expt.model import get_model as get_exportable
    from deepmd.pt_expt.train.wrapper import ModelWrapper as ExportableWrapper

    params = copy.deepcopy(case.model)
    if case.heads:
        params, links = preprocess_shared_params(params)
        models = {
            head: get_exportable(copy.deepcopy(p)) for head, p in params["model_dict"].items()
        }
        wrapper = ExportableWrapper(models, model_params=params)
        wrapper.share_params(links, dict.fromkeys(models, 1.0), resume=True)
    else:
        wrapper = ExportableWrapper(get_exportable(copy.deepcopy(params)), model_params=params)
    fill(name, case, wrapper)
    for model in wrapper.model.values() if case.dense else ():
        model.atomic_model.descriptor.disable_graph_lower()
    return wrapper


def fill(name: str, case: Case, wrapper: torch.nn.Module) -> None:
    """Gives every tensor its random value; the exportable backend's have other names for the same."""
    with torch.no_grad():
        for key, tensor in [*wrapper.named_parameters(), *wrapper.named_buffers()]:
            stem, _, kind = key.rpartition(".")
            key = f"{stem}.{ {'w': 'matrix', 'b': 'bias'}.get(kind, kind) }"
            value = random_value(name, case, key, tuple(tensor.shape))
            if value is not None:
                scale = [s for part, s in case.scales.items() if part in key]
                tensor.copy_(torch.from_numpy(np.array(value) * np.prod(scale)))


def random_value(name: str, case: Case, key: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """A value of sensible size for one tensor, never a trivial one; None: leave it as it is."""
    rng = np.random.RandomState(zlib.crc32(f"{name}/{key}".encode()))
    kind = key.split(".")[-1]
    if "_residual" in key:
        return rng.uniform(0.2, 0.8, shape) * rng.choice([-1, 1], shape)
    if "attn2_lm" in key:
        return (kind == "matrix") + rng.normal(scale=0.3, size=shape)
    if kind == "matrix":
        # h2 grows by its own third power: a large update would only saturate the activations.
        size = 0.3 if "attn2_ev_apply" in key else 1.0
        return rng.normal(scale=size / np.sqrt(max(1, shape[0])), size=shape)
    if kind in ("stddev", "mean"):
        return statistics(rng, kind, shape, case, key)
    if kind == "case_embd":
        return None if case.heads else rng.normal(size=shape)
    if kind in ("idt", "out_std", "fparam_inv_std", "aparam_inv_std"):
        return rng.uniform(0.4, 1.2, shape)
    if kind in ("bias", "fparam_avg", "aparam_avg"):
        return rng.normal(scale=0.3, size=shape)
    if kind in ("bias_atom_e", "out_bias"):
        return rng.normal(scale=2.0, size=shape)
    known = "compress_info compress_data type_embd_data min_nbor_dist default_fparam_tensor "
    known += "type_mask econf_tebd graph_lower_disabled"
    assert any(word in key for word in known.split()), f"{key}: no rule for its random value"
    return None


def statistics(rng, kind: str, shape: tuple[int, ...], case: Case, key: str) -> np.ndarray:
    """davg or dstd (ntypes, nsel, 4), equal over the slots. x, y and z share a dstd and have no
    davg, as in trained models, but for `uneven_dstd`."""
    result = np.zeros((shape[0], 1, 4))
    block = key.split(".")[-2]
    if kind == "mean":
        if block in case.nonzero_davg:
            result[..., 0] = rng.uniform(0.05, 0.3, (shape[0], 1))
    else:
        scale = 2.0 if block == "repformers" else 1.0
        result[..., 0] = scale * rng.uniform(0.15, 0.35, (shape[0], 1))
        result[..., 1:] = scale * rng.uniform(0.1, 0.2, (shape[0], 1, 3 if case.uneven_dstd else 1))
    return np.broadcast_to(result, shape)


def checkpoint(wrapper: ModelWrapper) -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": wrapper.state_dict()}, buffer)
    return buffer.getvalue()


def exported_tree(wrapper: torch.nn.Module) -> bytes:
    """The `model.json` that `dp --pt-expt freeze` puts into a `.pte` or `.pt2` file."""
    from deepmd.pt_expt.utils.serialization import _numpy_to_json_serializable

    tree = {"model": wrapper.model["Default"].serialize()}
    return json.dumps(_numpy_to_json_serializable(tree), separators=(",", ":")).encode()


def in_precision(data: bytes, precision: str) -> bytes:
    """The same checkpoint with every tensor and both nets in another precision."""
    state = torch.load(io.BytesIO(data), weights_only=True)["model"]
    params = state["_extra_state"]["model_params"]
    for model in params.get("model_dict", {"": params}).values():
        if model["fitting_net"]["precision"] == "float32":
            # Kept in float64, used in the precision of the net: what counts is the rounded value.
            for key in state:
                if key.endswith("bias_atom_e"):
                    state[key] = state[key].float().double()
        model["descriptor"]["precision"] = model["fitting_net"]["precision"] = precision
    buffer = io.BytesIO()
    torch.save({"model": state}, buffer)  # loading casts the tensors to the configured precision
    return buffer.getvalue()


def evaluate(data: bytes, case: Case, head: str | None, structures: list[Structure]) -> list[dict]:
    """Energy, atom_energy, forces and virial of each structure, as DeePMD-kit gives them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.pt")
        path.write_bytes(data)
        if case in EXPORTABLE.values():
            potential = DeepPot(str(path), **({"head": head} if head else {}))
        else:
            potential = DeepPot(str(path), head=head, no_jit=True, nlist_backend="native")
    fparam = None
    if potential.get_dim_fparam() and case.give_fparam:
        fparam = frame_parameters(potential.get_dim_fparam())
    results = []
    for structure in structures:
        box = periodic_box(structure, potential.get_rcut())
        n_aparam = potential.get_dim_aparam()
        energy, forces, virial, atom_energy, _ = potential.eval(
            structure.positions[None],
            None if box is None else box.reshape(1, 9),
            structure.types(case.used),
            atomic=True,
            fparam=fparam,
            aparam=atom_parameters(len(structure), n_aparam)[None] if n_aparam else None,
        )
        results.append(
            {
                "energy": energy[0, 0],
                "atom_energy": atom_energy[0, :, 0],
                "forces": forces[0],
                "virial": virial[0].reshape(3, 3),
            }
        )
    return results


def pack(results: list[dict]) -> dict[str, np.ndarray]:
    """One array a quantity: structures one after another, atoms concatenated."""
    return {
        "energy": np.array([r["energy"] for r in results]),
        "atom_energy": np.concatenate([r["atom_energy"] for r in results]),
        "forces": np.concatenate([r["forces"] for r in results]),
        "virial": np.array([r["virial"] for r in results]),
    }


def errors(results: list[dict], exact: list[dict]) -> np.ndarray:
    """(structures, 4): |energy|, rms atom_energy, rms forces and largest |virial| deviation."""

    def rms(x):
        return np.sqrt(np.mean(x**2))

    return np.array(
        [
            [
                abs(r["energy"] - e["energy"]),
                rms(r["atom_energy"] - e["atom_energy"]),
                rms(r["forces"] - e["forces"]),
                abs(r["virial"] - e["virial"]).max(),
            ]
            for r, e in zip(results, exact, strict=True)
        ]
    )


def check_lists(name: str, model: dict, structures: list[Structure]) -> list[bool]:
    """Whether each structure overfills a list of the model; refuses one whose result hangs on
    rounding."""
    descriptor = model["descriptor"]
    if descriptor["type"] == "dpa2":
        one, two = descriptor["repinit"], descriptor["repformer"]
        lists = [(one["rcut"], one["nsel"]), (two["rcut"], two["nsel"])]
        if one["use_three_body"]:
            lists.append((one["three_body_rcut"], one["three_body_sel"]))
    else:
        lists = [(descriptor["rcut"], int(np.sum(descriptor["sel"])))]
    overfull = []
    for structure in structures:
        full = False
        for r in neighbour_distances(structure, lists[0][0] + 1):
            for rcut, nsel in lists:
                inside = r[r <= rcut]
                gaps = [*abs(r - rcut), *(inside[nsel : nsel + 1] - inside[nsel - 1 : nsel])]
                assert min(gaps, default=1) > CLEAR_GAP, f"{name}, {structure.name}: a tie"
                full |= len(inside) > nsel
        overfull.append(bool(full))
    return overfull


def check_weights_matter(name: str, wrapper: ModelWrapper, case: Case, structure: Structure):
    """Every weight tensor must move the energy: one that does not is not tested."""
    structure_types = torch.from_numpy(structure.types(case.used))[None]
    for model in wrapper.model.values():
        fitting = model.atomic_model.fitting_net
        parameters = {}
        if fitting.numb_fparam:
            parameters["fparam"] = torch.from_numpy(frame_parameters(fitting.numb_fparam))[None]
        if fitting.numb_aparam:
            aparam = atom_parameters(len(structure), fitting.numb_aparam)
            parameters["aparam"] = torch.from_numpy(aparam)[None]
        coordinates = torch.from_numpy(structure.positions)[None].requires_grad_(True)
        box = torch.from_numpy(structure.cell.reshape(1, 9))
        output = model(coordinates, structure_types, box=box, **parameters)
        (output["energy"].sum() + output["force"].square().sum()).backward()
    silent = [
        key
        for key, p in wrapper.named_parameters()
        if p.numel() and (p.grad is None or not p.grad.any())
    ]
    if silent:
        print(f"  {name}: without effect: {', '.join(k.split('atomic_model.')[1] for k in silent)}")


def make(name: str, case: Case, structures: dict[str, Structure]) -> tuple[bytes, dict, list[dict]]:
    """The checkpoint, the arrays and the index entries (one a head) of a case."""
    wrapper = build(name, case)
    if name not in EXPORTABLE:
        check_weights_matter(name, wrapper, case, structures["five_elements"])
    data = checkpoint(wrapper)
    arrays, entries = {}, []
    for head in case.heads or [None]:
        label = f"{name}.{head}" if head else name
        model = wrapper.model_params["model_dict"][head] if head else wrapper.model_params
        used = list(structures.values())
        precisions = [model["descriptor"]["precision"], model["fitting_net"]["precision"]]
        overfull = check_lists(label, model, used)
        exact = evaluate(in_precision(data, "float64"), case, head, used)
        arrays |= {f"{label}/{key}": value for key, value in pack(exact).items()}
        # How far DeePMD-kit's own float32 is from its float64: the measure for ours.
        float32 = evaluate(in_precision(data, "float32"), case, head, used)
        arrays[f"{label}/float32_errors"] = errors(float32, exact)
        if precisions != ["float64", "float64"]:
            own = evaluate(data, case, head, used)
            arrays[f"{label}/own_errors"] = errors(own, exact)
        fitting = model["fitting_net"]
        entries.append(
            {
                "name": label,
                "file": f"{name}.pt",
                "head": head,
                "precision": precisions,
                "types_used": list(case.used),
                "elements_used": [model["type_map"][t] for t in case.used],
                "numb_fparam": fitting.get("numb_fparam", 0) if case.give_fparam else 0,
                # As a mask it changes nothing, but DeePMD-kit asks for it.
                "numb_aparam": 0
                if fitting.get("use_aparam_as_mask")
                else fitting.get("numb_aparam", 0),
                "structures": [structure.name for structure in used],
                "overfull": overfull,
            }
            | ({"set": "exportable_"} if name in EXPORTABLE else {})
        )
        forces = arrays[f"{label}/forces"]
        print(
            f"  {label}: rms force {np.sqrt(np.mean(forces**2)):.3g}, max {abs(forces).max():.3g}"
        )
    return data, arrays, entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help="names in configs.py; default: all")
    parser.add_argument(
        "--exportable", action="store_true", help="the set of configs_exportable.py"
    )
    parser.add_argument("--output", type=Path, default=HERE)
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    structures = all_structures()
    cases = EXPORTABLE if options.exportable else CASES
    file_of = {
        what: options.output / (("exportable_" if options.exportable else "") + what)
        for what in ("models.zip", "results.npz", "index.json")
    }
    models, arrays, entries = {}, {}, {}
    if options.cases and file_of["index.json"].exists():  # keep the others
        with zipfile.ZipFile(file_of["models.zip"]) as archive:
            names = [name for name in archive.namelist() if name.endswith(".pt")]
            models = {name[:-3]: archive.read(name) for name in names}
        arrays = dict(np.load(file_of["results.npz"]))
        index = json.loads(file_of["index.json"].read_text())
        entries = {entry["name"]: entry for entry in index["models"]}
    for name in options.cases or cases:
        start = time.time()
        models[name], new_arrays, new_entries = make(name, cases[name], structures)
        arrays |= new_arrays
        entries |= {entry["name"]: entry for entry in new_entries}
        print(f"{name}: {len(models[name]) // 1024} kB, {time.time() - start:.1f} s", flush=True)

    checksums = {name: float(np.sum(s.positions * [1, 2, 3])) for name, s in structures.items()}
    versions = {"deepmd-kit": deepmd_version, "torch": torch.__version__, "numpy": np.__version__}
    index = {
        "made_with": versions,
        "structures": checksums,
        "models": list(entries.values()),
    }
    options.output.mkdir(exist_ok=True)
    members = {f"{name}.pt": data for name, data in models.items()}
    for name in TREES if options.exportable else ():
        members[f"{name}.json"] = exported_tree(build(name, cases[name]))
    with zipfile.ZipFile(file_of["models.zip"], "w") as archive:
        for name, data in members.items():  # no dates: the same models give the same bytes
            member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            archive.writestr(member, data, zipfile.ZIP_DEFLATED, 9)
    np.savez_compressed(file_of["results.npz"], **arrays)
    file_of["index.json"].write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
