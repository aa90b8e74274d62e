// The fitting net on dual numbers.
#include <algorithm>

#include "cpu/stages/fitting.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class R>
FittingStage<Dual<R>>::FittingStage(const Model& model, const FittingStage<R>& plain, Gradients<R>* gradients)
    : model_(model), plain_(plain), net_(model.fitting.net, plain.weights_, &plain.values_, gradients) {
  if (model.concat_tebd) types_gradient_ = gradients->sums(model.type_embedding.data.size());
  if (model.fitting.vacuum) {
    vacuum_ = std::make_unique<RowNetTangents<R>>(model.fitting.net, plain.weights_, &plain.vacuum_values_,
                                                  gradients);
  }
}

template <class R>
void FittingStage<Dual<R>>::run(const Workspace& w, Range range, Rows<Dual<R>> descriptor,
                                Rows<Dual<R>> gradient) {
  Arena& a = w.arena();
  Arena::Scope scope(a);
  const int rows = range.size(), in = model_.fitting.net.in(), group = w.group(range.begin);
  fill_inputs(w, range, descriptor);
  typename RowNetTangents<R>::Tape tape, vacuum_tape;
  net_.forward(range, a, &tape);
  if (vacuum_) vacuum_->forward(range, a, &vacuum_tape);
  R *dy = a.take<R>(rows), *dvacuum = a.take<R>(rows);
  for (int b = 0; b < rows; ++b) {
    const bool counts = plain_.energy(w.pairs().center_type[range.begin + b], 0).counts;
    dy[b] = counts ? R(w.input.along->seeds[range.begin + b]) : R(0), dvacuum[b] = -dy[b];
  }
  if (vacuum_) vacuum_->backward(range, dvacuum, vacuum_tape, group, a);
  const R *dx = net_.backward(range, dy, tape, group, a), *value = net_.dx_values(range);
  for (int b = 0; b < rows; ++b) {
    const std::size_t row = static_cast<std::size_t>(b) * in;
    for (int c = 0; c < descriptor.width; ++c) gradient[b][c] = {value[row + c], dx[row + c]};
  }
  types_backward(w, range, dx + descriptor.width);
}

// The descriptor's values and tangents; all else has no tangent.
template <class R>
void FittingStage<Dual<R>>::fill_inputs(const Workspace& w, Range range, Rows<Dual<R>> descriptor) {
  const int rows = range.size(), width = descriptor.width, in = model_.fitting.net.in();
  const std::size_t size = static_cast<std::size_t>(rows) * in;
  R *value = net_.input(range), *tangent = value + size;
  for (int b = 0; b < rows; ++b, value += in, tangent += in) {
    const Dual<R>* from = descriptor[b];
    for (int c = 0; c < width; ++c) value[c] = from[c].value, tangent[c] = from[c].tangent;
    plain_.rest(w, range.begin + b, value + width);
    std::fill_n(tangent + width, in - width, R(0));
  }
  if (!vacuum_) return;
  std::copy_n(net_.input(range), size, vacuum_->input(range));
  plain_.clear_surroundings(rows, width, vacuum_->input(range));
  std::fill_n(vacuum_->input(range) + size, size, R(0));
}

// dx: tangents, of the first atom's type; rows are as long as the net's input
template <class R>
void FittingStage<Dual<R>>::types_backward(const Workspace& w, Range range, const R* dx) const {
  if (!types_gradient_) return;
  double* sum = types_gradient_->of(w.group(range.begin));
  const int tebd = plain_.tebd();
  for (int b = 0; b < range.size(); ++b, dx += model_.fitting.net.in()) {
    double* to = sum + std::max(0, w.pairs().center_type[range.begin + b]) * tebd;
    for (int c = 0; c < tebd; ++c) to[c] += double(dx[c]);
  }
}

template <class R>
void FittingStage<Dual<R>>::add_gradient(Model* gradient) const {
  if (types_gradient_) add_to(types_gradient_->total, &gradient->type_embedding);
  net_.add_gradient(plain_.order(), &gradient->fitting.net);
  if (vacuum_) vacuum_->add_gradient(plain_.order(), &gradient->fitting.net);
}

template class FittingStage<Dual<float>>;
template class FittingStage<Dual<double>>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
