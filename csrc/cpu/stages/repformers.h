// The repformer layers: from g1 of layer 0 to g1 of the last, and in reverse. g1 is a row an atom, g2 and h2
// are rows of pairs. The pair step (repformer_pair.cpp, repformer_pair_attention.cpp) makes the next layer's
// g2 and h2, the node step (repformer_node.cpp, repformer_node_attention.cpp) the next layer's g1; layers
// whose g2 depends on the distance alone look it up (repformer_radial.cpp).
#pragma once

#include <memory>
#include <vector>

#include "cpu/linear.h"
#include "cpu/shares.h"
#include "cpu/stages/env_mat.h"
#include "cpu/tables.h"
#include "cpu/vector/net.h"
#include "model/formulas.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// Weights that stages on plain and on dual numbers share.
template <class R>
struct RepformerWeights {
  // The update x' = alpha x + sum_i scale_i * x_i, whatever the update style.
  R g1_alpha, g2_alpha, h2_alpha, h2_scale;
  Buffer<R> scale_self, scale_conv, scale_mlp, scale_attn1;  // (g1_dim)
  Buffer<R> scale_linear2, scale_g1g1, scale_attn2;          // (g2_dim)
  Linear<R> mlp, self, linear2, g1g1;                        // linear1, g1_self_mlp, linear2, proj_g1g1g2
  Buffer<R> conv, conv_t;                // (g2_dim, g1_dim), either direction of proj_g1g2, and transposed
  Linear<R> attn1_query;                 // per head Wq Wk^T / sqrt(nd): g1 -> (head, g1)
  Linear<R> attn1_value;                 // per head Wv Wo: (head, g1) -> g1, with head_map's bias
  Buffer<R> attn2_map, attn2_map_t;      // (head, g2, g2): Wq Wk^T / sqrt(hidden), and transposed
  Buffer<R> attn2_value, attn2_value_t;  // (head, g2, g2): Wv Wo, without the mean of each row
  Buffer<R> attn2_bias, ln_w, ln_b;      // (g2); the bias without its mean
  Buffer<R> h2_head;                     // (head)
};

// Gradients by a layer's folded weights (model/folding.h), and by those that are not folded. Null: there is
// no such weight.
template <class R>
struct RepformerGradients {
  RowGradient<R>*mlp = nullptr, *self = nullptr, *attn1_query = nullptr, *attn1_value = nullptr;
  GroupSums *scale_self = nullptr, *scale_conv = nullptr, *scale_mlp = nullptr, *scale_attn1 = nullptr;
  GroupSums *scale_linear2 = nullptr, *scale_g1g1 = nullptr, *scale_attn2 = nullptr, *scale_h2 = nullptr;
  GroupSums *conv = nullptr, *linear2 = nullptr, *linear2_bias = nullptr, *g1g1 = nullptr;
  GroupSums *attn2_map = nullptr, *attn2_value = nullptr, *attn2_bias = nullptr;
  GroupSums *ln_w = nullptr, *ln_b = nullptr, *h2_head = nullptr;
};

template <class T>
class Repformers {
 public:
  // `env` is the repformers' environment: em and sw are read, dem and dsw added to.
  Repformers(const Workspace& work, Env<T>* env);
  // On dual numbers, with the weights of the stages on plain ones.
  Repformers(const Workspace& work, Env<T>* env, const Repformers<Real<T>>& plain,
             Gradients<Real<T>>* gradients);
  void prepare();
  // Adds to the model's gradient.
  void add_gradient(Model* gradient) const;
  // Tables of g2 for these types (ntypes).
  void build_tables(const std::vector<char>& types);
  // `spans`: blocks between two gatherings.
  void begin(int spans);
  void plan(MemoryPlan* to);

  // The stages: stages.h. From g1(0), that others write, to g1(nlayers),
  void pair_init(Range);
  void pair_step(int layer, Range);
  void node_step(int layer, Range);
  // and from dg1(nlayers) to dg1(0).
  void start_g1_gradient(int layer);
  void node_step_backward(int layer, Range);
  void pair_step_backward(int layer, Range);
  void gather_g1_gradient(int layer, Range);
  void pair_init_backward(Range);

  // Rows of a layer, (nrows, g1_dim). The energy alone needs three layers at a time: those that pair and node
  // step read, and the next.
  T* g1(int l) { return g1_.data() + static_cast<std::size_t>(work_.input.forces ? l : l % 3) * g1_stride_; }
  T* dg1(int l) { return dg1_.data() + static_cast<std::size_t>(l % 2) * g1_stride_; }

 private:
  Arena& arena() const { return work_.arena(); }
  const PairList& pairs() const { return work_.pairs(); }
  const Repformer& rep() const { return model_.repformer; }
  template <class>
  friend class Repformers;
  RepformerWeights<Real<T>> layer_weights(int l) const;
  const RepformerWeights<Real<T>>& weights(int l) const { return (*layers_)[l]; }

  // Pair state of a layer, of atom i. g2 of the first layer is recomputed from em for each read; g2 of the
  // last is held for a block. h2 and its gradient are columns of em and dem, unless layers update h2.
  int last() const { return rep().nlayers - 1; }
  std::size_t g2_slot(int l) const;
  std::size_t g2_slots() const;
  T* g2_rows(int l, int i);
  T* dg2(int i) { return dg2_.data() + pairs().repformer.first[i] * rep().g2_dim; }
  T* h2(int l, int i) {
    const std::size_t q = pairs().repformer.first[i];
    if (l == 0 || !rep().update_h2) return env_.em.data() + 4 * q + 1;
    return h2_.data() + (l - 1) * h2_stride_ + kH2Row * q;
  }
  T* dh2(int l, int i) {
    const std::size_t q = pairs().repformer.first[i];
    if (l == 0 || !rep().update_h2) return env_.dem.data() + 4 * q + 1;
    return dh2_.data() + l % 2 * h2_stride_ + kH2Row * q;
  }
  T* share(std::int64_t pair) {
    return dgg1_.data() + static_cast<std::size_t>(g1_shares_.slot[pair]) * rep().g1_dim;
  }

  // ---- repformer_node.cpp, repformer_node_attention.cpp
  struct NodeBlock;
  struct NodeRow;
  struct RadialPlaces;
  // The neighbourhood of an atom for a layer.
  struct Neighborhood {
    int n;             // real neighbours
    std::int64_t q0;   // first pair in the repformer prefix
    const T *g2, *h2;  // (n, g2_dim), (n, kH2Row) of which 3 count
    T* sw;             // (n) switch, or 1 in non-smooth models
    T* gg1 = nullptr;  // (n, g1_dim), when an update reads it
    // of a radial layer, then without gg1: see repformer_radial.cpp
    const RadialPlaces* places = nullptr;
    const T* g2_moments = nullptr;  // (3, g2_dim)
  };
  struct NeighborhoodGradient;
  Neighborhood bare_neighborhood(int l, int i, Arena& arena);
  Neighborhood neighborhood(int l, int i, bool with_g1, Arena& arena);
  Neighborhood node_neighborhood(int l, int i, bool slopes, Arena& arena);
  bool node_reads_gg1() const { return rep().has_conv || rep().has_drrd || rep().has_g1_attn; }
  // Whether gradients of h2 and sw lead anywhere: to forces, or to weights that update h2.
  bool wants_geometry() const { return !is_dual<T> || rep().update_h2; }
  bool any_reads_gg1() const { return node_reads_gg1() || rep().has_g1g1; }
  T* product_left(const Neighborhood& a, Arena& arena);
  T* moments(const Neighborhood& a, const T* left, int width, const T* x, Arena& arena);
  void moments_backward(const Neighborhood& a, const T* left, int width, const T* x, const T* dout, T* ds,
                        Arena& arena);
  void conv(int l, const Neighborhood& a, const T* left, const NodeRow& row, Arena& arena);
  void conv_backward(int l, int i, const Neighborhood& a, const T* left, const NodeRow& dout, T* dproduct,
                     T* dleft, Arena& arena);
  void products_backward(int l, int i, const Neighborhood& a, const NodeRow& dout, NeighborhoodGradient* d,
                         Arena& arena);
  void products_along(const Neighborhood& a, int j, const T* ds1, const T* ds2, const T* dleft, T* sum) const;
  T level_of(int n, const T* sw) const;
  void slot_shares_backward(int n, const T* sw, T level, const T* dshare, T* dsw) const;
  void local_softmax(const Neighborhood& a, T level, const T* u, T* logit, T* prob);
  void local_attention(const Neighborhood& a, const NodeRow& row, Arena& arena);
  void local_attention_backward(const Neighborhood& a, const NodeRow& row, const NodeRow& d,
                                NeighborhoodGradient* g, Arena& arena);
  NodeRow node_row(const NodeBlock& s, int b);
  T* slope(Buffer<T>& kept, Buffer<T>& of_block, int l, Range range);
  T* mlp_slope(int l, Range range) { return slope(mlp_slope_, mlp_slope_block_, l, range); }
  T* self_slope(int l, Range range) { return slope(self_slope_, self_slope_block_, l, range); }
  void node_queries(int l, Range range, Arena& arena, NodeBlock* s);
  void node_block(int l, Range range, Arena& arena, NodeBlock* s);
  void clear_shares(Range range);
  void begin_pair_gradients(Range range);

  // ---- repformer_radial.cpp
  const RadialPlaces* radial_places(int i, bool slopes, Arena& arena);
  void find_radial_atoms(Range range);
  // No layer needs the pair state of the atom.
  bool radial_pairs(int i) const { return radial_layers_ == rep().nlayers && radial_atom_[i]; }
  template <int NV, int W>
  int radial_g2_from(int c, int l, const Neighborhood& a, T* out, T* s) const;
  void radial_g2(int l, const Neighborhood& a, T* out, T* s) const;
  const T* radial_node(int l, const RadialPlaces& p, const T* from, int j, T* w) const;
  template <int NV, int W>
  int radial_products_from(int c, int l, const Neighborhood& a, const T* const* gg1, T* conv, T* s);
  void radial_products(int l, const Neighborhood& a, const T* const* gg1, T* conv, T* s);
  const T** rows_of_g1(int l, int i, Arena& arena);
  void radial_products_backward(int l, int i, const Neighborhood& a, const NodeRow& dout,
                                NeighborhoodGradient* g, Arena& arena);

  // ---- repformer_pair.cpp, repformer_pair_attention.cpp
  struct PairAttention;
  struct PairGradient;
  bool turns_with_attention(int l) const;
  void first_g2(int i, T* out, T* slope);
  const T* g2_of(int l, int i, Arena& arena);
  void remake_g2(int l, Range range);
  void pair_self(int l, const Neighborhood& a, T* out, Arena& arena);
  void pair_self_backward(int l, int i, const Neighborhood& a, const T* dout, T* dx, Arena& arena);
  void pair_g1g1(int l, int i, const Neighborhood& a, T* out, Arena& arena);
  void pair_g1g1_backward(int l, int i, const Neighborhood& a, const T* dout, T* dsw, Arena& arena);
  void attention_factors(const Neighborhood& a, bool keep, PairAttention* s, Arena& arena);
  void softmax_rows(const PairAttention& s, const T* logit, T* prob, T* map) const;
  void shared_totals(const PairAttention& s, const T* logit, T* prob) const;
  T* shared_slopes(const PairAttention& s, const T* mean, T* dsw, Arena& arena) const;
  void attention_map(int l, int h, const Neighborhood& a, PairAttention* s);
  void attention_rows_backward(const Neighborhood& a, const PairAttention& s, T* dmap, PairGradient* g,
                               Arena& arena);
  void attention_g2(int l, int h, const Neighborhood& a, PairAttention* s, Arena& arena);
  void attention_norm_backward(int l, const PairAttention& s, const T* dout, T* dsum, Arena& arena);
  void attention_backward(int l, int i, const Neighborhood& a, const PairAttention& s, const T* dout,
                          const T* dh2_out, PairGradient* d, Arena& arena);
  void attention_h2(int l, int h, const Neighborhood& a, const PairAttention& s, T* out);
  void attention_heads(int l, const Neighborhood& a, bool keep, T* h2_out, PairAttention* s, Arena& arena);
  void attention(int l, const Neighborhood& a, bool keep, PairAttention* s, T* g2_out, T* h2_out,
                 Arena& arena);
  void attention_h2_backward(int l, int h, const Neighborhood& a, const PairAttention& s, const T* dh2_out,
                             T* dmap, T* dh2);

  // reads neighbours' g1 rows of atom i into gg1 (n, g1_dim)
  void gather_g1(int l, int i, T* gg1);
  // 1/N factors (dpa2-model: N is nsel in smooth models, else the count of real neighbours)
  Real<T> inverse_count(int n) const;   // of conv
  Real<T> inverse_moment(int n) const;  // of the symmetrised moments

  const Model& model_;
  const Workspace& work_;
  Env<T>& env_;
  Weights<T> w_g2_embd_, b_g2_embd_;
  // dual numbers only
  RepformerGradients<Real<T>> layer_gradients(int l, Gradients<Real<T>>* to) const;
  void node_gradients(int l, Range range, const T* dout);
  // Room for an update of g1 (mlp, self, conv, attention), which its factor's gradient reads.
  T* kept_update(int l, int update, Range range) {
    const std::size_t n = pairs().natoms, at = 4 * static_cast<std::size_t>(l) + update;
    return updates_.data() + (at * n + range.begin) * rep().g1_dim;
  }
  void conv_gradient(int l, int i, const Neighborhood& a, const T* left, const NodeRow& dout, Arena& arena);
  void self_gradient(int l, int i, const Neighborhood& a, const T* y, const T* dy, const T* dout,
                     Arena& arena);
  void g1g1_gradient(int l, int i, const Neighborhood& a, const T* dy, const T* dout, Arena& arena);
  void norm_gradient(int l, int i, const PairAttention& s, const T* dout, const T* dsum, Arena& arena);
  void h2_gradient(int l, int h, int i, const Neighborhood& a, const PairAttention& s, const T* dh2_out);
  double* gradient(GroupSums* RepformerGradients<Real<T>>::* of, int l, int i) {
    return (gradients_[l].*of)->of(work_.group(i));
  }
  std::vector<RepformerGradients<Real<T>>> gradients_;
  Buffer<T> updates_;  // (layers, 4, natoms, g1_dim)
  GroupSums *w_g2_embd_gradient_ = nullptr, *b_g2_embd_gradient_ = nullptr;
  std::shared_ptr<std::vector<RepformerWeights<Real<T>>>> layers_;
  // arrays that pair_step keeps for pair_step_backward of the same block, per thread
  std::unique_ptr<Arena[]> kept_arenas_;
  std::vector<PairAttention*> kept_;
  std::size_t repformer_block_ = 0;  // most repformer pairs of a block
  std::size_t g1_stride_ = 0, g2_stride_ = 0, h2_stride_ = 0;
  std::vector<Table<Real<T>>> radial_;  // layers with the same cells: g2 and its product with conv's weight
  int radial_ld_ = 0, radial_layers_ = 0;
  std::vector<char> radial_atom_;  // (natoms) that have all their neighbours in the table
  // act' of the dense updates of g1: layers of (natoms, g1_dim), and (blocks, g1_dim)
  Buffer<T> mlp_slope_, self_slope_, mlp_slope_block_, self_slope_block_;
  Buffer<T> g1_, dg1_;       // layers of (nrows, g1_dim); two gradients in turn
  Buffer<T> g2_, g2_block_;  // layers of (pairs, g2_dim), and the last one of blocks
  Buffer<T> dg2_;            // (pairs, g2_dim) of the layer that the reverse sweep is at
  Buffer<T> h2_, dh2_;       // layers of (pairs, kH2Row) that update h2; two gradients in turn
  Shares g1_shares_;
  Buffer<T> dgg1_;  // (slots, g1_dim): what pairs give to their neighbours' gradients
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
