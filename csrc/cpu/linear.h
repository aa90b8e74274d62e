// x W + b for many rows.
#pragma once

#include "cpu/vector/memory.h"
#include "model/model.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// A weight in panels as wide as a tile of gemm.h, so that a product reads memory sequentially.
template <class T>
struct Panels {
  int in = 0, out = 0;
  Weights<T> w;
  bool empty() const { return w.empty(); }
  void pack(int rows, int columns, const Real<T>* from);
  // y (rows, out) [+]= x (rows, in) w
  void multiply(int rows, const T* x, int ldx, T* y, int ldy, bool add) const;
};

// A weight and its transpose, for the forward and the reverse product.
template <class T>
struct Linear {
  Panels<T> w, wt;
  Weights<T> b;
  void prepare(const Tensor& weight, const Tensor* bias);
  // y (rows, out) = x (rows, in) w + b
  void forward(int rows, const T* x, int ldx, T* y, int ldy) const;
  // dx (rows, in) [+]= dy (rows, out) w^T
  void backward(int rows, const T* dy, int ldy, T* dx, int ldx, bool add) const;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
