// A step's atoms in chunks, and the pairs before each. Arrays that only one run over the atoms reads hold one
// chunk: the pairs themselves, the environment of the embeddings, [D | three-body], g2 of the first and of
// the last layer, a node step's arrays (NodeArrays), and the pairs' shares of gradients.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cuda/host/step_sizes.h"
#include "cuda/kernels/pair_list.h"
#include "cuda/kernels/views.h"
#include "engine/stages.h"

namespace dpa2md {
namespace DPA2MD_GPU {

class Chunks {
 public:
  // Divides n atoms, which have `total` pairs. first: (sub-networks, n + 1) the pairs before every atom, on
  // the device. Sets the chunks' sizes in *sizes.
  void divide(int n, const PairNumbers& total, const Buffer<std::int64_t>& first, StepSizes* sizes) {
    ranges_.clear();
    for (int begin = 0; begin == 0 || begin < n; begin += chunk_atoms())
      ranges_.push_back({begin, std::min(n, begin + chunk_atoms())});
    before_.assign(ranges_.size() + 1, {});
    sizes->chunk = sizes->chunk_pairs = sizes->chunk_three = sizes->chunk_repformer = 0;
    for (std::size_t k = 0; k < ranges_.size(); ++k) {
      const auto before = [&](int which) {
        std::int64_t pairs = 0;
        copy_to_host(&pairs, first.data() + static_cast<std::int64_t>(which) * (n + 1) + ranges_[k].end,
                     sizeof(pairs));
        return pairs;
      };
      const bool last = k + 1 == ranges_.size();
      before_[k + 1] = last ? total : PairNumbers{before(kRepinit), before(kThreeBody), before(kRepformer)};
      const auto most = [&](std::size_t* size, std::int64_t PairNumbers::* of) {
        *size = std::max(*size, static_cast<std::size_t>(before_[k + 1].*of - before_[k].*of));
      };
      sizes->chunk = std::max(sizes->chunk, static_cast<std::size_t>(ranges_[k].size()));
      most(&sizes->chunk_pairs, &PairNumbers::pairs);
      most(&sizes->chunk_three, &PairNumbers::three);
      most(&sizes->chunk_repformer, &PairNumbers::repformer);
    }
  }

  const std::vector<Range>& ranges() const { return ranges_; }  // at least one; none is larger than the first
  bool one() const { return ranges_.size() == 1; }
  // The pairs before a chunk's first atom, or behind its last.
  const PairNumbers& pairs_before(int atom) const {
    return before_[(atom + chunk_atoms() - 1) / chunk_atoms()];
  }

 private:
  std::vector<Range> ranges_;
  std::vector<PairNumbers> before_;  // (chunks + 1)
};

// Moves the pointer of an array that begins with entry `first` of rows of `width`, so that global indices
// work; null stays null.
template <class U>
U* moved(U* array, std::int64_t first, std::int64_t width) {
  return array ? array - first * width : nullptr;
}

// The state for a chunk's kernels, with the pointers of its arrays moved.
template <class T>
State<T> of_chunk(State<T> s, const PairNumbers& before, Range a) {
  s.vec = moved(s.vec, before.pairs, 3);
  s.r = moved(s.r, before.pairs, 1);
  s.type = moved(s.type, before.pairs, 1);
  s.pair_force = moved(s.pair_force, before.pairs, 3);
  s.dgg1 = moved(s.dgg1, before.repformer, s.rep.g1);
  const auto move_env = [](EnvView<T>* env, std::int64_t first) {
    env->em = moved(env->em, first, 4);
    env->dem = moved(env->dem, first, 4);
    env->sw = moved(env->sw, first, 1);
    env->dsw = moved(env->dsw, first, 1);
  };
  move_env(&s.repinit, before.pairs);
  move_env(&s.three, before.three);
  s.drep_out = moved(s.drep_out, a.begin, s.repinit_width);
  if (s.rep.nlayers) {
    s.rep_out = moved(s.rep_out, a.begin, s.repinit_width);
  } else {
    s.moment = moved(s.moment, a.begin, 4 * s.embedding.ng);
  }
  return s;
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
