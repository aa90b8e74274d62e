// Evaluates structures that pytest hands over, on any device of this build: how the emulated CUDA backend and
// other architectures are compared with DeePMD-kit. Usage: evaluate MODEL.dpa2 PRECISION DEVICE tables|nets <
// structures > results
//   structure: "atoms n f a" (f frame parameters, a atom parameters), 9 numbers of the cell, 3 flags of pbc,
//   the frame
//              parameters, then for each atom its type, position and parameters
//   result:    n atom energies, 3 n forces, 9 n virials, one number a line (hexadecimal, so that no digit is
//   lost)
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "engine.h"
#include "neighbors.h"

using namespace dpa2md;

namespace {

std::vector<double> numbers(std::size_t n) {
  std::vector<double> out(n);
  for (double& x : out) std::cin >> x;
  return out;
}

void write(const std::vector<double>& values) {
  for (const double x : values) std::printf("%a\n", x);
}

void evaluate(Engine* engine, int n, int nfparam, int naparam) {
  Cell cell;
  const std::vector<double> h = numbers(9), periodic = numbers(3), fparam = numbers(nfparam);
  for (int k = 0; k < 9; ++k) cell.h[k] = h[k];
  for (int k = 0; k < 3; ++k) cell.periodic[k] = periodic[k] != 0;
  std::vector<int> type;
  std::vector<double> x, aparam;
  for (int i = 0; i < n; ++i) {
    type.push_back(static_cast<int>(numbers(1)[0]));
    for (const double v : numbers(3)) x.push_back(v);
    for (const double v : numbers(naparam)) aparam.push_back(v);
  }
  NeighborList list(engine->model().rcut(), 0.0);
  list.leave_search(engine->searches());
  list.update(x.data(), type.data(), {0, n}, {cell});
  const Atoms atoms{n, n, x.data(), type.data(), nullptr, &list.candidates()};
  const Result& r = engine->compute(atoms, true, nfparam ? fparam.data() : nullptr,
                                    naparam ? aparam.data() : nullptr, nullptr, nullptr);
  write(r.energy);
  write(r.force);
  write(r.virial);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  try {
    Engine engine(argv[1], {argv[2], 1, argv[3], std::string(argv[4]) == "tables"});
    std::string word;
    for (int n, f, a; std::cin >> word >> n >> f >> a;) evaluate(&engine, n, f, a);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}
