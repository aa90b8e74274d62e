// A net on rows: a row an atom, whose channels lie side by side. Its weights are larger than a cache's share
// of a thread and lie in panels (linear.h), so that a product reads them once and in order.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "cpu/gradients.h"
#include "cpu/linear.h"
#include "cpu/vector/activate.h"
#include "cpu/vector/memory.h"
#include "model/model.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// The gradient of a net on rows.
template <class R>
struct RowNetGradient {
  struct L {
    RowGradient<R>* rows;
    GroupSums* idt;  // null: the layer has none
  };
  std::vector<L> layers;

  void prepare(const Net& net, Gradients<R>* to);
  // Adds to the tensors of `net`, which holds a gradient.
  // order: of the rows of the first weight.
  void add_gradient(Net* net, const std::vector<int>& order) const;
};

// Weights that nets on plain and on dual numbers share.
template <class R>
struct RowNetWeights {
  struct L {
    int in, out, skip;
    Linear<R> linear;
    Buffer<R> idt;
  };
  Activation act;
  bool linear_last = false;
  std::vector<L> layers;

  // order: of the rows of the first layer's weight, as in Linear::prepare
  void prepare(const Net& net, const std::vector<int>& order);
};

template <class T>
class RowNet {
 public:
  explicit RowNet(std::shared_ptr<RowNetWeights<Real<T>>> weights) : weights_(std::move(weights)) {}

  // What the forward sweep keeps for the reverse one, in the arena; of every layer.
  struct Tape {
    std::vector<T*> slope;      // act'(pre) * idt; null for a linear layer
    std::vector<const T*> x;    // dual numbers only: what the layer reads,
    std::vector<T*> activated;  // and before the factor idt; null without one
  };
  // x (rows, in) -> y (rows, out) in the arena; tape may be null.
  T* forward(int rows, const T* x, Arena& arena, Tape* tape) const;
  // dy (rows, out), overwritten -> d x (rows, in) in the arena, or null if not wanted. Dual numbers: adds to
  // the gradient `to` of the atoms' group.
  T* backward(int rows, T* dy, const Tape& tape, bool want_dx, Arena& arena,
              const RowNetGradient<Real<T>>* to = nullptr, Range atoms = {}, int group = 0) const;

 private:
  using L = typename RowNetWeights<Real<T>>::L;
  std::shared_ptr<RowNetWeights<Real<T>>> weights_;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
