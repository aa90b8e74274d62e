// Scatter-add of the pairs' shares (gradients of g1, forces) to their neighbours' rows, in a fixed order and
// without races. Pairs of one block of atoms with the same row share a slot, so that few rows pass through
// memory. Slots are held for one span of blocks, after which they are added to the rows.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/vector/simd.h"
#include "neighbors/pairs.h"

namespace dpa2md {
namespace DPA2MD_ISA {

struct Shares {
  struct Span {
    std::vector<std::int32_t> first;      // (blocks + 1) a block's slots
    std::vector<std::int32_t> row;        // the rows that slots belong to
    std::vector<std::int32_t> row_first;  // (rows + 1)
    std::vector<std::int32_t> row_slot;   // (slots) of every row, block after block
  };
  std::vector<std::int32_t> slot;  // (pairs of the prefix) in its span
  std::vector<Span> span;

  // Blocks are stretches of `block` atoms, spans of `blocks` such blocks; `prefix` is a prefix of the pairs.
  void build(const PairList& pairs, const Prefix& prefix, int block, int blocks);
  // The largest number of slots of a span.
  std::size_t size() const;
  const Span& of_atom(int i) const { return span[i / (block_ * blocks_)]; }
  // First slot of the atom's block, and one past its last.
  std::int32_t begin(int i) const { return of_atom(i).first[i / block_ % blocks_]; }
  std::int32_t end(int i) const { return of_atom(i).first[i / block_ % blocks_ + 1]; }

 private:
  int block_ = 1, blocks_ = 1;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
