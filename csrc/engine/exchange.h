// How features of remote ghosts travel. The engine calls it once a layer in each direction and knows nothing
// of MPI: one process needs no exchange, LAMMPS's pair style uses LAMMPS's own communication, a test uses
// threads.
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
  // Local rows that forward reads and reverse adds to, ascending: no others of the local ones need be there.
  virtual const std::vector<int>& sent_rows() const = 0;
};

}  // namespace dpa2md
