// The backend for a GPU: the order of the kernels of a step, over objects that own weights and arrays.
// Compiled by nvcc for the device (cuda_float32.cu, cuda_float64.cu) and by the host compiler for tests
// (emulated_backend.cpp).
#pragma once

#include <array>
#include <string>
#include <vector>

#include "cuda/host/candidate_list.h"
#include "cuda/host/dense_products.h"
#include "cuda/host/model_tables.h"
#include "cuda/host/model_weights.h"
#include "cuda/host/pair_lister.h"
#include "cuda/host/row_exchange.h"
#include "cuda/host/starter.h"
#include "cuda/host/step_arrays.h"
#include "cuda/host/step_results.h"
#include "cuda/host/warp_kernels.h"
#include "engine/backend.h"

namespace dpa2md {
namespace DPA2MD_GPU {

template <class T>
class GpuBackend final : public Backend {
 public:
  GpuBackend(const Model& model, int device, bool tables);

  // ---- gpu_step.h
  bool searches() const override { return true; }
  bool build_pairs(const Atoms& atoms, bool forces, bool once, PairList* out) override;
  void begin(const StepInput& input, const StepOutput& output) override;
  void run(int natoms, const std::function<void(Range)>& stage,
           const std::function<void(Range)>& gather) override;
  bool finish(PairList* pairs) override;
  bool results_by_finish() const override { return true; }
  void descriptor(Range, double* out) override;
  DeviceMemory memory(std::int64_t natoms) override;

  // ---- gpu_stages.h, see call_stage
  void stage(Stage stage, int layer, Range a) override { call_stage(this, stage, layer, a); }
  void env_mat(Range);
  void repinit(Range);
  void three_body(Range);
  void g1_transform(Range);
  void pair_init(Range) {}  // pair() does it on demand
  void pair_step(int layer, Range);
  void node_step(int layer, Range);
  void fitting(Range);
  void start_g1_gradient(int l) override { starter_.clear(arrays_.dg1(l), arrays_.g1_size()); }
  void node_step_backward(int layer, Range);
  void pair_step_backward(int layer, Range);
  void gather_g1_gradient(int layer, Range);
  void pair_init_backward(Range);
  void g1_transform_backward(Range);
  void three_body_backward(Range);
  void repinit_backward(Range);
  void env_mat_backward(Range);
  void forces(Range);

  void set_sent_rows(const std::vector<int>& sent) override {
    exchange_.set_sent(sent, state_.natoms, state_.nrows);
  }
  void* g1_rows(int l) override { return exchange_.take_sent(arrays_.g1(l)); }
  void put_g1_rows(int l) override { exchange_.put_ghosts(arrays_.g1(l)); }
  void* g1_gradient_rows(int l) override { return exchange_.take_ghosts(arrays_.dg1(l)); }
  void put_g1_gradient_rows(int l) override { exchange_.add_sent(arrays_.dg1(l)); }

  void wait() override { starter_.wait(); }
  void measure_kernels(bool yes) override { starter_.launches().measure(yes); }
  std::vector<KernelTime> kernel_times() override { return starter_.launches().times(); }
  bool single() const override { return sizeof(T) == 4; }
  std::string description() const override;

 private:
  const Repformer& rep() const { return model_.repformer; }
  Launches& launches() { return starter_.launches(); }
  template <class Kernel>
  void start(const Kernel& kernel, Range items, int most_neighbors = 0) {
    starter_.start(kernel, items, most_neighbors);
  }

  // ---- gpu_step.h
  std::vector<Need> count_plan(const StepSizes& z);
  std::vector<Need> plan(const StepSizes& z);
  std::size_t fixed_memory() const;
  double total(const StepSizes& z);
  void check_memory(const std::vector<Need>& needs);
  void reserve();
  void reserve_scratch();
  void upload_parameters();
  std::array<int*, kCounters> counters() const;

  // ---- gpu_stages.h
  State<T> here(Range a) const { return of_chunk(state_, pairs_.chunks().pairs_before(a.begin), a); }
  void env_mats(Range, bool repformer);
  bool forks() const;
  PairState<T> pair(int layer, Range a);
  void attention_query(int layer, Range a);
  DenseStep<T> dense_step(int layer, Range a, bool backward) const;

  const Model& model_;
  int device_;
  bool graphs_;
  Starter starter_;
  ModelWeights<T> weights_;
  ModelTables<T> tables_;
  DenseProducts<T> dense_;
  WarpKernels<T> warps_;

  // ---- the step
  StepInput input_;
  StepOutput output_;
  StepSizes sizes_;
  State<T> state_;  // of the model and of the step
  CandidateList candidates_;
  PairLister pairs_;
  StepArrays<T> arrays_;
  StepResults results_;
  RowExchange<T> exchange_;
  Buffer<T> parameters_;        // (natoms, FittingView::parameters)
  bool guesses_ = false;        // the pairs are counted within bounds of an earlier step
  bool reserved_ = false;       // all arrays have their sizes
  bool counters_zero_ = false;  // counters() are zero, as a finished step leaves them
  bool first_made_ = false;     // g2 of layer 0 is there, of the only chunk
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
