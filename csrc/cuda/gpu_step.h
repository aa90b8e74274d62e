// GpuBackend: what a step needs on the device, and what it gives back.
#pragma once

#include <algorithm>
#include <cstdio>

#include "../error.h"
#include "gpu_backend.h"

namespace dpa2md {
namespace DPA2MD_GPU {

template <class T>
GpuBackend<T>::GpuBackend(const Model& model, int device, bool tables)
    : model_(model), device_(device), use_tables_(tables) {
  use_device(device_);
  prepare();
}

template <class T>
std::string GpuBackend<T>::description() const {
  return "cuda (GPU " + std::to_string(device_) + ", " + device_name(device_) +
         (single() ? ", float32)" : ", float64)");
}

template <class T>
void GpuBackend<T>::run(int count, const std::function<void(Range)>& stage) {
  if (count > 0) stage({0, count});
}

template <class T>
void GpuBackend<T>::begin(const StepInput& input, const StepOutput& output) {
  use_device(device_);  // of this thread
  input_ = input;
  output_ = output;
  upload_pairs(*input.pairs);
  upload_parameters();
  build_tables(input.pairs->types_present);
  reserve(*input.pairs);
}

namespace {

template <class P>
void upload_prefix(const Prefix& from, P* to, int* most) {
  to->count.upload(from.count);
  to->first.upload(from.first);
  *most = from.count.empty() ? 0 : *std::max_element(from.count.begin(), from.count.end());
}

}  // namespace

template <class T>
void GpuBackend<T>::upload_pairs(const PairList& pairs) {
  State<T>& s = state_;
  s.natoms = pairs.natoms, s.nrows = pairs.nrows;
  s.forces = input_.forces;
  upload_prefix(pairs.repinit, &repinit_pairs_, &most_pairs_);
  upload_prefix(pairs.three_body, &three_pairs_, &most_three_);
  upload_prefix(pairs.repformer, &near_pairs_, &most_near_);
  vec_.upload(pairs.vec);
  r_.upload(pairs.r);
  row_.upload(pairs.row);
  type_.upload(pairs.type);
  center_type_.upload(pairs.center_type);
  zeroed_.upload(pairs.zeroed);
  if (input_.forces) {
    by_row_.first.upload(pairs.by_row.first);
    by_row_.pair.upload(pairs.by_row.pair);
    by_row_near_.first.upload(pairs.by_row_repformer.first);
    by_row_near_.pair.upload(pairs.by_row_repformer.pair);
  }
  s.vec = vec_.data(), s.r = r_.data(), s.row = row_.data(), s.type = type_.data();
  s.center_type = center_type_.data(), s.zeroed = zeroed_.data();
  s.repinit.count = repinit_pairs_.count.data(), s.repinit.first = repinit_pairs_.first.data();
  if (model_.has_three_body)
    s.three.count = three_pairs_.count.data(), s.three.first = three_pairs_.first.data();
  if (rep().nlayers) s.near.count = near_pairs_.count.data(), s.near.first = near_pairs_.first.data();
}

// fparam, aparam (normalised) and the case embedding of every atom, as the fitting net reads them.
template <class T>
void GpuBackend<T>::upload_parameters() {
  const Fitting& f = model_.fitting;
  std::vector<T> out;
  out.reserve(static_cast<std::size_t>(state_.natoms) * fitting_.parameters);
  for (int i = 0; i < state_.natoms && fitting_.parameters; ++i) {
    const int frame = input_.frame ? input_.frame[i] : 0;
    for (int c = 0; c < f.nfparam(); ++c) {
      const double p = input_.fparam ? input_.fparam[frame * f.nfparam() + c] : f.default_fparam.data[c];
      out.push_back(T((p - f.fparam_avg.data[c]) * f.fparam_inv_std.data[c]));
    }
    for (int c = 0; c < f.naparam(); ++c) {
      const double p = input_.aparam[static_cast<std::size_t>(i) * f.naparam() + c];
      out.push_back(T((p - f.aparam_avg.data[c]) * f.aparam_inv_std.data[c]));
    }
    for (const double c : f.case_embedding.data) out.push_back(T(c));
  }
  parameters_.upload(out);
}

template <class T>
void GpuBackend<T>::reserve(const PairList& pairs) {
  const Repformer& f = rep();
  State<T>& s = state_;
  const std::size_t n = pairs.natoms, rows = pairs.nrows, all = pairs.repinit.first[n];
  const std::size_t three = pairs.three_body.first[n], near = pairs.repformer.first[n];
  const std::size_t back = input_.forces, node = f.nlayers ? n : 0;
  g1_stride_ = rows * f.g1_dim, g2_stride_ = near * f.g2_dim, h2_stride_ = near * 3;
  const std::size_t dg2_layers = std::min(f.nlayers, 2);
  const std::size_t conv = f.has_conv && f.g1_out_conv ? node * f.g1_dim : 0;
  const std::size_t attention = f.has_g1_attn ? node * f.g1_dim * f.attn1_nhead : 0;
  const std::size_t cat = f.nlayers ? node * f.linear1_in() : 0;
  struct Plan {
    Buffer<T>* buffer;
    std::size_t size;
  };
  const Plan plan[] = {
      {&repinit_env_.em, 4 * all},
      {&repinit_env_.dem, back * 4 * all},
      {&repinit_env_.sw, all},
      {&repinit_env_.dsw, back * all},
      {&three_env_.em, 4 * three},
      {&three_env_.dem, back * 4 * three},
      {&three_env_.sw, three},
      {&three_env_.dsw, back * three},
      {&near_env_.em, 4 * near},
      {&near_env_.dem, back * 4 * near},
      {&near_env_.sw, near},
      {&near_env_.dsw, back * near},
      {&moment_, n * 4 * model_.repinit.ng},
      {&rep_out_, n * s.repinit_width},
      {&drep_out_, back * n * s.repinit_width},
      {&g1_slope_, node * f.g1_dim},
      {&mlp_slope_, back * f.nlayers * node * f.g1_dim},
      {&self_slope_, back * f.g1_out_mlp * f.nlayers * node * f.g1_dim},
      {&g1_, (f.nlayers ? f.nlayers + 1 : 0) * g1_stride_},
      {&dg1_, back * 2 * g1_stride_},
      {&g2_, f.nlayers * g2_stride_},
      {&dg2_, back * dg2_layers * g2_stride_},
      {&h2_, (f.update_h2 ? f.nlayers : 1) * h2_stride_},
      {&dh2_, back * (f.update_h2 ? dg2_layers : 1) * h2_stride_},
      {&dgg1_, back * near * f.g1_dim},
      {&cat_, cat},
      {&conv_, conv},
      {&query_, attention},
      {&weighted_, attention},
      {&dcat_, back * cat},
      {&dconv_, back * conv},
      {&dquery_, back * attention},
      {&dweighted_, back * attention},
  };
  std::size_t more = 0;  // bytes
  for (const Plan& p : plan) more += p.size > p.buffer->capacity() ? p.size * sizeof(T) : 0;
  if (more > (std::size_t{1} << 28) && more > free_memory()) {
    char text[200];
    std::snprintf(
        text, sizeof(text),
        "%zu atoms need %.1f GB more of GPU memory, but only %.1f GB are free: use fewer atoms, more GPUs "
        "or precision float32.",
        n, more / 1e9, free_memory() / 1e9);
    throw Error(text);
  }
  for (const Plan& p : plan) p.buffer->resize(p.size);
  pair_force_.resize(back * 3 * all);
  energy_.resize(n);
  tabulated_.resize(s.embedding.table ? n : 0);
  tabulated3_.resize(s.embedding3.table ? n : 0);
  s.tabulated = s.embedding.table ? tabulated_.data() : nullptr;
  s.tabulated3 = s.embedding3.table ? tabulated3_.data() : nullptr;
  force_.resize(back * 3 * rows);
  virial_.resize(back * 9 * rows);
  const auto point = [](const EnvBuffers& from, EnvView<T>* to) {
    to->em = from.em.data(), to->dem = from.dem.data(), to->sw = from.sw.data(), to->dsw = from.dsw.data();
  };
  point(repinit_env_, &s.repinit);
  point(three_env_, &s.three);
  point(near_env_, &s.near);
  s.moment = moment_.data(), s.rep_out = rep_out_.data(), s.drep_out = drep_out_.data();
  s.dgg1 = dgg1_.data(), s.pair_force = pair_force_.data();
}

// ---- results

template <class T>
void GpuBackend<T>::forces(Range) {
  const int items = (state_.nrows + Forces<T>::kRows - 1) / Forces<T>::kRows;
  start(Forces<T>{state_, by_row_.first.data(), by_row_.pair.data(), force_.data(), virial_.data()}, items);
  energy_.download(output_.energy, energy_.size());
  force_.download(output_.force, force_.size());
  virial_.download(output_.virial, virial_.size());
}

template <class T>
void GpuBackend<T>::descriptor(Range range, double* out) {
  const int width = model_.is_dpa2 ? rep().g1_dim : state_.repinit_width, dim = model_.descriptor_dim();
  std::vector<T> feature(static_cast<std::size_t>(state_.natoms) * width);
  copy_to_host(feature.data(), model_.is_dpa2 ? g1(rep().nlayers) : rep_out_.data(),
               feature.size() * sizeof(T));
  for (int i = range.begin; i < range.end; ++i) {
    double* row = out + static_cast<std::size_t>(i) * dim;
    const int type = input_.pairs->center_type[i];
    for (int c = 0; c < dim; ++c) {
      row[c] = type < 0    ? 0.0
               : c < width ? double(feature[static_cast<std::size_t>(i) * width + c])
                           : double(T(model_.type_embedding(type, c - width)));
    }
  }
}

// ---- rows that an exchange changes: copies on the host

template <class T>
T* GpuBackend<T>::take_rows(const T* rows) {
  host_rows_.resize(g1_stride_);
  copy_to_host(host_rows_.data(), rows, g1_stride_ * sizeof(T));
  return host_rows_.data();
}
template <class T>
void GpuBackend<T>::put_rows(T* rows) {
  copy_to_device(rows, host_rows_.data(), g1_stride_ * sizeof(T));
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
