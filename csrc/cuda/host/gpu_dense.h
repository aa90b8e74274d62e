// GpuBackend: the dense steps as matrix products over many atoms (dense_steps.h), in float32 on a device.
// Each function that returns bool returns false, and does nothing, if the model's sizes do not fit; dense.h
// then does the step.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <string>

#include "cuda/host/gpu_backend.h"
#include "cuda/host/gpu_weights.h"

namespace dpa2md {
namespace DPA2MD_GPU {

#if defined(__CUDACC__)

template <class T>
SplitWeight GpuBackend<T>::prepare_split(const Tensor& w, int columns) {
  if (w.empty()) return {};
  const int k = static_cast<int>(w.shape[0]), n = static_cast<int>(w.shape[1]);
  const int kept = columns > 0 ? columns : n;
  std::vector<double> first;
  for (int r = 0; r < k; ++r)
    first.insert(first.end(), w.data.begin() + r * std::size_t(n),
                 w.data.begin() + r * std::size_t(n) + kept);
  const HostWeight split = split_weight(first.data(), k, kept);
  return {weights_.put_array(split.fragments.data(), split.fragments.size()),
          weights_.put_array(split.scale.data(), split.scale.size()), k, kept};
}

// DPA2MD_CUDA_DENSE, for comparisons: "plain" selects dense.h, "small" tiles of 16 rows, "2", "3", "4" tiles
// of 16 times as many.
inline std::string dense_wish() {
  const char* text = std::getenv("DPA2MD_CUDA_DENSE");
  return text ? text : "";
}

// Whether rows and columns come in fours.
inline bool fours(const SplitWeight& w) { return w.k % 4 == 0 && w.n % 4 == 0; }
#endif

template <class T>
void GpuBackend<T>::prepare_dense() {
#if defined(__CUDACC__) && !defined(DPA2MD_NO_TENSOR_CORES)
  if constexpr (sizeof(T) == 4) prepare_split_weights();
#endif
}

#if defined(__CUDACC__)
template <class T>
void GpuBackend<T>::prepare_split_weights() {
  if (dense_wish() == "plain") return;
  const Model& m = model_;
  SplitWeights& d = split_;
  const Net& net = m.fitting.net;
  const int width = m.is_dpa2 ? m.repformer.g1_dim : state_.repinit_width;
  if (fitting_by_layers(width)) {
    for (std::size_t k = 0; k + 1 < net.layers.size(); ++k) {
      d.fitting.push_back(prepare_split(net.layers[k].w));
      d.fitting_t.push_back(prepare_split(transpose(net.layers[k].w), k ? 0 : width));
      d.fitting_layers.push_back({weights_.put(net.layers[k].b), weights_.put(net.layers[k].idt)});
    }
    const Layer& last = net.layers.back();
    d.fitting_layers.push_back({weights_.put(last.w), weights_.put(last.b)});
  }
  if (!m.is_dpa2) return;
  d.transform = prepare_split(m.g1_transform);
  d.transform_t = prepare_split(transpose(m.g1_transform));
  for (int l = 0; l < rep().nlayers; ++l) {
    const RepformerLayer& from = rep().layers[l];
    const FoldedLayer w = fold_layer(rep(), l);
    SplitLayer to;
    to.forward[0] = prepare_split(from.linear1.w), to.backward[0] = prepare_split(transpose(from.linear1.w));
    to.forward[1] = prepare_split(from.g1_self.w), to.backward[1] = prepare_split(transpose(from.g1_self.w));
    to.forward[2] = prepare_split(w.attn1_value), to.backward[2] = prepare_split(transpose(w.attn1_value));
    to.query = prepare_split(w.attn1_query), to.query_t = prepare_split(transpose(w.attn1_query));
    d.layers.push_back(to);
  }
}
#endif

// Whether the fitting net has only hidden layers, each without a skip or as wide as the one before, and one
// linear output.
template <class T>
bool GpuBackend<T>::fitting_by_layers(int width) const {
  const Fitting& f = model_.fitting;
  const std::vector<Layer>& layers = f.net.layers;
  if (f.vacuum || layers.size() < 2 || width % 4) return false;
  const Layer& last = layers.back();
  if (!f.net.linear_last || last.out() != 1 || last.skip || !last.idt.empty()) return false;
  for (std::size_t k = 0; k + 1 < layers.size(); ++k) {
    const Layer& l = layers[k];
    if (l.out() % 4 || l.skip > 1 || (l.skip && (k == 0 || l.in() != l.out()))) return false;
  }
  return true;
}

// Atoms that the fitting net takes at once, and the width of its widest layer.
constexpr int kFittingRows = 16384;
template <class T>
std::size_t GpuBackend<T>::fitting_rows(std::size_t chunk) const {
#if defined(__CUDACC__)
  return split_.fitting.empty() ? 0 : std::min<std::size_t>(chunk, kFittingRows);
#else
  return 0 * chunk;
#endif
}
template <class T>
int GpuBackend<T>::fitting_widest() const {
  int widest = 0;
  for (const Layer& l : model_.fitting.net.layers) widest = std::max(widest, l.out());
  return widest;
}

#if defined(__CUDACC__)
constexpr int kResidentStages = 8;

// The tiling of a product: M of TiledProduct (0: SmallProduct), and the parts of its columns.
struct DenseTiling {
  int m, parts;
};
inline DenseTiling dense_tiling(int rows, int units, int multiprocessors) {
  const std::string wish = dense_wish();
  const int wanted = wish == "2" || wish == "3" || wish == "4" ? wish[0] - '0' : 0;
  const auto blocks = [&](int m, int parts) { return (rows + 16 * m - 1) / (16 * m) * parts; };
  if (wish == "small" || (!wanted && 2 * blocks(2, units) < multiprocessors)) return {0, 0};
  // Cost: rounds of blocks times the time of a block, which grows with its column tiles (each reads weights)
  // and its rows.
  DenseTiling best{};
  std::int64_t least = 0;
  for (int m = 4; m >= 2; --m) {
    if (wanted && m != wanted) continue;
    for (int parts = 1; parts <= units; ++parts) {
      const std::int64_t rounds = (blocks(m, parts) + multiprocessors - 1) / multiprocessors;
      const std::int64_t cost = rounds * (m + 1) * (8 * ((units + parts - 1) / parts) + 1);
      if (best.m == 0 || cost < least) best = {m, parts}, least = cost;
    }
  }
  return best;
}

template <class T>
template <class Op>
void GpuBackend<T>::start_product(const Op& op) {
  const int count = units(op, &SplitWeight::tiles);
  const DenseTiling tiling = dense_tiling(op.end - op.begin, count, launches_.multiprocessors());
  if (tiling.m == 0) {
    const SmallProduct<Op> kernel{op};
    return start(kernel, kernel.items());
  }
  int most_stages = 0;
  for (int p = 0; p < op.products(); ++p) most_stages = std::max(most_stages, op.weight(p).stages());
  const bool resident = !Op::kTogether && tiling.parts < count && most_stages <= kResidentStages;
  const auto start_tiled = [&](auto kernel) {
    Scratch bytes(nullptr);
    kernel.arrays(&bytes, 0);
    if (launches_.slab_bytes(1, bytes.used())) kernel.resident = false;  // shared memory is too small for it
    start(kernel, kernel.items());
  };
  if (tiling.m == 2) return start_tiled(TiledProduct<2, Op>{op, tiling.parts, resident, most_stages});
  if (tiling.m == 3) return start_tiled(TiledProduct<3, Op>{op, tiling.parts, resident, most_stages});
  start_tiled(TiledProduct<4, Op>{op, tiling.parts, resident, most_stages});
}

#endif

template <class T>
bool GpuBackend<T>::transform_product(Range a) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == 4) {
    const SplitWeight& w = split_.transform;
    if (!w.k || !fours(w)) return false;
    const State<T> s = here(a);
    start_product(TransformProduct{a.begin, a.end, w, s.rep.act, s.rep_out, tebd_, s.center_type, g1(0),
                                   g1_slope_.data()});
    return true;
  }
#endif
  return static_cast<void>(a), false;
}

template <class T>
bool GpuBackend<T>::transform_backward_product(Range a) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == 4) {
    const SplitWeight& w = split_.transform_t;
    if (!w.k || !fours(w)) return false;
    start_product(TransformBackwardProduct{a.begin, a.end, w, g1_slope_.data(), dg1(0), here(a).drep_out});
    return true;
  }
#endif
  return static_cast<void>(a), false;
}

// The query of the attention to g1, and its gradient.
template <class T>
bool GpuBackend<T>::query_product(int l, Range a) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == 4) {
    if (split_.layers.empty() || !fours(split_.layers[l].query)) return false;
    start_product(PlainProduct{a.begin, a.end, split_.layers[l].query, g1(l), nodes(a).query, false});
    return true;
  }
#endif
  return static_cast<void>(a), static_cast<void>(l), false;
}
template <class T>
bool GpuBackend<T>::query_backward_product(int l, Range a) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == 4) {
    if (split_.layers.empty() || !fours(split_.layers[l].query)) return false;
    start_product(PlainProduct{a.begin, a.end, split_.layers[l].query_t, dnodes(a).query, dg1(l), true});
    return true;
  }
#endif
  return static_cast<void>(a), static_cast<void>(l), false;
}

template <class T>
bool GpuBackend<T>::node_update_product(int l, Range a) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == 4) {
    if (split_.layers.empty() || !fours(split_.layers[l].forward[0])) return false;
    const SplitWeight(&split)[kNodeProducts] = split_.layers[l].forward;
    const LayerView<T>& w = layers_[l];
    const State<T> s = here(a);
    const NodeArrays<T> x = nodes(a);
    NodeUpdateProduct op{a.begin,    a.end, 0,       {},           s.rep.act,
                         w.g1_alpha, g1(l), nullptr, w.scale_conv, g1(l + 1)};
    if (s.rep.has_conv && s.rep.conv_outside) op.conv = x.conv;
    op.product[op.count++] = {split[0], true, x.cat, w.mlp.b, w.scale_mlp, slope(mlp_slope_, l, a)};
    if (s.rep.mlp_outside)
      op.product[op.count++] = {split[1], true, g1(l), w.self.b, w.scale_self, slope(self_slope_, l, a)};
    if (s.rep.has_g1_attn)
      op.product[op.count++] = {split[2], false, x.weighted, w.attn1_value.b, w.scale_attn1, nullptr};
    start_product(op);
    return true;
  }
#endif
  return static_cast<void>(a), static_cast<void>(l), false;
}

template <class T>
bool GpuBackend<T>::node_update_backward_product(int l, Range a) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == 4) {
    if (split_.layers.empty() || !fours(split_.layers[l].forward[0])) return false;
    const SplitWeight(&split)[kNodeProducts] = split_.layers[l].backward;
    const LayerView<T>& w = layers_[l];
    const State<T> s = here(a);
    const NodeArrays<T> dx = dnodes(a);
    NodeUpdateBackwardProduct op{a.begin,    a.end,      s.rep.g1,     0,       {},    0,
                                 w.g1_alpha, dg1(l + 1), w.scale_conv, nullptr, dg1(l)};
    if (s.rep.has_conv && s.rep.conv_outside) op.dconv = dx.conv;
    op.product[op.count++] = {split[0], slope(mlp_slope_, l, a), w.scale_mlp, dx.cat};
    if (s.rep.mlp_outside) {
      op.own = op.count;
      op.product[op.count++] = {split[1], slope(self_slope_, l, a), w.scale_self, nullptr};
    }
    if (s.rep.has_g1_attn) op.product[op.count++] = {split[2], nullptr, w.scale_attn1, dx.weighted};
    start_product(op);
    return true;
  }
#endif
  return static_cast<void>(a), static_cast<void>(l), false;
}

// Runs the layers for kFittingRows atoms at a time, whose rows stay in the cache.
template <class T>
bool GpuBackend<T>::fitting_products(Range a, int width, const T* feature, T* dfeature) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == 4) {
    if (split_.fitting.empty()) return false;
    for (int begin = a.begin; begin < a.end; begin += kFittingRows)
      fit({begin, std::min(a.end, begin + kFittingRows)}, width, feature, dfeature);
    return true;
  }
#endif
  return static_cast<void>(a), static_cast<void>(width), static_cast<void>(feature),
         static_cast<void>(dfeature), false;
}

#if defined(__CUDACC__)
template <class T>
void GpuBackend<T>::fit(Range a, int width, const T* feature, T* dfeature) {
  if constexpr (sizeof(T) == 4) {
    const State<T> s = here(a);
    const std::size_t rows = fitting_rows(sizes_.chunk);
    const int hidden = static_cast<int>(split_.fitting.size()), widest = fitting_widest();
    const auto buffer = [&](int k, int columns) {
      return moved(fitting_x_.data() + k % 2 * rows * widest, a.begin, columns);
    };
    std::vector<T*> slopes;
    T* next = fitting_slope_.data();
    FittingInput input{feature, s.types,       parameters_.data(), s.center_type,
                       width,   fitting_.tebd, fitting_.parameters};
    for (int k = 0; k < hidden; ++k) {
      const SplitWeight& w = split_.fitting[k];
      slopes.push_back(moved(s.forces ? next : nullptr, a.begin, w.n));
      next += rows * w.n;
      T* y = buffer(k, w.n);
      start_product(FittingProduct{a.begin, a.end, w, fitting_.net.act, input, split_.fitting_layers[k].first,
                                   split_.fitting_layers[k].second, model_.fitting.net.layers[k].skip > 0, y,
                                   slopes[k]});
      input = {y, nullptr, nullptr, s.center_type, w.n, 0, 0};
    }
    const auto& last = split_.fitting_layers[hidden];
    T* seed = moved(fitting_seed_.data(), a.begin, 1);
    start(FittingEnergy{a.begin, a.end, input.width, input.feature, last.first, last.second, fitting_,
                        s.center_type, seed, energy()},
          warp_items(a.size()));
    if (!s.forces) return;
    FittingGradient gradient{last.first, seed, nullptr, input.width};
    for (int k = hidden - 1; k >= 0; --k) {
      const SplitWeight& w = split_.fitting_t[k];
      gradient.slope = slopes[k];
      T* dx = k ? buffer(k, w.n) : dfeature;
      start_product(
          FittingBackwardProduct{a.begin, a.end, w, gradient, model_.fitting.net.layers[k].skip > 0, dx});
      gradient = {dx, nullptr, nullptr, w.n};
    }
  }
}
#endif

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
