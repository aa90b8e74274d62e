// x W + b for many rows. Weights R, float or double; numbers T, R or dual numbers of R.
#pragma once

#include <vector>

#include "base/dual.h"
#include "cpu/vector/memory.h"
#include "model/model.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// A weight in panels as wide as a tile of gemm.h, so that a product reads memory sequentially.
template <class R>
struct Panels {
  int in = 0, out = 0;
  Buffer<R> w;
  bool empty() const { return w.empty(); }
  // element(r, c) of the weight (rows, columns)
  template <class F>
  void pack(int rows, int columns, const F& element);
  // y (rows, out) [+]= x (rows, in) w
  template <class T>
  void multiply(int rows, const T* x, int ldx, T* y, int ldy, bool add) const;
};

// A weight and its transpose, for the forward and the reverse product.
template <class R>
struct Linear {
  Panels<R> w, wt;
  Buffer<R> b;
  bool empty() const { return w.empty(); }
  // order (in), if there is one: the rows of `weight` in the order of x
  void prepare(const Tensor& weight, const Tensor* bias, const std::vector<int>& order = {});
  // y (rows, out) = x (rows, in) w + b
  template <class T>
  void forward(int rows, const T* x, int ldx, T* y, int ldy) const;
  // the same without b: of tangents
  void forward_tangents(int rows, const R* x, int ldx, R* y, int ldy) const;
  // dx (rows, in) [+]= dy (rows, out) w^T
  template <class T>
  void backward(int rows, const T* dy, int ldy, T* dx, int ldx, bool add) const;
};

// The file's rows of a weight (rows, ...) that reads D, in the order of this backend: DeePMD-kit's D is (ng,
// axis), this backend's (axis, ng).
std::vector<int> backend_order(const Model& model, int rows);
// Adds a gradient in that order to one in the file's.
void add_in_file_order(const std::vector<int>& order, const std::vector<double>& gradient, Tensor* weight);

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
