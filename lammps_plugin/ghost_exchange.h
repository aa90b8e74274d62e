// Rows of ghosts through LAMMPS's own communication. LAMMPS's forward_comm and reverse_comm call the pair
// style back to fill and empty their buffers; the pair style hands those calls on to here.
#pragma once

#include <cstddef>
#include <vector>

#include "engine/exchange.h"
#include "local_atoms.h"

namespace LAMMPS_NS {
class Comm;
class Pair;
}  // namespace LAMMPS_NS

namespace dpa2md {

class GhostExchange : public Exchange {
 public:
  // `comm` is LAMMPS's own pointer: the command comm_style puts another object there.
  GhostExchange(LAMMPS_NS::Comm*& comm, LAMMPS_NS::Pair* pair, const LocalAtoms* atoms)
      : comm_(comm), pair_(pair), atoms_(atoms) {}

  // Doubles of LAMMPS's buffers that one row takes: float rows travel two to a double.
  static int buffer_size(int width, bool single) { return single ? (width + 1) / 2 : width; }
  static constexpr int kOwnerSize = 2;

  // Tells every ghost its owner, without an atom map. Collective.
  void find_owners(int nlocal, int nall, Owners* owners);
  // Afterwards, when the atoms know their rows.
  void find_sent_rows();

  // Collective. rows (nrows, width)
  void forward(void* rows, int width, bool single) override;
  void reverse(void* rows, int width, bool single) override;
  const std::vector<int>& sent_rows() const override { return sent_rows_; }

  // LAMMPS's callbacks, see Pair.
  int pack_forward(int n, const int* list, double* buf);
  void unpack_forward(int n, int first, const double* buf);
  int pack_reverse(int n, int first, double* buf);
  void unpack_reverse(int n, const int* list, const double* buf);

 private:
  char* row(int r) const { return rows_ + row_bytes_ * static_cast<std::size_t>(r); }
  void start(void* rows, int width, bool single);
  template <class T>
  void add(int r, const double* from);
  // Ghosts of other ranks have their own rows; images of local atoms share their atom's row and need no
  // message.
  bool is_remote(int row) const { return row >= atoms_->natoms(); }

  LAMMPS_NS::Comm*& comm_;
  LAMMPS_NS::Pair* pair_;
  const LocalAtoms* atoms_;
  std::vector<char> sent_;      // (nall) indices that LAMMPS sends
  std::vector<int> sent_rows_;  // their local rows
  // the current message
  Owners* owners_ = nullptr;  // or else rows:
  char* rows_ = nullptr;
  std::size_t row_bytes_ = 0;
  int width_ = 0, size_ = 0;  // numbers of a row, doubles of a row in the buffer
  bool single_ = false;
};

}  // namespace dpa2md
