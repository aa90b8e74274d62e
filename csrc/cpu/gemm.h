// C = A B or C += A B for the small, in-cache shapes of the model. A may be strided in both directions (so a
// transpose costs nothing), B and C are row-major.
#pragma once

#include "simd.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
struct MatrixA {
  const T* data;
  int row, col;  // element (i, k) is data[i * row + k * col]
};
template <class T>
MatrixA<T> plain(const T* a, int lda) {
  return {a, lda, 1};
}
template <class T>
MatrixA<T> transposed(const T* a, int lda) {
  return {a, 1, lda};
}

// ROWS x (NV vectors of W numbers) of C, held in registers over the whole contraction.
template <int ROWS, int NV, int W, class T>
inline void gemm_tile(int k, MatrixA<T> a, const T* b, int ldb, T* c, int ldc, bool add) {
  using V = typename Vector<T, W>::type;
  V sum[ROWS][NV];
  for (int i = 0; i < ROWS; ++i) {
    for (int v = 0; v < NV; ++v) sum[i][v] = add ? *reinterpret_cast<const V*>(c + i * ldc + v * W) : V{};
  }
  for (int p = 0; p < k; ++p) {
    V row[NV];
    for (int v = 0; v < NV; ++v) row[v] = *reinterpret_cast<const V*>(b + p * ldb + v * W);
    for (int i = 0; i < ROWS; ++i) {
      const T x = a.data[i * a.row + p * a.col];
      for (int v = 0; v < NV; ++v) sum[i][v] += x * row[v];
    }
  }
  for (int i = 0; i < ROWS; ++i) {
    for (int v = 0; v < NV; ++v) *reinterpret_cast<V*>(c + i * ldc + v * W) = sum[i][v];
  }
}

// One column panel: all rows, in tiles of ROWS and then of half as many.
template <int ROWS, int NV, int W, class T>
inline void gemm_panel(int m, int k, MatrixA<T> a, const T* b, int ldb, T* c, int ldc, bool add) {
  int i = 0;
  for (; i + ROWS <= m; i += ROWS) {
    gemm_tile<ROWS, NV, W>(k, MatrixA<T>{a.data + i * a.row, a.row, a.col}, b, ldb, c + i * ldc, ldc, add);
  }
  if constexpr (ROWS > 1) {
    if (i < m) {
      gemm_panel<ROWS / 2, NV, W>(m - i, k, MatrixA<T>{a.data + i * a.row, a.row, a.col}, b, ldb, c + i * ldc,
                                  ldc, add);
    }
  }
}

// Columns in panels of two vectors, then one, then half vectors down to single columns.
template <int NV, int W, class T>
inline void gemm_columns(int m, int n, int k, MatrixA<T> a, const T* b, int ldb, T* c, int ldc, bool add) {
  int j = 0;
  for (; j + NV * W <= n; j += NV * W) gemm_panel<kTileRows, NV, W>(m, k, a, b + j, ldb, c + j, ldc, add);
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

template <class T>
inline T dot(int n, const T* x, const T* y) {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  V sum{};
  int i = 0;
  for (; i + W <= n; i += W) sum += *reinterpret_cast<const V*>(x + i) * *reinterpret_cast<const V*>(y + i);
  T total = 0;
  for (int w = 0; w < W; ++w) total += sum[w];
  for (; i < n; ++i) total += x[i] * y[i];
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
