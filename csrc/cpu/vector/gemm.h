// C = A B or C += A B for the small, in-cache shapes of the model. A may be strided in both directions (so a
// transpose costs nothing), B and C are row-major.
#pragma once

#include <cstddef>
#include <type_traits>

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
template <class T, class = std::enable_if_t<!is_dual<T>>>
void gemm(int m, int n, int k, MatrixA<T> a, const T* b, int ldb, T* c, int ldc, bool add) {
  gemm_columns<2, lanes<T>()>(m, n, k, a, b, ldb, c, ldc, add);
}

// ---- dual numbers (base/dual.h), which lie in memory as value, tangent, value, ...

// As gemm_tile, of dual A and plain B.
template <int ROWS, int NV, int W, class R>
inline void gemm_tile(int k, MatrixA<Dual<R>> a, const R* b, std::ptrdiff_t ldb, Dual<R>* c,
                      std::ptrdiff_t ldc, bool add) {
  using V = typename Vector<R, W>::type;
  V value[ROWS][NV], tangent[ROWS][NV];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) value[i][v] = tangent[i][v] = V{};
  }
  for (int p = 0; p < k; ++p, b += ldb, a.data += a.col) {
    V row[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) row[v] = load<W>(b + v * W);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
      const R x = a.data[i * a.row].value, y = a.data[i * a.row].tangent;
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) value[i][v] += x * row[v], tangent[i][v] += y * row[v];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i, c += ldc) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      const Dual<V> sum = {value[i][v], tangent[i][v]};
      store<W>(c + v * W, add ? load<W>(c + v * W) + sum : sum);
    }
  }
}

// x[lane - 1] in odd lanes, 0 in even ones
template <class V, int... I>
DPA2MD_INLINE V even_to_odd(V x, std::integer_sequence<int, I...>) {
  constexpr int W = sizeof...(I);
  return pick_lanes(x, V{}, std::integer_sequence<int, (I % 2 ? I - 1 : W)...>{});
}

// Of dual A and dual B, whose columns are W / 2 dual numbers: values of A times B as it lies there, and
// tangents of A times the values of B.
template <int ROWS, int NV, int W, class R>
inline void gemm_tile(int k, MatrixA<Dual<R>> a, const Dual<R>* b, std::ptrdiff_t ldb, Dual<R>* c,
                      std::ptrdiff_t ldc, bool add) {
  using V = typename Vector<R, W>::type;
  V sum[ROWS][NV], crossed[ROWS][NV];
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) sum[i][v] = crossed[i][v] = V{};
  }
  for (int p = 0; p < k; ++p, b += ldb, a.data += a.col) {
    V row[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) row[v] = *reinterpret_cast<const V*>(b + v * (W / 2));
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i) {
      const R x = a.data[i * a.row].value, y = a.data[i * a.row].tangent;
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) sum[i][v] += x * row[v], crossed[i][v] += y * row[v];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < ROWS; ++i, c += ldc) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      V* out = reinterpret_cast<V*>(c + v * (W / 2));
      const V all = sum[i][v] + even_to_odd(crossed[i][v], std::make_integer_sequence<int, W>{});
      *out = add ? *out + all : all;
    }
  }
}

template <int ROWS, int NV, int W, class R, class B>
inline void dual_tile_of(int rows, int k, MatrixA<Dual<R>> a, const B* b, int ldb, Dual<R>* c, int ldc,
                         bool add) {
  if constexpr (ROWS > 1) {
    if (rows != ROWS) return dual_tile_of<ROWS - 1, NV, W>(rows, k, a, b, ldb, c, ldc, add);
  }
  gemm_tile<ROWS, NV, W>(k, a, b, ldb, c, ldc, add);
}
template <int NV, int W, class R, class B>
inline void dual_panel(int m, int k, MatrixA<Dual<R>> a, const B* b, int ldb, Dual<R>* c, int ldc, bool add) {
  constexpr int most = kTileRows / 2;
  for (int tiles = (m + most - 1) / most; tiles > 0; --tiles) {
    const int rows = (m + tiles - 1) / tiles;
    dual_tile_of<most, NV, W>(rows, k, a, b, ldb, c, ldc, add);
    a.data += static_cast<std::ptrdiff_t>(rows) * a.row, c += static_cast<std::ptrdiff_t>(rows) * ldc,
        m -= rows;
  }
}
// B dual: W lanes are W / 2 columns.
template <int NV, int W, class R, class B>
inline void dual_columns(int m, int n, int k, MatrixA<Dual<R>> a, const B* b, int ldb, Dual<R>* c, int ldc,
                         bool add) {
  constexpr int C = is_dual<B> ? W / 2 : W;
  int j = 0;
  for (; j + NV * C <= n; j += NV * C) dual_panel<NV, W>(m, k, a, b + j, ldb, c + j, ldc, add);
  if (j == n) return;
  if constexpr (NV > 1) {
    dual_columns<1, W>(m, n - j, k, a, b + j, ldb, c + j, ldc, add);
  } else if constexpr (C > 1) {
    dual_columns<1, W / 2>(m, n - j, k, a, b + j, ldb, c + j, ldc, add);
  }
}

template <class R, class B>
void gemm(int m, int n, int k, MatrixA<Dual<R>> a, const B* b, int ldb, Dual<R>* c, int ldc, bool add) {
  dual_columns<2, lanes<R>()>(m, n, k, a, b, ldb, c, ldc, add);
}
// A plain: B and C are twice as many columns.
template <class R>
void gemm(int m, int n, int k, MatrixA<R> a, const Dual<R>* b, int ldb, Dual<R>* c, int ldc, bool add) {
  gemm(m, 2 * n, k, a, &b->value, 2 * ldb, &c->value, 2 * ldc, add);
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
  if constexpr (is_dual<T>) {
    return {sum_lanes<Real<T>, W>(x.value), sum_lanes<Real<T>, W>(x.tangent)};
  } else if constexpr (W == 1) {
    return x[0];
  } else {
    using Half = typename Vector<T, W / 2>::type;
    const Half* half = reinterpret_cast<const Half*>(&x);
    return sum_lanes<T, W / 2>(half[0] + half[1]);
  }
}

// x: numbers or weights
template <class X, class T>
DPA2MD_INLINE T dot(int n, const X* x, const T* y) {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  V sum{};
  int i = 0;
  for (; i + W <= n; i += W) sum += load<W>(x + i) * load<W>(y + i);
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
  for (; i + W <= n; i += W) part += load<W>(x + i);
  T total = sum_lanes<T, W>(part);
  for (; i < n; ++i) total += x[i];
  return total;
}

// y += s x
template <class S, class X, class T>
inline void axpy(int n, S s, const X* x, T* y) {
  if constexpr (is_dual<T>) {
    for_lanes<T>(n, [&](int i, auto w) { store<w>(y + i, load<w>(y + i) + load<w>(x + i) * s); });
  } else {
#pragma omp simd
    for (int i = 0; i < n; ++i) y[i] += s * x[i];
  }
}

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
