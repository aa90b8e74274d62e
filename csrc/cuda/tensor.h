// Matrix products on tensor cores, a warp a tile of 16 rows and 8 NT columns: float64 as it is, float32 as
// three products of tf32, which together are as exact as float32 (Ozaki's splitting: x = high + low, 11 bits
// each; low times low is below the rounding). What a lane holds, by PTX's definition of the fragments of
// mma.m16n8k8 (tf32) and mma.m8n8k4 (f64), with g = lane / 4 and t = lane % 4, for every 4 of the
// contraction:
//   rows g, g + 8 of column t of the left factor; columns g, g + 8, ... of row t of the right one;
//   of the product columns 2t, 2t + 1 of rows g, g + 8 (and of every 8 columns).
#pragma once

#include <cstdint>
#include <cstring>

#include "block.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// Element (i, k) is data[i * row + k * col].
template <class T>
struct Matrix {
  const T* data;
  int row, col;
};
template <class T>
DPA2MD_KERNEL Matrix<T> plain(const T* a, int ld) {
  return {a, ld, 1};
}
template <class T>
DPA2MD_KERNEL Matrix<T> transposed(const T* a, int ld) {
  return {a, 1, ld};
}

// Leading dimension for rows of n numbers in shared memory, so that the lanes of a fragment find theirs in
// different banks: 4 beyond a multiple of 8 in float32; odd in float64.
template <class T>
DPA2MD_KERNEL int spread(int n) {
  return sizeof(T) == 4 ? (n + 3) / 8 * 8 + 4 : n | 1;
}

// x = high + low, both exact in tf32 (but for the last bits of low, which tensor cores leave out).
DPA2MD_KERNEL inline void split_tf32(float x, float* high, float* low) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  bits = (bits + 0x1000u) & 0xffffe000u;  // to the nearest
  std::memcpy(high, &bits, sizeof(bits));
  *low = x - *high;
}

// What a tensor core sees of a float: 10 bits behind the point.
DPA2MD_KERNEL inline float seen_tf32(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  bits &= 0xffffe000u;
  std::memcpy(&x, &bits, sizeof(bits));
  return x;
}

// One lane's part of a tile of c (m, n) [+]= x (m, k) y (k, n).
template <class T, int NT>
struct TensorTile {
  alignas(16) T c[NT][4];
  const T *a[2], *b[NT];
  int a_step, b_step, t;

  // Rows and columns beyond the last are read as the last; the product has no place for them.
  DPA2MD_KERNEL TensorTile(int lane, int i0, int j0, int m, int n, Matrix<T> x, Matrix<T> y)
      : a_step(4 * x.col), b_step(4 * y.row), t(lane % 4) {
    const int g = lane / 4;
    DPA2MD_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int i = i0 + g + 8 * h;
      a[h] = x.data + (i < m ? i : m - 1) * x.row + t * x.col;
    }
    DPA2MD_UNROLL
    for (int q = 0; q < NT; ++q) {
      const int j = j0 + g + 8 * q;
      b[q] = y.data + (j < n ? j : n - 1) * y.col + t * y.row;
      DPA2MD_UNROLL
      for (int e = 0; e < 4; ++e) c[q][e] = 0;
    }
  }
  // The next four of the contraction; zeros beyond the `rest` of it where they may come up.
  template <bool TAIL>
  DPA2MD_KERNEL void take(int rest, T* left, T* right) {
    const bool inside = !TAIL || t < rest;
    DPA2MD_UNROLL
    for (int h = 0; h < 2; ++h, a[h - 1] += a_step) left[h] = inside ? *a[h] : T(0);
    DPA2MD_UNROLL
    for (int q = 0; q < NT; ++q, b[q - 1] += b_step) right[q] = inside ? *b[q] : T(0);
  }
  DPA2MD_KERNEL void store(int lane, int i0, int j0, int m, int n, T* out, int ld, bool add) const {
    DPA2MD_UNROLL
    for (int q = 0; q < NT; ++q) {
      DPA2MD_UNROLL
      for (int e = 0; e < 4; ++e) {
        const int i = i0 + lane / 4 + e / 2 * 8, j = j0 + 8 * q + 2 * t + e % 2;
        if (i < m && j < n) out[i * ld + j] = add ? out[i * ld + j] + c[q][e] : c[q][e];
      }
    }
  }
};

#if defined(__CUDA_ARCH__)

__device__ inline void mma_tf32(float* c, const float* a, const float* b) {
  const auto bits = [](float x) { return __float_as_uint(x); };
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(bits(a[0])), "r"(bits(a[1])), "r"(bits(a[2])), "r"(bits(a[3])), "r"(bits(b[0])), "r"(bits(b[1])));
}
__device__ inline void mma_f64(double* c, double a, double b) {
  asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
               : "+d"(c[0]), "+d"(c[1])
               : "d"(a), "d"(b));
}

// Eight of the contraction, of which `rest` are left.
template <bool TAIL, int NT>
__device__ void multiply(TensorTile<float, NT>* w, int rest) {
  float left[4], right[2][NT], high[4], low[4];
  w->template take<TAIL>(rest, left, right[0]);
  w->template take<TAIL>(rest - 4, left + 2, right[1]);
  DPA2MD_UNROLL
  for (int e = 0; e < 4; ++e) split_tf32(left[e], &high[e], &low[e]);
  DPA2MD_UNROLL
  for (int q = 0; q < NT; ++q) {
    float h[2], l[2];
    for (int e = 0; e < 2; ++e) split_tf32(right[e][q], &h[e], &l[e]);
    mma_tf32(w->c[q], low, h);
    mma_tf32(w->c[q], high, l);
    mma_tf32(w->c[q], high, h);
  }
}
template <bool TAIL, int NT>
__device__ void multiply(TensorTile<double, NT>* w, int rest) {
  DPA2MD_UNROLL
  for (int half = 0; half < 8; half += 4) {
    double left[2], right[NT];
    w->template take<TAIL>(rest - half, left, right);
    DPA2MD_UNROLL
    for (int q = 0; q < NT; ++q) {
      mma_f64(w->c[q], left[0], right[q]);
      mma_f64(w->c[q] + 2, left[1], right[q]);
    }
  }
}

// c (m, n) [+]= x (m, k) y (k, n), without a barrier at the end.
template <int NT, class T>
__device__ DPA2MD_NOINLINE void gemm_tensor(int warp, int warps, int lane, int m, int n, int k, Matrix<T> x,
                                            Matrix<T> y, T* c, int ldc, bool add) {
  const int rows = (m + 15) / 16, columns = (n + 8 * NT - 1) / (8 * NT);
  for (int tile = warp; tile < rows * columns; tile += warps) {
    const int i0 = tile / columns * 16, j0 = tile % columns * 8 * NT;
    TensorTile<T, NT> w(lane, i0, j0, m, n, x, y);
    int rest = k;
    for (; rest >= 8; rest -= 8) multiply<false>(&w, rest);
    if (rest > 0) multiply<true>(&w, rest);
    w.store(lane, i0, j0, m, n, c, ldc, add);
  }
}

// As wide tiles as leave every warp one.
template <class T>
__device__ void gemm_tensor(const ThreadBlock& b, int m, int n, int k, Matrix<T> x, Matrix<T> y, T* c,
                            int ldc, bool add) {
  const int rows = (m + 15) / 16;
  if (rows * ((n + 31) / 32) >= b.warps) {
    gemm_tensor<4>(b.warp, b.warps, b.lane, m, n, k, x, y, c, ldc, add);
  } else if (rows * ((n + 15) / 16) >= b.warps) {
    gemm_tensor<2>(b.warp, b.warps, b.lane, m, n, k, x, y, c, ldc, add);
  } else {
    gemm_tensor<1>(b.warp, b.warps, b.lane, m, n, k, x, y, c, ldc, add);
  }
}

#elif defined(__CUDACC__)

// Of the host, which never runs a kernel.
template <class T>
void gemm_tensor(const ThreadBlock&, int, int, int, Matrix<T>, Matrix<T>, T*, int, bool) {}

#else

// The emulated device: the same roundings, in plain loops.
inline float multiply_add(float x, float y, float sum) {
  float x_high, x_low, y_high, y_low;
  split_tf32(x, &x_high, &x_low), split_tf32(y, &y_high, &y_low);
  sum += seen_tf32(x_low) * y_high;
  sum += x_high * seen_tf32(y_low);
  return sum + x_high * y_high;
}
inline double multiply_add(double x, double y, double sum) { return sum + x * y; }

template <class T>
void gemm_tensor(const ThreadBlock& b, int m, int n, int k, Matrix<T> x, Matrix<T> y, T* c, int ldc,
                 bool add) {
  for (int e = b.thread; e < m * n; e += b.threads) {
    const T *left = x.data + e / n * x.row, *right = y.data + e % n * y.col;
    T sum = 0;
    for (int p = 0; p < k; ++p) sum = multiply_add(left[p * x.col], right[p * y.row], sum);
    T* to = c + e / n * ldc + e % n;
    *to = add ? *to + sum : sum;
  }
}

#endif

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
