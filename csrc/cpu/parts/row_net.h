// A net on rows: a row an atom, whose channels lie side by side. Its weights are larger than a cache's share
// of a thread and lie in panels (linear.h), so that a product reads them once and in order.
#pragma once

#include <memory>
#include <vector>

#include "cpu/parts/linear.h"
#include "cpu/parts/memory_plan.h"
#include "cpu/vector/memory.h"
#include "engine/stages.h"
#include "model/model.h"

namespace dpa2md {
namespace DPA2MD_ISA {

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
  bool is_linear(std::size_t layer) const { return linear_last && layer + 1 == layers.size(); }
};

// What both sweeps leave for those of the tangents (row_net_tangents.h), of all atoms.
template <class R>
struct RowNetValues {
  struct L {
    Buffer<R> before, dy;  // (natoms, out): what the activation met; the gradient by the layer's output
  };
  std::vector<L> layers;
  Buffer<R> dx;  // (natoms, in)

  void plan(const RowNetWeights<R>& weights, int natoms, MemoryPlan* to);
};

template <class R>
class RowNet {
 public:
  explicit RowNet(std::shared_ptr<const RowNetWeights<R>> weights) : weights_(std::move(weights)) {}

  // What the forward sweep keeps for the reverse one, in the arena: of every layer act'(before) idt, null for
  // a linear one.
  using Tape = std::vector<R*>;
  // x (rows, in) -> y (rows, out) in the arena. Null: no tape, no values.
  R* forward(Range atoms, const R* x, Arena& arena, Tape* tape, RowNetValues<R>* values) const;
  // dy (rows, out), overwritten -> d x (rows, in) in the arena
  R* backward(Range atoms, R* dy, const Tape& tape, Arena& arena, RowNetValues<R>* values) const;

 private:
  std::shared_ptr<const RowNetWeights<R>> weights_;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
