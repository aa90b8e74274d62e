// pair_init and pair_step: the g2 and h2 side of the repformers, forward and backward. An atom's pairs stay
// in cache for all updates of a layer:
//   g2' = alpha g2 + s1 act(linear2 g2) + s2 (g1_i gg1_j sw_j) P + s3 layernorm(attention)      h2' alike
//
#pragma once

#include <memory>
#include <vector>

#include "cpu/stages/repformer_pair_attention.h"
#include "cpu/stages/repformer_radial.h"
#include "cpu/stages/repformer_sums.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
class PairStage {
 public:
  // sums: of gradients by weights, for dual numbers.
  PairStage(RepformerState<T>* state, RadialTables<T>* radial, RepformerSums<T>* sums)
      : state_(*state),
        radial_(*radial),
        sums_(sums),
        attention_(state, sums),
        kept_arenas_(new Arena[state->work.threads]),
        kept_(state->work.threads) {}

  void init(Range range);
  // From g1(l) and the pair state of layer l to that of the next.
  void forward(int l, Range range);
  // d g2 of the next layer gives way to that of this one; with an updated h2, assigns d h2(l), else adds to
  // it; adds to d sw, and with g1g1 to d g1(l) of the atom and to the pairs' shares, which it begins.
  void backward(int l, Range range);
  void init_backward(Range range);

 private:
  void remake_g2(int l, Range range);
  bool turns_with_attention(int l) const;
  void pair_self(int l, const Neighborhood<T>& a, T* out, Arena& arena);
  void pair_self_backward(int l, int i, const Neighborhood<T>& a, const T* dout, T* dx, Arena& arena);
  void pair_g1g1(int l, int i, const Neighborhood<T>& a, T* out, Arena& arena);
  void pair_g1g1_backward(int l, int i, const Neighborhood<T>& a, const T* dout, T* dsw, Arena& arena);

  RepformerState<T>& state_;
  RadialTables<T>& radial_;
  RepformerSums<T>* sums_;
  NeighborAttention<T> attention_;
  // attention that forward() keeps for backward() of the same block, per thread
  std::unique_ptr<Arena[]> kept_arenas_;
  std::vector<PairAttention<T>*> kept_;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
