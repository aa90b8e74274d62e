// Reduces the atoms' energies and virials over frames, in a fixed order, and stores the pair list's totals
// beside them for the host.
#pragma once

#include "cuda/block/block.h"

namespace dpa2md {
namespace DPA2MD_GPU {

constexpr int kSums = 10;         // energy, virial
constexpr int kRowsOfTile = 256;  // at most
constexpr int kCounters = 3;

// Rows of one frame.
struct RowTile {
  int begin, end;
};

// Reduces the rows of a tile; an item is a tile. If every frame is one tile, these are the frames' sums.
struct SumRows {
  int natoms;
  const RowTile* tiles;
  const double *energy, *virial;  // (natoms), (rows, 9) or null
  double* sums;                   // (tiles, kSums)
  int count;                      // number of totals
  const std::int64_t* total;      // (count) the pair list's totals
  double* told;                   // (count) their copies, downloaded with the results
  int* zero[kCounters];           // counters to reset for the next step; null: none

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int t, Scratch) const {
    const RowTile rows = tiles[t];
    for (int k = b.thread; t == 0 && k < count; k += b.threads) told[k] = static_cast<double>(total[k]);
    for (int k = b.thread; t == 0 && k < kCounters; k += b.threads) {
      if (zero[k]) *zero[k] = 0;
    }
    b.each_warp(kSums, [&](int c) {
      double sum = 0;
      DPA2MD_UNROLL
      for (int k = 0; k < kRowsOfTile; k += b.lanes) {
        const int row = rows.begin + k + b.lane;
        if (row < rows.end) sum += part(row, c);
      }
      sum = b.lane_sum(sum);
      if (b.lane == 0) sums[static_cast<std::int64_t>(t) * kSums + c] = sum;
    });
  }

 private:
  DPA2MD_KERNEL double part(int row, int c) const {
    if (c == 0) return row < natoms ? energy[row] : 0.0;
    return virial ? virial[9 * static_cast<std::int64_t>(row) + c - 1] : 0.0;
  }
};

// Reduces the tiles of each frame; an item is a frame.
struct SumFrames {
  const int* first;    // (frames + 1) tile
  const double* tile;  // (tiles, kSums)
  double* sums;        // (frames, kSums)

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int f, Scratch) const {
    b.each_warp(kSums, [&](int c) {
      double sum = 0;
      for (int t = first[f] + b.lane; t < first[f + 1]; t += b.lanes)
        sum += tile[static_cast<std::int64_t>(t) * kSums + c];
      sum = b.lane_sum(sum);
      if (b.lane == 0) sums[static_cast<std::int64_t>(f) * kSums + c] = sum;
    });
  }
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
