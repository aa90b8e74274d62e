// Node steps of layers whose g2 depends on nothing but the neighbour's distance (radial_layers): g2(l) and f
// = g2(l) P come from a table of em_0, so that
//   conv = sum_j w_j f_j gg1_j / N      S = c (h2 w)^T gg1
// is one pass over the neighbours' rows of g1, and so is its reverse. Where an atom comes closer than the
// table reaches, or a model's is not good enough, g2 and the products are computed (repformer_node.cpp).
#pragma once

#include <vector>

#include "cpu/stages/repformer_state.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
struct NodeRow;

// The places of an atom's neighbours in the table.
template <class T>
struct RadialPlaces {
  int np;            // neighbours padded to the vector length
  int* cell;         // (np)
  T *value, *slope;  // (5, np) weights
};

// Numbers that are not dual.
template <class T>
class RadialTables {
 public:
  explicit RadialTables(RepformerState<T>* state) : state_(*state) {}
  // For these types (ntypes); none if one would not fit a core's second cache.
  void build(const std::vector<char>& types);
  void begin() { covered_.resize(state_.pairs().natoms); }
  // Notes which atoms have all their neighbours in the table.
  void find_atoms(Range range);

  int layers() const { return layers_; }  // that have a table
  // No layer needs the pair state of the atom.
  bool serves(int i) const { return layers_ == state_.rep().nlayers && covered_[i]; }
  // The places of an atom's neighbours; null if the table does not cover them all. slopes: with slopes.
  const RadialPlaces<T>* places(int i, bool slopes, Arena& arena);
  // g2(l), (n, g2), of `a`, and its moments S = c (h2 w)^T g2, (3, g2).
  void g2(int l, const Neighborhood<T>& a, T* out, T* s) const;
  // conv (g1) [null: not wanted] and S (3, g1) of an atom.
  void products(int l, const Neighborhood<T>& a, const T* const* gg1, T* conv, T* s);
  // The reverse sweep: adds to the pairs' shares of d g1, to d g2 or d em_0, d h2 and d sw.
  void products_backward(int l, int i, const Neighborhood<T>& a, const NodeRow<T>& dout,
                         NeighborhoodGradient<T>* g, Arena& arena);

 private:
  template <int NV, int W>
  int g2_from(int c, int l, const Neighborhood<T>& a, T* out, T* s) const;
  template <int NV, int W>
  int products_from(int c, int l, const Neighborhood<T>& a, const T* const* gg1, T* conv, T* s);
  const T* node_at(int l, const RadialPlaces<T>& p, const T* from, int j, T* w) const;

  RepformerState<T>& state_;
  std::vector<Table<Real<T>>> tables_;  // layers with the same cells: g2 and its product with conv's weight
  int ld_ = 0, layers_ = 0;
  std::vector<char> covered_;  // (natoms) that have all their neighbours in the table
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
