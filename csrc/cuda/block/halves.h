// Products of float matrices on tensor cores by one warp, with numbers split into two halves (fp16), x = high
// + low, and three products: low high, high low, high high, which leave out what is below 2^-22 of a factor.
// Twice as fast as tf32, and halves can be read transposed. Their range is small: what is split is first
// scaled by a power of two so that the largest number has a chosen exponent (Scale).
//
// Tiles of the left factor are 16 x 16, of the right one 16 x 8, of the sum 16 x 8, with the PTX manual's
// layout (mma.m16n8k16): of a sum, lane 4 g + t holds columns 2t, 2t + 1 of rows g and g + 8. Two sums side
// by side are a left tile, and read as their transpose a right tile, without moving a number.
#pragma once

#if defined(__CUDACC__)

#include <cuda_fp16.h>

#include <cstdint>

#include "cuda/block/block.h"

namespace dpa2md {
namespace gpu {

// Two numbers, the first in the lower half of either word.
struct SplitPair {
  std::uint32_t high, low;
};
__device__ inline std::uint32_t pack(float x, float y) {
  const __half2 h = __floats2half2_rn(x, y);
  std::uint32_t bits;
  memcpy(&bits, &h, sizeof(bits));
  return bits;
}
__device__ inline float2 unpack(std::uint32_t bits) {
  __half2 h;
  memcpy(&h, &bits, sizeof(bits));
  return __half22float2(h);
}
__device__ inline SplitPair split_pair(float x, float y) {
  SplitPair s;
  s.high = pack(x, y);
  const float2 back = unpack(s.high);
  s.low = pack(x - back.x, y - back.y);
  return s;
}

// Powers of two, x * up <= 2^LIMIT for all |x| <= most, and 1 / up.
struct Scale {
  float up, down;
};
template <int LIMIT>
__device__ inline Scale scale_to(float most) {
  int exponent = static_cast<int>((__float_as_uint(most) >> 23) & 255u);  // most < 2^(exponent - 126)
  exponent = exponent < 64 ? 64 : exponent > 190 ? 190 : exponent;
  Scale s;
  s.up = __uint_as_float(static_cast<std::uint32_t>(127 + LIMIT + 126 - exponent) << 23);
  s.down = __uint_as_float(static_cast<std::uint32_t>(exponent + 1 - LIMIT) << 23);
  return s;
}
__device__ inline float warp_most(float x) {
  for (int o = 16; o > 0; o >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, o));
  return x;
}

struct LeftTile {
  std::uint32_t high[4], low[4];
};
struct RightTile {
  std::uint32_t high[2], low[2];
};

__device__ inline void mma_halves(float* c, const std::uint32_t* a, const std::uint32_t* b) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// c += a b
__device__ inline void multiply(float* c, const LeftTile& a, const RightTile& b) {
  mma_halves(c, a.low, b.high);
  mma_halves(c, a.high, b.low);
  mma_halves(c, a.high, b.high);
}

// A tile of a sum, 16 x 8, in halves: rows g, then rows g + 8.
struct SumPair {
  SplitPair row[2];
};
__device__ inline SumPair split_sum(const float* c) {
  return {{split_pair(c[0], c[1]), split_pair(c[2], c[3])}};
}

// Two sums side by side as a left factor.
__device__ inline LeftTile left_tile(const SumPair& a, const SumPair& b) {
  return {{a.row[0].high, a.row[1].high, b.row[0].high, b.row[1].high},
          {a.row[0].low, a.row[1].low, b.row[0].low, b.row[1].low}};
}

// Every 8 x 8 block transposed: the block's columns are then its rows.
__device__ inline std::uint32_t transpose(std::uint32_t x) {
  std::uint32_t y;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}
__device__ inline SplitPair transpose(const SplitPair& x) { return {transpose(x.high), transpose(x.low)}; }
// The sum's 16 rows as the contraction of a right factor of 8 columns.
__device__ inline RightTile right_tile_of_rows(const SumPair& a) {
  const SplitPair x = transpose(a.row[0]), y = transpose(a.row[1]);
  return {{x.high, y.high}, {x.low, y.low}};
}
// The columns of two sums side by side as rows, their rows as the contraction, of a left factor.
__device__ inline LeftTile left_tile_of_columns(const SumPair& a, const SumPair& b) {
  const SplitPair x = transpose(a.row[0]), y = transpose(b.row[0]), z = transpose(a.row[1]),
                  w = transpose(b.row[1]);
  return {{x.high, y.high, z.high, w.high}, {x.low, y.low, z.low, w.low}};
}

// Rows of 32 halves in shared memory, high and low apart. The four pieces of 16 bytes of a row change places
// from row to row, so that those of eight rows lie in different banks.
struct HalfRows {
  static constexpr int kStride = 64;  // bytes
  char *high, *low;

  __device__ static HalfRows take(Scratch* scratch, int rows) {
    char* high = scratch->take<char>(rows * kStride);
    return {high, scratch->take<char>(rows * kStride)};
  }
  // The byte offset of column c, a multiple of two, of a row.
  __device__ static int place(int row, int c) {
    return row * kStride + (c / 8 ^ (row >> 1 & 3)) * 16 + 2 * (c % 8);
  }

  // Four numbers, from column c on.
  __device__ void store(int row, int c, float4 x) const {
    const SplitPair a = split_pair(x.x, x.y), b = split_pair(x.z, x.w);
    *reinterpret_cast<uint2*>(high + place(row, c)) = make_uint2(a.high, b.high);
    *reinterpret_cast<uint2*>(low + place(row, c)) = make_uint2(a.low, b.low);
  }
  // A tile of a sum.
  __device__ void store(int lane, int row, int column, const SumPair& x) const {
    DPA2MD_UNROLL
    for (int h = 0; h < 2; ++h) {
      const int at = place(row + 8 * h + (lane >> 2), column + 2 * (lane & 3));
      *reinterpret_cast<std::uint32_t*>(high + at) = x.row[h].high;
      *reinterpret_cast<std::uint32_t*>(low + at) = x.row[h].low;
    }
  }
  // 16 rows, 16 columns as a left tile.
  __device__ LeftTile left(int lane, int row, int column) const {
    const int at = place(row + (lane & 15), column + (lane >> 4) * 8);
    LeftTile a;
    load<false>(high + at, a.high);
    load<false>(low + at, a.low);
    return a;
  }
  // 8 rows as the columns of right tiles, all columns as their contraction: two tiles.
  __device__ void right(int lane, int row, RightTile* to) const {
    both<false>(place(row + (lane & 7), (lane >> 3) * 8), to);
  }
  // 16 rows as the contraction, 16 columns: two tiles, side by side.
  __device__ void right_of_rows(int lane, int row, int column, RightTile* to) const {
    both<true>(place(row + (lane & 15), column + (lane >> 4) * 8), to);
  }

 private:
  template <bool TRANSPOSED>
  __device__ void both(int at, RightTile* to) const {
    std::uint32_t h[4], l[4];
    load<TRANSPOSED>(high + at, h);
    load<TRANSPOSED>(low + at, l);
    to[0] = {{h[0], h[1]}, {l[0], l[1]}};
    to[1] = {{h[2], h[3]}, {l[2], l[3]}};
  }
  template <bool TRANSPOSED>
  __device__ static void load(const char* row, std::uint32_t* to) {
    const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
    if constexpr (TRANSPOSED) {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                   : "r"(address)
                   : "memory");
    } else {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                   : "r"(address)
                   : "memory");
    }
  }
};

// A split right factor of the model, (k, n) multiples of 16 and 8: for every 16 rows and 8 columns, the
// fragments of each lane. In global memory, or a copy in shared memory.
template <bool SHARED>
struct HalfTiles {
  const uint4* tiles = nullptr;
  int columns = 0;  // tiles side by side
  float down = 0;   // the factor that unscales the split numbers

  __device__ RightTile tile(int lane, int k, int n) const {
    const uint4* at = tiles + ((k * columns + n) * 32 + lane);
    const uint4 x = SHARED ? *at : __ldg(at);
    return {{x.x, x.y}, {x.z, x.w}};
  }
  // One of several matrices, stored one after the other with `rows` = k / 16 rows of tiles each.
  __device__ HalfTiles matrix(int number, int rows) const {
    return {tiles + number * (rows * columns * 32), columns, down};
  }
};
using HalfWeight = HalfTiles<false>;
// Copies `count` of them, of `rows` rows of tiles each, with all threads; a barrier must follow. Without
// SHARED they stay where they are.
template <bool SHARED>
__device__ HalfTiles<SHARED> staged(const ThreadBlock& b, const HalfWeight& w, int count, int rows,
                                    Scratch* scratch) {
  if constexpr (!SHARED) return w;
  const int size = count * rows * w.columns * 32;
  uint4* to = scratch->take<uint4>(size);
  for (int k = b.thread; k < size; k += b.threads) to[k] = __ldg(w.tiles + k);
  return {to, w.columns, w.down};
}
// Bytes that staged() takes.
inline std::size_t staged_bytes(const HalfWeight& w, int count, int rows) {
  return static_cast<std::size_t>(count) * rows * w.columns * 32 * sizeof(uint4);
}

}  // namespace gpu
}  // namespace dpa2md

#endif
