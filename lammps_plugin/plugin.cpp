// The entry point that LAMMPS looks for in a plugin, and the guard against a LAMMPS that it was not built
// for: the C++ interface of a pair style differs between versions, and LAMMPS itself does not refuse.
#include <dlfcn.h>
#include <mpi.h>

#include <cstdio>
#include <string>

#include "lammps.h"
#include "lmptype.h"
#include "pair_dpa2.h"

namespace {

// LAMMPS's plugin interface (lammpsplugin.h, which is not part of the PyPI wheel).
extern "C" {
typedef void*(lammpsplugin_factory1)(void*);
typedef void*(lammpsplugin_factory2)(void*, int, char**);
typedef struct {
  const char* version;
  const char* style;
  const char* name;
  const char* info;
  const char* author;
  union {
    lammpsplugin_factory1* v1;
    lammpsplugin_factory2* v2;
  } creator;
  void* handle;
} lammpsplugin_t;
typedef void (*lammpsplugin_regfunc)(lammpsplugin_t*, void*);
}

void* create_pair(void* lmp) { return new LAMMPS_NS::PairDPA2(static_cast<LAMMPS_NS::LAMMPS*>(lmp)); }

template <class F>
F* find(const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_DEFAULT, name));
}

// Asks through LAMMPS's C interface, which is the same in all versions. Empty when this plugin fits.
std::string misfit(void* lmp) {
  const auto version = find<int(void*)>("lammps_version");
  const auto setting = find<int(void*, const char*)>("lammps_extract_setting");
  const auto has_mpi = find<int()>("lammps_config_has_mpi_support");
  if (!version || !setting || !has_mpi) return "this LAMMPS does not tell its version";
  if (version(lmp) != DPA2MD_LAMMPS_VERSION) return "this LAMMPS is version " + std::to_string(version(lmp));
  if (setting(lmp, "tagint") != static_cast<int>(sizeof(LAMMPS_NS::tagint)) ||
      setting(lmp, "bigint") != static_cast<int>(sizeof(LAMMPS_NS::bigint)) ||
      setting(lmp, "imageint") != static_cast<int>(sizeof(LAMMPS_NS::imageint))) {
    return "this LAMMPS has other integer sizes (SMALLBIG, BIGBIG)";
  }
#ifdef DPA2MD_LAMMPS_SERIAL
  if (has_mpi()) return "this LAMMPS uses MPI and the plugin does not";
#else
  if (!has_mpi()) return "this LAMMPS is serial and the plugin uses MPI";
#endif
#if defined(MPICH_VERSION) || defined(MPI_ABI)
  if (dlsym(RTLD_DEFAULT, "ompi_mpi_comm_world")) return "this LAMMPS uses Open MPI and the plugin MPICH";
#endif
  return "";
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void lammpsplugin_init(void* lmp, void* handle,
                                                                         void* regfunc) {
  const std::string problem = misfit(lmp);
  if (!problem.empty()) {
    std::fprintf(
        stderr,
        "dpa2md: pair_style dpa2 is not available: %s, but the plugin was built for version %d; build it "
        "for this LAMMPS (docs/lammps.md).\n",
        problem.c_str(), DPA2MD_LAMMPS_VERSION);
    return;
  }
  lammpsplugin_t plugin;
  plugin.version = static_cast<LAMMPS_NS::LAMMPS*>(lmp)->version;
  plugin.style = "pair";
  plugin.name = "dpa2";
  plugin.info = "DPA-2 models of DeePMD-kit, dpa2md " DPA2MD_VERSION;
  plugin.author = "The dpa2md developers";
  plugin.creator.v1 = create_pair;
  plugin.handle = handle;
  reinterpret_cast<lammpsplugin_regfunc>(regfunc)(&plugin, lmp);
}
