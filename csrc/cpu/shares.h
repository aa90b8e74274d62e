// Where the gradient that a pair sends to its neighbour's g1 is summed up: pairs of one block of atoms that
// point at the same row share a slot, so that few long rows pass through memory, in an order that no race
// decides.
#pragma once

#include <cstdint>
#include <vector>

#include "../pairs.h"
#include "simd.h"

namespace dpa2md {
namespace DPA2MD_ISA {

struct Shares {
  std::vector<std::int32_t> slot;       // (pairs of the prefix)
  std::vector<std::int64_t> first;      // (blocks + 1) a block's slots
  std::vector<std::int64_t> row_first;  // (nrows + 1)
  std::vector<std::int32_t> row_slot;   // (slots) of every row, block after block

  // Blocks are stretches of `block` atoms; `near` is a prefix of the pairs.
  void build(const PairList& pairs, const Prefix& near, int block);
  std::size_t size() const { return first.empty() ? 0 : static_cast<std::size_t>(first.back()); }

 private:
  std::vector<std::int32_t> rows_;  // (pairs) rows of a block's slots, from its first pair on
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
