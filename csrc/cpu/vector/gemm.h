// C = A B or C += A B for the small, in-cache shapes of the model. A may be strided in both directions (so a
// transpose costs nothing), B and C are row-major.
#pragma once

#include <cstddef>

#include "cpu/vector/simd.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// Small enough to be passed in registers. In memory, each tile would wait for the one before, since a load
// wider than the stores it reads is not forwarded.
template <class T>
struct MatrixA {
  const T* data;
  int row, col;  // element (i, k) is data[i * row + k * col]
};
static_assert(sizeof(MatrixA<double>) <= 16, "passed in registers");
template <class T>
MatrixA<T> plain(const T* a, int lda) {
  return {a, lda, 1};
}
template <class T>
MatrixA<T> transposed(const T* a, int lda) {
  return {a, 1, lda};
}

// ROWS x (NV vectors of W numbers) of C, held in registers over the whole contraction. (The loops over rows
// and vectors must unroll early, or the compiler takes the array for memory.)
template <int ROWS, int NV, int W, class T>
inline void gemm_tile(int k, MatrixA<T> a, const T* b, std::ptrdiff_t ldb, T* c, std::ptrdiff_t ldc,
                      bool add) {
  using V = typename Vector<T, W>::type;
  V sum[ROWS][NV];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) sum[i][v] = V{};
  }
  for (int p = 0; p < k; ++p, b += ldb, a.data += a.col) {
    V row[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) row[v] = *reinterpret_cast<const V*>(b + v * W);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
      const T x = a.data[i * a.row];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) sum[i][v] += x * row[v];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i, c += ldc) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      V* out = reinterpret_cast<V*>(c + v * W);
      *out = add ? *out + sum[i][v] : sum[i][v];
    }
  }
}

// One column panel: all rows, in tiles of nearly equal height, since a low tile leaves the arithmetic units
// waiting for each other.
template <int ROWS, int NV, int W, class T>
inline void gemm_tile_of(int rows, int k, MatrixA<T> a, const T* b, int ldb, T* c, int ldc, bool add) {
  if constexpr (ROWS > 1) {
    if (rows != ROWS) return gemm_tile_of<ROWS - 1, NV, W>(rows, k, a, b, ldb, c, ldc, add);
  }
  gemm_tile<ROWS, NV, W>(k, a, b, ldb, c, ldc, add);
}
template <int NV, int W, class T>
inline void gemm_panel(int m, int k, MatrixA<T> a, const T* b, int ldb, T* c, int ldc, bool add) {
  for (int tiles = (m + kTileRows - 1) / kTileRows; tiles > 0; --tiles) {
    const int rows = (m + tiles - 1) / tiles;
    gemm_tile_of<kTileRows, NV, W>(rows, k, a, b, ldb, c, ldc, add);
    a.data += rows * a.row, c += static_cast<std::ptrdiff_t>(rows) * ldc, m -= rows;
  }
}

// Columns in panels of two vectors, then one, then half vectors down to single columns.
template <int NV, int W, class T>
inline void gemm_columns(int m, int n, int k, MatrixA<T> a, const T* b, int ldb, T* c, int ldc, bool add) {
  int j = 0;
  for (; j + NV * W <= n; j += NV * W) gemm_panel<NV, W>(m, k, a, b + j, ldb, c + j, ldc, add);
  if (j == n) return;
  if constexpr (NV > 1) {
    gemm_columns<1, W>(m, n - j, k, a, b + j, ldb, c + j, ldc, add);
  } else if constexpr (W > 1) {
    gemm_columns<1, W / 2>(m, n - j, k, a, b + j, ldb, c + j, ldc, add);
  }
}

// c (m, n) = [c +] a (m, k) b (k, n)
template <class T>
void gemm(int m, int n, int k, MatrixA<T> a, const T* b, int ldb, T* c, int ldc, bool add) {
  gemm_columns<2, lanes<T>()>(m, n, k, a, b, ldb, c, ldc, add);
}

// out (cols, rows) = in (rows, cols) transposed
template <class T>
void transpose(int rows, int cols, const T* in, int ldi, T* out, int ldo) {
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < cols; ++j) out[j * ldo + i] = in[i * ldi + j];
  }
}

// Sum of a vector's lanes, by halves.
template <class T, int W>
DPA2MD_INLINE T sum_lanes(typename Vector<T, W>::type x) {
  if constexpr (W == 1) {
    return x[0];
  } else {
    using Half = typename Vector<T, W / 2>::type;
    const Half* half = reinterpret_cast<const Half*>(&x);
    return sum_lanes<T, W / 2>(half[0] + half[1]);
  }
}

template <class T>
DPA2MD_INLINE T dot(int n, const T* x, const T* y) {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  V sum{};
  int i = 0;
  for (; i + W <= n; i += W) sum += *reinterpret_cast<const V*>(x + i) * *reinterpret_cast<const V*>(y + i);
  T total = sum_lanes<T, W>(sum);
  for (; i < n; ++i) total += x[i] * y[i];
  return total;
}

template <class T>
inline T sum(int n, const T* x) {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  V part{};
  int i = 0;
  for (; i + W <= n; i += W) part += *reinterpret_cast<const V*>(x + i);
  T total = sum_lanes<T, W>(part);
  for (; i < n; ++i) total += x[i];
  return total;
}

// y += s x
template <class T>
inline void axpy(int n, T s, const T* x, T* y) {
#pragma omp simd
  for (int i = 0; i < n; ++i) y[i] += s * x[i];
}

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
