// The arrays that the steps of the repformers share.
#include "cpu/stages/repformer_state.h"

#include <algorithm>

#include "cpu/vector/gemm.h"
#include "model/slot_shares.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
RepformerState<T>::RepformerState(const Workspace& w, Env<T>* e, const RepformerState<Real<T>>* plain)
    : model(w.model), work(w), env(*e) {
  if constexpr (is_dual<T>) {
    layers_ = plain->layers_;
  } else {
    (void)plain;
    layers_ = std::make_shared<std::vector<RepformerWeights<T>>>();
  }
}

template <class T>
void RepformerState<T>::prepare() {
  w_g2_embd = cast<T>(rep().g2_embd.w);
  b_g2_embd = cast<T>(rep().g2_embd.b);
  if constexpr (!is_dual<T>) {
    layers_->resize(rep().nlayers);
    for (int l = 0; l < rep().nlayers; ++l) (*layers_)[l] = repformer_weights<T>(rep(), l);
  }
}

template <class T>
void RepformerState<T>::begin(int spans) {
  if (work.input.forces && any_reads_gg1()) g1_shares_.build(pairs(), pairs().repformer, work.block, spans);
}

template <class T>
void RepformerState<T>::plan(MemoryPlan* to) {
  const Repformer& f = rep();
  const std::size_t n = pairs().natoms, rows = pairs().nrows, repformer = pairs().repformer.first[n];
  const bool back = work.input.forces;
  g1_stride_ = rows * f.g1_dim;
  g2_stride_ = repformer * f.g2_dim;
  h2_stride_ = repformer * kH2Row;
  block_pairs_ = most_in_block(pairs().repformer, pairs().natoms, work.block);
  const std::size_t layers = f.nlayers, before_last = layers ? layers - 1 : 0;
  to->add(&g1_, (back ? layers + 1 : 3) * (layers > 0) * g1_stride_);
  to->add(&dg1_, back * 2 * g1_stride_);
  to->add(&g2_, g2_slots() * g2_stride_);
  to->add(&g2_block_, work.threads * block_pairs_ * f.g2_dim);
  to->add(&dg2_, back * g2_stride_);
  to->add(&h2_, f.update_h2 ? before_last * h2_stride_ : 0);
  to->add(&dh2_, f.update_h2 ? back * 2 * h2_stride_ : 0);
  to->add(&dgg1_, back * g1_shares_.size() * f.g1_dim);
}

// ---- g2

template <class T>
std::size_t RepformerState<T>::g2_slot(int l) const {
  if (!work.input.forces) return l % 2;
  return !work.low_memory ? l - 1 : l % kKeptEvery == 0 ? l / kKeptEvery : 0;
}

template <class T>
std::size_t RepformerState<T>::g2_slots() const {
  std::size_t slots = 0;
  for (int l = 1; l < last(); ++l) slots = std::max(slots, g2_slot(l) + 1);
  return slots;
}

template <class T>
T* RepformerState<T>::g2_rows(int l, int i) {
  const Prefix& p = pairs().repformer;
  if (l == last()) return g2_block_.data() + work.in_block(p, block_pairs_, i) * rep().g2_dim;
  return g2_.data() + g2_slot(l) * g2_stride_ + p.first[i] * rep().g2_dim;
}

template <class T>
const T* RepformerState<T>::g2_of(int l, int i, Arena& arena) {
  const std::size_t size = static_cast<std::size_t>(pairs().repformer.count[i]) * rep().g2_dim;
  if (l > 0 && (l == last() || l + 1 == last() || g2_slot(l) != g2_slot(l + 1))) return g2_rows(l, i);
  T* x = arena.take<T>(size);
  if (l > 0) {
    std::copy_n(g2_rows(l, i), size, x);
  } else {
    first_g2(i, x, nullptr);
  }
  return x;
}

template <class T>
void RepformerState<T>::first_g2(int i, T* out, T* slope) {
  const int d = rep().g2_dim, n = pairs().repformer.count[i];
  const T* em = env.em.data() + 4 * pairs().repformer.first[i];
  for (int j = 0; j < n; ++j) {
    for (int c = 0; c < d; ++c) out[j * d + c] = em[4 * j] * w_g2_embd[c] + b_g2_embd[c];
  }
  activate_array(rep().act, static_cast<std::size_t>(n) * d, out, slope);
}

template <class T>
void RepformerState<T>::clear_geometry(Range range) {
  const std::size_t q0 = pairs().repformer.first[range.begin], q1 = pairs().repformer.first[range.end];
  env.dem.zero(4 * q0, 4 * q1);
  env.dsw.zero(q0, q1);
  if (rep().update_h2 && last() > 0)
    dh2_.zero(last() % 2 * h2_stride_ + kH2Row * q0, last() % 2 * h2_stride_ + kH2Row * q1);
}

// ---- neighbourhoods

template <class T>
Neighborhood<T> RepformerState<T>::neighborhood(int l, int i, bool with_g1, Arena& arena) {
  Neighborhood<T> a = bare_neighborhood(l, i, arena);
  a.g2 = g2_of(l, i, arena);
  if (with_g1) {
    const int width = rep().g1_dim;
    const T** rows = rows_of_g1(l, i, arena);
    a.gg1 = arena.take<T>(static_cast<std::size_t>(a.n) * width);
    for (int j = 0; j < a.n; ++j) std::copy_n(rows[j], width, a.gg1 + static_cast<std::size_t>(j) * width);
  }
  return a;
}

template <class T>
Neighborhood<T> RepformerState<T>::bare_neighborhood(int l, int i, Arena& arena) {
  Neighborhood<T> a;
  a.n = pairs().repformer.count[i];
  a.q0 = pairs().repformer.first[i];
  a.h2 = h2(l, i);
  a.sw = arena.take<T>(a.n);
  for (int j = 0; j < a.n; ++j) a.sw[j] = model.smooth ? env.sw[a.q0 + j] : T(1);
  return a;
}

template <class T>
const T** RepformerState<T>::rows_of_g1(int l, int i, Arena& arena) {
  const int n = pairs().repformer.count[i];
  const std::int32_t* row = pairs().row.data() + pairs().repinit.first[i];
  const T** rows = arena.take<const T*>(n);
  for (int j = 0; j < n; ++j) rows[j] = g1(l) + static_cast<std::size_t>(row[j]) * rep().g1_dim;
  return rows;
}

// ---- the pairs' shares of their neighbours' d g1

template <class T>
void RepformerState<T>::clear_shares(Range range) {
  const std::size_t width = rep().g1_dim;
  dgg1_.zero(g1_shares_.begin(range.begin) * width, g1_shares_.end(range.begin) * width);
}

template <class T>
void RepformerState<T>::start_g1_gradient(int l) {
  const std::int64_t size = static_cast<std::int64_t>(g1_stride_), part = 1 << 16;
#pragma omp parallel for schedule(static) if (work.threads > 1)
  for (std::int64_t k = 0; k < size; k += part) std::fill_n(dg1(l) + k, std::min(part, size - k), T(0));
}

template <class T>
void RepformerState<T>::gather_g1_gradient(int l, Range atoms) {
  if (!any_reads_gg1()) return;
  const std::size_t width = rep().g1_dim;
  const Shares::Span& c = g1_shares_.of_atom(atoms.begin);
  const int rows = static_cast<int>(c.row.size());
#pragma omp parallel for schedule(static) if (work.threads > 1)
  for (int k = 0; k < rows; ++k) {
    T* d = dg1(l) + c.row[k] * width;
    for (std::int32_t s = c.row_first[k]; s < c.row_first[k + 1]; ++s) {
      axpy(rep().g1_dim, Real<T>(1), dgg1_.data() + c.row_slot[s] * width, d);
    }
  }
}

// ---- factors

template <class T>
Real<T> RepformerState<T>::inverse_count(int n) const {
  return Real<T>(dpa2md::inverse_count(model.smooth, rep().nsel, n));
}

template <class T>
Real<T> RepformerState<T>::inverse_moment(int n) const {
  return Real<T>(dpa2md::inverse_moment(model.smooth, rep().use_sqrt_nnei, rep().nsel, n));
}

template <class T>
T RepformerState<T>::level_of(int n, const T* sw) const {
  if (!model.all_neighbors || !model.smooth || n <= rep().nsel) return T(0);
  const double level = slot_level(rep().nsel, [&](auto f) {
    double sum = 0;
    for (int k = 0; k < n; ++k) sum += f(double(value_of(sw[k])));
    return sum;
  });
  if constexpr (is_dual<T>) {  // the shares of slots sum to their number whatever sw
    double of_level = 0, of_sw = 0;
    for (int k = 0; k < n; ++k) {
      const double slope = slot_share(level * sw[k].value).slope;
      of_level += slope * sw[k].value, of_sw += slope * level * sw[k].tangent;
    }
    return {Real<T>(level), of_level > 0 ? Real<T>(-of_sw / of_level) : Real<T>(0)};
  } else {
    return T(level);
  }
}

template <class T>
void RepformerState<T>::slot_shares_backward(int n, const T* sw, T level, const T* dshare, T* dsw) const {
  const T mean = slot_gradient_mean(level, [&](auto f) {
    T sum(0);
    for (int k = 0; k < n; ++k) sum += f(sw[k], dshare[k]);
    return sum;
  });
  for (int k = 0; k < n; ++k) dsw[k] += slot_gradient(level, sw[k], dshare[k], mean);
}

template class RepformerState<float>;
template class RepformerState<double>;
template class RepformerState<Dual<float>>;
template class RepformerState<Dual<double>>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
