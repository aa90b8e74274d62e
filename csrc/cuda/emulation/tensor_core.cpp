// Compiled with optimisation and without sanitizers in every build: most of an emulated step's time is here.
#include "cuda/emulation/tensor_core.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define DPA2MD_CLONES __attribute__((target_clones("default", "arch=haswell", "arch=skylake-avx512")))
#else
#define DPA2MD_CLONES
#endif

namespace dpa2md {

namespace {

// 2 to the power n, -1022 <= n <= 1023.
inline double power_of_two(int n) {
  const std::uint64_t bits = static_cast<std::uint64_t>(n + 1023) << 52;
  double x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}
// The exponent of a float; a denormal number counts as the smallest normal one.
inline int exponent_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return std::max(static_cast<int>(bits >> 23 & 0xff), 1) - 127;
}

// Rounds to a float, towards zero.
inline double cut_to_float(double x) {
  std::uint64_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  bits &= ~std::uint64_t{0x1fffffff};
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

template <int COUNT>
inline __attribute__((always_inline)) float sum_of(float c, const float* a, const float* b) {
  constexpr int lowest = -252, not_finite = 128;
  int top = c != 0 ? exponent_of(c) : lowest, largest = exponent_of(c);
  for (int k = 0; k < COUNT; ++k) {
    const int of_a = exponent_of(a[k]), of_b = exponent_of(b[k]);
    const bool zero = (a[k] == 0) | (b[k] == 0);
    largest = std::max(largest, std::max(of_a, of_b));
    top = std::max(top, zero ? lowest : of_a + of_b);
  }
  if (largest == not_finite) {
    for (int k = 0; k < COUNT; ++k) c += a[k] * b[k];
    return c;
  }
  const double quanta = power_of_two(25 - top);
  std::int64_t sum = static_cast<std::int32_t>(c * quanta);
  for (int k = 0; k < COUNT; ++k) sum += static_cast<std::int32_t>(static_cast<double>(a[k]) * b[k] * quanta);
  return static_cast<float>(cut_to_float(static_cast<double>(sum)) * power_of_two(top - 25));
}

constexpr int kZeroExponent = -1000;  // far below all others
constexpr int kColumns = TensorCoreProduct::kColumns;

// sum_of<8> for all columns: c[j] = sum_of<8>(c[j], x, y[j]).
template <class X, class Y>
inline __attribute__((always_inline)) void add_eight(const X& x, const Y& y, int n, float* __restrict c) {
  constexpr int lowest = -252, not_finite = 128;
  std::int32_t top[kColumns], largest[kColumns], sum[kColumns];
  double quanta[kColumns];
  for (int j = 0; j < n; ++j) {
    largest[j] = exponent_of(c[j]);
    top[j] = c[j] != 0 ? largest[j] : lowest;
  }
  for (int k = 0; k < 8; ++k) {
    const std::int32_t of_x = x(k).exponent[0];
    const std::int32_t* exponents = y(k).exponent;
    for (int j = 0; j < n; ++j) {
      const std::int32_t of_y = exponents[j];
      top[j] = std::max(top[j], of_x + of_y);
      largest[j] = std::max(largest[j], std::max(of_x, of_y));
    }
  }
  if (*std::max_element(largest, largest + n) == not_finite) {
    for (int j = 0; j < n; ++j) {
      float a[8], b[8];
      for (int k = 0; k < 8; ++k)
        a[k] = static_cast<float>(x(k).factor[0]), b[k] = static_cast<float>(y(k).factor[j]);
      c[j] = sum_of<8>(c[j], a, b);
    }
    return;
  }
  for (int j = 0; j < n; ++j) {
    quanta[j] = power_of_two(25 - top[j]);
    sum[j] = static_cast<std::int32_t>(c[j] * quanta[j]);
  }
  for (int k = 0; k < 8; ++k) {  // of nine addends below 2^27
    const double factor = x(k).factor[0];
    const double* factors = y(k).factor;
    for (int j = 0; j < n; ++j) sum[j] += static_cast<std::int32_t>(factor * factors[j] * quanta[j]);
  }
  for (int j = 0; j < n; ++j) c[j] = static_cast<float>(cut_to_float(sum[j]) * power_of_two(top[j] - 25));
}

}  // namespace

DPA2MD_CLONES float tensor_core_sum(float c, const float* a, const float* b, int count) {
  return count == 8 ? sum_of<8>(c, a, b) : sum_of<16>(c, a, b);
}

template <int N>
void TensorCoreProduct::Factors<N>::set(int at, float x) {
  factor[at] = x;
  exponent[at] = x == 0 ? kZeroExponent : exponent_of(x);
}

TensorCoreProduct::TensorCoreProduct(int k, int n) : k_((k + 7) / 8 * 8), n_(n) {
  Split<1> zero;
  zero.high.set(0, 0), zero.low.set(0, 0);
  Split<kColumns> zeros;
  for (int j = 0; j < kColumns; ++j) zeros.high.set(j, 0), zeros.low.set(j, 0);
  x_.assign(k_, zero);
  y_.assign(static_cast<std::size_t>(n + kColumns - 1) / kColumns * k_, zeros);
}
void TensorCoreProduct::set_x(int p, float high, float low) {
  x_[p].high.set(0, high), x_[p].low.set(0, low);
}
void TensorCoreProduct::set_y(int p, int j, float high, float low) {
  auto& y = y_[static_cast<std::size_t>(j / kColumns) * k_ + p];
  y.high.set(j % kColumns, high), y.low.set(j % kColumns, low);
}

DPA2MD_CLONES void TensorCoreProduct::row(float* c) const {
  for (int j0 = 0; j0 < n_; j0 += kColumns) {
    const int columns = std::min(kColumns, n_ - j0);
    const Split<kColumns>* y = &y_[static_cast<std::size_t>(j0 / kColumns) * k_];
    float sum[kColumns] = {};
    for (int p = 0; p < k_; p += 8) {
      float part[kColumns] = {};
      const auto x_high = [&](int k) -> auto& { return x_[p + k].high; };
      const auto x_low = [&](int k) -> auto& { return x_[p + k].low; };
      const auto y_high = [&](int k) -> auto& { return y[p + k].high; };
      const auto y_low = [&](int k) -> auto& { return y[p + k].low; };
      add_eight(x_low, y_high, columns, part);
      add_eight(x_high, y_low, columns, part);
      add_eight(x_high, y_high, columns, part);
      for (int j = 0; j < columns; ++j) sum[j] += part[j];
    }
    for (int j = 0; j < columns; ++j) c[j0 + j] = sum[j];
  }
}

}  // namespace dpa2md
