// exp, tanh, activations and the switch function: accuracy against long double, derivatives against central
// differences. Built once per instruction set, because fused multiply-adds change the last digits.
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>

#include "base/activation.h"
#include "check.h"
#include "cpu/vector/simd_math.h"
#include "isa.h"

using namespace dpa2md;

namespace {

// Distance to the exact value in units of T's last place at magnitude `at`.
template <class T>
double ulps(T value, long double exact, long double at) {
  const int exponent = std::ilogb(static_cast<double>(std::max(std::abs(at), 1e-30L)));
  return static_cast<double>(std::abs(value - exact) /
                             std::ldexp(1.0L, exponent - std::numeric_limits<T>::digits + 1));
}

// Worst error of f over a dense sweep of [low, high]; `absolute_below` is the magnitude under which errors
// count in units of that magnitude.
template <class T, class F, class G>
double worst(double low, double high, double absolute_below, F&& f, G&& exact) {
  double most = 0;
  constexpr int kPoints = 200003;
  for (int i = 0; i < kPoints; ++i) {
    const T x = static_cast<T>(low + (high - low) * i / (kPoints - 1));
    const long double y = exact(static_cast<long double>(x));
    most = std::max(most, ulps<T>(f(x), y, std::max<long double>(std::abs(y), absolute_below)));
  }
  return most;
}

void limit(const char* what, double found, double allowed) {
  if (!(found <= allowed)) std::fprintf(stderr, "%s: %.2f ulp, allowed %.2f\n", what, found, allowed);
  CHECK(found <= allowed);
}

template <class T>
void test_exp_and_tanh(const std::string& name) {
  const auto exp = [](T x) { return math::exp(x); };
  const auto tanh = [](T x) { return math::tanh(x); };
  const auto exact_exp = [](long double x) { return std::exp(x); };
  const auto exact_tanh = [](long double x) { return std::tanh(x); };
  const double top = sizeof(T) == 4 ? 88 : 709;
  limit((name + " exp").c_str(), worst<T>(-top, top, 0, exp, exact_exp), 2.5);
  for (double reach : {1e-6, 1e-3, 0.1, 1.0, 10.0, 40.0}) {
    limit((name + " tanh within " + std::to_string(reach)).c_str(),
          worst<T>(-reach, reach, 0, tanh, exact_tanh), 3.0);
  }
  // whole vectors (softmax)
  constexpr int kLanes = DPA2MD_ISA::lanes<T>();
  const auto exp_lanes = [](T x) {
    return DPA2MD_ISA::exp_lanes<kLanes>(typename DPA2MD_ISA::Vector<T, kLanes>::type{} + x)[kLanes - 1];
  };
  limit((name + " exp_lanes").c_str(), worst<T>(-top, top, 0, exp_lanes, exact_exp), 2.5);
  const T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  CHECK(math::tanh(T(0)) == 0 && std::signbit(math::tanh(T(-0.0))));
  CHECK(math::tanh(inf) == 1 && math::tanh(-inf) == -1);
  CHECK(math::exp(T(0)) == 1);
  CHECK(exp_lanes(T(0)) == 1 && std::isnan(exp_lanes(nan)));
  CHECK(math::exp(-inf) >= 0 && math::exp(-inf) < 2 * std::numeric_limits<T>::min());
  CHECK(std::isnan(math::tanh(nan)) && std::isnan(math::exp(nan)));  // a wrong input must not look right
}

// The activations by their textbook definitions.
long double exact_activation(const Activation& a, long double x) {
  const long double sigmoid = 1 / (1 + std::exp(-x));
  switch (a.kind) {
    case Activation::kLinear:
      return x;
    case Activation::kTanh:
      return std::tanh(x);
    case Activation::kRelu:
      return std::max(x, 0.0L);
    case Activation::kRelu6:
      return std::min(std::max(x, 0.0L), 6.0L);
    case Activation::kSoftplus:
      return x > 20 ? x : std::log1p(std::exp(x));  // PyTorch's is linear from 20 on
    case Activation::kSigmoid:
      return sigmoid;
    case Activation::kSilu:
      return x * sigmoid;
    case Activation::kGelu:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846L) * (x + 0.044715L * x * x * x)));
    case Activation::kSilut: {
      const long double t = a.threshold, s = 1 / (1 + std::exp(-t));
      return x < t ? x * sigmoid : std::tanh(s * (1 + t * (1 - s)) * (x - t)) + t * s;
    }
  }
  return 0;
}

Activation activation(Activation::Kind kind) {
  Activation a{kind, 0, 0, 0};
  if (kind == Activation::kSilut) {
    a.threshold = 3;
    const double s = 1 / (1 + std::exp(-a.threshold));
    a.slope = s * (1 + a.threshold * (1 - s)), a.offset = a.threshold * s;
  }
  return a;
}

template <class T>
void evaluate(const Activation& a, T x, T* value, T* slope) {
  dispatch(a, [&](auto kind) { activate<decltype(kind)::value>(a, x, value, slope); });
}

void test_activations() {
  for (int kind = Activation::kLinear; kind <= Activation::kSilut; ++kind) {
    const Activation a = activation(static_cast<Activation::Kind>(kind));
    double value_error = 0, slope_error = 0, single_error = 0;
    for (int i = -2000; i <= 2000; ++i) {
      const double x = i * 0.01 + 0.0037;  // kinks of relu and relu6 lie between the points
      double value, slope;
      evaluate(a, x, &value, &slope);
      const long double exact = exact_activation(a, x), scale = std::max(1.0L, std::abs(exact));
      value_error = std::max(value_error, static_cast<double>(std::abs(value - exact) / scale));
      // In long double the difference is good to about h^2 = 1e-10, with 1e-19/h of rounding.
      const long double h = 1e-5L;
      const long double difference = (exact_activation(a, x + h) - exact_activation(a, x - h)) / (2 * h);
      slope_error = std::max(slope_error, static_cast<double>(std::abs(slope - difference)));
      float value32, slope32;
      evaluate(a, static_cast<float>(x), &value32, &slope32);
      single_error = std::max(single_error, static_cast<double>(std::abs(value32 - exact) / scale));
      single_error = std::max(single_error, std::abs(slope32 - slope));
    }
    // Beside 1: a few roundings of double; of float, whose input is rounded as well (x up to 20).
    if (value_error > 1e-15 || slope_error > 1e-9 || single_error > 4e-6) {
      std::fprintf(stderr, "activation %d: value %.1e slope %.1e float %.1e\n", kind, value_error,
                   slope_error, single_error);
    }
    CHECK(value_error <= 1e-15);
    CHECK(slope_error <= 1e-9);
    CHECK(single_error <= 4e-6);
  }
}

void test_switch_function() {
  const double smth = 3.5, rcut = 4.0;
  double sw, dsw;
  switch_function(3.5, smth, rcut, &sw, &dsw);
  CHECK(sw == 1 && dsw == 0);
  switch_function(4.0, smth, rcut, &sw, &dsw);
  CHECK(sw == 0 && dsw == 0);
  switch_function(1.0, smth, rcut, &sw, &dsw);
  CHECK(sw == 1 && dsw == 0);
  switch_function(9.0, smth, rcut, &sw, &dsw);
  CHECK(sw == 0 && dsw == 0);
  double before = 1;
  for (int i = 1; i < 500; ++i) {
    const double r = smth + (rcut - smth) * i / 500;
    switch_function(r, smth, rcut, &sw, &dsw);
    const long double u = (static_cast<long double>(r) - smth) / (rcut - smth);
    const long double exact = 1 - 10 * u * u * u + 15 * u * u * u * u - 6 * u * u * u * u * u;
    CHECK(std::abs(sw - exact) <= 2e-15);  // terms of up to 15 cancel
    CHECK(sw <= before);
    before = sw;
    double up, down, unused;
    const double h = 1e-5;
    switch_function(r + h, smth, rcut, &up, &unused);
    switch_function(r - h, smth, rcut, &down, &unused);
    // h^2/6 times a third derivative of 60/width^3 = 480, doubled near the ends; rounding is 1e-15/h
    CHECK(std::abs((up - down) / (2 * h) - dsw) <= 2e-8);
  }
}

}  // namespace

int main() {
  if (!processor_has_isa()) return kSkipped;
  test_exp_and_tanh<double>("double");
  test_exp_and_tanh<float>("float");
  test_activations();
  test_switch_function();
  return check_result();
}
