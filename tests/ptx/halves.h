// Numbers of 16 bits, f16 and bf16, and of 19, tf32, of PTX instructions.
#pragma once

#include "instructions.h"

namespace ptx {

// A number that halves of `digits` bits behind the point with exponents from `lowest` to `highest` can hold,
// as these store it: to the nearest, of two the even one, or towards zero.
template <int digits, int lowest, int highest>
u16 short_bits(double x, bool toward_zero) {
  constexpr u32 infinity = u32(highest - lowest + 2) << digits;
  if (x != x) return u16(0x7fff);
  const double size = std::abs(x);
  const u32 sign = std::signbit(x) ? 0x8000u : 0;
  if (std::isinf(size)) return u16(sign | infinity);
  const int exponent = size > 0 ? std::max(std::ilogb(size), lowest) : lowest;
  const double steps = std::scalbn(size, digits - exponent);
  const double whole = toward_zero ? std::trunc(steps) : std::nearbyint(steps);
  const u64 bits = (u64(exponent - lowest) << digits) + u64(whole);  // a carry raises the exponent
  if (bits >= infinity) return u16(sign | (toward_zero ? infinity - 1 : infinity));
  return u16(sign | u32(bits));
}
template <int digits, int lowest, int highest>
double short_value(u16 bits) {
  const int exponent = (bits & 0x7fff) >> digits, rest = bits & ((1 << digits) - 1);
  double size =
      std::scalbn(double(rest + (exponent ? 1 << digits : 0)), std::max(exponent, 1) - 1 + lowest - digits);
  if (exponent == highest - lowest + 2) {
    size = rest ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
  }
  return bits & 0x8000 ? -size : size;
}
struct Half {
  static u16 bits(double x, bool toward_zero = false) { return short_bits<10, -14, 15>(x, toward_zero); }
  static double value(u16 bits) { return short_value<10, -14, 15>(bits); }
};
struct Brain {  // bf16
  static u16 bits(double x, bool toward_zero = false) { return short_bits<7, -126, 127>(x, toward_zero); }
  static double value(u16 bits) { return short_value<7, -126, 127>(bits); }
};

// Their arithmetic, in doubles: what rounds these to 11 bits sees, by the last bit, that a sum is not exact.
inline double add_exact(double a, double b) {
  const double sum = a + b;
  if (!std::isfinite(sum)) return sum;
  const double of_b = sum - a, lost = (a - (sum - of_b)) + (b - of_b);
  const u64 bits = as<u64>(sum);
  if (lost == 0 || bits & 1) return sum;
  return as<double>((lost > 0) == (sum > 0) ? bits + 1 : bits - 1);
}
inline double sub_exact(double a, double b) { return add_exact(a, -b); }
inline double mul_exact(double a, double b) { return a * b; }
inline double fma_exact(double a, double b, double c) { return add_exact(a * b, c); }
inline double min_exact(double a, double b) { return min_(a, b); }
inline double max_exact(double a, double b) { return max_(a, b); }
inline double abs_exact(double a) { return std::abs(a); }
inline double neg_exact(double a) { return -a; }

template <class N, class F, class... X>
u16 of_one(F f, X... x) {
  return N::bits(f(N::value(x)...));
}
template <class N, class F, class... X>
u32 of_two(F f, X... x) {
  return u32(of_one<N>(f, u16(x >> 16)...)) << 16 | of_one<N>(f, u16(x)...);
}

// tf32: a float with 10 bits behind the point; of two neighbours equally far the larger (rna), the even one
// (rn), or towards zero.
inline u32 tf32_rz(float x) { return as<u32>(x) & 0xffffe000u; }
inline u32 tf32_rna(float x) { return std::isfinite(x) ? (as<u32>(x) + 0x1000u) & 0xffffe000u : as<u32>(x); }
inline u32 tf32_rn(float x) {
  const u32 bits = as<u32>(x);
  return std::isfinite(x) ? (bits + 0xfffu + (bits >> 13 & 1)) & 0xffffe000u : bits;
}

}  // namespace ptx
