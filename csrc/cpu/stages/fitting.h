// The fitting net on blocks of atoms: energies and, since dE/dE_i = 1, the descriptor's gradient in the same
// sweep.
#pragma once

#include "cpu/row_net.h"
#include "cpu/workspace.h"
#include "model/model.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
class FittingStage {
 public:
  // types (ntypes, tebd): the type embedding.
  FittingStage(const Model& model, const Weights<T>& types)
      : model_(model), types_(types), weights_(std::make_shared<RowNetWeights<Real<T>>>()), net_(weights_) {
    prepare();
  }
  // On dual numbers, with the weights of the stage on plain ones.
  FittingStage(const Model& model, const Weights<T>& types, const FittingStage<Real<T>>& plain,
               Gradients<Real<T>>* gradients);
  void prepare() {
    if (!is_dual<T>) weights_->prepare(model_.fitting.net, order());
  }
  void add_gradient(Model* gradient) const;
  // Computes the atoms' energies from their descriptors, and with forces the descriptors' gradients.
  void run(const Workspace& w, Range atoms, Rows<T> descriptor, Rows<T> gradient) const;

 private:
  template <class>
  friend class FittingStage;
  // of the first layer's rows
  std::vector<int> order() const;
  int tebd() const { return model_.concat_tebd ? model_.tebd_dim() : 0; }
  T* inputs(const Workspace& w, Range atoms, Rows<T> descriptor) const;
  void types_backward(const Workspace& w, Range atoms, const T* dx) const;

  const Model& model_;
  const Weights<T>& types_;
  std::shared_ptr<RowNetWeights<Real<T>>> weights_;
  RowNet<T> net_;
  RowNetGradient<Real<T>> gradient_, vacuum_gradient_;  // dual numbers only
  GroupSums* types_gradient_ = nullptr;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
