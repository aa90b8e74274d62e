// GpuBackend: searches the candidates in the host's bins and orders them by row. Repeated only when the host
// rebuilds the bins.
#pragma once

#include <limits>

#include "base/error.h"
#include "cuda/host/gpu_backend.h"
#include "cuda/kernels/candidates.h"

namespace dpa2md {
namespace DPA2MD_GPU {

inline void check_candidates(std::int64_t count) {
  if (count > std::numeric_limits<std::int32_t>::max())
    throw Error("a GPU takes no more than 2^31 pairs of atoms: use fewer atoms or more GPUs.");
}

template <class T>
void GpuBackend<T>::search(const Atoms& atoms) {
  const Candidates& c = *atoms.candidates;
  const AtomBins& from = *c.bins;
  bins_.grids.upload(from.grids);
  bins_.px.upload(from.px), bins_.py.upload(from.py), bins_.pz.upload(from.pz);
  bins_.ux.upload(from.ux), bins_.uy.upload(from.uy), bins_.uz.upload(from.uz);
  bins_.wrap_key.upload(from.wrap_key), bins_.zero_shift.upload(c.zero_shift);
  bins_.atom_of.upload(from.atom_of), bins_.grid_of.upload(from.grid_of);
  bins_.bin_start.upload(from.bin_start);
  sizes_.binned = from.atom_of.size(), sizes_.bins = from.bin_start.size(), sizes_.frames = from.grids.size();
  positions_ = atoms.natoms;
  sizes_.natoms = atoms.natoms;
  const SearchView v{static_cast<int>(from.atom_of.size()),
                     {bins_.grids.data(), bins_.px.data(), bins_.py.data(), bins_.pz.data(), bins_.ux.data(),
                      bins_.uy.data(), bins_.uz.data(), bins_.grid_of.data(), bins_.bin_start.data()},
                     bins_.wrap_key.data(),
                     bins_.atom_of.data(),
                     bins_.zero_shift.data()};
  const int items = warp_items(v.atoms);
  candidate_count_.resize(atoms.natoms);
  zero(candidate_count_.data(), candidate_count_.size() * sizeof(int));  // virtual atoms have none
  start(CountCandidates{v, candidate_count_.data()}, items);
  const Sums sums = scan_alone(atoms.natoms, candidate_count_, &candidate_scan_);
  check_candidates(sums.total);
  most_candidates_ = sums.most;
  sizes_.candidates = static_cast<std::size_t>(sums.total);
  candidate_atom_.resize(sizes_.candidates);
  candidate_shift_.resize(sizes_.candidates);
  start(FillCandidates{v, candidate_scan_.first.data(), candidate_atom_.data(), candidate_shift_.data()},
        items);
}

// Groups the candidates by their neighbour's row, ascending within a row.
template <class T>
void GpuBackend<T>::group_rows() {
  const int n = state_.nrows;
  const CandidateRows v{static_cast<std::int64_t>(sizes_.candidates), candidate_atom_.data(),
                        host_row_.empty() ? nullptr : position_row_.data()};
  candidate_row_count_.resize(n);
  row_candidate_.resize(sizes_.candidates);
  zero(candidate_row_count_.data(), candidate_row_count_.size() * sizeof(int));
  start(CountRowCandidates{v, candidate_row_count_.data()}, v.items());
  const int most = most_row_candidates_ = scan_alone(n, candidate_row_count_, &candidate_row_scan_).most;
  const std::int64_t* first = candidate_row_scan_.first.data();
  start(FillRowCandidates{v, first, candidate_row_count_.data(), row_candidate_.data()}, v.items());
  start(SortRowCandidates{n, most, first, row_candidate_.data()}, n);
  rows_known_ = true;
}

// Computes the prefix sums of one array of counts, and resizes their buffers.
template <class T>
typename GpuBackend<T>::Sums GpuBackend<T>::scan_alone(int n, const Buffer<int>& count, ScanBuffers* to) {
  const int tiles = (n + kTile - 1) / kTile;
  to->first.resize(n + 1);
  to->tile.resize(tiles);
  to->tile_most.resize(tiles);
  to->total.resize(2);
  scan(1, n, count, to);
  std::int64_t total[2];
  to->total.download(total, 2);
  return {total[0], static_cast<int>(total[1])};
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
