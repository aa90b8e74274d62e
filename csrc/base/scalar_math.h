// exp, tanh and the switch function, once for every
// backend: this header is read by the host compiler and by nvcc. The host versions of exp and tanh are free
// of branches and calls, so that loops over them vectorise without -ffast-math; both are accurate to about 2
// ulp.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define DPA2MD_DEVICE_TOO __host__ __device__
#define DPA2MD_HD DPA2MD_DEVICE_TOO inline
#elif defined(__GNUC__)
#define DPA2MD_HD __attribute__((always_inline)) inline
#else
#define DPA2MD_HD inline
#endif
#if !defined(DPA2MD_DEVICE_TOO)
#define DPA2MD_DEVICE_TOO
#endif

namespace dpa2md {

namespace math {

// exp(r) - 1 for |r| <= ln2 / 2. V is a number or a vector of numbers of type S.
template <class S, class V>
DPA2MD_HD V expm1_small(V r) {
  V p;
  if constexpr (sizeof(S) == 8) {
    p = r * S(1.0 / 6227020800.0) + S(1.0 / 479001600.0);
    p = p * r + S(1.0 / 39916800.0);
    p = p * r + S(1.0 / 3628800.0);
    p = p * r + S(1.0 / 362880.0);
    p = p * r + S(1.0 / 40320.0);
    p = p * r + S(1.0 / 5040.0);
    p = p * r + S(1.0 / 720.0);
  } else {
    p = r * S(1.0 / 5040.0) + S(1.0 / 720.0);
  }
  p = p * r + S(1.0 / 120.0);
  p = p * r + S(1.0 / 24.0);
  p = p * r + S(1.0 / 6.0);
  p = p * r + S(0.5);
  return r + r * r * p;
}

// exp(x) = scale (1 + p) with scale = 2^k and p = expm1(r), x = k ln2 + r, for x in [-708, 709] (float32:
// [-87, 88]). The bits of 2^k come from those of k + 1.5 2^52 (2^23).
DPA2MD_HD void split_exp(double x, double* scale, double* p) {
  const double shifted = x * 1.4426950408889634 + 6755399441055744.0;
  const double k = shifted - 6755399441055744.0;
  *p = expm1_small<double>((x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10);
  std::uint64_t bits;
  std::memcpy(&bits, &shifted, 8);
  bits = (bits + 1023) << 52;
  std::memcpy(scale, &bits, 8);
}
DPA2MD_HD void split_exp(float x, float* scale, float* p) {
  const float shifted = x * 1.44269504f + 12582912.0f;
  const float k = shifted - 12582912.0f;
  *p = expm1_small<float>((x - k * 6.93359375e-01f) + k * 2.12194440e-4f);
  std::uint32_t bits;
  std::memcpy(&bits, &shifted, 4);
  bits = (bits + 127) << 23;
  std::memcpy(scale, &bits, 4);
}

template <class T>
DPA2MD_HD T exp_bounded(T x) {
  T scale, p;
  split_exp(x, &scale, &p);
  return scale + scale * p;
}
template <class T>
DPA2MD_HD T expm1_bounded(T x) {
  T scale, p;
  split_exp(x, &scale, &p);
  return (scale - T(1)) + scale * p;
}

template <class T>
DPA2MD_HD T clamp(T x, T lo, T hi) {
  return x < lo ? lo : (x > hi ? hi : x);
}

#if defined(__CUDA_ARCH__)
DPA2MD_HD double exp(double x) { return ::exp(x); }
DPA2MD_HD float exp(float x) { return ::expf(x); }
DPA2MD_HD double tanh(double x) { return ::tanh(x); }
DPA2MD_HD float tanh(float x) { return ::tanhf(x); }
#else
DPA2MD_HD double exp(double x) { return exp_bounded(clamp(x, -708.0, 709.0)); }
DPA2MD_HD float exp(float x) { return exp_bounded(clamp(x, -87.0f, 88.0f)); }
// tanh(x) = e/(e + 2) with e = expm1(2|x|): exact for small x, and 1 to rounding from 20 (float32: 10) on.
DPA2MD_HD double tanh(double x) {
  const double e = expm1_bounded(clamp(2.0 * std::fabs(x), 0.0, 40.0));
  return std::copysign(e / (e + 2.0), x);
}
DPA2MD_HD float tanh(float x) {
  const float e = expm1_bounded(clamp(2.0f * std::fabs(x), 0.0f, 20.0f));
  return std::copysign(e / (e + 2.0f), x);
}
#endif

template <class T>
DPA2MD_HD T sigmoid(T x) {
  return T(0.5) * (T(1) + tanh(T(0.5) * x));
}
DPA2MD_HD double sqrt(double x) { return std::sqrt(x); }
DPA2MD_HD float sqrt(float x) { return std::sqrt(x); }
DPA2MD_HD double softplus(double x) { return std::log1p(std::exp(x)); }
DPA2MD_HD float softplus(float x) { return float(softplus(double(x))); }

}  // namespace math

// The switch at u, how far between its ends, and its derivative by a distance whose range is `width`. V is a
// number or a vector of numbers.
template <class V>
DPA2MD_HD void switch_polynomial(V u, double width, V* sw, V* dsw) {
  *sw = 1.0 + u * u * u * (-10.0 + u * (15.0 - 6.0 * u));
  *dsw = u * u * (-30.0 + u * (60.0 - 30.0 * u)) / width;
}
// sw(r) of the environment matrix and its derivative: 1 below rcut_smth, 0 beyond rcut, a quintic between.
DPA2MD_HD void switch_function(double r, double rcut_smth, double rcut, double* sw, double* dsw) {
  const double width = rcut - rcut_smth;
  switch_polynomial(math::clamp((r - rcut_smth) / width, 0.0, 1.0), width, sw, dsw);
}

}  // namespace dpa2md
