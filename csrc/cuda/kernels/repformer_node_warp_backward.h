// The reverse of repformer_node_warp.h.
#pragma once

#if defined(__CUDACC__)

#include "cuda/kernels/repformer_node_warp.h"

namespace dpa2md {
namespace gpu {

// From the gradients of WarpNodeMoments' output: adds to d g2, d h2 and d sw (assigns them if `clear_pairs`)
// and assigns the pairs' shares dgg1.
template <int TILES, int WARPS>
struct WarpNodeMomentsBackward : WarpNodeBase<TILES, WARPS> {
  using Base = WarpNodeBase<TILES, WARPS>;
  using typename Base::Moments;
  using typename Base::Neighbors;
  using typename Base::Tiles;
  NodeArrays<float> d;  // of a
  float *dg2, *dh2;
  bool clear_pairs;

  struct Gradients {
    float* s;   // (3, g1)
    float* s2;  // (3, g2)
  };
  static constexpr int kGradientBytes = 3 * (kNodeChannels + kPairChannels) * sizeof(float);
  __device__ static Gradients gradients(Scratch* scratch) {
    float* s = scratch->take<float>(3 * kNodeChannels);
    return {s, scratch->take<float>(3 * kPairChannels)};
  }
  // One lane's part of the gradients of 16 TILES rows: of g2 w (scaled), and of h2 w.
  struct Sums {
    float left[TILES][kChannelTiles][4];
    float h[TILES][2][3];
  };
  static constexpr int kNumbers = sizeof(Sums) / sizeof(float);
  static constexpr int kSumBytes = WARPS == kSplit ? Base::kWarpsOfAtom * 32 * sizeof(Sums) : 0;
  void arrays(Scratch* scratch, int) const {
    scratch->take<char>(WARPS > 0 ? staged_bytes(this->half.conv, 1, kPairTiles) : 0);
    scratch->take<char>(WARPS > 0 ? staged_bytes(this->half.conv_t, 1, kConvTiles) : 0);
    scratch->take<char>(Base::kMomentBytes + kSumBytes +
                        this->warps * (Base::kNeighborBytes + kGradientBytes));
  }
  __device__ void operator()(const ThreadBlock& b, int item, Scratch scratch) const {
    Scratch shared = in_shared(scratch);
    const Weights w{staged<Base::kStaged>(b, this->half.conv, 1, kPairTiles, &shared),
                    staged<Base::kStaged>(b, this->half.conv_t, 1, kConvTiles, &shared)};
    if (Base::kStaged) b.sync();
    auto* all = shared.take<Moments>(Base::kMomentBytes / sizeof(Moments));
    auto* sums = shared.take<float>(kSumBytes / sizeof(float));
    Neighbors x;
    Gradients y;
    for (int k = 0; k <= b.warp; ++k) x = Base::neighbors(&shared), y = gradients(&shared);
    this->template each_own_atom<WARPS == kSplit>(b, item, [&](int i) {
      x.n = this->s.repformer.count[i];
      if (!this->mine(x.n) || x.n == 0) return;
      this->load(b.lane, i, &x);
      const float most = moments_backward(b.lane, i, x, this->moments(b, x, all), y);
      Sums own{};
      const float down = convolve_backward(b, i, w, x, y, warp_most(most), &own);
      if constexpr (WARPS == kSplit) add_up(b, sums, &own);
      DPA2MD_UNROLL
      for (int e = 0; e < 2 * TILES; ++e) {
        if (WARPS != kSplit || e % Base::kWarpsOfAtom == b.warp) pairs_backward(b.lane, x, y, down, own, e);
      }
      WARPS == kSplit ? b.sync() : __syncwarp();
    });
  }

 private:
  struct Weights {
    Tiles conv, conv_t;
  };
  // d S and d S2; returns this lane's largest |gg1|.
  __device__ float moments_backward(int lane, int i, const Neighbors& x, const Moments& m,
                                    const Gradients& y) const {
    const float* dcat = d.cat + static_cast<std::int64_t>(i) * this->s.rep.linear1.end;
    const float *drrd = dcat + this->s.rep.linear1.drrd + 4 * lane,
                *grrg = dcat + this->s.rep.linear1.grrg + lane;
    float4 sum[3];
    float sum2[3] = {0, 0, 0}, first[3] = {0, 0, 0},
          first2[3] = {0, 0, 0};  // of channel `lane`, of the first
    DPA2MD_UNROLL
    for (int c = 0; c < 3; ++c) sum[c] = make_float4(0, 0, 0, 0);
    DPA2MD_UNROLL
    for (int axis = 0; axis < kNodeAxis; ++axis) {
      const float4 up = __ldg(reinterpret_cast<const float4*>(drrd + axis * kNodeChannels));
      const float up2 = __ldg(grrg + axis * kPairChannels);
      DPA2MD_UNROLL
      for (int c = 0; c < 3; ++c) {
        const float4 z = m.s[c];
        const float x0 = from_lane(axis == 0 ? z.x : axis == 1 ? z.y : axis == 2 ? z.z : z.w, 0);
        const float x2 = from_lane(m.s2[c], axis);
        sum[c].x += x0 * up.x, sum[c].y += x0 * up.y, sum[c].z += x0 * up.z, sum[c].w += x0 * up.w;
        sum2[c] += x2 * up2;
        // the row part, for the first columns
        const float row = warp_sum(z.x * up.x + z.y * up.y + z.z * up.z + z.w * up.w);
        const float row2 = warp_sum(m.s2[c] * up2);
        if (lane == axis) first[c] = row, first2[c] = row2;
      }
    }
    const float scale = this->s.inverse_moment(x.n) / 3;
    DPA2MD_UNROLL
    for (int c = 0; c < 3; ++c) {
      float* to = y.s + c * kNodeChannels + 4 * lane;
      *reinterpret_cast<float4*>(to) =
          make_float4(scale * sum[c].x, scale * sum[c].y, scale * sum[c].z, scale * sum[c].w);
      y.s2[c * kPairChannels + lane] = scale * (sum2[c] + first2[c]);
    }
    __syncwarp();
    if (lane < kNodeAxis) {
      DPA2MD_UNROLL
      for (int c = 0; c < 3; ++c) y.s[c * kNodeChannels + lane] += scale * first[c];
    }
    __syncwarp();
    return m.most;
  }
  __device__ static float warp_sum(float x) {
    for (int o = 16; o > 0; o >>= 1) x += __shfl_xor_sync(0xffffffffu, x, o);
    return x;
  }

  // Reduces the sums of all warps that share the atom.
  __device__ static void add_up(const ThreadBlock& b, float* shared, Sums* own) {
    auto* x = reinterpret_cast<float*>(own);
    DPA2MD_UNROLL
    for (int k = 0; k < kNumbers; ++k) shared[(b.warp * kNumbers + k) * 32 + b.lane] = x[k];
    b.sync();
    DPA2MD_UNROLL
    for (int k = 0; k < kNumbers; ++k) {
      x[k] = 0;
      for (int w = 0; w < Base::kWarpsOfAtom; ++w) x[k] += shared[(w * kNumbers + k) * 32 + b.lane];
    }
  }

  // The reverse of conv and S. Returns the factor that unscales sums->left.
  __device__ float convolve_backward(const ThreadBlock& b, int i, const Weights& weights, const Neighbors& x,
                                     const Gradients& y, float most, Sums* sums) const {
    constexpr int step = Base::kWarpsOfAtom;
    const int lane = b.lane, begin = WARPS == kSplit ? b.warp : 0;
    const float* dconv = d.conv + static_cast<std::int64_t>(i) * kNodeChannels;
    const float4 of_lane = __ldg(reinterpret_cast<const float4*>(dconv) + lane);
    const float inv = this->s.inverse_count(x.n);
    most *= inv * warp_most(fmaxf(fmaxf(fabsf(of_lane.x), fabsf(of_lane.y)),
                                  fmaxf(fabsf(of_lane.z), fabsf(of_lane.w))));
    const Scale scale = scale_to<kPairLimit>(most);
    const float down = x.down * weights.conv.down;
    const int g = lane >> 2, t = lane & 3;
    const auto neighbors_of = [&](int p, float4(*z)[2]) {
      DPA2MD_UNROLL
      for (int e = 0; e < 2 * TILES; ++e)
        z[e / 2][e % 2] =
            __ldg(reinterpret_cast<const float4*>(this->row(x.row[8 * e + g]) + 16 * p + 4 * t));
    };
    float4 z[TILES][2], next[TILES][2];
    neighbors_of(begin, z);
#pragma unroll 1
    for (int p = begin; p < kNodeChannels / 16; p += step) {
      const int channel = 16 * p + 4 * t;
      float4 up = __ldg(reinterpret_cast<const float4*>(dconv + channel));
      neighbors_of(p + step < kNodeChannels / 16 ? p + step : p, next);
      up.x *= inv, up.y *= inv, up.z *= inv, up.w *= inv;
      const float4 ds[3] = {*reinterpret_cast<const float4*>(y.s + channel),
                            *reinterpret_cast<const float4*>(y.s + kNodeChannels + channel),
                            *reinterpret_cast<const float4*>(y.s + 2 * kNodeChannels + channel)};
      float product[TILES][2][4];
      Base::project(lane, p, weights.conv, x, product);
      LeftTile dt[TILES];
      DPA2MD_UNROLL
      for (int e = 0; e < 2 * TILES; ++e) {
        const int m = e / 2, h = e % 2, j = 8 * e + g;
        const float4 q = z[m][h], w = x.meta[j];
        share(x, j, channel,
              make_float4(down * product[m][0][2 * h], down * product[m][0][2 * h + 1],
                          down * product[m][1][2 * h], down * product[m][1][2 * h + 1]),
              up, w, ds);
        DPA2MD_UNROLL
        for (int c = 0; c < 3; ++c)
          sums->h[m][h][c] += q.x * ds[c].x + q.y * ds[c].y + q.z * ds[c].z + q.w * ds[c].w;
        const SplitPair a = split_pair(scale.up * (q.x * up.x), scale.up * (q.y * up.y)),
                        b = split_pair(scale.up * (q.z * up.z), scale.up * (q.w * up.w));
        dt[m].high[h] = a.high, dt[m].low[h] = a.low, dt[m].high[2 + h] = b.high, dt[m].low[2 + h] = b.low;
      }
      DPA2MD_UNROLL
      for (int n = 0; n < kChannelTiles; ++n) {
        const RightTile right = weights.conv_t.tile(lane, p, n);
        DPA2MD_UNROLL
        for (int m = 0; m < TILES; ++m) multiply(sums->left[m][n], dt[m], right);
      }
      DPA2MD_UNROLL
      for (int e = 0; e < 2 * TILES; ++e) z[e / 2][e % 2] = next[e / 2][e % 2];
    }
    return scale.down * weights.conv_t.down;
  }

  // A pair's share of the gradient of its neighbour's g1, four channels.
  __device__ void share(const Neighbors& x, int j, int channel, float4 t, float4 up, float4 w,
                        const float4* ds) const {
    if (j >= x.n) return;
    t.x *= up.x, t.y *= up.y, t.z *= up.z, t.w *= up.w;
    const float h[3] = {w.x * w.w, w.y * w.w, w.z * w.w};
    DPA2MD_UNROLL
    for (int c = 0; c < 3; ++c) {
      t.x += h[c] * ds[c].x, t.y += h[c] * ds[c].y, t.z += h[c] * ds[c].z, t.w += h[c] * ds[c].w;
    }
    *reinterpret_cast<float4*>(this->s.dgg1 + (x.q0 + j) * kNodeChannels + channel) = t;
  }

  // Gradients of g2, h2 and sw of eight rows, from those of g2 w (scaled), h2 w and S2.
  __device__ void pairs_backward(int lane, const Neighbors& x, const Gradients& y, float down,
                                 const Sums& sums, int e) const {
    const int g = lane >> 2, t = lane & 3;
    const int m = e / 2, h = e % 2, j = 8 * e + g;
    const bool inside = j < x.n;
    const float4 w = x.meta[j];
    const std::int64_t q = x.q0 + (inside ? j : 0), at = q * kPairChannels + 2 * t;
    float2 own[kChannelTiles], sum[kChannelTiles];
    float before_h[3] = {0, 0, 0}, before_w = 0;
    DPA2MD_UNROLL
    for (int n = 0; n < kChannelTiles; ++n) {
      own[n] = __ldg(reinterpret_cast<const float2*>(this->g2 + at + 8 * n));
      sum[n] = make_float2(0, 0);
      if (inside && !clear_pairs) sum[n] = *reinterpret_cast<const float2*>(dg2 + at + 8 * n);
    }
    if (inside && t == 0 && !clear_pairs) {
      DPA2MD_UNROLL
      for (int c = 0; c < 3; ++c) before_h[c] = dh2[q * kH2Row + c];
      before_w = this->s.repformer.dsw[q];
    }
    float along = 0, of_h[3] = {sums.h[m][h][0], sums.h[m][h][1], sums.h[m][h][2]};
    DPA2MD_UNROLL
    for (int n = 0; n < kChannelTiles; ++n) {
      float2 d = make_float2(down * sums.left[m][n][2 * h], down * sums.left[m][n][2 * h + 1]);
      along += d.x * own[n].x + d.y * own[n].y;
      const float hh[3] = {w.x, w.y, w.z};
      DPA2MD_UNROLL
      for (int c = 0; c < 3; ++c) {
        const float2 ds = *reinterpret_cast<const float2*>(y.s2 + c * kPairChannels + 8 * n + 2 * t);
        d.x += hh[c] * ds.x, d.y += hh[c] * ds.y;
        of_h[c] += ds.x * own[n].x + ds.y * own[n].y;
      }
      sum[n].x += w.w * d.x, sum[n].y += w.w * d.y;
    }
    along = row_sum(along);
    DPA2MD_UNROLL
    for (int c = 0; c < 3; ++c) of_h[c] = row_sum(of_h[c]);
    if (!inside) return;
    DPA2MD_UNROLL
    for (int n = 0; n < kChannelTiles; ++n) *reinterpret_cast<float2*>(dg2 + at + 8 * n) = sum[n];
    if (t != 0) return;
    DPA2MD_UNROLL
    for (int c = 0; c < 3; ++c) dh2[q * kH2Row + c] = before_h[c] + w.w * of_h[c];
    this->s.repformer.dsw[q] = before_w + (w.x * of_h[0] + w.y * of_h[1] + w.z * of_h[2] + along);
  }
};

}  // namespace gpu
}  // namespace dpa2md

#endif
