// node_step: the g1 update of a repformer layer, forward and backward. With w_j = sw_j (1 in non-smooth
// models):
//   Q|S = [g2 w | h2 w]^T gg1     conv = sum_k P_kc Q_kc / N
//   drrd = sym(S c)               grrg = sym((h2 w)^T g2 c)
//   g1' = alpha g1 + s1 act(self g1) + s2 conv + s3 act(linear1 [...]) + s4 attention
// so the neighbours' g1 enter through one small product per atom, and weights meet whole blocks of atoms.
// Each update stands once: its forward function, then its backward one. The attention has its own file.
#pragma once

#include "cpu/stages/repformer_node_attention.h"
#include "cpu/stages/repformer_radial.h"
#include "cpu/stages/repformer_sums.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
class NodeStage {
 public:
  // sums: of gradients by weights, for dual numbers.
  NodeStage(RepformerState<T>* state, RadialTables<T>* radial, RepformerSums<T>* sums)
      : state_(*state), radial_(*radial), sums_(sums), attention_(state) {}
  void plan(MemoryPlan* to);

  // From g1(l) and the pair state of layer l to g1(l + 1).
  void forward(int l, Range range);
  // From dg1(l + 1): adds to d g1(l) of the block's own atoms, d g2(l), d h2, d sw, and to the shares of d g1
  // that go to neighbours.
  void backward(int l, Range range);

 private:
  Neighborhood<T> node_neighborhood(int l, int i, bool slopes, Arena& arena);
  T* product_left(const Neighborhood<T>& a, Arena& arena);
  T* moments(const Neighborhood<T>& a, const T* left, int width, const T* x, Arena& arena);
  void moments_backward(const Neighborhood<T>& a, const T* left, int width, const T* x, const T* dout, T* ds,
                        Arena& arena);
  void conv(int l, const Neighborhood<T>& a, const T* left, const NodeRow<T>& row, Arena& arena);
  void conv_backward(int l, int i, const Neighborhood<T>& a, const T* left, const NodeRow<T>& dout,
                     T* dproduct, T* dleft, Arena& arena);
  void products_backward(int l, int i, const Neighborhood<T>& a, const NodeRow<T>& dout,
                         NeighborhoodGradient<T>* d, Arena& arena);
  void products_along(const Neighborhood<T>& a, int j, const T* ds1, const T* ds2, const T* dleft,
                      T* sum) const;
  NodeRow<T> node_row(const NodeBlock<T>& s, int b);
  T* slope(Buffer<T>& kept, Buffer<T>& of_block, int l, Range range);
  T* mlp_slope(int l, Range range) { return slope(mlp_slope_, mlp_slope_block_, l, range); }
  T* self_slope(int l, Range range) { return slope(self_slope_, self_slope_block_, l, range); }
  void node_queries(int l, Range range, Arena& arena, NodeBlock<T>* s);
  void node_block(int l, Range range, Arena& arena, NodeBlock<T>* s);
  void dense_backward(int l, Range range, Arena& arena, NodeBlock<T>* d);
  void begin_pair_gradients(Range range);

  RepformerState<T>& state_;
  RadialTables<T>& radial_;
  RepformerSums<T>* sums_;
  LocalAttention<T> attention_;
  // act' of the dense updates of g1: layers of (natoms, g1_dim), and (blocks, g1_dim)
  Buffer<T> mlp_slope_, self_slope_, mlp_slope_block_, self_slope_block_;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
