// What the steps of the repformers share: weights, g1, g2, h2 and their gradients, the neighbourhoods of a
// layer. g1 is a row an atom, g2 and h2 are rows of pairs.
#pragma once

#include <memory>
#include <vector>

#include "cpu/parts/net.h"
#include "cpu/parts/shares.h"
#include "cpu/stages/env_mat.h"
#include "cpu/stages/repformer_weights.h"
#include "model/formulas.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
struct RadialPlaces;

// The neighbourhood of an atom for a layer.
template <class T>
struct Neighborhood {
  int n;             // real neighbours
  std::int64_t q0;   // first pair in the repformer prefix
  const T *g2, *h2;  // (n, g2_dim), (n, kH2Row) of which 3 count
  T* sw;             // (n) switch, or 1 in non-smooth models
  T* gg1 = nullptr;  // (n, g1_dim), when an update reads it
  // of a radial layer, then without gg1: see repformer_radial.h
  const RadialPlaces<T>* places = nullptr;
  const T* g2_moments = nullptr;  // (3, g2_dim)
};

// d(Neighborhood); sw and the pair state are added to.
template <class T>
struct NeighborhoodGradient {
  T *g2, *h2, *sw, *gg1;
};

// Layers whose g2 is kept for all atoms for the reverse sweep: with little memory every fifth, and one that
// the sweep recomputes; the energy alone needs two in turn.
constexpr int kKeptEvery = 5;

template <class T>
class RepformerState {
 public:
  // `env` is the repformers' environment: em and sw are read, dem and dsw added to. plain: on dual numbers,
  // whose weights these are.
  RepformerState(const Workspace& work, Env<T>* env, const RepformerState<Real<T>>* plain);
  void prepare();
  // `spans`: blocks between two gatherings.
  void begin(int spans);
  void plan(MemoryPlan* to);

  const Model& model;
  const Workspace& work;
  Env<T>& env;
  Weights<T> w_g2_embd, b_g2_embd;

  Arena& arena() const { return work.arena(); }
  const PairList& pairs() const { return work.pairs(); }
  const Repformer& rep() const { return model.repformer; }
  const RepformerWeights<Real<T>>& weights(int l) const { return (*layers_)[l]; }
  int last() const { return rep().nlayers - 1; }
  bool node_reads_gg1() const { return rep().has_conv || rep().has_drrd || rep().has_g1_attn; }
  bool any_reads_gg1() const { return node_reads_gg1() || rep().has_g1g1; }
  // Whether gradients of h2 and sw lead anywhere: to forces, or to weights that update h2.
  bool wants_geometry() const { return !is_dual<T> || rep().update_h2; }

  // ---- g1: rows of a layer, (nrows, g1_dim). The energy alone needs three layers at a time: those that pair
  // and node step read, and the next.
  T* g1(int l) { return g1_.data() + static_cast<std::size_t>(work.input.forces ? l : l % 3) * g1_stride_; }
  T* dg1(int l) { return dg1_.data() + static_cast<std::size_t>(l % 2) * g1_stride_; }
  // Pointers to the rows of an atom's neighbours.
  const T** rows_of_g1(int l, int i, Arena& arena);
  // A pair's share of its neighbour's gradient, (g1_dim).
  T* share(std::int64_t pair) {
    return dgg1_.data() + static_cast<std::size_t>(g1_shares_.slot[pair]) * rep().g1_dim;
  }
  // Zeroes the shares of the block's pairs, before any is added.
  void clear_shares(Range range);
  void start_g1_gradient(int layer);
  void gather_g1_gradient(int layer, Range atoms);

  // ---- pair state of a layer, of atom i. g2 of the first layer is recomputed from em for each read; g2 of
  // the last is held for a block. h2 and its gradient are columns of em and dem, unless layers update h2.
  // The rows that pair_step writes g2(l) to, l > 0.
  T* g2_rows(int l, int i);
  // g2(l), in the arena where the next layer's comes to the same place.
  const T* g2_of(int l, int i, Arena& arena);
  // g2(0); slope: act', or null.
  void first_g2(int i, T* out, T* slope);
  T* dg2(int i) { return dg2_.data() + pairs().repformer.first[i] * rep().g2_dim; }
  T* h2(int l, int i) {
    const std::size_t q = pairs().repformer.first[i];
    if (l == 0 || !rep().update_h2) return env.em.data() + 4 * q + 1;
    return h2_.data() + (l - 1) * h2_stride_ + kH2Row * q;
  }
  T* dh2(int l, int i) {
    const std::size_t q = pairs().repformer.first[i];
    if (l == 0 || !rep().update_h2) return env.dem.data() + 4 * q + 1;
    return dh2_.data() + l % 2 * h2_stride_ + kH2Row * q;
  }
  // Zeroes d em, d sw and d h2 of the last layer.
  void clear_geometry(Range range);

  // ---- neighbourhoods
  Neighborhood<T> neighborhood(int l, int i, bool with_g1, Arena& arena);
  Neighborhood<T> bare_neighborhood(int l, int i, Arena& arena);  // without g2 and gg1

  // 1/N factors (dpa2-model: N is nsel in smooth models, else the count of real neighbours)
  Real<T> inverse_count(int n) const;   // of conv
  Real<T> inverse_moment(int n) const;  // of the symmetrised moments
  // The level of shares (slot_shares.h) of an atom with more neighbours than slots; 0 for other atoms.
  T level_of(int n, const T* sw) const;
  // Adds the shares' gradient to d sw.
  void slot_shares_backward(int n, const T* sw, T level, const T* dshare, T* dsw) const;

 private:
  template <class>
  friend class RepformerState;
  std::size_t g2_slot(int l) const;
  std::size_t g2_slots() const;

  std::shared_ptr<std::vector<RepformerWeights<Real<T>>>> layers_;
  std::size_t block_pairs_ = 0;  // most repformer pairs of a block
  std::size_t g1_stride_ = 0, g2_stride_ = 0, h2_stride_ = 0;
  Buffer<T> g1_, dg1_;       // layers of (nrows, g1_dim); two gradients in turn
  Buffer<T> g2_, g2_block_;  // layers of (pairs, g2_dim), and the last one of blocks
  Buffer<T> dg2_;            // (pairs, g2_dim) of the layer that the reverse sweep is at
  Buffer<T> h2_, dh2_;       // layers of (pairs, kH2Row) that update h2; two gradients in turn
  Shares g1_shares_;
  Buffer<T> dgg1_;  // (slots, g1_dim): what pairs give to their neighbours' gradients
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
