// The candidate pair list: every pair, periodic images included, that can come within the cutoff before the
// next rebuild. Built in linear time from bins, reused while a skin covers all motion of atoms and cells.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "neighbors/lattice.h"

namespace dpa2md {

struct AtomBins;

// A full list (i->j and j->i) in CSR form over centre atoms. An atom's own images are in its row; the atom
// itself (zero shift) is not. Coincident atoms (r = 0) are kept. The order within a row does not depend on
// the number of threads.
struct Candidates {
  std::uint64_t version = 0;        // another one for every list (next_list_version); 0: nobody keeps account
  std::vector<std::int64_t> first;  // (natoms + 1)
  std::vector<std::int32_t> atom;   // neighbour's index into positions
  std::vector<std::int32_t> shift;  // index into shift vectors; 0 is always the zero shift
  std::vector<double>
      shift_vectors;  // (nshifts, 3): neighbour image = x[atom] + shift_vectors[shift], angstrom
  // Not null: the search is left to a device, and first, atom and shift are empty. The shift of frame f with
  // the key k (neighbor_bins.h) is number zero_shift[f] + k.
  const AtomBins* bins = nullptr;
  std::vector<std::int64_t> zero_shift;
};

// A new version number, unique and never 0.
std::uint64_t next_list_version();

class NeighborList {
 public:
  // rcut > 0 and skin >= 0, angstrom; throws Error otherwise.
  NeighborList(double rcut, double skin);
  ~NeighborList();
  NeighborList(NeighborList&&) noexcept;
  NeighborList& operator=(NeighborList&&) noexcept;

  // Leaves the search to a device: from the next rebuild on, update() only bins the atoms, unless there are
  // very many shifts.
  void leave_search(bool to_device);

  // Brings candidates up to date for these positions; returns true when the list was rebuilt, false when it
  // was reused. After a rebuild it holds every pair with r <= rcut + skin. It is reused when frames,
  // periodicity and virtual atoms are the same and no pair can have come inside rcut since: per frame
  //   2 max|dx| + sum_a M_a |dh_a| <= skin,   M_a >= |S_a| of every pair within rcut now
  // (the vector of a pair with integer shift S changes by dx_j - dx_i + S dh). Shift vectors are always those
  // of the current cells.
  //
  // x: (natoms, 3) positions, angstrom, anywhere: atoms need not lie inside the cell.
  // type: (natoms); type < 0 is a virtual atom: in nobody's row, its own row empty, its position ignored.
  // frame_start: (nframes + 1) offsets into the atoms; frames do not see each other. cells: (nframes).
  //
  // Throws Error, and rebuilds at the next call, for positions or periodic vectors that are not finite or
  // beyond 1e9 angstrom, (nearly) dependent periodic vectors, more than 1e7 pairs per atom (an extremely thin
  // cell), and inconsistent arguments.
  bool update(const double* x, const int* type, const std::vector<int>& frame_start,
              const std::vector<Cell>& cells);
  const Candidates& candidates() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dpa2md
