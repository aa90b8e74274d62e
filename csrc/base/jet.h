// Numbers a + b e + c e^2 with e^3 = 0: a function of one variable and its first two Taylor coefficients. A
// net evaluated on them at x + e gives value, slope and half the curvature, which a table's node needs.
#pragma once

#include "base/scalar_math.h"

namespace dpa2md {

template <class R>
struct Jet {
  R c[3];

  Jet() = default;
  DPA2MD_HD Jet(R a, R b, R d) : c{a, b, d} {}
  DPA2MD_HD explicit Jet(double constant) : c{R(constant), R(0), R(0)} {}
};

template <class R>
DPA2MD_HD Jet<R> operator-(const Jet<R>& x) {
  return {-x.c[0], -x.c[1], -x.c[2]};
}
template <class R>
DPA2MD_HD Jet<R> operator+(const Jet<R>& x, const Jet<R>& y) {
  return {x.c[0] + y.c[0], x.c[1] + y.c[1], x.c[2] + y.c[2]};
}
template <class R>
DPA2MD_HD Jet<R> operator-(const Jet<R>& x, const Jet<R>& y) {
  return {x.c[0] - y.c[0], x.c[1] - y.c[1], x.c[2] - y.c[2]};
}
template <class R>
DPA2MD_HD Jet<R> operator*(const Jet<R>& x, const Jet<R>& y) {
  return {x.c[0] * y.c[0], x.c[0] * y.c[1] + x.c[1] * y.c[0],
          x.c[0] * y.c[2] + x.c[1] * y.c[1] + x.c[2] * y.c[0]};
}
template <class R>
DPA2MD_HD bool operator<(const Jet<R>& x, const Jet<R>& y) {
  return x.c[0] < y.c[0];
}
template <class R>
DPA2MD_HD bool operator>(const Jet<R>& x, const Jet<R>& y) {
  return x.c[0] > y.c[0];
}
template <class R>
DPA2MD_HD bool operator>=(const Jet<R>& x, const Jet<R>& y) {
  return x.c[0] >= y.c[0];
}

namespace math {

// f(x) from f(x.c[0]), f' there and f''.
template <class R>
DPA2MD_HD Jet<R> chain(const Jet<R>& x, R value, R slope, R curvature) {
  return {value, slope * x.c[1], slope * x.c[2] + R(0.5) * curvature * x.c[1] * x.c[1]};
}
template <class R>
DPA2MD_HD Jet<R> tanh(const Jet<R>& x) {
  const R y = tanh(x.c[0]), slope = R(1) - y * y;
  return chain(x, y, slope, R(-2) * y * slope);
}
template <class R>
DPA2MD_HD Jet<R> sigmoid(const Jet<R>& x) {
  const R y = sigmoid(x.c[0]), slope = y * (R(1) - y);
  return chain(x, y, slope, slope * (R(1) - R(2) * y));
}
template <class R>
DPA2MD_HD Jet<R> softplus(const Jet<R>& x) {
  const R y = sigmoid(x.c[0]);
  return chain(x, softplus(x.c[0]), y, y * (R(1) - y));
}

}  // namespace math
}  // namespace dpa2md
