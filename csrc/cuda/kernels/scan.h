// Prefix sums of counts: the offsets of each atom's (or row's) entries. Scans several arrays of the same
// length at once, one warp per array; three kernels for several tiles, one kernel for a single tile.
#pragma once

#include <climits>
#include <cstdint>

#include "cuda/block/block.h"

namespace dpa2md {
namespace DPA2MD_GPU {

constexpr int kTile = 1024;  // counts of an item
constexpr int kScanArrays = 5;

// Upper limits for the sum of an array's counts, and for each count.
struct ScanLimit {
  std::int64_t sum = INT64_MAX;
  int most = INT_MAX;
};

struct ScanView {
  int arrays, n;
  int* count;           // (arrays, n)
  std::int64_t* first;  // (arrays, n + 1) the sum of all counts before; at the end of all
  std::int64_t* tile;   // (arrays, tiles) sums of tiles, then of all tiles before
  int* tile_most;       // (arrays, tiles) their largest count
  std::int64_t* total;  // (2, arrays) the sum and the largest count
  // If any limit is exceeded, all counts and prefix sums become zero, so that nothing is written out of
  // bounds; `total` keeps the true sums.
  ScanLimit limit[kScanArrays];

  DPA2MD_KERNEL bool fits(int a) const {
    return total[a] <= limit[a].sum && total[arrays + a] <= limit[a].most;
  }
  DPA2MD_KERNEL int tiles() const { return (n + kTile - 1) / kTile; }
  DPA2MD_KERNEL int tile_end(int t) const { return n - t * kTile < kTile ? n : (t + 1) * kTile; }
};

// Sums and largest counts of the tiles; an item is a tile.
struct SumTiles {
  ScanView v;

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int t, Scratch) const {
    b.each_warp(v.arrays, [&](int a) {
      const int* count = v.count + static_cast<std::int64_t>(a) * v.n;
      std::int64_t sum = 0;
      int most = 0;
      for (int k = t * kTile + b.lane; k < v.tile_end(t); k += b.lanes) {
        sum += count[k];
        most = count[k] > most ? count[k] : most;
      }
      sum = b.lane_sum(sum);
      most = b.lane_max(most);
      if (b.lane != 0) return;
      v.tile[a * v.tiles() + t] = sum;
      v.tile_most[a * v.tiles() + t] = most;
    });
  }
};

DPA2MD_KERNEL inline bool all_fit(const ScanView& v) {
  bool fit = true;
  for (int a = 0; a < v.arrays; ++a) fit = fit && v.fits(a);
  return fit;
}

// Running sums of the tiles; a single item.
struct ScanTiles {
  ScanView v;

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int, Scratch) const {
    b.each_warp(v.arrays, [&](int a) {
      std::int64_t* tile = v.tile + a * v.tiles();
      std::int64_t total = 0;
      int most = 0;
      for (int t0 = 0; t0 < v.tiles(); t0 += b.lanes) {
        const int t = t0 + b.lane;
        const bool inside = t < v.tiles();
        const std::int64_t sum = inside ? tile[t] : 0, before = b.lane_before(sum);
        const int here = inside ? v.tile_most[a * v.tiles() + t] : 0;
        if (inside) tile[t] = total + before;
        total += b.lane_sum(sum);
        most = here > most ? here : most;
      }
      most = b.lane_max(most);
      if (b.lane != 0) return;
      v.total[a] = total;
      v.total[v.arrays + a] = most;
    });
    const bool fit = all_fit(v);
    b.each(v.arrays,
           [&](int a) { v.first[static_cast<std::int64_t>(a) * (v.n + 1) + v.n] = fit ? v.total[a] : 0; });
  }
};

// Running sums of the counts; an item is a tile.
struct ScanCounts {
  ScanView v;

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int t, Scratch) const {
    const bool fit = all_fit(v);
    b.each_warp(v.arrays, [&](int a) {
      int* count = v.count + static_cast<std::int64_t>(a) * v.n;
      std::int64_t* first = v.first + static_cast<std::int64_t>(a) * (v.n + 1);
      std::int64_t sum = v.tile[a * v.tiles() + t];
      for (int k0 = t * kTile; k0 < v.tile_end(t); k0 += b.lanes) {
        const int k = k0 + b.lane;
        const std::int64_t here = k < v.tile_end(t) ? count[k] : 0, before = b.lane_before(here);
        if (k < v.tile_end(t)) {
          first[k] = fit ? sum + before : 0;
          if (!fit) count[k] = 0;
        }
        sum += b.lane_sum(here);
      }
    });
  }
};

// All three where there is one tile: running sums, total, largest count; a single item.
struct ScanOnce {
  ScanView v;

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int, Scratch) const {
    b.each_warp(v.arrays, [&](int a) {
      const int* count = v.count + static_cast<std::int64_t>(a) * v.n;
      std::int64_t* first = v.first + static_cast<std::int64_t>(a) * (v.n + 1);
      std::int64_t sum = 0;
      int most = 0;
      for (int k0 = 0; k0 < v.n; k0 += b.lanes) {
        const int k = k0 + b.lane;
        const int here = k < v.n ? count[k] : 0;
        const int before = b.lane_before(here);
        if (k < v.n) first[k] = sum + before;
        sum += b.lane_sum(here);
        most = here > most ? here : most;
      }
      most = b.lane_max(most);
      if (b.lane != 0) return;
      first[v.n] = sum;
      v.total[a] = sum;
      v.total[v.arrays + a] = most;
    });
    if (all_fit(v)) return;
    b.each(v.arrays * (v.n + 1), [&](int k) { v.first[k] = 0; });
    b.each(v.arrays * v.n, [&](int k) { v.count[k] = 0; });
  }
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
