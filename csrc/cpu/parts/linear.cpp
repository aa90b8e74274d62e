#include "cpu/parts/linear.h"

#include <algorithm>

#include "cpu/parts/net.h"
#include "cpu/vector/gemm.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class R>
template <class F>
void Panels<R>::pack(int rows, int columns, const F& element) {
  constexpr int panel = 2 * lanes<R>();
  in = rows, out = columns;
  w.resize(static_cast<std::size_t>(in) * out);
#pragma omp parallel for schedule(static) if (w.size() > 65536)
  for (int c = 0; c < out; c += panel) {
    const int end = std::min(out, c + panel);
    R* to = w.data() + static_cast<std::size_t>(c) * in;
    for (int r = 0; r < in; ++r) {
      for (int k = c; k < end; ++k) *to++ = R(element(r, k));
    }
  }
}

// Rows of the weight in stretches that stay in the first cache for all tiles.
template <class R>
template <class T>
void Panels<R>::multiply(int rows, const T* x, int ldx, T* y, int ldy, bool add) const {
  constexpr int panel = 2 * lanes<R>(), stretch = 128;
  for (int c = 0; c < out; c += panel) {
    const int columns = std::min(panel, out - c);
    const R* b = w.data() + static_cast<std::size_t>(c) * in;
    for (int r = 0; r < in; r += stretch) {
      gemm(rows, columns, std::min(stretch, in - r), plain(x + r, ldx),
           b + static_cast<std::size_t>(r) * columns, columns, y + c, ldy, add || r > 0);
    }
  }
}

template <class R>
void Linear<R>::prepare(const Tensor& weight, const Tensor* bias, const std::vector<int>& order) {
  const int rows = static_cast<int>(weight.shape[0]), columns = static_cast<int>(weight.shape[1]);
  std::vector<const double*> row(rows);
  for (int r = 0; r < rows; ++r)
    row[r] = &weight.data[static_cast<std::size_t>(order.empty() ? r : order[r]) * columns];
  w.pack(rows, columns, [&](int r, int c) { return row[r][c]; });
  wt.pack(columns, rows, [&](int r, int c) { return row[c][r]; });
  if (bias) b = cast<R>(*bias);
}

template <class R>
template <class T>
void Linear<R>::forward(int rows, const T* x, int ldx, T* y, int ldy) const {
  for (int r = 0; r < rows && !b.empty(); ++r) {
    for (int c = 0; c < w.out; ++c) y[static_cast<std::size_t>(r) * ldy + c] = T(b[c]);
  }
  w.multiply(rows, x, ldx, y, ldy, !b.empty());
}

template <class R>
void Linear<R>::forward_tangents(int rows, const R* x, int ldx, R* y, int ldy) const {
  w.multiply(rows, x, ldx, y, ldy, false);
}

template <class R>
template <class T>
void Linear<R>::backward(int rows, const T* dy, int ldy, T* dx, int ldx, bool add) const {
  wt.multiply(rows, dy, ldy, dx, ldx, add);
}

std::vector<int> backend_order(const Model& m, int rows) {
  const int ng = m.repinit.ng, axis = m.repinit_axis;
  std::vector<int> order(rows);
  for (int r = 0; r < rows; ++r) order[r] = r < ng * axis ? r % ng * axis + r / ng : r;
  return order;
}

void add_in_file_order(const std::vector<int>& order, const std::vector<double>& gradient, Tensor* weight) {
  const std::size_t width = static_cast<std::size_t>(weight->shape[1]);
#pragma omp parallel for schedule(static) if (gradient.size() > 65536)
  for (std::size_t r = 0; r < order.size(); ++r) {
    double* to = &weight->data[order[r] * width];
    for (std::size_t c = 0; c < width; ++c) to[c] += gradient[r * width + c];
  }
}

#define DPA2MD_INSTANTIATE(R, T)                                       \
  template void Linear<R>::forward(int, const T*, int, T*, int) const; \
  template void Linear<R>::backward(int, const T*, int, T*, int, bool) const;
template struct Linear<float>;
template struct Linear<double>;
DPA2MD_INSTANTIATE(float, float)
DPA2MD_INSTANTIATE(double, double)
DPA2MD_INSTANTIATE(float, Dual<float>)
DPA2MD_INSTANTIATE(double, Dual<double>)

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
