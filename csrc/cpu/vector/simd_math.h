// exp of a whole vector: the formula of scalar_math.h on vector registers, for loops that the compiler would
// not turn into vectors by itself (rows of a softmax). The bounds are those of split_exp; `exp_lanes` is
// right for any number.
#pragma once

#include <cstdint>

#include "base/scalar_math.h"
#include "cpu/vector/simd.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <int W>
DPA2MD_INLINE typename Vector<float, W>::type exp_bounded_lanes(typename Vector<float, W>::type x) {
  using V = typename Vector<float, W>::type;
  typedef std::int32_t Bits __attribute__((vector_size(W * 4)));
  const V shifted = x * 1.44269504f + 12582912.0f;
  const V k = shifted - 12582912.0f;
  const V p = math::expm1_small<float, V>((x - k * 6.93359375e-01f) + k * 2.12194440e-4f);
  const V scale = (V)((((Bits)shifted) + 127) << 23);
  return scale + scale * p;
}

template <int W>
DPA2MD_INLINE typename Vector<double, W>::type exp_bounded_lanes(typename Vector<double, W>::type x) {
  using V = typename Vector<double, W>::type;
  typedef std::int64_t Bits __attribute__((vector_size(W * 8)));
  const V shifted = x * 1.4426950408889634 + 6755399441055744.0;
  const V k = shifted - 6755399441055744.0;
  const V p =
      math::expm1_small<double, V>((x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10);
  const V scale = (V)((((Bits)shifted) + 1023) << 52);
  return scale + scale * p;
}

// the larger and the smaller of two, lane by lane; b where one is NaN
template <class V>
DPA2MD_INLINE V max_lanes(V a, V b) {
  return a > b ? a : b;
}
template <class V>
DPA2MD_INLINE V min_lanes(V a, V b) {
  return a < b ? a : b;
}

template <int W>
DPA2MD_INLINE typename Vector<float, W>::type exp_lanes(typename Vector<float, W>::type x) {
  using V = typename Vector<float, W>::type;
  return exp_bounded_lanes<W>(min_lanes(V{} + 88.0f, max_lanes(V{} - 87.0f, x)));
}
template <int W>
DPA2MD_INLINE typename Vector<double, W>::type exp_lanes(typename Vector<double, W>::type x) {
  using V = typename Vector<double, W>::type;
  return exp_bounded_lanes<W>(min_lanes(V{} + 709.0, max_lanes(V{} - 708.0, x)));
}

template <int W, class V>
DPA2MD_INLINE Dual<V> exp_bounded_lanes(Dual<V> x) {
  const V y = exp_bounded_lanes<W>(x.value);
  return {y, y * x.tangent};
}
template <int W, class V>
DPA2MD_INLINE Dual<V> exp_lanes(Dual<V> x) {
  const V y = exp_lanes<W>(x.value);
  return {y, y * x.tangent};
}

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
