// The dense steps as matrix products over many atoms (dense_steps.h): float32 on a device. A function that
// returns false has done nothing, since the model's sizes do not fit; dense.h then does the step.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "cuda/host/chunks.h"
#include "cuda/host/model_weights.h"
#include "cuda/host/starter.h"
#include "cuda/host/step_sizes.h"
#include "cuda/kernels/dense.h"
#include "cuda/kernels/dense_steps.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// What a step of a layer reads and writes beside the state.
template <class T>
struct DenseStep {
  NodeArrays<T> x;            // or their gradients
  T *mlp_slope, *self_slope;  // act' of the two nets
  T *g1, *g1_next;            // the layer's and the next one's, or their gradients
};

template <class T>
class DenseProducts {
 public:
  DenseProducts(const Model&, const ModelWeights<T>&, Starter*) {}

  std::size_t capacity() const { return 0; }
  void plan(const StepSizes&, std::vector<Need>*) {}
  void set_sizes(const StepSizes&) {}
  template <class... Arguments>
  bool transform(const Arguments&...) const {
    return false;
  }
  template <class... Arguments>
  bool transform_backward(const Arguments&...) const {
    return false;
  }
  template <class... Arguments>
  bool query(const Arguments&...) const {
    return false;
  }
  template <class... Arguments>
  bool query_backward(const Arguments&...) const {
    return false;
  }
  template <class... Arguments>
  bool node_update(const Arguments&...) const {
    return false;
  }
  template <class... Arguments>
  bool node_update_backward(const Arguments&...) const {
    return false;
  }
  template <class... Arguments>
  bool fitting(const Arguments&...) const {
    return false;
  }
};

#if defined(__CUDACC__) && !defined(DPA2MD_NO_TENSOR_CORES)

// DPA2MD_CUDA_DENSE, for comparisons: "plain" selects dense.h, "small" tiles of 16 rows, "2", "3", "4" tiles
// of 16 times as many.
inline std::string dense_wish() {
  const char* text = std::getenv("DPA2MD_CUDA_DENSE");
  return text ? text : "";
}

// Whether rows and columns come in fours.
inline bool fours(const SplitWeight& w) { return w.k % 4 == 0 && w.n % 4 == 0; }

constexpr int kResidentStages = 8;
constexpr int kFittingRows = 16384;  // atoms that the fitting net takes at once

template <>
class DenseProducts<float> {
 public:
  DenseProducts(const Model& model, const ModelWeights<float>& weights, Starter* starter)
      : weights_(weights), net_(model.fitting.net), starter_(starter) {
    if (dense_wish() == "plain") return;
    const int width = model.is_dpa2 ? model.repformer.g1_dim : weights.state.repinit_width;
    if (!model.fitting.vacuum && width % 4 == 0 && fitting_by_layers()) prepare_fitting(width);
    if (!model.is_dpa2) return;
    split_.transform = split(model.g1_transform);
    split_.transform_t = split(transpose(model.g1_transform));
    for (const RepformerLayer& l : model.repformer.layers)
      split_.layers.push_back(layer(l, fold_layer(model.repformer, static_cast<int>(split_.layers.size()))));
  }

  std::size_t capacity() const { return store_.capacity(); }
  // The arrays of the fitting net.
  void plan(const StepSizes& z, std::vector<Need>* needs) {
    const std::size_t rows = fitting_rows(z);
    append({need(&x_, 2 * rows * widest()), need(&slope_, z.forces * rows * weights_.fitting.net.total),
            need(&seed_, rows)},
           needs);
  }
  // The sizes that its memory is for.
  void set_sizes(const StepSizes& z) { rows_ = fitting_rows(z); }

  bool transform(const State<float>& s, Range a, float* g1, float* slope) {
    const SplitWeight& w = split_.transform;
    if (!w.k || !fours(w)) return false;
    start(TransformProduct{a.begin, a.end, w, s.rep.act, s.rep_out, weights_.tebd, s.center_type, g1, slope});
    return true;
  }
  bool transform_backward(const State<float>& s, Range a, const float* slope, const float* dg1) {
    const SplitWeight& w = split_.transform_t;
    if (!w.k || !fours(w)) return false;
    start(TransformBackwardProduct{a.begin, a.end, w, slope, dg1, s.drep_out});
    return true;
  }

  // The query of the attention to g1, and its gradient.
  bool query(int l, Range a, const float* g1, float* query) {
    if (split_.layers.empty() || !fours(split_.layers[l].query)) return false;
    start(PlainProduct{a.begin, a.end, split_.layers[l].query, g1, query, false});
    return true;
  }
  bool query_backward(int l, Range a, const float* dquery, float* dg1) {
    if (split_.layers.empty() || !fours(split_.layers[l].query)) return false;
    start(PlainProduct{a.begin, a.end, split_.layers[l].query_t, dquery, dg1, true});
    return true;
  }

  bool node_update(const State<float>& s, int l, Range a, const DenseStep<float>& step) {
    if (split_.layers.empty() || !fours(split_.layers[l].forward[0])) return false;
    const SplitWeight(&split)[kNodeProducts] = split_.layers[l].forward;
    const LayerView<float>& w = weights_.layers[l];
    NodeUpdateProduct op{a.begin,    a.end,   0,       {},           s.rep.act,
                         w.g1_alpha, step.g1, nullptr, w.scale_conv, step.g1_next};
    if (s.rep.has_conv && s.rep.conv_outside) op.conv = step.x.conv;
    op.product[op.count++] = {split[0], true, step.x.cat, w.mlp.b, w.scale_mlp, step.mlp_slope};
    if (s.rep.mlp_outside)
      op.product[op.count++] = {split[1], true, step.g1, w.self.b, w.scale_self, step.self_slope};
    if (s.rep.has_g1_attn)
      op.product[op.count++] = {split[2], false, step.x.weighted, w.attn1_value.b, w.scale_attn1, nullptr};
    start(op);
    return true;
  }
  bool node_update_backward(const State<float>& s, int l, Range a, const DenseStep<float>& step) {
    if (split_.layers.empty() || !fours(split_.layers[l].forward[0])) return false;
    const SplitWeight(&split)[kNodeProducts] = split_.layers[l].backward;
    const LayerView<float>& w = weights_.layers[l];
    NodeUpdateBackwardProduct op{a.begin,    a.end,        s.rep.g1,     0,       {},     0,
                                 w.g1_alpha, step.g1_next, w.scale_conv, nullptr, step.g1};
    if (s.rep.has_conv && s.rep.conv_outside) op.dconv = step.x.conv;
    op.product[op.count++] = {split[0], step.mlp_slope, w.scale_mlp, step.x.cat};
    if (s.rep.mlp_outside) {
      op.own = op.count;
      op.product[op.count++] = {split[1], step.self_slope, w.scale_self, nullptr};
    }
    if (s.rep.has_g1_attn) op.product[op.count++] = {split[2], nullptr, w.scale_attn1, step.x.weighted};
    start(op);
    return true;
  }

  // Runs the layers for kFittingRows atoms at a time, whose rows stay in the cache.
  bool fitting(const State<float>& s, Range a, int width, const float* feature, float* dfeature,
               const float* parameters, double* energy) {
    if (split_.fitting.empty()) return false;
    for (int begin = a.begin; begin < a.end; begin += kFittingRows)
      fit(s, {begin, std::min(a.end, begin + kFittingRows)}, width, feature, dfeature, parameters, energy);
    return true;
  }

 private:
  SplitWeight split(const Tensor& w, int columns = 0);
  SplitLayer layer(const RepformerLayer& m, const FoldedLayer& w);
  bool fitting_by_layers() const;
  void prepare_fitting(int width);
  int widest() const;
  std::size_t fitting_rows(const StepSizes& z) const {
    return split_.fitting.empty() ? 0 : std::min<std::size_t>(z.chunk, kFittingRows);
  }
  void fit(const State<float>& s, Range a, int width, const float* feature, float* dfeature,
           const float* parameters, double* energy);
  template <class Op>
  void start(const Op& op);

  const ModelWeights<float>& weights_;
  const Net& net_;
  Starter* starter_;
  SplitWeights split_;
  WeightStore<float> store_;
  std::size_t rows_ = 0;
  Buffer<float> x_, slope_, seed_;  // (2, rows, widest), (rows, total), (rows)
};

// Uploads a matrix, or its first columns.
inline SplitWeight DenseProducts<float>::split(const Tensor& w, int columns) {
  if (w.empty()) return {};
  const int k = static_cast<int>(w.shape[0]), n = static_cast<int>(w.shape[1]);
  const int kept = columns > 0 ? columns : n;
  std::vector<double> first;
  for (int r = 0; r < k; ++r)
    first.insert(first.end(), w.data.begin() + r * std::size_t(n),
                 w.data.begin() + r * std::size_t(n) + kept);
  const HostWeight split = split_weight(first.data(), k, kept);
  return {store_.put_array(split.fragments.data(), split.fragments.size()),
          store_.put_array(split.scale.data(), split.scale.size()), k, kept};
}

inline SplitLayer DenseProducts<float>::layer(const RepformerLayer& m, const FoldedLayer& w) {
  SplitLayer to;
  to.forward[0] = split(m.linear1.w), to.backward[0] = split(transpose(m.linear1.w));
  to.forward[1] = split(m.g1_self.w), to.backward[1] = split(transpose(m.g1_self.w));
  to.forward[2] = split(w.attn1_value), to.backward[2] = split(transpose(w.attn1_value));
  to.query = split(w.attn1_query), to.query_t = split(transpose(w.attn1_query));
  return to;
}

// Whether the fitting net has only hidden layers, each without a skip or as wide as the one before, and one
// linear output.
inline bool DenseProducts<float>::fitting_by_layers() const {
  const std::vector<Layer>& layers = net_.layers;
  if (layers.size() < 2) return false;
  const Layer& last = layers.back();
  if (!net_.linear_last || last.out() != 1 || last.skip || !last.idt.empty()) return false;
  for (std::size_t k = 0; k + 1 < layers.size(); ++k) {
    const Layer& l = layers[k];
    if (l.out() % 4 || l.skip > 1 || (l.skip && (k == 0 || l.in() != l.out()))) return false;
  }
  return true;
}

inline void DenseProducts<float>::prepare_fitting(int width) {
  for (std::size_t k = 0; k + 1 < net_.layers.size(); ++k) {
    const Layer& l = net_.layers[k];
    split_.fitting.push_back(split(l.w));
    split_.fitting_t.push_back(split(transpose(l.w), k ? 0 : width));
    split_.fitting_layers.push_back({store_.put(l.b), store_.put(l.idt)});
  }
  const Layer& last = net_.layers.back();
  split_.fitting_layers.push_back({store_.put(last.w), store_.put(last.b)});
}

inline int DenseProducts<float>::widest() const {
  int widest = 0;
  for (const Layer& l : net_.layers) widest = std::max(widest, l.out());
  return widest;
}

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

template <class Op>
void DenseProducts<float>::start(const Op& op) {
  const int count = units(op, &SplitWeight::tiles);
  const DenseTiling tiling = dense_tiling(op.end - op.begin, count, starter_->launches().multiprocessors());
  if (tiling.m == 0) {
    const SmallProduct<Op> kernel{op};
    return starter_->start(kernel, kernel.items());
  }
  int most_stages = 0;
  for (int p = 0; p < op.products(); ++p) most_stages = std::max(most_stages, op.weight(p).stages());
  const bool resident = !Op::kTogether && tiling.parts < count && most_stages <= kResidentStages;
  const auto start_tiled = [&](auto kernel) {
    Scratch bytes(nullptr);
    kernel.arrays(&bytes, 0);
    // shared memory is too small for resident weights
    if (starter_->launches().slab_bytes(1, bytes.used())) kernel.resident = false;
    starter_->start(kernel, kernel.items());
  };
  if (tiling.m == 2) return start_tiled(TiledProduct<2, Op>{op, tiling.parts, resident, most_stages});
  if (tiling.m == 3) return start_tiled(TiledProduct<3, Op>{op, tiling.parts, resident, most_stages});
  start_tiled(TiledProduct<4, Op>{op, tiling.parts, resident, most_stages});
}

inline void DenseProducts<float>::fit(const State<float>& s, Range a, int width, const float* feature,
                                      float* dfeature, const float* parameters, double* energy) {
  const FittingView<float>& view = weights_.fitting;
  const int hidden = static_cast<int>(split_.fitting.size());
  const auto buffer = [&](int k, int columns) {
    return moved(x_.data() + k % 2 * rows_ * widest(), a.begin, columns);
  };
  std::vector<float*> slopes;
  float* next = slope_.data();
  FittingInput input{feature, s.types, parameters, s.center_type, width, view.tebd, view.parameters};
  for (int k = 0; k < hidden; ++k) {
    const SplitWeight& w = split_.fitting[k];
    slopes.push_back(moved(s.forces ? next : nullptr, a.begin, w.n));
    next += rows_ * w.n;
    float* y = buffer(k, w.n);
    start(FittingProduct{a.begin, a.end, w, view.net.act, input, split_.fitting_layers[k].first,
                         split_.fitting_layers[k].second, net_.layers[k].skip > 0, y, slopes[k]});
    input = {y, nullptr, nullptr, s.center_type, w.n, 0, 0};
  }
  const auto& last = split_.fitting_layers[hidden];
  float* seed = moved(seed_.data(), a.begin, 1);
  starter_->start(FittingEnergy{a.begin, a.end, input.width, input.feature, last.first, last.second, view,
                                s.center_type, seed, energy},
                  warp_items(a.size()));
  if (!s.forces) return;
  FittingGradient gradient{last.first, seed, nullptr, input.width};
  for (int k = hidden - 1; k >= 0; --k) {
    const SplitWeight& w = split_.fitting_t[k];
    gradient.slope = slopes[k];
    float* dx = k ? buffer(k, w.n) : dfeature;
    start(FittingBackwardProduct{a.begin, a.end, w, gradient, net_.layers[k].skip > 0, dx});
    gradient = {dx, nullptr, nullptr, w.n};
  }
}

#endif

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
