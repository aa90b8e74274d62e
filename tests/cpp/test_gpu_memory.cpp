// What the CUDA backend says of its memory, against what it allocates, on the emulated device.
// Usage: test_gpu_memory MODEL.dpa2 ...
#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "cuda/host/emulated_device.h"
#include "engine/engine.h"
#include "model_files.h"
#include "neighbors/neighbors.h"

using namespace dpa2md;

namespace {

constexpr double kSpacing = 2.2;  // angstrom, of a rattled cubic lattice
const char* const kMemory = "DPA2MD_EMULATED_MEMORY";

double held() { return static_cast<double>(gpu_emulated::allocated_bytes.load()); }

// Of side^3 atoms, what the engine gives.
std::vector<double> step(Engine* engine, int side, bool forces) {
  const int n = side * side * side;
  std::mt19937 random(side);
  std::uniform_real_distribution<double> rattle(-0.2, 0.2);
  std::vector<double> x;
  std::vector<int> type;
  for (int i = 0; i < n; ++i) {
    for (const int k : {i % side, i / side % side, i / side / side})
      x.push_back(kSpacing * k + rattle(random));
    type.push_back(i % engine->model().ntypes());
  }
  const double edge = kSpacing * side;
  NeighborList list(engine->model().rcut(), 0.5);
  list.leave_search(engine->searches());
  list.update(x.data(), type.data(), {0, n}, {{{edge, 0, 0, 0, edge, 0, 0, 0, edge}, {true, true, true}}});
  const std::vector<double> fparam(engine->model().fitting.nfparam() + 1, 0.2),
      aparam(static_cast<std::size_t>(n) * engine->model().fitting.naparam() + 1, 0.2);
  const Atoms atoms{n, n, x.data(), type.data(), nullptr, &list.candidates()};
  const Result& r = engine->compute(atoms, forces, fparam.data(), aparam.data(), nullptr, nullptr);
  std::vector<double> out = r.energy;
  out.insert(out.end(), r.force.begin(), r.force.end());
  return out;
}

void test_model(const std::string& path, const std::string& precision, bool forces) {
  unsetenv(kMemory);
  double foretold = 0, fit = 0;
  {
    Engine small(path, read_options(precision, 1, "cuda-emulation"));
    CHECK(small.device_memory(1000).needed == 0);  // no step yet
    step(&small, 5, forces);
    CHECK(small.device_memory(125).needed == held());
    foretold = small.device_memory(512).needed;
    const std::string memory = std::to_string(static_cast<long long>(small.device_memory(343).needed));
    setenv(kMemory, memory.c_str(), 1);
    const DeviceMemory m = small.device_memory(343);
    // all that is kept fits but for a byte, so that less is
    CHECK(m.needed < (1 + 1e-6) * m.free);
    fit = m.atoms;
    CHECK(fit > 342);
  }
  CHECK(held() == 0);
  {
    // The memory is that of 343 such atoms, of at most 700 if less is kept.
    CHECK(fit < 700);
    Engine engine(path, read_options(precision, 1, "cuda-emulation"));
    CHECK_THROWS(step(&engine, 10, forces), Error, "a step of 1000 atoms needs");
    CHECK_THROWS(step(&engine, 10, forces), Error, "such atoms: use fewer atoms");
    step(&engine, 6, forces);  // nothing is lost by a refusal
    if (fit > 400) {           // not all that could be kept fits, which shows in the time alone
      const std::vector<double> with_less = step(&engine, 7, forces);
      unsetenv(kMemory);
      Engine free(path, read_options(precision, 1, "cuda-emulation"));
      CHECK(step(&free, 7, forces) == with_less);
    }
  }
  unsetenv(kMemory);
  Engine large(path, read_options(precision, 1, "cuda-emulation"));
  step(&large, 8, forces);
  const double deviation = std::abs(foretold / held() - 1);
  // Neighbours differ a little, since atoms are rattled differently.
  if (!(deviation < 0.05)) std::fprintf(stderr, "%s: %.1f %% off\n", path.c_str(), 100 * deviation);
  CHECK(deviation < 0.05);
  const DeviceMemory m = large.device_memory(1000000);  // of a device without end
  std::printf("%s %s: %.1f kB an atom, at least %.1f\n", path.substr(path.rfind('/') + 1).c_str(),
              precision.c_str(), (m.needed - large.device_memory(1).needed) / 1e9, m.free / m.atoms / 1e3);
}

}  // namespace

int main(int argc, char** argv) {
  for (int a = 1; a < argc; ++a) {
    for (const std::string& path : model_files(argv[a])) {
      for (const char* precision : {"float32", "float64"}) test_model(path, precision, true);
      test_model(path, "float32", false);
    }
  }
  // In chunks, of which the last is a small one; all models alike.
  setenv("DPA2MD_EMULATED_CHUNK", "64", 1);
  if (argc > 1) test_model(model_files(argv[1]).front(), "float32", true);
  CHECK(argc > 1);
  return check_result();
}
