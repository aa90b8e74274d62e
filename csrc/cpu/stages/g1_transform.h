// g1 of layer 0: act([D | three-body] W + tebd_transform(t_i)).
#pragma once

#include <memory>
#include <vector>

#include "cpu/parts/gradients.h"
#include "cpu/parts/linear.h"
#include "cpu/parts/memory_plan.h"
#include "cpu/parts/workspace.h"
#include "model/model.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
class G1TransformStage {
 public:
  explicit G1TransformStage(const Model& model) : model_(model) { prepare(); }
  // On dual numbers, with the weights of the stage on plain ones.
  G1TransformStage(const Model& model, const G1TransformStage<Real<T>>& plain, Gradients<Real<T>>* gradients);
  void prepare();
  void add_gradient(Model* gradient) const;
  void plan(int natoms, MemoryPlan* to);
  // g1 (g1_dim) of the atoms from their rows of [D | three-body]
  void forward(const Workspace& w, Range atoms, Rows<T> descriptor, T* g1);
  // overwrites dg1
  void backward(const Workspace& w, Range atoms, T* dg1, Rows<T> ddescriptor) const;

 private:
  template <class>
  friend class G1TransformStage;
  void reorder(int count, int rows, int cols, const T* in, T* out, int width) const;

  const Model& model_;
  std::shared_ptr<Linear<Real<T>>> weight_;
  Weights<T> types_;  // (ntypes, g1_dim): the type embedding through tebd_transform
  Buffer<T> slope_;   // (natoms, g1_dim): act'
  RowGradient<Real<T>>* weight_gradient_ = nullptr;  // dual numbers only
  GroupSums* types_gradient_ = nullptr;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
