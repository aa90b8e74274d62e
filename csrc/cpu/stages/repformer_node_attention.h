// The local attention of the g1 update (update_g1_has_attn), forward and backward. With the folded query u_h
// of an atom (Wq Wk^T / sqrt(nd), model/folding.h):
//   l_jh = gg1_j . u_h     a_jh = softmax_j((l + 20) sw - 20) sw_j     weighted_h = sum_j a_jh gg1_j
// The values' projection and head_map act on `weighted`, for a whole block of atoms at once.
#pragma once

#include "cpu/stages/repformer_node.h"
#include "cpu/stages/repformer_state.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
class LocalAttention {
 public:
  explicit LocalAttention(RepformerState<T>* state) : state_(*state) {}
  // From row.u to row.weighted.
  void forward(const Neighborhood<T>& a, const NodeRow<T>& row, Arena& arena);
  // Adds to d gg1 and d sw, assigns d u.
  void backward(const Neighborhood<T>& a, const NodeRow<T>& row, const NodeRow<T>& d,
                NeighborhoodGradient<T>* g, Arena& arena);

 private:
  void softmax(const Neighborhood<T>& a, T level, const T* u, T* logit, T* prob);

  RepformerState<T>& state_;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
