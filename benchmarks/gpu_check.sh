#!/usr/bin/env bash
# Everything that a machine with a GPU can say about the CUDA backend, in one go:
#
#   benchmarks/gpu_check.sh [--only build,test,sanitize,time] [MODEL.dpa2 ...]
#
#   build     the Python module with CUDA for this GPU, into python/dpa2md
#   test      pytest -m cuda: parity with DeePMD-kit on the GPU
#   sanitize  compute-sanitizer's memcheck, racecheck and initcheck on small systems
#   time      dpa2md bench: the shipped model and the given ones, both precisions, the time of every stage, memory
#             foretold and 2 million atoms of the given ones
#
# Tables and logs land in benchmarks/results/<GPU>-* (RESULTS names another folder). CMAKE_ARGS are for the build:
# -DDPA2MD_CUDA_TENSOR_CORES=OFF to compare with. Needs nvcc >= 12, CMake, a C++ compiler and a Python (PYTHON,
# python3 unless set) with numpy, pybind11 and pytest; `time` needs ase, too. No network.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
only=build,test,sanitize,time
if [[ "${1:-}" == --only ]]; then
  only=$2
  shift 2
fi
models=("$@")
wanted() { [[ ",$only," == *",$1,"* ]]; }

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | sed -n 1p)
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | sed -n 1p | tr -d .)
device=$(tr '[:upper:]' '[:lower:]' <<<"$gpu" | tr -cs '[:alnum:]' - | sed 's/-$//')
results=${RESULTS:-benchmarks/results}
run_on=${DPA2MD_CHECK_DEVICE:-cuda}        # tests of this script run its timings on a CPU,
atoms=${DPA2MD_CHECK_ATOMS:-192 1536 12288}  # with fewer atoms
many=${DPA2MD_CHECK_MANY:-2000000}
mkdir -p "$results"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}" PYTHONUNBUFFERED=1 DPA2MD_REQUIRE=cuda
# what is built here goes before what is installed
if wanted build || compgen -G 'python/dpa2md/_core*.so' >/dev/null; then
  export PYTHONPATH="$PWD/python${PYTHONPATH:+:$PYTHONPATH}"
fi
echo "$gpu, compute capability $capability"

if wanted build; then
  generator=()
  command -v ninja >/dev/null && generator=(-G Ninja)
  cmake -S . -B build/gpu "${generator[@]}" -DDPA2MD_INPLACE=ON -DDPA2MD_CUDA=ON -DDPA2MD_LAMMPS=OFF \
    -DCMAKE_CUDA_ARCHITECTURES="$capability" -DCMAKE_CUDA_FLAGS="-Xptxas -v -lineinfo" \
    -DPython_EXECUTABLE="$(command -v "$python")" \
    -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" ${CMAKE_ARGS:-}
  cmake --build build/gpu --parallel --target _core 2>&1 | tee build/gpu/build.log
fi

if wanted test; then
  "$python" -m pytest -m cuda -q tests/test_cuda.py 2>&1 | tee "$results/$device-parity.txt"
fi

if wanted sanitize; then
  # small systems, models that visit every kernel
  for tool in memcheck racecheck initcheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 9 "$python" -m pytest -m cuda -q -x \
      tests/test_cuda.py -k test_small_systems 2>&1 | tee "$results/$device-$tool.txt"
  done
fi

if wanted time; then
  "$python" -c 'import ase' || { echo "Timing needs ase: $python -m pip install ase" >&2; exit 1; }
  measure() {  # name, arguments of dpa2md bench
    local name=$1
    shift
    # shellcheck disable=SC2086  # one word an argument
    "$python" -m dpa2md bench "$@" --device "$run_on" --atoms $atoms --csv "$results/$device-$name.csv"
  }
  for precision in float32 float64; do
    measure "shipped-$precision" --precision "$precision"
    for model in "${models[@]}"; do
      measure "$(basename "$model" .dpa2)-$precision" "$model" --precision "$precision"
    done
  done
  for model in "${models[@]}"; do
    name=$(basename "$model" .dpa2)
    # small systems without CUDA graphs, to compare with
    DPA2MD_CUDA_GRAPHS=0 atoms=${atoms%% *} measure "$name-one-by-one" "$model" --precision float32
    "$python" -m dpa2md bench "$model" --device "$run_on" --precision float32 --atoms ${atoms##* } --stages \
      | tee "$results/$device-$name-stages.txt"
    {
      "$python" -m dpa2md info "$model" --device "$run_on" --precision float32 --atoms "$many"
      # too many for this GPU: it says so
      "$python" -m dpa2md bench "$model" --device "$run_on" --precision float32 --atoms "$many" --steps 2 || true
    } 2>&1 | tee "$results/$device-$name-memory.txt"
  done
fi
