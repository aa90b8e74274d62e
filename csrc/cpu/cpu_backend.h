// The CPU backend for one instruction set: buffers, folded weights, and the stages as member functions that
// live in the file of their name (env_mat.cpp, repinit.cpp, three_body.cpp, repformer_node.cpp,
// repformer_pair.cpp, fitting.cpp). T is float or double: features and their gradients; distances, energies
// and forces are double.
#pragma once

#include "base/threads.h"
#include "cpu/shares.h"
#include "cpu/tables.h"
#include "cpu/vector/net.h"
#include "engine/backend.h"
#include "model/formulas.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// An environment matrix and what the reverse sweep collects for it.
template <class T>
struct Env {
  const Block* block = nullptr;
  const Prefix* prefix = nullptr;
  bool direct = false;          // (r, x, y, z)/rcut instead of the smooth environment (repformer direct_dist)
  std::size_t block_pairs = 0;  // 0: all pairs are there; else so many, of the block that a thread is at
  Buffer<T> em, dem;            // (pairs, 4)
  Buffer<T> sw, dsw;            // (pairs)
};

// A weight in panels as wide as a tile of gemm.h, one after the other, so that a product reads it from first
// to last.
template <class T>
struct Panels {
  int in = 0, out = 0;
  Buffer<T> w;
  bool empty() const { return w.empty(); }
  void pack(int rows, int columns, const T* from);
  // y (rows, out) [+]= x (rows, in) w
  void multiply(int rows, const T* x, int ldx, T* y, int ldy, bool add) const;
};

// x W + b with both orders of the weight, forward and reverse.
template <class T>
struct Linear {
  Panels<T> w, wt;
  Buffer<T> b;
  void prepare(const Tensor& weight, const Tensor* bias);
  // y (rows, out) = x (rows, in) w + b
  void forward(int rows, const T* x, int ldx, T* y, int ldy) const;
  // dx (rows, in) [+]= dy (rows, out) w^T
  void backward(int rows, const T* dy, int ldy, T* dx, int ldx, bool add) const;
};

// An embedding block (repinit, three-body): net or tables, gate of strip mode.
template <class T>
struct EmbeddingWeights {
  NetWeights<T> net;
  Tables<T> tables;      // of the net, for the types present
  Buffer<T> gate;        // (nt or 1, nt, padded ng)
  Buffer<T> compressed;  // (rows, 6, padded ng): DeePMD-kit's table in place of the net
  Buffer<T> both;        // (nt, nt, padded ng) gate(a, b) + gate(b, a), three-body only
  Buffer<T> empty;       // (nt, 4, padded ng): what one empty slot adds to the moments (nonzero davg only)
};

template <class T>
struct RepformerWeights {
  // The update x' = alpha x + sum_i scale_i * x_i, whatever the update style.
  T g1_alpha, g2_alpha, h2_alpha, h2_scale;
  Buffer<T> scale_self, scale_conv, scale_mlp, scale_attn1;  // (g1_dim)
  Buffer<T> scale_linear2, scale_g1g1, scale_attn2;          // (g2_dim)
  Linear<T> mlp, self, linear2, g1g1;                        // linear1, g1_self_mlp, linear2, proj_g1g1g2
  Buffer<T> conv, conv_t;                // (g2_dim, g1_dim), either direction of proj_g1g2, and transposed
  Linear<T> attn1_query;                 // per head Wq Wk^T / sqrt(nd): g1 -> (head, g1)
  Linear<T> attn1_value;                 // per head Wv Wo: (head, g1) -> g1, with head_map's bias
  Buffer<T> attn2_map, attn2_map_t;      // (head, g2, g2): Wq Wk^T / sqrt(hidden), and transposed
  Buffer<T> attn2_value, attn2_value_t;  // (head, g2, g2): Wv Wo, without the mean of each row
  Buffer<T> attn2_bias, ln_w, ln_b;      // (g2); the bias without its mean
  Buffer<T> h2_head;                     // (head)
};

template <class T>
class CpuBackend final : public Backend {
 public:
  CpuBackend(const Model& model, int threads, bool tables, bool low_memory);
  ~CpuBackend() override;

  void begin(const StepInput& input, const StepOutput& output) override;
  void run(int natoms, const std::function<void(Range)>& stage,
           const std::function<void(Range)>& gather) override;
  void stage(Stage stage, int layer, Range a) override { call_stage(this, stage, layer, a); }
  void start_g1_gradient(int layer) override;
  // the stages: see call_stage
  void env_mat(Range);
  void repinit(Range);
  void three_body(Range);
  void g1_transform(Range);
  void pair_init(Range);
  void pair_step(int layer, Range);
  void node_step(int layer, Range);
  void fitting(Range);
  void node_step_backward(int layer, Range);
  void pair_step_backward(int layer, Range);
  void gather_g1_gradient(int layer, Range);
  void pair_init_backward(Range);
  void g1_transform_backward(Range);
  void three_body_backward(Range);
  void repinit_backward(Range);
  void env_mat_backward(Range);
  void forces(Range);
  void descriptor(Range, double* out) override;
  void* g1_rows(int layer) override { return g1(layer); }
  void* g1_gradient_rows(int layer) override { return dg1(layer); }
  bool single() const override { return sizeof(T) == 4; }
  std::string description() const override;

 private:
  // ---- shared by the stages
  Arena& arena() const;
  const PairList& pairs() const { return *input_.pairs; }
  const Repformer& rep() const { return model_.repformer; }
  // The energy alone needs no more than three layers at a time: what pair and node step read, and the next.
  T* g1(int l) { return g1_.data() + static_cast<std::size_t>(input_.forces ? l : l % 3) * g1_stride_; }
  T* dg1(int l) { return dg1_.data() + static_cast<std::size_t>(l % 2) * g1_stride_; }

  // What no other run reads lives only for the block of atoms that a thread is at: the place of atom i among
  // its atoms, and of the atom's first pair among its pairs, of which there are at most `most`.
  std::size_t in_block(int i) const { return static_cast<std::size_t>(thread_index()) * block_ + i % block_; }
  std::size_t in_block(const Prefix& p, std::size_t most, int i) const {
    return static_cast<std::size_t>(thread_index()) * most + p.first[i] - p.first[i - i % block_];
  }
  // The first row of an atom's pairs in the arrays of `env`.
  std::size_t env_row(const Env<T>& env, int i) const {
    return env.block_pairs ? in_block(*env.prefix, env.block_pairs, i)
                           : static_cast<std::size_t>(env.prefix->first[i]);
  }
  // [D | three-body] of an atom and its gradient
  T* rep_out(int i) { return rep_out_.data() + in_block(i) * repinit_width_; }
  T* drep_out(int i) { return drep_out_.data() + in_block(i) * repinit_width_; }

  // Pair state of a layer, of atom i. g2 of the first layer is made from em whenever it is read, that of the
  // last lives for a block. h2 and its gradient are columns of em, but for layers that update it.
  int last() const { return rep().nlayers - 1; }
  std::size_t g2_slot(int l) const;
  std::size_t g2_slots() const;
  T* g2_rows(int l, int i);
  T* dg2(int i) { return dg2_.data() + pairs().repformer.first[i] * rep().g2_dim; }
  T* h2(int l, int i) {
    const std::size_t q = pairs().repformer.first[i];
    if (l == 0 || !rep().update_h2) return env_repformer_.em.data() + 4 * q + 1;
    return h2_.data() + (l - 1) * h2_stride_ + kH2Row * q;
  }
  T* dh2(int l, int i) {
    const std::size_t q = pairs().repformer.first[i];
    if (l == 0 || !rep().update_h2) return env_repformer_.dem.data() + 4 * q + 1;
    return dh2_.data() + l % 2 * h2_stride_ + kH2Row * q;
  }
  T* share(std::int64_t pair) {
    return dgg1_.data() + static_cast<std::size_t>(g1_shares_.slot[pair]) * rep().g1_dim;
  }

  bool keeps_moments() const { return !low_memory_ || !model_.is_dpa2; }
  int block_size(int count) const;  // atoms of one stage call
  int span_blocks() const;          // blocks between two gatherings
  void prepare();
  void prepare_repformer_layer(int l);
  void reserve();

  // ---- env_mat.cpp
  struct PairVectors;
  PairVectors pair_vectors(int i, int n, Arena& arena) const;
  void env_mat_atom(Env<T>& env, int i, const PairVectors& p, Arena& arena);
  void env_mat_block(Env<T>& env, Range range);
  void env_gradient(const Env<T>& env, int i, const PairVectors& p, double* f, Arena& arena);
  void add_forces(std::size_t row, const double* sum);

  // ---- repinit.cpp
  struct RepinitState;
  void repinit_atom(int i, Arena& arena, bool tape, RepinitState* s);
  void repinit_net_backward(int i, const T* dmoment, Arena& arena);
  void compressed_place(T x, TablePlace<T>* p) const;
  const T* repinit_gate(int center, int neighbor) const;
  T repinit_opening(std::size_t env) const;
  TablePlace<T>* repinit_places(int i, bool slopes, Arena& arena);
  bool repinit_places_lanes(int i, int j, bool slopes, TablePlace<T>* places) const;
  template <bool STRIP>
  void repinit_moment(int i, const TablePlace<T>* places, T* moment, Arena& arena);
  template <bool STRIP>
  void repinit_moment_backward(int i, const TablePlace<T>* places, const T* dmoment, Arena& arena);
  struct RepinitUnits;
  void repinit_units(int i, const TablePlace<T>* places, bool types, Arena& arena, RepinitUnits* u);
  void repinit_unit_products(const RepinitUnits& u, const T* dmoment, const T* gate, T* out,
                             Arena& arena) const;
  void repinit_moments(int i, T* moment, Arena& arena);
  void repinit_moments_backward(int i, const T* moment, T* dmoment);
  void repinit_squares(const T* moment, T* out) const;
  T* kept_moment(int i);
  void repinit_order(int count, int rows, int cols, const T* in, T* out) const;

  // ---- tables.cpp
  void build_tables();
  void build_repinit_tables();
  void make_room_for_units(int count);
  void build_three_body_tables();
  void build_radial_table();

  // ---- three_body.cpp
  struct TripleState;
  void triples_atom(int i, TripleState* s);
  void triples_block(int j0, Arena& arena, bool tape, TripleState* s);
  void triples_gate(Arena& arena, TripleState* s);
  void triples_backward(const T* dout, TripleState* s, Arena& arena);
  void three_body_net(TripleState* s, T* out, Arena& arena);
  struct TripleRow;
  bool triples_in_reach(const TripleState& s) const;
  void triples_row_buffers(const TripleState& s, Arena& arena, TripleRow* row);
  template <bool VALUES, bool SLOPES>
  void triples_row(const TripleState& s, int j, TripleRow* row);
  const T* triples_node(const TripleState& s, const TripleRow& row, int j, int k, const T* from, T* w) const;
  template <bool STRIP>
  void three_body_tables(const TripleState& s, T* out, Arena& arena);
  template <bool STRIP>
  void three_body_tables_backward(const TripleState& s, const T* dout, Arena& arena);
  const T* triples_both(const TripleState& s, int j, int k) const;
  T triples_opening(const TripleState& s, int j, int k) const;

  // ---- repformer_node.cpp, repformer_node_attention.cpp
  struct NodeBlock;
  struct NodeRow;
  struct RadialPlaces;
  // An atom's neighbours as a layer sees them.
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
  bool any_reads_gg1() const { return node_reads_gg1() || rep().has_g1g1; }
  T* product_left(const Neighborhood& a, Arena& arena);
  T* moments(const Neighborhood& a, const T* left, int width, const T* x, Arena& arena);
  void moments_backward(const Neighborhood& a, const T* left, int width, const T* x, const T* dout, T* ds,
                        Arena& arena);
  void conv(int l, const Neighborhood& a, const T* left, const NodeRow& row, Arena& arena);
  void conv_backward(int l, const Neighborhood& a, const NodeRow& dout, T* dproduct, T* dleft, Arena& arena);
  void products_backward(int l, const Neighborhood& a, const NodeRow& dout, NeighborhoodGradient* d,
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
  void pair_self_backward(int l, const Neighborhood& a, const T* dout, T* dx, Arena& arena);
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
  void attention_backward(int l, const Neighborhood& a, const PairAttention& s, const T* dout,
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
  T inverse_count(int n) const;   // of conv
  T inverse_moment(int n) const;  // of the symmetrised moments

  const Model& model_;
  int threads_;
  bool use_tables_, low_memory_;
  Arena* arenas_ = nullptr;
  // what pair_step leaves to pair_step_backward of the same block, thread by thread
  Arena* kept_arenas_ = nullptr;
  PairAttention** kept_ = nullptr;

  Env<T> env_repinit_, env_three_, env_repformer_;
  EmbeddingWeights<T> w_repinit_, w_three_;
  Linear<T> w_transform_;
  Buffer<T> w_tebd_;  // (nt, g1_dim): type embedding through tebd_transform
  Buffer<T> w_g2_embd_, b_g2_embd_;
  RepformerWeights<T>* layers_ = nullptr;
  NetWeights<T> w_fitting_;
  Buffer<T> types_;  // (nt, tebd)

  StepInput input_;
  StepOutput output_;
  int block_ = 1;                    // atoms of a stage call in this step
  std::size_t repformer_block_ = 0;  // most repformer pairs of a block
  std::size_t g1_stride_ = 0, g2_stride_ = 0, h2_stride_ = 0;
  int repinit_width_ = 0;
  double reach_ = 0;              // largest |c| of the three-body tables
  std::vector<Table<T>> radial_;  // layers with the same cells: g2 and its product with conv's weight
  int radial_ld_ = 0, radial_layers_ = 0;
  std::vector<char> radial_atom_;  // (natoms) that have all their neighbours in the table
  std::vector<char> tabulated_;    // (nt) types that the tables know
  std::vector<int> unit_slot_;     // (threads, unit_count_) scratch of repinit_units, full of -1
  int unit_count_ = 0;             // units of repinit's tables
  Buffer<T> rep_out_, drep_out_;   // (blocks, repinit width): [D | three-body], D with ng running fastest
  Buffer<T> moment_;               // (natoms, 4, padded ng): M
  Buffer<T> g1_slope_;             // (natoms, g1_dim): act' where g1 enters the repformers
  // act' of the dense updates of g1: layers of (natoms, g1_dim), and (blocks, g1_dim)
  Buffer<T> mlp_slope_, self_slope_, mlp_slope_block_, self_slope_block_;
  Buffer<T> g1_, dg1_;       // layers of (nrows, g1_dim); two gradients in turn
  Buffer<T> g2_, g2_block_;  // layers of (pairs, g2_dim), and the last one of blocks
  Buffer<T> dg2_;            // (pairs, g2_dim) of the layer that the reverse sweep is at
  Buffer<T> h2_, dh2_;       // layers of (pairs, kH2Row) that update h2; two gradients in turn
  Shares g1_shares_, force_shares_;
  Buffer<T> dgg1_;         // (slots, g1_dim): what pairs give to their neighbours' gradients
  Buffer<double> dforce_;  // (slots, 12): to their neighbours' forces (3) and virials (9)
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
