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
  // `net` is the model's, in the order of this backend; types (ntypes, tebd) the type embedding.
  FittingStage(const Model& model, const Net& net, const Weights<T>& types,
               Gradients<Real<T>>* gradients = nullptr)
      : model_(model), types_(types) {
    net_.prepare(net);
    if (!gradients) return;
    gradient_.prepare(net, gradients);
    if (model.concat_tebd) types_gradient_ = gradients->sums(model.type_embedding.data.size());
    if (model.fitting.vacuum) vacuum_gradient_.prepare(net, gradients);
  }
  void prepare(const Net& net) { net_.prepare(net); }
  void add_gradient(Model* gradient) const;
  // Computes the atoms' energies from their descriptors, and with forces the descriptors' gradients.
  void run(const Workspace& w, Range atoms, Rows<T> descriptor, Rows<T> gradient) const;

 private:
  int tebd() const { return model_.concat_tebd ? model_.tebd_dim() : 0; }
  T* inputs(const Workspace& w, Range atoms, Rows<T> descriptor) const;
  void types_backward(const Workspace& w, Range atoms, const T* dx) const;

  const Model& model_;
  const Weights<T>& types_;
  RowNet<T> net_;
  RowNetGradient<Real<T>> gradient_, vacuum_gradient_;  // dual numbers only
  GroupSums* types_gradient_ = nullptr;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
