// Work across the lanes of vectors: many sums at once, and transposing. One vector's sum takes as many steps
// as W of them together.
#pragma once

#include <algorithm>
#include <utility>

#include "cpu/vector/gemm.h"
#include "cpu/vector/simd.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// The halves of every stretch of 2 `half` lanes: the lower ones of a and b in turn (upper = false), or the
// upper ones.
template <int W, int HALF, bool UPPER, class V, int... I>
DPA2MD_INLINE V join_halves(V a, V b, std::integer_sequence<int, I...>) {
  return pick_lanes(a, b,
                    std::integer_sequence<int, (I / (2 * HALF) * (2 * HALF) + (UPPER ? HALF : 0) + I % HALF +
                                                (I / HALF % 2 ? W : 0))...>{});
}
template <int W, int HALF, bool UPPER, class V>
DPA2MD_INLINE V join_halves(V a, V b) {
  return join_halves<W, HALF, UPPER>(a, b, std::make_integer_sequence<int, W>{});
}

// v[0 … W-1] -> a vector of their sums.
template <class T, int W, int HALF = W / 2>
DPA2MD_INLINE typename Vector<T, W>::type sum_each(typename Vector<T, W>::type* v) {
  if constexpr (is_dual<T>) {
    typename Vector<Real<T>, W>::type value[W], tangent[W];
    for (int i = 0; i < W; ++i) value[i] = v[i].value, tangent[i] = v[i].tangent;
    return {sum_each<Real<T>, W>(value), sum_each<Real<T>, W>(tangent)};
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < HALF; ++i) {
      v[i] = join_halves<W, HALF, false>(v[i], v[i + HALF]) + join_halves<W, HALF, true>(v[i], v[i + HALF]);
    }
    if constexpr (HALF > 1) {
      return sum_each<T, W, HALF / 2>(v);
    } else {
      return v[0];
    }
  }
}

// x[lane ^ HALF]
template <int HALF, class V, int... I>
DPA2MD_INLINE V swap_lanes(V x, std::integer_sequence<int, I...>) {
  return pick_lanes(x, x, std::integer_sequence<int, (I ^ HALF)...>{});
}
template <int W, int HALF, class V>
DPA2MD_INLINE V sum_within(V x) {
  if constexpr (HALF == 0) {
    return x;
  } else {
    return sum_within<W, HALF / 2>(x + swap_lanes<HALF>(x, std::make_integer_sequence<int, W>{}));
  }
}

// The sums of four vectors.
template <class T, int W>
DPA2MD_INLINE void sum_four(const typename Vector<T, W>::type* v, T* out) {
  if constexpr (W < 4 || is_dual<T>) {
    for (int i = 0; i < 4; ++i) out[i] = sum_lanes<T, W>(v[i]);
  } else {
    constexpr int H = W / 2, Q = W / 4;
    const auto a = join_halves<W, H, false>(v[0], v[1]) + join_halves<W, H, true>(v[0], v[1]);
    const auto b = join_halves<W, H, false>(v[2], v[3]) + join_halves<W, H, true>(v[2], v[3]);
    const auto x = sum_within<W, Q / 2>(join_halves<W, Q, false>(a, b) + join_halves<W, Q, true>(a, b));
    out[0] = x[0], out[1] = x[2 * Q], out[2] = x[Q], out[3] = x[3 * Q];
  }
}

// out[r] = sum of the lanes of part(r) for r < rows; `out` has room for whole vectors.
template <class T, class F>
inline void sum_rows(int rows, F&& part, T* out) {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  for (int r = 0; r < rows; r += W) {
    V v[W];
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) v[i] = part(std::min(r + i, rows - 1));
    store<W>(out + r, sum_each<T, W>(v));
  }
}

// Adds x to `sum`, a vector whose lanes are to be summed.
template <class V, class X>
DPA2MD_INLINE void collect(V* sum, X x) {
  if constexpr (sizeof(V) == sizeof(X)) {
    *sum += x;
  } else if constexpr (is_dual<V>) {
    sum->value[0] += x.value[0], sum->tangent[0] += x.tangent[0];
  } else {
    (*sum)[0] += x[0];
  }
}

// A vector whose sum is x . y
template <class T>
DPA2MD_INLINE typename Vector<T, lanes<T>()>::type product_lanes(int n, const T* x, const T* y) {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  V sum{};
  int i = 0;
  for (; i + W <= n; i += W) sum += load<W>(x + i) * load<W>(y + i);
  for (; i < n; ++i) collect(&sum, load<1>(x + i) * load<1>(y + i));
  return sum;
}

// v (W, W) in place
template <class T, int W, int HALF = W / 2>
DPA2MD_INLINE void transpose_lanes(typename Vector<T, W>::type* v) {
  if constexpr (is_dual<T>) {
    typename Vector<Real<T>, W>::type value[W], tangent[W];
    for (int i = 0; i < W; ++i) value[i] = v[i].value, tangent[i] = v[i].tangent;
    transpose_lanes<Real<T>, W>(value);
    transpose_lanes<Real<T>, W>(tangent);
    for (int i = 0; i < W; ++i) v[i] = {value[i], tangent[i]};
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) {
      if (i & HALF) continue;
      const auto a = v[i], b = v[i + HALF];
      v[i] = join_halves<W, HALF, false>(a, b);
      v[i + HALF] = join_halves<W, HALF, true>(a, b);
    }
    if constexpr (HALF > 1) transpose_lanes<T, W, HALF / 2>(v);
  }
}

// out (columns, ld) = in (rows, columns) transposed, its rows filled up with zeros to `ld`, a multiple of the
// vector length.
template <class T>
inline void transpose_padded(int rows, int columns, const T* in, T* out, int ld) {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  const int whole = columns / W * W;
  for (int r = 0; r < ld; r += W) {
    for (int c = 0; c < whole; c += W) {
      V v[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) {
        v[i] = r + i < rows ? load<W>(in + (r + i) * columns + c) : V{};
      }
      transpose_lanes<T, W>(v);
#pragma GCC unroll 16
      for (int i = 0; i < W; ++i) store<W>(out + (c + i) * ld + r, v[i]);
    }
    for (int c = whole; c < columns; ++c) {
      for (int i = 0; i < W; ++i) out[c * ld + r + i] = r + i < rows ? in[(r + i) * columns + c] : T(0);
    }
  }
}

// Calls body<W>(channel) for whole vectors of channels, then for single ones.
template <class T, class F>
DPA2MD_INLINE void each_channel(int count, F&& body) {
  constexpr int W = lanes<T>();
  int c = 0;
  for (; c + W <= count; c += W) body(std::integral_constant<int, W>{}, c);
  for (; c < count; ++c) body(std::integral_constant<int, 1>{}, c);
}

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
