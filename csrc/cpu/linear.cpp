#include "cpu/linear.h"

#include <algorithm>

#include "cpu/vector/gemm.h"
#include "cpu/vector/net.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
void Panels<T>::pack(int rows, int columns, const Real<T>* from) {
  constexpr int panel = 2 * lanes<T>();
  in = rows, out = columns;
  w.resize(static_cast<std::size_t>(in) * out);
  Real<T>* to = w.data();
  for (int c = 0; c < out; c += panel) {
    for (int r = 0; r < in; ++r) to = std::copy_n(from + r * out + c, std::min(panel, out - c), to);
  }
}

// Rows of the weight in stretches that stay in the first cache for all tiles.
template <class T>
void Panels<T>::multiply(int rows, const T* x, int ldx, T* y, int ldy, bool add) const {
  constexpr int panel = 2 * lanes<T>(), stretch = 128;
  for (int c = 0; c < out; c += panel) {
    const int columns = std::min(panel, out - c);
    const Real<T>* b = w.data() + static_cast<std::size_t>(c) * in;
    for (int r = 0; r < in; r += stretch) {
      gemm(rows, columns, std::min(stretch, in - r), plain(x + r, ldx),
           b + static_cast<std::size_t>(r) * columns, columns, y + c, ldy, add || r > 0);
    }
  }
}

template <class T>
void Linear<T>::prepare(const Tensor& weight, const Tensor* bias) {
  const int in = static_cast<int>(weight.shape[0]), out = static_cast<int>(weight.shape[1]);
  const Weights<T> plain_order = cast<T>(weight);
  Weights<T> transposed_order;
  transposed_order.resize(plain_order.size());
  transpose(in, out, plain_order.data(), out, transposed_order.data(), in);
  w.pack(in, out, plain_order.data());
  wt.pack(out, in, transposed_order.data());
  if (bias) b = cast<T>(*bias);
}

template <class T>
void Linear<T>::forward(int rows, const T* x, int ldx, T* y, int ldy) const {
  for (int r = 0; r < rows && !b.empty(); ++r) {
    for (int c = 0; c < w.out; ++c) y[static_cast<std::size_t>(r) * ldy + c] = T(b[c]);
  }
  w.multiply(rows, x, ldx, y, ldy, !b.empty());
}

template <class T>
void Linear<T>::backward(int rows, const T* dy, int ldy, T* dx, int ldx, bool add) const {
  wt.multiply(rows, dy, ldy, dx, ldx, add);
}

template struct Panels<float>;
template struct Panels<double>;
template struct Panels<Dual<float>>;
template struct Panels<Dual<double>>;
template struct Linear<float>;
template struct Linear<double>;
template struct Linear<Dual<float>>;
template struct Linear<Dual<double>>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
