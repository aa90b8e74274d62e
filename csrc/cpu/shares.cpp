#include "shares.h"

#include <algorithm>

namespace dpa2md {
namespace DPA2MD_ISA {

void Shares::build(const PairList& pairs, const Prefix& near, int block) {
  const int natoms = pairs.natoms, blocks = (natoms + block - 1) / block;
  slot.resize(static_cast<std::size_t>(near.first[natoms]));
  rows_.resize(slot.size());
  first.assign(blocks + 1, 0);
#pragma omp parallel
  {
    std::vector<int> seen(pairs.nrows, -1);  // block that met the row last, and its slot there
    std::vector<std::int32_t> place(pairs.nrows);
#pragma omp for schedule(static)
    for (int b = 0; b < blocks; ++b) {
      std::int32_t* rows = rows_.data() + near.first[b * block];
      std::int32_t count = 0;
      for (int i = b * block; i < std::min(natoms, (b + 1) * block); ++i) {
        const std::int32_t* row = pairs.row.data() + pairs.repinit.first[i];
        for (int j = 0; j < near.count[i]; ++j) {
          const std::int32_t r = row[j];
          if (seen[r] != b) seen[r] = b, place[r] = count, rows[count++] = r;
          slot[near.first[i] + j] = place[r];
        }
      }
      first[b + 1] = count;
    }
  }
  for (int b = 0; b < blocks; ++b) first[b + 1] += first[b];
  for (int b = 0; b < blocks; ++b) {
    const std::int64_t end = near.first[std::min(natoms, (b + 1) * block)];
    for (std::int64_t q = near.first[b * block]; q < end; ++q) slot[q] += static_cast<std::int32_t>(first[b]);
  }

  row_first.assign(pairs.nrows + 1, 0);
  const auto each_slot = [&](auto&& visit) {
    for (int b = 0; b < blocks; ++b) {
      const std::int32_t* rows = rows_.data() + near.first[b * block];
      for (std::int64_t s = first[b]; s < first[b + 1]; ++s) visit(rows[s - first[b]], s);
    }
  };
  each_slot([&](std::int32_t row, std::int64_t) { ++row_first[row + 1]; });
  for (int r = 0; r < pairs.nrows; ++r) row_first[r + 1] += row_first[r];
  row_slot.resize(size());
  std::vector<std::int64_t> next(row_first.begin(), row_first.end() - 1);
  each_slot([&](std::int32_t row, std::int64_t s) { row_slot[next[row]++] = static_cast<std::int32_t>(s); });
}

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
