// GpuBackend: begins a step on the device and returns its results.
#pragma once

#include <algorithm>
#include <cstdlib>

#include "base/error.h"
#include "cuda/host/gpu_backend.h"

namespace dpa2md {
namespace DPA2MD_GPU {

template <class T>
GpuBackend<T>::GpuBackend(const Model& model, int device, bool tables)
    : model_(model),
      device_(device),
      use_tables_(tables),
      graphs_(switched_on("DPA2MD_CUDA_GRAPHS")),
      launches_(device) {
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
  const auto frames = static_cast<std::size_t>(input.frames());
  if (sizes_.result_frames != frames) reserved_ = false;
  sizes_.result_frames = frames;
  reserve();
  divide_frames();
  if (!counters_zero_) {
    for (int* counter : counters()) {
      if (counter) zero(counter, sizeof(int));
    }
  }
  counters_zero_ = false;
  first_made_ = false;
  if (!guesses_ && graphs_ && chunks_.size() == 1) launches_.record();
  number_pairs();
}

// Uploads every atom's fparam, aparam (normalised) and case embedding for the fitting net.
template <class T>
void GpuBackend<T>::upload_parameters() {
  if (fitting_.parameters == 0) return;
  const Fitting& f = model_.fitting;
  std::vector<T> out;
  out.reserve(static_cast<std::size_t>(state_.natoms) * fitting_.parameters);
  for (int i = 0; i < state_.natoms; ++i) {
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
  start(Forces<T>{here(a), a.begin, a.end, a.begin == 0, pairs, force(), virial()}, items);
}

// The kernels' counters: atoms that no table served (repinit, three-body), and crowded atoms; null: none.
template <class T>
std::array<int*, kCounters> GpuBackend<T>::counters() const {
  return {state_.tabulated ? state_.tabulated + state_.natoms : nullptr,
          state_.tabulated3 ? state_.tabulated3 + state_.natoms : nullptr,
          crowded_.size() ? crowded_.data() : nullptr};
}

// Divides every frame's rows into tiles, if the frames changed since the last step.
template <class T>
void GpuBackend<T>::divide_frames() {
  const std::vector<int> all = {0, state_.nrows};
  const std::vector<int>& start = input_.frame_start ? *input_.frame_start : all;
  if (start == frame_start_ && tiles_.size() == host_tiles_.size()) return;
  host_tiles_.clear();
  first_tile_.clear();
  for (std::size_t f = 0; f + 1 < start.size(); ++f) {
    first_tile_.push_back(static_cast<int>(host_tiles_.size()));
    int row = start[f];
    do {
      const int end = std::min(row + kRowsOfTile, start[f + 1]);
      host_tiles_.push_back({row, end});
      row = end;
    } while (row < start[f + 1]);
  }
  first_tile_.push_back(static_cast<int>(host_tiles_.size()));
  tiles_.upload(host_tiles_);
  frame_tile_.upload(first_tile_);
  frame_start_ = start;
}

template <class T>
void GpuBackend<T>::sum_frames() {
  const int tiles = static_cast<int>(host_tiles_.size()), frames = static_cast<int>(first_tile_.size()) - 1;
  double* to = tiles == frames ? frame_sums() : tile_sums_.data();
  const double* virials = state_.forces ? virial() : nullptr;
  SumRows kernel{state_.natoms, tiles_.data(),           energy(),        virials, to,
                 2 * kCounts,   atom_scan_.total.data(), results_.data(), {}};
  const auto zero = counters();
  std::copy(zero.begin(), zero.end(), kernel.zero);
  start(kernel, tiles);
  if (tiles != frames) start(SumFrames{frame_tile_.data(), tile_sums_.data(), frame_sums()}, frames);
}

template <class T>
bool GpuBackend<T>::finish(PairList* pairs) {
  sum_frames();
  launches_.submit();
  const double* from = download_results();
  counters_zero_ = true;
  PairTotals t;
  for (int k = 0; k < kCounts; ++k) {
    t.sum[k] = static_cast<std::int64_t>(from[k]);
    t.most[k] = static_cast<std::int64_t>(from[kCounts + k]);
  }
  if (guesses_ && !within_bounds(t)) return bounds_known_ = false;
  describe_pairs(t, pairs);
  copy_results(from + 2 * kCounts);
  return true;
}

// Downloads the wanted results in one transfer.
template <class T>
const double* GpuBackend<T>::download_results() {
  const bool virials = state_.forces && output_.virial;
  const double* end = virials ? results_.data() + results_.size() : state_.forces ? virial() : force();
  const auto size = static_cast<std::size_t>(end - results_.data());
  host_results_.resize(results_.size());
  copy_to_host(host_results_.data(), results_.data(), size * sizeof(double));
  return host_results_.data();
}

template <class T>
void GpuBackend<T>::copy_results(const double* from) const {
  for (std::size_t f = 0; f < sizes_.result_frames; ++f, from += kSums) {
    if (output_.frame_energy) output_.frame_energy[f] = from[0];
    if (output_.frame_virial && state_.forces) std::copy_n(from + 1, kSums - 1, output_.frame_virial + 9 * f);
  }
  const auto take = [&](double* to, std::size_t n) {
    if (to) std::copy_n(from, n, to);
    from += n;
  };
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
