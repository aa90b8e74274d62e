// Gradients of the repformers by their weights: repformer_sums.h.
#include "cpu/stages/repformer_sums.h"

#include "model/folding.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
RepformerSums<T>::RepformerSums(RepformerState<T>* state, Gradients<Real<T>>* gradients)
    : state_(*state),
      g2_embd_w_(gradients->sums(state->rep().g2_dim)),
      g2_embd_b_(gradients->sums(state->rep().g2_dim)) {
  for (int l = 0; l < state_.rep().nlayers; ++l) layers_.push_back(of_layer(l, gradients));
}

template <class T>
void RepformerSums<T>::plan(MemoryPlan* to) {
  const std::size_t layers = state_.rep().nlayers;
  to->add(&updates_, 4 * layers * state_.pairs().natoms * state_.rep().g1_dim);
}

template <class T>
RepformerGradients<Real<T>> RepformerSums<T>::of_layer(int l, Gradients<Real<T>>* to) const {
  const Repformer& f = state_.rep();
  const int width = f.g1_dim, d = f.g2_dim, heads1 = f.attn1_nhead, heads2 = f.attn2_nhead;
  RepformerGradients<Real<T>> g;
  g.mlp = to->rows(f.linear1_in(), width);
  g.scale_mlp = to->sums(width);
  if (f.g1_out_mlp) g.self = to->rows(width, width), g.scale_self = to->sums(width);
  if (f.has_conv) g.conv = to->sums(static_cast<std::size_t>(d) * width);
  if (f.has_conv && f.g1_out_conv) g.scale_conv = to->sums(width);
  if (f.has_g1_attn) {
    g.attn1_query = to->rows(width, heads1 * width);
    g.attn1_value = to->rows(heads1 * width, width);
    g.scale_attn1 = to->sums(width);
  }
  if (l == state_.last()) return g;
  g.linear2 = to->sums(static_cast<std::size_t>(d) * d), g.linear2_bias = to->sums(d);
  g.scale_linear2 = to->sums(d);
  if (f.has_g1g1) g.g1g1 = to->sums(static_cast<std::size_t>(width) * d), g.scale_g1g1 = to->sums(d);
  if (f.has_g2_attn || f.update_h2) g.attn2_map = to->sums(static_cast<std::size_t>(heads2) * d * d);
  if (f.has_g2_attn) {
    g.attn2_value = to->sums(static_cast<std::size_t>(heads2) * d * d);
    g.attn2_bias = to->sums(d), g.scale_attn2 = to->sums(d);
    g.ln_w = to->sums(d), g.ln_b = to->sums(d);
  }
  if (f.update_h2) g.h2_head = to->sums(heads2), g.scale_h2 = to->sums(1);
  return g;
}

template <class T>
void RepformerSums<T>::node(int l, Range range, const T* dout) {
  const int width = state_.rep().g1_dim, group = state_.work.group(range.begin);
  const RepformerGradients<Real<T>>& g = layers_[l];
  int update = 0;  // in the order of node_block
  for (GroupSums* scale : {g.scale_mlp, g.scale_self, g.scale_conv, g.scale_attn1}) {
    const T* x = kept_update(l, update++, range);
    if (scale) add_row_dot(range.size(), width, dout, width, x, width, scale->of(group));
  }
}

template <class T>
void RepformerSums<T>::conv(int l, int i, const Neighborhood<T>& a, const T* left, const NodeRow<T>& dout,
                            Arena& arena) {
  Arena::Scope scope(arena);
  const int width = state_.rep().g1_dim, kq = state_.rep().g2_dim;
  T* product = arena.take<T>(static_cast<std::size_t>(kq) * width);
  gemm(kq, width, a.n, transposed<T>(left, kq + 3), a.gg1, width, product, width, false);
  const Real<T> inv = state_.inverse_count(a.n);
  double* sum = this->sum(&RepformerGradients<Real<T>>::conv, l, i);
  for (int k = 0; k < kq; ++k) {
    for (int c = 0; c < width; ++c) {
      const T d = inv * (dout.conv ? dout.conv[c] : dout.cat_conv[k]);
      sum[k * width + c] += double((d * product[k * width + c]).tangent);
    }
  }
}

template <class T>
void RepformerSums<T>::linear2(int l, int i, const Neighborhood<T>& a, const T* y, const T* dy, const T* dout,
                               Arena& arena) {
  using G = RepformerGradients<Real<T>>;
  const int d = state_.rep().g2_dim;
  add_product(a.n, d, d, a.g2, d, dy, d, arena, sum(&G::linear2, l, i));
  add_row_sum(a.n, d, dy, d, sum(&G::linear2_bias, l, i));
  add_row_dot(a.n, d, dout, d, y, d, sum(&G::scale_linear2, l, i));
}

template <class T>
void RepformerSums<T>::g1g1(int l, int i, const Neighborhood<T>& a, const T* dy, const T* dout,
                            Arena& arena) {
  using G = RepformerGradients<Real<T>>;
  Arena::Scope scope(arena);
  const int d = state_.rep().g2_dim, width = state_.rep().g1_dim;
  const T* own = state_.g1(l) + static_cast<std::size_t>(i) * width;
  T* product = arena.take<T>(static_cast<std::size_t>(a.n) * width);
  for (int j = 0; j < a.n; ++j) {
    for (int c = 0; c < width; ++c) product[j * width + c] = own[c] * a.gg1[j * width + c] * a.sw[j];
  }
  T* y = arena.take<T>(static_cast<std::size_t>(a.n) * d);
  state_.weights(l).g1g1.forward(a.n, product, width, y, d);
  add_product(a.n, width, d, product, width, dy, d, arena, sum(&G::g1g1, l, i));
  add_row_dot(a.n, d, dout, d, y, d, sum(&G::scale_g1g1, l, i));
}

template <class T>
void RepformerSums<T>::norm(int l, int i, const PairAttention<T>& s, const T* dout, const T* dsum,
                            Arena& arena) {
  using G = RepformerGradients<Real<T>>;
  Arena::Scope scope(arena);
  const RepformerWeights<Real<T>>& w = state_.weights(l);
  const int n = s.n, d = state_.rep().g2_dim, all = state_.rep().attn2_nhead * d;
  add_product(n, all, d, s.applied, all, dsum, d, arena, sum(&G::attn2_value, l, i));
  add_row_sum(n, d, dsum, d, sum(&G::attn2_bias, l, i));
  T* scaled = arena.take<T>(static_cast<std::size_t>(n) * d);
  T* update = arena.take<T>(static_cast<std::size_t>(n) * d);
  for (int j = 0; j < n; ++j) {
    for (int c = 0; c < d; ++c) {
      scaled[j * d + c] = dout[j * d + c] * w.scale_attn2[c];
      update[j * d + c] = s.norm[j * d + c] * w.ln_w[c] + w.ln_b[c];
    }
  }
  add_row_dot(n, d, scaled, d, s.norm, d, sum(&G::ln_w, l, i));
  add_row_sum(n, d, scaled, d, sum(&G::ln_b, l, i));
  add_row_dot(n, d, dout, d, update, d, sum(&G::scale_attn2, l, i));
}

template <class T>
void RepformerSums<T>::h2(int l, int h, int i, const Neighborhood<T>& a, const PairAttention<T>& s,
                          const T* dh2_out) {
  using G = RepformerGradients<Real<T>>;
  const RepformerWeights<Real<T>>& w = state_.weights(l);
  const T* map = s.map + h * s.head_stride;
  T along(0);
  for (int j = 0; j < a.n; ++j) {
    for (int k = 0; k < a.n; ++k) {
      const T *d = dh2_out + kH2Row * j, *x = a.h2 + kH2Row * k;
      along += map[j * s.np + k] * (d[0] * x[0] + d[1] * x[1] + d[2] * x[2]);
    }
  }
  sum(&G::h2_head, l, i)[h] += double((w.h2_scale * along).tangent);
  sum(&G::scale_h2, l, i)[0] += double((w.h2_head[h] * along).tangent);
}

template <class T>
void RepformerSums<T>::g2_embd(int i, int n, const T* dpre) {
  const int d = state_.rep().g2_dim;
  const T* em = state_.env.em.data() + 4 * state_.pairs().repformer.first[i];
  double *dw = g2_embd_w_->of(state_.work.group(i)), *db = g2_embd_b_->of(state_.work.group(i));
  for (int j = 0; j < n; ++j) {
    for (int c = 0; c < d; ++c) {
      const T x = dpre[j * d + c];
      dw[c] += double(tangent_of(x * em[4 * j])), db[c] += double(tangent_of(x));
    }
  }
}

template <class T>
void RepformerSums<T>::map(int l, int h, int i, const Neighborhood<T>& a, const T* dquery, Arena& arena) {
  const int d = state_.rep().g2_dim;
  double* to = sum(&RepformerGradients<Real<T>>::attn2_map, l, i) + static_cast<std::size_t>(h) * d * d;
  add_product(a.n, d, d, a.g2, d, dquery, d, arena, to);
}

// ---- to the weights of the file

template <class T>
void RepformerSums<T>::add_gradient(Model* to) const {
  add_to(g2_embd_w_->total, &to->repformer.g2_embd.w);
  add_to(g2_embd_b_->total, &to->repformer.g2_embd.b);
  for (int l = 0; l < state_.rep().nlayers; ++l) {
    const RepformerGradients<Real<T>>& g = layers_[l];
    RepformerLayer& layer = to->repformer.layers[l];
    const auto rows = [](const RowGradient<Real<T>>* from, Layer* y) {
      if (!from) return;
      add_to(from->weight, &y->w);
      add_to(from->bias, &y->b);
    };
    const auto sums = [](const GroupSums* from, Tensor* y) {
      if (from) add_to(from->total, y);
    };
    const auto folded = [](const GroupSums* from, Tensor* y) {
      if (from) y->data = from->total;
    };
    rows(g.mlp, &layer.linear1);
    rows(g.self, &layer.g1_self);
    if (g.attn1_value) add_to(g.attn1_value->bias, &layer.attn1_head.b);
    sums(g.linear2, &layer.linear2.w);
    sums(g.linear2_bias, &layer.linear2.b);
    sums(g.g1g1, &layer.g1g1);
    sums(g.ln_w, &layer.ln_w);
    sums(g.ln_b, &layer.ln_b);
    sums(g.h2_head, &layer.attn2_h2_head);
    FoldedLayer y;
    folded(g.scale_self, &y.scale_self), folded(g.scale_conv, &y.scale_conv);
    folded(g.scale_mlp, &y.scale_mlp), folded(g.scale_attn1, &y.scale_attn1);
    folded(g.scale_linear2, &y.scale_linear2), folded(g.scale_g1g1, &y.scale_g1g1);
    folded(g.scale_attn2, &y.scale_attn2), folded(g.conv, &y.conv);
    folded(g.attn2_map, &y.attn2_map), folded(g.attn2_value, &y.attn2_value);
    if (g.scale_h2) y.h2_scale = g.scale_h2->total[0];
    if (g.attn1_query) y.attn1_query.data = g.attn1_query->weight, y.attn1_value.data = g.attn1_value->weight;
    if (g.attn2_bias) {  // freed of its mean, as the values are
      without_row_means(&g.attn2_bias->total, state_.rep().g2_dim);
      add_to(g.attn2_bias->total, &layer.attn2_head.b);
      without_row_means(&y.attn2_value.data, state_.rep().g2_dim);
    }
    unfold_layer(state_.rep(), l, y, &layer);
  }
}

template class RepformerSums<Dual<float>>;
template class RepformerSums<Dual<double>>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
