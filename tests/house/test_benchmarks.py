"""What the benchmarks count: multiply-adds against lists of products by hand, and callgrind's output."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import gpu_kernels
import instructions
import multiply_adds
import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list
from dpa2md import Engine
from dpa2md.model_file import read_model
from dpa2md.structures import equilibrated_water

from tests.support.paths import ROOT
from tests.support.small_models import small_model

BENCHMARKS = ROOT / "benchmarks"

# One atom with 3 neighbours in repinit and 2 in the repformers, in a model with g1 7, g2 4, axis 3 (repformers)
# and 2 (repinit), embeddings of 6 (12 after the doubling layer) and 5 channels, two heads in both attentions.
# (m, n, k) of every product, in the order in which the engine comes to them.
N, G1, G2 = 2, 7, 4
LINEAR1 = (1, G1, 3 * G2 + 3 * G1)  # g1_out_mlp and g1_out_conv: it reads grrg and drrd
NODE = [
    *[(1, G1, G1)] * 2,  # queries of both heads
    (3, G2, N),  # moments of g2, and their product with three columns of themselves
    (3, G2, 3),
    (3, G1, N),
    (3, G1, 3),
    (G2, G1, N),  # conv
    *[(1, N, G1), (1, G1, N)] * 2,  # logits and weighted sum
    LINEAR1,
    (1, G1, G1),  # g1_self
    *[(1, G1, G1)] * 2,  # values of both heads
]
NODE_BACKWARD = [
    *[(1, G1, G1)] * 2,  # queries again
    (1, G1, G1),  # g1_self
    (1, LINEAR1[2], G1),
    *[(1, G1, G1)] * 2,  # values
    (3, G2, N),  # moments again
    *[(3, G2, 3)] * 2,  # to either factor of the symmetric product
    (3, G1, N),
    *[(3, G1, 3)] * 2,
    (N, G2, G1),  # conv: to g2, to gg1
    (N, G1, G2),
    *[(N, 3, G2), (N, G2, 3)],  # moments of g2: to h2, to g2
    *[(N, 3, G1), (N, G1, 3)],
    *[(1, N, G1)] * 4,  # logits again, gradient of the weights, two heads
    *[(1, G1, N)] * 2,  # to the queries
    *[(N, G1, 1)] * 4,  # to gg1 through the weights and through the logits
    *[(1, G1, G1)] * 2,  # queries
]
MAP = [(N, N, 3), *[(N, G2, G2), (N, N, G2)] * 2]  # h2 h2^T; query and logits of both heads
APPLIED = [(N, G2, N), (N, G2, G2)] * 2  # map times g2, times value
PAIR = [(N, G2, G2), (N, G2, G1), *MAP, *APPLIED, *[(N, 3, N)] * 2]  # linear2, g1g1; h2
PAIR_BACKWARD = [
    *[(N, G2, G2)] * 2,  # linear2 again, and back
    (N, G1, G2),  # g1g1
    *MAP,
    *APPLIED,
    *[(N, G2, G2), (N, N, G2), (N, G2, N)] * 2,  # value; to the map, to g2
    *[(N, N, 3), (N, 3, N)] * 2,  # h2: to the map, to h2
    *[(N, 3, N)] * 2,  # h2 h2^T to either side
    *[(N, G2, N), (N, G2, N), (N, G2, G2)]
    * 2,  # logits to g2 on either side, the former through the map's weight
]


def size(products: list[tuple[int, int, int]]) -> int:
    return sum(m * n * k for m, n, k in products)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return small_model(tmp_path_factory.mktemp("models"))


def test_products(model):
    near = {"repinit": np.array([3.0]), "repformer": np.array([2.0])}
    records = read_model(model)
    counted = multiply_adds.multiply_adds(records, near)
    width = records["repinit.net.2.w"].shape[1]
    assert counted["repinit"] == size([(4, width, 3), (width, 2, 4)])
    assert counted["repinit_backward"] == 2 * counted["repinit"]
    assert counted["g1_transform"] == (2 * width + 5) * G1 == counted["g1_transform_backward"]
    assert counted["node_step"] == 2 * size(NODE)  # two layers
    assert counted["node_step_backward"] == 2 * size(NODE_BACKWARD)
    assert counted["pair_step"] == size(PAIR)  # the last layer has none
    assert counted["pair_step_backward"] == size(PAIR_BACKWARD)
    tebd = 4
    forward = size([(1, 5, G1 + tebd), (1, 5, 5), (1, 10, 5), (1, 1, 10)])
    assert counted["fitting"] == 2 * forward - size([(1, 5, tebd)])


def test_products_that_tables_and_turning_save(model):
    """The same model without g1 attention and h2 update, with the switches of the published ones."""
    near = {"repinit": np.array([3.0]), "repformer": np.array([2.0])}
    published = {f"repformer.{name}": 0 for name in ("has_g1_attn", "has_g1g1", "update_h2")}
    records = read_model(model) | published
    counted = multiply_adds.multiply_adds(records, near)
    conv, conv_backward = (G2, G1, N), [(N, G2, G1), (N, G1, G2)]
    local = {(1, G1, G1), (1, N, G1), (1, G1, N), (N, G1, 1)}  # sizes that g1's attention adds
    dense = [(1, G1, G1)]  # g1_self
    forward = size(dense + [p for p in NODE if p not in local])
    backward = size(dense + [p for p in NODE_BACKWARD if p not in local])
    assert counted["node_step"] == 2 * forward - size([conv])  # of the first layer
    assert counted["node_step_backward"] == 2 * backward - size(conv_backward)
    h2 = [(N, 3, N)] * 2
    pair = size(PAIR) - size([(N, G2, G1), *h2])
    pair_backward = size(PAIR_BACKWARD) - size([(N, G1, G2), *[(N, N, 3), (N, 3, N)] * 2])
    assert counted["pair_step"] == pair
    assert counted["pair_step_backward"] == pair_backward - size([*MAP, *APPLIED])
    assert multiply_adds.lookups(records, near, 4)["node_step"] == 6 * 4 * N * (G1 + G2)

    counted = multiply_adds.multiply_adds(records | {"repformer.has_g2_attn": 0}, near)
    assert counted["node_step"] == 2 * (forward - size([conv]))
    assert counted["node_step_backward"] == 2 * (backward - size(conv_backward))
    assert "pair_step" not in counted


def test_counts_are_means_over_atoms(model):
    records = read_model(model)
    each = [
        multiply_adds.multiply_adds(records, {"repinit": np.array([m]), "repformer": np.array([n])})
        for m, n in ((5.0, 1.0), (9.0, 4.0))
    ]
    near = {"repinit": np.array([5.0, 9.0]), "repformer": np.array([1.0, 4.0])}
    for stage, mean in multiply_adds.multiply_adds(records, near).items():
        assert mean == (each[0][stage] + each[1][stage]) / 2


def test_neighbors_and_stages(model):
    atoms = equilibrated_water()
    records = read_model(model)
    near = multiply_adds.neighbors(records, atoms)
    for block, count in near.items():
        found = np.bincount(neighbor_list("i", atoms, records[f"{block}.rcut"]), minlength=192)
        assert (count == np.minimum(found, records[f"{block}.nsel"])).all()
    engine = Engine(model, threads=1)
    engine._core.measure_stages()
    engine.compute_atoms([Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [0, 0.96, 0]])])
    stages = set(engine._core.stage_seconds())
    assert stages >= set(multiply_adds.multiply_adds(records, near))
    assert stages >= set(multiply_adds.lookups(records, near, 4))


LISTING = """
Events recorded:  Ir
1,069,956  PROGRAM TOTALS
Ir       file:function
126,641  /src/gemm.h:void dpa2md::cpu_avx2::gemm_tile<5, 2, 8, float>(int, dpa2md::cpu_avx2::MatrixA<float>) [/x/_core.so]
 15,007  /src/net.h:dpa2md::cpu_avx2::Net<float>::forward(float const*, int (*)(int)) const
 10,000  /src/gemm.h:dpa2md::cpu_avx2::Net<float>::forward(float const*, int (*)(int)) const [/x/_core.so]
      7  ???:operator new(unsigned long) [/usr/lib/libstdc++.so.6]
"""


def test_callgrind_listing():
    assert instructions.parsed(LISTING) == {
        "gemm_tile<5, 2, 8, float>": 126_641,
        "Net<float>::forward": 25_007,
        "operator new": 7,
    }


def test_listing_without_functions_is_refused():
    with pytest.raises(SystemExit, match="symbols"):
        instructions.parsed("1,069,956  PROGRAM TOTALS\n")


def test_missing_valgrind_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    command = [sys.executable, str(BENCHMARKS / "instructions.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr
        == "valgrind, which counts the instructions, is missing: apt install valgrind.\n"
    )


def test_published_models_without_torch(tmp_path):
    """They are models that the engine takes whole, and whose numbers float32 can hold."""
    command = [sys.executable, BENCHMARKS / "published_models.py", "--dpa2", tmp_path]
    done = subprocess.run(command, text=True, capture_output=True, check=True)
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert [path.stem for path in paths] == ["small", "medium", "large", "dpa1"]
    water = equilibrated_water()
    layers = []
    for path in paths:
        exact, rounded = (
            Engine(path, precision, threads=1).compute_atoms([water])[0]
            for precision in ("float64", "float32")
        )
        assert np.abs(exact.forces).max() > 0.01
        np.testing.assert_allclose(rounded.forces, exact.forces, atol=1e-5)
        layers.append(read_model(path).get("repformer.nlayers"))
    assert layers == [3, 6, 12, None]
    done = subprocess.run([*command, "gen2.0"], text=True, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "--dpa2 makes small, medium, large, dpa1, not gen2.0.\n"


SMI = """#!/bin/sh
case "$*" in *name*) echo "Test GPU 1";; *driver*) echo 580.1;; *) echo 9.0;; esac
"""
# memcheck finds something, racecheck takes long
SANITIZER = """#!/bin/sh
case "$*" in *memcheck*) echo "ERROR SUMMARY: 2 errors"; exit 9;; esac
echo begun
sleep 60
"""


@pytest.fixture
def gpu_check(tmp_path):
    """Runs the script with programs that stand in for a GPU's, and with a CPU; the files that it left, and the rest."""
    for name, text in (("nvidia-smi", SMI), ("compute-sanitizer", SANITIZER)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    results = tmp_path / "results"
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
        "RESULTS": str(results),
        "TMPDIR": str(tmp_path),
        "DPA2MD_CHECK_DEVICE": "cpu",
        "DPA2MD_CHECK_ATOMS": "192",
        "DPA2MD_CHECK_MANY": "384",
        "DPA2MD_CHECK_STEPS": "10",
        "DPA2MD_CHECK_PATIENCE": "10",
    }

    def run(*arguments):
        done = subprocess.run(
            [BENCHMARKS / "gpu_check.sh", *arguments],
            text=True,
            capture_output=True,
            env=environment,
            check=False,
        )
        files = {path.name: path.read_text() for path in results.glob("*")}
        return done, files

    return run


def test_timings_of_a_gpu(gpu_check, tmp_path):
    """The script's commands are those that the programs know; here a CPU stands in for the GPU."""
    model = small_model(tmp_path).rename(tmp_path / "tiny.dpa2")
    done, files = gpu_check("--only", "kernels,bias,drift,many", "--limit", "550", model)
    assert done.returncode == 0, done.stdout + done.stderr
    names = ["accuracy.txt", "kernels.json", "kernels.txt", "large.txt", "summary.txt"]
    assert sorted(files) == [f"test-gpu-1-{name}" for name in names]
    kernels = json.loads(files["test-gpu-1-kernels.json"])
    assert [(s["model"], s["precision"], s["atoms"]) for s in kernels["systems"]] == [
        ("tiny", "float32", 192),
        ("tiny", "float64", 192),
    ]
    assert all(s["ms/step"] > 0 and "no clock" in s["no kernels"] for s in kernels["systems"])
    assert "bias eV/atom" in files["test-gpu-1-accuracy.txt"]
    assert "meV/atom in 10 ps" in files["test-gpu-1-accuracy.txt"]
    assert "384 atoms, cpu" in files["test-gpu-1-large.txt"]
    summary = files["test-gpu-1-summary.txt"]
    assert summary in done.stdout and "Test GPU 1, compute capability 90, driver 580.1" in summary
    results = re.findall(r"^(\w+) +ok +\d+ s  ", summary, flags=re.MULTILINE)
    assert results == ["kernels", "bias", "drift", "many"]
    assert re.search(r"^tiny +float32 +192 +[\d.]+ +[\d.]+ +nan", summary, flags=re.MULTILINE)


def test_tables_of_kernels(capsys):
    """Of what the clock of a GPU would have given."""
    kernels = [{"kernel": "PairStep", "share %": 71.2}, {"kernel": "Clear", "share %": 28.8}]
    times = {"us/atom": 3.5758, "ms/step": 43.939, "kernels ms": 42.1, "kernels": kernels}
    small = {
        "model": "medium",
        "precision": "float32",
        "atoms": 192,
        "us/atom": 9.25,
        "ms/step": 1.78,
    }
    systems = [
        small,
        {"model": "medium", "precision": "float32", "atoms": 12288} | times,
        {"model": "large", "precision": "float64", "atoms": 12288, "failed": "no memory."},
    ]
    gpu_kernels.show(systems)
    failed, _, first, second = capsys.readouterr().out.splitlines()
    assert failed == "large, float64, 12288: no memory."
    assert "nan" in first and second.split()[3:] == [
        *("3.576", "43.94", "42.1", "PairStep", "71", "%,", "Clear", "29", "%"),
    ]
    about = {"gpu": "H", "driver": "580", "build": "CUDA 13.0", "date": "today", "commit": "abc"}
    gpu_kernels.markdown(about | {"systems": systems})
    assert capsys.readouterr().out.splitlines() == [
        "One H, driver 580, CUDA 13.0, today, commit abc:",
        "",
        "| model, precision | 192 atoms | 12,288 |",
        "|---|---|---|",
        "| medium, float32 | 9.25 (1.78 ms) | 3.58 |",
    ]


def test_parts_of_a_gpu_check_that_fail(gpu_check, tmp_path):
    """What one part found does not stop the others, nor does one that takes too long; all is said at the end."""
    done, files = gpu_check(
        "--only", "memcheck,racecheck,lammps,deepmd", "--limit", "6", tmp_path / "no.dpa2"
    )
    assert done.returncode == 1
    summary = files["test-gpu-1-summary.txt"]
    assert re.search(r"memcheck +failed \(9\) .*ERROR SUMMARY: 2 errors", summary)
    assert re.search(r"racecheck +stopped .* begun", summary)
    assert re.search(r"deepmd +not run", summary)
    assert set(files) == {"test-gpu-1-summary.txt", "test-gpu-1-sanitizer.txt"}
    assert "== racecheck\nbegun" in files["test-gpu-1-sanitizer.txt"]


def test_a_gpu_check_refuses_what_it_does_not_know(gpu_check):
    for arguments, words in (
        (["--only", "time"], "There is no part time: build, kernels, parity"),
        (["--all", "1"], "There is no option --all"),
    ):
        done, files = gpu_check(*arguments)
        assert (done.returncode, files) == (2, {})
        assert words in done.stderr
