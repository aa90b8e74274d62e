// A frame's periodic cell and the well-shaped basis that the neighbour list works in.
#pragma once

#include <cstdint>

namespace dpa2md {

// One frame's box: rows of h are the lattice vectors (angstrom); an axis that is not periodic ignores its
// row.
struct Cell {
  double h[9] = {};
  bool periodic[3] = {};
};

// A reduced basis of the same lattice: its vectors are as short, hence as orthogonal, as integer combinations
// of the cell's periodic vectors can be, so that a strongly tilted cell costs no more than a cubic one. Axes
// that are not periodic get unit vectors orthogonal to all others.
struct Lattice {
  double h[9];        // rows: basis vectors, angstrom
  double inverse[9];  // fractional s = x . inverse
  std::int64_t
      to_cell[9];    // basis row a = sum_b to_cell[a][b] * cell row b; integer shifts: S_cell = S . to_cell
  double height[3];  // distance between the lattice planes that cut axis a, angstrom
  bool periodic[3];
};

// Throws Error when a periodic vector is shorter than 0.001 angstrom, not finite or beyond
// 1e9 angstrom, or when the periodic vectors are
// (nearly) linearly dependent. `frame` is only for the message.
Lattice make_lattice(const Cell& cell, int frame);

// Applies the integer combinations (lattice.to_cell) to a changed cell's vectors; a cell that became singular
// gives heights of zero or NaN.
Lattice follow_cell(const Lattice& lattice, const Cell& cell);

}  // namespace dpa2md
