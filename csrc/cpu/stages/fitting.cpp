#include "cpu/stages/fitting.h"

#include <algorithm>

#include "cpu/stages/g1_transform.h"
#include "model/formulas.h"

namespace dpa2md {
namespace DPA2MD_ISA {

namespace {

// Whole vectors; for a molecule of a few atoms a half or a quarter of one.
template <class T>
int columns_for(int rows) {
  int columns = padded(rows, lanes<T>());
  while (columns / 2 >= rows && columns > lanes<T>() / 4) columns /= 2;
  return columns;
}

}  // namespace

template <class T>
void FittingStage<T>::run(const Workspace& w, Range range, Rows<T> descriptor, Rows<T> gradient) const {
  const Fitting& f = model_.fitting;
  Arena& a = w.arena();
  Arena::Scope scope(a);
  const int rows = range.size(), ld = columns_for<T>(rows), width = descriptor.width,
            tebd = model_.concat_tebd ? model_.tebd_dim() : 0;
  const int* type = w.pairs().center_type.data() + range.begin;

  T* x = a.zeros<T>(static_cast<std::size_t>(f.net.in()) * ld);
  transpose(rows, width, descriptor.data, width, x, ld);
  for (int b = 0; b < rows; ++b) {
    const int i = range.begin + b, frame = w.input.frame ? w.input.frame[i] : 0;
    T* out = x + width * ld + b;
    for (int c = 0; c < tebd; ++c, out += ld) *out = T(types_[std::max(0, type[b]) * tebd + c]);
    fitting_parameters(f, w.input.fparam_of(frame, f.nfparam()), w.input.aparam_of(i, f.naparam()),
                       [&](double p) { *out = T(p), out += ld; });
  }

  typename NetWeights<T>::Tape tape;
  const T* y = net_.forward(x, ld, a, w.input.forces ? &tape : nullptr);
  const T* vacuum = nullptr;
  typename NetWeights<T>::Tape vacuum_tape;
  if (f.vacuum) {
    T* empty = a.take<T>(static_cast<std::size_t>(f.net.in()) * ld);
    std::copy(x, x + static_cast<std::size_t>(f.net.in()) * ld, empty);
    std::fill(empty, empty + static_cast<std::size_t>(width + tebd) * ld, T(0));
    vacuum = net_.forward(empty, ld, a, is_dual<T> ? &vacuum_tape : nullptr);
  }
  T* dy = a.zeros<T>(ld);
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
    T* dvacuum = a.take<T>(ld);
    for (int b = 0; b < ld; ++b) dvacuum[b] = -dy[b];
    const int group = w.group(range.begin);
    dx = net_.backward(dy, ld, tape, width + tebd, a, {&gradient_, range, group, rows});
    types_backward(w, range, ld, dx + static_cast<std::size_t>(width) * ld);
    if (vacuum) net_.backward(dvacuum, ld, vacuum_tape, 0, a, {&vacuum_gradient_, range, group, rows});
  } else {
    dx = net_.backward(dy, ld, tape, width, a);
  }
  transpose(width, rows, dx, ld, gradient.data, width);
}

// dx (tebd, ld): of the types' columns
template <class T>
void FittingStage<T>::types_backward(const Workspace& w, Range range, int ld, const T* dx) const {
  if (!types_gradient_) return;
  double* sum = types_gradient_->of(w.group(range.begin));
  const int tebd = model_.tebd_dim();
  for (int b = 0; b < range.size(); ++b) {
    double* to = sum + std::max(0, w.pairs().center_type[range.begin + b]) * tebd;
    for (int c = 0; c < tebd; ++c) to[c] += double(tangent_of(dx[c * ld + b]));
  }
}

template <class T>
void FittingStage<T>::add_gradient(Model* gradient) const {
  if (types_gradient_) add_to(types_gradient_->total, &gradient->type_embedding);
  Net& net = gradient->fitting.net;
  for (const NetGradient<Real<T>>* g : {&gradient_, &vacuum_gradient_}) {
    if (g->layers.empty()) continue;
    if (model_.is_dpa2) {
      g->add_gradient(&net);
      continue;
    }
    Tensor& first = net.layers[0].w;  // reads D in the order of this backend
    std::vector<double> sum(first.data.size(), 0.0);
    sum.swap(first.data);
    g->add_gradient(&net);
    sum.swap(first.data);
    add_in_file_order(model_, sum, &first);
  }
}

template class FittingStage<float>;
template class FittingStage<double>;
template class FittingStage<Dual<float>>;
template class FittingStage<Dual<double>>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
