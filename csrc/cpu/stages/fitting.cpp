#include "cpu/stages/fitting.h"

#include <algorithm>

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
    for (int c = 0; c < tebd; ++c, out += ld) *out = types_[std::max(0, type[b]) * tebd + c];
    fitting_parameters(f, w.input.fparam_of(frame, f.nfparam()), w.input.aparam_of(i, f.naparam()),
                       [&](double p) { *out = T(p), out += ld; });
  }

  typename NetWeights<T>::Tape tape;
  const T* y = net_.forward(x, ld, a, w.input.forces ? &tape : nullptr);
  const T* vacuum = nullptr;
  if (f.vacuum) {
    T* empty = a.take<T>(static_cast<std::size_t>(f.net.in()) * ld);
    std::copy(x, x + static_cast<std::size_t>(f.net.in()) * ld, empty);
    std::fill(empty, empty + static_cast<std::size_t>(width + tebd) * ld, T(0));
    vacuum = net_.forward(empty, ld, a, nullptr);
  }
  T* dy = a.zeros<T>(ld);
  for (int b = 0; b < rows; ++b) {
    const double net = double(y[b]) - (vacuum ? double(vacuum[b]) : 0.0);
    const AtomEnergy e = atom_energy(type[b], net, f.bias_atom_e.data.data(), f.out_bias.data.data(),
                                     f.zero_type.data(), model_.atom_exclude.data());
    w.output.energy[range.begin + b] = e.value;
    dy[b] = e.counts ? T(1) : T(0);
  }
  if (!w.input.forces) return;
  const T* dx = net_.backward(dy, ld, tape, width, a);
  transpose(width, rows, dx, ld, gradient.data, width);
}

template class FittingStage<float>;
template class FittingStage<double>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
