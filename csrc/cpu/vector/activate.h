// Activations of arrays.
#pragma once

#include <algorithm>

#include "base/activation.h"
#include "cpu/vector/simd.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// y = act(x) in place and, when slope is given, slope = act'(x).
template <class T>
void activate_array(const Activation& a, std::size_t n, T* x, T* slope) {
  dispatch(a, [&](auto kind) {
    constexpr Activation::Kind K = decltype(kind)::value;
    if (slope) {
#pragma omp simd
      for (std::size_t i = 0; i < n; ++i) {
        T y, d;
        activate<K>(a, x[i], &y, &d);
        x[i] = y;
        slope[i] = d;
      }
    } else {
#pragma omp simd
      for (std::size_t i = 0; i < n; ++i) {
        T y, d;
        activate<K>(a, x[i], &y, &d);
        x[i] = y;
      }
    }
  });
}

// Dual numbers whose values and tangents lie apart.
template <class R>
struct Parted {
  R *value = nullptr, *tangent = nullptr;
};
// The same of such numbers. x: the values; y: holds the tangents. (GCC makes vectors of this loop, but not
// with `omp simd`, which takes the dual numbers for arrays.)
template <Activation::Kind K, class R>
void activate_parted(const Activation& a, std::size_t n, const R* __restrict x, R* __restrict value,
                     R* __restrict tangent, R* __restrict slope, R* __restrict slope_tangent) {
  for (std::size_t i = 0; i < n; ++i) {
    Dual<R> y, d;
    activate<K>(a, Dual<R>(x[i], tangent[i]), &y, &d);
    value[i] = y.value, tangent[i] = y.tangent;
    slope[i] = d.value, slope_tangent[i] = d.tangent;
  }
}
template <class R>
void activate_array(const Activation& a, std::size_t n, const R* x, Parted<R> y, Parted<R> slope) {
  dispatch(a, [&](auto kind) {
    activate_parted<decltype(kind)::value>(a, n, x, y.value, y.tangent, slope.value, slope.tangent);
  });
}

// The same of dual numbers, whose values and tangents are parted for a stretch at a time.
template <class R>
void activate_array(const Activation& a, std::size_t n, Dual<R>* x, Dual<R>* slope) {
  constexpr std::size_t stretch = 4 * lanes<R>();
  dispatch(a, [&](auto kind) {
    R v[stretch], t[stretch], y[stretch], s[stretch], st[stretch];
    const auto part = [&](std::size_t i, std::size_t count) {
      for (std::size_t k = 0; k < count; ++k) v[k] = x[i + k].value, t[k] = x[i + k].tangent;
      activate_parted<decltype(kind)::value>(a, stretch, v, y, t, s, st);
      for (std::size_t k = 0; k < count; ++k) x[i + k] = {y[k], t[k]};
      for (std::size_t k = 0; k < count && slope; ++k) slope[i + k] = {s[k], st[k]};
    };
    std::fill_n(v, stretch, R(0)), std::fill_n(t, stretch, R(0));  // the last stretch may be shorter
    std::size_t i = 0;
    for (; i + stretch <= n; i += stretch) part(i, stretch);
    if (i < n) part(i, n - i);
  });
}

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
