// Instructions of PTX against plain loops of the host (test_cuda_ptx.py), those above all that nvcc does not
// make of the CUDA backend's own code, or not always. Says which were wrong.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "expected.h"

namespace {

// ---- one thread a number: results of instructions of three registers

#define OF_ONE(text, constraint, a)               \
  [&] {                                           \
    u32 d;                                        \
    asm volatile(text : "=r"(d) : constraint(a)); \
    return d;                                     \
  }()
#define OF_THREE(text)                                     \
  [&] {                                                    \
    u32 d;                                                 \
    asm volatile(text : "=r"(d) : "r"(a), "r"(b), "r"(c)); \
    return d;                                              \
  }()
#define FLOATS(text)                                       \
  [&] {                                                    \
    float d;                                               \
    asm volatile(text : "=f"(d) : "f"(x), "f"(y), "f"(z)); \
    return bits<u32>(d);                                   \
  }()

constexpr int kResults = 64;

__global__ void results(const u32* in, int n, u32* out) {
  const int i = threadIdx.x;
  const u32 a = in[i], b = in[n + i], c = in[2 * n + i];
  const float x = __uint_as_float(a), y = __uint_as_float(b), z = __uint_as_float(c);
  int k = 0;
  const auto put = [&](u32 value) { out[k++ * n + i] = value; };
  // halves
  put(OF_ONE("{.reg .b16 h; cvt.rn.f16.f32 h, %1; mov.b32 %0, {h, h};}", "f", x));
  put(OF_THREE("{.reg .f32 x, y; mov.b32 x, %1; mov.b32 y, %2; cvt.rn.f16x2.f32 %0, x, y;}"));
  put(OF_THREE("{.reg .b16 l, h; .reg .f32 x; mov.b32 {l, h}, %1; cvt.f32.f16 x, h; mov.b32 %0, x;}"));
  put(OF_THREE("{.reg .b16 l, h; mov.b32 {l, _}, %1; mov.b32 {_, h}, %2; mov.b32 %0, {h, l};}"));
  put(OF_THREE("add.rn.f16x2 %0, %1, %2;"));
  put(OF_THREE("sub.f16x2 %0, %1, %2;"));
  put(OF_THREE("mul.rn.f16x2 %0, %1, %2;"));
  put(OF_THREE("fma.rn.f16x2 %0, %1, %2, %3;"));
  put(OF_THREE("{.reg .f32 x, y; mov.b32 x, %1; mov.b32 y, %2; cvt.rn.bf16x2.f32 %0, x, y;}"));
  put(OF_ONE("cvt.rna.tf32.f32 %0, %1;", "f", x));
  // bits
  put(OF_THREE("lop3.b32 %0, %1, %2, %3, 0xe8;"));  // the majority
  put(OF_THREE("prmt.b32 %0, %1, %2, %3;"));
  put(OF_THREE("shf.l.wrap.b32 %0, %1, %2, %3;"));
  put(OF_THREE("shf.r.clamp.b32 %0, %1, %2, %3;"));
  put(OF_THREE("bfe.u32 %0, %1, %2, %3;"));
  put(OF_THREE("bfe.s32 %0, %1, 7, 9;"));
  put(OF_THREE("bfi.b32 %0, %1, %2, 5, 11;"));
  put(OF_THREE("popc.b32 %0, %1;"));
  put(OF_THREE("clz.b32 %0, %1;"));
  put(OF_THREE("brev.b32 %0, %1;"));
  put(OF_THREE("{.reg .pred p; setp.hi.and.u32 p, %1, %2, 1; selp.b32 %0, %2, %3, p;}"));
  // floats
  put(FLOATS("min.f32 %0, %1, %2;"));
  put(FLOATS("max.f32 %0, %1, %2;"));
  put(FLOATS("neg.f32 %0, %1;"));
  put(FLOATS("abs.f32 %0, %1;"));
  put(FLOATS("fma.rz.f32 %0, %1, %2, %3;"));
  put(FLOATS("add.rm.f32 %0, %1, %2;"));
  put(FLOATS("add.ftz.f32 %0, %1, %2;"));
  put(FLOATS("{.reg .pred p, q; setp.gtu.f32 p|q, %1, %2; selp.f32 %0, %1, %2, q;}"));
  put(FLOATS("cvt.rmi.f32.f32 %0, %1;"));
  put(FLOATS("sqrt.rn.f32 %0, %1;"));
  put(FLOATS("div.full.f32 %0, %1, %2;"));
  put(FLOATS("rcp.approx.ftz.f32 %0, %1;"));
  put(FLOATS("rsqrt.approx.f32 %0, %1;"));
  put(FLOATS("ex2.approx.ftz.f32 %0, %1;"));
  put(FLOATS("lg2.approx.f32 %0, %1;"));
  put(FLOATS("tanh.approx.f32 %0, %1;"));
  // warps
  put(OF_THREE("redux.sync.add.u32 %0, %1, 0xffffffff;"));
  put(OF_THREE("redux.sync.max.s32 %0, %1, 0xffffffff;"));
  put(OF_THREE("{.reg .pred p; setp.lt.s32 p, %1, 0; vote.sync.ballot.b32 %0, p, 0xffffffff;}"));
  put(OF_THREE("{.reg .b32 h; and.b32 h, %1, 1; match.any.sync.b32 %0, h, 0xffffffff;}"));
  put(OF_THREE("shfl.sync.idx.b32 %0, %1, %2, 0x1807, 0xffffffff;"));
  put(OF_THREE("shfl.sync.down.b32 %0, %1, 3, 0x1f, 0xffffffff;"));
}

bool same(u32 got, u32 expected, int kind) {
  if (kind == 0) return got == expected;
  if (kind == 3) {
    const auto same_half = [](u16 x, u16 y) {
      return x == y || ((x & 0x7fff) > 0x7c00 && (y & 0x7fff) > 0x7c00);
    };
    const auto wide = [](u32 x) { return u16(x >> 16); };
    return same_half(u16(got), u16(expected)) && same_half(wide(got), wide(expected));
  }
  const float g = f(got), e = f(expected);
  if (std::isnan(e)) return std::isnan(g);
  return kind == 1 || !std::isfinite(e) ? got == expected || (g == 0 && e == 0)
                                        : std::fabs(g - e) <= 1e-6f * std::fabs(e);
}

template <class T>
struct Array {
  T* data;
  explicit Array(std::size_t n) { cudaMalloc(&data, n * sizeof(T)); }
  explicit Array(const std::vector<T>& from) : Array(from.size()) {
    cudaMemcpy(data, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice);
  }
  std::vector<T> read(std::size_t n) const {
    std::vector<T> out(n);
    if (cudaMemcpy(out.data(), data, n * sizeof(T), cudaMemcpyDeviceToHost)) std::exit(2);
    return out;
  }
};

std::mt19937 generator(5);
int wrong = 0;
void say(const std::string& what) {
  std::printf("%s\n", what.c_str());
  ++wrong;
}

// Floats of all kinds whose halves are of all kinds, denormal ones and those halfway between two too.
u32 some_number() {
  const u32 any = generator(), which = any % 8;
  if (which == 0) return generator();                                                  // any bits
  if (which == 1) return (generator() & 0x80001000u) | (generator() % 0x1ffff << 12);  // ties of halves
  if (which == 2) return bits<u32>(std::ldexp(float(generator() % 4096) + 0.5f * (generator() % 3), -26));
  if (which == 3) return generator() & 0x807fffffu;  // denormal
  if (which == 4) return generator() % 64;
  const float x = std::ldexp(float(generator()) / 4294967296.0f - 0.5f, int(generator() % 40) - 20);
  return which == 5 ? u32(nearest_half(x)) << 16 | nearest_half(x * 3) : bits<u32>(x);
}

void check_results() {
  const int n = 512;
  std::vector<u32> in(3 * n);
  for (u32& x : in) x = some_number();
  const std::vector<Instruction>& all = instructions();
  Array<u32> from(in), out(std::size_t(kResults) * n);
  results<<<1, n>>>(from.data, n, out.data);
  const std::vector<u32> got = out.read(all.size() * n);
  for (std::size_t k = 0; k < all.size(); ++k) {
    for (int i = 0; i < n; ++i) {
      const u32 expected = all[k].expected(in[i], in[n + i], in[2 * n + i], {in.data(), i});
      if (same(got[k * n + i], expected, all[k].kind)) continue;
      char text[200];
      std::snprintf(text, sizeof(text), "%s of %08x %08x %08x: %08x, expected %08x", all[k].name, in[i],
                    in[n + i], in[2 * n + i], got[k * n + i], expected);
      say(text);
      break;
    }
  }
}

// ---- matrices of a warp

__device__ u32 shared_address(const void* p) { return static_cast<u32>(__cvta_generic_to_shared(p)); }

// C (16, 8) = A (16, 16) B (16, 8) + C of halves, with A's fragments by ldmatrix and B's transposed by it.
__global__ void product(const u16* a, const u16* b, float* c) {
  extern __shared__ __align__(16) u16 shared[];
  u16 *left = shared, *right = shared + 256;
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  for (int e = lane; e < 256; e += 32) left[e] = a[e];
  for (int e = lane; e < 128; e += 32) right[e] = b[e];
  __syncwarp();
  u32 x[4], y[2];
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(shared_address(left + lane % 16 * 16 + lane / 16 * 8)));
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(y[0]), "=r"(y[1])
               : "r"(shared_address(right + lane % 16 * 8)));
  float* rows[2] = {c + g * 8 + 2 * t, c + (g + 8) * 8 + 2 * t};
  float z[4] = {rows[0][0], rows[0][1], rows[1][0], rows[1][1]};
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32\n"
      "{%0, %1, %2, %3},\n{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(z[0]), "+f"(z[1]), "+f"(z[2]), "+f"(z[3])
      : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));
  for (int e = 0; e < 4; ++e) rows[e / 2][e % 2] = z[e];
}

void check_product() {
  std::vector<u16> a(256), b(128);
  std::vector<float> c(128);
  const auto fill = [](std::vector<u16>* m) {
    for (u16& x : *m) x = u16((generator() & 0x83ff) | (generator() % 17) << 10);  // up to 4, and denormal
  };
  fill(&a), fill(&b);
  for (float& x : c) x = float(int(generator() % 2001) - 1000) / 997.0f;
  Array<u16> left(a), right(b);
  Array<float> sum(c);
  product<<<1, 32, 384 * sizeof(u16)>>>(left.data, right.data, sum.data);
  const std::vector<float> got = sum.read(128);
  for (int e = 0; e < 128; ++e) {
    double expected = c[e], size = std::fabs(c[e]);
    for (int k = 0; k < 16; ++k) {
      const double term = half_value(a[e / 8 * 16 + k]) * half_value(b[k * 8 + e % 8]);
      expected += term, size += std::fabs(term);
    }
    if (!(std::fabs(got[e] - expected) <= 1e-6 * size)) return say("mma.m16n8k16 with halves, or ldmatrix");
  }
}

// An 8 x 8 matrix there and back in every way: out[0] as it is, then transposed three times.
__global__ void turns(const u16* in, u16* out) {
  extern __shared__ __align__(16) u16 shared[];
  const int lane = threadIdx.x;
  for (int e = lane; e < 64; e += 32) shared[e] = in[e];
  __syncwarp();
  const u32 row = shared_address(shared + lane % 8 * 8);
  u32 m, turned, moved;
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(m) : "r"(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(turned) : "r"(row));
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(moved) : "r"(m));
  __syncwarp();
  asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" : : "r"(row), "r"(m));
  __syncwarp();
  const auto write = [&](u16* to, u32 two) {
    to[lane / 4 * 8 + lane % 4 * 2] = u16(two), to[lane / 4 * 8 + lane % 4 * 2 + 1] = u16(two >> 16);
  };
  write(out, m), write(out + 64, turned), write(out + 128, moved);
  for (int e = lane; e < 64; e += 32) out[192 + e] = shared[e];
}

void check_turns() {
  std::vector<u16> in(64);
  for (u16& x : in) x = u16(generator());
  Array<u16> from(in), to(256);
  turns<<<1, 32, 128>>>(from.data, to.data);
  const std::vector<u16> got = to.read(256);
  const char* const names[] = {"ldmatrix", "ldmatrix.trans", "movmatrix", "stmatrix.trans"};
  for (int k = 0; k < 4; ++k) {
    for (int e = 0; e < 64; ++e) {
      if (got[64 * k + e] == in[k ? e % 8 * 8 + e / 8 : e]) continue;
      say(names[k]);
      break;
    }
  }
}

// ---- memory

// Four warps: two of them reverse what the other two bring by cp.async, by barriers of two warps each.
__global__ void copies(const float4* in, float4* out, int n) {
  extern __shared__ __align__(16) float4 parts[];  // 64 of each pair of warps
  const int t = threadIdx.x % 64, pair = threadIdx.x / 64;
  float4* part = parts + 64 * pair;
  for (int k = 64 * pair; k < n; k += 128) {
    // the last of them are none: zeros
    const u32 address = shared_address(part + t), bytes = k + t < n - 8 ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(address), "l"(in + k + t), "r"(bytes));
    asm volatile("cp.async.commit_group;");
    asm volatile("cp.async.wait_group 0;");
    asm volatile("bar.sync %0, 64;" : : "r"(pair + 1) : "memory");
    float4 got;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(got.x), "=f"(got.y), "=f"(got.z), "=f"(got.w)
                 : "r"(shared_address(part + 63 - t)));
    asm volatile("st.global.v2.f32 [%0], {%1, %2};" : : "l"(out + k + t), "f"(got.x), "f"(got.y) : "memory");
    asm volatile("st.global.v2.f32 [%0+8], {%1, %2};"
                 :
                 : "l"(out + k + t), "f"(got.z), "f"(got.w)
                 : "memory");
    asm volatile("barrier.sync %0, 64;" : : "r"(pair + 1) : "memory");
  }
}

// Which spaces addresses are of; and a jump by a table.
__global__ void spaces(const u32* in, u32* out) {
  extern __shared__ u32 words[];
  u32 mine[4] = {0, 1, 2, 3};
  mine[in[0] & 3] = 5;
  words[threadIdx.x] = mine[in[1] & 3];
  u32 seen = __isShared(words) | __isGlobal(words) << 1 | __isShared(in) << 2 | __isGlobal(in) << 3 |
             __isLocal(mine) << 4 | __isShared(mine) << 5;
  const u32* generic = in[0] == 7 ? words : in;
  seen |= generic[threadIdx.x & 1] << 8;
  switch (in[2]) {
    case 0:
      seen += words[threadIdx.x];
      break;
    case 1:
      seen *= 3;
      break;
    case 2:
      seen ^= 0x70000;
      break;
    case 3:
      seen -= in[1];
      break;
    case 4:
      seen = ~seen;
      break;
    default:
      break;
  }
  out[threadIdx.x] = seen;
}

void check_memory() {
  const int n = 256;
  std::vector<float> in(4 * n);
  for (float& x : in) x = float(generator() % 1000);
  Array<float> from(in), to(in);
  copies<<<1, 128, 128 * sizeof(float4)>>>(reinterpret_cast<float4*>(from.data),
                                           reinterpret_cast<float4*>(to.data), n);
  const std::vector<float> got = to.read(4 * n);
  for (int e = 0; e < 4 * n; ++e) {
    const int row = e / 4 / 64 * 64 + 63 - e / 4 % 64;
    if (got[e] == (row < n - 8 ? in[4 * row + e % 4] : 0)) continue;
    say("cp.async, barriers of some warps or memory of vectors");
    break;
  }
  Array<u32> words(std::vector<u32>{2, 9, 2}), out(32);
  spaces<<<1, 32, 128>>>(words.data, out.data);
  const std::vector<u32> seen = out.read(32);
  for (u32 t = 0; t < 32; ++t) {
    if (seen[t] != ((1 | 8 | 16 | (t & 1 ? 9 : 2) << 8) ^ 0x70000)) return say("isspacep or brx.idx");
  }
}

}  // namespace

int main() {
  check_results();
  check_product();
  check_turns();
  check_memory();
  return wrong;
}
