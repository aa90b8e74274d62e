// The pair list of one step: every centre's neighbours inside the cutoffs, in the order that all stages rely
// on.
#pragma once

#include <cstdint>
#include <vector>

#include "neighbors/neighbors.h"

namespace dpa2md {

struct Model;

// The atoms of one rank (or of one process, frames side by side). A position index can be a local atom (0 …
// natoms-1) or a ghost; a row is where a feature lives: local rows 0 … natoms-1, then one row per remote
// ghost. Periodic images of local atoms share their owner's row, so a single rank has no ghost rows at all.
struct Atoms {
  int natoms = 0;             // centres
  int nrows = 0;              // natoms + remote ghosts
  const double* x = nullptr;  // (nall, 3) angstrom
  const int* type = nullptr;  // (nall); < 0: virtual, no energy and nobody's neighbour
  const int* row = nullptr;   // (nall), or null: row = position index
  const Candidates* candidates = nullptr;
};

// A prefix of every atom's pairs, numbered on its own: pair k of atom i is first[i] + k here.
struct Prefix {
  std::vector<int> count;           // (natoms)
  std::vector<std::int64_t> first;  // (natoms + 1)
};

struct PairList {
  int natoms = 0, nrows = 0;
  std::int64_t size = 0;  // pairs
  // All pairs are repinit's. The nearest come first as far as the shorter cutoffs and room demand it: the
  // repformer's and three-body's neighbours are prefixes of an atom's pairs.
  Prefix repinit, three_body, repformer;
  std::vector<double> vec;          // (pairs, 3) r_j - r_i, angstrom
  std::vector<std::int32_t> row;    // (pairs) neighbour's row
  std::vector<std::int32_t> type;   // (pairs) neighbour's type
  std::vector<int> center_type;     // (natoms)
  std::vector<char> types_present;  // (ntypes) among centres and neighbours, or expected
  std::vector<int> zeroed;  // (natoms) pairs that descriptor exclusion turned into zero rows of repinit
  int max_count = 0;        // most pairs of one atom
  // The atom with the most neighbours beyond the room (nearest kept, as DeePMD-kit does), -1 when all fit.
  int overfull_atom = -1, overfull_count = 0, overfull_nsel = 0;
};

constexpr double kCoincident = 1e-4;  // angstrom: closer atoms are an input error, not physics

// Throws Error for a type that the model does not have.
void check_atoms(const Model& model, const Atoms& atoms);
// Throws Error: this atom sits on top of another one.
[[noreturn]] void refuse_coincident(int atom);

// Selects from the candidates what the model sees at these positions. Throws Error for coincident atoms and
// for positions that are not finite.
void build_pairs(const Model& model, const Atoms& atoms, PairList* out);

}  // namespace dpa2md
