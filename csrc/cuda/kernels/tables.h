// Tables of embedding nets (embedding_tables.h) on the device: six coefficients per cell and channel, of a
// polynomial of the place in the cell. Pairs of the same cell share the work on channels.
#pragma once

#include <cmath>

#include "cuda/kernels/views.h"

namespace dpa2md {
namespace DPA2MD_GPU {

constexpr int kPowers = 6;  // coefficients of a polynomial

// Launch bounds of the table kernels: threads per block for few atoms; registers for five blocks of kThreads,
// so that warps hide each other's load latency.
constexpr int kTableThreads = 320;
template <class T>
constexpr int kTableBlocks = sizeof(T) == 4 ? 2 : 1;

// A cell of a table, and a place in it, from -1/2 to 1/2.
template <class T>
struct TablePlace {
  int cell;
  T at;
};

// Whether the table covers x. It extends a thousandth of a cell beyond its ends, since rounding can take the
// switch of a pair at the cutoff below zero.
template <class T>
DPA2MD_KERNEL bool covers(const TableView<T>& t, T x) {
  const T cells = x * t.inverse_width, beyond = T(1.0 / 1024);
  return t.piece && cells >= T(t.first) - beyond && cells <= T(t.first + t.cells) + beyond;
}

// The cell of x and the place in it. Exact but for places much smaller than 1/2, since widths are powers of
// two and cells begin at their multiples.
template <class T>
DPA2MD_KERNEL TablePlace<T> place(const TableView<T>& t, T x) {
  const T cells = x * t.inverse_width;
  int cell = static_cast<int>(std::floor(cells)) - t.first;
  cell = cell < 0 ? 0 : cell > t.cells - 1 ? t.cells - 1 : cell;
  return {cell, cells - T(t.first + cell) - T(0.5)};
}

// The value of the polynomial with coefficients c(0) ... c(5), and its slope by the place.
template <class T, class C>
DPA2MD_KERNEL T polynomial(T at, C c) {
  return c(0) + at * (c(1) + at * (c(2) + at * (c(3) + at * (c(4) + at * c(5)))));
}
template <class T, class C>
DPA2MD_KERNEL T polynomial_slope(T at, C c) {
  return c(1) + at * (T(2) * c(2) + at * (T(3) * c(3) + at * (T(4) * c(4) + at * (T(5) * c(5)))));
}

// Two numbers of a row, read at once.
template <class T>
struct alignas(2 * sizeof(T)) Two {
  T x[2];
};

// Sums of N numbers over the kGroupLanes lanes of a group, in place: afterwards x[0] ... x[N / 8 - 1] of lane
// l are the sums of x[l N / 8] ...
template <int N, class T>
struct GroupSums {
  static_assert(N % kGroupLanes == 0);
  static constexpr int kOwn = N / kGroupLanes;

  // put(k, sum of x[k]) by one lane for each k
  template <class Put>
  DPA2MD_KERNEL static void put(const ThreadBlock& b, T* x, Put put) {
#if defined(__CUDA_ARCH__)
    halve<N, kGroupLanes / 2>(b, x);
    DPA2MD_UNROLL
    for (int k = 0; k < kOwn; ++k) put(b.group_lane() * kOwn + k, x[k]);
#else
    for (int k = 0; k < N; ++k) {
      const T sum = b.group_sum(x[k]);
      if (k % b.group_lanes() == b.group_lane()) put(k, sum);
    }
#endif
  }

 private:
#if defined(__CUDA_ARCH__)
  // Lanes O apart exchange halves of M numbers: each keeps the half that it will own.
  template <int M, int O>
  __device__ static void halve(const ThreadBlock& b, T* x) {
    const bool upper = b.lane & O;
    DPA2MD_UNROLL
    for (int k = 0; k < M / 2; ++k) {
      const T given = upper ? x[k] : x[k + M / 2], kept = upper ? x[k + M / 2] : x[k];
      x[k] = kept + __shfl_xor_sync(0xffffffffu, given, O);
    }
    if constexpr (O > 1) halve<M / 2, O / 2>(b, x);
  }
#endif
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
