// The fitting net on blocks of atoms: energies and, since dE/dE_i = 1, the descriptor's gradient in the same
// sweep.
#pragma once

#include "cpu/vector/net.h"
#include "cpu/workspace.h"
#include "model/model.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
class FittingStage {
 public:
  // `net` is the model's, in the order of this backend; types (ntypes, tebd) the type embedding.
  FittingStage(const Model& model, const Net& net, const Buffer<T>& types) : model_(model), types_(types) {
    net_.prepare(net);
  }
  // Computes the atoms' energies from their descriptors, and with forces the descriptors' gradients.
  void run(const Workspace& w, Range atoms, Rows<T> descriptor, Rows<T> gradient) const;

 private:
  const Model& model_;
  const Buffer<T>& types_;
  NetWeights<T> net_;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
