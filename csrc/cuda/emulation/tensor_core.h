// What a tensor core of an H100 or H200 makes of a sum of products of tf32 or f16 and a float.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace dpa2md {

// 2 to the power n, -1022 <= n <= 1023.
inline double power_of_two(int n) {
  const std::uint64_t bits = static_cast<std::uint64_t>(n + 1023) << 52;
  double x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}
// Of a float, denormal ones as the smallest normal one.
inline int exponent_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return std::max(static_cast<int>(bits >> 23 & 0xff), 1) - 127;
}

// c + a[0] b[0] + ... + a[count - 1] b[count - 1], count <= 16, of what one mma instruction adds at once (8
// of tf32, 16 of f16). The products are exact. All addends are cut, towards zero, behind the 25th bit after
// the highest that c or a product can have (a product's by the sum of its factors' exponents). The sum of
// what is left, exact, is cut to a float, towards zero too. For tf32 this gives the bits of an H200
// (test_gpu_tensor), whose samples have one factor 1; the rest is from Khattak and Mikaitis, arXiv
// 2512.07004.
inline float tensor_core_sum(float c, const float* a, const float* b, int count) {
  constexpr int lowest = -252, not_finite = 128;
  int top = c != 0 ? exponent_of(c) : lowest, largest = exponent_of(c);
  for (int k = 0; k < count; ++k) {
    const int of_a = exponent_of(a[k]), of_b = exponent_of(b[k]);
    largest = std::max({largest, of_a, of_b});
    top = std::max(top, a[k] != 0 && b[k] != 0 ? of_a + of_b : lowest);
  }
  if (largest == not_finite) {
    for (int k = 0; k < count; ++k) c += a[k] * b[k];
    return c;
  }
  const double quanta = power_of_two(25 - top);
  std::int64_t sum = static_cast<std::int32_t>(c * quanta);
  for (int k = 0; k < count; ++k) sum += static_cast<std::int32_t>(static_cast<double>(a[k]) * b[k] * quanta);
  const double whole = static_cast<double>(sum);  // of 32 bits, of which a float takes 24
  std::uint64_t bits;
  std::memcpy(&bits, &whole, sizeof(bits));
  bits &= ~std::uint64_t{0x1fffffff};
  double cut;
  std::memcpy(&cut, &bits, sizeof(cut));
  return static_cast<float>(cut * power_of_two(top - 25));
}

}  // namespace dpa2md
