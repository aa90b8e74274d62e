// The fitting net on blocks of atoms: energies and, since dE/dE_i = 1, the descriptor's gradient in the same
// sweep.
#pragma once

#include "cpu/parts/row_net.h"
#include "cpu/parts/row_net_tangents.h"
#include "cpu/parts/workspace.h"
#include "model/formulas.h"
#include "model/model.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class R>
class FittingStage {
 public:
  // types (ntypes, tebd): the type embedding.
  FittingStage(const Model& model, const Buffer<R>& types)
      : model_(model), types_(types), weights_(std::make_shared<RowNetWeights<R>>()), net_(weights_) {
    prepare();
  }
  void prepare() { weights_->prepare(model_.fitting.net, order()); }
  // From now on the sweeps with forces keep their values for the stage on dual numbers.
  void keep_values() { keeps_ = true; }
  void plan(const Workspace& w, MemoryPlan* to);
  // Computes the atoms' energies from their descriptors, and with forces the descriptors' gradients.
  void run(const Workspace& w, Range atoms, Rows<R> descriptor, Rows<R> gradient);

 private:
  template <class>
  friend class FittingStage;
  AtomEnergy energy(int type, double net) const;
  void rest(const Workspace& w, int atom, R* out) const;
  void clear_surroundings(int rows, int width, R* x) const;
  // of the first layer's rows
  std::vector<int> order() const;
  int tebd() const { return model_.concat_tebd ? model_.tebd_dim() : 0; }

  const Model& model_;
  const Buffer<R>& types_;
  std::shared_ptr<RowNetWeights<R>> weights_;
  RowNet<R> net_;
  bool keeps_ = false;
  RowNetValues<R> values_, vacuum_values_;
};

// On dual numbers: the tangents, after a sweep of the stage on plain numbers, which kept its values.
template <class R>
class FittingStage<Dual<R>> {
 public:
  FittingStage(const Model& model, const FittingStage<R>& plain, Gradients<R>* gradients);
  void prepare() {}
  void plan(const Workspace&, MemoryPlan*) {}
  void run(const Workspace& w, Range atoms, Rows<Dual<R>> descriptor, Rows<Dual<R>> gradient);
  void add_gradient(Model* gradient) const;

 private:
  void fill_inputs(const Workspace& w, Range atoms, Rows<Dual<R>> descriptor);
  void types_backward(const Workspace& w, Range atoms, const R* dx) const;

  const Model& model_;
  const FittingStage<R>& plain_;
  RowNetTangents<R> net_;
  std::unique_ptr<RowNetTangents<R>> vacuum_;  // if the energy is counted from that in an empty space
  GroupSums* types_gradient_ = nullptr;        // if the net reads the type embedding
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
