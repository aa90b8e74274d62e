// Prefix sums of arrays of counts (scan.h), with their memory.
#pragma once

#include <algorithm>
#include <vector>

#include "cuda/host/starter.h"
#include "cuda/host/step_sizes.h"
#include "cuda/kernels/scan.h"

namespace dpa2md {
namespace DPA2MD_GPU {

class PrefixSums {
 public:
  Buffer<std::int64_t> first, total;  // (arrays, n + 1), (2, arrays): see ScanView

  // What `arrays` arrays of n counts need.
  void plan(std::size_t arrays, std::size_t n, std::vector<Need>* needs) {
    const std::size_t tiles = arrays * ((n + kTile - 1) / kTile);
    append({need(&first, arrays * (n + 1)), need(&tile_, tiles), need(&tile_most_, tiles),
            need(&total, 2 * arrays)},
           needs);
  }

  // Computes the sums, in memory that plan() was for.
  void scan(Starter* starter, int arrays, int n, const Buffer<int>& count, const ScanLimit* limit = nullptr) {
    ScanView v{arrays, n, count.data(), first.data(), tile_.data(), tile_most_.data(), total.data(), {}};
    if (limit) std::copy_n(limit, arrays, v.limit);
    if (v.tiles() <= 1) return starter->start(ScanOnce{v}, 1);
    starter->start(SumTiles{v}, v.tiles());
    starter->start(ScanTiles{v}, 1);
    starter->start(ScanCounts{v}, v.tiles());
  }

  // The same of one array, in memory that it gets here; returns the sum of the counts and the largest.
  struct Sums {
    std::int64_t total;
    int most;
  };
  Sums scan_alone(Starter* starter, int n, const Buffer<int>& count) {
    std::vector<Need> needs;
    plan(1, n, &needs);
    for (const Need& x : needs) x.storage->resize_bytes(x.bytes);
    scan(starter, 1, n, count);
    std::int64_t sums[2];
    total.download(sums, 2);
    return {sums[0], static_cast<int>(sums[1])};
  }

 private:
  Buffer<std::int64_t> tile_;
  Buffer<int> tile_most_;
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
