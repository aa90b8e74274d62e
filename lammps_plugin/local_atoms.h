// The atoms of one rank as the core wants them (csrc/pairs.h), from LAMMPS's arrays and its full neighbour
// list. A LAMMPS *index* is a local atom or a ghost; a *position* is an index whose type has an element
// (types that belong to other styles of `hybrid` are left out); a *row* is where the features of a position
// live.
#pragma once

#include <vector>

#include "../csrc/pairs.h"

namespace LAMMPS_NS {
class NeighList;
}

namespace dpa2md {

// Who owns each LAMMPS index.
struct Owners {
  std::vector<int> rank, index;  // (nall): the owner's rank and its local index there
};

class LocalAtoms {
 public:
  // After LAMMPS made a new neighbour list. has_element (LAMMPS types + 1). type (nall) are LAMMPS's.
  void rebuild(const LAMMPS_NS::NeighList& list, int nlocal, const int* type,
               const std::vector<char>& has_element, const Owners& owners, int me);
  // Copies positions; false when one is not a finite number.
  bool copy_positions(const double* const* x);
  // model_type (LAMMPS types + 1) is the model's type of each LAMMPS type. Valid until the next call.
  Atoms view(const std::vector<int>& model_type);

  int natoms() const { return natoms_; }
  int nrows() const { return static_cast<int>(index_of_row_.size()); }
  int index_of_row(int row) const { return index_of_row_[row]; }
  // -1: left out. Own images share the row of their atom.
  int row_of_index(int index) const { return row_of_index_[index]; }

 private:
  void fill_candidates(const LAMMPS_NS::NeighList& list, int nlocal, const std::vector<int>& position);

  int natoms_ = 0;                              // local positions
  std::vector<int> index_, lammps_type_, row_;  // (positions)
  std::vector<int> row_of_index_;               // (nall)
  std::vector<int> index_of_row_;               // (nrows)
  std::vector<double> x_;                       // (positions, 3)
  std::vector<int> type_;                       // (positions), of the model viewed last
  Candidates candidates_;
};

}  // namespace dpa2md
