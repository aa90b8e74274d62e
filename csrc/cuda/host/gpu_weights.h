// GpuBackend: the model's weights, folded (folding.h), uploaded once.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "cuda/host/gpu_backend.h"
#include "model/folding.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// Transposes the tensor's last two axes.
inline Tensor transpose(const Tensor& w) {
  Tensor out = w;
  if (w.empty()) return out;
  const std::size_t rows = w.shape[w.shape.size() - 2], columns = w.shape.back(), size = rows * columns;
  std::swap(out.shape[w.shape.size() - 2], out.shape.back());
  for (std::size_t m = 0; m < w.data.size(); m += size) {
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t c = 0; c < columns; ++c) out.data[m + c * rows + r] = w.data[m + r * columns + c];
    }
  }
  return out;
}

// Uploads one or several (k, n) matrices.
template <class T>
Weight<T> GpuBackend<T>::prepare_weight(const Tensor& w) {
  if (w.empty()) return {};
  const int k = static_cast<int>(w.shape[w.shape.size() - 2]), n = static_cast<int>(w.shape.back());
  const int count = static_cast<int>(w.data.size() / (static_cast<std::size_t>(k) * n));
  const std::vector<T> fragments = fragments_of<T>(w.data.data(), count, k, n);
  return {weights_.put(w), weights_.put_array(fragments.data(), fragments.size()), k, n};
}

template <class T>
Linear<T> GpuBackend<T>::prepare_linear(const Tensor& w, const Tensor* b) {
  if (w.empty()) return {};
  return {static_cast<int>(w.shape[0]), static_cast<int>(w.shape[1]), prepare_weight(w),
          prepare_weight(transpose(w)), b ? weights_.put(*b) : nullptr};
}

template <class T>
NetView<T> GpuBackend<T>::prepare_net(const Net& net) {
  NetView<T> v;
  v.act = net.act;
  v.linear_last = net.linear_last;
  v.count = static_cast<int>(net.layers.size());
  std::vector<NetLayer<T>> layers;
  for (const Layer& l : net.layers) {
    layers.push_back({prepare_linear(l.w, &l.b), weights_.put(l.idt), l.skip});
    v.widest = std::max({v.widest, l.in(), l.out()});
    v.total += l.out();
  }
  v.layer = weights_.put_array(layers.data(), layers.size());
  v.inputs = net.empty() ? 0 : net.in();
  return v;
}

template <class T>
EmbeddingView<T> GpuBackend<T>::prepare_embedding(const Embedding& e) {
  EmbeddingView<T> v;
  v.strip = e.strip;
  v.one_side = e.one_side;
  v.ng = e.ng;
  if (!e.net.empty()) v.net = prepare_net(e.net);
  v.gate = weights_.put(e.strip_table);
  if (!e.table.empty()) {
    v.grid = compressed_grid(e.table);
    v.compressed = weights_.put(e.table.coefficients);
    v.compressed_single = model_.precision == Precision::kFloat32;
  }
  return v;
}

template <class T>
void GpuBackend<T>::prepare_block(const Block& block, EnvView<T>* env) {
  env->rcut = block.rcut;
  env->rcut_smth = block.rcut_smth;
  env->inverse_width = 1.0 / (block.rcut - block.rcut_smth);
  env->nsel = block.nsel;
  env->davg = doubles_.put(block.davg);
  std::vector<double> inverse = block.dstd.data;
  for (double& x : inverse) x = 1.0 / x;
  env->inverse_std = doubles_.put(inverse);
}

template <class T>
LayerView<T> GpuBackend<T>::prepare_layer(int l, const FoldedLayer& w) {
  const RepformerLayer& m = rep().layers[l];
  LayerView<T> v{};
  v.g1_alpha = T(w.g1_alpha), v.g2_alpha = T(w.g2_alpha), v.h2_alpha = T(w.h2_alpha),
  v.h2_scale = T(w.h2_scale);
  v.scale_self = weights_.put(w.scale_self);
  v.scale_conv = weights_.put(w.scale_conv);
  v.scale_mlp = weights_.put(w.scale_mlp);
  v.scale_attn1 = weights_.put(w.scale_attn1);
  v.scale_linear2 = weights_.put(w.scale_linear2);
  v.scale_g1g1 = weights_.put(w.scale_g1g1);
  v.scale_attn2 = weights_.put(w.scale_attn2);
  v.mlp = prepare_linear(m.linear1.w, &m.linear1.b);
  v.self = prepare_linear(m.g1_self.w, &m.g1_self.b);
  v.linear2 = prepare_linear(m.linear2.w, &m.linear2.b);
  v.g1g1 = prepare_linear(m.g1g1, nullptr);
  v.conv = weights_.put(w.conv);
  v.attn1_query = prepare_linear(w.attn1_query, nullptr);
  v.attn1_value = prepare_linear(w.attn1_value, &m.attn1_head.b);
  v.attn2_map = prepare_weight(w.attn2_map);
  v.attn2_map_t = prepare_weight(transpose(w.attn2_map));
  v.attn2_value = prepare_weight(w.attn2_value);
  v.attn2_value_t = prepare_weight(transpose(w.attn2_value));
  v.attn2_bias = weights_.put(m.attn2_head.b);
  v.ln_w = weights_.put(m.ln_w);
  v.ln_b = weights_.put(m.ln_b);
  v.h2_head = weights_.put(m.attn2_h2_head);
  return v;
}

#if defined(__CUDACC__)
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
#endif

// Selects the warp-per-atom kernels if the model's shapes fit them.
template <class T>
void GpuBackend<T>::choose_warp_kernels() {
#if defined(__CUDACC__) && !defined(DPA2MD_NO_TENSOR_CORES)
  if constexpr (sizeof(T) == 4) {
    const Repformer& f = rep();
    warp_pairs_ = f.g2_dim == kPairChannels && f.nsel <= kManyNeighbors && !f.update_h2 && !f.has_g1g1 &&
                  model_.smooth && f.attn2_gate && !model_.all_neighbors && warp_kernels_know(f.act) &&
                  switched_on("DPA2MD_CUDA_WARPS");
    warp_nodes_ = warp_pairs_ && f.g1_dim == kNodeChannels && f.axis == kNodeAxis && f.has_conv &&
                  f.g1_out_conv && f.g1_out_mlp && f.has_grrg && f.has_drrd && !f.has_g1_attn;
  }
#endif
}
// Splits the layer's weights for the warp-per-atom kernels.
template <class T>
void GpuBackend<T>::prepare_halves(int l, const FoldedLayer& w) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == 4) {
    const Repformer& f = rep();
    const auto half = [&](const Tensor& x) { return half_weight(x, kWeightLimit, &weights_); };
    HalfLayer h;
    h.linear2 = half(f.layers[l].linear2.w), h.linear2_t = half(transpose(f.layers[l].linear2.w));
    h.map = half(w.attn2_map), h.map_t = half(transpose(w.attn2_map));
    h.value = half(w.attn2_value), h.value_t = half(transpose(w.attn2_value));
    if (warp_nodes_) {
      Tensor ordered = w.conv;
      for (std::size_t k = 0; k < w.conv.data.size(); ++k) {
        const int place = static_cast<int>(k % kNodeChannels);
        ordered.data[k] = w.conv.data[k - place + conv_order(place)];
      }
      h.conv = half(ordered), h.conv_t = half(transpose(ordered));
    }
    half_layers_.push_back(h);
  }
#endif
  (void)l, (void)w;
}

template <class T>
void GpuBackend<T>::prepare_fitting() {
  const Fitting& f = model_.fitting;
  fitting_.net = prepare_net(f.net);
  fitting_.bias_atom_e = doubles_.put(f.bias_atom_e);
  fitting_.out_bias = doubles_.put(f.out_bias);
  fitting_.zero_type = weights_.put_array(f.zero_type.data(), f.zero_type.size());
  fitting_.exclude = weights_.put_array(model_.atom_exclude.data(), model_.atom_exclude.size());
  fitting_.vacuum = f.vacuum;
  fitting_.tebd = model_.concat_tebd ? model_.tebd_dim() : 0;
  fitting_.parameters = f.nfparam() + f.naparam() + static_cast<int>(f.case_embedding.data.size());
}

template <class T>
void GpuBackend<T>::prepare() {
  const Model& m = model_;
  const Repformer& f = m.repformer;
  State<T>& s = state_;
  s.nt = m.ntypes();
  s.tebd = m.tebd_dim();
  s.smooth = m.smooth;
  s.protection = m.env_protection;
  s.types = weights_.put(m.type_embedding);
  model_exclude_ = weights_.put_array(m.pair_exclude.data(), m.pair_exclude.size());
  descriptor_exclude_ = weights_.put_array(m.descriptor_exclude.data(), m.descriptor_exclude.size());
  s.repinit_axis = m.repinit_axis;
  s.repinit_width = m.repinit.ng * m.repinit_axis;
  s.embedding = prepare_embedding(m.repinit);
  s.embedding.empty = weights_.put(fold_empty_slots(m));
  prepare_block(m.repinit, &s.repinit);
  prepare_fitting();
  prepare_dense();
  if (!m.is_dpa2) return;
  if (m.has_three_body) {
    s.embedding3 = prepare_embedding(m.three_body);
    s.repinit_width += m.three_body.ng;
    prepare_block(m.three_body, &s.three);
  }
  prepare_block(f, &s.repformer);
  s.repformer.direct = f.direct_dist;
  transform_ = prepare_linear(m.g1_transform, nullptr);
  tebd_ = weights_.put(fold_tebd(m));
  g2_embd_w_ = weights_.put(f.g2_embd.w);
  g2_embd_b_ = weights_.put(f.g2_embd.b);
  RepformerView& v = s.rep;
  v.nlayers = f.nlayers, v.g1 = f.g1_dim, v.g2 = f.g2_dim, v.axis = f.axis;
  v.heads1 = f.attn1_nhead, v.heads2 = f.attn2_nhead, v.linear1 = f.linear1_columns();
  v.has_conv = f.has_conv, v.has_grrg = f.has_grrg, v.has_drrd = f.has_drrd, v.has_g1_attn = f.has_g1_attn;
  v.has_g1g1 = f.has_g1g1, v.has_g2_attn = f.has_g2_attn, v.update_h2 = f.update_h2, v.gate = f.attn2_gate;
  v.conv_outside = f.g1_out_conv, v.mlp_outside = f.g1_out_mlp, v.sqrt_nnei = f.use_sqrt_nnei;
  v.crowds = m.all_neighbors && m.smooth;
  v.ln_eps = f.ln_eps;
  v.act = f.act;
  choose_warp_kernels();
  for (int l = 0; l < f.nlayers; ++l) {
    const FoldedLayer w = fold_layer(f, l);
    layers_.push_back(prepare_layer(l, w));
    if (warp_pairs_) prepare_halves(l, w);
  }
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
