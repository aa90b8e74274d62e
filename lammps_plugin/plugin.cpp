// The plugin that LAMMPS loads. It checks that the pair style was built for this LAMMPS, then loads the pair
// style from the library beside it. The C++ interface differs between versions and builds, which LAMMPS does
// not check; the C interface that is used here works in all of them.
#include <dlfcn.h>
#include <mpi.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "lmptype.h"

// Stored as text in this library, so that `dpa2md doctor` can read it without loading anything.
#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#ifdef LAMMPS_BIGBIG
#define SIZES "BIGBIG"
#else
#define SIZES "SMALLBIG"
#endif
#ifdef DPA2MD_LAMMPS_SERIAL
#define MESSAGES "serial"
#elif defined(MPICH_VERSION) || defined(MPI_ABI)
#define MESSAGES "MPICH"
#else
#define MESSAGES "MPI"
#endif
#define BUILT_FOR "built for version " TEXT(DPA2MD_LAMMPS_VERSION) " (" SIZES ", " MESSAGES ")"
#define REMEDY ", but the plugin was " BUILT_FOR "; build it for this LAMMPS (docs/lammps.md)"

namespace {

template <class F>
F* find(const char* name, void* library = RTLD_DEFAULT) {
  return reinterpret_cast<F*>(dlsym(library, name));
}

// Empty when the pair style fits.
std::string misfit(void* lmp) {
  const auto version = find<int(void*)>("lammps_version");
  const auto setting = find<int(void*, const char*)>("lammps_extract_setting");
  const auto has_mpi = find<int()>("lammps_config_has_mpi_support");
  if (!version || !setting || !has_mpi) return "this LAMMPS does not tell its version";
  if (version(lmp) != DPA2MD_LAMMPS_VERSION) return "this LAMMPS is version " + std::to_string(version(lmp));
  if (setting(lmp, "tagint") != static_cast<int>(sizeof(LAMMPS_NS::tagint)) ||
      setting(lmp, "bigint") != static_cast<int>(sizeof(LAMMPS_NS::bigint)) ||
      setting(lmp, "imageint") != static_cast<int>(sizeof(LAMMPS_NS::imageint))) {
    return "this LAMMPS has other integer sizes";
  }
#ifdef DPA2MD_LAMMPS_SERIAL
  if (has_mpi()) return "this LAMMPS uses MPI";
#else
  if (!has_mpi()) return "this LAMMPS is serial";
#endif
#if defined(MPICH_VERSION) || defined(MPI_ABI)
  if (dlsym(RTLD_DEFAULT, "ompi_mpi_comm_world")) return "this LAMMPS uses Open MPI";
#endif
  return "";
}

// Loads the pair style and lets it register; returns what went wrong.
std::string load_pair(void* lmp, void* handle, void* regfunc) {
  Dl_info self;
  if (!dladdr(reinterpret_cast<void*>(&load_pair), &self)) return "the plugin can't find its own place";
  std::string path = self.dli_fname;
  path.erase(path.find_last_of('/') + 1);
  path += "pair_dpa2.so";
  if (access(path.c_str(), R_OK) != 0) return path + " is missing; it must be beside dpa2plugin.so";
  void* library = dlopen(path.c_str(), RTLD_NOW);
  // Other C++ strings (_GLIBCXX_USE_CXX11_ABI), or a LAMMPS of this version that somebody has changed.
  if (!library) return std::string("this LAMMPS has another C++ interface (") + dlerror() + ")" REMEDY;
  const auto enter = find<void(void*, void*, void*)>("dpa2md_register", library);
  if (!enter) return path + " is not the pair style";
  enter(lmp, handle, regfunc);
  return "";
}

}  // namespace

extern "C" void lammpsplugin_init(void* lmp, void* handle, void* regfunc) {
  std::string problem = misfit(lmp);
  problem = problem.empty() ? load_pair(lmp, handle, regfunc) : problem + REMEDY;
  if (problem.empty()) return;
  const auto setting = find<int(void*, const char*)>("lammps_extract_setting");
  if (setting && setting(lmp, "world_rank") > 0) return;  // one rank speaks for all
  std::fprintf(stderr, "dpa2md: pair_style dpa2 is not available: %s.\n", problem.c_str());
}
