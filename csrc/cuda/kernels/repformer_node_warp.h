// The part of a g1 update that reads an atom's neighbours (repformer_node.h), for the published models in
// float32, with a warp per atom: smooth, g1 of 128 and g2 of 32 channels, axis 4, convolution outside of the
// dense update, no attention of g1, at most 16 TILES neighbours.
//
// conv = sum_j gg1_j T_j / N with T = (g2 w) P, a product of halves on tensor cores. A lane holds four
// adjacent channels, two in each of two adjacent tiles (conv_order).
#pragma once

#if defined(__CUDACC__)

#include "cuda/kernels/dense.h"
#include "cuda/kernels/repformer_pair_warp.h"

namespace dpa2md {
namespace gpu {

constexpr int kNodeChannels = 128;  // of g1
constexpr int kNodeAxis = 4;

// The channel at a place of a product's tiles: of 16, place 8 half + 2 t + e is channel 4 t + 2 half + e.
inline int conv_order(int place) {
  const int in = place % 16;
  return place - in + 4 * (in % 8 / 2) + 2 * (in / 8) + in % 2;
}

constexpr int kConvTiles = kNodeChannels / 16;  // rows of tiles of the transposed projection

// WARPS as in repformer_pair_warp.h.
template <int TILES, int WARPS>
struct WarpNodeBase : WarpAtoms {
  static constexpr int kRows = 16 * TILES;
  static constexpr bool kStaged = WARPS > 0;
  static constexpr int kWarpsOfAtom = WARPS == kSplit ? 4 : 1;  // which share neighbours, channels and rows
  static constexpr int kMostThreads = kStaged ? 32 * WARPS : kThreads;
  static constexpr int kMinBlocks = kStaged ? 1 : TILES > 2 ? 2 : 3;
  using Tiles = HalfTiles<kStaged>;
  State<float> s;
  HalfLayer half;
  NodeArrays<float> a;
  const float *g2, *h2;  // (repformer pairs, g2), (repformer pairs, 3) rows kH2Row apart
  const float* g1;       // (nrows, g1)

  struct Neighbors {
    int n;
    std::int64_t q0;
    HalfRows left;  // g2 w, scaled
    float4* meta;   // (rows) h2, sw; zeros beyond the last
    int* row;       // (rows) of g1
    float down;     // the factor that unscales `left`
  };
  static constexpr int kNeighborBytes = kRows * (2 * HalfRows::kStride + sizeof(float4) + sizeof(int));
  __device__ static Neighbors neighbors(Scratch* scratch) {
    Neighbors x{};
    x.left = HalfRows::take(scratch, kRows);
    x.meta = scratch->take<float4>(kRows);
    x.row = scratch->take<int>(kRows);
    return x;
  }
  __device__ bool mine(int n) const { return (TILES <= 2 || n > kFewNeighbors) && n <= kRows; }

  __device__ void load(int lane, int i, Neighbors* x) const {
    x->q0 = s.repformer.first[i];
    constexpr int kLoads = kRows / 4;  // eight lanes a row
    float4 y[kLoads];
    const float* from = g2 + x->q0 * kPairChannels + 4 * lane;
    DPA2MD_UNROLL
    for (int k = 0; k < kLoads; ++k) {
      y[k] = make_float4(0, 0, 0, 0);
      if (4 * k + lane / 8 < x->n)
        y[k] = __ldg(reinterpret_cast<const float4*>(from + 4 * k * kPairChannels));
    }
    for (int j = lane; j < kRows; j += 32) {
      float4 m = make_float4(0, 0, 0, 0);
      int row = i;
      if (j < x->n) {
        const float* h = h2 + (x->q0 + j) * kH2Row;
        m = make_float4(h[0], h[1], h[2], s.switch_of(x->q0 + j));
        row = s.repformer_row[x->q0 + j];
      }
      x->meta[j] = m, x->row[j] = row;
    }
    __syncwarp();
    float most = 0;
    DPA2MD_UNROLL
    for (int k = 0; k < kLoads; ++k) {
      const float w = x->meta[4 * k + lane / 8].w;
      y[k].x *= w, y[k].y *= w, y[k].z *= w, y[k].w *= w;
      most = fmaxf(most, fmaxf(fmaxf(fabsf(y[k].x), fabsf(y[k].y)), fmaxf(fabsf(y[k].z), fabsf(y[k].w))));
    }
    const Scale scale = scale_to<kPairLimit>(warp_most(most));
    x->down = scale.down;
    DPA2MD_UNROLL
    for (int k = 0; k < kLoads; ++k) {
      const float4 z =
          make_float4(scale.up * y[k].x, scale.up * y[k].y, scale.up * y[k].z, scale.up * y[k].w);
      x->left.store(4 * k + lane / 8, 4 * (lane % 8), z);
    }
    __syncwarp();
  }
  __device__ const float* row(int k) const { return g1 + static_cast<std::int64_t>(k) * kNodeChannels; }

  // The moments S = (h2 w)^T gg1 c of four channels, 4 lane ..., and S2 = (h2 w)^T g2 c of channel `lane`.
  struct Moments {
    float4 s[3];
    float s2[3];
    float most;  // of |gg1| of this lane's
  };
  // One warp's part of the moments, without the factor c: neighbours 8 first ... of every 8 kWarpsOfAtom.
  __device__ Moments some_moments(int lane, const Neighbors& x, int first) const {
    Moments m{};
    DPA2MD_UNROLL
    for (int c = 0; c < 3; ++c) m.s[c] = make_float4(0, 0, 0, 0);
    const float* pairs = g2 + x.q0 * kPairChannels + lane;
    for (int j0 = 8 * first; j0 < x.n;
         j0 += 8 * kWarpsOfAtom) {  // eight rows at once on their way; zeros behind the last
      float4 y8[8];
      float z8[8];
      DPA2MD_UNROLL
      for (int k = 0; k < 8; ++k) {
        y8[k] = __ldg(reinterpret_cast<const float4*>(row(x.row[j0 + k])) + lane);
        z8[k] = __ldg(pairs + (j0 + k < x.n ? j0 + k : 0) * kPairChannels);
      }
      DPA2MD_UNROLL
      for (int k = 0; k < 8; ++k) {
        const float4 h = x.meta[j0 + k], y = y8[k];
        const float z = z8[k], w[3] = {h.x * h.w, h.y * h.w, h.z * h.w};
        m.most = fmaxf(m.most, fmaxf(fmaxf(fabsf(y.x), fabsf(y.y)), fmaxf(fabsf(y.z), fabsf(y.w))));
        DPA2MD_UNROLL
        for (int c = 0; c < 3; ++c) {
          m.s[c].x += w[c] * y.x, m.s[c].y += w[c] * y.y, m.s[c].z += w[c] * y.z, m.s[c].w += w[c] * y.w;
          m.s2[c] += w[c] * z;
        }
      }
    }
    return m;
  }
  // The atom's moments. `shared`: scratch for the parts of all warps, if several share an atom.
  __device__ Moments moments(const ThreadBlock& b, const Neighbors& x, Moments* shared) const {
    Moments m = some_moments(b.lane, x, kWarpsOfAtom > 1 ? b.warp : 0);
    if constexpr (kWarpsOfAtom > 1) {
      shared[32 * b.warp + b.lane] = m;
      b.sync();
      m = shared[b.lane];
      for (int w = 1; w < kWarpsOfAtom; ++w) {
        const Moments other = shared[32 * w + b.lane];
        m.most = fmaxf(m.most, other.most);
        DPA2MD_UNROLL
        for (int c = 0; c < 3; ++c) {
          m.s[c].x += other.s[c].x, m.s[c].y += other.s[c].y, m.s[c].z += other.s[c].z,
              m.s[c].w += other.s[c].w;
          m.s2[c] += other.s2[c];
        }
      }
    }
    const float scale = s.inverse_moment(x.n);
    DPA2MD_UNROLL
    for (int c = 0; c < 3; ++c) {
      m.s[c].x *= scale, m.s[c].y *= scale, m.s[c].z *= scale, m.s[c].w *= scale;
      m.s2[c] *= scale;
    }
    return m;
  }
  static constexpr int kMomentBytes = kWarpsOfAtom > 1 ? kWarpsOfAtom * 32 * sizeof(Moments) : 0;
  // T of 16 channels, from 16 p on: (tiles of rows, of columns, a lane's).
  __device__ static void project(int lane, int p, const Tiles& conv, const Neighbors& x, float (*t)[2][4]) {
    LeftTile left[TILES][2];
    DPA2MD_UNROLL
    for (int e = 0; e < 2 * TILES; ++e) left[e / 2][e % 2] = x.left.left(lane, 16 * (e / 2), 16 * (e % 2));
    DPA2MD_UNROLL
    for (int n = 0; n < 2; ++n) {
      const RightTile y[2] = {conv.tile(lane, 0, 2 * p + n), conv.tile(lane, 1, 2 * p + n)};
      DPA2MD_UNROLL
      for (int m = 0; m < TILES; ++m) {
        DPA2MD_UNROLL
        for (int e = 0; e < 4; ++e) t[m][n][e] = 0;
        multiply(t[m][n], left[m][0], y[0]);
        multiply(t[m][n], left[m][1], y[1]);
      }
    }
  }
};

// Broadcasts x of one lane.
__device__ inline float from_lane(float x, int lane) { return __shfl_sync(0xffffffffu, x, lane); }

// Computes the atom's rows of `a` from its neighbours.
template <int TILES, int WARPS>
struct WarpNodeMoments : WarpNodeBase<TILES, WARPS> {
  using Base = WarpNodeBase<TILES, WARPS>;
  using typename Base::Moments;
  using typename Base::Neighbors;
  using typename Base::Tiles;

  void arrays(Scratch* scratch, int) const {
    scratch->take<char>(WARPS > 0 ? staged_bytes(this->half.conv, 1, kPairTiles) : 0);
    scratch->take<char>(Base::kMomentBytes + this->warps * Base::kNeighborBytes);
  }
  __device__ void operator()(const ThreadBlock& b, int item, Scratch scratch) const {
    Scratch shared = in_shared(scratch);
    const Tiles conv = staged<Base::kStaged>(b, this->half.conv, 1, kPairTiles, &shared);
    if (Base::kStaged) b.sync();
    auto* all = shared.take<Moments>(Base::kMomentBytes / sizeof(Moments));
    Neighbors x;
    for (int k = 0; k <= b.warp; ++k) x = Base::neighbors(&shared);
    this->template each_own_atom<WARPS == kSplit>(b, item, [&](int i) {
      x.n = this->s.repformer.count[i];
      if (!this->mine(x.n)) return;
      this->load(b.lane, i, &x);
      float* cat = this->a.cat + static_cast<std::int64_t>(i) * this->s.rep.linear1.end;
      const Moments m = this->moments(b, x, all);
      if (WARPS != kSplit || b.warp == 0) symmetrise(b.lane, m, cat);
      convolve(b, conv, x, this->a.conv + static_cast<std::int64_t>(i) * kNodeChannels);
      WARPS == kSplit ? b.sync() : __syncwarp();
    });
  }

 private:
  __device__ void symmetrise(int lane, const Moments& m, float* cat) const {
    float* drrd = cat + this->s.rep.linear1.drrd + 4 * lane;
    float* grrg = cat + this->s.rep.linear1.grrg + lane;
    DPA2MD_UNROLL
    for (int axis = 0; axis < kNodeAxis; ++axis) {
      float4 sum = make_float4(0, 0, 0, 0);
      float sum2 = 0;
      DPA2MD_UNROLL
      for (int c = 0; c < 3; ++c) {
        const float4 y = m.s[c];
        const float mine = axis == 0 ? y.x : axis == 1 ? y.y : axis == 2 ? y.z : y.w;
        const float x = from_lane(mine, 0) / 3, x2 = from_lane(m.s2[c], axis) / 3;
        sum.x += x * y.x, sum.y += x * y.y, sum.z += x * y.z, sum.w += x * y.w;
        sum2 += x2 * m.s2[c];
      }
      *reinterpret_cast<float4*>(drrd + axis * kNodeChannels) = sum;
      grrg[axis * kPairChannels] = sum2;
    }
  }

  __device__ void convolve(const ThreadBlock& b, const Tiles& weight, const Neighbors& x, float* conv) const {
    const int lane = b.lane;
    const float down = x.down * weight.down * this->s.inverse_count(x.n);
    const float* row[TILES][2];
    DPA2MD_UNROLL
    for (int e = 0; e < 2 * TILES; ++e)
      row[e / 2][e % 2] = this->row(x.row[8 * e + (lane >> 2)]) + 4 * (lane & 3);
#pragma unroll 2
    for (int p = WARPS == kSplit ? b.warp : 0; p < kNodeChannels / 16; p += Base::kWarpsOfAtom) {
      float4 y[TILES][2];
      DPA2MD_UNROLL
      for (int e = 0; e < 2 * TILES; ++e)
        y[e / 2][e % 2] = __ldg(reinterpret_cast<const float4*>(row[e / 2][e % 2] + 16 * p));
      float t[TILES][2][4];
      Base::project(lane, p, weight, x, t);
      float sum[4] = {0, 0, 0, 0};
      DPA2MD_UNROLL
      for (int e = 0; e < 2 * TILES; ++e) {
        const int m = e / 2, h = e % 2;
        sum[0] += t[m][0][2 * h] * y[m][h].x, sum[1] += t[m][0][2 * h + 1] * y[m][h].y;
        sum[2] += t[m][1][2 * h] * y[m][h].z, sum[3] += t[m][1][2 * h + 1] * y[m][h].w;
      }
      const float total = sum_of_four(lane, sum);
      const int which = 2 * (lane >> 4 & 1) + (lane >> 3 & 1);
      if ((lane >> 2 & 1) == 0) conv[16 * p + 4 * (lane & 3) + which] = down * total;
    }
  }
  // Reduces four numbers per lane over the rows g; each lane gets sum 2 (g / 4) + g / 2 % 2.
  __device__ static float sum_of_four(int lane, const float* x) {
    const bool far = lane & 16, near = lane & 8;
    float a = far ? x[2] : x[0], b = far ? x[3] : x[1];
    a += __shfl_xor_sync(0xffffffffu, far ? x[0] : x[2], 16);
    b += __shfl_xor_sync(0xffffffffu, far ? x[1] : x[3], 16);
    float c = near ? b : a;
    c += __shfl_xor_sync(0xffffffffu, near ? a : b, 8);
    return c + __shfl_xor_sync(0xffffffffu, c, 4);
  }
};

}  // namespace gpu
}  // namespace dpa2md

#endif
