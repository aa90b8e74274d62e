// Copies the rows of an exchange between ranks to host memory and back. A kernel writes the sent rows
// directly to host memory; the ghosts' rows are contiguous and copied at once.
#pragma once

#include <vector>

#include "cuda/host/starter.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// Copies the listed rows of `from` (zeros if null) to `to`, or adds them; one warp per row.
template <class T>
struct MoveRows {
  int count, width;
  const int* rows;  // (count)
  const T* from;
  T* to;
  bool add;

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    each_of_item(b, item, count, [&](int k) {
      const std::int64_t at = static_cast<std::int64_t>(rows[k]) * width;
      for (int c = b.lane; c < width; c += b.lanes) {
        const T x = from ? from[at + c] : T(0);
        to[at + c] = add ? to[at + c] + x : x;
      }
    });
  }
};

// Of arrays (rows, width) on the device, whose ghosts' rows are the last.
template <class T>
class RowExchange {
 public:
  RowExchange(int width, Starter* starter) : width_(width), starter_(starter) {}

  // The rows that an exchange sends, and the first ghost.
  void set_sent(const std::vector<int>& sent, int natoms, int nrows) {
    sent_.upload(sent);
    ghosts_at_ = static_cast<std::size_t>(natoms) * width_;
    size_ = static_cast<std::size_t>(nrows) * width_;
  }
  // Copies the sent rows to host memory, which it returns: all rows, the others undefined.
  T* take_sent(const T* rows) {
    host_.resize(size_);
    move(rows, host_.data(), false);
    starter_->wait();
    return host_.data();
  }
  // Copies the ghosts' rows from there.
  void put_ghosts(T* rows) {
    copy_to_device(rows + ghosts_at_, host_.data() + ghosts_at_, (size_ - ghosts_at_) * sizeof(T));
  }
  // Copies the ghosts' rows to host memory, and zeroes the sent ones, where an exchange adds.
  T* take_ghosts(const T* rows) {
    T* host = take_sent(nullptr);
    copy_to_host(host + ghosts_at_, rows + ghosts_at_, (size_ - ghosts_at_) * sizeof(T));
    return host;
  }
  // Adds the sent rows from there.
  void add_sent(T* rows) { move(host_.data(), rows, true); }

 private:
  void move(const T* from, T* to, bool add) {
    const int count = static_cast<int>(sent_.size());
    starter_->start(MoveRows<T>{count, width_, sent_.data(), from, to, add}, warp_items(count));
  }

  int width_;
  Starter* starter_;
  std::size_t ghosts_at_ = 0, size_ = 0;
  HostBuffer<T> host_;
  Buffer<int> sent_;
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
