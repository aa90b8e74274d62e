// The CPU backend for one instruction set: the inputs and outputs of each stage. The stages are objects with
// their own weights and buffers (stages/*.h). T, float or double, is the type of features and their
// gradients; distances, energies and forces are double.
#pragma once

#include <type_traits>

#include "cpu/parts/gradients.h"
#include "cpu/stages/env_mat.h"
#include "cpu/stages/fitting.h"
#include "cpu/stages/g1_transform.h"
#include "cpu/stages/repformers.h"
#include "cpu/stages/repinit.h"
#include "cpu/stages/three_body.h"
#include "engine/backend.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
class CpuBackend final : public Backend {
 public:
  CpuBackend(const Model& model, int threads, bool tables, bool low_memory);
  // On dual numbers, with the weights of a backend on plain ones.
  template <class R>
  explicit CpuBackend(CpuBackend<R>& plain);

  void begin(const StepInput& input, const StepOutput& output) override;
  void run(int natoms, const std::function<void(Range)>& stage,
           const std::function<void(Range)>& gather) override;
  void stage(Stage stage, int layer, Range a) override { call_stage(this, stage, layer, a); }
  void start_g1_gradient(int l) override { repformers_.start_g1_gradient(l); }
  // the stages: see call_stage
  void env_mat(Range a) { env_.forward(work_, a); }
  void repinit(Range);
  void three_body(Range);
  void g1_transform(Range);
  void pair_init(Range a) { repformers_.pair_init(a); }
  void pair_step(int l, Range a) { repformers_.pair_step(l, a); }
  void node_step(int l, Range a) { repformers_.node_step(l, a); }
  void fitting(Range);
  void node_step_backward(int l, Range a) { repformers_.node_step_backward(l, a); }
  void pair_step_backward(int l, Range a) { repformers_.pair_step_backward(l, a); }
  void gather_g1_gradient(int l, Range a) { repformers_.gather_g1_gradient(l, a); }
  void pair_init_backward(Range a) { repformers_.pair_init_backward(a); }
  void g1_transform_backward(Range);
  void three_body_backward(Range);
  void repinit_backward(Range);
  void env_mat_backward(Range a) {
    if constexpr (!is_dual<T>) env_.backward(work_, a);
  }
  void forces(Range a) {
    if constexpr (!is_dual<T>) env_.forces(work_, a);
  }
  void descriptor(Range, double* out) override;
  void* g1_rows(int layer) override { return g1(layer); }
  void* g1_gradient_rows(int layer) override { return dg1(layer); }
  bool single() const override { return sizeof(Real<T>) == 4; }
  std::string description() const override;
  std::size_t step_bytes() const override { return step_bytes_; }
  void prepare() override;
  std::unique_ptr<Backend> make_gradient_backend() override;
  void add_gradient(Model* to) override;

 private:
  template <class>
  friend class CpuBackend;
  // ---- shared by the stages
  const PairList& pairs() const { return work_.pairs(); }
  const Repformer& rep() const { return model_.repformer; }
  T* g1(int l) { return repformers_.g1(l); }
  T* dg1(int l) { return repformers_.dg1(l); }
  // [D | three-body] of the atoms, the part of three-body, what the fitting net reads; and the same of their
  // gradients in `of`.
  Rows<T> embedded(Buffer<T>& of, Range a) const {
    return {of.data() + work_.in_block(a.begin) * embedded_width_, embedded_width_};
  }
  Rows<T> three_body_part(Rows<T> rows) const {
    return {rows.data + rows.width - model_.three_body.ng, rows.width};
  }
  Rows<T> rows_of(T* g1, Range a) const {
    return {g1 + static_cast<std::size_t>(a.begin) * rep().g1_dim, rep().g1_dim};
  }

  int block_size(int count) const;  // atoms of one stage call
  int span_blocks() const;          // blocks between two gatherings
  void reserve();

  void build_tables();
  void build_tables(const std::vector<char>& types);
  void begin_moving();
  void drop_tables();

  const Model& model_;
  CpuBackend<Real<T>>* plain_ = nullptr;  // of dual numbers: whose weights these are
  Workspace work_;
  bool use_tables_, moving_;      // moving_: weights change
  Gradients<Real<T>> gradients_;  // dual numbers only
  Weights<T> types_;              // (nt, tebd)
  EnvMatStage<T> env_;
  RepinitStage<T> repinit_;
  ThreeBodyStage<T> three_body_;
  G1TransformStage<T> transform_;
  FittingStage<T> fitting_;
  int embedded_width_;              // of [D | three-body], D with ng running fastest
  Buffer<T> embedded_, dembedded_;  // (blocks, embedded_width_)
  std::size_t step_bytes_ = 0;
  std::vector<char> tabulated_;  // (nt) types that the tables know

  Repformers<T> repformers_;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
