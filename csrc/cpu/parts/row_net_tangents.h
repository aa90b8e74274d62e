// The tangents of both sweeps of a net on rows, whose values the sweeps on plain numbers kept; and with them
// the gradient of the net's weights.
#pragma once

#include <memory>
#include <vector>

#include "cpu/parts/gradients.h"
#include "cpu/parts/row_net.h"
#include "cpu/vector/activate.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class R>
class RowNetTangents {
 public:
  RowNetTangents(const Net& net, std::shared_ptr<const RowNetWeights<R>> weights,
                 const RowNetValues<R>* values, Gradients<R>* gradients);

  // Of every layer, in the arena: the slope act'(before) idt, if the layer is not linear; and what its factor
  // idt met, if it has one.
  struct Tape {
    std::vector<Parted<R>> slope, activated;
  };
  // (2 rows, in): the rows' values and below them their tangents, which the caller fills in before forward()
  R* input(Range atoms) { return layers_[0].rows->x(atoms); }
  void forward(Range atoms, Arena& arena, Tape* tape);
  // dy (rows, out), the tangents -> those of d x (rows, in) in the arena. group: the atoms'.
  const R* backward(Range atoms, const R* dy, const Tape& tape, int group, Arena& arena);
  const R* dx_values(Range atoms) const {
    return values_->dx.data() + static_cast<std::size_t>(atoms.begin) * weights_->layers[0].in;
  }
  // After the sweep: adds to the tensors of `net`, which holds a gradient. order: of the rows of the first
  // weight.
  void add_gradient(const std::vector<int>& order, Net* net) const;

 private:
  struct L {
    RowGradient<R>* rows;
    GroupSums* idt;  // null: the layer has none
  };
  void activate(std::size_t layer, Range atoms, Parted<R> y, Arena& arena, Tape* tape) const;

  std::shared_ptr<const RowNetWeights<R>> weights_;
  const RowNetValues<R>* values_;
  std::vector<L> layers_;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
