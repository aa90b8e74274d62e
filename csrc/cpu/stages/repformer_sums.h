// Gradients of the repformers by their weights, for sweeps of dual numbers: what the reverse steps add where
// a weight meets its two factors.
#pragma once

#include <vector>

#include "cpu/stages/repformer_node.h"
#include "cpu/stages/repformer_pair_attention.h"
#include "cpu/stages/repformer_state.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
class RepformerSums {
 public:
  RepformerSums(RepformerState<T>* state, Gradients<Real<T>>* gradients);
  void plan(MemoryPlan* to);
  // Adds to the model's gradient.
  void add_gradient(Model* gradient) const;

  // Rows that a layer's dense updates of g1 keep.
  const RepformerGradients<Real<T>>& layer(int l) const { return layers_[l]; }
  // Room for an update of g1 (mlp, self, conv, attention), which its factor's gradient reads.
  T* kept_update(int l, int update, Range range) {
    const std::size_t n = state_.pairs().natoms, at = 4 * static_cast<std::size_t>(l) + update;
    return updates_.data() + (at * n + range.begin) * state_.rep().g1_dim;
  }
  // The factors of the updates of g1, of dout (rows, g1).
  void node(int l, Range range, const T* dout);
  // conv's weight, which meets left^T gg1 element by element.
  void conv(int l, int i, const Neighborhood<T>& a, const T* left, const NodeRow<T>& dout, Arena& arena);
  // g2 of layer 0: dpre (n, g2), before the activation.
  void g2_embd(int i, int n, const T* dpre);
  // linear2: y = act(...), dy before the activation, dout of the layer's g2.
  void linear2(int l, int i, const Neighborhood<T>& a, const T* y, const T* dy, const T* dout, Arena& arena);
  void g1g1(int l, int i, const Neighborhood<T>& a, const T* dy, const T* dout, Arena& arena);
  // The values, their bias, and the layer norm; dsum: of what the layer norm reads.
  void norm(int l, int i, const PairAttention<T>& s, const T* dout, const T* dsum, Arena& arena);
  // Head h's map: dquery (n, g2) of g2 M.
  void map(int l, int h, int i, const Neighborhood<T>& a, const T* dquery, Arena& arena);
  // The update of h2 by head h: s w_h A_h h2.
  void h2(int l, int h, int i, const Neighborhood<T>& a, const PairAttention<T>& s, const T* dh2_out);

 private:
  RepformerGradients<Real<T>> of_layer(int l, Gradients<Real<T>>* to) const;
  double* sum(GroupSums* RepformerGradients<Real<T>>::* of, int l, int i) {
    return (layers_[l].*of)->of(state_.work.group(i));
  }

  RepformerState<T>& state_;
  std::vector<RepformerGradients<Real<T>>> layers_;
  GroupSums *g2_embd_w_, *g2_embd_b_;
  Buffer<T> updates_;  // (layers, 4, natoms, g1_dim)
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
