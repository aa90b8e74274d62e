// Converts LAMMPS's arrays and its full neighbour list into the core's atoms of one rank
// (csrc/neighbors/pairs.h). A LAMMPS *index* is a local atom or a ghost; a *position* is an index that the
// model sees (types of other styles of `hybrid`, and atoms that LAMMPS excludes, are left out); a *row* holds
// the features of a position.
#pragma once

#include <vector>

#include "neighbors/pairs.h"

namespace LAMMPS_NS {
class NeighList;
}

namespace dpa2md {

// The owner of each LAMMPS index.
struct Owners {
  std::vector<int> rank, index;  // (nall): the owner's rank and its local index there
};

class LocalAtoms {
 public:
  // After LAMMPS made a new neighbour list, or when other atoms than before are seen. seen (nall); an image
  // of an own atom is seen when its atom is. Returns the index of a seen local atom that the list does not
  // hold, or -1.
  int rebuild(const LAMMPS_NS::NeighList& list, int nlocal, const std::vector<char>& seen,
              const Owners& owners, int me);
  // Copies positions; false when one is not a finite number.
  bool copy_positions(const double* const* x);
  // lammps_type (nlocal + ghosts) are LAMMPS's types now, which may change while its list stays; model_type
  // (LAMMPS types + 1) is the model's type of each. Valid until the next call.
  Atoms view(const int* lammps_type, const std::vector<int>& model_type);

  int natoms() const { return natoms_; }
  int nrows() const { return static_cast<int>(index_of_row_.size()); }
  int index_of_row(int row) const { return index_of_row_[row]; }
  // -1: left out. Own images share the row of their atom.
  int row_of_index(int index) const { return row_of_index_[index]; }

 private:
  int fill_candidates(const LAMMPS_NS::NeighList& list, int nlocal, const std::vector<int>& position);

  int natoms_ = 0;                 // local positions
  std::vector<int> index_, row_;   // (positions)
  std::vector<int> row_of_index_;  // (nall)
  std::vector<int> index_of_row_;  // (nrows)
  std::vector<double> x_;          // (positions, 3)
  std::vector<int> type_;          // (positions), of the model viewed last
  Candidates candidates_;
};

}  // namespace dpa2md
