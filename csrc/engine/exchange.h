// The exchange of remote ghosts' features. The engine calls it once per layer and direction, and does not use
// MPI itself: one process needs no exchange, LAMMPS's pair style uses LAMMPS's communication, a test threads.
#pragma once

#include <vector>

namespace dpa2md {

class Exchange {
 public:
  virtual ~Exchange() = default;
  // Copies owners' rows into ghost rows. rows: (nrows, width), float when `single`, else double.
  virtual void forward(void* rows, int width, bool single) = 0;
  // Adds ghost rows into their owners' rows.
  virtual void reverse(void* rows, int width, bool single) = 0;
  // The local rows that forward reads and reverse adds to, ascending; no other local rows need be valid.
  virtual const std::vector<int>& sent_rows() const = 0;
};

}  // namespace dpa2md
