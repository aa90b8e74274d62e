// GpuBackend: copies the rows of an exchange between ranks to host memory and back. A kernel writes the sent
// rows directly to host memory; the ghosts' rows are contiguous and copied at once.
#pragma once

#include "cuda/host/gpu_backend.h"

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

template <class T>
void GpuBackend<T>::move_sent_rows(const T* from, T* to, bool add) {
  const int count = static_cast<int>(sent_.size());
  start(MoveRows<T>{count, rep().g1_dim, sent_.data(), from, to, add}, warp_items(count));
}

template <class T>
void* GpuBackend<T>::g1_rows(int l) {
  host_rows_.resize(g1_stride_);
  move_sent_rows(g1(l), host_rows_.data(), false);
  wait();
  return host_rows_.data();
}
template <class T>
void GpuBackend<T>::put_g1_rows(int l) {
  copy_to_device(g1(l) + ghosts_at(), host_rows_.data() + ghosts_at(),
                 (g1_stride_ - ghosts_at()) * sizeof(T));
}

// Zeroes the sent local rows, where the exchange adds the other ranks' gradients, and downloads the ghosts'.
template <class T>
void* GpuBackend<T>::g1_gradient_rows(int l) {
  host_rows_.resize(g1_stride_);
  move_sent_rows(nullptr, host_rows_.data(), false);
  wait();
  copy_to_host(host_rows_.data() + ghosts_at(), dg1(l) + ghosts_at(), (g1_stride_ - ghosts_at()) * sizeof(T));
  return host_rows_.data();
}
template <class T>
void GpuBackend<T>::put_g1_gradient_rows(int l) {
  move_sent_rows(host_rows_.data(), dg1(l), true);
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
