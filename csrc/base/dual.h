// Dual numbers a + b e with e^2 = 0: arithmetic on them carries exact derivatives along one direction. The
// stages that run on them give the tangents of a reverse sweep (training). R is a number or a vector of
// numbers (GCC's vector types).
#pragma once

#include <cmath>
#include <type_traits>

#include "base/scalar_math.h"

namespace dpa2md {

template <class R>
struct Dual {
  R value, tangent;

  Dual() = default;
  DPA2MD_HD Dual(R v, R t) : value(v), tangent(t) {}
  template <class S, class = std::enable_if_t<std::is_arithmetic_v<S> && std::is_arithmetic_v<R>>>
  DPA2MD_HD explicit Dual(S constant) : value(R(constant)), tangent(0) {}
  // in another precision
  template <class S, class = std::enable_if_t<!std::is_same_v<R, S>>, class = void>
  DPA2MD_HD explicit Dual(const Dual<S>& x) : value(R(x.value)), tangent(R(x.tangent)) {}

  template <class X>
  DPA2MD_HD Dual& operator+=(const X& x) {
    return *this = *this + x;
  }
  template <class X>
  DPA2MD_HD Dual& operator-=(const X& x) {
    return *this = *this - x;
  }
  template <class X>
  DPA2MD_HD Dual& operator*=(const X& x) {
    return *this = *this * x;
  }
  template <class X>
  DPA2MD_HD Dual& operator/=(const X& x) {
    return *this = *this / x;
  }
};

template <class T>
struct NumberTraits {
  using Real = T;
  static constexpr bool dual = false;
};
template <class R>
struct NumberTraits<Dual<R>> {
  using Real = R;
  static constexpr bool dual = true;
};
// The type of weights and other constants beside numbers T: R for Dual<R>.
template <class T>
using Real = typename NumberTraits<T>::Real;
template <class T>
constexpr bool is_dual = NumberTraits<T>::dual;

template <class R>
DPA2MD_HD R value_of(const Dual<R>& x) {
  return x.value;
}
template <class T>
DPA2MD_HD T value_of(const T& x) {
  return x;
}

template <class R>
DPA2MD_HD R tangent_of(const Dual<R>& x) {
  return x.tangent;
}
template <class T>
DPA2MD_HD T tangent_of(const T&) {
  return T(0);
}

template <class R>
DPA2MD_HD Dual<R> operator-(const Dual<R>& a) {
  return {-a.value, -a.tangent};
}

// Constants: numbers (of any type, which become R) and, for a vector R, vectors.
template <class S, class R>
using IfConstant = std::enable_if_t<std::is_arithmetic_v<S> || std::is_same_v<S, R>>;
template <class R, class S>
DPA2MD_HD auto constant_of(S s) {
  if constexpr (std::is_arithmetic_v<R>) {
    return R(s);
  } else if constexpr (std::is_arithmetic_v<S>) {
    return static_cast<std::remove_reference_t<decltype(R{}[0])>>(s);  // GCC spreads it
  } else {
    return s;
  }
}

template <class R>
DPA2MD_HD Dual<R> operator+(const Dual<R>& a, const Dual<R>& b) {
  return {a.value + b.value, a.tangent + b.tangent};
}
template <class R>
DPA2MD_HD Dual<R> operator-(const Dual<R>& a, const Dual<R>& b) {
  return {a.value - b.value, a.tangent - b.tangent};
}
template <class R>
DPA2MD_HD Dual<R> operator*(const Dual<R>& a, const Dual<R>& b) {
  return {a.value * b.value, a.value * b.tangent + a.tangent * b.value};
}
template <class R>
DPA2MD_HD Dual<R> operator/(const Dual<R>& a, const Dual<R>& b) {
  const R q = a.value / b.value;
  return {q, (a.tangent - q * b.tangent) / b.value};
}
// A number and a vector of such numbers.
template <class A, class B>
using IfSpread = std::enable_if_t<std::is_arithmetic_v<A> && !std::is_arithmetic_v<B>>;
template <class A, class B, class = IfSpread<A, B>>
DPA2MD_HD Dual<B> operator*(const Dual<A>& a, const Dual<B>& b) {
  return {a.value * b.value, a.value * b.tangent + a.tangent * b.value};
}
template <class A, class B, class = IfSpread<A, B>>
DPA2MD_HD Dual<B> operator*(const Dual<B>& b, const Dual<A>& a) {
  return a * b;
}
template <class A, class V, class = std::enable_if_t<std::is_arithmetic_v<A> && !std::is_arithmetic_v<V>>,
          class = decltype(V{}[0])>
DPA2MD_HD Dual<V> operator*(V v, const Dual<A>& a) {
  return {v * a.value, v * a.tangent};
}
template <class R, class S, class = IfConstant<S, R>>
DPA2MD_HD Dual<R> operator+(const Dual<R>& a, S s) {
  return {a.value + constant_of<R>(s), a.tangent};
}
template <class R, class S, class = IfConstant<S, R>>
DPA2MD_HD Dual<R> operator+(S s, const Dual<R>& a) {
  return a + s;
}
template <class R, class S, class = IfConstant<S, R>>
DPA2MD_HD Dual<R> operator-(const Dual<R>& a, S s) {
  return {a.value - constant_of<R>(s), a.tangent};
}
template <class R, class S, class = IfConstant<S, R>>
DPA2MD_HD Dual<R> operator-(S s, const Dual<R>& a) {
  return {constant_of<R>(s) - a.value, -a.tangent};
}
template <class R, class S, class = IfConstant<S, R>>
DPA2MD_HD Dual<R> operator*(const Dual<R>& a, S s) {
  return {a.value * constant_of<R>(s), a.tangent * constant_of<R>(s)};
}
template <class R, class S, class = IfConstant<S, R>>
DPA2MD_HD Dual<R> operator*(S s, const Dual<R>& a) {
  return a * s;
}
template <class R, class S, class = IfConstant<S, R>>
DPA2MD_HD Dual<R> operator/(const Dual<R>& a, S s) {
  return {a.value / constant_of<R>(s), a.tangent / constant_of<R>(s)};
}
template <class R, class S, class = IfConstant<S, R>>
DPA2MD_HD Dual<R> operator/(S s, const Dual<R>& a) {
  const R q = constant_of<R>(s) / a.value;
  return {q, -q * a.tangent / a.value};
}
template <class R>
DPA2MD_HD bool operator<(const Dual<R>& a, const Dual<R>& b) {
  return a.value < b.value;
}
template <class R>
DPA2MD_HD bool operator>(const Dual<R>& a, const Dual<R>& b) {
  return a.value > b.value;
}
template <class R>
DPA2MD_HD bool operator<=(const Dual<R>& a, const Dual<R>& b) {
  return a.value <= b.value;
}
template <class R>
DPA2MD_HD bool operator>=(const Dual<R>& a, const Dual<R>& b) {
  return a.value >= b.value;
}

namespace math {

template <class R>
DPA2MD_HD Dual<R> exp(const Dual<R>& x) {
  const R y = exp(x.value);
  return {y, y * x.tangent};
}
template <class R>
DPA2MD_HD Dual<R> tanh(const Dual<R>& x) {
  const R y = tanh(x.value);
  return {y, (R(1) - y * y) * x.tangent};
}
template <class R>
DPA2MD_HD Dual<R> sqrt(const Dual<R>& x) {
  const R y = sqrt(x.value);
  return {y, R(0.5) * x.tangent / y};
}
template <class R>
DPA2MD_HD Dual<R> sigmoid(const Dual<R>& x) {
  const R y = sigmoid(x.value);
  return {y, y * (R(1) - y) * x.tangent};
}
template <class R>
DPA2MD_HD Dual<R> softplus(const Dual<R>& x) {
  return {softplus(x.value), sigmoid(x.value) * x.tangent};
}

}  // namespace math
}  // namespace dpa2md
