#include "cpu/stages/fitting.h"

#include <algorithm>

#include "model/formulas.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
FittingStage<T>::FittingStage(const Model& model, const Weights<T>& types, const FittingStage<Real<T>>& plain,
                              Gradients<Real<T>>* gradients)
    : model_(model), types_(types), weights_(plain.weights_), net_(weights_) {
  gradient_.prepare(model.fitting.net, gradients);
  if (model.concat_tebd) types_gradient_ = gradients->sums(model.type_embedding.data.size());
  if (model.fitting.vacuum) vacuum_gradient_.prepare(model.fitting.net, gradients);
}

template <class T>
std::vector<int> FittingStage<T>::order() const {
  if (model_.is_dpa2) return {};
  return backend_order(model_, model_.fitting.net.in());
}

template <class T>
void FittingStage<T>::run(const Workspace& w, Range range, Rows<T> descriptor, Rows<T> gradient) const {
  const Fitting& f = model_.fitting;
  Arena& a = w.arena();
  Arena::Scope scope(a);
  const int rows = range.size(), width = descriptor.width, in = f.net.in();
  const T* x = inputs(w, range, descriptor);
  typename RowNet<T>::Tape tape, vacuum_tape;
  const T* y = net_.forward(rows, x, a, w.input.forces ? &tape : nullptr);
  const T* vacuum = nullptr;
  if (f.vacuum) {
    T* empty = a.take<T>(static_cast<std::size_t>(rows) * in);
    std::copy(x, x + static_cast<std::size_t>(rows) * in, empty);
    for (int b = 0; b < rows; ++b)
      std::fill_n(empty + static_cast<std::size_t>(b) * in, width + tebd(), T(0));
    vacuum = net_.forward(rows, empty, a, is_dual<T> ? &vacuum_tape : nullptr);
  }
  const int* type = w.pairs().center_type.data() + range.begin;
  T* dy = a.take<T>(rows);
  for (int b = 0; b < rows; ++b) {
    const double net = double(value_of(y[b])) - (vacuum ? double(value_of(vacuum[b])) : 0.0);
    const AtomEnergy e = atom_energy(type[b], net, f.bias_atom_e.data.data(), f.out_bias.data.data(),
                                     f.zero_type.data(), model_.atom_exclude.data());
    w.output.energy[range.begin + b] = e.value;
    dy[b] = e.counts ? T(1) : T(0);
    if constexpr (is_dual<T>) dy[b].tangent = e.counts ? Real<T>(w.input.along->seeds[range.begin + b]) : 0;
  }
  if (!w.input.forces) return;
  const T* dx;
  if constexpr (is_dual<T>) {
    T* dvacuum = a.take<T>(rows);
    for (int b = 0; b < rows; ++b) dvacuum[b] = -dy[b];
    const int group = w.group(range.begin);
    dx = net_.backward(rows, dy, tape, true, a, &gradient_, range, group);
    types_backward(w, range, dx + width);
    if (vacuum) net_.backward(rows, dvacuum, vacuum_tape, false, a, &vacuum_gradient_, range, group);
  } else {
    dx = net_.backward(rows, dy, tape, true, a);
  }
  for (int b = 0; b < rows; ++b) std::copy_n(dx + static_cast<std::size_t>(b) * in, width, gradient[b]);
}

// (rows, in): the descriptor, the type embedding, the parameters
template <class T>
T* FittingStage<T>::inputs(const Workspace& w, Range range, Rows<T> descriptor) const {
  const Fitting& f = model_.fitting;
  const int width = descriptor.width;
  T* x = w.arena().template take<T>(static_cast<std::size_t>(range.size()) * f.net.in());
  T* out = x;
  for (int i = range.begin; i < range.end; ++i) {
    const int frame = w.input.frame ? w.input.frame[i] : 0;
    out = std::copy_n(descriptor[i - range.begin], width, out);
    const Real<T>* type = types_.data() + std::max(0, w.pairs().center_type[i]) * tebd();
    for (int c = 0; c < tebd(); ++c) *out++ = T(type[c]);
    fitting_parameters(f, w.input.fparam_of(frame, f.nfparam()), w.input.aparam_of(i, f.naparam()),
                       [&](double p) { *out++ = T(p); });
  }
  return x;
}

// dx: of the first atom's type; rows are as long as the net's input
template <class T>
void FittingStage<T>::types_backward(const Workspace& w, Range range, const T* dx) const {
  if (!types_gradient_) return;
  double* sum = types_gradient_->of(w.group(range.begin));
  for (int b = 0; b < range.size(); ++b, dx += model_.fitting.net.in()) {
    double* to = sum + std::max(0, w.pairs().center_type[range.begin + b]) * tebd();
    for (int c = 0; c < tebd(); ++c) to[c] += double(tangent_of(dx[c]));
  }
}

template <class T>
void FittingStage<T>::add_gradient(Model* gradient) const {
  if (types_gradient_) add_to(types_gradient_->total, &gradient->type_embedding);
  Net& net = gradient->fitting.net;
  for (const RowNetGradient<Real<T>>* g : {&gradient_, &vacuum_gradient_}) {
    if (!g->layers.empty()) g->add_gradient(&net, order());
  }
}

template class FittingStage<float>;
template class FittingStage<double>;
template class FittingStage<Dual<float>>;
template class FittingStage<Dual<double>>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
