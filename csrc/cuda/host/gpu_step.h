// GpuBackend: begins a step, with its memory, and ends it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "cuda/host/gpu_backend.h"

namespace dpa2md {
namespace DPA2MD_GPU {

template <class T>
GpuBackend<T>::GpuBackend(const Model& model, int device, bool tables)
    : model_(model),
      device_(device),
      graphs_(switched_on("DPA2MD_CUDA_GRAPHS")),
      starter_(device),
      weights_(model),
      tables_(model, tables),
      dense_(model, weights_, &starter_),
      warps_(model, weights_, &starter_),
      state_(weights_.state),
      candidates_(model, &starter_),
      pairs_(model, weights_.exclusions, warps_.few_neighbors(), candidates_, &starter_),
      arrays_(model),
      results_(&starter_),
      exchange_(model.repformer.g1_dim, &starter_) {}

template <class T>
std::string GpuBackend<T>::description() const {
  return "cuda (GPU " + std::to_string(device_) + ", " + device_name(device_) +
         (single() ? ", float32)" : ", float64)");
}

template <class T>
bool GpuBackend<T>::build_pairs(const Atoms& atoms, bool forces, bool once, PairList* out) {
  use_device(device_);
  launches().discard();  // of a step that failed, or had no atoms
  if (state_.natoms != atoms.natoms || state_.nrows != atoms.nrows || state_.forces != forces)
    pairs_.forget_bounds();
  state_.natoms = atoms.natoms, state_.nrows = atoms.nrows;
  state_.forces = sizes_.forces = forces;
  if (candidates_.update(atoms, forces, &sizes_)) {
    reserved_ = false;
    pairs_.list_changed(sizes_);
  }
  // Several chunks need no guess: their kernels hide the wait for the counts.
  guesses_ = !once && atoms.natoms <= chunk_atoms();
  if (!reserved_ || !pairs_.bounds_known()) {
    for (const Need& x : count_plan(sizes_)) x.storage->resize_bytes(x.bytes);
  }
  if (!guesses_ || !pairs_.bounds_known()) {
    pairs_.measure(guesses_, &sizes_);
    reserved_ = false;
  }
  if (guesses_) {
    if (graphs_) launches().record();
    pairs_.count_within_bounds();
  }
  out->natoms = atoms.natoms, out->nrows = atoms.nrows;
  out->types_present = candidates_.types_present();
  return true;
}

template <class T>
void GpuBackend<T>::begin(const StepInput& input, const StepOutput& output) {
  use_device(device_);  // of this thread
  input_ = input;
  output_ = output;
  upload_parameters();
  if (tables_.update(input.pairs->types_present, &state_)) reserved_ = false;
  const auto frames = static_cast<std::size_t>(input.frames());
  if (sizes_.result_frames != frames) reserved_ = false;
  sizes_.result_frames = frames;
  if (!reserved_) reserve();
  results_.divide_frames(input);
  if (!counters_zero_) {
    for (int* counter : counters()) {
      if (counter) zero(counter, sizeof(int));
    }
  }
  counters_zero_ = false;
  first_made_ = false;
  if (!guesses_ && graphs_ && pairs_.chunks().one()) launches().record();
  pairs_.point(&state_);
  pairs_.number(state_.forces ? arrays_.pair_numbers() : nullptr);
}

// Uploads every atom's fparam, aparam (normalised) and case embedding for the fitting net.
template <class T>
void GpuBackend<T>::upload_parameters() {
  const int width = weights_.fitting.parameters;
  if (width == 0) return;
  const Fitting& f = model_.fitting;
  std::vector<T> out;
  out.reserve(static_cast<std::size_t>(state_.natoms) * width);
  for (int i = 0; i < state_.natoms; ++i) {
    const int frame = input_.frame ? input_.frame[i] : 0;
    fitting_parameters(f, input_.fparam_of(frame, f.nfparam()), input_.aparam_of(i, f.naparam()),
                       [&](double p) { out.push_back(T(p)); });
  }
  parameters_.upload(out);
}

template <class T>
void GpuBackend<T>::run(int, const std::function<void(Range)>& stage,
                        const std::function<void(Range)>& gather) {
  for (const Range a : pairs_.chunks().ranges()) {
    if (a.size() > 0) stage(a);
    if (gather && state_.nrows > 0) gather(a);
  }
}

// ---- memory

// The arrays that are sized before the pairs are counted.
template <class T>
std::vector<Need> GpuBackend<T>::count_plan(const StepSizes& z) {
  std::vector<Need> needs;
  candidates_.plan(z, &needs);
  pairs_.plan_counts(z, &needs);
  return needs;
}

// Every array whose size depends on the step, for the allocation and for the forecast of memory.
template <class T>
std::vector<Need> GpuBackend<T>::plan(const StepSizes& z) {
  std::vector<Need> needs = count_plan(z);
  pairs_.plan(z, &needs);
  arrays_.plan(z, state_, warps_.pairs(), &needs);
  dense_.plan(z, &needs);
  results_.plan(z, &needs);
  needs.push_back(need(&parameters_, z.natoms * weights_.fitting.parameters));
  return needs;
}

// Memory that does not grow with the atoms: weights, tables, scratch beyond shared memory.
template <class T>
std::size_t GpuBackend<T>::fixed_memory() const {
  return weights_.capacity() + tables_.capacity() + dense_.capacity() + warps_.capacity() +
         starter_.capacity();
}

template <class T>
double GpuBackend<T>::total(const StepSizes& z) {
  auto sum = static_cast<double>(fixed_memory());
  for (const Need& x : plan(z)) sum += static_cast<double>(Storage::with_room(x.bytes));
  return sum;
}

// `needed` counts the kept attention if it fits; `atoms` is the largest step that fits without it.
template <class T>
DeviceMemory GpuBackend<T>::memory(std::int64_t natoms) {
  if (sizes_.natoms == 0) return {};
  use_device(device_);
  const auto fixed = static_cast<double>(fixed_memory());
  double available = fixed + static_cast<double>(free_memory());
  for (const Need& x : plan(sizes_)) available += static_cast<double>(x.storage->capacity());
  StepSizes z = sizes_.scaled_to(natoms);
  z.keep_attention = false;
  const double least = total(z);
  z.keep_attention = true;
  const double most = total(z);
  return {most <= available ? most : least, available,
          std::max(0.0, (available - fixed) / (least - fixed) * static_cast<double>(natoms))};
}

inline bool fits(const std::vector<Need>& needs) {
  std::size_t more = 0;
  for (const Need& x : needs) more += x.storage->grown_to(x.bytes) - x.storage->capacity();
  return more == 0 || more <= free_memory();
}

// Throws Error if the step does not fit, after it has freed the arrays of `needs`.
template <class T>
void GpuBackend<T>::check_memory(const std::vector<Need>& needs) {
  if (fits(needs)) return;
  const DeviceMemory m = memory(state_.natoms);
  char text[300];
  std::snprintf(
      text, sizeof(text),
      "a step of %d atoms needs %.3g GB of GPU memory and %.3g GB are free, enough for about %.0f such "
      "atoms: use fewer atoms%s.",
      state_.natoms, m.needed / 1e9, m.free / 1e9, std::floor(m.atoms),
      single() ? " or more GPUs" : ", more GPUs or precision float32");
  for (const Need& x : needs) x.storage->clear();
  candidates_.forget();
  pairs_.forget_bounds();
  throw Error(text);
}

// Starts every stage of layer 0 without running it; other layers need the same scratch.
template <class T>
void GpuBackend<T>::reserve_scratch() {
  StepSizes nothing = sizes_;  // is there yet
  nothing.natoms = nothing.nrows = nothing.repformer = 0;
  arrays_.set_sizes(nothing);
  starter_.reserve_scratch([&] {
    for (const StageInfo& s : kStageTable) {
      if (has_stage(model_, s.stage) && (input_.forces || !s.backward))
        stage(s.stage, 0, pairs_.chunks().ranges().front());
    }
  });
}

template <class T>
void GpuBackend<T>::reserve() {
  sizes_.keep_attention = true;
  reserve_scratch();
  std::vector<Need> needs = plan(sizes_);
  if (!fits(needs)) {
    sizes_.keep_attention = false;
    arrays_.forget_kept_attention();
    needs = plan(sizes_);
    check_memory(needs);
  }
  for (const Need& x : needs) x.storage->resize_bytes(x.bytes);
  arrays_.set_sizes(sizes_);
  arrays_.point(&state_);
  dense_.set_sizes(sizes_);
  results_.set_sizes(sizes_);
  reserved_ = true;
  counters_zero_ = false;
}

// ---- results

// The kernels' counters: atoms that no table served (repinit, three-body), and crowded atoms; null: none.
template <class T>
std::array<int*, kCounters> GpuBackend<T>::counters() const {
  return {state_.tabulated ? state_.tabulated + state_.natoms : nullptr,
          state_.tabulated3 ? state_.tabulated3 + state_.natoms : nullptr, pairs_.crowded_counter()};
}

template <class T>
bool GpuBackend<T>::finish(PairList* pairs) {
  results_.sum_frames(pairs_.totals(), counters());
  launches().submit();
  const double* from = results_.download(output_.virial != nullptr);
  counters_zero_ = true;
  PairTotals t;
  for (int k = 0; k < kCounts; ++k) {
    t.sum[k] = static_cast<std::int64_t>(from[k]);
    t.most[k] = static_cast<std::int64_t>(from[kCounts + k]);
  }
  if (guesses_ && !pairs_.within_bounds(t)) {
    pairs_.forget_bounds();
    return false;
  }
  pairs_.describe(t, pairs);
  results_.copy(from + StepResults::kTotals, output_);
  return true;
}

template <class T>
void GpuBackend<T>::descriptor(Range range, double* out) {
  const int width = model_.is_dpa2 ? rep().g1_dim : state_.repinit_width, dim = model_.descriptor_dim();
  const T* rows = model_.is_dpa2 ? arrays_.g1(rep().nlayers) : arrays_.rep_out();
  std::vector<T> feature(static_cast<std::size_t>(range.size()) * width);
  copy_to_host(feature.data(), rows + static_cast<std::size_t>(range.begin) * width,
               feature.size() * sizeof(T));
  for (int i = range.begin; i < range.end; ++i) {
    double* row = out + static_cast<std::size_t>(i) * dim;
    const int type = candidates_.host_types()[i];
    for (int c = 0; c < dim; ++c) {
      row[c] = type < 0    ? 0.0
               : c < width ? double(feature[static_cast<std::size_t>(i - range.begin) * width + c])
                           : double(T(model_.type_embedding(type, c - width)));
    }
  }
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
