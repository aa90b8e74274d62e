// The pair step: repformer_pair.h. Each update stands once: its forward function, then its backward one.
#include "cpu/stages/repformer_pair.h"

#include <algorithm>

namespace dpa2md {
namespace DPA2MD_ISA {

// With little memory: recomputes g2(l) from the last kept layer before it.
template <class T>
void PairStage<T>::remake_g2(int l, Range range) {
  const bool there = !state_.work.low_memory || l + 1 == state_.last() || l % kKeptEvery == 0;
  for (int k = l - l % kKeptEvery; k < l && !there; ++k) forward(k, range);
}

// ---- layer 0: g2 = act(em_0 W + b), h2 = em[1:4]

template <class T>
void PairStage<T>::init([[maybe_unused]] Range range) {
  if constexpr (!is_dual<T>) radial_.find_atoms(range);
}

template <class T>
void PairStage<T>::init_backward(Range range) {
  const int d = state_.rep().g2_dim;
  Arena& arena_ = state_.arena();
  for (int i = range.begin; i < range.end; ++i) {
    if (radial_.serves(i)) continue;
    Arena::Scope scope(arena_);
    const std::size_t q0 = state_.pairs().repformer.first[i], n = state_.pairs().repformer.count[i];
    T* x = arena_.take<T>(n * d);
    T* slope = arena_.take<T>(n * d);
    state_.first_g2(i, x, slope);
    if constexpr (is_dual<T>) {
      for (std::size_t k = 0; k < n * d; ++k) x[k] = state_.dg2(i)[k] * slope[k];
      sums_->g2_embd(i, static_cast<int>(n), x);
      continue;
    }
    for (std::size_t j = 0; j < n; ++j) {
      for (int c = 0; c < d; ++c) slope[j * d + c] *= state_.w_g2_embd[c];
      state_.env.dem[4 * (q0 + j)] += dot(d, state_.dg2(i) + j * d, slope + j * d);
    }
  }
}

// ---- act(linear2 g2); assigns alpha g2 too, being the first update

template <class T>
void PairStage<T>::pair_self(int l, const Neighborhood<T>& a, T* out, Arena& arena) {
  const RepformerWeights<Real<T>>& w = state_.weights(l);
  const int d = state_.rep().g2_dim, size = a.n * d;
  T* y = arena.take<T>(size);
  w.linear2.forward(a.n, a.g2, d, y, d);
  activate_array<T>(state_.rep().act, size, y, nullptr);
  for (int j = 0; j < a.n; ++j) {
    for (int c = 0; c < d; ++c)
      out[j * d + c] = w.g2_alpha * a.g2[j * d + c] + w.scale_linear2[c] * y[j * d + c];
  }
}

template <class T>
void PairStage<T>::pair_self_backward(int l, [[maybe_unused]] int i, const Neighborhood<T>& a, const T* dout,
                                      T* dx, Arena& arena) {
  const RepformerWeights<Real<T>>& w = state_.weights(l);
  const int d = state_.rep().g2_dim, size = a.n * d;
  T* y = arena.take<T>(size);
  T* dy = arena.take<T>(size);
  w.linear2.forward(a.n, a.g2, d, y, d);
  activate_array(state_.rep().act, size, y, dy);
  for (int j = 0; j < a.n; ++j) {
    for (int c = 0; c < d; ++c) {
      dy[j * d + c] *= dout[j * d + c] * w.scale_linear2[c];
      dx[j * d + c] += w.g2_alpha * dout[j * d + c];
    }
  }
  w.linear2.backward(a.n, dy, d, dx, d, true);
  if constexpr (is_dual<T>) sums_->linear2(l, i, a, y, dy, dout, arena);
}

// ---- (g1_i * gg1_j * sw_j) P

template <class T>
void PairStage<T>::pair_g1g1(int l, int i, const Neighborhood<T>& a, T* out, Arena& arena) {
  const RepformerWeights<Real<T>>& w = state_.weights(l);
  const int d = state_.rep().g2_dim, width = state_.rep().g1_dim;
  const T* own = state_.g1(l) + static_cast<std::size_t>(i) * width;
  T* product = arena.take<T>(static_cast<std::size_t>(a.n) * width);
  for (int j = 0; j < a.n; ++j) {
    for (int c = 0; c < width; ++c) product[j * width + c] = own[c] * a.gg1[j * width + c] * a.sw[j];
  }
  T* y = arena.take<T>(static_cast<std::size_t>(a.n) * d);
  w.g1g1.forward(a.n, product, width, y, d);
  for (int j = 0; j < a.n; ++j) {
    for (int c = 0; c < d; ++c) out[j * d + c] += w.scale_g1g1[c] * y[j * d + c];
  }
}

// Adds to d g1(l) of the atom, to the pairs' shares (node_step_backward began them), and to dsw.
template <class T>
void PairStage<T>::pair_g1g1_backward(int l, int i, const Neighborhood<T>& a, const T* dout, T* dsw,
                                      Arena& arena) {
  const RepformerWeights<Real<T>>& w = state_.weights(l);
  const int d = state_.rep().g2_dim, width = state_.rep().g1_dim;
  const T* own = state_.g1(l) + static_cast<std::size_t>(i) * width;
  T* down = state_.dg1(l) + static_cast<std::size_t>(i) * width;
  T* dy = arena.take<T>(static_cast<std::size_t>(a.n) * d);
  T* dproduct = arena.take<T>(static_cast<std::size_t>(a.n) * width);
  for (int j = 0; j < a.n; ++j) {
    for (int c = 0; c < d; ++c) dy[j * d + c] = dout[j * d + c] * w.scale_g1g1[c];
  }
  w.g1g1.backward(a.n, dy, d, dproduct, width, false);
  if constexpr (is_dual<T>) sums_->g1g1(l, i, a, dy, dout, arena);
  for (int j = 0; j < a.n; ++j) {
    const T* g = dproduct + j * width;
    const T* other = a.gg1 + j * width;
    T* shared = state_.share(a.q0 + j);
    if constexpr (is_dual<T>) {  // no weight is before sw
      for (int c = 0; c < width; ++c) {
        shared[c] += g[c] * own[c] * a.sw[j];
        down[c] += g[c] * other[c] * a.sw[j];
      }
    } else {
      T along = 0;
#pragma omp simd reduction(+ : along)
      for (int c = 0; c < width; ++c) {
        shared[c] += g[c] * own[c] * a.sw[j];
        down[c] += g[c] * other[c] * a.sw[j];
        along += g[c] * own[c] * other[c];
      }
      dsw[j] += along;
    }
  }
}

// ---- the whole step

// Whether the reverse of this pair step follows in the same block and reuses its attention maps.
template <class T>
bool PairStage<T>::turns_with_attention(int l) const {
  return state_.work.input.forces && l + 1 == state_.last() && state_.rep().has_g2_attn &&
         !state_.rep().has_g1g1;
}

template <class T>
void PairStage<T>::forward(int l, Range range) {
  const Repformer& f = state_.rep();
  Arena& arena_ = state_.arena();
  const bool keep = turns_with_attention(l);
  Arena& kept_arena = keep ? kept_arenas_[thread_index()] : arena_;
  PairAttention<T>* kept = nullptr;
  if (keep) {
    kept_arena.clear();
    kept = kept_[thread_index()] = kept_arena.template take<PairAttention<T>>(range.size());
  }
  for (int i = range.begin; i < range.end; ++i) {
    if (radial_.serves(i)) continue;
    Arena::Scope scope(arena_);
    const Neighborhood<T> a = state_.neighborhood(l, i, f.has_g1g1, arena_);
    if (a.n == 0) continue;
    T* out = state_.g2_rows(l + 1, i);
    pair_self(l, a, out, arena_);
    if (f.has_g1g1) pair_g1g1(l, i, a, out, arena_);
    if (f.has_g2_attn || f.update_h2) {
      PairAttention<T> s;
      attention_.forward(l, a, keep, &s, out, f.update_h2 ? state_.h2(l + 1, i) : nullptr, kept_arena);
      if (keep) kept[i - range.begin] = s;
    }
  }
}

template <class T>
void PairStage<T>::backward(int l, Range range) {
  const Repformer& f = state_.rep();
  Arena& arena_ = state_.arena();
  if (f.has_g1g1) state_.clear_shares(range);
  remake_g2(l, range);
  for (int i = range.begin; i < range.end; ++i) {
    if (radial_.serves(i)) continue;
    Arena::Scope scope(arena_);
    const Neighborhood<T> a = state_.neighborhood(l, i, f.has_g1g1, arena_);
    if (a.n == 0) continue;
    const std::size_t size = static_cast<std::size_t>(a.n) * f.g2_dim;
    PairGradient<T> d{state_.dg2(i), state_.dh2(l, i), arena_.zeros<T>(a.n)};
    T* dout = arena_.take<T>(size);
    std::copy_n(d.g2, size, dout);
    std::fill_n(d.g2, size, T(0));
    if (f.update_h2) std::fill_n(d.h2, kH2Row * a.n - (kH2Row - 3), T(0));
    pair_self_backward(l, i, a, dout, d.g2, arena_);
    if (f.has_g1g1) pair_g1g1_backward(l, i, a, dout, d.sw, arena_);
    if (f.has_g2_attn || f.update_h2) {
      PairAttention<T> s;
      if (turns_with_attention(l)) {
        s = kept_[thread_index()][i - range.begin];
      } else {
        attention_.heads(l, a, true, nullptr, &s, arena_);
      }
      attention_.backward(l, i, a, s, dout, f.update_h2 ? state_.dh2(l + 1, i) : nullptr, &d, arena_);
    }
    for (int j = 0; state_.model.smooth && j < a.n; ++j) state_.env.dsw[a.q0 + j] += d.sw[j];
  }
}

template class PairStage<float>;
template class PairStage<double>;
template class PairStage<Dual<float>>;
template class PairStage<Dual<double>>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
