// pair_step for the published models in float32: smooth and gated, g2 of 32 channels, no update of h2, no
// g1g1, at most 16 TILES neighbours. It computes the same as repformer_pair.h and repformer_pair_attention.h,
// with a warp per atom: logits, probabilities and their gradients stay in registers, 16 neighbours' rows at a
// time, and heads need no barrier between them. Products use halves.h.
#pragma once

#if defined(__CUDACC__)

#include "cuda/kernels/channel_sums.h"

namespace dpa2md {
namespace gpu {

// ---- layer 0: PairInit and its reverse; eight lanes a pair, four channels a lane

struct WarpPairInit : WarpAtoms {
  State<float> s;
  const float *w, *bias;  // (g2)
  float* out;             // (repformer pairs, g2)

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  __device__ void operator()(const ThreadBlock& b, int item, Scratch) const {
    each_atom(b, item, [&](int i) {
      const int c = 4 * (b.lane % 8);
      const float4 u = *reinterpret_cast<const float4*>(w + c),
                   v = *reinterpret_cast<const float4*>(bias + c);
      const std::int64_t q0 = s.repformer.first[i];
      const Activation act = s.rep.act;
      dispatch_warp(act, [&](auto kind) {
        for (int j = b.lane / 8; j < s.repformer.count[i]; j += 4) {
          const float x = s.repformer.em[4 * (q0 + j)];
          float4 y;
          float slope;
          activate<decltype(kind)::value>(act, x * u.x + v.x, &y.x, &slope);
          activate<decltype(kind)::value>(act, x * u.y + v.y, &y.y, &slope);
          activate<decltype(kind)::value>(act, x * u.z + v.z, &y.z, &slope);
          activate<decltype(kind)::value>(act, x * u.w + v.w, &y.w, &slope);
          *reinterpret_cast<float4*>(out + (q0 + j) * kPairChannels + c) = y;
        }
      });
    });
  }
};

// Assigns column 0 of d em, from d g2.
struct WarpPairInitBackward : WarpAtoms {
  State<float> s;
  const float *w, *bias;
  const float* dg2;  // (repformer pairs, g2)

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  __device__ void operator()(const ThreadBlock& b, int item, Scratch) const {
    each_atom(b, item, [&](int i) {
      const int c = 4 * (b.lane % 8), n = s.repformer.count[i];
      const float4 u = *reinterpret_cast<const float4*>(w + c),
                   v = *reinterpret_cast<const float4*>(bias + c);
      const std::int64_t q0 = s.repformer.first[i];
      const Activation act = s.rep.act;
      dispatch_warp(act, [&](auto kind) {
        for (int j0 = 0; j0 < n; j0 += 4) {
          const int j = j0 + b.lane / 8;
          const bool inside = j < n;
          const float x = inside ? s.repformer.em[4 * (q0 + j)] : 0.0f;
          float4 d = make_float4(0, 0, 0, 0);
          if (inside) d = *reinterpret_cast<const float4*>(dg2 + (q0 + j) * kPairChannels + c);
          float value, slope, sum;
          activate<decltype(kind)::value>(act, x * u.x + v.x, &value, &slope);
          sum = d.x * slope * u.x;
          activate<decltype(kind)::value>(act, x * u.y + v.y, &value, &slope);
          sum += d.y * slope * u.y;
          activate<decltype(kind)::value>(act, x * u.z + v.z, &value, &slope);
          sum += d.z * slope * u.z;
          activate<decltype(kind)::value>(act, x * u.w + v.w, &value, &slope);
          sum += d.w * slope * u.w;
          for (int o = 1; o < 8; o *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, o);
          if (inside && b.lane % 8 == 0) s.repformer.dem[4 * (q0 + j)] = sum;
        }
      });
    });
  }
};

// ---- a step

// WARPS: the warps of a persistent block, which keeps the attention's weights in shared memory, a warp per
// atom. kSplit, for few atoms: a block per atom, with a warp for each 16 of its rows.
constexpr int kSplit = -1;

template <int TILES, int WARPS>
struct WarpPairBase : WarpAtoms {
  static constexpr int kRows = 16 * TILES;
  static constexpr bool kStaged = WARPS > 0;
  static constexpr int kWarpsOfAtom = WARPS == kSplit ? TILES : 1;
  static constexpr int kMostThreads = kStaged ? 32 * WARPS : kThreads;
  using Tiles = HalfTiles<kStaged>;
  State<float> s;
  LayerView<float> w;
  HalfLayer half;
  const float* g2;  // (repformer pairs, g2)
  const float* h2;  // (repformer pairs, 3), rows kH2Row apart
  KeptAttention<float> kept;

  // An atom's pairs in shared memory.
  struct Pairs {
    HalfRows g2;
    float4* meta;  // (rows) h2, sw; zeros beyond the last
    int n;
    std::int64_t q0;
    float down;  // of the halves of g2
    float most;  // of |h2|^2
  };
  static constexpr int kPairBytes = kRows * (2 * HalfRows::kStride + sizeof(float4));
  __device__ static Pairs pairs(Scratch* scratch) {
    Pairs p{};
    p.g2 = HalfRows::take(scratch, kRows);
    p.meta = scratch->take<float4>(kRows);
    return p;
  }

  __device__ int heads() const { return s.rep.has_g2_attn ? s.rep.heads2 : 0; }
  __device__ bool mine(int n) const { return n > (TILES > 2 ? kFewNeighbors : 0) && n <= kRows; }

  __device__ void load(int lane, int i, Pairs* p) const {
    p->q0 = s.repformer.first[i];
    constexpr int kLoads = kRows / 4;  // eight lanes a row
    float4 x[kLoads];
    float most = 0;
    const float* from = g2 + p->q0 * kPairChannels + 4 * lane;
    DPA2MD_UNROLL
    for (int k = 0; k < kLoads; ++k) {
      x[k] = make_float4(0, 0, 0, 0);
      if (4 * k + lane / 8 < p->n) x[k] = *reinterpret_cast<const float4*>(from + 4 * k * kPairChannels);
      most = fmaxf(most, fmaxf(fmaxf(fabsf(x[k].x), fabsf(x[k].y)), fmaxf(fabsf(x[k].z), fabsf(x[k].w))));
    }
    float most_h2 = 0;
    for (int j = lane; j < kRows; j += 32) {
      float4 m = make_float4(0, 0, 0, 0);
      if (j < p->n) {
        const float* h = h2 + (p->q0 + j) * kH2Row;
        m = make_float4(h[0], h[1], h[2], s.switch_of(p->q0 + j));
      }
      most_h2 = fmaxf(most_h2, m.x * m.x + m.y * m.y + m.z * m.z);
      p->meta[j] = m;
    }
    const Scale scale = scale_to<kPairLimit>(warp_most(most));
    p->down = scale.down;
    p->most = warp_most(most_h2);
    DPA2MD_UNROLL
    for (int k = 0; k < kLoads; ++k) {
      const float4 y =
          make_float4(scale.up * x[k].x, scale.up * x[k].y, scale.up * x[k].z, scale.up * x[k].w);
      p->g2.store(4 * k + lane / 8, 4 * (lane % 8), y);
    }
    __syncwarp();
  }

  // 16 neighbours' rows.
  struct Rows {
    int lane, first;
    float4 own[2];  // meta of rows g, g + 8
  };
  __device__ static Rows rows(int lane, const Pairs& p, int tile) {
    const int g = lane >> 2;
    return {lane, 16 * tile, {p.meta[16 * tile + g], p.meta[16 * tile + g + 8]}};
  }
  __device__ static ChannelLeft left(int lane, const Pairs& p, int tile) {
    return {{p.g2.left(lane, 16 * tile, 0), p.g2.left(lane, 16 * tile, 16)}};
  }

  // sum[columns of 8 neighbours] += x g2^T
  template <int N>
  __device__ static void multiply_pairs(int lane, const Pairs& p, const ChannelLeft& x, float (*sum)[4]) {
    DPA2MD_UNROLL
    for (int n = 0; n < N; ++n) {
      RightTile y[2];
      p.g2.right(lane, 8 * n, y);
      multiply(sum[n], x.k[0], y[0]);
      multiply(sum[n], x.k[1], y[1]);
    }
  }
  // sum += x g2, the neighbours being the contraction
  __device__ static void apply_pairs(int lane, const Pairs& p, const LeftTile* x, ChannelSum* sum) {
    DPA2MD_UNROLL
    for (int k = 0; k < TILES; ++k) {
      DPA2MD_UNROLL
      for (int n = 0; n < kChannelTiles; n += 2) {
        RightTile y[2];
        p.g2.right_of_rows(lane, 16 * k, 8 * n, y);
        multiply(sum->c[n], x[k], y[0]);
        multiply(sum->c[n + 1], x[k], y[1]);
      }
    }
  }

  // The factors of an element of the map: hh = h2_j . h2_k and ww = sw_j sw_k.
  struct Factors {
    float hh, ww;
  };
  __device__ static Factors factors(const float4& j, const float4& k) {
    return {j.x * k.x + j.y * k.y + j.z * k.z, j.w * k.w};
  }
  // Calls f(tile of columns, e) for a lane's elements of the map; element e is in row e / 2, column e % 2.
  template <class F>
  __device__ static void each_number(F f) {
    DPA2MD_UNROLL
    for (int n = 0; n < 2 * TILES; ++n) {
      DPA2MD_UNROLL
      for (int e = 0; e < 4; ++e) f(n, e);
    }
  }

  // Replaces x, products of query and g2 scaled by 1 / `down`, by exp(z - largest z). Writes ww hh to `both`,
  // the rows' 1 / sum to `inverse`, and the logits to `logit` unless null.
  __device__ void softmax(const Pairs& p, const Rows& r, float down, float (*x)[4], float (*both)[4],
                          float (*logit)[4], float* inverse) const {
    const float shift = float(kAttentionShift);
    const int empty = s.repformer.nsel - p.n, t = r.lane & 3;
    float top[2];
    top[0] = top[1] = empty ? 0.0f : -INFINITY;
    DPA2MD_UNROLL
    for (int n = 0; n < 2 * TILES; ++n) {
      const int column = 8 * n + 2 * t;
      const float4 k[2] = {p.meta[column], p.meta[column + 1]};
      DPA2MD_UNROLL
      for (int e = 0; e < 4; ++e) {
        const Factors f = factors(r.own[e / 2], k[e % 2]);
        const float l = down * x[n][e], above = (l * f.hh + shift) * f.ww;
        if (logit) logit[n][e] = l;
        both[n][e] = f.ww * f.hh;
        x[n][e] = column + e % 2 < p.n ? above : -INFINITY;
        top[e / 2] = fmaxf(top[e / 2], x[n][e]);
      }
    }
    float sum[2] = {0, 0};
    top[0] = row_most(top[0]), top[1] = row_most(top[1]);
    each_number([&](int n, int e) { sum[e / 2] += x[n][e] = __expf(x[n][e] - top[e / 2]); });
    DPA2MD_UNROLL
    for (int h = 0; h < 2; ++h) {
      sum[h] = row_sum(sum[h]);
      if (empty) sum[h] += float(empty) * __expf(-top[h]);
      inverse[h] = 1.0f / sum[h];
    }
  }
  // The factor from p ww hh to A, scaled for halves.
  __device__ static Scale map_scale(const Pairs& p) { return scale_to<kMapLimit>(0.57735027f * p.most); }

  // f(tile, first channel of it, pair of rows' row) ... a lane's two channels of either row.
  template <class F>
  __device__ static void each_pair(const Rows& r, int n, F f) {
    DPA2MD_UNROLL
    for (int c = 0; c < kChannelTiles; ++c) {
      DPA2MD_UNROLL
      for (int h = 0; h < 2; ++h) {
        const int row = r.first + (r.lane >> 2) + 8 * h;
        if (row < n) f(c, h, row, 8 * c + 2 * (r.lane & 3));
      }
    }
  }
  __device__ static float2 two(const float* x) { return __ldg(reinterpret_cast<const float2*>(x)); }
  // Channels of a lane in all tiles.
  __device__ static void channel_weights(int lane, const float* x, float2* to) {
    DPA2MD_UNROLL
    for (int c = 0; c < kChannelTiles; ++c) to[c] = two(x + 8 * c + 2 * (lane & 3));
  }
};

template <int TILES, int WARPS>
struct WarpPairStep : WarpPairBase<TILES, WARPS> {
  using Base = WarpPairBase<TILES, WARPS>;
  using typename Base::Pairs;
  using typename Base::Rows;
  using typename Base::Tiles;
  static constexpr int kMinBlocks = WARPS > 0 ? 1 : 3;
  float* out = nullptr;  // g2 of the next layer; null: only what the reverse sweep reads of the attention

  void arrays(Scratch* scratch, int) const {
    const int heads = WARPS > 0 && this->s.rep.has_g2_attn ? this->s.rep.heads2 : 0;
    for (const HalfWeight* w : {&this->half.map, &this->half.value})
      scratch->take<char>(staged_bytes(*w, heads, kPairTiles));
    scratch->take<char>(this->warps * Base::kPairBytes);
  }
  __device__ void operator()(const ThreadBlock& b, int item, Scratch scratch) const {
    Scratch shared = in_shared(scratch);
    const Weights w{staged<Base::kStaged>(b, this->half.map, this->heads(), kPairTiles, &shared),
                    staged<Base::kStaged>(b, this->half.value, this->heads(), kPairTiles, &shared)};
    if (Base::kStaged) b.sync();
    Pairs p;
    for (int k = 0; k <= b.warp; ++k) p = Base::pairs(&shared);
    this->template each_own_atom<WARPS == kSplit>(b, item, [&](int i) {
      p.n = this->s.repformer.count[i];
      if (!this->mine(p.n)) return;
      this->load(b.lane, i, &p);
      if constexpr (WARPS == kSplit) {
        if (16 * b.warp < p.n) step(b.lane, w, p, b.warp);
      } else {
        for (int tile = 0; 16 * tile < p.n; ++tile) step(b.lane, w, p, tile);
        __syncwarp();
      }
    });
  }

 private:
  struct Weights {
    Tiles map, value;
  };
  __device__ void step(int lane, const Weights& w, const Pairs& p, int tile) const {
    const Rows r = Base::rows(lane, p, tile);
    const ChannelLeft own = Base::left(lane, p, tile);
    ChannelSum attended;
    attended.clear();
    for (int h = 0; h < this->heads(); ++h) head(w, p, r, own, h, &attended);
    if (this->heads()) normalise(p, r, &attended);
    if (!out) return;
    ChannelSum y;
    y.clear();
    multiply(lane, &y, own, this->half.linear2);
    activate_sum(lane, p, &y);
    write(p, r, y, attended);
  }

  __device__ void head(const Weights& w, const Pairs& p, const Rows& r, const ChannelLeft& own, int h,
                       ChannelSum* attended) const {
    SumPair halves[2 * TILES > kChannelTiles ? 2 * TILES : kChannelTiles];
    float x[2 * TILES][4] = {};
    {
      ChannelSum query;
      query.clear();
      multiply(r.lane, &query, own, w.map.matrix(h, kPairTiles));
      split_all(query, 1.0f, halves);
      this->template multiply_pairs<2 * TILES>(r.lane, p, left_of(halves), x);
    }
    float both[2 * TILES][4], inverse[2];
    this->softmax(p, r, p.down * p.down * w.map.down, x, both, nullptr, inverse);
    inverse[0] *= 0.57735027f * Base::map_scale(p).up, inverse[1] *= 0.57735027f * Base::map_scale(p).up;
    Base::each_number([&](int n, int e) { x[n][e] *= inverse[e / 2] * both[n][e]; });
    LeftTile map[TILES];
    DPA2MD_UNROLL
    for (int k = 0; k < TILES; ++k) map[k] = left_tile(split_sum(x[2 * k]), split_sum(x[2 * k + 1]));
    ChannelSum applied;
    applied.clear();
    Base::apply_pairs(r.lane, p, map, &applied);
    split_all(applied, 1.0f, halves);
    multiply(r.lane, attended, left_of(halves), w.value.matrix(h, kPairTiles));
  }

  __device__ void activate_sum(int lane, const Pairs& p, ChannelSum* y) const {
    float2 bias[kChannelTiles];
    Base::channel_weights(lane, this->w.linear2.b, bias);
    const float down = p.down * this->half.linear2.down;
    dispatch_warp(this->s.rep.act, [&](auto kind) {
      DPA2MD_UNROLL
      for (int e = 0; e < 4 * kChannelTiles; ++e) {
        float value, slope;
        const float x = down * y->c[e / 4][e % 4] + (e % 2 ? bias[e / 4].y : bias[e / 4].x);
        activate<decltype(kind)::value>(this->s.rep.act, x, &value, &slope);
        y->c[e / 4][e % 4] = value;
      }
    });
  }

  // Layer norm of the rows; keeps what the reverse sweep needs.
  __device__ void normalise(const Pairs& p, const Rows& r, ChannelSum* x) const {
    float2 bias[kChannelTiles];
    Base::channel_weights(r.lane, this->w.attn2_bias, bias);
    const float down = p.down * this->half.value.down * Base::map_scale(p).down;
    float rstd[2];
    DPA2MD_UNROLL
    for (int h = 0; h < 2; ++h) {
      float mean = 0, var = 0;
      DPA2MD_UNROLL
      for (int c = 0; c < kChannelTiles; ++c) {
        float* at = x->c[c] + 2 * h;
        at[0] = down * at[0] + bias[c].x, at[1] = down * at[1] + bias[c].y;
        mean += at[0] + at[1];
      }
      mean = row_sum(mean) / kPairChannels;
      DPA2MD_UNROLL
      for (int c = 0; c < kChannelTiles; ++c) {
        float* at = x->c[c] + 2 * h;
        at[0] -= mean, at[1] -= mean;
        var += at[0] * at[0] + at[1] * at[1];
      }
      rstd[h] = 1.0f / sqrtf(row_sum(var) / kPairChannels + float(this->s.rep.ln_eps));
      DPA2MD_UNROLL
      for (int c = 0; c < kChannelTiles; ++c) {
        x->c[c][2 * h] *= rstd[h], x->c[c][2 * h + 1] *= rstd[h];
      }
    }
    if (!this->kept.norm) return;
    Base::each_pair(r, p.n, [&](int c, int h, int row, int channel) {
      float* to = this->kept.norm + (p.q0 + row) * kPairChannels + channel;
      *reinterpret_cast<float2*>(to) = make_float2(x->c[c][2 * h], x->c[c][2 * h + 1]);
      if (channel == 0) this->kept.rstd[p.q0 + row] = rstd[h];
    });
  }

  __device__ void write(const Pairs& p, const Rows& r, const ChannelSum& y, const ChannelSum& norm) const {
    const LayerView<float>& w = this->w;
    const bool attends = this->heads() > 0;
    Base::each_pair(r, p.n, [&](int c, int h, int row, int channel) {
      const std::int64_t at = (p.q0 + row) * kPairChannels + channel;
      const float2 before = *reinterpret_cast<const float2*>(this->g2 + at),
                   scale = Base::two(w.scale_linear2 + channel);
      float2 z;
      z.x = w.g2_alpha * before.x + scale.x * y.c[c][2 * h];
      z.y = w.g2_alpha * before.y + scale.y * y.c[c][2 * h + 1];
      if (attends) {
        const float2 of = Base::two(w.scale_attn2 + channel), lw = Base::two(w.ln_w + channel),
                     lb = Base::two(w.ln_b + channel);
        z.x += of.x * (norm.c[c][2 * h] * lw.x + lb.x);
        z.y += of.y * (norm.c[c][2 * h + 1] * lw.y + lb.y);
      }
      *reinterpret_cast<float2*>(out + at) = z;
    });
  }
};

}  // namespace gpu
}  // namespace dpa2md

#endif
