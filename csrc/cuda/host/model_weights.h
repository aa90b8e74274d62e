// The model's weights on the device, folded (folding.h), in the form that the kernels read.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "cuda/block/tensor.h"
#include "cuda/host/device.h"
#include "cuda/kernels/pair_list.h"
#include "cuda/kernels/views.h"
#include "model/folding.h"
#include "model/model.h"

namespace dpa2md {
namespace DPA2MD_GPU {

template <class T>
class ModelWeights {
 public:
  explicit ModelWeights(const Model& model);
  ModelWeights(const ModelWeights&) = delete;
  ModelWeights& operator=(const ModelWeights&) = delete;

  State<T> state;  // of the model, without a step
  Linear<T> transform;
  const T *tebd = nullptr, *g2_embd_w = nullptr, *g2_embd_b = nullptr;
  std::vector<LayerView<T>> layers;
  FittingView<T> fitting;
  Exclusions exclusions;
  std::size_t capacity() const { return store_.capacity() + doubles_.capacity(); }  // bytes

 private:
  NetView<T> net(const Net& net);
  Weight<T> weight(const Tensor& w);
  Linear<T> linear(const Tensor& w, const Tensor* b);
  EmbeddingView<T> embedding(const Embedding& e);
  void environment(const Subnet& from, EnvView<T>* env);
  LayerView<T> layer(const RepformerLayer& m, const FoldedLayer& w);
  void prepare_fitting();
  void prepare_repformers();

  const Model& model_;
  WeightStore<T> store_;
  WeightStore<double> doubles_;
};

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
Weight<T> ModelWeights<T>::weight(const Tensor& w) {
  if (w.empty()) return {};
  const int k = static_cast<int>(w.shape[w.shape.size() - 2]), n = static_cast<int>(w.shape.back());
  const int count = static_cast<int>(w.data.size() / (static_cast<std::size_t>(k) * n));
  const std::vector<T> fragments = fragments_of<T>(w.data.data(), count, k, n);
  return {store_.put(w), store_.put_array(fragments.data(), fragments.size()), k, n};
}

template <class T>
Linear<T> ModelWeights<T>::linear(const Tensor& w, const Tensor* b) {
  if (w.empty()) return {};
  return {static_cast<int>(w.shape[0]), static_cast<int>(w.shape[1]), weight(w), weight(transpose(w)),
          b ? store_.put(*b) : nullptr};
}

template <class T>
NetView<T> ModelWeights<T>::net(const Net& net) {
  NetView<T> v;
  v.act = net.act;
  v.linear_last = net.linear_last;
  v.count = static_cast<int>(net.layers.size());
  std::vector<NetLayer<T>> layers;
  for (const Layer& l : net.layers) {
    layers.push_back({linear(l.w, &l.b), store_.put(l.idt), l.skip});
    v.widest = std::max({v.widest, l.in(), l.out()});
    v.total += l.out();
  }
  v.layer = store_.put_array(layers.data(), layers.size());
  v.inputs = net.empty() ? 0 : net.in();
  return v;
}

template <class T>
EmbeddingView<T> ModelWeights<T>::embedding(const Embedding& e) {
  EmbeddingView<T> v;
  v.strip = e.strip;
  v.one_side = e.one_side;
  v.ng = e.ng;
  if (!e.net.empty()) v.net = net(e.net);
  v.gate = store_.put(e.strip_table);
  if (!e.table.empty()) {
    v.grid = compressed_grid(e.table);
    v.compressed = store_.put(e.table.coefficients);
    v.compressed_single = model_.precision == Precision::kFloat32;
  }
  return v;
}

template <class T>
void ModelWeights<T>::environment(const Subnet& from, EnvView<T>* env) {
  env->rcut = from.rcut;
  env->rcut_smth = from.rcut_smth;
  env->inverse_width = 1.0 / (from.rcut - from.rcut_smth);
  env->nsel = from.nsel;
  env->davg = doubles_.put(from.davg);
  std::vector<double> inverse = from.dstd.data;
  for (double& x : inverse) x = 1.0 / x;
  env->inverse_std = doubles_.put(inverse);
}

template <class T>
LayerView<T> ModelWeights<T>::layer(const RepformerLayer& m, const FoldedLayer& w) {
  LayerView<T> v{};
  v.g1_alpha = T(w.g1_alpha), v.g2_alpha = T(w.g2_alpha), v.h2_alpha = T(w.h2_alpha),
  v.h2_scale = T(w.h2_scale);
  v.scale_self = store_.put(w.scale_self);
  v.scale_conv = store_.put(w.scale_conv);
  v.scale_mlp = store_.put(w.scale_mlp);
  v.scale_attn1 = store_.put(w.scale_attn1);
  v.scale_linear2 = store_.put(w.scale_linear2);
  v.scale_g1g1 = store_.put(w.scale_g1g1);
  v.scale_attn2 = store_.put(w.scale_attn2);
  v.mlp = linear(m.linear1.w, &m.linear1.b);
  v.self = linear(m.g1_self.w, &m.g1_self.b);
  v.linear2 = linear(m.linear2.w, &m.linear2.b);
  v.g1g1 = linear(m.g1g1, nullptr);
  v.conv = store_.put(w.conv);
  v.attn1_query = linear(w.attn1_query, nullptr);
  v.attn1_value = linear(w.attn1_value, &m.attn1_head.b);
  v.attn2_map = weight(w.attn2_map);
  v.attn2_map_t = weight(transpose(w.attn2_map));
  v.attn2_value = weight(w.attn2_value);
  v.attn2_value_t = weight(transpose(w.attn2_value));
  v.attn2_bias = store_.put(m.attn2_head.b);
  v.ln_w = store_.put(m.ln_w);
  v.ln_b = store_.put(m.ln_b);
  v.h2_head = store_.put(m.attn2_h2_head);
  return v;
}

template <class T>
void ModelWeights<T>::prepare_fitting() {
  const Fitting& f = model_.fitting;
  fitting.net = net(f.net);
  fitting.bias_atom_e = doubles_.put(f.bias_atom_e);
  fitting.out_bias = doubles_.put(f.out_bias);
  fitting.zero_type = store_.put_array(f.zero_type.data(), f.zero_type.size());
  fitting.exclude = store_.put_array(model_.atom_exclude.data(), model_.atom_exclude.size());
  fitting.vacuum = f.vacuum;
  fitting.tebd = model_.concat_tebd ? model_.tebd_dim() : 0;
  fitting.parameters = f.nfparam() + f.naparam() + static_cast<int>(f.case_embedding.data.size());
}

template <class T>
void ModelWeights<T>::prepare_repformers() {
  const Repformer& f = model_.repformer;
  environment(f, &state.repformer);
  state.repformer.direct = f.direct_dist;
  transform = linear(model_.g1_transform, nullptr);
  tebd = store_.put(fold_tebd(model_));
  g2_embd_w = store_.put(f.g2_embd.w);
  g2_embd_b = store_.put(f.g2_embd.b);
  RepformerView& v = state.rep;
  v.nlayers = f.nlayers, v.g1 = f.g1_dim, v.g2 = f.g2_dim, v.axis = f.axis;
  v.heads1 = f.attn1_nhead, v.heads2 = f.attn2_nhead, v.linear1 = f.linear1_columns();
  v.has_conv = f.has_conv, v.has_grrg = f.has_grrg, v.has_drrd = f.has_drrd, v.has_g1_attn = f.has_g1_attn;
  v.has_g1g1 = f.has_g1g1, v.has_g2_attn = f.has_g2_attn, v.update_h2 = f.update_h2, v.gate = f.attn2_gate;
  v.conv_outside = f.g1_out_conv, v.mlp_outside = f.g1_out_mlp, v.sqrt_nnei = f.use_sqrt_nnei;
  v.crowds = model_.all_neighbors && model_.smooth;
  v.ln_eps = f.ln_eps;
  v.act = f.act;
  for (int l = 0; l < f.nlayers; ++l) layers.push_back(layer(f.layers[l], fold_layer(f, l)));
}

template <class T>
ModelWeights<T>::ModelWeights(const Model& m) : model_(m) {
  State<T>& s = state;
  s.nt = m.ntypes();
  s.tebd = m.tebd_dim();
  s.smooth = m.smooth;
  s.protection = m.env_protection;
  s.types = store_.put(m.type_embedding);
  exclusions = {store_.put_array(m.pair_exclude.data(), m.pair_exclude.size()),
                store_.put_array(m.descriptor_exclude.data(), m.descriptor_exclude.size())};
  s.repinit_axis = m.repinit_axis;
  s.repinit_width = m.repinit.ng * m.repinit_axis;
  s.embedding = embedding(m.repinit);
  s.embedding.empty = store_.put(fold_empty_slots(m));
  environment(m.repinit, &s.repinit);
  prepare_fitting();
  if (!m.is_dpa2) return;
  if (m.has_three_body) {
    s.embedding3 = embedding(m.three_body);
    s.repinit_width += m.three_body.ng;
    environment(m.three_body, &s.three);
  }
  prepare_repformers();
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
