// GpuBackend: what a step needs on the device, and what it gives back.
#pragma once

#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "cuda/host/gpu_backend.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// DPA2MD_CUDA_GRAPHS=0: kernels are started one by one, to compare with.
inline bool wants_graphs() {
  const char* text = std::getenv("DPA2MD_CUDA_GRAPHS");
  return !text || std::string(text) != "0";
}

template <class T>
GpuBackend<T>::GpuBackend(const Model& model, int device, bool tables)
    : model_(model), device_(device), use_tables_(tables), graphs_(wants_graphs()), launches_(device) {
  prepare();
}

template <class T>
std::string GpuBackend<T>::description() const {
  return "cuda (GPU " + std::to_string(device_) + ", " + device_name(device_) +
         (single() ? ", float32)" : ", float64)");
}

template <class T>
void GpuBackend<T>::begin(const StepInput& input, const StepOutput& output) {
  use_device(device_);  // of this thread
  input_ = input;
  output_ = output;
  upload_parameters();
  build_tables(input.pairs->types_present);
  reserve();
  first_made_ = false;
  if (graphs_ && chunks_.size() == 1) launches_.record();
  clear(force(), results_.size() - state_.natoms);
  number_pairs();
}

// fparam, aparam (normalised) and the case embedding of every atom, as the fitting net reads them.
template <class T>
void GpuBackend<T>::upload_parameters() {
  const Fitting& f = model_.fitting;
  std::vector<T> out;
  out.reserve(static_cast<std::size_t>(state_.natoms) * fitting_.parameters);
  for (int i = 0; i < state_.natoms && fitting_.parameters; ++i) {
    const int frame = input_.frame ? input_.frame[i] : 0;
    fitting_parameters(f, input_.fparam_of(frame, f.nfparam()), input_.aparam_of(i, f.naparam()),
                       [&](double p) { out.push_back(T(p)); });
  }
  parameters_.upload(out);
}

// ---- results

template <class T>
void GpuBackend<T>::forces(Range a) {
  const int items = warp_items(state_.nrows);
  const RowPairs pairs = row_pairs(0, by_row_, pairs_before(a.begin).pairs, pairs_before(a.end).pairs);
  start(Forces<T>{here(a), a.begin, a.end, pairs, force(), virial()}, items);
  if (a.end < state_.natoms) return;
  download_results();
}

template <class T>
void GpuBackend<T>::download_results() {
  launches_.submit();
  host_results_.resize(results_.size());
  copy_to_host(host_results_.data(), results_.data(), results_.size() * sizeof(double));
  const double* from = host_results_.data();
  const auto take = [&](double* to, std::size_t n) { std::copy_n(from, n, to), from += n; };
  take(output_.energy, state_.natoms);
  if (!state_.forces) return;
  take(output_.force, 3 * static_cast<std::size_t>(state_.nrows));
  take(output_.virial, 9 * static_cast<std::size_t>(state_.nrows));
}

template <class T>
void GpuBackend<T>::descriptor(Range range, double* out) {
  const int width = model_.is_dpa2 ? rep().g1_dim : state_.repinit_width, dim = model_.descriptor_dim();
  std::vector<T> feature(static_cast<std::size_t>(range.size()) * width);
  copy_to_host(
      feature.data(),
      (model_.is_dpa2 ? g1(rep().nlayers) : rep_out_.data()) + static_cast<std::size_t>(range.begin) * width,
      feature.size() * sizeof(T));
  for (int i = range.begin; i < range.end; ++i) {
    double* row = out + static_cast<std::size_t>(i) * dim;
    const int type = host_type_[i];
    for (int c = 0; c < dim; ++c) {
      row[c] = type < 0    ? 0.0
               : c < width ? double(feature[static_cast<std::size_t>(i - range.begin) * width + c])
                           : double(T(model_.type_embedding(type, c - width)));
    }
  }
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
