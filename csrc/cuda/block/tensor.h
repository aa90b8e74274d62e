// Matrix products on tensor cores, a warp a tile of 16 rows and 8 NT columns: float64 as it is, float32 as
// three products of tf32, which together are as exact as float32 (Ozaki's splitting: x = high + low, 11 bits
// each; low times low is below the rounding). Tensor cores cut every sum towards zero: they only add up eight
// of the contraction (add_product), and ordinary additions, to the nearest, the whole. What a lane holds, by
// PTX's definition of the fragments of mma.m16n8k8 (tf32) and mma.m8n8k4 (f64), with g = lane / 4 and t =
// lane % 4, of every 8 of the contraction:
//   of the left factor rows g, g + 8 of its columns t, t + 4;
//   of the right factor columns g, g + 8, ... of its rows t, t + 4;
//   of the product columns 2t, 2t + 1 of rows g, g + 8 (and of every 8 columns).
// The contraction and the columns may come in any order if both factors, or the right one and the product,
// agree. Floats use it so that the lanes find their numbers in different banks of shared memory: column c of
// 8 stands for c / 2 + 4 (c % 2), and t, t + 4 may stand for 2t, 2t + 1. (Of doubles, half a warp is served
// at a time, which finds different banks in the order of the manual.)
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "cuda/block/block.h"
#if !defined(__CUDACC__)
#include "cuda/emulation/tensor_core.h"
#endif

namespace dpa2md {
namespace DPA2MD_GPU {

// Factors, by how their numbers lie.
template <class T>
struct Plain {  // element (i, k) is data[i * ld + k]
  const T* data;
  int ld;
  DPA2MD_KERNEL T at(int i, int k) const { return data[i * ld + k]; }
};
template <class T>
struct Transposed {  // element (i, k) is data[k * ld + i]
  const T* data;
  int ld;
  DPA2MD_KERNEL T at(int i, int k) const { return data[k * ld + i]; }
};
// A right factor (k, n) of the model, twice: row by row, and as the lanes of a warp take it (fragments_of).
// (Not split: that would save three operations and read twice as much.)
template <class T>
struct Weight {
  const T *rows = nullptr, *fragments = nullptr;
  int k = 0, n = 0;

  DPA2MD_KERNEL int tiles() const { return (n + 7) / 8; }
  DPA2MD_KERNEL T at(int i, int k) const { return rows[i * n + k]; }
  // The h-th of several.
  DPA2MD_KERNEL Weight operator[](int h) const {
    return {rows + h * (k * n), fragments + h * ((k + 7) / 8 * tiles() * 64), k, n};
  }
};
template <class T>
DPA2MD_KERNEL Plain<T> plain(const T* a, int ld) {
  return {a, ld};
}
template <class T>
DPA2MD_KERNEL Transposed<T> transposed(const T* a, int ld) {
  return {a, ld};
}

// NT of the widest tiles: five accumulators of doubles would not leave a thread of large blocks enough
// registers
template <class T>
constexpr int kWidest = sizeof(T) == 4 ? 5 : 3;

template <class T>
DPA2MD_KERNEL constexpr int column_of(int c) {
  return sizeof(T) == 4 ? (c >> 1) + (c & 1) * 4 : c;
}

// Leading dimension for rows of n numbers in shared memory, so that the lanes of a fragment find theirs in
// different banks: 4 beyond a multiple of 8.
DPA2MD_KERNEL inline int spread(int n) { return (n + 3) / 8 * 8 + 4; }

// A float split for tensor cores: x = high + low, both exact in tf32 (but for the last bits of low, which
// tensor cores leave out). Doubles need no split.
struct SplitFloat {
  float high, low;
};
// Dekker's way, without integers, whose pipe has enough to do with addresses: 2^13 x + x, rounded to 24 bits,
// keeps the upper 11 of x.
DPA2MD_KERNEL inline SplitFloat split(float x) {
  SplitFloat s;
#if defined(__CUDA_ARCH__)
  s.high = __fmaf_rn(-8192.0f, x, __fmaf_rn(8192.0f, x, x));
  s.low = __fsub_rn(x, s.high);
#else
  const double exact = x, rounded = static_cast<float>(8193.0 * exact);
  s.high = static_cast<float>(rounded - 8192.0 * exact);
  s.low = x - s.high;
#endif
  return s;
}
DPA2MD_KERNEL inline double split(double x) { return x; }
template <class T>
using Split = decltype(split(T()));

// The fragments of `count` matrices (k, n): for every 8 rows and 8 columns, two numbers per lane, padded with
// zeros. The end is padded by as much as the widest tile may read beyond.
template <class T>
std::vector<T> fragments_of(const double* w, int count, int k, int n) {
  std::vector<T> out;
  for (int h = 0; h < count; ++h) {
    for (int k0 = 0; k0 < k; k0 += 8) {
      for (int j0 = 0; j0 < n; j0 += 8) {
        for (int e = 0; e < 64; ++e) {
          const int lane = e / 2, row = k0 + lane % 4 + e % 2 * 4, column = j0 + column_of<T>(lane / 4);
          const bool inside = row < k && column < n;
          out.push_back(inside ? T(w[(static_cast<std::size_t>(h) * k + row) * n + column]) : T(0));
        }
      }
    }
  }
  out.resize(out.size() + kWidest<T> * 64);
  return out;
}

// A float as a tensor core reads it: 10 bits behind the point.
DPA2MD_KERNEL inline float seen_tf32(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  bits &= 0xffffe000u;
  std::memcpy(&x, &bits, sizeof(bits));
  return x;
}

// g and t of a lane. (Without a sign to look after; and here and below one 32-bit index to a pointer, which
// the device adds in a single instruction.)
DPA2MD_KERNEL constexpr int g_of(int lane) { return lane >> 2; }
DPA2MD_KERNEL constexpr int t_of(int lane) { return lane & 3; }

// A lane's fragments of a left factor (m, k), rows i0 ... i0 + 15, and of a right one (k, n), columns j0 ...
// j0 + 8 NT - 1. `PAIRS`: 2t, 2t + 1 of the contraction; else t, t + 4. Rows and columns beyond the last are
// read as the last; their products are not stored.
template <bool PAIRS>
DPA2MD_KERNEL int first_of(int t) {
  return PAIRS ? 2 * t : t;
}
template <bool PAIRS>
constexpr int kOther = PAIRS ? 1 : 4;  // from the first to the other one

template <class X, bool PAIRS>
struct Left;
template <class T, bool PAIRS>
struct Left<Plain<T>, PAIRS> {
  const T* a[2];  // of rows g, g + 8

  DPA2MD_KERNEL Left(int lane, int i0, int m, Plain<T> x) {
    DPA2MD_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int i = i0 + g_of(lane) + 8 * h;
      a[h] = x.data + ((i < m ? i : m - 1) * x.ld + first_of<PAIRS>(t_of(lane)));
    }
  }
  DPA2MD_KERNEL T read(int h, int half) const { return a[h][half * kOther<PAIRS>]; }
  DPA2MD_KERNEL void next() {
    DPA2MD_UNROLL
    for (int h = 0; h < 2; ++h) a[h] += 8;
  }
};
template <class T, bool PAIRS>
struct Left<Transposed<T>, PAIRS> {
  const T* a[2][2];
  int step;

  DPA2MD_KERNEL Left(int lane, int i0, int m, Transposed<T> x) : step(8 * x.ld) {
    DPA2MD_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int i = i0 + g_of(lane) + 8 * h;
      a[h][0] = x.data + (first_of<PAIRS>(t_of(lane)) * x.ld + (i < m ? i : m - 1));
      a[h][1] = a[h][0] + kOther<PAIRS> * x.ld;
    }
  }
  DPA2MD_KERNEL T read(int h, int half) const { return *a[h][half]; }
  DPA2MD_KERNEL void next() {
    DPA2MD_UNROLL
    for (int e = 0; e < 4; ++e) a[e / 2][e % 2] += step;
  }
};

// kPairs: the order that suits it. kWhole: its columns must fill all tiles, but for tiles of 8.
template <class Y, int NT>
struct Right;
template <class T, int NT>
struct Right<Plain<T>, NT> {
  static constexpr bool kPairs = sizeof(T) == 4, kWhole = true;
  const T* b[2];
  int step;

  DPA2MD_KERNEL Right(int lane, int j0, int n, Plain<T> y) : step(8 * y.ld) {
    const int j = j0 + column_of<T>(g_of(lane));
    b[0] = y.data + (first_of<kPairs>(t_of(lane)) * y.ld + (NT > 1 || j < n ? j : n - 1));
    b[1] = b[0] + kOther<kPairs> * y.ld;
  }
  DPA2MD_KERNEL T read(int q, int half) const { return b[half][8 * q]; }
  DPA2MD_KERNEL void next() { b[0] += step, b[1] += step; }
};
template <class T, int NT>
struct Right<Transposed<T>, NT> {
  static constexpr bool kPairs = false, kWhole = false;
  const T* b[NT];

  DPA2MD_KERNEL Right(int lane, int j0, int n, Transposed<T> y) {
    DPA2MD_UNROLL
    for (int q = 0; q < NT; ++q) {
      const int j = j0 + 8 * q + column_of<T>(g_of(lane));
      b[q] = y.data + ((j < n ? j : n - 1) * y.ld + t_of(lane));
    }
  }
  DPA2MD_KERNEL T read(int q, int half) const { return b[q][4 * half]; }
  DPA2MD_KERNEL void next() {
    DPA2MD_UNROLL
    for (int q = 0; q < NT; ++q) b[q] += 8;
  }
};
template <class T, int NT>
struct Right<Weight<T>, NT> {
  static constexpr bool kPairs = false, kWhole = false;
  struct alignas(2 * sizeof(T)) Both {  // one load
    T half[2];
  };
  const Both* b;
  int step;

  DPA2MD_KERNEL Right(int lane, int j0, int, Weight<T> y)
      : b(reinterpret_cast<const Both*>(y.fragments) + (j0 * 4 + lane)), step(32 * y.tiles()) {}
  DPA2MD_KERNEL T read(int q, int half) const { return b[32 * q].half[half]; }
  DPA2MD_KERNEL void next() { b += step; }
};

// One lane's part of a tile of c (m, n) [+]= x (m, k) y (k, n).
template <class T, class X, class Y, int NT>
struct TensorTile {
  static constexpr bool kPairs = Right<Y, NT>::kPairs;
  alignas(16) T c[NT][4];
  Left<X, kPairs> a;
  Right<Y, NT> b;
  int t;

  DPA2MD_KERNEL TensorTile(int lane, int i0, int j0, int m, int n, X x, Y y)
      : a(lane, i0, m, x), b(lane, j0, n, y), t(t_of(lane)) {
    DPA2MD_UNROLL
    for (int e = 0; e < 4 * NT; ++e) c[e / 4][e % 4] = 0;
  }
  // The next eight of the contraction, as left[half][row] and right[half][q]; zeros beyond the `rest` of it
  // where they may come up.
  template <bool TAIL>
  DPA2MD_KERNEL void take(int rest, Split<T> (*left)[2], Split<T> (*right)[NT]) {
    DPA2MD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const bool inside = !TAIL || first_of<kPairs>(t) + half * kOther<kPairs> < rest;
      DPA2MD_UNROLL
      for (int h = 0; h < 2; ++h) left[half][h] = inside ? split(a.read(h, half)) : Split<T>{};
      DPA2MD_UNROLL
      for (int q = 0; q < NT; ++q) right[half][q] = inside ? split(b.read(q, half)) : Split<T>{};
    }
    a.next(), b.next();
  }
  DPA2MD_KERNEL void store(int lane, int i0, int j0, int m, int n, T* out, int ld, bool add) const {
    constexpr int apart = column_of<T>(1);  // from column_of(2t) to column_of(2t + 1), a lane's two of 8
    const int j = j0 + column_of<T>(2 * t);
    const bool whole = j0 + 8 * NT <= n;
    DPA2MD_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int i = i0 + g_of(lane) + 8 * h;
      if (i >= m) continue;
      T* row = out + (i * ld + j);
      const auto each = [&](auto write) {
        DPA2MD_UNROLL
        for (int e = 0; e < 2 * NT; ++e) write(8 * (e / 2) + apart * (e % 2), c[e / 2][2 * h + e % 2]);
      };
      if (!whole) {
        each([&](int at, T sum) {
          if (j + at < n) row[at] = (add ? row[at] : T(0)) + sum;
        });
      } else if (add) {
        each([&](int at, T sum) { row[at] += sum; });
      } else {
        each([&](int at, T sum) { row[at] = sum; });
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

// sum += x y, of eight of the contraction: x as high, low (4), y as h, l (2)
__device__ inline void add_product(float* sum, const float* high, const float* low, const float* h,
                                   const float* l) {
  float part[4] = {0, 0, 0, 0};
  mma_tf32(part, low, h);
  mma_tf32(part, high, l);
  mma_tf32(part, high, h);
  DPA2MD_UNROLL
  for (int e = 0; e < 4; ++e) sum[e] += part[e];
}

// Eight of the contraction, of which `rest` are left.
template <bool TAIL, class X, class Y, int NT>
__device__ void multiply(TensorTile<float, X, Y, NT>* w, int rest) {
  SplitFloat left[2][2], right[2][NT];
  w->template take<TAIL>(rest, left, right);
  float high[4], low[4];
  DPA2MD_UNROLL
  for (int e = 0; e < 4; ++e) high[e] = left[e / 2][e % 2].high, low[e] = left[e / 2][e % 2].low;
  DPA2MD_UNROLL
  for (int q = 0; q < NT; ++q) {
    const float h[2] = {right[0][q].high, right[1][q].high}, l[2] = {right[0][q].low, right[1][q].low};
    add_product(w->c[q], high, low, h, l);
  }
}
template <bool TAIL, class X, class Y, int NT>
__device__ void multiply(TensorTile<double, X, Y, NT>* w, int rest) {
  double left[2][2], right[2][NT];
  w->template take<TAIL>(rest, left, right);
  DPA2MD_UNROLL
  for (int half = 0; half < 2; ++half) {
    DPA2MD_UNROLL
    for (int q = 0; q < NT; ++q) {
      mma_f64(w->c[q], left[half][0], right[half][q]);
      mma_f64(w->c[q] + 2, left[half][1], right[half][q]);
    }
  }
}

// Tiles of 16 rows and 8 `width` columns, `columns` of them side by side.
struct Tiling {
  int width, columns;
};

// Chooses wide tiles, since a number is split once for all columns of a tile, but enough tiles for half of
// the warps; no wider than that number of tiles needs.
template <class T, class Y>
__device__ Tiling tiling(int warps, int rows, int n) {
  constexpr bool whole = Right<Y, 1>::kWhole;
  const unsigned tiles = (n + 7) / 8;
  Tiling best{1, static_cast<int>(tiles)};
  if (whole && n % 8) return best;
  if (tiles <= kWidest<T> && 2 * rows >= warps) return {best.columns, 1};  // what the loop would find
  DPA2MD_UNROLL
  for (unsigned width = 2; width <= kWidest<T>; ++width) {
    const unsigned columns = (tiles + width - 1) / width;
    const bool fits = !whole || width * columns == tiles, enough = 2 * rows * columns >= warps;
    if (columns < best.columns && fits && enough) best = {static_cast<int>(width), static_cast<int>(columns)};
  }
  return best;
}

// c (m, n) [+]= x (m, k) y (k, n), without a barrier at the end.
template <int NT, class T, class X, class Y>
__device__ DPA2MD_NOINLINE void gemm_tensor(int warp, int warps, int lane, int columns, int m, int n, int k,
                                            X x, Y y, T* c, int ldc, bool add) {
  const bool single = columns == 1;
  int i = single ? warp : 0, j = single ? 0 : warp;
  for (;; single ? i += warps : j += warps) {
    for (; j >= columns; ++i) j -= columns;
    const int i0 = 16 * i, j0 = 8 * NT * j;
    if (i0 >= m) return;
    TensorTile<T, X, Y, NT> w(lane, i0, j0, m, n, x, y);
    int rest = k;
    for (; rest >= 8; rest -= 8) multiply<false>(&w, rest);
    if (rest > 0) multiply<true>(&w, rest);
    w.store(lane, i0, j0, m, n, c, ldc, add);
  }
}

// Dispatches to gemm_tensor with the tiles' width, NT or wider.
template <int NT, class T, class X, class Y>
__device__ void gemm_tensor_of(Tiling tiles, const ThreadBlock& b, int m, int n, int k, X x, Y y, T* c,
                               int ldc, bool add) {
  if constexpr (NT < kWidest<T>) {
    if (tiles.width > NT) return gemm_tensor_of<NT + 1>(tiles, b, m, n, k, x, y, c, ldc, add);
  }
  gemm_tensor<NT>(b.warp, b.warps, b.lane, tiles.columns, m, n, k, x, y, c, ldc, add);
}
template <class T, class X, class Y>
__device__ void gemm_tensor(const ThreadBlock& b, int m, int n, int k, X x, Y y, T* c, int ldc, bool add) {
  gemm_tensor_of<1>(tiling<T, Y>(b.warps, (m + 15) / 16, n), b, m, n, k, x, y, c, ldc, add);
}

#elif defined(__CUDACC__)

// For the host pass of the compiler, which never runs a kernel.
template <class T, class X, class Y>
void gemm_tensor(const ThreadBlock&, int, int, int, X, Y, T*, int, bool) {}

#else

// The emulated device: the same roundings, in plain loops.
template <class X, class Y>
void gemm_tensor(const ThreadBlock& b, int m, int n, int k, X x, Y y, float* c, int ldc, bool add) {
  TensorCoreProduct product(k, n);
  std::vector<float> row(n);
  const auto parts = [](float number, auto set) {
    const SplitFloat s = split(number);
    set(s.high, seen_tf32(s.low));
  };
  for (int e = 0; e < k * n; ++e)
    parts(y.at(e / n, e % n), [&](float high, float low) { product.set_y(e / n, e % n, high, low); });
  for (int i = b.thread; i < m; i += b.threads) {
    for (int p = 0; p < k; ++p)
      parts(x.at(i, p), [&](float high, float low) { product.set_x(p, high, low); });
    product.row(row.data());
    for (int j = 0; j < n; ++j) c[i * ldc + j] = add ? c[i * ldc + j] + row[j] : row[j];
  }
}
template <class X, class Y>
void gemm_tensor(const ThreadBlock& b, int m, int n, int k, X x, Y y, double* c, int ldc, bool add) {
  for (int e = b.thread; e < m * n; e += b.threads) {
    double sum = 0;
    for (int p = 0; p < k; ++p) sum += x.at(e / n, p) * y.at(p, e % n);
    double* to = c + e / n * ldc + e % n;
    *to = add ? *to + sum : sum;
  }
}

#endif

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
