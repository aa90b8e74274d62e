// GpuBackend: the kernels of each stage, for the atoms of a chunk.
#pragma once

#include "cuda/host/gpu_backend.h"
#include "cuda/kernels/dense.h"
#include "cuda/kernels/env_mat.h"
#include "cuda/kernels/repformer_node.h"
#include "cuda/kernels/repformer_pair.h"
#include "cuda/kernels/repinit_tables.h"
#include "cuda/kernels/sums.h"
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
  return pairs_.chunks().one() && state_.forces && rep().nlayers > 0 && !rep().has_g1g1 &&
         starter_.capacity() == 0;
}

// The pair state of a layer; g2 of layer 0 is made here, for every chunk anew.
template <class T>
PairState<T> GpuBackend<T>::pair(int l, Range a) {
  const PairState<T> p = arrays_.pair(l, pairs_.chunks().pairs_before(a.begin).repformer);
  if (l > 0) return p;
  if (!first_made_ && !warps_.pair_init(here(a), a, p.g2))
    start(PairInit<T>{here(a), weights_.g2_embd_w, weights_.g2_embd_b, p.g2}, a);
  first_made_ = pairs_.chunks().one() && !starter_.sizing();
  return p;
}

template <class T>
DenseStep<T> GpuBackend<T>::dense_step(int l, Range a, bool backward) const {
  T *mlp = arrays_.mlp_slope(l, a), *self = arrays_.self_slope(l, a);
  if (backward) return {arrays_.dnodes(a), mlp, self, arrays_.dg1(l), arrays_.dg1(l + 1)};
  return {arrays_.nodes(a), mlp, self, arrays_.g1(l), arrays_.g1(l + 1)};
}

// ---- forward

// Computes the environment matrices of repinit and three-body, and with `repformer` the repformers' too.
template <class T>
void GpuBackend<T>::env_mats(Range a, bool repformer) {
  if (!pairs_.chunks().one()) pairs_.fill(a);
  start(EnvMat<T>{here(a), a.end, repformer}, warps(a));
}

template <class T>
void GpuBackend<T>::env_mat(Range a) {
  env_mats(a, rep().nlayers > 0);
  if (!forks()) return;
  pair(0, a);
  launches().fork();
}

template <class T>
void GpuBackend<T>::repinit(Range a) {
  const State<T> s = here(a);
  if (s.tabulated) start(TabulatedRepinit<T>{{{s}}}, a, pairs_.most(kRepinit));
  start(Repinit<T>{{s}}, a);
}

template <class T>
void GpuBackend<T>::three_body(Range a) {
  const State<T> s = here(a);
  if (s.tabulated3) start(TabulatedThreeBody<T>{{{s}}}, a, pairs_.most(kThreeBody));
  start(ThreeBody<T>{{s}}, a, pairs_.most(kThreeBody));
}

template <class T>
void GpuBackend<T>::g1_transform(Range a) {
  T *g1 = arrays_.g1(0), *slope = arrays_.g1_slope();
  if (dense_.transform(here(a), a, g1, slope)) return;
  start(Transform<T>{here(a), weights_.transform, weights_.tebd, g1, slope}, groups(a));
}

template <class T>
void GpuBackend<T>::pair_step(int l, Range a) {
  const PairState<T> from = pair(l, a), to = pair(l + 1, a);
  const KeptAttention<T> kept = arrays_.kept_attention(l);
  launches().aside(forks());
  if (!warps_.pair_step(here(a), l, a, pairs_.crowded(), from, kept, to.g2))
    start(PairStep<T>{{here(a), weights_.layers[l], from, arrays_.g1(l), kept}, to}, a,
          pairs_.most(kRepformer));
  launches().aside(false);
}

// The query of the attention to g1, which the reverse sweep computes again.
template <class T>
void GpuBackend<T>::attention_query(int l, Range a) {
  T* query = arrays_.nodes(a).query;
  if (rep().has_g1_attn && !dense_.query(l, a, arrays_.g1(l), query))
    start(DenseForward<T>{state_.natoms, weights_.layers[l].attn1_query, arrays_.g1(l), query}, groups(a));
}

template <class T>
void GpuBackend<T>::node_step(int l, Range a) {
  const LayerView<T>& w = weights_.layers[l];
  const State<T> s = here(a);
  const DenseStep<T> step = dense_step(l, a, false);
  attention_query(l, a);
  launches().join();
  const PairState<T> x = pair(l, a);
  if (!warps_.node_moments(s, l, a, pairs_.crowded(), step.x, x, step.g1))
    start(NodeMoments<T>{{s, w, step.x, x, step.g1}}, a, pairs_.most(kRepformer));
  if (dense_.node_update(s, l, a, step)) return;
  start(NodeUpdate<T>{s, w, step.x, step.g1, step.g1_next, step.mlp_slope, step.self_slope}, groups(a));
}

template <class T>
void GpuBackend<T>::fitting(Range a) {
  const bool dpa2 = model_.is_dpa2;
  const State<T> s = here(a);
  const int width = dpa2 ? rep().g1_dim : s.repinit_width;
  T* feature = dpa2 ? arrays_.g1(rep().nlayers) : s.rep_out;
  T* dfeature = dpa2 ? arrays_.dg1(rep().nlayers) : s.drep_out;
  launches().join_beside();
  if (dense_.fitting(s, a, width, feature, dfeature, parameters_.data(), results_.energy())) return;
  start(
      FittingKernel<T>{s, weights_.fitting, width, feature, parameters_.data(), dfeature, results_.energy()},
      groups(a));
}

// ---- backward

template <class T>
void GpuBackend<T>::node_step_backward(int l, Range a) {
  const LayerView<T>& w = weights_.layers[l];
  const bool last = l == rep().nlayers - 1, begun = rep().has_g1g1 && !last;  // by pair_step_backward
  const State<T> s = here(a);
  const NodeArrays<T> x = arrays_.nodes(a);
  const DenseStep<T> step = dense_step(l, a, true);
  attention_query(l, a);
  if (!dense_.node_update_backward(s, l, a, step))
    start(NodeUpdateBackward<T>{s, w, step.x, step.g1_next, step.mlp_slope, step.self_slope, step.g1},
          groups(a));
  launches().join();
  const PairState<T> pair_state = pair(l, a), dpair = arrays_.dpair(l);
  if (!warps_.node_moments_backward(s, l, a, pairs_.crowded(), x, step.x, pair_state, dpair, arrays_.g1(l),
                                    last))
    start(NodeMomentsBackward<T>{{s, w, x, pair_state, arrays_.g1(l)}, step.x, dpair, last, !begun}, a,
          pairs_.most(kRepformer));
  launches().fork();
  if (rep().has_g1_attn && !dense_.query_backward(l, a, step.x.query, step.g1))
    start(DenseBackward<T>{s.natoms, w.attn1_query, step.x.query, step.g1}, groups(a));
}

template <class T>
void GpuBackend<T>::pair_step_backward(int l, Range a) {
  const State<T> s = here(a);
  const PairState<T> x = pair(l, a);
  KeptAttention<T> kept = arrays_.kept_attention(l);
  launches().aside(forks());
  if (warps_.pairs() && rep().has_g2_attn && !kept.norm) {
    kept = arrays_.attention_again(pairs_.chunks().pairs_before(a.begin).repformer);
    warps_.pair_step(s, l, a, pairs_.crowded(), x, kept, nullptr);
  }
  if (!warps_.pair_step_backward(s, l, a, pairs_.crowded(), x, kept, arrays_.dpair(l)))
    start(PairStepBackward<T>{{s, weights_.layers[l], x, arrays_.g1(l), kept},
                              arrays_.dpair(l + 1),
                              arrays_.dpair(l),
                              arrays_.dg1(l)},
          a, pairs_.most(kRepformer));
  launches().aside(false);
}

template <class T>
void GpuBackend<T>::gather_g1_gradient(int l, Range a) {
  if (!state_.rep.reads_gg1()) return;
  start(GatherG1Gradient<T>{here(a), pairs_.by_row(kRepformer, a), arrays_.dg1(l)},
        Range{0, warp_items(state_.nrows)});
}

template <class T>
void GpuBackend<T>::pair_init_backward(Range a) {
  if (!pairs_.chunks().one()) env_mats(a, false);  // another chunk has overwritten them
  T* dg2 = arrays_.dpair(0).g2;
  if (warps_.pair_init_backward(here(a), a, dg2)) return;
  start(PairInitBackward<T>{here(a), weights_.g2_embd_w, weights_.g2_embd_b, dg2}, a,
        pairs_.most(kRepformer));
}

template <class T>
void GpuBackend<T>::g1_transform_backward(Range a) {
  T *slope = arrays_.g1_slope(), *dg1 = arrays_.dg1(0);
  if (dense_.transform_backward(here(a), a, slope, dg1)) return;
  start(TransformBackward<T>{here(a), weights_.transform, slope, dg1}, groups(a));
}

template <class T>
void GpuBackend<T>::three_body_backward(Range a) {
  const State<T> s = here(a);
  if (s.tabulated3) start(TabulatedThreeBodyBackward<T>{{{s}}}, a, pairs_.most(kThreeBody));
  start(ThreeBodyBackward<T>{{s}}, a, pairs_.most(kThreeBody));
}

template <class T>
void GpuBackend<T>::repinit_backward(Range a) {
  const State<T> s = here(a);
  if (s.tabulated) start(TabulatedRepinitBackward<T>{{{s}}}, a, pairs_.most(kRepinit));
  start(RepinitBackward<T>{{s}}, a);
}

template <class T>
void GpuBackend<T>::env_mat_backward(Range a) {
  start(EnvMatBackward<T>{here(a), a.end}, warps(a));
}

template <class T>
void GpuBackend<T>::forces(Range a) {
  start(Forces<T>{here(a), a.begin, a.end, a.begin == 0, pairs_.by_row(kRepinit, a), results_.force(),
                  results_.virial()},
        Range{0, warp_items(state_.nrows)});
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
