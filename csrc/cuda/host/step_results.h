// The results of a step on the device: totals of the pair list, sums of frames, energies, forces, virials.
// All come to the host in one transfer.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "cuda/host/starter.h"
#include "cuda/host/step_sizes.h"
#include "cuda/kernels/pair_list.h"
#include "cuda/kernels/sums.h"
#include "engine/backend.h"

namespace dpa2md {
namespace DPA2MD_GPU {

class StepResults {
 public:
  explicit StepResults(Starter* starter) : starter_(starter) {}

  void plan(const StepSizes& z, std::vector<Need>* needs) {
    const std::size_t tiles = z.result_frames + z.nrows / kRowsOfTile;  // at most
    append({need(&results_, kTotals + kSums * z.result_frames + z.natoms + z.forces * (3 + 9) * z.nrows),
            need(&tiles_, tiles), need(&frame_tile_, z.result_frames + 1), need(&tile_sums_, kSums * tiles)},
           needs);
  }
  // Its memory is there, with other contents than before.
  void set_sizes(const StepSizes& z) { sizes_ = z, frame_start_.clear(); }

  double* energy() const { return frame_sums() + kSums * sizes_.result_frames; }  // (natoms)
  double* force() const { return energy() + sizes_.natoms; }                      // (nrows, 3)
  double* virial() const { return force() + 3 * sizes_.nrows; }                   // (nrows, 9)

  void divide_frames(const StepInput& input);
  void sum_frames(const std::int64_t* totals, const std::array<int*, kCounters>& counters);
  // Waits for the step. Returns the pair list's totals, (2, kCounts), then what copy() takes.
  const double* download(bool virials);
  void copy(const double* from, const StepOutput& to) const;

  static constexpr int kTotals = 2 * kCounts;

 private:
  double* frame_sums() const { return results_.data() + kTotals; }

  Starter* starter_;
  StepSizes sizes_;
  Buffer<double> results_;  // (kTotals), (frames, kSums), energies, forces, virials
  HostBuffer<double> host_results_;
  std::vector<int> frame_start_, first_tile_;  // of frames; (frames + 1) the first tile of each
  std::vector<RowTile> host_tiles_;
  Buffer<RowTile> tiles_;
  Buffer<int> frame_tile_;
  Buffer<double> tile_sums_;
};

// Divides every frame's rows into tiles, if the frames changed since the last step.
inline void StepResults::divide_frames(const StepInput& input) {
  const std::vector<int> all = {0, static_cast<int>(sizes_.nrows)};
  const std::vector<int>& start = input.frame_start ? *input.frame_start : all;
  if (start == frame_start_) return;
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

// counters: set to zero for the next step; null: none.
inline void StepResults::sum_frames(const std::int64_t* totals, const std::array<int*, kCounters>& counters) {
  const int tiles = static_cast<int>(host_tiles_.size()), frames = static_cast<int>(first_tile_.size()) - 1;
  double* to = tiles == frames ? frame_sums() : tile_sums_.data();
  SumRows kernel{static_cast<int>(sizes_.natoms),
                 tiles_.data(),
                 energy(),
                 sizes_.forces ? virial() : nullptr,
                 to,
                 kTotals,
                 totals,
                 results_.data(),
                 {}};
  std::copy(counters.begin(), counters.end(), kernel.zero);
  starter_->start(kernel, tiles);
  if (tiles != frames)
    starter_->start(SumFrames{frame_tile_.data(), tile_sums_.data(), frame_sums()}, frames);
}

inline const double* StepResults::download(bool virials) {
  const double* end = !sizes_.forces ? force() : virials ? results_.data() + results_.size() : virial();
  const auto size = static_cast<std::size_t>(end - results_.data());
  host_results_.resize(results_.size());
  copy_to_host(host_results_.data(), results_.data(), size * sizeof(double));
  return host_results_.data();
}

inline void StepResults::copy(const double* from, const StepOutput& to) const {
  for (std::size_t f = 0; f < sizes_.result_frames; ++f, from += kSums) {
    if (to.frame_energy) to.frame_energy[f] = from[0];
    if (to.frame_virial && sizes_.forces) std::copy_n(from + 1, kSums - 1, to.frame_virial + 9 * f);
  }
  const auto take = [&](double* array, std::size_t n) {
    if (array) std::copy_n(from, n, array);
    from += n;
  };
  take(to.energy, sizes_.natoms);
  if (!sizes_.forces) return;
  take(to.force, 3 * sizes_.nrows);
  take(to.virial, 9 * sizes_.nrows);
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
