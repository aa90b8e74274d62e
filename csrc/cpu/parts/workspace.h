// The input of every stage: the step, and the scratch of its thread.
#pragma once

#include <algorithm>
#include <memory>

#include "base/threads.h"
#include "cpu/vector/memory.h"
#include "engine/backend.h"

namespace dpa2md {
namespace DPA2MD_ISA {

class Workspace {
 public:
  Workspace(const Model& m, int count, bool low)
      : model(m), threads(count), low_memory(low), arenas_(new Arena[count]) {}

  const Model& model;
  const int threads;
  const bool low_memory;
  StepInput input;
  StepOutput output;
  int block = 1;        // atoms of a stage call in this step
  int group_atoms = 1;  // of gradients by weights: gradients.h
  int group(int i) const { return i / group_atoms; }

  const PairList& pairs() const { return *input.pairs; }
  Arena& arena() const { return arenas_[thread_index()]; }

  // The index of atom i in an array that holds one block per thread, (threads, block, ...),
  std::size_t in_block(int i) const { return static_cast<std::size_t>(thread_index()) * block + i % block; }
  // and of its first pair in an array of the blocks' pairs, at most `most` per block.
  std::size_t in_block(const Prefix& p, std::size_t most, int i) const {
    return static_cast<std::size_t>(thread_index()) * most + p.first[i] - p.first[i - i % block];
  }

 private:
  std::unique_ptr<Arena[]> arenas_;
};

// Most pairs of a block of atoms, in whole cache lines, so that threads do not share any.
inline std::size_t most_in_block(const Prefix& p, int natoms, int block) {
  std::int64_t most = 0;
  for (int i = 0; i < natoms; i += block)
    most = std::max(most, p.first[std::min(natoms, i + block)] - p.first[i]);
  return static_cast<std::size_t>(most + 15) / 16 * 16 + 16;
}

// Rows of atoms, one after the other.
template <class T>
struct Rows {
  T* data;
  int width;  // from one row to the next
  T* operator[](int k) const { return data + static_cast<std::size_t>(k) * width; }
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
