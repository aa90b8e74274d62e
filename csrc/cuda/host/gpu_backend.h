// The backend for a GPU: buffers, folded weights, and the order of the kernels. Compiled by nvcc for the
// device (cuda_float32.cu, cuda_float64.cu) and by the host compiler for tests (emulated_backend.cpp).
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "cuda/block/device.h"
#include "cuda/kernels/dense.h"
#include "cuda/kernels/dense_steps.h"
#include "cuda/kernels/pair_list.h"
#include "cuda/kernels/repformer_node_warp_backward.h"
#include "cuda/kernels/repformer_pair_attention.h"
#include "cuda/kernels/repformer_pair_warp_backward.h"
#include "cuda/kernels/scan.h"
#include "cuda/kernels/sums.h"
#include "engine/backend.h"
#include "model/folding.h"
#include "model/model.h"
#include "neighbors/neighbor_bins.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// Counts of the three viewers' pairs (pair_list.h): all, the three-body block's, the repformers'.
struct PairNumbers {
  std::int64_t pairs = 0, three = 0, repformer = 0;
};

// The sizes that decide a step's memory: atoms, rows and positions (pairs.h); candidates and their shifts;
// for a search on the device, atoms in bins, bins and frames; frames that get sums; all pairs and the
// repformers' pairs; the largest chunk's atoms and pairs of each viewer; whether there is a reverse sweep.
struct StepSizes {
  std::size_t natoms = 0, nrows = 0, positions = 0, candidates = 0, shifts = 0, pairs = 0, repformer = 0;
  std::size_t binned = 0, bins = 0, frames = 0, result_frames = 1;
  std::size_t chunk = 0, chunk_pairs = 0, chunk_three = 0, chunk_repformer = 0;
  bool forces = false;
  bool keep_attention = true;  // KeptAttention, if there is memory for it

  // Scales the sizes to n atoms.
  StepSizes scaled_to(std::int64_t n) const {
    StepSizes to = *this;
    const auto scale = [&](double factor, std::initializer_list<std::size_t StepSizes::*> sizes) {
      for (const auto size : sizes)
        to.*size = static_cast<std::size_t>(std::ceil(factor * static_cast<double>(this->*size)));
    };
    scale(static_cast<double>(n) / static_cast<double>(natoms),
          {&StepSizes::natoms, &StepSizes::nrows, &StepSizes::positions, &StepSizes::candidates,
           &StepSizes::pairs, &StepSizes::repformer, &StepSizes::binned, &StepSizes::bins});
    const auto in_chunk = static_cast<double>(std::min<std::int64_t>(n, chunk_atoms()));
    scale(in_chunk / static_cast<double>(chunk),
          {&StepSizes::chunk, &StepSizes::chunk_pairs, &StepSizes::chunk_three, &StepSizes::chunk_repformer});
    return to;
  }
};

// The sum of each count over all atoms, and the largest.
struct PairTotals {
  std::int64_t sum[kCounts], most[kCounts];
};

// False if the environment variable is "0"; for comparisons.
inline bool switched_on(const char* variable) {
  const char* text = std::getenv(variable);
  return !text || std::string(text) != "0";
}

// The bytes that an array needs for a step.
struct Need {
  Storage* storage;
  std::size_t bytes;
};
template <class T>
Need need(Buffer<T>* buffer, std::size_t n) {
  return {buffer, n * sizeof(T)};
}

template <class T>
class GpuBackend final : public Backend {
 public:
  GpuBackend(const Model& model, int device, bool tables);

  bool searches() const override { return true; }
  bool build_pairs(const Atoms& atoms, bool forces, bool once, PairList* out) override;
  void begin(const StepInput& input, const StepOutput& output) override;
  bool finish(PairList* pairs) override;
  bool results_by_finish() const override { return true; }
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
  void set_sent_rows(const std::vector<int>& sent) override { sent_.upload(sent); }
  void* g1_rows(int layer) override;
  void put_g1_rows(int layer) override;
  void* g1_gradient_rows(int layer) override;
  void put_g1_gradient_rows(int layer) override;
  void wait() override {
    launches_.flush();
    wait_for_device();
  }
  void measure_kernels(bool yes) override { launches_.measure(yes); }
  std::vector<KernelTime> kernel_times() override { return launches_.times(); }
  DeviceMemory memory(std::int64_t natoms) override;
  bool single() const override { return sizeof(T) == 4; }
  std::string description() const override;

 private:
  // ---- gpu_weights.h
  void prepare();
  NetView<T> prepare_net(const Net& net);
  Weight<T> prepare_weight(const Tensor& w);
  Linear<T> prepare_linear(const Tensor& w, const Tensor* b);
  EmbeddingView<T> prepare_embedding(const Embedding& e);
  void prepare_block(const Block& block, EnvView<T>* env);
  LayerView<T> prepare_layer(int l, const FoldedLayer& w);
  void prepare_fitting();
  void choose_warp_kernels();
  void prepare_halves(int l, const FoldedLayer& w);

  // ---- gpu_tables.h
  void build_tables(const std::vector<char>& present);
  void build_repinit_tables();
  void build_three_body_tables();
  const TableView<T>* upload_views(const std::vector<TableView<T>>& views);

  // ---- gpu_pairs.h
  struct ScanBuffers {
    Buffer<std::int64_t> first, tile, total;
    Buffer<int> tile_most;
  };
  void list_candidates(const Atoms& atoms, bool forces);
  void upload_list(const Atoms& atoms);
  bool host_row_known(const Atoms& atoms) const;
  void upload_atoms(const Atoms& atoms);
  CandidateView candidates() const;
  void scan(int arrays, int n, const Buffer<int>& count, ScanBuffers* to, const ScanLimit* limit = nullptr);
  void select_pairs(bool limited);
  void measure_pairs();
  bool within_bounds(const PairTotals& t) const;
  void refuse_coincident_atoms(const PairTotals& t) const;
  void divide(const PairNumbers& total);
  std::vector<int> atom_counts(int which) const;
  void describe_pairs(const PairTotals& t, PairList* out) const;
  void number_pairs();
  void fill_pairs(Range, bool numbers, bool pairs);
  // The candidates' numbers as pairs. They share dg2_, which the reverse sweep overwrites later.
  std::int32_t* pair_of() const { return reinterpret_cast<std::int32_t*>(dg2_.data()); }
  std::int32_t* repformer_of() const { return pair_of() + sizes_.candidates; }

  // ---- gpu_dense.h
#if defined(__CUDACC__)
  SplitWeight prepare_split(const Tensor& w, int columns = 0);
  template <class Op>
  void start_product(const Op& op);
  void prepare_split_weights();
  void fit(Range, int width, const T* feature, T* dfeature);
#endif
  void prepare_dense();
  bool fitting_by_layers(int width) const;
  std::size_t fitting_rows(std::size_t chunk) const;
  int fitting_widest() const;
  bool transform_product(Range);
  bool transform_backward_product(Range);
  bool query_product(int layer, Range);
  bool query_backward_product(int layer, Range);
  bool node_update_product(int layer, Range);
  bool node_update_backward_product(int layer, Range);
  bool fitting_products(Range, int width, const T* feature, T* dfeature);

  // ---- gpu_stages.h
  void env_mats(Range, bool repformer);
  bool forks() const;
  bool warp_pair_step(int l, Range a, const PairState<T>& from, T* to, const KeptAttention<T>& kept);
  bool warp_pair_step_backward(int l, Range a, const PairState<T>& x);
  bool warp_pair_init(Range a, T* out);
  bool warp_pair_init_backward(Range a);
  bool warp_node_moments(int l, Range a);
  bool warp_node_moments_backward(int l, Range a, bool clear_pairs);

  // ---- gpu_chunks.h
  const PairNumbers& pairs_before(int atom) const {
    return before_[(atom + chunk_atoms() - 1) / chunk_atoms()];
  }
  State<T> here(Range) const;
  PairState<T> pair(int layer, Range);
  PairState<T> dpair(int layer) const;
  KeptAttention<T> kept_attention(int layer) const;
  KeptAttention<T> attention_again(Range) const;
  NodeArrays<T> nodes(Range) const;
  NodeArrays<T> dnodes(Range) const;
  std::int64_t kept_g2(bool back) const { return rep().nlayers < 3 ? 0 : back ? rep().nlayers - 2 : 1; }
  T* slope(const Buffer<T>& kept, int layer, Range) const;
  RowPairs row_pairs(int which, const Buffer<std::int32_t>& pairs, std::int64_t begin,
                     std::int64_t end) const;

  // ---- gpu_candidates.h
  struct Sums {
    std::int64_t total;
    int most;
  };
  Sums scan_alone(int n, const Buffer<int>& count, ScanBuffers* to);
  void search(const Atoms& atoms);
  void group_rows();

  // ---- gpu_exchange.h
  void move_sent_rows(const T* from, T* to, bool add);
  std::size_t ghosts_at() const { return static_cast<std::size_t>(state_.natoms) * rep().g1_dim; }

  // ---- gpu_step.h
  double* frame_sums() const { return results_.data() + 2 * kCounts; }
  double* energy() const { return frame_sums() + kSums * sizes_.result_frames; }
  double* force() const { return energy() + state_.natoms; }
  double* virial() const { return force() + 3 * static_cast<std::size_t>(state_.nrows); }
  std::array<int*, kCounters> counters() const;
  void divide_frames();
  void sum_frames();
  const double* download_results();
  void copy_results(const double* from) const;
  void upload_parameters();

  // ---- gpu_memory.h
  std::vector<Need> list_plan(const StepSizes& sizes);
  std::vector<Need> step_plan(const StepSizes& sizes);
  std::vector<Need> plan(const StepSizes& sizes);
  std::size_t fixed_memory() const;
  double total(const StepSizes& sizes);
  bool fits(const std::vector<Need>& needs) const;
  void check_memory(const std::vector<Need>& needs);
  void reserve_scratch();
  void reserve();

  // Starts a kernel for a range of its items (atoms, groups of atoms, rows, ...).
  template <class Kernel>
  void start(const Kernel& kernel, Range items, int most_neighbors = 0) {
    Scratch bytes(nullptr);
    kernel.arrays(&bytes, most_neighbors);
    const std::size_t slab = launches_.slab_bytes(items.size(), bytes.used());
    if (slab > slab_.capacity()) {
      launches_.flush();  // recorded launches point to the old slab
      slab_.resize(slab);
    }
    if (!sizing_)
      launches_.launch(kernel, items.begin, items.end, bytes.used(), slab ? slab_.data() : nullptr);
  }
#if defined(__CUDACC__)
  // Starts a kernel with a warp per atom; returns false if its scratch does not fit into shared memory.
  template <class Kernel>
  bool start_warps(Kernel kernel, Range atoms) {
    kernel.begin = atoms.begin, kernel.end = atoms.end;
    constexpr int most = MostThreads<Kernel>::value / 32;
    const bool stays = most * 32 > kThreads;  // a persistent kernel: one block per multiprocessor
    kernel.warps = stays ? most : launches_.warps_for(atoms.size());
    kernel.blocks = (atoms.size() + kernel.warps - 1) / kernel.warps;
    if (WarpsOfAtom<Kernel>::value > 1)
      kernel.warps = WarpsOfAtom<Kernel>::value, kernel.blocks = atoms.size();
    if (stays) kernel.blocks = std::min(kernel.blocks, launches_.multiprocessors());
    if (kernel.list) kernel.blocks = std::min(kernel.blocks, 8 * launches_.multiprocessors());
    Scratch bytes(nullptr);
    kernel.arrays(&bytes, 0);
    if (bytes.used() > launches_.most_shared()) return false;
    start(kernel, Range{0, kernel.blocks});
    return true;
  }
  // Starts Kernel<tiles, warps>, chosen by the numbers of atoms and of their neighbours; `with` sets its
  // members. WARPS: the warps of a persistent block.
  template <template <int, int> class Kernel, int WARPS, class With>
  void start_by_neighbors(Range atoms, With with) {
    const bool few = atoms.size() < 8 * launches_.multiprocessors();  // below, split blocks are as fast
    if (few || !start_warps(with(Kernel<2, WARPS>{}), atoms)) start_warps(with(Kernel<2, kSplit>{}), atoms);
    if (most_repformer_ <= kFewNeighbors) return;
    auto crowded = with(Kernel<3, kSplit>{});
    crowded.count = crowded_.data(), crowded.list = crowded_.data() + 1;
    launches_.twin();
    start_warps(crowded, atoms);
  }
#endif
  template <class Kernel>
  void start(const Kernel& kernel, int items) {
    start(kernel, Range{0, items});
  }
  template <class U>
  void clear(U* x, std::size_t size) {
    const Clear<U> kernel{static_cast<std::int64_t>(size), x};
    start(kernel, kernel.items());
  }
  const Repformer& rep() const { return model_.repformer; }
  T* g1(int l) const { return g1_.data() + static_cast<std::size_t>(l) * g1_stride_; }
  T* dg1(int l) const { return dg1_.data() + static_cast<std::size_t>(l % 2) * g1_stride_; }

  const Model& model_;
  int device_;
  bool use_tables_, graphs_;
  Launches launches_;
  Buffer<char> slab_;    // scratch that does not fit into shared memory
  bool sizing_ = false;  // start() only reserves scratch, and runs no kernel

  // ---- weights
  WeightStore<T> weights_;
  WeightStore<double> doubles_;
  State<T> state_;  // of the model; begin() adds the step
  Linear<T> transform_;
  const T *tebd_ = nullptr, *g2_embd_w_ = nullptr, *g2_embd_b_ = nullptr;
  std::vector<LayerView<T>> layers_;
  // pair steps by repformer_pair_warp.h, moments of node steps by repformer_node_warp.h
  bool warp_pairs_ = false, warp_nodes_ = false;
#if defined(__CUDACC__)
  std::vector<HalfLayer> half_layers_;
#endif
  FittingView<T> fitting_;
#if defined(__CUDACC__)
  SplitWeights split_;
#endif
  std::vector<char> tabulated_types_;  // (nt) that the tables know
  std::unique_ptr<WeightStore<T>> tables_;

  // ---- the step
  StepInput input_;
  StepOutput output_;
  StepSizes sizes_;
  std::vector<Range> chunks_;                                  // of atoms; at least one
  std::vector<PairNumbers> before_;                            // (chunks + 1) pairs before each chunk
  std::size_t g1_stride_ = 0, g2_stride_ = 0, h2_stride_ = 0;  // of a layer
  int most_pairs_ = 0, most_three_ = 0, most_repformer_ = 0;   // neighbours of one atom
  // The counts of pairs (above) are upper bounds from an earlier step, so that the host starts the kernels
  // without waiting for this step's counts; finish() checks the bounds.
  bool guesses_ = false;
  bool bounds_known_ = false;         // the bounds are valid
  std::size_t bound_candidates_ = 0;  // candidates when the bounds were measured
  bool reserved_ = false;             // all arrays have their sizes
  bool counters_zero_ = false;        // counters() are zero, as a finished step leaves them
  HostBuffer<T> host_rows_;           // (nrows, g1) the rows of an exchange
  Buffer<int> sent_;                  // the rows that an exchange sends

  // ---- candidates on the device, and the host's record of them
  std::uint64_t list_version_ = 0;  // 0: no list to reuse
  bool rows_known_ = false;         // candidate_row_scan_ and row_candidate_ are filled
  int positions_ = 0, most_candidates_ = 0, most_row_candidates_ = 0;  // of one atom, of one row
  std::vector<double> host_shift_vectors_;
  std::vector<int> host_type_, host_row_;  // (positions); no rows: they are the positions
  std::vector<char> types_present_;
  Buffer<double> x_, shift_vectors_;
  HostBuffer<double> host_x_;
  Buffer<int> position_type_, position_row_;
  Buffer<int> candidate_count_, candidate_row_count_;
  ScanBuffers candidate_scan_, candidate_row_scan_;  // where an atom's, a row's candidates begin
  struct BinBuffers {
    Buffer<Grid> grids;
    Buffer<double> px, py, pz, ux, uy, uz;
    Buffer<std::int64_t> wrap_key, zero_shift;
    Buffer<std::int32_t> atom_of, grid_of, bin_start;
  };
  BinBuffers bins_;
  Buffer<std::int32_t> candidate_atom_, candidate_shift_, row_candidate_;  // see pair_list.h
  Buffer<unsigned char> mark_;
  const char *model_exclude_ = nullptr, *descriptor_exclude_ = nullptr;  // (nt, nt)

  // ---- pairs
  Buffer<int> count_, zeroed_, row_count_;
  ScanBuffers atom_scan_;
  Buffer<double> vec_, r_;
  Buffer<std::int32_t> type_, repformer_row_, by_row_, by_row_repformer_;
  Buffer<int> crowded_;  // how many atoms are crowded, then which (FillPairs)
  Buffer<int> tabulated_, tabulated3_;
  Buffer<T> parameters_;

  struct EnvBuffers {
    Buffer<T> em, dem, sw, dsw;
  };
  EnvBuffers repinit_env_, three_env_, repformer_env_;
  Buffer<T> moment_, rep_out_, drep_out_;
  Buffer<T> g1_slope_, mlp_slope_, self_slope_;  // act' where g1 enters; of the layers' dense updates
  Buffer<T> g1_, dg1_;                           // layers of (nrows, g1); two gradients in turn
  Buffer<T> g2_, dg2_;                           // (repformer pairs, g2): layers, see pair(); one gradient
  Buffer<T> g2_first_;                           // g2 of layer 0, of a chunk
  bool first_made_ = false;                      // g2_first_ holds the only chunk, for the whole step
  Buffer<T> kept_norm_, kept_rstd_;              // layers of KeptAttention
  Buffer<T> h2_, dh2_;                           // (repformer pairs, 3), where h2 is updated
  Buffer<T> dgg1_;  // (repformer pairs, g1): each pair's share of its neighbour's gradient
  Buffer<T> cat_, conv_, query_, weighted_, dquery_;
  Buffer<T> fitting_x_, fitting_slope_, fitting_seed_;  // of some atoms: gpu_dense.h
  Buffer<double> pair_force_;
  // Totals of the pair list (2, kCounts), sums of frames (frames, kSums), energies (natoms), forces (nrows,
  // 3), virials (nrows, 9). One download, up to the last array that is wanted.
  Buffer<double> results_;
  HostBuffer<double> host_results_;
  std::vector<int> frame_start_, first_tile_;  // of frames; (frames + 1) the first tile of each
  std::vector<RowTile> host_tiles_;
  Buffer<RowTile> tiles_;
  Buffer<int> frame_tile_;
  Buffer<double> tile_sums_;
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
