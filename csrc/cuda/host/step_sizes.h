// The sizes that decide a step's memory, and what its arrays need.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "cuda/host/device.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// Counts of the sub-networks' pairs (pair_list.h): repinit's, which are all, the three-body one's, the
// repformers'.
struct PairNumbers {
  std::int64_t pairs = 0, three = 0, repformer = 0;
};

// Atoms, rows and positions (pairs.h); candidates and their shifts; for a search on the device, atoms in
// bins, bins and frames; frames that get sums; all pairs and the repformers' pairs; the largest chunk's atoms
// and pairs of each sub-network; whether there is a reverse sweep.
struct StepSizes {
  std::size_t natoms = 0, nrows = 0, positions = 0, candidates = 0, shifts = 0, pairs = 0, repformer = 0;
  std::size_t binned = 0, bins = 0, frames = 0, result_frames = 1;
  std::size_t chunk = 0, chunk_pairs = 0, chunk_three = 0, chunk_repformer = 0;
  bool forces = false;
  bool keep_attention = true;  // KeptAttention, if there is memory for it

  // Scales the sizes to n atoms.
  StepSizes scaled_to(std::int64_t n) const {
    StepSizes to = *this;
    const auto scale = [&](double factor, std::initializer_list<std::size_t StepSizes::*> sizes) {
      for (const auto size : sizes)
        to.*size = static_cast<std::size_t>(std::ceil(factor * static_cast<double>(this->*size)));
    };
    scale(static_cast<double>(n) / static_cast<double>(natoms),
          {&StepSizes::natoms, &StepSizes::nrows, &StepSizes::positions, &StepSizes::candidates,
           &StepSizes::pairs, &StepSizes::repformer, &StepSizes::binned, &StepSizes::bins});
    const auto in_chunk = static_cast<double>(std::min<std::int64_t>(n, chunk_atoms()));
    scale(in_chunk / static_cast<double>(chunk),
          {&StepSizes::chunk, &StepSizes::chunk_pairs, &StepSizes::chunk_three, &StepSizes::chunk_repformer});
    return to;
  }
};

// The bytes that an array needs for a step.
struct Need {
  Storage* storage;
  std::size_t bytes;
};
template <class T>
Need need(Buffer<T>* buffer, std::size_t n) {
  return {buffer, n * sizeof(T)};
}
inline void append(std::initializer_list<Need> more, std::vector<Need>* needs) {
  needs->insert(needs->end(), more);
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
