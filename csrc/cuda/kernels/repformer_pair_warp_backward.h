// The reverse of repformer_pair_warp.h: one pass over tiles of 16 rows. Their contributions to the columns'
// neighbours are summed in shared memory.
#pragma once

#if defined(__CUDACC__)

#include "cuda/kernels/repformer_pair_warp.h"

namespace dpa2md {
namespace gpu {

// Overwrites the next layer's d g2 with this layer's; adds to d h2 and d sw.
template <int TILES, int WARPS>
struct WarpPairStepBackward : WarpPairBase<TILES, WARPS> {
  using Base = WarpPairBase<TILES, WARPS>;
  using typename Base::Pairs;
  using typename Base::Rows;
  using typename Base::Tiles;
  static constexpr int kMinBlocks = WARPS > 0 ? 1 : TILES > 2 ? 2 : 3;
  float *dg2, *dh2;  // of the next layer, then of this one; (repformer pairs, 3), rows kH2Row apart

  // Gradients of an atom's pairs.
  struct Gradients {
    float4* g2;           // (tiles of 16 pairs, of 8 channels, lanes): sums as tensor cores give them
    float4 *of_h, *of_w;  // (tiles of 8 columns, lanes) of 16 rows: d hh before ww, the rest of d ww
    HalfRows norm;        // of what the layer norm reads, 16 rows, scaled
  };
  static constexpr int kGradientBytes =
      (TILES * kChannelTiles + 4 * TILES) * 32 * sizeof(float4) + 16 * 2 * HalfRows::kStride;
  __device__ static Gradients gradients(Scratch* scratch) {
    Gradients d{};
    d.g2 = scratch->take<float4>(TILES * kChannelTiles * 32);
    d.of_h = scratch->take<float4>(2 * TILES * 32);
    d.of_w = scratch->take<float4>(2 * TILES * 32);
    d.norm = HalfRows::take(scratch, 16);
    return d;
  }
  void arrays(Scratch* scratch, int) const {
    const int heads = WARPS > 0 && this->s.rep.has_g2_attn ? this->s.rep.heads2 : 0;
    for (const HalfWeight* w : {&this->half.map, &this->half.map_t, &this->half.value_t})
      scratch->take<char>(staged_bytes(*w, heads, kPairTiles));
    scratch->take<char>(this->warps * (Base::kPairBytes + kGradientBytes));
  }
  __device__ void operator()(const ThreadBlock& b, int item, Scratch scratch) const {
    Scratch shared = in_shared(scratch);
    const Weights w{staged<Base::kStaged>(b, this->half.map, this->heads(), kPairTiles, &shared),
                    staged<Base::kStaged>(b, this->half.map_t, this->heads(), kPairTiles, &shared),
                    staged<Base::kStaged>(b, this->half.value_t, this->heads(), kPairTiles, &shared)};
    if (Base::kStaged) b.sync();
    Pairs p;
    Gradients d;
    for (int k = 0; k <= b.warp; ++k) p = Base::pairs(&shared), d = gradients(&shared);
    this->template each_own_atom<WARPS == kSplit>(b, item, [&](int i) {
      p.n = this->s.repformer.count[i];
      if (!this->mine(p.n)) return;
      for (int k = b.lane; k < TILES * kChannelTiles * 32; k += 32) d.g2[k] = make_float4(0, 0, 0, 0);
      this->load(b.lane, i, &p);
      if constexpr (WARPS == kSplit) {
        if (16 * b.warp < p.n) step(b.lane, w, p, d, b.warp);
        b.sync();
        write_split(b, p, d);
      } else {
        for (int tile = 0; 16 * tile < p.n; ++tile) {
          step(b.lane, w, p, d, tile);
          if (this->heads()) add_factors(b.lane, p, d, 1, 0);
        }
        write(b.lane, p, d);
        __syncwarp();
      }
    });
  }

 private:
  struct Weights {
    Tiles map, map_t, value_t;
  };
  __device__ void step(int lane, const Weights& w, const Pairs& p, const Gradients& d, int tile) const {
    const Rows r = Base::rows(lane, p, tile);
    ChannelSum down;  // of these rows of g2, over all heads
    self_backward(p, r, &down);
    if (this->heads()) {
      const float norm_down = norm_backward(p, r, d);
      for (int n = 0; n < 2 * TILES; ++n)
        d.of_h[32 * n + lane] = d.of_w[32 * n + lane] = make_float4(0, 0, 0, 0);
      for (int h = 0; h < this->heads(); ++h) head(w, p, r, norm_down, h, d, &down);
      factors_backward(p, r, d);
    }
    float4* to = d.g2 + tile * kChannelTiles * 32 + lane;
    DPA2MD_UNROLL
    for (int c = 0; c < kChannelTiles; ++c) add(to + 32 * c, down.c[c], 1.0f);
  }
  __device__ static void add(float4* to, const float* x, float scale) {
    float4 sum = *to;
    sum.x += scale * x[0], sum.y += scale * x[1], sum.z += scale * x[2], sum.w += scale * x[3];
    *to = sum;
  }

  // alpha d + (d s1 act') W^T
  __device__ void self_backward(const Pairs& p, const Rows& r, ChannelSum* down) const {
    const LayerView<float>& w = this->w;
    ChannelSum y;
    y.clear();
    multiply(r.lane, &y, Base::left(r.lane, p, r.first / 16), this->half.linear2);
    float2 bias[kChannelTiles];
    Base::channel_weights(r.lane, w.linear2.b, bias);
    const float pre = p.down * this->half.linear2.down;
    dispatch_warp(this->s.rep.act, [&](auto kind) {
      DPA2MD_UNROLL
      for (int e = 0; e < 4 * kChannelTiles; ++e) {
        float value;
        float& at = y.c[e / 4][e % 4];
        const float x = pre * at + (e % 2 ? bias[e / 4].y : bias[e / 4].x);
        activate<decltype(kind)::value>(this->s.rep.act, x, &value, &at);
      }
    });
    down->clear();
    Base::each_pair(r, p.n, [&](int c, int h, int row, int channel) {
      const float2 up = *reinterpret_cast<const float2*>(dg2 + (p.q0 + row) * kPairChannels + channel),
                   scale = Base::two(w.scale_linear2 + channel);
      y.c[c][2 * h] *= up.x * scale.x, y.c[c][2 * h + 1] *= up.y * scale.y;
      down->c[c][2 * h] = w.g2_alpha * up.x, down->c[c][2 * h + 1] = w.g2_alpha * up.y;
    });
    mask(p, r, &y);
    const Scale scale = scale_to<kPairLimit>(most_of(y));
    SumPair halves[kChannelTiles];
    split_all(y, scale.up, halves);
    ChannelSum z;
    z.clear();
    multiply(r.lane, &z, left_of(halves), this->half.linear2_t);
    add(&z, scale.down * this->half.linear2_t.down, down);
  }
  __device__ static void add(ChannelSum* x, float scale, ChannelSum* to) {
    DPA2MD_UNROLL
    for (int e = 0; e < 4 * kChannelTiles; ++e) to->c[e / 4][e % 4] += scale * x->c[e / 4][e % 4];
  }
  // Rows beyond the last pair have no gradient.
  __device__ static void mask(const Pairs& p, const Rows& r, ChannelSum* x) {
    DPA2MD_UNROLL
    for (int h = 0; h < 2; ++h) {
      const bool inside = r.first + (r.lane >> 2) + 8 * h < p.n;
      DPA2MD_UNROLL
      for (int c = 0; c < kChannelTiles; ++c) {
        x->c[c][2 * h] = inside ? x->c[c][2 * h] : 0.0f;
        x->c[c][2 * h + 1] = inside ? x->c[c][2 * h + 1] : 0.0f;
      }
    }
  }

  // Writes the gradient of the layer norm's input to d.norm; returns the factor that unscales it.
  __device__ float norm_backward(const Pairs& p, const Rows& r, const Gradients& d) const {
    const LayerView<float>& w = this->w;
    ChannelSum x, norm;
    x.clear(), norm.clear();
    float rstd[2] = {0, 0};
    Base::each_pair(r, p.n, [&](int c, int h, int row, int channel) {
      const std::int64_t at = (p.q0 + row) * kPairChannels + channel;
      const float2 up = *reinterpret_cast<const float2*>(dg2 + at), y = Base::two(this->kept.norm + at),
                   of = Base::two(w.scale_attn2 + channel), lw = Base::two(w.ln_w + channel);
      x.c[c][2 * h] = up.x * of.x * lw.x, x.c[c][2 * h + 1] = up.y * of.y * lw.y;
      norm.c[c][2 * h] = y.x, norm.c[c][2 * h + 1] = y.y;
      rstd[h] = __ldg(this->kept.rstd + p.q0 + row);
    });
    DPA2MD_UNROLL
    for (int h = 0; h < 2; ++h) {
      float mean = 0, along = 0;
      DPA2MD_UNROLL
      for (int c = 0; c < kChannelTiles; ++c) {
        mean += x.c[c][2 * h] + x.c[c][2 * h + 1];
        along += x.c[c][2 * h] * norm.c[c][2 * h] + x.c[c][2 * h + 1] * norm.c[c][2 * h + 1];
      }
      mean = row_sum(mean) / kPairChannels, along = row_sum(along) / kPairChannels;
      DPA2MD_UNROLL
      for (int c = 0; c < kChannelTiles; ++c) {
        DPA2MD_UNROLL
        for (int e = 2 * h; e < 2 * h + 2; ++e)
          x.c[c][e] = (x.c[c][e] - mean - norm.c[c][e] * along) * rstd[h];
      }
    }
    const Scale scale = scale_to<kPairLimit>(most_of(x));
    SumPair halves[kChannelTiles];
    split_all(x, scale.up, halves);
    __syncwarp();
    DPA2MD_UNROLL
    for (int n = 0; n < kChannelTiles; ++n) d.norm.store(r.lane, 0, 8 * n, halves[n]);
    __syncwarp();
    return scale.down;
  }

  __device__ void head(const Weights& w, const Pairs& p, const Rows& r, float sum_down, int h,
                       const Gradients& d, ChannelSum* down) const {
    SumPair query[kChannelTiles], applied[kChannelTiles];  // and d applied
    float x[2 * TILES][4] = {}, dmap[2 * TILES][4] = {};
    {
      ChannelSum y;
      y.clear();
      multiply(r.lane, &y, Base::left(r.lane, p, r.first / 16), w.map.matrix(h, kPairTiles));
      split_all(y, 1.0f, query);
      y.clear();
      const ChannelLeft sum{{d.norm.left(r.lane, 0, 0), d.norm.left(r.lane, 0, 16)}};
      multiply(r.lane, &y, sum, w.value_t.matrix(h, kPairTiles));
      split_all(y, 1.0f, applied);
    }
    {
      const ChannelLeft a = left_of(query), b = left_of(applied);
      DPA2MD_UNROLL
      for (int n = 0; n < 2 * TILES; ++n) {
        RightTile y[2];
        p.g2.right(r.lane, 8 * n, y);
        multiply(x[n], a.k[0], y[0]);
        multiply(x[n], a.k[1], y[1]);
        multiply(dmap[n], b.k[0], y[0]);
        multiply(dmap[n], b.k[1], y[1]);
      }
    }
    const float query_down = p.down * w.map.down, applied_down = sum_down * w.value_t.down;
    const Scale map = Base::map_scale(p);
    const Scale logit = map_backward(p, r, query_down * p.down, 0.57735027f * applied_down * p.down,
                                     0.57735027f * map.up, x, dmap, d);
    // x: A, dmap: d logits, both scaled
    SumPair halves[2 * TILES];
    {
      SumPair of_map[2 * TILES];
      DPA2MD_UNROLL
      for (int n = 0; n < 2 * TILES; ++n) {
        of_map[n] = split_sum(x[n]);
        const float c[4] = {logit.up * dmap[n][0], logit.up * dmap[n][1], logit.up * dmap[n][2],
                            logit.up * dmap[n][3]};
        halves[n] = split_sum(c);
      }
      columns(r.lane, of_map, applied, map.down * applied_down, halves, query, logit.down * query_down, d.g2);
    }
    ChannelSum y;
    y.clear();
    {
      LeftTile left[TILES];
      DPA2MD_UNROLL
      for (int k = 0; k < TILES; ++k) left[k] = left_tile(halves[2 * k], halves[2 * k + 1]);
      Base::apply_pairs(r.lane, p, left, &y);
    }
    split_all(y, 1.0f, query);
    y.clear();
    multiply(r.lane, &y, left_of(query), w.map_t.matrix(h, kPairTiles));
    add(&y, logit.down * p.down * w.map_t.down, down);
  }

  // The reverse of A and the softmax: turns x (products of query and g2) into A, and dmap (products of d
  // applied and g2) into the gradient of the logits. Returns the scale of the latter.
  __device__ Scale map_backward(const Pairs& p, const Rows& r, float logit_down, float direct_down,
                                float map_up, float (*x)[4], float (*dmap)[4], const Gradients& d) const {
    const float shift = float(kAttentionShift);
    float logit[2 * TILES][4], both[2 * TILES][4], inverse[2];
    this->softmax(p, r, logit_down, x, both, logit, inverse);
    float mean[2] = {0, 0};
    Base::each_number([&](int n, int e) {
      x[n][e] *= inverse[e / 2];
      dmap[n][e] *= direct_down;
      mean[e / 2] += x[n][e] * (dmap[n][e] * both[n][e]);
    });
    mean[0] = row_sum(mean[0]), mean[1] = row_sum(mean[1]);
    float most = 0;
    DPA2MD_UNROLL
    for (int n = 0; n < 2 * TILES; ++n) {
      float4 of_h = d.of_h[32 * n + r.lane], of_w = d.of_w[32 * n + r.lane];
      float *to_h[4] = {&of_h.x, &of_h.y, &of_h.z, &of_h.w}, *to_w[4] = {&of_w.x, &of_w.y, &of_w.z, &of_w.w};
      DPA2MD_UNROLL
      for (int e = 0; e < 4; ++e) {
        const float prob = x[n][e], direct = dmap[n][e];
        const float dz = prob * (direct * both[n][e] - mean[e / 2]);
        *to_h[e] += direct * prob + dz * logit[n][e];
        *to_w[e] += shift * dz;
        dmap[n][e] = dz * both[n][e];
        most = fmaxf(most, fabsf(dmap[n][e]));
        x[n][e] = map_up * prob * both[n][e];
      }
      d.of_h[32 * n + r.lane] = of_h, d.of_w[32 * n + r.lane] = of_w;
    }
    return scale_to<1>(warp_most(most));
  }

  // Adds a^T b and x^T y, contracted over these 16 rows, to the gradients of all pairs.
  __device__ static void columns(int lane, const SumPair* a, const SumPair* b, float scale_ab,
                                 const SumPair* x, const SumPair* y, float scale_xy, float4* to) {
    RightTile right[2][kChannelTiles];
    DPA2MD_UNROLL
    for (int n = 0; n < kChannelTiles; ++n)
      right[0][n] = right_tile_of_rows(b[n]), right[1][n] = right_tile_of_rows(y[n]);
    DPA2MD_UNROLL
    for (int k = 0; k < TILES; ++k) {
      const LeftTile left[2] = {left_tile_of_columns(a[2 * k], a[2 * k + 1]),
                                left_tile_of_columns(x[2 * k], x[2 * k + 1])};
      DPA2MD_UNROLL
      for (int n = 0; n < kChannelTiles; ++n) {
        float sum[2][4] = {};
        multiply(sum[0], left[0], right[0][n]);
        multiply(sum[1], left[1], right[1][n]);
        DPA2MD_UNROLL
        for (int e = 0; e < 4; ++e) sum[0][e] = scale_ab * sum[0][e] + scale_xy * sum[1][e];
        add(to + (k * kChannelTiles + n) * 32 + lane, sum[0], 1.0f);
      }
    }
  }

  // d h2 and d sw from the heads' d hh and d ww: for the rows, and for the columns.
  __device__ void factors_backward(const Pairs& p, const Rows& r, const Gradients& d) const {
    const int g = r.lane >> 2, t = r.lane & 3;
    auto* of_pairs = reinterpret_cast<float4*>(d.norm.high);  // no longer read
    float4 own[2] = {make_float4(0, 0, 0, 0), make_float4(0, 0, 0, 0)};
    __syncwarp();
    DPA2MD_UNROLL
    for (int n = 0; n < 2 * TILES; ++n) {
      const int column = 8 * n + 2 * t;
      const float4 k[2] = {p.meta[column], p.meta[column + 1]};
      const float4 x = d.of_h[32 * n + r.lane], y = d.of_w[32 * n + r.lane];
      const float of_h[4] = {x.x, x.y, x.z, x.w}, of_w[4] = {y.x, y.y, y.z, y.w};
      float4 of_column[2] = {make_float4(0, 0, 0, 0), make_float4(0, 0, 0, 0)};
      DPA2MD_UNROLL
      for (int e = 0; e < 4; ++e) {
        const auto f = Base::factors(r.own[e / 2], k[e % 2]);
        const float dhh = of_h[e] * f.ww, dww = of_h[e] * f.hh + of_w[e];
        accumulate(&own[e / 2], k[e % 2], dhh, dww);
        accumulate(&of_column[e % 2], r.own[e / 2], dhh, dww);
      }
      DPA2MD_UNROLL
      for (int e = 0; e < 2; ++e) {
        float4 x = of_column[e];
        x.x = column_sum(x.x), x.y = column_sum(x.y), x.z = column_sum(x.z), x.w = column_sum(x.w);
        if (g == 0) of_pairs[column + e] = x;
      }
    }
    __syncwarp();
    DPA2MD_UNROLL
    for (int h = 0; h < 2; ++h) {
      float4 x = own[h];
      x.x = row_sum(x.x), x.y = row_sum(x.y), x.z = row_sum(x.z), x.w = row_sum(x.w);
      if (t == 0) {
        float4& to = of_pairs[r.first + g + 8 * h];
        to.x += x.x, to.y += x.y, to.z += x.z, to.w += x.w;
      }
    }
    __syncwarp();
  }
  // Adds the d h2 and d sw of `count` warps, whose scratch is `stride` bytes apart, to those of all pairs.
  __device__ void add_factors(int lane, const Pairs& p, const Gradients& d, int count, int stride) const {
    for (int j = lane; j < p.n; j += 32) {
      float* to = dh2 + (p.q0 + j) * kH2Row;
      float* dsw = this->s.repformer.dsw + p.q0 + j;
      float sum[4] = {to[0], to[1], to[2], *dsw};
      for (int w = 0; w < count; ++w) {
        const float4 x = reinterpret_cast<const float4*>(d.norm.high + w * stride)[j];
        sum[0] += x.x, sum[1] += x.y, sum[2] += x.z, sum[3] += x.w;
      }
      to[0] = sum[0], to[1] = sum[1], to[2] = sum[2], *dsw = sum[3];
    }
    __syncwarp();
  }
  // Reduces over the warps of a block that share an atom: each warp writes d g2 of its own 16 rows, the first
  // warp d h2 and d sw.
  __device__ void write_split(const ThreadBlock& b, const Pairs& p, const Gradients& d) const {
    constexpr int stride = Base::kPairBytes + kGradientBytes;
    const int count = (p.n + 15) / 16;
    if (b.warp < count) {
      float4* sums = d.g2 + b.warp * kChannelTiles * 32 + b.lane;
      for (int w = 0; w < count; ++w) {
        if (w == b.warp) continue;
        const char* other = reinterpret_cast<const char*>(sums) + (w - b.warp) * stride;
        DPA2MD_UNROLL
        for (int c = 0; c < kChannelTiles; ++c) {
          const float4 x = reinterpret_cast<const float4*>(other)[32 * c];
          const float y[4] = {x.x, x.y, x.z, x.w};
          add(sums + 32 * c, y, 1.0f);
        }
      }
      write_rows(Rows{b.lane, 16 * b.warp, {}}, p, d);
    }
    if (b.warp == 0 && this->heads()) add_factors(b.lane, p, d, count, stride);
    b.sync();
  }
  __device__ static void accumulate(float4* to, const float4& other, float dhh, float dww) {
    to->x += dhh * other.x, to->y += dhh * other.y, to->z += dhh * other.z, to->w += dww * other.w;
  }
  __device__ void write(int lane, const Pairs& p, const Gradients& d) const {
    for (int tile = 0; 16 * tile < p.n; ++tile) write_rows(Rows{lane, 16 * tile, {}}, p, d);
  }
  __device__ void write_rows(const Rows& r, const Pairs& p, const Gradients& d) const {
    Base::each_pair(r, p.n, [&](int c, int h, int row, int channel) {
      const float4 x = d.g2[(r.first / 16 * kChannelTiles + c) * 32 + r.lane];
      *reinterpret_cast<float2*>(dg2 + (p.q0 + row) * kPairChannels + channel) =
          h ? make_float2(x.z, x.w) : make_float2(x.x, x.y);
    });
  }
};

}  // namespace gpu
}  // namespace dpa2md

#endif
