// Products of many rows with a weight of the model, float32, on tensor cores, for the dense kernels
// (dense_steps.h). Only for the device; dense.h serves the host and float64.
//
// A number is the sum of two halves, x = high + low, with 11 bits each, of which three products remain:
// low*high + high*low + high*high. Halves end at 65504, so 32 numbers of a row (16 in a small tile) have a
// power of two for a factor, and so has every column of a weight. A tensor core adds 16 products of a number;
// it truncates sums, and so these sums are added up as ordinary floats.
//
// The result is worked out transposed, 16 columns by 8 rows at a time, since then all numbers of a register
// pair come from one row. In a fragment of mma.m16n8k16, with g = lane / 4 and t = lane % 4, the
// contraction's numbers 2t, 2t + 1, 2t + 8, 2t + 9 stand for 4t ... 4t + 3 of 16: four neighbours in a row.
// In two tiles of 16 columns, columns g and g + 8 of tile i stand for 4g + 2i and 4g + 2i + 1 of 32, so that
// a lane has four neighbours of a row of the result.
#pragma once

#include "cuda/kernels/split_weight.h"

#if defined(__CUDACC__)

namespace dpa2md {
namespace gpu {

// ---- rows, by the device

#if defined(__CUDA_ARCH__)
__device__ inline std::uint32_t two_halves(float x, float y) {
  std::uint32_t out;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(y), "f"(x));
  return out;
}
__device__ inline void floats_of(std::uint32_t halves, float* x, float* y) {
  asm("{\n\t.reg .b16 first, second;\n\tmov.b32 {first, second}, %2;\n\tcvt.f32.f16 %0, first;\n\t"
      "cvt.f32.f16 %1, second;\n\t}"
      : "=f"(*x), "=f"(*y)
      : "r"(halves));
}
// d = a b + c; c null: nothing
__device__ inline void mma_halves(float* d, const Quad& a, const std::uint32_t* b, const float* c) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%10, %11, %12, %13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b[0]), "r"(b[1]), "f"(c ? c[0] : 0.0f),
        "f"(c ? c[1] : 0.0f), "f"(c ? c[2] : 0.0f), "f"(c ? c[3] : 0.0f));
}
#else  // of the host, which never runs a kernel
inline std::uint32_t two_halves(float, float) { return 0; }
inline void floats_of(std::uint32_t, float*, float*) {}
inline void mma_halves(float*, const Quad&, const std::uint32_t*, const float*) {}
#endif

DPA2MD_KERNEL inline float most_of(const Four<float>& x) {
  return fmaxf(fmaxf(fabsf(x.x[0]), fabsf(x.x[1])), fmaxf(fabsf(x.x[2]), fabsf(x.x[3])));
}
// The largest of LANES neighbouring lanes.
template <int LANES>
DPA2MD_KERNEL float most_of_lanes(float x) {
#if defined(__CUDA_ARCH__)
  DPA2MD_UNROLL
  for (int o = 1; o < LANES; o *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, o));
#endif
  return x;
}
DPA2MD_KERNEL inline float of_lane(float x, int lane) {
#if defined(__CUDA_ARCH__)
  return __shfl_sync(0xffffffffu, x, lane);
#else
  return x;
#endif
}
// The power of two that scales numbers up to `most` below 2^15; `back` unscales the products.
DPA2MD_KERNEL inline float factor_of(float most, float* back) {
#if defined(__CUDA_ARCH__)
  const std::uint32_t exponent = max(__float_as_uint(most) & 0x7f800000u, 15u << 23);
  *back = __uint_as_float(exponent - (14u << 23));
  return __uint_as_float((268u << 23) - exponent);
#else
  return *back = most;
#endif
}
DPA2MD_KERNEL inline Halves halves_of(const Four<float>& x, float factor) {
  Halves out;
  DPA2MD_UNROLL
  for (int i = 0; i < 2; ++i) {
    const float u = x.x[2 * i] * factor, v = x.x[2 * i + 1] * factor;
    float high_u, high_v;
    out.high[i] = two_halves(u, v);
    floats_of(out.high[i], &high_u, &high_v);
    out.low[i] = two_halves(u - high_u, v - high_v);
  }
  return out;
}

// sum (Q tiles of 8 rows, two tiles of 16 columns) += rows x, weight w; `back` of rows 2t, 2t + 1
template <int Q>
DPA2MD_KERNEL void multiply_halves(const Halves* x, const WeightTile* w, const float (*back)[2],
                                   float (*sum)[2][4]) {
  float c[Q][2][4];
  DPA2MD_UNROLL
  for (int e = 0; e < 2 * Q; ++e) mma_halves(c[e / 2][e % 2], w[e % 2].low, x[e / 2].high, nullptr);
  DPA2MD_UNROLL
  for (int e = 0; e < 2 * Q; ++e) mma_halves(c[e / 2][e % 2], w[e % 2].high, x[e / 2].low, c[e / 2][e % 2]);
  DPA2MD_UNROLL
  for (int e = 0; e < 2 * Q; ++e) mma_halves(c[e / 2][e % 2], w[e % 2].high, x[e / 2].high, c[e / 2][e % 2]);
  DPA2MD_UNROLL
  for (int e = 0; e < 8 * Q; ++e) {
    float* to = &sum[e / 8][e / 4 % 2][e % 4];
    *to = fmaf(c[e / 8][e / 4 % 2][e % 4], back[e / 8][e % 2], *to);
  }
}
// Row 2t + h of a sum of multiply_halves().
DPA2MD_KERNEL inline Four<float> four_of(const float (*sum)[4], int h) {
  return {{sum[0][h], sum[0][2 + h], sum[1][h], sum[1][2 + h]}};
}
// A lane's part of a group of columns.
DPA2MD_KERNEL inline void read_weight(const Quad* from, WeightTile* w) {
  DPA2MD_UNROLL
  for (int i = 0; i < 2; ++i) w[i] = {from[64 * i], from[64 * i + 32]};
}

// An operation `Op` receives a product's sums, four adjacent columns of a row at a time. It has
//   begin, end             rows
//   products()             one or several products, product(p) with
//     weight               SplitWeight
//     left(row, k)         four numbers of a left row, k a multiple of 4
//   kTogether              whether all products go into the same columns, one after the other
//   kActivates             whether finish() has an activation, act(), for a template argument
//   finish<K>(p, row, column, x)
template <class Op>
DPA2MD_KERNEL int units(const Op& op, int (SplitWeight::*tiles)() const) {
  int sum = 0;
  for (int p = 0; p < (Op::kTogether ? 1 : op.products()); ++p) sum += (op.weight(p).*tiles)();
  return sum;
}
// The product and the tile of a unit.
template <class Op>
DPA2MD_KERNEL int product_of_unit(const Op& op, int (SplitWeight::*tiles)() const, int* unit) {
  int p = 0;
  while (*unit >= (op.weight(p).*tiles)()) *unit -= (op.weight(p++).*tiles)();
  return p;
}
DPA2MD_KERNEL inline Four<float> scaled(Four<float> x, const float* by) {
  const Four<float>& s = four(by);
  DPA2MD_UNROLL
  for (int i = 0; i < 4; ++i) x.x[i] *= s.x[i];
  return x;
}
// f(kind of activation)
template <class Op, class F>
DPA2MD_KERNEL void with_activation(const Op& op, F f) {
  if constexpr (Op::kActivates) {
    dispatch(op.act(), f);
  } else {
    f(ActivationTag<Activation::kLinear>{});
  }
}

// Tiles of 16 M rows and 128 columns by four warps; each warp takes all rows and a group of columns. Rows
// pass through shared memory in a double buffer, or stay there whole (`resident`) for several tiles of
// columns.
template <int M, class Op>
struct TiledProduct {
  static constexpr int kRows = 16 * M, kMinBlocks = 2;
  struct Stage {
    // of 16 of the contraction, a row after the other; 64 bytes between two of them, for other banks
    Halves x[2][4 * kRows + 4];
    float back[kRows];
  };

  Op op;
  int parts;      // of the columns, in different blocks
  bool resident;  // shared memory holds all stages of the longest row
  int most_stages;

  struct Arrays {
    Stage* stage;
    Four<float>* sums;  // each thread's own, for an activation
  };
  DPA2MD_KERNEL int stages() const { return resident ? most_stages : 2; }
  DPA2MD_KERNEL void arrays(Scratch* scratch, int) const {
    scratch->take<Stage>(stages());
    scratch->take<Four<float>>(Op::kActivates ? 4 * M * kThreads : 0);
  }
  int items() const { return (op.end - op.begin + kRows - 1) / kRows * parts; }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    char* shared = shared_memory();
    const Arrays z{reinterpret_cast<Stage*>(shared),
                   reinterpret_cast<Four<float>*>(shared + stages() * sizeof(Stage))};
    const int row0 = op.begin + item / parts * kRows, part = item % parts;
    const int count = units(op, &SplitWeight::tiles);
    int staged = -1;  // the product whose rows are there
    for (int u = part * count / parts; u < (part + 1) * count / parts; ++u) {
      int tile = u, p = product_of_unit(op, &SplitWeight::tiles, &tile);
      for (;;) {
        tile_of(b, z, row0, p, tile, resident && staged == p);
        staged = p;
        if (!Op::kTogether || ++p == op.products()) break;
      }
    }
  }

 private:
  DPA2MD_KERNEL void tile_of(const ThreadBlock& b, const Arrays& z, int row0, int p, int tile,
                             bool there) const {
    const SplitWeight w = op.weight(p);
    const auto left = op.left(p);
    const int stages = w.stages(), group = tile * 4 + b.warp;
    const bool active = group < w.groups();
    Four<float> x[M];
    if (!there) {
      if (resident) b.sync();  // the previous rows have been read
      for (int s = 0; s < (resident ? stages : 1); ++s) {
        load(b, left, w.k, row0, s, x);
        store(b, x, z.stage + s);
      }
      b.sync();
    }
    float sum[2 * M][2][4];
    DPA2MD_UNROLL
    for (int e = 0; e < 16 * M; ++e) sum[e / 8][e / 4 % 2][e % 4] = 0;
    const Quad* fragments = w.at(0, active ? group : 0) + b.lane;
    const std::size_t step = w.groups() * 128;
    WeightTile next[2];
    read_weight(fragments, next);
#pragma unroll 1
    for (int s = 0; s < stages; ++s) {
      const bool more = s + 1 < stages;
      if (more && !resident) load(b, left, w.k, row0, s + 1, x);
      const Stage& stage = z.stage[resident ? s : s % 2];
      DPA2MD_UNROLL
      for (int half = 0; half < 2; ++half) {
        const WeightTile now[2] = {next[0], next[1]};
        if (more || half == 0) fragments += step;
        read_weight(fragments, next);
        multiply(b.lane, stage.x[half], stage.back, now, sum);
      }
      if (more && !resident) store(b, x, z.stage + (s + 1) % 2);
      if (!resident) b.sync();
    }
    if (active) finish(b, z, w, row0, p, kGroupColumns * group, sum);
  }

  // 32 numbers of each row, four a thread
  template <class Left>
  DPA2MD_KERNEL void load(const ThreadBlock& b, const Left& left, int width, int row0, int s,
                          Four<float>* x) const {
    const int k = kStageDepth * s + 4 * (b.thread % 8);
    DPA2MD_UNROLL
    for (int m = 0; m < M; ++m) {
      const int row = row0 + 16 * m + b.thread / 8;
      x[m] = k < width ? left(row < op.end ? row : op.end - 1, k) : Four<float>{};
    }
  }
  DPA2MD_KERNEL void store(const ThreadBlock& b, const Four<float>* x, Stage* stage) const {
    const int place = b.thread % 8;
    DPA2MD_UNROLL
    for (int m = 0; m < M; ++m) {
      const int row = 16 * m + b.thread / 8;
      float back;
      const float factor = factor_of(most_of_lanes<8>(most_of(x[m])), &back);
      stage->x[place / 4][4 * row + place % 4] = halves_of(x[m], factor);
      if (place == 0) stage->back[row] = back;
    }
  }
  DPA2MD_KERNEL static void multiply(int lane, const Halves* x, const float* back, const WeightTile* w,
                                     float (*sum)[2][4]) {
    constexpr int tiles = 2;  // of 8 rows at once
    DPA2MD_UNROLL
    for (int q = 0; q < 2 * M; q += tiles) {
      Halves of[tiles];
      float backs[tiles][2];
      DPA2MD_UNROLL
      for (int i = 0; i < tiles; ++i) {
        of[i] = x[32 * (q + i) + lane];
        DPA2MD_UNROLL
        for (int h = 0; h < 2; ++h) backs[i][h] = back[8 * (q + i) + 2 * t_of(lane) + h];
      }
      multiply_halves<tiles>(of, w, backs, sum + q);
    }
  }
  DPA2MD_KERNEL void finish(const ThreadBlock& b, const Arrays& z, const SplitWeight& w, int row0, int p,
                            int column0, const float (*sum)[2][4]) const {
    const int column = column0 + 4 * g_of(b.lane);
    if (column >= w.n) return;
    const auto one = [&](auto kind, int i, const Four<float>& x) {
      const int row = row0 + i / 2 * 8 + 2 * t_of(b.lane) + i % 2;
      if (row >= op.end) return;
      op.template finish<decltype(kind)::value>(p, row, column, scaled(x, w.scale + column));
    };
    if constexpr (Op::kActivates) {  // through memory, so that a loop does it
      DPA2MD_UNROLL
      for (int i = 0; i < 4 * M; ++i) z.sums[i * kThreads + b.thread] = four_of(sum[i / 2], i % 2);
      with_activation(op, [&](auto kind) {
#pragma unroll 1
        for (int i = 0; i < 4 * M; ++i) one(kind, i, z.sums[i * kThreads + b.thread]);
      });
    } else {
      DPA2MD_UNROLL
      for (int i = 0; i < 4 * M; ++i)
        one(ActivationTag<Activation::kLinear>{}, i, four_of(sum[i / 2], i % 2));
    }
  }
};

// Tiles of 8 rows and 32 columns, for few rows: the warps of a block share the contraction.
template <class Op>
struct SmallProduct {
  static constexpr int kMostThreads = kDenseThreads, kRows = 8;
  static constexpr int kAtOnce = 4;  // steps of the contraction that are read at once

  Op op;

  DPA2MD_KERNEL void arrays(Scratch* scratch, int) const {
    scratch->take<Four<float>>(kMostThreads / 32 * 64);  // what every warp has
  }
  int items() const { return (op.end - op.begin + kRows - 1) / kRows * units(op, &SplitWeight::groups); }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    auto* sums = reinterpret_cast<Four<float>*>(shared_memory());
    const int count = units(op, &SplitWeight::groups), row0 = op.begin + item / count * kRows;
    int group = item % count, p = product_of_unit(op, &SplitWeight::groups, &group);
    for (;;) {
      tile_of(b, sums, row0, p, group);
      if (!Op::kTogether || ++p == op.products()) break;
    }
  }

 private:
  DPA2MD_KERNEL void tile_of(const ThreadBlock& b, Four<float>* sums, int row0, int p, int group) const {
    const SplitWeight w = op.weight(p);
    const auto left = op.left(p);
    const int t = t_of(b.lane), steps = 2 * w.stages(), own = row0 + g_of(b.lane);
    const int row = own < op.end ? own : op.end - 1;
    float sum[1][2][4] = {};
#pragma unroll 1
    for (int first = b.warp; first < steps; first += kAtOnce * b.warps) {
      Four<float> x[kAtOnce];
      WeightTile right[kAtOnce][2];
      DPA2MD_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        const int step = first + i * b.warps, k = 16 * step + 4 * t;
        x[i] = k < w.k ? left(row, k) : Four<float>{};
        read_weight(w.at(step < steps ? step : first, group) + b.lane, right[i]);
      }
      DPA2MD_UNROLL
      for (int i = 0; i < kAtOnce; ++i) add(x[i], right[i], b.lane, sum);
    }
    DPA2MD_UNROLL
    for (int h = 0; h < 2; ++h) sums[b.warp * 64 + h * 32 + b.lane] = four_of(sum[0], h);
    b.sync();
    if (b.thread < 64) finish(b, sums + b.thread, w, row0, p, kGroupColumns * group);
    b.sync();
  }
  // 16 of the contraction
  DPA2MD_KERNEL static void add(const Four<float>& x, const WeightTile* w, int lane, float (*sum)[2][4]) {
    float back, backs[1][2];
    const float factor = factor_of(most_of_lanes<4>(most_of(x)), &back);
    const Halves halves = halves_of(x, factor);
    DPA2MD_UNROLL
    for (int h = 0; h < 2; ++h) backs[0][h] = of_lane(back, 4 * (2 * t_of(lane) + h));
    multiply_halves<1>(&halves, w, backs, sum);
  }
  // Reduces the sums of all warps, four columns of a row per thread, and calls op.finish().
  DPA2MD_KERNEL void finish(const ThreadBlock& b, const Four<float>* sums, const SplitWeight& w, int row0,
                            int p, int column0) const {
    const int row = row0 + 2 * t_of(b.lane) + b.warp, column = column0 + 4 * g_of(b.lane);
    if (row >= op.end || column >= w.n) return;
    Four<float> x = sums[0];
    for (int k = 1; k < b.warps; ++k) {
      DPA2MD_UNROLL
      for (int i = 0; i < 4; ++i) x.x[i] += sums[64 * k].x[i];
    }
    x = scaled(x, w.scale + column);
    with_activation(op, [&](auto kind) { op.template finish<decltype(kind)::value>(p, row, column, x); });
  }
};

}  // namespace gpu
}  // namespace dpa2md

#endif
