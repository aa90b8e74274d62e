// Accumulators of 16 rows and all channels of g2 in one warp, for the kernels of published models. Their
// layout is that of tensor cores (halves.h), so that they are the left factor of the next product.
#pragma once

#if defined(__CUDACC__)

#include "cuda/block/halves.h"
#include "cuda/kernels/warp_atoms.h"

namespace dpa2md {
namespace gpu {

constexpr int kPairChannels = 32;  // of g2

constexpr int kPairTiles = kPairChannels / 16;  // rows of tiles of a matrix (g2, g2)

// The weights of a layer as halves.
struct HalfLayer {
  HalfWeight linear2, linear2_t;          // (g2, g2)
  HalfWeight map, map_t, value, value_t;  // (heads, g2, g2), one after the other
  HalfWeight conv, conv_t;                // repformer_node_warp.h
};

// A sum of 16 rows and all channels of g2.
constexpr int kChannelTiles = kPairChannels / 8;
struct ChannelSum {
  float c[kChannelTiles][4];
  __device__ void clear() {
    DPA2MD_UNROLL
    for (int e = 0; e < 4 * kChannelTiles; ++e) c[e / 4][e % 4] = 0;
  }
};
// A ChannelSum as left factors, contracted over the channels.
struct ChannelLeft {
  LeftTile k[kPairChannels / 16];
};
__device__ inline ChannelLeft left_of(const SumPair* halves) {
  return {{left_tile(halves[0], halves[1]), left_tile(halves[2], halves[3])}};
}
__device__ inline void split_all(const ChannelSum& x, float scale, SumPair* to) {
  DPA2MD_UNROLL
  for (int n = 0; n < kChannelTiles; ++n) {
    const float c[4] = {scale * x.c[n][0], scale * x.c[n][1], scale * x.c[n][2], scale * x.c[n][3]};
    to[n] = split_sum(c);
  }
}
// sum += x w
template <bool SHARED>
__device__ void multiply(int lane, ChannelSum* sum, const ChannelLeft& x, const HalfTiles<SHARED>& w) {
  DPA2MD_UNROLL
  for (int n = 0; n < kChannelTiles; ++n) {
    DPA2MD_UNROLL
    for (int k = 0; k < kPairChannels / 16; ++k) multiply(sum->c[n], x.k[k], w.tile(lane, k, n));
  }
}
__device__ inline float most_of(const ChannelSum& x) {
  float most = 0;
  DPA2MD_UNROLL
  for (int e = 0; e < 4 * kChannelTiles; ++e) most = fmaxf(most, fabsf(x.c[e / 4][e % 4]));
  return warp_most(most);
}
// Sum over the four lanes of a row.
__device__ inline float row_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ inline float row_most(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
// Sum over the rows g of a column's lanes.
__device__ inline float column_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 4);
  x += __shfl_xor_sync(0xffffffffu, x, 8);
  return x + __shfl_xor_sync(0xffffffffu, x, 16);
}

// The limits of what is split: 2^kPairLimit for g2 and gradients, 2^kWeightLimit for weights. Their product
// over 32 channels then stays below 2^15, and is split as it is.
constexpr int kPairLimit = 8, kWeightLimit = 2, kMapLimit = 7;

}  // namespace gpu
}  // namespace dpa2md

#endif
