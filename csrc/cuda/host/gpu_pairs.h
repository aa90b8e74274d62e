// GpuBackend: candidates that stay on the device, and the pair list that is made of them every step.
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
bool GpuBackend<T>::build_pairs(const Atoms& atoms, bool forces, PairList* out) {
  use_device(device_);
  launches_.discard();  // of a step that failed, or had no atoms
  check_atoms(model_, atoms);
  state_.natoms = atoms.natoms, state_.nrows = atoms.nrows;
  state_.forces = forces;
  list_candidates(atoms, forces);
  upload_atoms(atoms);
  sizes_.natoms = atoms.natoms, sizes_.nrows = atoms.nrows, sizes_.positions = positions_;
  sizes_.pairs = sizes_.repformer = 0;
  sizes_.forces = forces;
  for (const Need& x : list_plan(sizes_)) x.storage->resize_bytes(x.bytes);
  select_pairs();
  describe_pairs(out);
  return true;
}

// The candidates, when they are others than before, and their shifts, when the cell is.
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

// Whether the rows of all positions are those of the list that is there.
template <class T>
bool GpuBackend<T>::host_row_known(const Atoms& atoms) const {
  if (!atoms.row) return host_row_.empty();
  return static_cast<int>(host_row_.size()) == positions_ &&
         std::equal(host_row_.begin(), host_row_.end(), atoms.row);
}

// Positions, and types where they are others than before.
template <class T>
void GpuBackend<T>::upload_atoms(const Atoms& atoms) {
  x_.upload(atoms.x, 3 * static_cast<std::size_t>(positions_));
  if (static_cast<int>(host_type_.size()) == positions_ &&
      std::equal(host_type_.begin(), host_type_.end(), atoms.type) &&
      position_type_.size() == host_type_.size())
    return;
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

// Running sums of `arrays` counts of n; see scan.h.
template <class T>
void GpuBackend<T>::scan(int arrays, int n, const Buffer<int>& count, ScanBuffers* to) {
  const ScanView v{arrays,          n, count.data(), to->first.data(), to->tile.data(), to->tile_most.data(),
                   to->total.data()};
  if (v.tiles() <= 1) return start(ScanOnce{v}, 1);
  start(SumTiles{v}, v.tiles());
  start(ScanTiles{v}, 1);
  start(ScanCounts{v}, v.tiles());
}

// Marks, counts and numbers the pairs; their numbers come back.
template <class T>
void GpuBackend<T>::select_pairs() {
  const int n = state_.natoms;
  const Block* blocks[kViewers] = {&model_.repinit, model_.has_three_body ? &model_.three_body : nullptr,
                                   rep().nlayers ? &rep() : nullptr};
  SelectPairs kernel{candidates(),  {}, model_exclude_, descriptor_exclude_, most_candidates_, count_.data(),
                     zeroed_.data()};
  for (int v = 0; v < kViewers; ++v) {
    if (blocks[v]) kernel.cutoff[v] = {blocks[v]->rcut, blocks[v]->room};
  }
  start(kernel, warp_items(n));
  scan(kCounts, n, count_, &atom_scan_);
  std::int64_t total[2 * kCounts];
  atom_scan_.total.download(total, 2 * kCounts);
  const std::int64_t* most = total + kCounts;
  sizes_.pairs = total[kRepinit], sizes_.repformer = total[kRepformer];
  divide({total[kRepinit], total[kThreeBody], total[kRepformer]});
  most_pairs_ = static_cast<int>(most[kRepinit]);
  most_three_ = static_cast<int>(most[kThreeBody]);
  most_repformer_ = static_cast<int>(most[kRepformer]);
  any_overfull_ = overfull_count(static_cast<int>(most[kOverfull])) > 0;
  if (most[kCoincidentPairs] == 0) return;
  const std::vector<int> coincident = atom_counts(kCoincidentPairs);
  refuse_coincident(static_cast<int>(
      std::find_if(coincident.begin(), coincident.end(), [](int c) { return c > 0; }) - coincident.begin()));
}

// One of the counts of every atom.
template <class T>
std::vector<int> GpuBackend<T>::atom_counts(int which) const {
  std::vector<int> out(state_.natoms);
  if (!out.empty())
    copy_to_host(out.data(), count_.data() + static_cast<std::size_t>(which) * out.size(),
                 out.size() * sizeof(int));
  return out;
}

// All that the host hears of a list whose pairs stay here.
template <class T>
void GpuBackend<T>::describe_pairs(PairList* out) const {
  out->natoms = state_.natoms, out->nrows = state_.nrows;
  out->size = static_cast<std::int64_t>(sizes_.pairs);
  out->types_present = types_present_;
  out->max_count = most_pairs_;
  out->overfull_atom = -1;
  out->overfull_count = out->overfull_nsel = 0;
  if (!any_overfull_) return;
  const std::vector<int> code = atom_counts(kOverfull);
  const auto most = std::max_element(code.begin(), code.end(),
                                     [](int a, int b) { return overfull_count(a) < overfull_count(b); });
  const int nsel[kViewers] = {model_.repinit.nsel, model_.three_body.nsel, rep().nsel};
  out->overfull_atom = static_cast<int>(most - code.begin());
  out->overfull_count = overfull_count(*most);
  out->overfull_nsel = nsel[overfull_viewer(*most)];
}

// Numbers the pairs, once there is room for what that needs, and groups them by row.
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
  list_crowded();
  auto* pair_of = s.forces ? reinterpret_cast<std::int32_t*>(dg2_.data()) : nullptr;
  auto* repformer_of = s.forces ? pair_of + sizes_.candidates : nullptr;
  const int items = warp_items(s.natoms);
  start(
      NumberPairs{
          {candidates()}, s.repinit.first, s.repformer.first, repformer_row_.data(), pair_of, repformer_of},
      items);
  if (!s.forces) return;
  const RowView rows{
      s.nrows, candidate_row_scan_.first.data(), row_candidate_.data(), {pair_of, repformer_of}};
  const int row_items = warp_items(s.nrows);
  start(CountRows{rows, row_count_.data()}, row_items);
  scan(2, s.nrows, row_count_, &row_scan_);
  start(FillRows{rows, row_scan_.first.data(), by_row_.data(), by_row_repformer_.data()}, row_items);
}

// Of the kernels with a warp for an atom, some serve atoms with many neighbours.
template <class T>
void GpuBackend<T>::list_crowded() {
#if defined(__CUDACC__)
  if (!warp_pairs_ || most_repformer_ <= kFewNeighbors) return;
  clear(crowded_.data(), 1);
  start(ListCrowded{state_.natoms, state_.repformer.count, crowded_.data(), crowded_.data() + 1},
        (state_.natoms + ListCrowded::kPiece - 1) / ListCrowded::kPiece);
#endif
}

// Writes the pairs of a chunk down.
template <class T>
void GpuBackend<T>::fill_pairs(Range a) {
  const std::int64_t before = pairs_before(a.begin).pairs;
  start(FillPairs{{candidates()},
                  state_.repinit.first,
                  moved(vec_.data(), before, 3),
                  moved(r_.data(), before, 1),
                  moved(type_.data(), before, 1)},
        Range{a.begin / kWarpItems, warp_items(a.end)});
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
