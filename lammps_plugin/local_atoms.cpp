#include "local_atoms.h"

#include <cmath>

#include "lmptype.h"
#include "neigh_list.h"

namespace dpa2md {

int LocalAtoms::rebuild(const LAMMPS_NS::NeighList& list, int nlocal, const std::vector<char>& seen,
                        const Owners& owners, int me) {
  const int nall = static_cast<int>(owners.rank.size());
  index_.clear();
  row_.clear();
  index_of_row_.clear();
  row_of_index_.assign(nall, -1);
  std::vector<int> position(nall, -1);
  natoms_ = 0;
  for (int i = 0; i < nall; ++i) {
    const bool image = i >= nlocal && owners.rank[i] == me;
    if (!seen[image ? owners.index[i] : i]) continue;
    const int row = image ? row_of_index_[owners.index[i]] : static_cast<int>(index_of_row_.size());
    if (!image) index_of_row_.push_back(i);
    if (i < nlocal) ++natoms_;
    position[i] = static_cast<int>(index_.size());
    row_of_index_[i] = row;
    index_.push_back(i);
    row_.push_back(row);
  }
  return fill_candidates(list, nlocal, position);
}

int LocalAtoms::fill_candidates(const LAMMPS_NS::NeighList& list, int nlocal,
                                const std::vector<int>& position) {
  std::vector<int> entry(nlocal, -1);  // hybrid's lists hold some atoms only, in any order
  for (int e = 0; e < list.inum; ++e) entry[list.ilist[e]] = list.ilist[e];
  candidates_.version = next_list_version();
  candidates_.first.assign(1, 0);
  candidates_.atom.clear();
  candidates_.shift_vectors.assign(3, 0.0);  // LAMMPS's ghosts are where they are: no shifts
  int missing = -1;
  for (int p = 0; p < natoms_; ++p) {
    const int i = entry[index_[p]];
    if (i < 0) missing = index_[p];
    for (int k = 0; i >= 0 && k < list.numneigh[i]; ++k) {
      const int j = position[list.firstneigh[i][k] & NEIGHMASK];
      if (j >= 0) candidates_.atom.push_back(j);
    }
    candidates_.first.push_back(static_cast<std::int64_t>(candidates_.atom.size()));
  }
  candidates_.shift.assign(candidates_.atom.size(), 0);
  return missing;
}

bool LocalAtoms::copy_positions(const double* const* x) {
  x_.resize(3 * index_.size());
  bool finite = true;
  for (std::size_t p = 0; p < index_.size(); ++p) {
    for (int c = 0; c < 3; ++c) {
      x_[3 * p + c] = x[index_[p]][c];
      finite = finite && std::isfinite(x_[3 * p + c]);
    }
  }
  return finite;
}

Atoms LocalAtoms::view(const int* lammps_type, const std::vector<int>& model_type) {
  type_.resize(row_.size());
  for (std::size_t p = 0; p < type_.size(); ++p) type_[p] = model_type[lammps_type[index_of_row_[row_[p]]]];
  return {natoms_, nrows(), x_.data(), type_.data(), row_.data(), &candidates_};
}

}  // namespace dpa2md
