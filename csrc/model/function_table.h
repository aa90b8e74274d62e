// Smooth vector-valued functions of one number as quintic Hermite pieces on equal cells: an embedding net
// whose other inputs are fixed becomes one lookup. The table is made in double and checked between its nodes.
#pragma once

#include <functional>
#include <vector>

#include "base/scalar_math.h"

namespace dpa2md {

struct Net;

struct FunctionTable {
  int channels = 0, cells = 0;
  double lower = 0, width = 0;  // of the first cell (a multiple of width), of every cell (a power of two): a
                                // float finds its place without rounding
  // (cells + 1, 4, channels): f, the next node's f minus this one's, width f', width^2 f''. The difference is
  // stored because it would lose its digits in float32.
  std::vector<double> node;

  bool empty() const { return cells == 0; }
  double upper() const { return lower + cells * width; }
};

// Weights of a cell's data at t in [0, 1], in the order difference, f' and f'' of its left node, f' and f''
// of its right node; f itself has weight 1 in the value and 0 in the slope. The slope's are per cell width.
// T is a number or a vector of numbers of type S.
template <class S, class T>
DPA2MD_HD void table_value_weights(T t, T* w) {
  const T u = S(1) - t, tt = t * t, uu = u * u;
  w[0] = tt * t * (S(10) + t * (S(-15) + S(6) * t));
  w[1] = t * uu * u * (S(1) + S(3) * t);
  w[2] = S(0.5) * tt * uu * u;
  w[3] = tt * t * u * (S(3) * t - S(4));
  w[4] = S(0.5) * tt * t * uu;
}
template <class S, class T>
DPA2MD_HD void table_slope_weights(T t, T* w) {
  const T u = S(1) - t, tu = t * u;
  w[0] = S(30) * tu * tu;
  w[1] = u * u * (S(1) + t * (S(2) - S(15) * t));
  w[2] = S(0.5) * t * u * u * (S(2) - S(5) * t);
  w[3] = t * t * (S(-12) + t * (S(28) - S(15) * t));
  w[4] = S(0.5) * t * t * u * (S(3) - S(5) * t);
}

// Value and slope (channels each) at x.
using TabulatedFunction = std::function<void(double x, double* value, double* slope)>;

// An empty one but for its cells on [lower, upper]: `cells`, or up to twice as many for widths of powers of
// two; the first one begins at a multiple of `align` widths. No cells where floats could not count them.
FunctionTable table_cells(double lower, double upper, int cells, int align = 1);

// f on [lower, upper] (and a little more) with as many cells as it takes (min_cells, doubled up to max_cells,
// or up to twice as many for widths of powers of two) for errors of at most `tolerance` times the largest
// value and 100 tolerance times the largest slope. Empty when that is not enough.
FunctionTable tabulate(int channels, double lower, double upper, double tolerance, int max_cells,
                       const TabulatedFunction& f, int min_cells = 64, int align = 1);

// The beginnings of a table in cells of 2, 4, ... `align` times its width, each as far as it follows the
// table to the tolerance of `tabulate`; those that follow nowhere are left out. Aligned as the table is.
std::vector<FunctionTable> coarser_beginnings(const FunctionTable& table, double tolerance, int align);

// Value and slope (channels each) from the table.
void look_up(const FunctionTable& table, double x, double* value, double* slope);

// An embedding net as a function of its first input; `rest` are the others.
void evaluate_net(const Net& net, double x, const std::vector<double>& rest, double* value, double* slope);

// Adds to the weights' gradients in `to` those of y . dy, where y is the net's value at x.
void net_gradient(const Net& net, const std::vector<double>& x, std::vector<double> dy, Net* to);

}  // namespace dpa2md
