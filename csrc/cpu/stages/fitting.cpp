// The fitting net on blocks of atoms: energies and, since dE/dE_i = 1, the descriptor's gradient in the same
// sweep.
#include <algorithm>

#include "cpu/cpu_backend.h"

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
void CpuBackend<T>::fitting(Range range) {
  const Fitting& f = model_.fitting;
  Arena& a = arena();
  Arena::Scope scope(a);
  const int rows = range.size(), ld = columns_for<T>(rows);
  const int width = model_.is_dpa2 ? rep().g1_dim : repinit_width_,
            tebd = model_.concat_tebd ? model_.tebd_dim() : 0;
  const std::size_t at = static_cast<std::size_t>(range.begin) * width;
  const T* feature = model_.is_dpa2 ? g1(rep().nlayers) + at : rep_out(range.begin);
  const int* type = pairs().center_type.data() + range.begin;

  T* x = a.zeros<T>(static_cast<std::size_t>(f.net.in()) * ld);
  transpose(rows, width, feature, width, x, ld);
  for (int b = 0; b < rows; ++b) {
    const int i = range.begin + b, frame = input_.frame ? input_.frame[i] : 0;
    T* out = x + width * ld + b;
    for (int c = 0; c < tebd; ++c, out += ld) *out = types_[std::max(0, type[b]) * tebd + c];
    fitting_parameters(f, input_.fparam_of(frame, f.nfparam()), input_.aparam_of(i, f.naparam()),
                       [&](double p) { *out = T(p), out += ld; });
  }

  typename NetWeights<T>::Tape tape;
  const T* y = w_fitting_.forward(x, ld, a, input_.forces ? &tape : nullptr);
  const T* vacuum = nullptr;
  if (f.vacuum) {
    T* empty = a.take<T>(static_cast<std::size_t>(f.net.in()) * ld);
    std::copy(x, x + static_cast<std::size_t>(f.net.in()) * ld, empty);
    std::fill(empty, empty + static_cast<std::size_t>(width + tebd) * ld, T(0));
    vacuum = w_fitting_.forward(empty, ld, a, nullptr);
  }
  T* dy = a.zeros<T>(ld);
  for (int b = 0; b < rows; ++b) {
    const double net = double(y[b]) - (vacuum ? double(vacuum[b]) : 0.0);
    const AtomEnergy e = atom_energy(type[b], net, f.bias_atom_e.data.data(), f.out_bias.data.data(),
                                     f.zero_type.data(), model_.atom_exclude.data());
    output_.energy[range.begin + b] = e.value;
    dy[b] = e.counts ? T(1) : T(0);
  }
  if (!input_.forces) return;
  const T* dx = w_fitting_.backward(dy, ld, tape, width, a);
  transpose(width, rows, dx, ld, model_.is_dpa2 ? dg1(rep().nlayers) + at : drep_out(range.begin), width);
}

template <class T>
void CpuBackend<T>::descriptor(Range range, double* out) {
  const int width = model_.is_dpa2 ? rep().g1_dim : repinit_width_, dim = model_.descriptor_dim();
  for (int i = range.begin; i < range.end; ++i) {
    double* row = out + static_cast<std::size_t>(i) * dim;
    const int type = pairs().center_type[i];
    if (type < 0) {
      std::fill(row, row + dim, 0.0);
      continue;
    }
    if (model_.is_dpa2) {
      const T* from = g1(rep().nlayers) + static_cast<std::size_t>(i) * width;
      std::copy(from, from + width, row);
    } else {
      const int ng = model_.repinit.ng, axis = model_.repinit_axis;  // D is made as (axis, ng)
      T* from = rep_out(i);
      repinit_squares(kept_moment(i), from);
      for (int k = 0; k < width; ++k) row[k] = from[k % axis * ng + k / axis];
    }
    const T* tebd = types_.data() + type * (dim - width);
    std::copy(tebd, tebd + (dim - width), row + width);  // nothing without concat_output_tebd
  }
}

template void CpuBackend<float>::fitting(Range);
template void CpuBackend<double>::fitting(Range);
template void CpuBackend<float>::descriptor(Range, double*);
template void CpuBackend<double>::descriptor(Range, double*);

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
