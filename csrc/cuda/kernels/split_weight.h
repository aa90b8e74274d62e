// A weight of the dense products (dense_product.h), split into halves by the host.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "cuda/kernels/views.h"

#if defined(__CUDACC__)

namespace dpa2md {
namespace gpu {

constexpr int kGroupColumns = 32;  // columns whose fragments lie together
constexpr int kStageDepth = 32;    // of the contraction, with one factor a row
constexpr int kTileColumns = 128;  // of a block: a group for each of 4 warps

// Halves of four numbers of a row: 0, 1 and 2, 3 as they are and what is left of them.
struct alignas(16) Halves {
  std::uint32_t high[2], low[2];
};
// A lane's part of 16 columns: 4t, 4t + 1 of columns g and g + 8, then 4t + 2, 4t + 3.
struct alignas(16) Quad {
  std::uint32_t x[4];
};
struct WeightTile {
  Quad high, low;
};

// A weight (k, n): for every 16 of the contraction and every group of columns, the lanes' Quads of its two
// tiles, high and low; and the columns' factors. Padded with zeros beyond k and n.
struct SplitWeight {
  const Quad* fragments = nullptr;
  const float* scale = nullptr;  // (n)
  int k = 0, n = 0;

  DPA2MD_KERNEL int stages() const { return (k + kStageDepth - 1) / kStageDepth; }
  DPA2MD_KERNEL int groups() const { return (n + kGroupColumns - 1) / kGroupColumns; }
  DPA2MD_KERNEL int tiles() const { return (n + kTileColumns - 1) / kTileColumns; }
  // The fragments of a step of the contraction and a group of columns.
  DPA2MD_KERNEL const Quad* at(int step, int group) const {
    return fragments + (static_cast<std::size_t>(step) * groups() + group) * 128;
  }
};

// ---- weights, by the host

// Rounds x, |x| < 65504, to the nearest half; also returns its bits.
inline double nearest_half(double x, std::uint32_t* bits) {
  int exponent = 0;
  std::frexp(x, &exponent);
  const int last = exponent - 11 < -24 ? -24 : exponent - 11;  // 2^last is its last bit
  const auto steps = static_cast<std::uint32_t>(std::lrint(std::ldexp(std::fabs(x), -last)));
  *bits = (static_cast<std::uint32_t>(last + 24) << 10) + steps + (x < 0 ? 0x8000u : 0u);
  return std::copysign(std::ldexp(steps, last), x);
}

struct HostWeight {
  std::vector<Quad> fragments;
  std::vector<float> scale;
};
inline HostWeight split_weight(const double* w, int k, int n) {
  const SplitWeight shape{nullptr, nullptr, k, n};
  HostWeight out;
  std::vector<int> power(n);  // a column's numbers times 2^power are below 2^14
  for (int c = 0; c < n; ++c) {
    double most = 0;
    for (int r = 0; r < k; ++r) most = std::fmax(most, std::fabs(w[static_cast<std::size_t>(r) * n + c]));
    int exponent = 0;
    std::frexp(most, &exponent);
    power[c] = 14 - (exponent < -100 ? -100 : exponent);
    out.scale.push_back(static_cast<float>(std::ldexp(1.0, -power[c])));
  }
  const auto halves = [&](int row, int column, std::uint32_t* high, std::uint32_t* low) {
    *high = *low = 0;
    if (row >= k || column >= n) return;
    const double exact = std::ldexp(w[static_cast<std::size_t>(row) * n + column], power[column]);
    nearest_half(exact - nearest_half(exact, high), low);
  };
  for (int step = 0; step < 2 * shape.stages(); ++step) {
    for (int e = 0; e < shape.groups() * 128; ++e) {
      const int lane = e % 32, g = lane / 4, t = lane % 4;
      Quad q{};
      for (int i = 0; i < 8; ++i) {
        const int row = 16 * step + 4 * t + i / 4 * 2 + i % 2;
        const int column = e / 128 * kGroupColumns + 4 * g + e / 64 % 2 * 2 + i / 2 % 2;
        std::uint32_t of[2];
        halves(row, column, &of[0], &of[1]);
        q.x[i / 2] |= of[e / 32 % 2] << 16 * (i % 2);
      }
      out.fragments.push_back(q);
    }
  }
  return out;
}

}  // namespace gpu
}  // namespace dpa2md

#endif
