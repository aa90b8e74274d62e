// GpuBackend: keeps the candidates on the device and builds the pair list from them every step.
#pragma once

#include <algorithm>
#include <cmath>

#include "cuda/host/gpu_backend.h"
#include "cuda/host/gpu_candidates.h"
#include "cuda/host/gpu_chunks.h"
#include "cuda/kernels/pair_list.h"
#include "cuda/kernels/scan.h"

namespace dpa2md {
namespace DPA2MD_GPU {

template <class T>
bool GpuBackend<T>::build_pairs(const Atoms& atoms, bool forces, bool once, PairList* out) {
  use_device(device_);
  launches_.discard();  // of a step that failed, or had no atoms
  if (state_.natoms != atoms.natoms || state_.nrows != atoms.nrows || state_.forces != forces)
    bounds_known_ = false;
  state_.natoms = atoms.natoms, state_.nrows = atoms.nrows;
  state_.forces = forces;
  list_candidates(atoms, forces);
  upload_atoms(atoms);
  sizes_.natoms = atoms.natoms, sizes_.nrows = atoms.nrows, sizes_.positions = positions_;
  sizes_.forces = forces;
  // Several chunks need no guess: their kernels hide the wait for the counts.
  guesses_ = !once && atoms.natoms <= chunk_atoms();
  if (!reserved_ || !bounds_known_) {
    for (const Need& x : list_plan(sizes_)) x.storage->resize_bytes(x.bytes);
  }
  if (!guesses_ || !bounds_known_) measure_pairs();
  if (guesses_) {
    if (graphs_) launches_.record();
    select_pairs(true);
  }
  out->natoms = atoms.natoms, out->nrows = atoms.nrows;
  out->types_present = types_present_;
  return true;
}

// Updates the candidates if the list changed, and their shifts if the cell changed.
template <class T>
void GpuBackend<T>::list_candidates(const Atoms& atoms, bool forces) {
  const Candidates& c = *atoms.candidates;
  if (c.version == 0 || c.version != list_version_ || !host_row_known(atoms)) {
    list_version_ = 0;  // until all of it is there
    rows_known_ = false;
    c.bins ? search(atoms) : upload_list(atoms);
    host_row_.assign(atoms.row, atoms.row ? atoms.row + positions_ : nullptr);
    position_row_.upload(host_row_);
    list_version_ = c.version;
    reserved_ = false;
    const double more = static_cast<double>(sizes_.candidates) / static_cast<double>(bound_candidates_);
    if (!(more > 0.9 && more < 1.05)) bounds_known_ = false;
  }
  if (forces && !rows_known_) group_rows();
  if (c.shift_vectors != host_shift_vectors_ || shift_vectors_.size() != c.shift_vectors.size()) {
    shift_vectors_.upload(c.shift_vectors);
    host_shift_vectors_ = c.shift_vectors;
  }
  sizes_.shifts = c.shift_vectors.size() / 3;
}

template <class T>
void GpuBackend<T>::upload_list(const Atoms& atoms) {
  const Candidates& c = *atoms.candidates;
  check_candidates(static_cast<std::int64_t>(c.atom.size()));
  positions_ = atoms.natoms;
  for (const std::int32_t j : c.atom) positions_ = std::max(positions_, j + 1);
  most_candidates_ = 0;
  for (int i = 0; i < atoms.natoms; ++i)
    most_candidates_ = std::max(most_candidates_, static_cast<int>(c.first[i + 1] - c.first[i]));
  candidate_scan_.first.upload(c.first.data(), atoms.natoms + 1);
  candidate_atom_.upload(c.atom);
  candidate_shift_.upload(c.shift);
  sizes_.candidates = c.atom.size();
  sizes_.binned = sizes_.bins = sizes_.frames = 0;
}

// Whether the positions' rows match the list on the device.
template <class T>
bool GpuBackend<T>::host_row_known(const Atoms& atoms) const {
  if (!atoms.row) return host_row_.empty();
  return static_cast<int>(host_row_.size()) == positions_ &&
         std::equal(host_row_.begin(), host_row_.end(), atoms.row);
}

// Uploads the positions, and the types if they changed.
template <class T>
void GpuBackend<T>::upload_atoms(const Atoms& atoms) {
  const std::size_t size = 3 * static_cast<std::size_t>(positions_);
  host_x_.resize(size);
  std::copy_n(atoms.x, size, host_x_.data());
  x_.resize(size);
  copy_to_device_later(x_.data(), host_x_.data(), size * sizeof(double));
  if (static_cast<int>(host_type_.size()) == positions_ &&
      std::equal(host_type_.begin(), host_type_.end(), atoms.type) &&
      position_type_.size() == host_type_.size())
    return;
  host_type_.clear();
  check_atoms(model_, atoms);
  host_type_.assign(atoms.type, atoms.type + positions_);
  position_type_.upload(host_type_);
  types_present_.assign(model_.ntypes(), 0);
  for (const int t : host_type_) {
    if (t >= 0 && t < model_.ntypes()) types_present_[t] = 1;
  }
}

template <class T>
CandidateView GpuBackend<T>::candidates() const {
  return {state_.natoms,
          model_.ntypes(),
          x_.data(),
          position_type_.data(),
          host_row_.empty() ? nullptr : position_row_.data(),
          candidate_scan_.first.data(),
          candidate_atom_.data(),
          candidate_shift_.data(),
          shift_vectors_.data(),
          mark_.data()};
}

// Computes the prefix sums of `arrays` arrays of n counts; see scan.h.
template <class T>
void GpuBackend<T>::scan(int arrays, int n, const Buffer<int>& count, ScanBuffers* to,
                         const ScanLimit* limit) {
  ScanView v{arrays,           n, count.data(), to->first.data(), to->tile.data(), to->tile_most.data(),
             to->total.data(), {}};
  if (limit) std::copy_n(limit, arrays, v.limit);
  if (v.tiles() <= 1) return start(ScanOnce{v}, 1);
  start(SumTiles{v}, v.tiles());
  start(ScanTiles{v}, 1);
  start(ScanCounts{v}, v.tiles());
}

// Marks, counts and numbers the pairs. limited: if they exceed the guessed bounds, all counts become zero.
template <class T>
void GpuBackend<T>::select_pairs(bool limited) {
  const int n = state_.natoms;
  const Block* blocks[kViewers] = {&model_.repinit, model_.has_three_body ? &model_.three_body : nullptr,
                                   rep().nlayers ? &rep() : nullptr};
  SelectPairs kernel{candidates(),  {}, model_exclude_, descriptor_exclude_, most_candidates_, count_.data(),
                     zeroed_.data()};
  for (int v = 0; v < kViewers; ++v) {
    if (blocks[v]) kernel.cutoff[v] = {blocks[v]->rcut, blocks[v]->room};
  }
  start(kernel, n);
  if (!limited) return scan(kCounts, n, count_, &atom_scan_);
  ScanLimit limit[kCounts];
  limit[kRepinit] = {static_cast<std::int64_t>(sizes_.pairs), most_pairs_};
  limit[kThreeBody] = {static_cast<std::int64_t>(sizes_.chunk_three), most_three_};
  limit[kRepformer] = {static_cast<std::int64_t>(sizes_.repformer), most_repformer_};
  limit[kCoincidentPairs] = {0, 0};
  scan(kCounts, n, count_, &atom_scan_, limit);
}

// Counts the pairs. With guesses_, adds some room to the counts, as bounds for the next steps.
template <class T>
void GpuBackend<T>::measure_pairs() {
  select_pairs(false);
  PairTotals t;
  static_assert(sizeof(t) == 2 * kCounts * sizeof(std::int64_t));
  atom_scan_.total.download(t.sum, 2 * kCounts);
  refuse_coincident_atoms(t);
  const auto bound = [&](int which) {
    const std::int64_t n = t.sum[which];
    return guesses_ ? n + std::min<std::int64_t>(n / 20, 65536) + 16 : n;
  };
  const PairNumbers numbers{bound(kRepinit), bound(kThreeBody), bound(kRepformer)};
  sizes_.pairs = numbers.pairs, sizes_.repformer = numbers.repformer;
  divide(numbers);
  most_pairs_ = static_cast<int>(t.most[kRepinit]);
  most_three_ = static_cast<int>(t.most[kThreeBody]);
  most_repformer_ = static_cast<int>(t.most[kRepformer]);
  bounds_known_ = guesses_;
  bound_candidates_ = sizes_.candidates;
  reserved_ = false;
}

// Whether the counts kept the bounds of select_pairs(true).
template <class T>
bool GpuBackend<T>::within_bounds(const PairTotals& t) const {
  return t.sum[kRepinit] <= static_cast<std::int64_t>(sizes_.pairs) &&
         t.sum[kThreeBody] <= static_cast<std::int64_t>(sizes_.chunk_three) &&
         t.sum[kRepformer] <= static_cast<std::int64_t>(sizes_.repformer) &&
         t.most[kRepinit] <= most_pairs_ && t.most[kThreeBody] <= most_three_ &&
         t.most[kRepformer] <= most_repformer_ && t.most[kCoincidentPairs] == 0;
}

template <class T>
void GpuBackend<T>::refuse_coincident_atoms(const PairTotals& t) const {
  if (t.most[kCoincidentPairs] == 0) return;
  const std::vector<int> coincident = atom_counts(kCoincidentPairs);
  refuse_coincident(static_cast<int>(
      std::find_if(coincident.begin(), coincident.end(), [](int c) { return c > 0; }) - coincident.begin()));
}

// Downloads one count (kRepinit ... kCoincidentPairs) of every atom.
template <class T>
std::vector<int> GpuBackend<T>::atom_counts(int which) const {
  std::vector<int> out(state_.natoms);
  if (!out.empty())
    copy_to_host(out.data(), count_.data() + static_cast<std::size_t>(which) * out.size(),
                 out.size() * sizeof(int));
  return out;
}

// Fills the host's summary of the pair list; the pairs stay on the device.
template <class T>
void GpuBackend<T>::describe_pairs(const PairTotals& t, PairList* out) const {
  out->size = t.sum[kRepinit];
  out->max_count = static_cast<int>(t.most[kRepinit]);
  out->overfull_atom = -1;
  out->overfull_count = out->overfull_nsel = 0;
  if (overfull_count(static_cast<int>(t.most[kOverfull])) == 0) return;
  const std::vector<int> code = atom_counts(kOverfull);
  const auto most = std::max_element(code.begin(), code.end(),
                                     [](int a, int b) { return overfull_count(a) < overfull_count(b); });
  const int nsel[kViewers] = {model_.repinit.nsel, model_.three_body.nsel, rep().nsel};
  out->overfull_atom = static_cast<int>(most - code.begin());
  out->overfull_count = overfull_count(*most);
  out->overfull_nsel = nsel[overfull_viewer(*most)];
}

// Points the state at the list, numbers the pairs and groups them by row. With one chunk it also writes the
// pairs themselves.
template <class T>
void GpuBackend<T>::number_pairs() {
  State<T>& s = state_;
  const std::int64_t stride = s.natoms + 1;
  const auto viewer = [&](int which, EnvView<T>* to) {
    to->count = count_.data() + static_cast<std::int64_t>(which) * s.natoms;
    to->first = atom_scan_.first.data() + which * stride;
  };
  viewer(kRepinit, &s.repinit);
  if (model_.has_three_body) viewer(kThreeBody, &s.three);
  if (rep().nlayers) viewer(kRepformer, &s.repformer);
  s.center_type = position_type_.data(), s.zeroed = zeroed_.data();
  fill_pairs({0, s.natoms}, true, chunks_.size() == 1);
  if (!s.forces) return;
  launches_.beside(true);  // first read in the reverse sweep
  start(FillRows{most_row_candidates_,
                 candidate_row_scan_.first.data(),
                 row_candidate_.data(),
                 {pair_of(), repformer_of()},
                 {by_row_.data(), rep().nlayers ? by_row_repformer_.data() : nullptr},
                 {row_count_.data(), row_count_.data() + s.nrows}},
        s.nrows);
  launches_.beside(false);
}

// Writes the pairs' numbers, or the pairs (vector, distance, type), or both.
template <class T>
void GpuBackend<T>::fill_pairs(Range a, bool numbers, bool pairs) {
  const std::int64_t before = pairs ? pairs_before(a.begin).pairs : 0;
  FillPairs kernel{candidates(),
                   most_candidates_,
                   state_.repinit.count,
                   state_.repinit.first,
                   state_.repformer.first,
                   nullptr,
                   nullptr,
                   nullptr,
                   nullptr,
                   nullptr,
                   nullptr,
                   0,
                   state_.repformer.count,
                   nullptr,
                   nullptr};
  if (numbers) {
#if defined(__CUDACC__)
    // lists the crowded atoms, which have their own warp-per-atom kernels
    kernel.few = kFewNeighbors;
    if (warp_pairs_ && most_repformer_ > kFewNeighbors)
      kernel.crowded = crowded_.data(), kernel.crowded_atom = crowded_.data() + 1;
#endif
    kernel.repformer_row = repformer_row_.data();
    if (state_.forces) kernel.pair_of = pair_of(), kernel.repformer_of = repformer_of();
  }
  if (pairs) {
    kernel.vec = moved(vec_.data(), before, 3);
    kernel.r = moved(r_.data(), before, 1);
    kernel.type = moved(type_.data(), before, 1);
  }
  start(kernel, a);
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
