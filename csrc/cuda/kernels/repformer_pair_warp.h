// pair_step for the published models in float32: smooth and gated, g2 of 32 channels, no update of h2, no
// g1g1, and no more than 16 TILES neighbours. What repformer_pair.h and repformer_pair_attention.h compute,
// with a warp for an atom: logits, probabilities and their gradients stay in its registers, 16 neighbours'
// rows at a time, and no barrier stands between the heads. Products are those of halves.h.
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
// Its numbers as left factors, the channels being the contraction.
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

// Assigns the column of d em that belongs to g2.
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

// WARPS: of blocks that stay on their multiprocessor, with the weights of the attention in shared memory; 0:
// blocks of some warps that read them from global memory; kSplit: blocks of an atom, with a warp for each 16 of
// its rows, for few atoms.
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

  // What a number of the map needs of its two neighbours: hh = h2_j . h2_k and ww = sw_j sw_k.
  struct Factors {
    float hh, ww;
  };
  __device__ static Factors factors(const float4& j, const float4& k) {
    return {j.x * k.x + j.y * k.y + j.z * k.z, j.w * k.w};
  }
  // f(tile of columns, number) for a lane's numbers of the map's rows; number e is of row e / 2, column e
  // % 2.
  template <class F>
  __device__ static void each_number(F f) {
    DPA2MD_UNROLL
    for (int n = 0; n < 2 * TILES; ++n) {
      DPA2MD_UNROLL
      for (int e = 0; e < 4; ++e) f(n, e);
    }
  }

  // x, products of query and g2 that are to be multiplied with `down`, become exp(z - largest z) and
  // `inverse` one over their sums; both: ww hh; logit (may be null).
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
  // What makes A of p ww hh, scaled for halves.
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
  __device__ void operator()(const ThreadBlock& b, int item, Scratch) const {
    Scratch shared = warp_scratch();
    const Weights w{staged<Base::kStaged>(b, this->half.map, this->heads(), kPairTiles, &shared),
                    staged<Base::kStaged>(b, this->half.value, this->heads(), kPairTiles, &shared)};
    if (Base::kStaged) b.sync();
    Pairs p;
    for (int k = 0; k <= b.warp; ++k) p = Base::pairs(&shared);
    this->template each_own_atom<WARPS == kSplit>(b, item, [&](int i) {
      p.n = this->s.repformer.count[i];
      if (!this->mine(p.n)) return;
      this->load(b.lane, i, &p);
      if (WARPS == kSplit) {
        if (16 * b.warp < p.n) step(b.lane, w, p, b.warp);
        return;
      }
      for (int tile = 0; 16 * tile < p.n; ++tile) step(b.lane, w, p, tile);
      __syncwarp();
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

// Assigns d g2 of the layer, in the place of that of the next; adds to d h2 and d sw.
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
  __device__ void operator()(const ThreadBlock& b, int item, Scratch) const {
    Scratch shared = warp_scratch();
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
      if (WARPS == kSplit) {
        if (16 * b.warp < p.n) step(b.lane, w, p, d, b.warp);
        b.sync();
        write_split(b, p, d);
        return;
      }
      for (int tile = 0; 16 * tile < p.n; ++tile) {
        step(b.lane, w, p, d, tile);
        if (this->heads()) add_factors(b.lane, p, d, 1, 0);
      }
      write(b.lane, p, d);
      __syncwarp();
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

  // The gradient of what the layer norm reads, into d.norm; returns what its numbers are to be multiplied
  // with.
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

  // Through A and the softmax: x (products of query and g2) becomes A, dmap (products of d applied and g2)
  // the gradient of the logits. Returns how the latter is to be scaled.
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

  // Adds a^T b and x^T y to the gradients of all pairs; all have these 16 rows, which are the contraction.
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

  // d h2 and d sw from what the heads gave: of a row's own, and of its columns'.
  __device__ void factors_backward(const Pairs& p, const Rows& r, const Gradients& d) const {
    const int g = r.lane >> 2, t = r.lane & 3;
    auto* of_pairs = reinterpret_cast<float4*>(d.norm.high);  // whose turn is over
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
  // Adds what `count` warps have of d h2 and d sw, whose scratch is `stride` bytes apart, to those of all pairs.
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
  // Of a block of an atom: each warp its own 16 rows, of what all have; d h2 and d sw by the first.
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
