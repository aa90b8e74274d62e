// Chooses the instruction set at run time. The stages are compiled once per set, each in its own namespace.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "cpu/parts/memory_limit.h"
#include "engine/backend.h"

namespace dpa2md {

#define DPA2MD_DECLARE(isa)                                                                        \
  namespace isa {                                                                                  \
  std::unique_ptr<Backend> make_backend(const Model& model, bool single, int threads, bool tables, \
                                        bool low_memory);                                          \
  }
DPA2MD_DECLARE(cpu_portable)
DPA2MD_DECLARE(cpu_avx2)
DPA2MD_DECLARE(cpu_avx512)

namespace {

struct InstructionSet {
  const char* name;
  bool runs;  // on this processor
  decltype(&cpu_portable::make_backend) make_backend;
};

// Those that were compiled, the best first.
std::vector<InstructionSet> instruction_sets() {
  [[maybe_unused]] bool avx2 = false, avx512 = false;
#if defined(__x86_64__)
  __builtin_cpu_init();
  avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
  return {
#ifdef DPA2MD_HAVE_avx512
      {"avx512", avx512, cpu_avx512::make_backend},
#endif
#ifdef DPA2MD_HAVE_avx2
      {"avx2", avx2, cpu_avx2::make_backend},
#endif
#ifdef DPA2MD_HAVE_portable
      {"portable", true, cpu_portable::make_backend},
#endif
  };
}

// DPA2MD_ISA=portable|avx2|avx512 asks for a lower set than the processor has, for tests and for comparing.
InstructionSet choose_isa() {
  const char* wanted = std::getenv("DPA2MD_ISA");
  const std::string ask = wanted ? wanted : "";
  if (!ask.empty() && ask != "portable" && ask != "avx2" && ask != "avx512") {
    throw Error("DPA2MD_ISA=" + ask + " is unknown: use portable, avx2 or avx512, or unset it.");
  }
  for (const InstructionSet& set : instruction_sets()) {
    if (ask == set.name && !set.runs)
      throw Error("DPA2MD_ISA=" + ask +
                  " asks for instructions that this processor does not have: unset it.");
    if (set.runs && (ask.empty() || ask == set.name)) return set;
  }
  throw Error("this build of dpa2md has no code for " + (ask.empty() ? "this processor" : ask) +
              ": build it with -DDPA2MD_ISAS=\"portable;avx2;avx512\".");
}

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const Model& model, Precision precision, int threads, bool tables,
                                          bool low_memory) {
  return choose_isa().make_backend(model, precision == Precision::kFloat32, threads, tables, low_memory);
}

void check_memory(std::size_t bytes, std::size_t held, std::int64_t natoms, bool low_memory) {
  if (bytes <= held || bytes < (std::size_t{1} << 28)) return;
  std::ifstream in("/proc/meminfo");
  std::string key, unit;
  std::size_t kilobytes = 0;
  while (in >> key >> kilobytes >> unit) {
    if (key != "MemAvailable:") continue;
    if ((bytes - held) / 1024 > kilobytes) {
      char text[256];
      std::snprintf(text, sizeof(text),
                    "%lld atoms need %.1f GB of memory, but only %.1f GB are free: use fewer atoms, "
                    "%sprecision float32 "
                    "or more machines.",
                    static_cast<long long>(natoms), bytes / 1e9, (kilobytes * 1024.0 + held) / 1e9,
                    low_memory ? "" : "low_memory, ");
      throw Error(text);
    }
    return;
  }
}

}  // namespace dpa2md
