#include "cpu/row_net.h"

#include <algorithm>

#include "cpu/vector/net.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class R>
void RowNetGradient<R>::prepare(const Net& net, Gradients<R>* to) {
  for (const Layer& l : net.layers)
    layers.push_back({to->rows(l.in(), l.out()), l.idt.empty() ? nullptr : to->sums(l.out())});
}

template <class R>
void RowNetGradient<R>::add_gradient(Net* net, const std::vector<int>& order) const {
  for (std::size_t k = 0; k < layers.size(); ++k) {
    Layer& to = net->layers[k];
    if (k == 0 && !order.empty()) {
      add_in_file_order(order, layers[k].rows->weight, &to.w);
    } else {
      add_to(layers[k].rows->weight, &to.w);
    }
    if (!to.b.empty()) add_to(layers[k].rows->bias, &to.b);
    if (layers[k].idt) add_to(layers[k].idt->total, &to.idt);
  }
}

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

template <class T>
T* RowNet<T>::forward(int rows, const T* x, Arena& arena, Tape* tape) const {
  T* y = nullptr;
  const std::vector<L>& layers = weights_->layers;
  for (std::size_t k = 0; k < layers.size(); ++k) {
    const L& l = layers[k];
    const std::size_t size = static_cast<std::size_t>(rows) * l.out;
    y = arena.take<T>(size);
    l.linear.forward(rows, x, l.in, y, l.out);
    T *slope = nullptr, *activated = nullptr;
    if (!(weights_->linear_last && k + 1 == layers.size())) {
      if (tape) slope = arena.take<T>(size);
      activate_array(weights_->act, size, y, slope);
    }
    if (is_dual<T> && tape && !l.idt.empty()) {
      activated = arena.take<T>(size);
      std::copy(y, y + size, activated);
    }
    for (int r = 0; r < rows; ++r) {
      T* row = y + static_cast<std::size_t>(r) * l.out;
      for (int c = 0; c < l.out && !l.idt.empty(); ++c) row[c] *= l.idt[c];
      for (int c = 0; c < l.out && slope && !l.idt.empty(); ++c) slope[r * l.out + c] *= l.idt[c];
      for (int copy = 0; copy < l.skip; ++copy) {
        for (int c = 0; c < l.in; ++c) row[copy * l.in + c] += x[static_cast<std::size_t>(r) * l.in + c];
      }
    }
    if (tape) tape->slope.push_back(slope), tape->x.push_back(x), tape->activated.push_back(activated);
    x = y;
  }
  return y;
}

template <class T>
T* RowNet<T>::backward(int rows, T* dy, const Tape& tape, bool want_dx, Arena& arena,
                       [[maybe_unused]] const RowNetGradient<Real<T>>* to, [[maybe_unused]] Range atoms,
                       [[maybe_unused]] int group) const {
  for (std::size_t k = weights_->layers.size(); k-- > 0;) {
    const L& l = weights_->layers[k];
    const std::size_t size = static_cast<std::size_t>(rows) * l.out;
    T* dx = k == 0 && !want_dx ? nullptr : arena.zeros<T>(static_cast<std::size_t>(rows) * l.in);
    for (int r = 0; r < rows && dx; ++r) {
      for (int copy = 0; copy < l.skip; ++copy) {
        for (int c = 0; c < l.in; ++c)
          dx[static_cast<std::size_t>(r) * l.in + c] +=
              dy[static_cast<std::size_t>(r) * l.out + copy * l.in + c];
      }
    }
    if constexpr (is_dual<T>) {
      if (to->layers[k].idt)
        add_row_dot(rows, l.out, dy, l.out, tape.activated[k], l.out, to->layers[k].idt->of(group));
    }
    if (tape.slope[k]) {
      const T* slope = tape.slope[k];
#pragma omp simd
      for (std::size_t s = 0; s < size; ++s) dy[s] *= slope[s];
    } else if (!l.idt.empty()) {
      for (std::size_t s = 0; s < size; ++s) dy[s] *= l.idt[s % l.out];
    }
    if constexpr (is_dual<T>) {
      to->layers[k].rows->keep_x(atoms, tape.x[k], l.in);
      to->layers[k].rows->keep_dy(atoms, dy, l.out);
    }
    if (dx) l.linear.backward(rows, dy, l.out, dx, l.in, true);
    dy = dx;
  }
  return dy;
}

template struct RowNetGradient<float>;
template struct RowNetGradient<double>;
template struct RowNetWeights<float>;
template struct RowNetWeights<double>;
template class RowNet<float>;
template class RowNet<double>;
template class RowNet<Dual<float>>;
template class RowNet<Dual<double>>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
