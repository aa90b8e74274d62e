// The node step: repformer_node_stage.h. Each update stands once: its forward function, then its backward
// one.
#include <algorithm>
#include <cmath>

#include "cpu/stages/repformer_node_stage.h"
#include "cpu/vector/lanes.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
void NodeStage<T>::plan(MemoryPlan* to) {
  const Repformer& f = state_.rep();
  const Workspace& work = state_.work;
  const std::size_t n = state_.pairs().natoms, before_last = f.nlayers ? f.nlayers - 1 : 0;
  const std::size_t blocks = static_cast<std::size_t>(work.threads) * work.block;  // atoms at work
  const std::size_t slopes = work.input.forces && !work.low_memory ? before_last * n * f.g1_dim : 0;
  to->add(&mlp_slope_, slopes);
  to->add(&self_slope_, f.g1_out_mlp * slopes);
  to->add(&mlp_slope_block_, blocks * f.g1_dim);
  to->add(&self_slope_block_, f.g1_out_mlp * blocks * f.g1_dim);
}

// ---- grrg: sym of the moments of g2

// The left factor of the product with gg1: left = [g2 w | h2 w], (n, g2 + 3).
template <class T>
T* NodeStage<T>::product_left(const Neighborhood<T>& a, Arena& arena) {
  const int kq = state_.rep().g2_dim, k = kq + 3;
  T* left = arena.take<T>(static_cast<std::size_t>(a.n) * k);
  for (int j = 0; j < a.n; ++j) {
    const T sw = a.sw[j], *g2 = a.g2 + j * kq, *h2 = a.h2 + kH2Row * j;
    T* out = left + j * k;
    for_lanes<T>(kq, [&](int c, auto w) { store<w>(out + c, load<w>(g2 + c) * sw); });
    out[kq] = h2[0] * sw, out[kq + 1] = h2[1] * sw, out[kq + 2] = h2[2] * sw;
  }
  return left;
}

// c (h2 w)^T x, (3, width), for the neighbours' x (n, width)
template <class T>
T* NodeStage<T>::moments(const Neighborhood<T>& a, const T* left, int width, const T* x, Arena& arena) {
  const int kq = state_.rep().g2_dim, k = kq + 3;
  T* s = arena.take<T>(3 * static_cast<std::size_t>(width));
  gemm(3, width, a.n, transposed(left + kq, k), x, width, s, width, false);
  const Real<T> c = state_.inverse_moment(a.n);
  for (int i = 0; i < 3 * width; ++i) s[i] *= c;
  return s;
}

// ds (3, width): d((h2 w)^T x), from dout, the gradient of the symmetrised moments
template <class T>
void NodeStage<T>::moments_backward(const Neighborhood<T>& a, const T* left, int width, const T* x,
                                    const T* dout, T* ds, Arena& arena) {
  symmetrise_backward(moments(a, left, width, x, arena), width, state_.rep().axis, dout, ds);
  const Real<T> c = state_.inverse_moment(a.n);
  for (int i = 0; i < 3 * width; ++i) ds[i] *= c;
}

// ---- conv: the product of left and gg1 with the weight P, element by element

template <class T>
void NodeStage<T>::conv(int l, const Neighborhood<T>& a, const T* left, const NodeRow<T>& row, Arena& arena) {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  const int width = state_.rep().g1_dim, kq = state_.rep().g2_dim;
  const Real<T>* weight = state_.weights(l).conv.data();
  T* product = arena.take<T>(static_cast<std::size_t>(kq) * width);
  gemm(kq, width, a.n, transposed(left, kq + 3), a.gg1, width, product, width, false);
  const Real<T> inv = state_.inverse_count(a.n);
  if (!row.conv) {  // into the concatenation: projected to g2's width
    for (int k = 0; k < kq; ++k) row.cat_conv[k] = inv * dot(width, weight + k * width, product + k * width);
    return;
  }
  int c = 0;
  for (; c + W <= width; c += W) {
    V sum{};
    for (int k = c; k < kq * width; k += width) {
      sum += load<W>(weight + k) * load<W>(product + k);
    }
    store<W>(row.conv + c, inv * sum);
  }
  for (; c < width; ++c) {
    T sum(0);
    for (int k = c; k < kq * width; k += width) sum += weight[k] * product[k];
    row.conv[c] = inv * sum;
  }
}

// The gradient of a column (conv is an update of its own) or of a row (part of the concatenation) of left^T
// gg1 is that of P, scaled. dproduct (g2 + 3, width) and dleft (n, g2): what comes from conv.
template <class T>
void NodeStage<T>::conv_backward(int l, [[maybe_unused]] int i, const Neighborhood<T>& a,
                                 [[maybe_unused]] const T* left, const NodeRow<T>& dout, T* dproduct,
                                 T* dleft, Arena& arena) {
  if constexpr (is_dual<T>) sums_->conv(l, i, a, left, dout, arena);
  const int n = a.n, width = state_.rep().g1_dim, kq = state_.rep().g2_dim;
  const Real<T>*weight = state_.weights(l).conv.data(), *weight_t = state_.weights(l).conv_t.data();
  const Real<T> inv = state_.inverse_count(n);
  if (!dout.conv) {
    for (int k = 0; k < kq; ++k) {
      for (int c = 0; c < width; ++c)
        dproduct[k * width + c] = inv * dout.cat_conv[k] * weight[k * width + c];
    }
    gemm(n, kq, width, plain<T>(a.gg1, width), weight_t, kq, dleft, kq, false);
    for (int j = 0; j < n; ++j) {
      for (int k = 0; k < kq; ++k) dleft[j * kq + k] *= inv * dout.cat_conv[k];
    }
    return;
  }
  T* scale = arena.take<T>(width);
  T* scaled = arena.take<T>(static_cast<std::size_t>(n) * width);
  for (int c = 0; c < width; ++c) scale[c] = inv * dout.conv[c];
  for (int k = 0; k < kq; ++k) {
    for_lanes<T>(width, [&](int c, auto w) {
      store<w>(dproduct + k * width + c, load<w>(scale + c) * load<w>(weight + k * width + c));
    });
  }
  for (int j = 0; j < n; ++j) {
    for_lanes<T>(width, [&](int c, auto w) {
      store<w>(scaled + j * width + c, load<w>(scale + c) * load<w>(a.gg1 + j * width + c));
    });
  }
  gemm(n, kq, width, plain<T>(scaled, width), weight_t, kq, dleft, kq, false);
}

// ---- conv and both moments together, in reverse: assigns d gg1, adds to d g2, d h2 and d sw.
template <class T>
void NodeStage<T>::products_backward(int l, int i, const Neighborhood<T>& a, const NodeRow<T>& dout,
                                     NeighborhoodGradient<T>* d, Arena& arena) {
  const Repformer& f = state_.rep();
  const int n = a.n, width = f.g1_dim, kq = f.g2_dim, k = kq + 3;
  const T* left = product_left(a, arena);
  // zeros where the model has no such update
  const std::size_t conv_size = static_cast<std::size_t>(kq) * width;
  T* dproduct = arena.take<T>(conv_size + 3 * width);
  T *dleft = arena.take<T>(static_cast<std::size_t>(n) * kq), *ds1 = dproduct + conv_size,
    *ds2 = arena.take<T>(3 * kq);
  if (!f.has_conv) std::fill_n(dproduct, conv_size, T(0)), std::fill_n(dleft, n * kq, T(0));
  if (!f.has_drrd) std::fill_n(ds1, 3 * width, T(0));
  if (!f.has_grrg) std::fill_n(ds2, 3 * kq, T(0));
  if (f.has_grrg) moments_backward(a, left, kq, a.g2, dout.grrg, ds2, arena);
  if (f.has_drrd) moments_backward(a, left, width, a.gg1, dout.drrd, ds1, arena);
  if (f.has_conv) conv_backward(l, i, a, left, dout, dproduct, dleft, arena);
  if (a.gg1) gemm(n, width, k, plain(left, k), dproduct, width, d->gg1, width, false);

  for (int j = 0; j < n; ++j) {
    const T sw = a.sw[j], *g = dleft + j * kq, *h = left + j * k + kq;
    T* out = d->g2 + j * kq;
    for_lanes<T>(kq, [&](int c, auto w) {
      const T* s = ds2 + c;
      add<w>(out + c,
             load<w>(g + c) * sw + load<w>(s) * h[0] + load<w>(s + kq) * h[1] + load<w>(s + 2 * kq) * h[2]);
    });
    if (!state_.wants_geometry()) continue;
    T sum[4];  // d h2 w and, from conv, d sw
    products_along(a, j, f.has_drrd ? ds1 : nullptr, ds2, dleft + j * kq, sum);
    d->sw[j] += sum[3];
    for (int x = 0; x < 3; ++x) {
      d->h2[kH2Row * j + x] += sum[x] * sw;
      d->sw[j] += sum[x] * a.h2[kH2Row * j + x];
    }
  }
}

// The dot products for neighbour j: of ds1 (3, g1), or null, with its g1; of ds2 (3, g2) and dleft with its
// g2.
template <class T>
void NodeStage<T>::products_along(const Neighborhood<T>& a, int j, const T* ds1, const T* ds2, const T* dleft,
                                  T* sum) const {
  constexpr int W = lanes<T>();
  const int width = state_.rep().g1_dim, kq = state_.rep().g2_dim;
  typename Vector<T, W>::type v[4] = {};
  each_channel<T>(ds1 ? width : 0, [&](auto lanes_of, int c) {
    constexpr int L = decltype(lanes_of)::value;
    const auto x = load<L>(a.gg1 + j * width + c);
    for (int y = 0; y < 3; ++y) collect(&v[y], x * load<L>(ds1 + y * width + c));
  });
  each_channel<T>(kq, [&](auto lanes_of, int c) {
    constexpr int L = decltype(lanes_of)::value;
    const auto x = load<L>(a.g2 + j * kq + c);
    for (int y = 0; y < 3; ++y) collect(&v[y], x * load<L>(ds2 + y * kq + c));
    collect(&v[3], x * load<L>(dleft + c));
  });
  sum_four<T, W>(v, sum);
}

// ---- the whole step

// The neighbourhood for a node step. In a radial layer, g2 comes from the table and g1 is not copied.
template <class T>
Neighborhood<T> NodeStage<T>::node_neighborhood(int l, int i, bool slopes, Arena& arena) {
  const RadialPlaces<T>* places = nullptr;
  if constexpr (!is_dual<T>) {
    if (l < radial_.layers()) places = radial_.places(i, slopes, arena);
  }
  if (!places) return state_.neighborhood(l, i, state_.node_reads_gg1(), arena);
  Neighborhood<T> a = state_.bare_neighborhood(l, i, arena);
  a.places = places;
  T* g2 = arena.take<T>(static_cast<std::size_t>(a.n) * state_.rep().g2_dim);
  T* s = arena.take<T>(3 * static_cast<std::size_t>(state_.rep().g2_dim));
  if constexpr (!is_dual<T>) radial_.g2(l, a, g2, s);
  a.g2 = g2, a.g2_moments = s;
  return a;
}

// Columns of the concatenation that linear1 reads: [g1 unless g1_out_mlp | conv unless g1_out_conv | grrg |
// drrd].
template <class T>
NodeRow<T> NodeStage<T>::node_row(const NodeBlock<T>& s, int b) {
  const Repformer& f = state_.rep();
  const std::size_t width = f.g1_dim;
  NodeRow<T> r;
  const Linear1Parts has = f.linear1_parts();
  const Linear1Columns columns = f.linear1_columns();
  T* cat = s.cat + static_cast<std::size_t>(b) * columns.end;
  r.cat_g1 = has.g1 ? cat : nullptr;
  r.cat_conv = has.conv ? cat + columns.conv : nullptr;
  r.grrg = has.grrg ? cat + columns.grrg : nullptr;
  r.drrd = has.drrd ? cat + columns.drrd : nullptr;
  r.conv = s.conv ? s.conv + b * width : nullptr;
  const std::size_t heads = static_cast<std::size_t>(b) * f.attn1_nhead * width;
  r.u = s.u ? s.u + heads : nullptr;
  r.weighted = s.weighted ? s.weighted + heads : nullptr;
  return r;
}

// The array for a dense update's slope between the sweeps. It holds one block for the last layer and, with
// little memory, for all layers.
template <class T>
T* NodeStage<T>::slope(Buffer<T>& kept, Buffer<T>& of_block, int l, Range range) {
  const std::size_t width = state_.rep().g1_dim;
  if (!state_.work.input.forces) return nullptr;
  if (l == state_.last() || state_.work.low_memory)
    return of_block.data() + state_.work.in_block(range.begin) * width;
  return kept.data() + (static_cast<std::size_t>(l) * state_.pairs().natoms + range.begin) * width;
}

// Room for the local attention of a block, and its queries.
template <class T>
void NodeStage<T>::node_queries(int l, Range range, Arena& arena, NodeBlock<T>* s) {
  const int rows = range.size(), width = state_.rep().g1_dim, heads = state_.rep().attn1_nhead;
  const std::size_t block = static_cast<std::size_t>(rows) * width;
  const T* x = state_.g1(l) + static_cast<std::size_t>(range.begin) * width;
  s->u = arena.take<T>(block * heads);
  s->weighted = arena.take<T>(block * heads);
  state_.weights(l).attn1_query.forward(rows, x, width, s->u, heads * width);
}

// Computes all terms of a block's update, but not their sum.
template <class T>
void NodeStage<T>::node_block(int l, Range range, Arena& arena, NodeBlock<T>* s) {
  const Repformer& f = state_.rep();
  const RepformerWeights<Real<T>>& w = state_.weights(l);
  const int rows = range.size(), width = f.g1_dim, heads = f.attn1_nhead, in = f.linear1_in();
  const T* x = state_.g1(l) + static_cast<std::size_t>(range.begin) * width;
  const std::size_t block = static_cast<std::size_t>(rows) * width;
  s->cat = arena.take<T>(static_cast<std::size_t>(rows) * in);
  const auto room = [&](int update) {
    if constexpr (is_dual<T>) return sums_->kept_update(l, update, range);
    return arena.take<T>(block);
  };
  if (f.has_conv && f.g1_out_conv) s->conv = room(2);
  if (f.has_g1_attn) node_queries(l, range, arena, s);
  for (int b = 0; b < rows; ++b) {
    Arena::Scope scope(arena);
    const Neighborhood<T> a = node_neighborhood(l, range.begin + b, false, arena);
    const NodeRow<T> row = node_row(*s, b);
    if (row.cat_g1)
      std::copy(x + static_cast<std::size_t>(b) * width, x + static_cast<std::size_t>(b + 1) * width,
                row.cat_g1);
    if constexpr (!is_dual<T>) {
      if (a.places) {
        T* moment = arena.take<T>(3 * static_cast<std::size_t>(width));
        radial_.products(l, a, state_.rows_of_g1(l, range.begin + b, arena), row.conv, moment);
        if (f.has_grrg) symmetrise(a.g2_moments, f.g2_dim, f.axis, row.grrg);
        if (f.has_drrd) symmetrise(moment, width, f.axis, row.drrd);
        continue;
      }
    }
    const T* left = product_left(a, arena);
    if (f.has_grrg) symmetrise(moments(a, left, f.g2_dim, a.g2, arena), f.g2_dim, f.axis, row.grrg);
    if (f.has_drrd) symmetrise(moments(a, left, width, a.gg1, arena), width, f.axis, row.drrd);
    if (f.has_conv) conv(l, a, left, row, arena);
    if (f.has_g1_attn) attention_.forward(a, row, arena);
  }
  s->mlp = room(0);
  w.mlp.forward(rows, s->cat, in, s->mlp, width);
  activate_array(f.act, block, s->mlp, mlp_slope(l, range));
  if (f.g1_out_mlp) {
    s->self = room(1);
    w.self.forward(rows, x, width, s->self, width);
    activate_array(f.act, block, s->self, self_slope(l, range));
  }
  if (f.has_g1_attn) {
    s->attn = room(3);
    w.attn1_value.forward(rows, s->weighted, heads * width, s->attn, width);
  }
  if constexpr (is_dual<T>) {
    sums_->layer(l).mlp->keep_x(range, s->cat, in);
    if (f.g1_out_mlp) sums_->layer(l).self->keep_x(range, x, width);
    if (f.has_g1_attn) {
      sums_->layer(l).attn1_value->keep_x(range, s->weighted, heads * width);
      sums_->layer(l).attn1_query->keep_x(range, x, width);
    }
  }
}

template <class T>
void NodeStage<T>::forward(int l, Range range) {
  Arena& arena_ = state_.arena();
  Arena::Scope scope(arena_);
  NodeBlock<T> s;
  node_block(l, range, arena_, &s);
  const RepformerWeights<Real<T>>& w = state_.weights(l);
  const int width = state_.rep().g1_dim;
  for (int b = 0; b < range.size(); ++b) {
    const std::size_t at = static_cast<std::size_t>(b) * width;
    const T* x = state_.g1(l) + static_cast<std::size_t>(range.begin) * width + at;
    T* y = state_.g1(l + 1) + static_cast<std::size_t>(range.begin) * width + at;
    for (int c = 0; c < width; ++c) y[c] = w.g1_alpha * x[c] + w.scale_mlp[c] * s.mlp[at + c];
    for (int c = 0; s.self && c < width; ++c) y[c] += w.scale_self[c] * s.self[at + c];
    for (int c = 0; s.conv && c < width; ++c) y[c] += w.scale_conv[c] * s.conv[at + c];
    for (int c = 0; s.attn && c < width; ++c) y[c] += w.scale_attn1[c] * s.attn[at + c];
  }
}

// Zeroes the gradients of the pair state, before the last layer's reverse.
template <class T>
void NodeStage<T>::begin_pair_gradients(Range range) {
  for (int i = range.begin; i < range.end; ++i) {
    if (!radial_.serves(i))
      std::fill_n(state_.dg2(i), state_.pairs().repformer.count[i] * state_.rep().g2_dim, T(0));
  }
  state_.clear_geometry(range);
}

// The dense updates in reverse: assigns d, the gradients with respect to a NodeBlock's members that the
// atoms' own updates read, and adds to d g1(l) of the block's atoms.
template <class T>
void NodeStage<T>::dense_backward(int l, Range range, Arena& arena, NodeBlock<T>* d) {
  const Repformer& f = state_.rep();
  const RepformerWeights<Real<T>>& w = state_.weights(l);
  const int rows = range.size(), width = f.g1_dim, heads = f.attn1_nhead, in = f.linear1_in();
  const std::size_t block = static_cast<std::size_t>(rows) * width;
  const T* dout = state_.dg1(l + 1) + static_cast<std::size_t>(range.begin) * width;
  T* dx = state_.dg1(l) + static_cast<std::size_t>(range.begin) * width;
  for (std::size_t k = 0; k < block; ++k) dx[k] += w.g1_alpha * dout[k];
  // dout through x' = ... + scale * act(pre)
  const auto scaled = [&](const Weights<T>& scale, const T* slope) {
    T* out = arena.take<T>(block);
    for (std::size_t at = 0; at < block; at += width) {
      for (int c = 0; c < width; ++c) out[at + c] = dout[at + c] * scale[c];
    }
    for (std::size_t k = 0; slope && k < block; ++k) out[k] *= slope[k];
    return out;
  };
  if constexpr (is_dual<T>) sums_->node(l, range, dout);
  if (f.g1_out_mlp) {
    const T* dself = scaled(w.scale_self, self_slope(l, range));
    w.self.backward(rows, dself, width, dx, width, true);
    if constexpr (is_dual<T>) sums_->layer(l).self->keep_dy(range, dself, width);
  }
  d->cat = arena.take<T>(static_cast<std::size_t>(rows) * in);
  const T* dmlp = scaled(w.scale_mlp, mlp_slope(l, range));
  w.mlp.backward(rows, dmlp, width, d->cat, in, false);
  if constexpr (is_dual<T>) sums_->layer(l).mlp->keep_dy(range, dmlp, width);
  if (f.has_conv && f.g1_out_conv) d->conv = scaled(w.scale_conv, nullptr);
  if (!f.has_g1_attn) return;
  d->weighted = arena.take<T>(block * heads);
  d->u = arena.take<T>(block * heads);
  const T* dattn = scaled(w.scale_attn1, nullptr);
  w.attn1_value.backward(rows, dattn, width, d->weighted, heads * width, false);
  if constexpr (is_dual<T>) sums_->layer(l).attn1_value->keep_dy(range, dattn, width);
}

template <class T>
void NodeStage<T>::backward(int l, Range range) {
  Arena& arena_ = state_.arena();
  Arena::Scope scope(arena_);
  const Repformer& f = state_.rep();
  const int rows = range.size(), width = f.g1_dim;
  if (l == state_.last()) begin_pair_gradients(range);
  if (state_.any_reads_gg1() && (l == state_.last() || !f.has_g1g1)) state_.clear_shares(range);
  NodeBlock<T> s, d;
  if (state_.work.low_memory && l != state_.last()) {
    node_block(l, range, arena_, &s);
  } else if (f.has_g1_attn) {
    node_queries(l, range, arena_, &s);
  }
  dense_backward(l, range, arena_, &d);
  T* dx = state_.dg1(l) + static_cast<std::size_t>(range.begin) * width;
  for (int b = 0; b < rows; ++b) {
    Arena::Scope atom(arena_);
    const Neighborhood<T> a = node_neighborhood(l, range.begin + b, true, arena_);
    const NodeRow<T> row = node_row(s, b), drow = node_row(d, b);
    NeighborhoodGradient<T> g{state_.dg2(range.begin + b), state_.dh2(l, range.begin + b),
                              arena_.zeros<T>(a.n),
                              a.gg1 ? arena_.take<T>(static_cast<std::size_t>(a.n) * width) : nullptr};
    if (drow.cat_g1) axpy(width, Real<T>(1), drow.cat_g1, dx + static_cast<std::size_t>(b) * width);
    bool radial = false;
    if constexpr (!is_dual<T>) {
      radial = a.places;
      if (radial) radial_.products_backward(l, range.begin + b, a, drow, &g, arena_);
    }
    if (!radial) products_backward(l, range.begin + b, a, drow, &g, arena_);
    if (f.has_g1_attn) attention_.backward(a, row, drow, &g, arena_);
    for (int j = 0; g.gg1 && j < a.n; ++j) axpy(width, Real<T>(1), g.gg1 + j * width, state_.share(a.q0 + j));
    for (int j = 0; state_.model.smooth && j < a.n; ++j) state_.env.dsw[a.q0 + j] += g.sw[j];
  }
  if (!f.has_g1_attn) return;
  const int all = f.attn1_nhead * width;
  state_.weights(l).attn1_query.backward(rows, d.u, all, dx, width, true);
  if constexpr (is_dual<T>) sums_->layer(l).attn1_query->keep_dy(range, d.u, all);
}

template class NodeStage<float>;
template class NodeStage<double>;
template class NodeStage<Dual<float>>;
template class NodeStage<Dual<double>>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
