#include "ghost_exchange.h"

#include <algorithm>
#include <cstring>

#include "comm.h"
#include "pair.h"

namespace dpa2md {
namespace {

// Sets the pair style's message size for one message. LAMMPS reads it there; it else holds the largest of the
// run.
class MessageSize {
 public:
  MessageSize(LAMMPS_NS::Pair* pair, int size)
      : pair_(pair), forward_(pair->comm_forward), reverse_(pair->comm_reverse) {
    set(size, size);
  }
  ~MessageSize() { set(forward_, reverse_); }

 private:
  void set(int forward, int reverse) {
    pair_->comm_forward = forward;
    pair_->comm_reverse = pair_->comm_reverse_off = reverse;
  }
  LAMMPS_NS::Pair* pair_;
  int forward_, reverse_;
};

}  // namespace

void GhostExchange::find_owners(int nlocal, int nall, Owners* owners) {
  owners->rank.assign(nall, comm_->me);
  owners->index.resize(nall);
  for (int i = 0; i < nlocal; ++i) owners->index[i] = i;
  owners_ = owners;
  sent_.assign(nall, 0);
  const MessageSize size(pair_, kOwnerSize);
  comm_->forward_comm(pair_);
  owners_ = nullptr;
}

// An image of an own atom is sent from the row of that atom.
void GhostExchange::find_sent_rows() {
  std::vector<char> local(atoms_->natoms(), 0);
  for (std::size_t i = 0; i < sent_.size(); ++i) {
    const int r = atoms_->row_of_index(static_cast<int>(i));
    if (sent_[i] && r >= 0 && !is_remote(r)) local[r] = 1;
  }
  sent_rows_.clear();
  for (std::size_t r = 0; r < local.size(); ++r) {
    if (local[r]) sent_rows_.push_back(static_cast<int>(r));
  }
}

void GhostExchange::start(void* rows, int width, bool single) {
  rows_ = static_cast<char*>(rows);
  width_ = width;
  single_ = single;
  row_bytes_ = width * (single ? sizeof(float) : sizeof(double));
  size_ = buffer_size(width, single);
}

void GhostExchange::forward(void* rows, int width, bool single) {
  start(rows, width, single);
  const MessageSize size(pair_, size_);
  comm_->forward_comm(pair_);
}

void GhostExchange::reverse(void* rows, int width, bool single) {
  start(rows, width, single);
  const MessageSize size(pair_, size_);
  comm_->reverse_comm(pair_);
}

int GhostExchange::pack_forward(int n, const int* list, double* buf) {
  if (owners_) {
    for (int k = 0; k < n; ++k) {
      sent_[list[k]] = 1;
      *buf++ = owners_->rank[list[k]];
      *buf++ = owners_->index[list[k]];
    }
    return kOwnerSize * n;
  }
  for (int k = 0; k < n; ++k, buf += size_) {
    const int r = atoms_->row_of_index(list[k]);
    if (r >= 0) std::memcpy(buf, row(r), row_bytes_);
  }
  return size_ * n;
}

void GhostExchange::unpack_forward(int n, int first, const double* buf) {
  if (owners_) {
    for (int i = first; i < first + n; ++i) {
      owners_->rank[i] = static_cast<int>(*buf++);
      owners_->index[i] = static_cast<int>(*buf++);
    }
    return;
  }
  for (int i = first; i < first + n; ++i, buf += size_) {
    const int r = atoms_->row_of_index(i);
    if (is_remote(r)) std::memcpy(row(r), buf, row_bytes_);
  }
}

int GhostExchange::pack_reverse(int n, int first, double* buf) {
  for (int i = first; i < first + n; ++i, buf += size_) {
    const int r = atoms_->row_of_index(i);
    if (is_remote(r)) {
      std::memcpy(buf, row(r), row_bytes_);
    } else {
      std::fill(buf, buf + size_, 0.0);  // already in the owner's row; as floats it is zero, too
    }
  }
  return size_ * n;
}

template <class T>
void GhostExchange::add(int r, const double* from) {
  T* to = reinterpret_cast<T*>(row(r));
  const char* bytes = reinterpret_cast<const char*>(from);
  for (int c = 0; c < width_; ++c) {
    T x;
    std::memcpy(&x, bytes + c * sizeof(T), sizeof(T));
    to[c] += x;
  }
}

void GhostExchange::unpack_reverse(int n, const int* list, const double* buf) {
  for (int k = 0; k < n; ++k, buf += size_) {
    // A ghost that is sent on to a third rank collects here and travels to its owner in a later message.
    const int r = atoms_->row_of_index(list[k]);
    if (r < 0) continue;
    if (single_) {
      add<float>(r, buf);
    } else {
      add<double>(r, buf);
    }
  }
}

}  // namespace dpa2md
