// compute ID group dpa2/descriptor: per atom, the vector that enters the fitting net of pair_style dpa2's
// first model. The pair style has it from its last evaluation, so nothing is evaluated here.
#pragma once

#include <algorithm>
#include <string>

#include "atom.h"
#include "compute.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "pair_dpa2.h"
#include "update.h"

namespace LAMMPS_NS {

class ComputeDescriptor : public Compute {
 public:
  ComputeDescriptor(LAMMPS* lmp, int narg, char** arg) : Compute(lmp, narg, arg) {
    if (narg != 3) error->all(FLERR, "compute dpa2/descriptor takes nothing after the group.");
    peratom_flag = 1;
    size_peratom_cols = pair().descriptor_dim();
  }
  ~ComputeDescriptor() override { memory->destroy(array_atom); }

  void init() override {
    if (pair().descriptor_dim() == size_peratom_cols) return;
    error->all(FLERR, "compute " + std::string(id) + " has " + std::to_string(size_peratom_cols) +
                          " columns, but the model that pair_style dpa2 has now gives " +
                          std::to_string(pair().descriptor_dim()) + ": define the compute again.");
  }

  void compute_peratom() override {
    invoked_peratom = update->ntimestep;
    if (atom->nmax > rows_) {
      rows_ = atom->nmax;
      memory->destroy(array_atom);
      memory->create(array_atom, rows_, size_peratom_cols, "dpa2/descriptor:array_atom");
    }
    pair().copy_descriptors(array_atom);
    for (int i = 0; i < atom->nlocal; ++i) {
      if (!(atom->mask[i] & groupbit)) std::fill(array_atom[i], array_atom[i] + size_peratom_cols, 0.0);
    }
  }

  double memory_usage() override { return sizeof(double) * static_cast<double>(rows_) * size_peratom_cols; }

 private:
  PairDPA2& pair() const {
    Pair* found = force->pair_match("dpa2", 1);
    if (!found) error->all(FLERR, "compute dpa2/descriptor needs one pair_style dpa2 before it.");
    return static_cast<PairDPA2&>(*found);
  }

  int rows_ = 0;
};

}  // namespace LAMMPS_NS
