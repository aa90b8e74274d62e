// The steps of the repformers by kernels with a warp per atom: float32 on a device, for the shapes of
// published models. A function that returns false has done nothing; the general kernels then do the step.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cuda/host/model_weights.h"
#include "cuda/host/starter.h"
#include "cuda/kernels/repformer_node_warp_backward.h"
#include "cuda/kernels/repformer_pair_warp_backward.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// False if the environment variable is "0"; for comparisons.
inline bool switched_on(const char* variable) {
  const char* text = std::getenv(variable);
  return !text || std::string(text) != "0";
}

template <class T>
class WarpKernels {
 public:
  WarpKernels(const Model&, const ModelWeights<T>&, Starter*) {}

  bool pairs() const { return false; }  // whether pair steps are theirs
  int few_neighbors() const { return 0; }
  std::size_t capacity() const { return 0; }
  template <class... Arguments>
  bool pair_init(const Arguments&...) const {
    return false;
  }
  template <class... Arguments>
  bool pair_init_backward(const Arguments&...) const {
    return false;
  }
  template <class... Arguments>
  bool pair_step(const Arguments&...) const {
    return false;
  }
  template <class... Arguments>
  bool pair_step_backward(const Arguments&...) const {
    return false;
  }
  template <class... Arguments>
  bool node_moments(const Arguments&...) const {
    return false;
  }
  template <class... Arguments>
  bool node_moments_backward(const Arguments&...) const {
    return false;
  }
};

#if defined(__CUDACC__) && !defined(DPA2MD_NO_TENSOR_CORES)

// Splits matrices (k, n) into halves, scaled to at most 2^limit and padded with zeros to whole tiles.
inline HalfWeight half_weight(const Tensor& w, int limit, WeightStore<float>* store) {
  if (w.empty()) return {};
  const std::int64_t k = w.shape[w.shape.size() - 2], n = w.shape.back();
  const std::int64_t count = static_cast<std::int64_t>(w.data.size()) / (k * n), columns = (n + 7) / 8;
  double most = 0;
  for (const double x : w.data) most = std::max(most, std::fabs(x));
  int exponent = 0;
  std::frexp(most, &exponent);  // most < 2^exponent
  const double up = std::ldexp(1.0, limit - exponent);
  std::vector<uint4> tiles;
  for (std::int64_t h = 0; h < count; ++h) {
    const auto at = [&](std::int64_t row, std::int64_t column) {
      return row < k && column < n ? static_cast<float>(up * w.data[(h * k + row) * n + column]) : 0.0f;
    };
    const auto halves = [&](std::int64_t row, std::int64_t column, unsigned* high, unsigned* low) {
      *high = *low = 0;
      for (int e = 0; e < 2; ++e) {
        const float x = at(row + e, column);
        const __half a = __float2half_rn(x), b = __float2half_rn(x - __half2float(a));
        std::uint16_t bits[2];
        std::memcpy(&bits[0], &a, 2);
        std::memcpy(&bits[1], &b, 2);
        *high |= static_cast<unsigned>(bits[0]) << 16 * e;
        *low |= static_cast<unsigned>(bits[1]) << 16 * e;
      }
    };
    for (std::int64_t k0 = 0; k0 < k; k0 += 16) {
      for (std::int64_t j = 0; j < columns; ++j) {
        for (int lane = 0; lane < 32; ++lane) {
          const std::int64_t row = k0 + 2 * (lane % 4), column = 8 * j + lane / 4;
          uint4 x;
          halves(row, column, &x.x, &x.z);
          halves(row + 8, column, &x.y, &x.w);
          tiles.push_back(x);
        }
      }
    }
  }
  return {store->put_array(tiles.data(), tiles.size()), static_cast<int>(columns),
          static_cast<float>(std::ldexp(1.0, exponent - limit))};
}

template <>
class WarpKernels<float> {
 public:
  WarpKernels(const Model& model, const ModelWeights<float>& weights, Starter* starter)
      : weights_(weights), starter_(starter) {
    const Repformer& f = model.repformer;
    pairs_ = f.nlayers > 0 && f.g2_dim == kPairChannels && f.nsel <= kManyNeighbors && !f.update_h2 &&
             !f.has_g1g1 && model.smooth && f.attn2_gate && !model.all_neighbors &&
             warp_kernels_know(f.act) && switched_on("DPA2MD_CUDA_WARPS");
    nodes_ = pairs_ && f.g1_dim == kNodeChannels && f.axis == kNodeAxis && f.has_conv && f.g1_out_conv &&
             f.g1_out_mlp && f.has_grrg && f.has_drrd && !f.has_g1_attn;
    for (int l = 0; pairs_ && l < f.nlayers; ++l) layers_.push_back(layer(f.layers[l], fold_layer(f, l)));
  }

  bool pairs() const { return pairs_; }
  // Atoms with more neighbours in the repformers are crowded, and have kernels of their own.
  int few_neighbors() const { return pairs_ ? kFewNeighbors : 0; }
  std::size_t capacity() const { return store_.capacity(); }

  bool pair_init(const State<float>& s, Range a, float* g2) const {
    if (pairs_) starter_->start_warps(WarpPairInit{{}, s, weights_.g2_embd_w, weights_.g2_embd_b, g2}, a);
    return pairs_;
  }
  bool pair_init_backward(const State<float>& s, Range a, float* dg2) const {
    if (pairs_)
      starter_->start_warps(WarpPairInitBackward{{}, s, weights_.g2_embd_w, weights_.g2_embd_b, dg2}, a);
    return pairs_;
  }
  // out: the next layer's g2; null: only the attention to keep is wanted.
  bool pair_step(const State<float>& s, int l, Range a, const int* crowded, const PairState<float>& from,
                 const KeptAttention<float>& kept, float* out) const {
    if (!pairs_) return false;
    const auto with = [&](auto kernel) {
      kernel.s = s, kernel.w = weights_.layers[l], kernel.half = layers_[l];
      kernel.g2 = from.g2, kernel.h2 = from.h2, kernel.kept = kept, kernel.out = out;
      return kernel;
    };
    starter_->start_by_neighbors<WarpPairStep, 16>(a, crowded, with);
    return true;
  }
  bool pair_step_backward(const State<float>& s, int l, Range a, const int* crowded,
                          const PairState<float>& x, const KeptAttention<float>& kept,
                          const PairState<float>& dx) const {
    if (!pairs_) return false;
    const auto with = [&](auto kernel) {
      kernel.s = s, kernel.w = weights_.layers[l], kernel.half = layers_[l];
      kernel.g2 = x.g2, kernel.h2 = x.h2, kernel.kept = kept;
      kernel.dg2 = dx.g2, kernel.dh2 = dx.h2;
      return kernel;
    };
    starter_->start_by_neighbors<WarpPairStepBackward, 12>(a, crowded, with);
    return true;
  }
  bool node_moments(const State<float>& s, int l, Range a, const int* crowded, const NodeArrays<float>& nodes,
                    const PairState<float>& x, const float* g1) const {
    if (!nodes_) return false;
    const auto with = [&](auto kernel) {
      kernel.s = s, kernel.half = layers_[l], kernel.a = nodes;
      kernel.g2 = x.g2, kernel.h2 = x.h2, kernel.g1 = g1;
      return kernel;
    };
    starter_->start_by_neighbors<WarpNodeMoments, 16>(a, crowded, with);
    return true;
  }
  bool node_moments_backward(const State<float>& s, int l, Range a, const int* crowded,
                             const NodeArrays<float>& nodes, const NodeArrays<float>& dnodes,
                             const PairState<float>& x, const PairState<float>& dx, const float* g1,
                             bool clear_pairs) const {
    if (!nodes_) return false;
    const auto with = [&](auto kernel) {
      kernel.s = s, kernel.half = layers_[l], kernel.a = nodes, kernel.d = dnodes;
      kernel.g2 = x.g2, kernel.h2 = x.h2, kernel.g1 = g1;
      kernel.dg2 = dx.g2, kernel.dh2 = dx.h2, kernel.clear_pairs = clear_pairs;
      return kernel;
    };
    starter_->start_by_neighbors<WarpNodeMomentsBackward, 12>(a, crowded, with);
    return true;
  }

 private:
  HalfLayer layer(const RepformerLayer& m, const FoldedLayer& w) {
    const auto half = [&](const Tensor& x) { return half_weight(x, kWeightLimit, &store_); };
    HalfLayer h;
    h.linear2 = half(m.linear2.w), h.linear2_t = half(transpose(m.linear2.w));
    h.map = half(w.attn2_map), h.map_t = half(transpose(w.attn2_map));
    h.value = half(w.attn2_value), h.value_t = half(transpose(w.attn2_value));
    if (nodes_) {
      Tensor ordered = w.conv;
      for (std::size_t k = 0; k < w.conv.data.size(); ++k) {
        const int place = static_cast<int>(k % kNodeChannels);
        ordered.data[k] = w.conv.data[k - place + conv_order(place)];
      }
      h.conv = half(ordered), h.conv_t = half(transpose(ordered));
    }
    return h;
  }

  const ModelWeights<float>& weights_;
  Starter* starter_;
  bool pairs_ = false, nodes_ = false;
  std::vector<HalfLayer> layers_;
  WeightStore<float> store_;
};

#endif

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
