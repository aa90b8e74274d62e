// The activations of nets and their derivatives, once for every backend (scalar_math.h) and for dual numbers.
#pragma once

#include "base/dual.h"
#include "base/jet.h"
#include "base/scalar_math.h"

namespace dpa2md {

struct Activation {
  enum Kind { kLinear, kTanh, kRelu, kRelu6, kSoftplus, kSigmoid, kSilu, kGelu, kSilut } kind = kLinear;
  double threshold = 0, slope = 0, offset = 0;  // silut: T, silu'(T), silu(T)
};

// value and derivative of the activation K at x
template <Activation::Kind K, class T>
DPA2MD_HD void activate(const Activation& a, T x, T* value, T* slope) {
  if constexpr (K == Activation::kTanh) {
    const T t = math::tanh(x);
    *value = t;
    *slope = T(1) - t * t;
  } else if constexpr (K == Activation::kRelu) {
    *value = x > T(0) ? x : T(0);
    *slope = x > T(0) ? T(1) : T(0);
  } else if constexpr (K == Activation::kRelu6) {
    *value = math::clamp(x, T(0), T(6));
    *slope = (x > T(0) && x < T(6)) ? T(1) : T(0);
  } else if constexpr (K == Activation::kSoftplus) {
    *value = x > T(20) ? x : math::softplus(x);
    *slope = x > T(20) ? T(1) : math::sigmoid(x);
  } else if constexpr (K == Activation::kSigmoid) {
    const T s = math::sigmoid(x);
    *value = s;
    *slope = s * (T(1) - s);
  } else if constexpr (K == Activation::kSilu) {
    const T s = math::sigmoid(x);
    *value = x * s;
    *slope = s * (T(1) + x * (T(1) - s));
  } else if constexpr (K == Activation::kGelu) {
    const T c = T(0.7978845608028654);  // sqrt(2/pi)
    const T t = math::tanh(c * (x + T(0.044715) * x * x * x));
    *value = T(0.5) * x * (T(1) + t);
    *slope = T(0.5) * (T(1) + t) + T(0.5) * x * (T(1) - t * t) * c * (T(1) + T(3 * 0.044715) * x * x);
  } else if constexpr (K == Activation::kSilut) {
    const T s = math::sigmoid(x);
    const T t = math::tanh(T(a.slope) * (x - T(a.threshold)));
    const bool tail = x >= T(a.threshold);
    *value = tail ? t + T(a.offset) : x * s;
    *slope = tail ? (T(1) - t * t) * T(a.slope) : s * (T(1) + x * (T(1) - s));
  } else {
    *value = x;
    *slope = T(1);
  }
}

// Calls f(std::integral_constant-like tag) for the activation's kind: `dispatch(a, [&](auto k) {
// activate<k.value>… })`.
template <Activation::Kind K>
struct ActivationTag {
  static constexpr Activation::Kind value = K;
};
template <class F>
DPA2MD_DEVICE_TOO void dispatch(const Activation& a, F&& f) {
  switch (a.kind) {
    case Activation::kTanh:
      return f(ActivationTag<Activation::kTanh>{});
    case Activation::kRelu:
      return f(ActivationTag<Activation::kRelu>{});
    case Activation::kRelu6:
      return f(ActivationTag<Activation::kRelu6>{});
    case Activation::kSoftplus:
      return f(ActivationTag<Activation::kSoftplus>{});
    case Activation::kSigmoid:
      return f(ActivationTag<Activation::kSigmoid>{});
    case Activation::kSilu:
      return f(ActivationTag<Activation::kSilu>{});
    case Activation::kGelu:
      return f(ActivationTag<Activation::kGelu>{});
    case Activation::kSilut:
      return f(ActivationTag<Activation::kSilut>{});
    case Activation::kLinear:
      return f(ActivationTag<Activation::kLinear>{});
  }
}

}  // namespace dpa2md
