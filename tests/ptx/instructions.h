// Arithmetic of PTX instructions (PTX ISA, "Instruction Set"), one template each, for the output of
// translate.py.
#pragma once

#include <algorithm>
#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace ptx {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s8 = std::int8_t;
using s16 = std::int16_t;
using s32 = std::int32_t;
using s64 = std::int64_t;

// A register's bits as another type; of integers that are narrower, the low ones.
template <class T, class U>
T as(U x) {
  if constexpr (std::is_same_v<T, U>) {
    return x;
  } else if constexpr (sizeof(T) == sizeof(U)) {
    return std::bit_cast<T>(x);
  } else {
    static_assert(std::is_integral_v<T> && std::is_integral_v<U> && sizeof(T) < sizeof(U));
    return static_cast<T>(x);
  }
}
// Into a register: wider ones take a signed value's sign.
template <class R, class T>
void put(R& to, T value) {
  if constexpr (sizeof(R) > sizeof(T)) {
    static_assert(std::is_integral_v<R> && std::is_integral_v<T>);
    to = static_cast<R>(value);
  } else {
    to = as<R>(value);
  }
}
template <class T>
T read(u64 at) {
  T x;
  std::memcpy(&x, reinterpret_cast<const void*>(at), sizeof(T));
  return x;
}
template <class T>
void write(u64 at, T x) {
  std::memcpy(reinterpret_cast<void*>(at), &x, sizeof(T));
}

// Integers wrap around.
template <class T>
using Wraps =
    typename std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>, std::type_identity<T>>::type;

template <class T>
T add_(T a, T b) {
  return T(Wraps<T>(a) + Wraps<T>(b));
}
template <class T>
T sub_(T a, T b) {
  return T(Wraps<T>(a) - Wraps<T>(b));
}
template <class T>
T mul_(T a, T b) {
  return a * b;
}
template <class T>
T mul_lo_(T a, T b) {
  return T(Wraps<T>(a) * Wraps<T>(b));
}
// a's lowest bits in the place of `count` bits of b; of `at` and `count` the last 8 bits are looked at
template <class T>
T bfi_(T a, T b, u32 at, u32 count) {
  at &= 0xff, count &= 0xff;
  if (at >= 8 * sizeof(T)) return b;
  const T mask = (count < 8 * sizeof(T) ? (T(1) << count) - 1 : ~T(0)) << at;
  return (b & ~mask) | ((a << at) & mask);
}
// `count` bits of a; above them zeros, or of signed ones the last of those that there are.
template <class T>
T bfe_(T a, u32 at, u32 count) {
  constexpr u32 bits = 8 * sizeof(T);
  at &= 0xff, count &= 0xff;
  const u32 last = std::min(at + count, bits) - 1;  // also where count is 0
  const bool sign = std::is_signed_v<T> && count && (a >> std::min(last, bits - 1) & 1);
  T out = sign ? T(-1) : T(0);
  for (u32 k = 0; k < count && k < bits && at + k < bits; ++k) {
    const T bit = T(1) << k;
    out = a >> (at + k) & 1 ? out | bit : out & ~bit;
  }
  return out;
}
template <class T>
u32 popc_(T a) {
  return std::popcount(a);
}
template <class T>
u32 clz_(T a) {
  return std::countl_zero(a);
}
template <class T>
T brev_(T a) {
  T out = 0;
  for (u32 k = 0; k < 8 * sizeof(T); ++k) out = out << 1 | (a >> k & 1);
  return out;
}
// the highest bit that is not the sign
template <class T>
u32 bfind_(T a) {
  const auto bits = std::make_unsigned_t<T>(a < 0 ? ~a : a);
  return bits ? 8 * sizeof(T) - 1 - std::countl_zero(bits) : 0xffffffffu;
}
// Of the 64 bits b, a (upper, lower): those that a shift leaves in the upper (l) or lower (r) half.
template <class T>
u32 shf_l_wrap_(u32 a, u32 b, u32 n) {
  return u32(((u64(b) << 32 | a) << (n & 31)) >> 32);
}
template <class T>
u32 shf_l_clamp_(u32 a, u32 b, u32 n) {
  return u32(((u64(b) << 32 | a) << std::min(n, 32u)) >> 32);
}
template <class T>
u32 shf_r_wrap_(u32 a, u32 b, u32 n) {
  return u32((u64(b) << 32 | a) >> (n & 31));
}
template <class T>
u32 shf_r_clamp_(u32 a, u32 b, u32 n) {
  return u32((u64(b) << 32 | a) >> std::min(n, 32u));
}
// Bytes of b, a by the four nibbles of `which`; with the nibble's last bit, the byte's sign everywhere.
template <class T>
u32 prmt_(u32 a, u32 b, u32 which) {
  u32 out = 0;
  for (u32 k = 0; k < 4; ++k) {
    const u32 n = which >> 4 * k & 15, byte = u32((u64(b) << 32 | a) >> 8 * (n & 7)) & 0xff;
    out |= (n < 8 ? byte : byte & 0x80 ? 0xffu : 0u) << 8 * k;
  }
  return out;
}
// Bit by bit what the table says of those of a, b, c.
template <class T>
u32 lop3_(u32 a, u32 b, u32 c, u32 table) {
  u32 out = 0;
  for (u32 k = 0; k < 8; ++k) {
    if (table >> k & 1) out |= (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
  }
  return out;
}
template <class T>
T mad_lo_(T a, T b, T c) {
  return T(Wraps<T>(a) * Wraps<T>(b) + Wraps<T>(c));
}
template <class T>
T mul_hi_(T a, T b) {
  using Wide = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
  return T(Wide(a) * Wide(b) >> 8 * sizeof(T));
}
template <class T>
T mad_hi_(T a, T b, T c) {
  return add_(mul_hi_(a, b), c);
}
template <class W, class T>
W mul_wide(T a, T b) {
  return W(a) * W(b);
}
template <class T>
T div_(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    if (b == 0 || (std::is_signed_v<T> && b == T(-1))) return b == 0 ? T(-1) : sub_<T>(0, a);
  }
  return a / b;
}
template <class T>
T rem_(T a, T b) {
  return b == 0 ? T(-1) : b == T(-1) && std::is_signed_v<T> ? T(0) : T(a % b);
}
template <class T>
T and_(T a, T b) {
  return a & b;
}
template <class T>
T or_(T a, T b) {
  return a | b;
}
template <class T>
T xor_(T a, T b) {
  return a ^ b;
}
template <class T>
T not_(T a) {
  return ~a;
}
template <class T>
u32 popc_(T a) {
  return u32(__builtin_popcount(u32(a)));
}
template <>
inline bool not_(bool a) {
  return !a;
}
template <class T>
T neg_(T a) {
  return std::is_integral_v<T> ? sub_<T>(0, a) : T(-a);
}
template <class T>
T abs_(T a) {
  return std::is_integral_v<T> ? (a < 0 ? neg_(a) : a) : T(std::abs(a));
}
// Of a NaN and a number, the number.
template <class T>
T min_(T a, T b) {
  return a != a || b < a ? b : a;
}
template <class T>
T max_(T a, T b) {
  return a != a || b > a ? b : a;
}
template <class T>
T min_NaN_(T a, T b) {
  return a != a ? a : b != b ? b : min_(a, b);
}
template <class T>
T max_NaN_(T a, T b) {
  return a != a ? a : b != b ? b : max_(a, b);
}
template <class T>
T copysign_(T sign, T size) {
  return std::copysign(size, sign);
}
template <class T>
T sqrt_(T a) {
  return std::sqrt(a);
}
template <class T>
T rcp_(T a) {
  return T(1) / a;
}
template <class T>
T fma_(T a, T b, T c) {
  return std::fma(a, b, c);
}
// Rounded by the host another way than to the nearest.
template <class T, class F, class... X>
__attribute__((noinline)) T directed(int how, F f, X... x) {
  std::fesetround(how);
  volatile T out = f(*const_cast<volatile X*>(&x)...);
  std::fesetround(FE_TONEAREST);
  return out;
}
// .ftz: no denormal numbers
inline float flushed(float a) { return std::abs(a) < std::numeric_limits<float>::min() ? a * 0 : a; }
template <class T>
T ex2_approx_(T a) {
  return std::exp2(a);
}
// As exact as a GPU: float to the last bit or two, double to 20 bits.
template <class T>
T rcp_approx_(T a) {
  return sizeof(T) == 4 ? T(1) / a : T(as<double>(as<u64>(double(T(1) / a)) & ~u64(0xffffffff)));
}

template <class T>
T rsqrt_approx_(T a) {
  return rcp_approx_(T(std::sqrt(a)));
}
// Better than a GPU's, whose last bits differ.
template <class T>
T sqrt_approx_(T a) {
  return std::sqrt(a);
}
template <class T>
T div_approx_(T a, T b) {
  return a / b;
}
template <class T>
T lg2_approx_(T a) {
  return std::log2(a);
}
template <class T>
T sin_approx_(T a) {
  return std::sin(a);
}
template <class T>
T cos_approx_(T a) {
  return std::cos(a);
}
template <class T>
T tanh_approx_(T a) {
  return std::tanh(a);
}

// The whole width or more shifts everything out.
template <class T>
T shl(T a, u32 n) {
  return n >= 8 * sizeof(T) ? T(0) : T(Wraps<T>(a) << n);
}
template <class T>
T shr(T a, u32 n) {
  constexpr u32 most = 8 * sizeof(T) - 1;
  return n <= most ? T(a >> n) : std::is_signed_v<T> ? T(a >> most) : T(0);
}

template <class T>
bool compare_eq(T a, T b) {
  return a == b;
}
template <class T>
bool compare_ne(T a, T b) {
  return a != b && a == a && b == b;
}
template <class T>
bool compare_lt(T a, T b) {
  return a < b;
}
template <class T>
bool compare_le(T a, T b) {
  return a <= b;
}
template <class T>
bool compare_gt(T a, T b) {
  return a > b;
}
template <class T>
bool compare_ge(T a, T b) {
  return a >= b;
}
// or unordered
template <class T>
bool compare_equ(T a, T b) {
  return !(a < b || a > b);
}
template <class T>
bool compare_neu(T a, T b) {
  return a != b;
}
template <class T>
bool compare_ltu(T a, T b) {
  return !(a >= b);
}
template <class T>
bool compare_leu(T a, T b) {
  return !(a > b);
}
template <class T>
bool compare_gtu(T a, T b) {
  return !(a <= b);
}
template <class T>
bool compare_geu(T a, T b) {
  return !(a < b);
}

// both numbers, or one a NaN
template <class T>
bool compare_num(T a, T b) {
  return a == a && b == b;
}
template <class T>
bool compare_nan(T a, T b) {
  return a != a || b != b;
}

// Floats become integers towards zero, those beyond the last one the last.
template <class To, class From>
To converted(From x) {
  if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    if (x != x) return 0;
    if (x <= From(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
    if (x >= From(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
  }
  return To(x);
}
// to the nearest integer, of two the even one
template <class To, class From>
To rounded(From x) {
  return converted<To, From>(std::nearbyint(x));
}
template <class To, class From>
To truncated(From x) {
  return converted<To, From>(std::trunc(x));
}
template <class To, class From>
To floored(From x) {
  return converted<To, From>(std::floor(x));
}
template <class To, class From>
To ceiled(From x) {
  return converted<To, From>(std::ceil(x));
}
// to [0, 1]
template <class To, class From>
To saturated(From x) {
  return x > 0 ? (x < 1 ? To(x) : To(1)) : To(0);
}

}  // namespace ptx
