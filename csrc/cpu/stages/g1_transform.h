// g1 of layer 0: act([D | three-body] W + tebd_transform(t_i)).
#pragma once

#include "cpu/gradients.h"
#include "cpu/linear.h"
#include "cpu/memory_plan.h"
#include "cpu/workspace.h"
#include "model/model.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// A weight that reads D (DeePMD-kit: (ng, axis), in this backend (axis, ng)), in the order of this backend.
Tensor in_backend_order(const Model& model, Tensor weight);
// The way back, for its gradient: adds to the rows of D and to those that follow.
void add_in_file_order(const Model& model, const std::vector<double>& gradient, Tensor* weight);

template <class T>
class G1TransformStage {
 public:
  explicit G1TransformStage(const Model& model, Gradients<Real<T>>* gradients = nullptr);
  void prepare();
  void add_gradient(Model* gradient) const;
  void plan(int natoms, MemoryPlan* to);
  // g1 (g1_dim) of the atoms from their rows of [D | three-body]
  void forward(const Workspace& w, Range atoms, Rows<T> descriptor, T* g1);
  // overwrites dg1
  void backward(const Workspace& w, Range atoms, T* dg1, Rows<T> ddescriptor) const;

 private:
  void reorder(int count, int rows, int cols, const T* in, T* out, int width) const;

  const Model& model_;
  Linear<T> weight_;
  Weights<T> types_;  // (ntypes, g1_dim): the type embedding through tebd_transform
  Buffer<T> slope_;   // (natoms, g1_dim): act'
  RowGradient<Real<T>>* weight_gradient_ = nullptr;  // dual numbers only
  GroupSums* types_gradient_ = nullptr;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
