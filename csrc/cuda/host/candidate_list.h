// The atoms of a step and the candidates of its pair list, on the device. Candidates are uploaded, or
// searched in the host's bins, only when the host's list changed.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "base/error.h"
#include "cuda/host/prefix_sums.h"
#include "cuda/host/starter.h"
#include "cuda/host/step_sizes.h"
#include "cuda/kernels/candidates.h"
#include "cuda/kernels/pair_list.h"
#include "model/model.h"
#include "neighbors/neighbor_bins.h"
#include "neighbors/pairs.h"

namespace dpa2md {
namespace DPA2MD_GPU {

class CandidateList {
 public:
  CandidateList(const Model& model, Starter* starter) : model_(model), starter_(starter) {}

  // Takes a step's atoms; `by_row`: the reverse sweep needs the candidates of every row, too. Sets what it
  // knows of *sizes. Returns whether the list changed.
  bool update(const Atoms& atoms, bool by_row, StepSizes* sizes);
  // Everything has to be uploaded anew: its memory was freed.
  void forget() { version_ = 0; }
  void plan(const StepSizes& z, std::vector<Need>* needs);

  CandidateView view() const {
    return {natoms_,
            model_.ntypes(),
            x_.data(),
            type_.data(),
            host_row_.empty() ? nullptr : row_.data(),
            first_.first.data(),
            atom_.data(),
            shift_.data(),
            shift_vectors_.data(),
            mark_.data()};
  }
  std::size_t size() const { return atom_.size(); }
  int most() const { return most_; }  // candidates of one atom
  // The candidates by row, if update() was asked for them: (nrows + 1) where a row's begin.
  const std::int64_t* row_first() const { return row_first_.first.data(); }
  const std::int32_t* by_row() const { return row_candidate_.data(); }
  int most_of_row() const { return most_of_row_; }
  const int* types() const { return type_.data(); }
  const std::vector<int>& host_types() const { return host_type_; }          // (positions)
  const std::vector<char>& types_present() const { return types_present_; }  // (nt)

 private:
  void upload(const Atoms& atoms);
  void search(const Atoms& atoms);
  void group_rows(int nrows);
  void upload_positions(const Atoms& atoms);
  bool rows_are(const int* row) const;

  const Model& model_;
  Starter* starter_;
  std::uint64_t version_ = 0;  // of the host's list; 0: none to use again
  int natoms_ = 0, positions_ = 0, most_ = 0, most_of_row_ = 0;
  std::size_t binned_ = 0, bins_count_ = 0, frames_ = 0;
  // What the device has of the host's.
  std::vector<double> host_shift_vectors_;
  std::vector<int> host_type_, host_row_;  // (positions); no rows: they are the positions
  std::vector<char> types_present_;
  HostBuffer<double> host_x_;

  Buffer<double> x_, shift_vectors_;
  Buffer<int> type_, row_;                             // (positions)
  Buffer<int> count_, row_count_;                      // candidates of an atom, of a row
  PrefixSums first_, row_first_;                       // of these
  Buffer<std::int32_t> atom_, shift_, row_candidate_;  // see pair_list.h
  bool rows_known_ = false;                            // row_first_ and row_candidate_ are filled
  Buffer<unsigned char> mark_;
  struct {
    Buffer<Grid> grids;
    Buffer<double> px, py, pz, ux, uy, uz;
    Buffer<std::int64_t> wrap_key, zero_shift;
    Buffer<std::int32_t> atom_of, grid_of, bin_start;
  } bins_;
};

inline void check_candidates(std::int64_t count) {
  if (count > std::numeric_limits<std::int32_t>::max())
    throw Error("a GPU takes no more than 2^31 pairs of atoms: use fewer atoms or more GPUs.");
}

inline bool CandidateList::update(const Atoms& atoms, bool by_row, StepSizes* sizes) {
  const Candidates& c = *atoms.candidates;
  const bool changed = c.version == 0 || c.version != version_ || !rows_are(atoms.row);
  natoms_ = atoms.natoms;
  if (changed) {
    version_ = 0;  // until all of it is there
    rows_known_ = false;
    c.bins ? search(atoms) : upload(atoms);
    host_row_.assign(atoms.row, atoms.row ? atoms.row + positions_ : nullptr);
    row_.upload(host_row_);
    version_ = c.version;
  }
  if (by_row && !rows_known_) group_rows(atoms.nrows);
  if (c.shift_vectors != host_shift_vectors_ || shift_vectors_.size() != c.shift_vectors.size()) {
    shift_vectors_.upload(c.shift_vectors);
    host_shift_vectors_ = c.shift_vectors;
  }
  upload_positions(atoms);
  sizes->natoms = atoms.natoms, sizes->nrows = atoms.nrows, sizes->positions = positions_;
  sizes->candidates = atom_.size(), sizes->shifts = c.shift_vectors.size() / 3;
  sizes->binned = binned_, sizes->bins = bins_count_, sizes->frames = frames_;
  return changed;
}

// What it allocates, and the marks of the candidates.
inline void CandidateList::plan(const StepSizes& z, std::vector<Need>* needs) {
  const std::size_t back = z.forces;
  append({need(&x_, 3 * z.positions),
          need(&type_, z.positions),
          need(&row_, host_row_.empty() ? 0 : z.positions),
          need(&count_, z.natoms),
          need(&atom_, z.candidates),
          need(&shift_, z.candidates),
          need(&shift_vectors_, 3 * z.shifts),
          need(&mark_, z.candidates),
          need(&row_count_, back * z.nrows),
          need(&row_candidate_, back * z.candidates),
          need(&bins_.grids, z.frames),
          need(&bins_.px, z.binned),
          need(&bins_.py, z.binned),
          need(&bins_.pz, z.binned),
          need(&bins_.ux, z.binned),
          need(&bins_.uy, z.binned),
          need(&bins_.uz, z.binned),
          need(&bins_.wrap_key, z.binned),
          need(&bins_.atom_of, z.binned),
          need(&bins_.grid_of, z.binned),
          need(&bins_.zero_shift, z.frames),
          need(&bins_.bin_start, z.bins)},
         needs);
  first_.plan(1, z.natoms, needs);
  row_first_.plan(back, z.nrows, needs);
}

// Uploads the host's candidates.
inline void CandidateList::upload(const Atoms& atoms) {
  const Candidates& c = *atoms.candidates;
  check_candidates(static_cast<std::int64_t>(c.atom.size()));
  positions_ = atoms.natoms;
  for (const std::int32_t j : c.atom) positions_ = std::max(positions_, j + 1);
  most_ = 0;
  for (int i = 0; i < atoms.natoms; ++i)
    most_ = std::max(most_, static_cast<int>(c.first[i + 1] - c.first[i]));
  first_.first.upload(c.first.data(), atoms.natoms + 1);
  atom_.upload(c.atom);
  shift_.upload(c.shift);
  binned_ = bins_count_ = frames_ = 0;
}

// Finds the candidates in the host's bins.
inline void CandidateList::search(const Atoms& atoms) {
  const Candidates& c = *atoms.candidates;
  const AtomBins& from = *c.bins;
  bins_.grids.upload(from.grids);
  bins_.px.upload(from.px), bins_.py.upload(from.py), bins_.pz.upload(from.pz);
  bins_.ux.upload(from.ux), bins_.uy.upload(from.uy), bins_.uz.upload(from.uz);
  bins_.wrap_key.upload(from.wrap_key), bins_.zero_shift.upload(c.zero_shift);
  bins_.atom_of.upload(from.atom_of), bins_.grid_of.upload(from.grid_of);
  bins_.bin_start.upload(from.bin_start);
  binned_ = from.atom_of.size(), bins_count_ = from.bin_start.size(), frames_ = from.grids.size();
  positions_ = atoms.natoms;
  const SearchView v{static_cast<int>(from.atom_of.size()),
                     {bins_.grids.data(), bins_.px.data(), bins_.py.data(), bins_.pz.data(), bins_.ux.data(),
                      bins_.uy.data(), bins_.uz.data(), bins_.grid_of.data(), bins_.bin_start.data()},
                     bins_.wrap_key.data(),
                     bins_.atom_of.data(),
                     bins_.zero_shift.data()};
  const int items = warp_items(v.atoms);
  count_.resize(atoms.natoms);
  zero(count_.data(), count_.size() * sizeof(int));  // virtual atoms have none
  starter_->start(CountCandidates{v, count_.data()}, items);
  const PrefixSums::Sums sums = first_.scan_alone(starter_, atoms.natoms, count_);
  check_candidates(sums.total);
  most_ = sums.most;
  atom_.resize(static_cast<std::size_t>(sums.total));
  shift_.resize(static_cast<std::size_t>(sums.total));
  starter_->start(FillCandidates{v, first_.first.data(), atom_.data(), shift_.data()}, items);
}

// Groups the candidates by their neighbour's row, ascending within a row.
inline void CandidateList::group_rows(int nrows) {
  const CandidateRows v{static_cast<std::int64_t>(atom_.size()), atom_.data(),
                        host_row_.empty() ? nullptr : row_.data()};
  row_count_.resize(nrows);
  row_candidate_.resize(atom_.size());
  zero(row_count_.data(), row_count_.size() * sizeof(int));
  starter_->start(CountRowCandidates{v, row_count_.data()}, v.items());
  most_of_row_ = row_first_.scan_alone(starter_, nrows, row_count_).most;
  const std::int64_t* first = row_first();
  starter_->start(FillRowCandidates{v, first, row_count_.data(), row_candidate_.data()}, v.items());
  starter_->start(SortRowCandidates{nrows, most_of_row_, first, row_candidate_.data()}, nrows);
  rows_known_ = true;
}

// Whether the positions' rows are those of the list on the device.
inline bool CandidateList::rows_are(const int* row) const {
  if (!row) return host_row_.empty();
  return static_cast<int>(host_row_.size()) == positions_ &&
         std::equal(host_row_.begin(), host_row_.end(), row);
}

// Uploads the positions, and the types if they changed.
inline void CandidateList::upload_positions(const Atoms& atoms) {
  const std::size_t size = 3 * static_cast<std::size_t>(positions_);
  host_x_.resize(size);
  std::copy_n(atoms.x, size, host_x_.data());
  x_.resize(size);
  copy_to_device_later(x_.data(), host_x_.data(), size * sizeof(double));
  if (static_cast<int>(host_type_.size()) == positions_ &&
      std::equal(host_type_.begin(), host_type_.end(), atoms.type) && type_.size() == host_type_.size())
    return;
  host_type_.clear();
  check_atoms(model_, atoms);
  host_type_.assign(atoms.type, atoms.type + positions_);
  type_.upload(host_type_);
  types_present_.assign(model_.ntypes(), 0);
  for (const int t : host_type_) {
    if (t >= 0 && t < model_.ntypes()) types_present_[t] = 1;
  }
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
