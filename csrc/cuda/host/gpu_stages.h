// GpuBackend: the kernels of each stage, for the atoms of a chunk.
#pragma once

#include "cuda/host/gpu_backend.h"
#include "cuda/host/gpu_chunks.h"
#include "cuda/host/gpu_dense.h"
#include "cuda/kernels/dense.h"
#include "cuda/kernels/env_mat.h"
#include "cuda/kernels/repformer_node.h"
#include "cuda/kernels/repformer_pair.h"
#include "cuda/kernels/repinit_tables.h"
#include "cuda/kernels/three_body_tables.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// Items of the dense kernels. Every chunk but the last is a multiple of kGroup atoms.
inline Range groups(Range a) { return {a.begin / kGroup, (a.end + kGroup - 1) / kGroup}; }

// Items of kernels with a warp per atom. Every chunk but the last is a multiple of kWarpItems atoms.
inline Range warps(Range a) { return {a.begin / kWarpItems, warp_items(a.end)}; }

// Whether pair steps run concurrently with node steps: g2 is kept, does not depend on g1, and the launches
// share no scratch. NodeMoments waits for the pair step before it. Backward, PairStepBackward waits for
// NodeMomentsBackward, and the next NodeMomentsBackward waits for both.
template <class T>
bool GpuBackend<T>::forks() const {
  return chunks_.size() == 1 && state_.forces && rep().nlayers > 0 && !rep().has_g1g1 &&
         slab_.capacity() == 0;
}

// ---- forward

// Computes the environment matrices of repinit and three-body, and with `repformer` the repformers' too.
template <class T>
void GpuBackend<T>::env_mats(Range a, bool repformer) {
  if (chunks_.size() > 1) fill_pairs(a, false, true);
  start(EnvMat<T>{here(a), a.end, repformer}, warps(a));
}

template <class T>
void GpuBackend<T>::env_mat(Range a) {
  env_mats(a, rep().nlayers > 0);
  if (!forks()) return;
  pair(0, a);
  launches_.fork();
}

template <class T>
void GpuBackend<T>::repinit(Range a) {
  const State<T> s = here(a);
  if (s.tabulated) start(TabulatedRepinit<T>{{{s}}}, a, most_pairs_);
  start(Repinit<T>{{s}}, a);
}

template <class T>
void GpuBackend<T>::three_body(Range a) {
  const State<T> s = here(a);
  if (s.tabulated3) start(TabulatedThreeBody<T>{{{s}}}, a, most_three_);
  start(ThreeBody<T>{{s}}, a, most_three_);
}

template <class T>
void GpuBackend<T>::g1_transform(Range a) {
  if (transform_product(a)) return;
  start(Transform<T>{here(a), transform_, tebd_, g1(0), g1_slope_.data()}, groups(a));
}

template <class T>
void GpuBackend<T>::pair_init(Range) {}  // pair() does it on demand

// The kernels of repformer_pair_warp.h; false if they do not fit the model.
template <class T>
bool GpuBackend<T>::warp_pair_init(Range a, T* out) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == 4) {
    if (warp_pairs_) start_warps(WarpPairInit{{}, here(a), g2_embd_w_, g2_embd_b_, out}, a);
    return warp_pairs_;
  }
#endif
  (void)a, (void)out;
  return false;
}
template <class T>
bool GpuBackend<T>::warp_pair_init_backward(Range a) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == 4) {
    if (warp_pairs_) start_warps(WarpPairInitBackward{{}, here(a), g2_embd_w_, g2_embd_b_, dpair(0).g2}, a);
    return warp_pairs_;
  }
#endif
  (void)a;
  return false;
}
template <class T>
bool GpuBackend<T>::warp_pair_step(int l, Range a, const PairState<T>& from, T* to,
                                   const KeptAttention<T>& kept) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == 4) {
    if (!warp_pairs_) return false;
    const auto with = [&](auto kernel) {
      kernel.s = here(a), kernel.w = layers_[l], kernel.half = half_layers_[l];
      kernel.g2 = from.g2, kernel.h2 = from.h2, kernel.kept = kept, kernel.out = to;
      return kernel;
    };
    start_by_neighbors<WarpPairStep, 16>(a, with);
    return true;
  }
#endif
  (void)l, (void)a, (void)from, (void)to, (void)kept;
  return false;
}
template <class T>
bool GpuBackend<T>::warp_pair_step_backward(int l, Range a, const PairState<T>& x) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == 4) {
    if (!warp_pairs_) return false;
    KeptAttention<T> kept = kept_attention(l);
    if (rep().has_g2_attn && !kept.norm) {
      kept = attention_again(a);
      warp_pair_step(l, a, x, nullptr, kept);
    }
    const auto with = [&](auto kernel) {
      kernel.s = here(a), kernel.w = layers_[l], kernel.half = half_layers_[l];
      kernel.g2 = x.g2, kernel.h2 = x.h2, kernel.kept = kept;
      kernel.dg2 = dpair(l).g2, kernel.dh2 = dpair(l).h2;
      return kernel;
    };
    start_by_neighbors<WarpPairStepBackward, 12>(a, with);
    return true;
  }
#endif
  (void)l, (void)a, (void)x;
  return false;
}

template <class T>
void GpuBackend<T>::pair_step(int l, Range a) {
  const PairState<T> from = pair(l, a), to = pair(l + 1, a);
  launches_.aside(forks());
  if (!warp_pair_step(l, a, from, to.g2, kept_attention(l)))
    start(PairStep<T>{{here(a), layers_[l], from, g1(l), kept_attention(l)}, to}, a, most_repformer_);
  launches_.aside(false);
}

// The kernels of repformer_node_warp.h; false if they do not fit the model.
template <class T>
bool GpuBackend<T>::warp_node_moments(int l, Range a) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == 4) {
    if (!warp_nodes_) return false;
    const PairState<T> x = pair(l, a);
    const auto with = [&](auto kernel) {
      kernel.s = here(a), kernel.half = half_layers_[l], kernel.a = nodes(a);
      kernel.g2 = x.g2, kernel.h2 = x.h2, kernel.g1 = g1(l);
      return kernel;
    };
    start_by_neighbors<WarpNodeMoments, 16>(a, with);
    return true;
  }
#endif
  (void)l, (void)a;
  return false;
}
template <class T>
bool GpuBackend<T>::warp_node_moments_backward(int l, Range a, bool clear_pairs) {
#if defined(__CUDACC__)
  if constexpr (sizeof(T) == 4) {
    if (!warp_nodes_) return false;
    const PairState<T> x = pair(l, a);
    const auto with = [&](auto kernel) {
      kernel.s = here(a), kernel.half = half_layers_[l], kernel.a = nodes(a), kernel.d = dnodes(a);
      kernel.g2 = x.g2, kernel.h2 = x.h2, kernel.g1 = g1(l);
      kernel.dg2 = dpair(l).g2, kernel.dh2 = dpair(l).h2, kernel.clear_pairs = clear_pairs;
      return kernel;
    };
    start_by_neighbors<WarpNodeMomentsBackward, 12>(a, with);
    return true;
  }
#endif
  (void)l, (void)a, (void)clear_pairs;
  return false;
}

template <class T>
void GpuBackend<T>::node_step(int l, Range a) {
  const LayerView<T>& w = layers_[l];
  const State<T> s = here(a);
  const NodeArrays<T> x = nodes(a);
  if (rep().has_g1_attn && !query_product(l, a))
    start(DenseForward<T>{s.natoms, w.attn1_query, g1(l), x.query}, groups(a));
  launches_.join();
  if (!warp_node_moments(l, a)) start(NodeMoments<T>{{s, w, x, pair(l, a), g1(l)}}, a, most_repformer_);
  if (node_update_product(l, a)) return;
  start(NodeUpdate<T>{s, w, x, g1(l), g1(l + 1), slope(mlp_slope_, l, a), slope(self_slope_, l, a)},
        groups(a));
}

template <class T>
void GpuBackend<T>::fitting(Range a) {
  const bool dpa2 = model_.is_dpa2;
  const State<T> s = here(a);
  launches_.join_beside();
  FittingKernel<T> k{s,
                     fitting_,
                     dpa2 ? rep().g1_dim : s.repinit_width,
                     dpa2 ? g1(rep().nlayers) : s.rep_out,
                     parameters_.data(),
                     dpa2 ? dg1(rep().nlayers) : s.drep_out,
                     energy()};
  if (!fitting_products(a, k.width, k.feature, k.dfeature)) start(k, groups(a));
}

// ---- backward

template <class T>
void GpuBackend<T>::start_g1_gradient(int l) {
  clear(dg1(l), g1_stride_);
}

template <class T>
void GpuBackend<T>::node_step_backward(int l, Range a) {
  const LayerView<T>& w = layers_[l];
  const bool last = l == rep().nlayers - 1, begun = rep().has_g1g1 && !last;  // by pair_step_backward
  const State<T> s = here(a);
  const NodeArrays<T> x = nodes(a), dx = dnodes(a);
  if (rep().has_g1_attn && !query_product(l, a))
    start(DenseForward<T>{s.natoms, w.attn1_query, g1(l), x.query}, groups(a));
  if (!node_update_backward_product(l, a))
    start(NodeUpdateBackward<T>{s, w, dx, dg1(l + 1), slope(mlp_slope_, l, a), slope(self_slope_, l, a),
                                dg1(l)},
          groups(a));
  launches_.join();
  if (!warp_node_moments_backward(l, a, last))
    start(NodeMomentsBackward<T>{{s, w, x, pair(l, a), g1(l)}, dx, dpair(l), last, !begun}, a,
          most_repformer_);
  launches_.fork();
  if (rep().has_g1_attn && !query_backward_product(l, a))
    start(DenseBackward<T>{s.natoms, w.attn1_query, dx.query, dg1(l)}, groups(a));
}

template <class T>
void GpuBackend<T>::pair_step_backward(int l, Range a) {
  const PairState<T> x = pair(l, a);
  launches_.aside(forks());
  if (!warp_pair_step_backward(l, a, x))
    start(
        PairStepBackward<T>{
            {here(a), layers_[l], x, g1(l), kept_attention(l)}, dpair(l + 1), dpair(l), dg1(l)},
        a, most_repformer_);
  launches_.aside(false);
}

template <class T>
void GpuBackend<T>::gather_g1_gradient(int l, Range a) {
  if (!state_.rep.reads_gg1()) return;
  const int items = warp_items(state_.nrows);
  const RowPairs repformer =
      row_pairs(1, by_row_repformer_, pairs_before(a.begin).repformer, pairs_before(a.end).repformer);
  start(GatherG1Gradient<T>{here(a), repformer, dg1(l)}, items);
}

template <class T>
void GpuBackend<T>::pair_init_backward(Range a) {
  if (chunks_.size() > 1) env_mats(a, false);  // another chunk has overwritten them
  if (warp_pair_init_backward(a)) return;
  start(PairInitBackward<T>{here(a), g2_embd_w_, g2_embd_b_, dpair(0).g2}, a, most_repformer_);
}

template <class T>
void GpuBackend<T>::g1_transform_backward(Range a) {
  if (transform_backward_product(a)) return;
  start(TransformBackward<T>{here(a), transform_, g1_slope_.data(), dg1(0)}, groups(a));
}

template <class T>
void GpuBackend<T>::three_body_backward(Range a) {
  const State<T> s = here(a);
  if (s.tabulated3) start(TabulatedThreeBodyBackward<T>{{{s}}}, a, most_three_);
  start(ThreeBodyBackward<T>{{s}}, a, most_three_);
}

template <class T>
void GpuBackend<T>::repinit_backward(Range a) {
  const State<T> s = here(a);
  if (s.tabulated) start(TabulatedRepinitBackward<T>{{{s}}}, a, most_pairs_);
  start(RepinitBackward<T>{{s}}, a);
}

template <class T>
void GpuBackend<T>::env_mat_backward(Range a) {
  start(EnvMatBackward<T>{here(a), a.end}, warps(a));
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
