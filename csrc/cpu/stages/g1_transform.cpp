#include "cpu/stages/g1_transform.h"

#include <algorithm>

#include "cpu/parts/net.h"
#include "model/folding.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
G1TransformStage<T>::G1TransformStage(const Model& m, const G1TransformStage<Real<T>>& plain,
                                      Gradients<Real<T>>* gradients)
    : model_(m), weight_(plain.weight_) {
  prepare();
  if (!m.is_dpa2) return;
  if (!m.g1_transform.empty())
    weight_gradient_ = gradients->rows(static_cast<int>(m.g1_transform.shape[0]), m.repformer.g1_dim);
  if (!types_.empty()) types_gradient_ = gradients->sums(types_.size());
}

template <class T>
void G1TransformStage<T>::prepare() {
  if (!model_.is_dpa2) return;
  types_ = cast<T>(fold_tebd(model_));
  if (is_dual<T> || model_.g1_transform.empty()) return;
  if (!weight_) weight_ = std::make_shared<Linear<Real<T>>>();
  const int rows = static_cast<int>(model_.g1_transform.shape[0]);
  weight_->prepare(model_.g1_transform, nullptr, backend_order(model_, rows));
}

template <class T>
void G1TransformStage<T>::add_gradient(Model* gradient) const {
  if (weight_gradient_)
    add_in_file_order(backend_order(model_, static_cast<int>(model_.g1_transform.shape[0])),
                      weight_gradient_->weight, &gradient->g1_transform);
  if (types_gradient_) unfold_tebd(model_, types_gradient_->total, gradient);
}

template <class T>
void G1TransformStage<T>::plan(int natoms, MemoryPlan* to) {
  to->add(&slope_, static_cast<std::size_t>(natoms) * model_.repformer.g1_dim);
}

// D of rows [D | three-body] transposed, (rows, cols) to (cols, rows): the backend's order and DeePMD-kit's,
// which a model without a weight sees.
template <class T>
void G1TransformStage<T>::reorder(int count, int rows, int cols, const T* in, T* out, int width) const {
  for (int b = 0; b < count; ++b, in += width, out += width) {
    transpose(rows, cols, in, cols, out, rows);
    std::copy(in + rows * cols, in + width, out + rows * cols);
  }
}

template <class T>
void G1TransformStage<T>::forward(const Workspace& w, Range atoms, Rows<T> descriptor, T* g1) {
  const int width = model_.repformer.g1_dim, rows = atoms.size();
  T* slope = slope_.data() + static_cast<std::size_t>(atoms.begin) * width;
  if (!weight_) {
    reorder(rows, model_.repinit_axis, model_.repinit.ng, descriptor.data, g1, descriptor.width);
  } else {
    weight_->forward(rows, descriptor.data, descriptor.width, g1, width);
    if constexpr (is_dual<T>) weight_gradient_->keep_x(atoms, descriptor.data, descriptor.width);
  }
  for (int i = 0; i < rows && !types_.empty(); ++i) {
    const int t = std::max(0, w.pairs().center_type[atoms.begin + i]);
    axpy(width, Real<T>(1), types_.data() + static_cast<std::size_t>(t) * width,
         g1 + static_cast<std::size_t>(i) * width);
  }
  activate_array(model_.repformer.act, static_cast<std::size_t>(rows) * width, g1, slope);
}

template <class T>
void G1TransformStage<T>::backward([[maybe_unused]] const Workspace& w, Range atoms, T* dg1,
                                   Rows<T> ddescriptor) const {
  const int width = model_.repformer.g1_dim, rows = atoms.size();
  const T* slope = slope_.data() + static_cast<std::size_t>(atoms.begin) * width;
  for (std::size_t k = 0; k < static_cast<std::size_t>(rows) * width; ++k) dg1[k] *= slope[k];
  if constexpr (is_dual<T>) {
    if (weight_gradient_) weight_gradient_->keep_dy(atoms, dg1, width);
    for (int i = 0; types_gradient_ && i < rows; ++i) {
      const int t = std::max(0, w.pairs().center_type[atoms.begin + i]);
      add_row_sum(1, width, dg1 + static_cast<std::size_t>(i) * width, width,
                  types_gradient_->of(w.group(atoms.begin)) + static_cast<std::size_t>(t) * width);
    }
  }
  if (!weight_) {
    reorder(rows, model_.repinit.ng, model_.repinit_axis, dg1, ddescriptor.data, ddescriptor.width);
  } else {
    weight_->backward(rows, dg1, width, ddescriptor.data, ddescriptor.width, false);
  }
}

template class G1TransformStage<float>;
template class G1TransformStage<double>;
template class G1TransformStage<Dual<float>>;
template class G1TransformStage<Dual<double>>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
