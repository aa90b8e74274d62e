// The repformer layers: from g1 of layer 0 to g1 of the last, and in reverse. The pair step makes the next
// layer's g2 and h2, the node step the next layer's g1; layers whose g2 depends on the distance alone look it
// up.
#pragma once

#include <memory>
#include <vector>

#include "cpu/stages/repformer_node_stage.h"
#include "cpu/stages/repformer_pair.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
class Repformers {
 public:
  Repformers(const Workspace& work, Env<T>* env) : Repformers(work, env, nullptr, nullptr) {}
  // On dual numbers, with the weights of `plain`.
  Repformers(const Workspace& work, Env<T>* env, const Repformers<Real<T>>* plain,
             Gradients<Real<T>>* gradients);
  void prepare() {
    if (state_.model.is_dpa2) state_.prepare();
  }
  // Adds to the model's gradient.
  void add_gradient([[maybe_unused]] Model* gradient) const {
    if constexpr (is_dual<T>) {
      if (sums_) sums_->add_gradient(gradient);
    }
  }
  // Tables of g2 for these types (ntypes).
  void build_tables([[maybe_unused]] const std::vector<char>& types) {
    if constexpr (!is_dual<T>) radial_.build(types);
  }
  // `spans`: blocks between two gatherings.
  void begin(int spans) { state_.begin(spans); }
  void plan(MemoryPlan* to);

  // The stages: stages.h. From g1(0), that others write, to g1(nlayers),
  void pair_init(Range a) { pair_.init(a); }
  void pair_step(int layer, Range a) { pair_.forward(layer, a); }
  void node_step(int layer, Range a) { node_.forward(layer, a); }
  // and from dg1(nlayers) to dg1(0).
  void start_g1_gradient(int layer) { state_.start_g1_gradient(layer); }
  void node_step_backward(int layer, Range a) { node_.backward(layer, a); }
  void pair_step_backward(int layer, Range a) { pair_.backward(layer, a); }
  void gather_g1_gradient(int layer, Range a) { state_.gather_g1_gradient(layer, a); }
  void pair_init_backward(Range a) { pair_.init_backward(a); }

  T* g1(int l) { return state_.g1(l); }
  T* dg1(int l) { return state_.dg1(l); }

 private:
  template <class>
  friend class Repformers;
  std::unique_ptr<RepformerSums<T>> make_sums(Gradients<Real<T>>* gradients);

  RepformerState<T> state_;
  RadialTables<T> radial_;
  std::unique_ptr<RepformerSums<T>> sums_;  // dual numbers only
  PairStage<T> pair_;
  NodeStage<T> node_;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
