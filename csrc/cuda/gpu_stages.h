// GpuBackend: which kernels make a stage. Every stage covers all atoms (run() hands out one range).
#pragma once

#include "dense.h"
#include "env_mat.h"
#include "gpu_backend.h"
#include "repformer_node.h"
#include "repformer_pair.h"
#include "repinit_tables.h"
#include "three_body_tables.h"

namespace dpa2md {
namespace DPA2MD_GPU {

template <class T>
int GpuBackend<T>::groups() const {
  return (state_.natoms + kGroup - 1) / kGroup;
}

// ---- forward

template <class T>
void GpuBackend<T>::env_mat(Range) {
  start(EnvMat<T>{state_, state_.repinit}, state_.natoms);
  if (model_.has_three_body) start(EnvMat<T>{state_, state_.three}, state_.natoms);
  if (rep().nlayers) start(EnvMat<T>{state_, state_.near}, state_.natoms);
}

template <class T>
void GpuBackend<T>::repinit(Range) {
  if (state_.tabulated) start(TabulatedRepinit<T>{{{state_}}}, state_.natoms, most_pairs_);
  start(Repinit<T>{{state_}}, state_.natoms);
}

template <class T>
void GpuBackend<T>::three_body(Range) {
  if (state_.tabulated3) start(TabulatedThreeBody<T>{{{state_}}}, state_.natoms, most_three_);
  start(ThreeBody<T>{{state_}}, state_.natoms, most_three_);
}

template <class T>
void GpuBackend<T>::g1_transform(Range) {
  start(Transform<T>{state_, transform_, tebd_, g1(0), g1_slope_.data()}, groups());
}

template <class T>
void GpuBackend<T>::pair_init(Range) {
  start(PairInit<T>{state_, g2_embd_w_, g2_embd_b_, pair(0)}, state_.natoms);
}

template <class T>
void GpuBackend<T>::pair_step(int l, Range) {
  start(PairStep<T>{{state_, layers_[l], pair(l), g1(l)}, pair(l + 1)}, state_.natoms, most_near_);
}

template <class T>
void GpuBackend<T>::node_step(int l, Range) {
  const LayerView<T>& w = layers_[l];
  if (rep().has_g1_attn) start(DenseForward<T>{state_.natoms, w.attn1_query, g1(l), query_.data()}, groups());
  start(NodeMoments<T>{{state_, w, nodes(), pair(l), g1(l)}}, state_.natoms, most_near_);
  start(NodeUpdate<T>{state_, w, nodes(), g1(l), g1(l + 1), slope(mlp_slope_, l), slope(self_slope_, l)},
        groups());
}

template <class T>
void GpuBackend<T>::fitting(Range) {
  const bool dpa2 = model_.is_dpa2;
  FittingKernel<T> k{state_,
                     fitting_,
                     dpa2 ? rep().g1_dim : state_.repinit_width,
                     dpa2 ? g1(rep().nlayers) : rep_out_.data(),
                     parameters_.data(),
                     dpa2 ? dg1(rep().nlayers) : drep_out_.data(),
                     energy_.data()};
  start(k, groups());
  if (!input_.forces && !sizing_) energy_.download(output_.energy, energy_.size());
}

// ---- backward

template <class T>
void GpuBackend<T>::node_step_backward(int l, Range) {
  const LayerView<T>& w = layers_[l];
  const bool last = l == rep().nlayers - 1, begun = rep().has_g1g1 && !last;  // by pair_step_backward
  if (rep().has_g1_attn) start(DenseForward<T>{state_.natoms, w.attn1_query, g1(l), query_.data()}, groups());
  start(NodeUpdateBackward<T>{state_, w, dnodes(), dg1(l + 1), slope(mlp_slope_, l), slope(self_slope_, l),
                              dg1(l), begun},
        groups());
  start(NodeMomentsBackward<T>{{state_, w, nodes(), pair(l), g1(l)}, dnodes(), dpair(l), last, !begun},
        state_.natoms, most_near_);
  if (rep().has_g1_attn)
    start(DenseBackward<T>{state_.natoms, w.attn1_query, dquery_.data(), dg1(l)}, groups());
}

template <class T>
void GpuBackend<T>::pair_step_backward(int l, Range) {
  start(PairStepBackward<T>{{state_, layers_[l], pair(l), g1(l)}, dpair(l + 1), dpair(l), dg1(l)},
        state_.natoms, most_near_);
}

template <class T>
void GpuBackend<T>::gather_g1_gradient(int l, Range) {
  const std::int64_t* first = row_scan_.first.data() + state_.nrows + 1;
  start(GatherG1Gradient<T>{state_, first, by_row_near_.data(), dg1(l)}, state_.nrows);
}

template <class T>
void GpuBackend<T>::pair_init_backward(Range) {
  start(PairInitBackward<T>{state_, g2_embd_w_, g2_embd_b_, dpair(0)}, state_.natoms, most_near_);
}

template <class T>
void GpuBackend<T>::g1_transform_backward(Range) {
  start(TransformBackward<T>{state_, transform_, g1_slope_.data(), dg1(0)}, groups());
}

template <class T>
void GpuBackend<T>::three_body_backward(Range) {
  if (state_.tabulated3) start(TabulatedThreeBodyBackward<T>{{{state_}}}, state_.natoms, most_three_);
  start(ThreeBodyBackward<T>{{state_}}, state_.natoms, most_three_);
}

template <class T>
void GpuBackend<T>::repinit_backward(Range) {
  if (state_.tabulated) start(TabulatedRepinitBackward<T>{{{state_}}}, state_.natoms, most_pairs_);
  start(RepinitBackward<T>{{state_}}, state_.natoms);
}

template <class T>
void GpuBackend<T>::env_mat_backward(Range) {
  start(EnvMatBackward<T>{state_}, state_.natoms);
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
