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

// The same of dual numbers, whose values and tangents are parted for a stretch at a time.
template <class R>
void activate_array(const Activation& a, std::size_t n, Dual<R>* x, Dual<R>* slope) {
  constexpr int W = lanes<R>();
  constexpr std::size_t stretch = 4 * W;
  dispatch(a, [&](auto kind) {
    constexpr Activation::Kind K = decltype(kind)::value;
    R v[stretch], t[stretch], s[stretch], st[stretch];
    for (std::size_t i = 0; i < n; i += stretch) {
      const std::size_t count = std::min(stretch, n - i);
      for (std::size_t k = 0; k < count; ++k) v[k] = x[i + k].value, t[k] = x[i + k].tangent;
#pragma omp simd
      for (std::size_t k = 0; k < stretch; ++k) {
        Dual<R> y, d;
        activate<K>(a, Dual<R>(v[k], t[k]), &y, &d);
        v[k] = y.value, t[k] = y.tangent, s[k] = d.value, st[k] = d.tangent;
      }
      for (std::size_t k = 0; k < count; ++k) x[i + k] = {v[k], t[k]};
      for (std::size_t k = 0; k < count && slope; ++k) slope[i + k] = {s[k], st[k]};
    }
  });
}

// Dual numbers whose values and tangents lie apart.
template <class R>
struct Parted {
  R *value = nullptr, *tangent = nullptr;
};
// The same of such numbers. x: the values; y: holds the tangents.
template <class R>
void activate_array(const Activation& a, std::size_t n, const R* x, Parted<R> y, Parted<R> slope) {
  dispatch(a, [&](auto kind) {
    constexpr Activation::Kind K = decltype(kind)::value;
#pragma omp simd
    for (std::size_t i = 0; i < n; ++i) {
      Dual<R> of, d;
      activate<K>(a, Dual<R>(x[i], y.tangent[i]), &of, &d);
      y.value[i] = of.value, y.tangent[i] = of.tangent;
      slope.value[i] = d.value, slope.tangent[i] = d.tangent;
    }
  });
}

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
