// Prepares the repformer layers for a step: weights, tables, memory.
#include "cpu/stages/repformers.h"

#include <algorithm>

#include "cpu/vector/gemm.h"
#include "model/embedding_tables.h"
#include "model/folding.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
Repformers<T>::Repformers(const Workspace& work, Env<T>* env)
    : model_(work.model),
      work_(work),
      env_(*env),
      layers_(std::make_shared<std::vector<RepformerWeights<Real<T>>>>()),
      kept_arenas_(new Arena[work.threads]),
      kept_(work.threads) {
  prepare();
}

template <class T>
Repformers<T>::Repformers(const Workspace& work, Env<T>* env, const Repformers<Real<T>>& plain,
                          Gradients<Real<T>>* gradients)
    : model_(work.model),
      work_(work),
      env_(*env),
      layers_(plain.layers_),
      kept_arenas_(new Arena[work.threads]),
      kept_(work.threads) {
  prepare();
  if (!model_.is_dpa2) return;
  w_g2_embd_gradient_ = gradients->sums(rep().g2_dim), b_g2_embd_gradient_ = gradients->sums(rep().g2_dim);
  for (int l = 0; l < rep().nlayers; ++l) gradients_.push_back(layer_gradients(l, gradients));
}

template <class T>
void Repformers<T>::prepare() {
  if (!model_.is_dpa2) return;
  w_g2_embd_ = cast<T>(rep().g2_embd.w);
  b_g2_embd_ = cast<T>(rep().g2_embd.b);
  if constexpr (!is_dual<T>) {
    layers_->resize(rep().nlayers);
    for (int l = 0; l < rep().nlayers; ++l) (*layers_)[l] = layer_weights(l);
  }
}

template <class T>
void Repformers<T>::begin(int spans) {
  if (work_.input.forces && any_reads_gg1()) g1_shares_.build(pairs(), pairs().repformer, work_.block, spans);
}

template <class T>
void Repformers<T>::plan(MemoryPlan* to) {
  const Repformer& f = rep();
  const std::size_t n = pairs().natoms, rows = pairs().nrows, repformer = pairs().repformer.first[n];
  const std::size_t blocks = static_cast<std::size_t>(work_.threads) * work_.block;  // atoms at work
  const bool back = work_.input.forces;
  g1_stride_ = rows * f.g1_dim;
  g2_stride_ = repformer * f.g2_dim;
  h2_stride_ = repformer * kH2Row;
  repformer_block_ = most_in_block(pairs().repformer, pairs().natoms, work_.block);
  radial_atom_.resize(n);
  const std::size_t layers = f.nlayers, before_last = layers ? layers - 1 : 0;
  const std::size_t slopes = back && !work_.low_memory ? before_last * n * f.g1_dim : 0;
  to->add(&mlp_slope_, slopes);
  to->add(&self_slope_, f.g1_out_mlp * slopes);
  to->add(&mlp_slope_block_, blocks * f.g1_dim);
  to->add(&self_slope_block_, f.g1_out_mlp * blocks * f.g1_dim);
  to->add(&g1_, (back ? layers + 1 : 3) * (layers > 0) * g1_stride_);
  to->add(&dg1_, back * 2 * g1_stride_);
  to->add(&g2_, g2_slots() * g2_stride_);
  to->add(&g2_block_, work_.threads * repformer_block_ * f.g2_dim);
  to->add(&dg2_, back * g2_stride_);
  to->add(&h2_, f.update_h2 ? before_last * h2_stride_ : 0);
  to->add(&dh2_, f.update_h2 ? back * 2 * h2_stride_ : 0);
  if (is_dual<T>) to->add(&updates_, 4 * layers * n * f.g1_dim);
  to->add(&dgg1_, back * g1_shares_.size() * f.g1_dim);
}

// ---- tables

// One that a core's second cache can hold, or none: products are faster than waiting for memory.
template <class T>
void Repformers<T>::build_tables(const std::vector<char>& types) {
  constexpr std::size_t most_bytes = 768 << 10;  // of a layer, and up to twice as many
  const int channels = rep().g2_dim + rep().g1_dim;
  if (radial_layers(rep()) == 0) return;
  const auto cells = static_cast<int>(most_bytes / (4 * channels * sizeof(Real<T>)));
  const FunctionTable made =
      tabulate_radial_layers(model_, types, table_tolerance(sizeof(Real<T>) == 4), cells);
  radial_layers_ = made.empty() ? 0 : radial_layers(rep());
  radial_ld_ = padded(channels, lanes<T>());
  radial_ = std::vector<Table<Real<T>>>(radial_layers_);
  for (int l = 0; l < radial_layers_; ++l) radial_[l].set(made, l * channels, channels, radial_ld_);
}

// ---- weights

namespace {

Tensor heads_transposed(const Tensor& t) {
  if (t.empty()) return t;
  const std::int64_t heads = t.shape[0], rows = t.shape[1], cols = t.shape[2];
  Tensor out{{heads, cols, rows}, std::vector<double>(t.data.size())};
  for (std::int64_t h = 0; h < heads; ++h) {
    const std::int64_t at = h * rows * cols;
    for (std::int64_t a = 0; a < rows; ++a) {
      for (std::int64_t b = 0; b < cols; ++b) out.data[at + b * rows + a] = t.data[at + a * cols + b];
    }
  }
  return out;
}

Tensor without_row_means(Tensor t, int width) {
  dpa2md::without_row_means(&t.data, width);
  return t;
}

}  // namespace

template <class T>
RepformerWeights<Real<T>> Repformers<T>::layer_weights(int l) const {
  const Repformer& f = rep();
  const RepformerLayer& m = f.layers[l];
  const FoldedLayer folded = fold_layer(f, l);
  RepformerWeights<Real<T>> w;
  w.g1_alpha = Real<T>(folded.g1_alpha), w.g2_alpha = Real<T>(folded.g2_alpha);
  w.h2_alpha = Real<T>(folded.h2_alpha), w.h2_scale = Real<T>(folded.h2_scale);
  w.scale_self = cast<T>(folded.scale_self);
  w.scale_conv = cast<T>(folded.scale_conv);
  w.scale_mlp = cast<T>(folded.scale_mlp);
  w.scale_attn1 = cast<T>(folded.scale_attn1);
  w.mlp.prepare(m.linear1.w, &m.linear1.b);
  if (f.g1_out_mlp) w.self.prepare(m.g1_self.w, &m.g1_self.b);
  if (f.has_conv) {
    w.conv = cast<T>(folded.conv);
    w.conv_t.resize(w.conv.size());
    transpose(f.g2_dim, f.g1_dim, w.conv.data(), f.g1_dim, w.conv_t.data(), f.g2_dim);
  }
  if (f.has_g1_attn) {
    w.attn1_query.prepare(folded.attn1_query, nullptr);
    w.attn1_value.prepare(folded.attn1_value, &m.attn1_head.b);
  }
  if (l + 1 == f.nlayers) return w;

  w.scale_linear2 = cast<T>(folded.scale_linear2);
  w.scale_g1g1 = cast<T>(folded.scale_g1g1);
  w.scale_attn2 = cast<T>(folded.scale_attn2);
  w.linear2.prepare(m.linear2.w, &m.linear2.b);
  if (f.has_g1g1) w.g1g1.prepare(m.g1g1, nullptr);
  w.attn2_map = cast<T>(folded.attn2_map);
  w.attn2_map_t = cast<T>(heads_transposed(folded.attn2_map));
  if (f.has_g2_attn) {
    const Tensor value = without_row_means(folded.attn2_value, f.g2_dim);
    w.attn2_value = cast<T>(value);
    w.attn2_value_t = cast<T>(heads_transposed(value));
    w.attn2_bias = cast<T>(without_row_means(m.attn2_head.b, f.g2_dim));
    w.ln_w = cast<T>(m.ln_w);
    w.ln_b = cast<T>(m.ln_b);
  }
  if (f.update_h2) w.h2_head = cast<T>(m.attn2_h2_head);
  return w;
}

#define DPA2MD_INSTANTIATE(T)                                    \
  template Repformers<T>::Repformers(const Workspace&, Env<T>*); \
  template void Repformers<T>::prepare();                        \
  template void Repformers<T>::begin(int);                       \
  template void Repformers<T>::plan(MemoryPlan*);                \
  template void Repformers<T>::build_tables(const std::vector<char>&);
DPA2MD_INSTANTIATE(float)
DPA2MD_INSTANTIATE(double)
#undef DPA2MD_INSTANTIATE
#define DPA2MD_INSTANTIATE(T)                                                               \
  template Repformers<T>::Repformers(const Workspace&, Env<T>*, const Repformers<Real<T>>&, \
                                     Gradients<Real<T>>*);                                  \
  template void Repformers<T>::prepare();                                                   \
  template void Repformers<T>::begin(int);                                                  \
  template void Repformers<T>::plan(MemoryPlan*);
DPA2MD_INSTANTIATE(Dual<float>)
DPA2MD_INSTANTIATE(Dual<double>)

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
