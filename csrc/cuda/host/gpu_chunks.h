// GpuBackend: runs over all atoms, chunk by chunk. Arrays that only one run reads hold one chunk: the pairs
// themselves, the environment of the embeddings, [D | three-body], g2 of the first and of the last layer, a
// node step's arrays (NodeArrays), and the pairs' shares of gradients.
#pragma once

#include "cuda/host/gpu_backend.h"
#include "cuda/kernels/repformer_pair.h"

namespace dpa2md {
namespace DPA2MD_GPU {

template <class T>
void GpuBackend<T>::run(int, const std::function<void(Range)>& stage,
                        const std::function<void(Range)>& gather) {
  for (const Range a : chunks_) {
    if (a.size() > 0) stage(a);
    if (gather && state_.nrows > 0) gather(a);
  }
}

// Divides the atoms into chunks, and counts the pairs before each chunk.
template <class T>
void GpuBackend<T>::divide(const PairNumbers& total) {
  const int n = state_.natoms;
  chunks_.clear();
  for (int begin = 0; begin == 0 || begin < n; begin += chunk_atoms())
    chunks_.push_back({begin, std::min(n, begin + chunk_atoms())});
  before_.assign(chunks_.size() + 1, {});
  StepSizes& z = sizes_;
  z.chunk = z.chunk_pairs = z.chunk_three = z.chunk_repformer = 0;
  for (std::size_t k = 0; k < chunks_.size(); ++k) {
    const auto before = [&](int which) {
      std::int64_t first = 0;
      copy_to_host(&first,
                   atom_scan_.first.data() + static_cast<std::int64_t>(which) * (n + 1) + chunks_[k].end,
                   sizeof(first));
      return first;
    };
    const bool last = k + 1 == chunks_.size();
    before_[k + 1] = last ? total : PairNumbers{before(kRepinit), before(kThreeBody), before(kRepformer)};
    const auto most = [&](std::size_t* size, std::int64_t PairNumbers::* of) {
      *size = std::max(*size, static_cast<std::size_t>(before_[k + 1].*of - before_[k].*of));
    };
    z.chunk = std::max(z.chunk, static_cast<std::size_t>(chunks_[k].size()));
    most(&z.chunk_pairs, &PairNumbers::pairs);
    most(&z.chunk_three, &PairNumbers::three);
    most(&z.chunk_repformer, &PairNumbers::repformer);
  }
}

// Moves the pointer of an array that begins with entry `first` of rows of `width`, so that global indices
// work; null stays null.
template <class U>
U* moved(U* array, std::int64_t first, std::int64_t width) {
  return array ? array - first * width : nullptr;
}

// The state for a chunk's kernels, with the pointers of its arrays moved.
template <class T>
State<T> GpuBackend<T>::here(Range a) const {
  const PairNumbers& before = pairs_before(a.begin);
  State<T> s = state_;
  s.vec = moved(s.vec, before.pairs, 3);
  s.r = moved(s.r, before.pairs, 1);
  s.type = moved(s.type, before.pairs, 1);
  s.pair_force = moved(s.pair_force, before.pairs, 3);
  s.dgg1 = moved(s.dgg1, before.repformer, s.rep.g1);
  const auto move_env = [](EnvView<T>* env, std::int64_t first) {
    env->em = moved(env->em, first, 4);
    env->dem = moved(env->dem, first, 4);
    env->sw = moved(env->sw, first, 1);
    env->dsw = moved(env->dsw, first, 1);
  };
  move_env(&s.repinit, before.pairs);
  move_env(&s.three, before.three);
  s.drep_out = moved(s.drep_out, a.begin, s.repinit_width);
  if (rep().nlayers) {
    s.rep_out = moved(s.rep_out, a.begin, s.repinit_width);
  } else {
    s.moment = moved(s.moment, a.begin, 4 * s.embedding.ng);
  }
  return s;
}

// h2 of layer 0, columns 1 ... 3 of em; or its gradient, of d em.
template <class T>
T* directions(T* em) {
  return em ? em + 1 : nullptr;
}

// The pair state of a layer. Layer 0: g2 is recomputed from em for each chunk, and h2 is part of em. Inner
// layers: g2 is kept for the reverse sweep; without one, all share one array. Last layer: g2 of one chunk,
// stored after the kept layers.
template <class T>
PairState<T> GpuBackend<T>::pair(int l, Range a) {
  const std::int64_t before = pairs_before(a.begin).repformer;
  const int d = rep().g2_dim;
  const bool back = state_.forces;
  PairState<T> p{nullptr, directions(state_.repformer.em)};
  if (l == 0) {
    p.g2 = moved(g2_first_.data(), before, d);
    if (!first_made_ && !warp_pair_init(a, p.g2))
      start(PairInit<T>{here(a), g2_embd_w_, g2_embd_b_, p.g2}, a);
    first_made_ = chunks_.size() == 1 && !sizing_;
    return p;
  }
  if (l == rep().nlayers - 1) {
    p.g2 = moved(g2_.data() + kept_g2(back) * g2_stride_, before, d);
  } else {
    p.g2 = g2_.data() + (back ? l - 1 : 0) * g2_stride_;
  }
  if (rep().update_h2) p.h2 = h2_.data() + (l - 1) * h2_stride_;
  return p;
}

// The gradient of a layer's pair state: one array of d g2 for all layers; d h2 of layer 0 is part of d em.
template <class T>
PairState<T> GpuBackend<T>::dpair(int l) const {
  const bool own = rep().update_h2 && l > 0;
  return {dg2_.data(), own ? dh2_.data() + (l % 2) * h2_stride_ : directions(state_.repformer.dem)};
}

template <class T>
KeptAttention<T> GpuBackend<T>::kept_attention(int l) const {
  if (!sizes_.keep_attention || !state_.forces || !rep().has_g2_attn) return {};
  return {kept_norm_.data() + l * g2_stride_, kept_rstd_.data() + l * sizes_.repformer};
}

// The arrays for a chunk's recomputed attention.
template <class T>
KeptAttention<T> GpuBackend<T>::attention_again(Range a) const {
  const std::int64_t before = pairs_before(a.begin).repformer;
  return {moved(kept_norm_.data(), before, rep().g2_dim), moved(kept_rstd_.data(), before, 1)};
}

template <class T>
NodeArrays<T> GpuBackend<T>::nodes(Range a) const {
  const int width = rep().g1_dim, heads = width * rep().attn1_nhead;
  return {moved(cat_.data(), a.begin, rep().linear1_in()), moved(conv_.data(), a.begin, width),
          moved(query_.data(), a.begin, heads), moved(weighted_.data(), a.begin, heads)};
}
// The node arrays' gradients: they overwrite the arrays, but for the query, which the reverse sweep reads.
template <class T>
NodeArrays<T> GpuBackend<T>::dnodes(Range a) const {
  NodeArrays<T> d = nodes(a);
  d.query = moved(dquery_.data(), a.begin, rep().g1_dim * rep().attn1_nhead);
  return d;
}

// The slopes of a layer's dense update, kept for all atoms; for the last layer, for one chunk.
template <class T>
T* GpuBackend<T>::slope(const Buffer<T>& kept, int l, Range a) const {
  if (!kept.size()) return nullptr;
  T* layer = kept.data() + static_cast<std::size_t>(l) * state_.natoms * rep().g1_dim;
  return l < rep().nlayers - 1 ? layer : moved(layer, a.begin, rep().g1_dim);
}

// A chunk's pairs (begin … end - 1) by row; which: 0 for all pairs, 1 for the repformers'.
template <class T>
RowPairs GpuBackend<T>::row_pairs(int which, const Buffer<std::int32_t>& pairs, std::int64_t begin,
                                  std::int64_t end) const {
  return {candidate_row_scan_.first.data(),
          row_count_.data() + static_cast<std::int64_t>(which) * state_.nrows,
          pairs.data(),
          chunks_.size() == 1,
          begin,
          end};
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
