#include "cpu/parts/row_net_tangents.h"

#include <algorithm>

namespace dpa2md {
namespace DPA2MD_ISA {

template <class R>
RowNetTangents<R>::RowNetTangents(const Net& net, std::shared_ptr<const RowNetWeights<R>> weights,
                                  const RowNetValues<R>* values, Gradients<R>* gradients)
    : weights_(std::move(weights)), values_(values) {
  for (const Layer& l : net.layers)
    layers_.push_back({gradients->rows(l.in(), l.out()), l.idt.empty() ? nullptr : gradients->sums(l.out())});
}

template <class R>
void RowNetTangents<R>::add_gradient(const std::vector<int>& order, Net* net) const {
  for (std::size_t k = 0; k < layers_.size(); ++k) {
    const L& from = layers_[k];
    Layer& to = net->layers[k];
    if (k == 0 && !order.empty()) {
      add_in_file_order(order, from.rows->weight, &to.w);
    } else {
      add_to(from.rows->weight, &to.w);
    }
    if (!to.b.empty()) add_to(from.rows->bias, &to.b);
    if (from.idt) add_to(from.idt->total, &to.idt);
  }
}

template <class R>
void RowNetTangents<R>::forward(Range atoms, Arena& arena, Tape* tape) {
  const std::size_t rows = atoms.size();
  for (std::size_t k = 0; k < layers_.size(); ++k) {
    const auto& l = weights_->layers[k];
    const bool last = k + 1 == layers_.size();
    const R* x = layers_[k].rows->x(atoms);
    // the next layer's input; nothing reads the last layer's output
    R* next = last ? arena.take<R>(2 * rows * l.out) : layers_[k + 1].rows->x(atoms);
    const Parted<R> y = {next, next + rows * l.out};
    l.linear.forward_tangents(static_cast<int>(rows), x + rows * l.in, l.in, y.tangent, l.out);
    activate(k, atoms, y, arena, tape);
    if (last) continue;
    for (std::size_t r = 0; r < 2 * rows; ++r) {
      for (int copy = 0; copy < l.skip; ++copy) {
        for (int c = 0; c < l.in; ++c) next[r * l.out + copy * l.in + c] += x[r * l.in + c];
      }
    }
  }
}

// From the tangents before the activation to values and tangents after the factor idt.
template <class R>
void RowNetTangents<R>::activate(std::size_t layer, Range atoms, Parted<R> y, Arena& arena,
                                 Tape* tape) const {
  const auto& l = weights_->layers[layer];
  const std::size_t rows = atoms.size(), size = rows * l.out;
  const R* before = values_->layers[layer].before.data() + static_cast<std::size_t>(atoms.begin) * l.out;
  Parted<R> slope, activated;
  if (weights_->is_linear(layer)) {
    std::copy_n(before, size, y.value);
  } else {
    slope = {arena.take<R>(size), arena.take<R>(size)};
    activate_array(weights_->act, size, before, y, slope);
  }
  if (!l.idt.empty()) {
    activated = {arena.take<R>(size), arena.take<R>(size)};
    std::copy_n(y.value, size, activated.value);
    std::copy_n(y.tangent, size, activated.tangent);
    for (std::size_t r = 0; r < rows; ++r) {
      for (R* of : {y.value, y.tangent, slope.value, slope.tangent}) {
        for (int c = 0; c < l.out && of; ++c) of[r * l.out + c] *= l.idt[c];
      }
    }
  }
  tape->slope.push_back(slope), tape->activated.push_back(activated);
}

template <class R>
const R* RowNetTangents<R>::backward(Range atoms, const R* dy, const Tape& tape, int group, Arena& arena) {
  const std::size_t rows = atoms.size();
  for (std::size_t k = layers_.size(); k-- > 0;) {
    const auto& l = weights_->layers[k];
    const std::size_t size = rows * l.out;
    const R* value = values_->layers[k].dy.data() + static_cast<std::size_t>(atoms.begin) * l.out;
    R* dx = arena.zeros<R>(rows * l.in);
    for (std::size_t r = 0; r < rows; ++r) {
      for (int copy = 0; copy < l.skip; ++copy) {
        for (int c = 0; c < l.in; ++c) dx[r * l.in + c] += dy[r * l.out + copy * l.in + c];
      }
    }
    if (layers_[k].idt) {
      const Parted<R> x = tape.activated[k];
      double* sum = layers_[k].idt->of(group);
      for (std::size_t s = 0; s < size; ++s)
        sum[s % l.out] += double(dy[s] * x.value[s] + value[s] * x.tangent[s]);
    }
    R* tangent_before = layers_[k].rows->dy(atoms);
    R* value_before = tangent_before + size;
    if (const Parted<R> slope = tape.slope[k]; slope.value) {
#pragma omp simd
      for (std::size_t s = 0; s < size; ++s) {
        tangent_before[s] = dy[s] * slope.value[s] + value[s] * slope.tangent[s];
        value_before[s] = value[s] * slope.value[s];
      }
    } else {
      for (std::size_t s = 0; s < size; ++s) {
        const R factor = l.idt.empty() ? R(1) : l.idt[s % l.out];
        tangent_before[s] = dy[s] * factor, value_before[s] = value[s] * factor;
      }
    }
    l.linear.backward(static_cast<int>(rows), tangent_before, l.out, dx, l.in, true);
    dy = dx;
  }
  return dy;
}

template class RowNetTangents<float>;
template class RowNetTangents<double>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
