// What instructions of PTX give, in plain loops, for instructions.cu.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

namespace {

template <class To, class From>
__host__ __device__ To bits(From x) {
  static_assert(sizeof(To) == sizeof(From), "");
  To out;
  memcpy(&out, &x, sizeof(x));
  return out;
}

// Values of halves, and the nearest half of a number: a search through all.
double half_value(u16 h) {
  const int exponent = h >> 10 & 31, rest = h & 1023;
  const double size = exponent == 31 ? (rest ? NAN : INFINITY)
                      : exponent     ? std::ldexp(1024 + rest, exponent - 25)
                                     : std::ldexp(rest, -24);
  return h & 0x8000 ? -size : size;
}
u16 nearest_half(double x) {
  if (std::isnan(x)) return 0x7fff;
  const u16 sign = std::signbit(x) ? 0x8000 : 0;
  x = std::fabs(x);
  if (x >= 65520) return sign | 0x7c00;  // halfway from the last to what would come next
  u16 best = 0;
  for (u16 h = 0; h < 0x7c00; ++h) {
    const double now = std::fabs(half_value(h) - x), before = std::fabs(half_value(best) - x);
    if (now < before || (now == before && !(h & 1))) best = h;
  }
  return sign | best;
}
double low(u32 x) { return half_value(u16(x)); }
double high(u32 x) { return half_value(u16(x >> 16)); }
u32 two(double l, double h) { return u32(nearest_half(h)) << 16 | nearest_half(l); }

struct Lanes {  // of the first register, all threads'
  const u32* all;
  int i;
  u32 operator[](int lane) const { return all[i / 32 * 32 + lane]; }
};
struct Instruction {
  const char* name;
  std::function<u32(u32, u32, u32, Lanes)> expected;
  int kind;  // of the result: 0 bits, 1 a float, 2 a float about, 3 one or two halves (NaNs are equal)
};
float f(u32 x) { return bits<float>(x); }
u32 u(double x) { return bits<u32>(float(x)); }
// How much a + b is above a number near it: its sign is right.
double beyond(double a, double b, double near) {
  return std::fabs(a) > std::fabs(b) ? (a - near) + b : (b - near) + a;
}
float flushed(float x) { return std::fabs(x) < 1.17549435e-38f ? std::copysign(0.0f, x) : x; }

const std::vector<Instruction>& instructions() {
  static const std::vector<Instruction> all = {
      {"cvt.rn.f16.f32", [](u32 a, u32, u32, Lanes) { return two(f(a), f(a)); }, 3},
      {"cvt.rn.f16x2.f32", [](u32 a, u32 b, u32, Lanes) { return two(f(b), f(a)); }, 3},
      {"cvt.f32.f16", [](u32 a, u32, u32, Lanes) { return u(high(a)); }, 1},
      {"mov.b32 {,}", [](u32 a, u32 b, u32, Lanes) { return a << 16 | b >> 16; }, 0},
      {"add.f16x2", [](u32 a, u32 b, u32, Lanes) { return two(low(a) + low(b), high(a) + high(b)); }, 3},
      {"sub.f16x2", [](u32 a, u32 b, u32, Lanes) { return two(low(a) - low(b), high(a) - high(b)); }, 3},
      {"mul.f16x2", [](u32 a, u32 b, u32, Lanes) { return two(low(a) * low(b), high(a) * high(b)); }, 3},
      {"fma.f16x2",
       [](u32 a, u32 b, u32 c, Lanes) { return two(low(a) * low(b) + low(c), high(a) * high(b) + high(c)); },
       3},
      {"cvt.rn.bf16x2.f32",
       [](u32 a, u32 b, u32, Lanes) {
         const auto rounded = [](u32 x) { return (x + 0x7fff + (x >> 16 & 1)) >> 16; };
         return rounded(a) << 16 | (std::isnan(f(b)) ? 0x7fff : rounded(b));
       },
       3},
      {"cvt.rna.tf32.f32",
       [](u32 a, u32, u32, Lanes) {
         float below = f(a & 0xffffe000u);
         const float above = f((a & 0xffffe000u) + 0x2000);
         if (std::isinf(f(a))) return a;
         return bits<u32>(double(f(a)) - below < 0 == (f(a) > 0) ||
                                  std::fabs(f(a) - double(below)) < std::fabs(double(above) - f(a))
                              ? below
                              : above);
       },
       1},
      {"lop3.b32", [](u32 a, u32 b, u32 c, Lanes) { return (a & b) | (b & c) | (a & c); }, 0},
      {"prmt.b32",
       [](u32 a, u32 b, u32 c, Lanes) {
         u32 out = 0;
         for (int k = 0; k < 4; ++k) {
           const u32 n = c >> 4 * k & 15;
           u32 byte = (n & 4 ? b : a) >> 8 * (n & 3) & 255;
           if (n & 8) byte = byte >= 128 ? 255 : 0;
           out |= byte << 8 * k;
         }
         return out;
       },
       0},
      {"shf.l.wrap.b32",
       [](u32 a, u32 b, u32 c, Lanes) { return c % 32 ? b << c % 32 | a >> (32 - c % 32) : b; }, 0},
      {"shf.r.clamp.b32",
       [](u32 a, u32 b, u32 c, Lanes) { return c >= 32 ? b
                                               : c     ? b << (32 - c) | a >> c
                                                       : a; }, 0},
      {"bfe.u32",
       [](u32 a, u32 b, u32 c, Lanes) {
         u32 out = 0;
         for (u32 k = 0; k < (c & 255) && k < 32; ++k)
           if ((b & 255) + k < 32) out |= (a >> ((b & 255) + k) & 1) << k;
         return out;
       },
       0},
      {"bfe.s32", [](u32 a, u32, u32, Lanes) { return u32(std::int32_t(a << 16) >> 23); }, 0},
      {"bfi.b32", [](u32 a, u32 b, u32, Lanes) { return (b & ~(0x7ffu << 5)) | (a & 0x7ff) << 5; }, 0},
      {"popc.b32", [](u32 a, u32, u32, Lanes) { return u32(__builtin_popcount(a)); }, 0},
      {"clz.b32", [](u32 a, u32, u32, Lanes) { return a ? u32(__builtin_clz(a)) : 32; }, 0},
      {"brev.b32",
       [](u32 a, u32, u32, Lanes) {
         u32 out = 0;
         for (int k = 0; k < 32; ++k) out |= (a >> k & 1) << (31 - k);
         return out;
       },
       0},
      {"setp.hi.and.u32", [](u32 a, u32 b, u32 c, Lanes) { return a > b ? b : c; }, 0},
      {"min.f32", [](u32 a, u32 b, u32, Lanes) { return u(std::fmin(f(a), f(b))); }, 1},
      {"max.f32", [](u32 a, u32 b, u32, Lanes) { return u(std::fmax(f(a), f(b))); }, 1},
      {"neg.f32", [](u32 a, u32, u32, Lanes) { return a ^ 0x80000000u; }, 1},
      {"abs.f32", [](u32 a, u32, u32, Lanes) { return a & 0x7fffffffu; }, 1},
      {"fma.rz.f32",
       [](u32 a, u32 b, u32 c, Lanes) {
         const float near = std::fma(f(a), f(b), f(c));
         const double rest = beyond(double(f(a)) * f(b), f(c), near);
         return bits<u32>(rest * near < 0 ? std::nextafter(near, 0.0f) : near);
       },
       1},
      {"add.rm.f32",
       [](u32 a, u32 b, u32, Lanes) {
         const float near = f(a) + f(b);
         return bits<u32>(beyond(f(a), f(b), near) < 0 ? std::nextafter(near, -INFINITY) : near);
       },
       1},
      {"add.ftz.f32", [](u32 a, u32 b, u32, Lanes) { return u(flushed(flushed(f(a)) + flushed(f(b)))); }, 1},
      {"setp.gtu.f32 p|q", [](u32 a, u32 b, u32, Lanes) { return f(a) <= f(b) ? a : b; }, 1},
      {"cvt.rmi.f32.f32", [](u32 a, u32, u32, Lanes) { return u(std::floor(f(a))); }, 1},
      {"sqrt.rn.f32", [](u32 a, u32, u32, Lanes) { return u(std::sqrt(f(a))); }, 1},
      {"div.full.f32", [](u32 a, u32 b, u32, Lanes) { return u(double(f(a)) / f(b)); }, 2},
      {"rcp.approx.ftz.f32", [](u32 a, u32, u32, Lanes) { return u(flushed(1 / flushed(f(a)))); }, 2},
      {"rsqrt.approx.f32", [](u32 a, u32, u32, Lanes) { return u(1 / std::sqrt(double(f(a)))); }, 2},
      {"ex2.approx.ftz.f32", [](u32 a, u32, u32, Lanes) { return u(flushed(std::exp2(flushed(f(a))))); }, 2},
      {"lg2.approx.f32", [](u32 a, u32, u32, Lanes) { return u(std::log2(f(a))); }, 2},
      {"tanh.approx.f32", [](u32 a, u32, u32, Lanes) { return u(std::tanh(f(a))); }, 2},
      {"redux.sync.add.u32",
       [](u32, u32, u32, Lanes a) {
         u32 sum = 0;
         for (int k = 0; k < 32; ++k) sum += a[k];
         return sum;
       },
       0},
      {"redux.sync.max.s32",
       [](u32, u32, u32, Lanes a) {
         std::int32_t most = a[0];
         for (int k = 1; k < 32; ++k) most = std::max(most, std::int32_t(a[k]));
         return u32(most);
       },
       0},
      {"vote.sync.ballot.b32",
       [](u32, u32, u32, Lanes a) {
         u32 out = 0;
         for (int k = 0; k < 32; ++k) out |= (a[k] >> 31) << k;
         return out;
       },
       0},
      {"match.any.sync.b32",
       [](u32 own, u32, u32, Lanes a) {
         u32 out = 0;
         for (int k = 0; k < 32; ++k) out |= u32(a[k] % 2 == own % 2) << k;
         return out;
       },
       0},
      {"shfl.sync.idx.b32", [](u32, u32 b, u32, Lanes a) { return a[(a.i % 32 & 24) + b % 8]; }, 0},
      {"shfl.sync.down.b32",
       [](u32 own, u32, u32, Lanes a) { return a.i % 32 + 3 < 32 ? a[a.i % 32 + 3] : own; }, 0},
  };
  return all;
}

}  // namespace
