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

#include "engine/periodic_engine.h"

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

void evaluate(PeriodicEngine* engine, int n, int nfparam, int naparam) {
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
  Structures s;
  s.x = x.data();
  s.type = type.data();
  s.start = {0, n};
  s.cells = {cell};
  s.fparam = nfparam ? fparam.data() : nullptr;
  s.aparam = naparam ? aparam.data() : nullptr;
  std::vector<double> energies(n), forces(3 * n), virials(9 * n);
  StructureResults to;
  to.energies = energies.data();
  to.forces = forces.data();
  to.virials = virials.data();
  engine->compute(s, 0.0, to);
  write(energies);
  write(forces);
  write(virials);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  try {
    PeriodicEngine engine(argv[1], read_options(argv[2], 1, argv[3], std::string(argv[4]) == "tables"));
    std::string word;
    for (int n, f, a; std::cin >> word >> n >> f >> a;) evaluate(&engine, n, f, a);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}
