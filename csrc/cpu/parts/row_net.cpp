#include "cpu/parts/row_net.h"

#include <algorithm>

#include "cpu/parts/net.h"
#include "cpu/vector/activate.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class R>
void RowNetWeights<R>::prepare(const Net& net, const std::vector<int>& order) {
  act = net.act;
  linear_last = net.linear_last;
  layers.resize(net.layers.size());
  for (std::size_t k = 0; k < layers.size(); ++k) {
    const Layer& from = net.layers[k];
    L& l = layers[k];
    l.in = from.in(), l.out = from.out(), l.skip = from.skip;
    l.linear.prepare(from.w, from.b.empty() ? nullptr : &from.b, k == 0 ? order : std::vector<int>{});
    l.idt = cast<R>(from.idt);
  }
}

template <class R>
void RowNetValues<R>::plan(const RowNetWeights<R>& weights, int natoms, MemoryPlan* to) {
  layers.resize(weights.layers.size());
  const std::size_t n = natoms;
  for (std::size_t k = 0; k < layers.size(); ++k) {
    const int out = weights.layers[k].out;
    to->add(&layers[k].before, n * out);
    to->add(&layers[k].dy, n * out);
  }
  to->add(&dx, n * weights.layers[0].in);
}

namespace {

template <class R>
void keep(Range atoms, int width, const R* rows, Buffer<R>* to) {
  std::copy_n(rows, static_cast<std::size_t>(atoms.size()) * width,
              to->data() + static_cast<std::size_t>(atoms.begin) * width);
}

}  // namespace

template <class R>
R* RowNet<R>::forward(Range atoms, const R* x, Arena& arena, Tape* tape, RowNetValues<R>* values) const {
  const int rows = atoms.size();
  R* y = nullptr;
  for (std::size_t k = 0; k < weights_->layers.size(); ++k) {
    const auto& l = weights_->layers[k];
    const std::size_t size = static_cast<std::size_t>(rows) * l.out;
    y = arena.take<R>(size);
    l.linear.forward(rows, x, l.in, y, l.out);
    if (values) keep(atoms, l.out, y, &values->layers[k].before);
    R* slope = nullptr;
    if (!weights_->is_linear(k)) {
      if (tape) slope = arena.take<R>(size);
      activate_array(weights_->act, size, y, slope);
    }
    for (int r = 0; r < rows; ++r) {
      R* row = y + static_cast<std::size_t>(r) * l.out;
      for (int c = 0; c < l.out && !l.idt.empty(); ++c) row[c] *= l.idt[c];
      for (int c = 0; c < l.out && slope && !l.idt.empty(); ++c) slope[r * l.out + c] *= l.idt[c];
      for (int copy = 0; copy < l.skip; ++copy) {
        for (int c = 0; c < l.in; ++c) row[copy * l.in + c] += x[static_cast<std::size_t>(r) * l.in + c];
      }
    }
    if (tape) tape->push_back(slope);
    x = y;
  }
  return y;
}

template <class R>
R* RowNet<R>::backward(Range atoms, R* dy, const Tape& tape, Arena& arena, RowNetValues<R>* values) const {
  const int rows = atoms.size();
  for (std::size_t k = weights_->layers.size(); k-- > 0;) {
    const auto& l = weights_->layers[k];
    const std::size_t size = static_cast<std::size_t>(rows) * l.out;
    if (values) keep(atoms, l.out, dy, &values->layers[k].dy);
    R* dx = arena.zeros<R>(static_cast<std::size_t>(rows) * l.in);
    for (int r = 0; r < rows; ++r) {
      for (int copy = 0; copy < l.skip; ++copy) {
        for (int c = 0; c < l.in; ++c)
          dx[static_cast<std::size_t>(r) * l.in + c] +=
              dy[static_cast<std::size_t>(r) * l.out + copy * l.in + c];
      }
    }
    if (const R* slope = tape[k]) {
#pragma omp simd
      for (std::size_t s = 0; s < size; ++s) dy[s] *= slope[s];
    } else if (!l.idt.empty()) {
      for (std::size_t s = 0; s < size; ++s) dy[s] *= l.idt[s % l.out];
    }
    l.linear.backward(rows, dy, l.out, dx, l.in, true);
    dy = dx;
  }
  if (values) keep(atoms, weights_->layers[0].in, dy, &values->dx);
  return dy;
}

template struct RowNetWeights<float>;
template struct RowNetWeights<double>;
template struct RowNetValues<float>;
template struct RowNetValues<double>;
template class RowNet<float>;
template class RowNet<double>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
