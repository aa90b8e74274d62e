"""Runs each C++ test; with DPA2MD_SANITIZE=1 under address and undefined sanitizers."""

from __future__ import annotations

import pytest

from tests.golden.suite import MODELS
from tests.support.cpp_programs import environment, run
from tests.support.paths import ROOT
from tests.support.selection import skip_or_fail

# The names below follow the rule of tests/cpp/CMakeLists.txt: these are built once per instruction set.
PER_ISA = ("test_gemm", "test_lanes", "test_scalar_math")
ISAS = ("portable", "avx2", "avx512")

# Every way in which g1 enters a layer, both kinds of pair state, DPA-1 without any layer.
EXCHANGED = (
    "medium",
    "full",
    "no_g2_g1g1",
    "no_g1_attn",
    "no_g2_attn",
    "res_residual_h2",
    "conv_inside_mlp_outside",
    "not_smooth",
    "fparam_aparam_case",
    "dpa1",
    "se_atten_v2",
    "graph",
)
# All blocks, fewer blocks, every kind of exclusion, DPA-1, lists that are never full.
LISTED = (
    "full",
    "no_three_body",
    "short_three_body",
    "all_exclusions",
    "fparam_aparam_case",
    "se_atten_v2",
    "graph_strip_exclusions",
)
# Layers of all kinds; three-body terms and updated h2; DPA-1; parameters of the fitting net; shares of slots.
MEASURED = ("medium", "full", "res_residual_h2", "se_atten_v2", "fparam_aparam_case", "graph")
# All blocks, updated h2, gates and empty slots in strip mode, DPA-1 of both kinds, parameters, vacuum.
TRAINED = (
    *("medium", "full", "res_residual_h2", "davg_strip", "three_body_strip_skips", "not_smooth"),
    *("dpa1", "se_atten_v2", "fparam_aparam_case", "atom_ener"),
)
DAMAGED = ("full", "strip", "se_atten_v2", "fparam_aparam_case")


def names() -> list[str]:
    out = []
    for source in sorted((ROOT / "tests" / "cpp").glob("test_*.cpp")):
        isas = [f"_{isa}" for isa in ISAS] if source.stem in PER_ISA else [""]
        out += [source.stem + isa for isa in isas]
    return out


def arguments(name: str, evaluate) -> list[str]:
    if name == "test_exchange":
        return [str(evaluate.path(MODELS[model])) for model in EXCHANGED]
    if name == "test_gradients":
        return [str(evaluate.path(MODELS[model])) for model in TRAINED]
    if name == "test_gpu_pairs":
        return [str(evaluate.path(MODELS[model])) for model in LISTED]
    if name == "test_gpu_memory":
        return [str(evaluate.path(MODELS[model])) for model in MEASURED]
    if name == "test_model_file":
        return [str(evaluate.path(MODELS[model])) for model in DAMAGED]
    return []


@pytest.mark.timeout(1800)  # the first test builds
@pytest.mark.parametrize("name", names())
def test_program(name, cpp_programs, evaluate):
    program = cpp_programs / name
    if not program.exists() and name.endswith(("avx2", "avx512")):
        skip_or_fail("isa", f"{name} is only built for x86-64")
    done = run([str(program), *arguments(name, evaluate)], env=environment())
    if done.returncode == 77:
        skip_or_fail("isa", f"this processor cannot run {name}")
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
