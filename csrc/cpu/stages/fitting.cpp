#include "cpu/stages/fitting.h"

#include <algorithm>

#include "model/formulas.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class R>
std::vector<int> FittingStage<R>::order() const {
  if (model_.is_dpa2) return {};
  return backend_order(model_, model_.fitting.net.in());
}

template <class R>
void FittingStage<R>::plan(const Workspace& w, MemoryPlan* to) {
  if (!keeps_ || !w.input.forces) return;
  values_.plan(*weights_, w.pairs().natoms, to);
  if (model_.fitting.vacuum) vacuum_values_.plan(*weights_, w.pairs().natoms, to);
}

template <class R>
void FittingStage<R>::run(const Workspace& w, Range range, Rows<R> descriptor, Rows<R> gradient) {
  const Fitting& f = model_.fitting;
  Arena& a = w.arena();
  Arena::Scope scope(a);
  const bool forces = w.input.forces, keeps = keeps_ && forces;
  const int rows = range.size(), width = descriptor.width, in = f.net.in();
  R* x = a.take<R>(static_cast<std::size_t>(rows) * in);
  for (int b = 0; b < rows; ++b)
    rest(w, range.begin + b, std::copy_n(descriptor[b], width, x + static_cast<std::size_t>(b) * in));
  typename RowNet<R>::Tape tape, vacuum_tape;
  const R* y = net_.forward(range, x, a, forces ? &tape : nullptr, keeps ? &values_ : nullptr);
  const R* vacuum = nullptr;
  if (f.vacuum) {
    R* empty = a.take<R>(static_cast<std::size_t>(rows) * in);
    std::copy(x, x + static_cast<std::size_t>(rows) * in, empty);
    clear_surroundings(rows, width, empty);
    vacuum = net_.forward(range, empty, a, keeps ? &vacuum_tape : nullptr, keeps ? &vacuum_values_ : nullptr);
  }
  const int* type = w.pairs().center_type.data() + range.begin;
  R *dy = a.take<R>(rows), *dvacuum = a.take<R>(rows);
  for (int b = 0; b < rows; ++b) {
    const double net = double(y[b]) - (vacuum ? double(vacuum[b]) : 0.0);
    const AtomEnergy e = energy(type[b], net);
    w.output.energy[range.begin + b] = e.value;
    dy[b] = e.counts ? R(1) : R(0), dvacuum[b] = -dy[b];
  }
  if (!forces) return;
  if (vacuum && keeps) net_.backward(range, dvacuum, vacuum_tape, a, &vacuum_values_);
  const R* dx = net_.backward(range, dy, tape, a, keeps ? &values_ : nullptr);
  for (int b = 0; b < rows; ++b) std::copy_n(dx + static_cast<std::size_t>(b) * in, width, gradient[b]);
}

template <class R>
AtomEnergy FittingStage<R>::energy(int type, double net) const {
  const Fitting& f = model_.fitting;
  return atom_energy(type, net, f.bias_atom_e.data.data(), f.out_bias.data.data(), f.zero_type.data(),
                     model_.atom_exclude.data());
}

// What follows an atom's descriptor in the net's input: the type embedding, the parameters.
template <class R>
void FittingStage<R>::rest(const Workspace& w, int i, R* out) const {
  const Fitting& f = model_.fitting;
  const int frame = w.input.frame ? w.input.frame[i] : 0;
  const R* type = types_.data() + std::max(0, w.pairs().center_type[i]) * tebd();
  out = std::copy_n(type, tebd(), out);
  fitting_parameters(f, w.input.fparam_of(frame, f.nfparam()), w.input.aparam_of(i, f.naparam()),
                     [&](double p) { *out++ = R(p); });
}

// Makes of the net's inputs those of atoms alone in an empty space. width: of the descriptor.
template <class R>
void FittingStage<R>::clear_surroundings(int rows, int width, R* x) const {
  for (int b = 0; b < rows; ++b, x += model_.fitting.net.in()) std::fill_n(x, width + tebd(), R(0));
}

template class FittingStage<float>;
template class FittingStage<double>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
