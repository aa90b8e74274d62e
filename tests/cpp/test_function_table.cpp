// Tabulated functions: exact for quintic polynomials, of sixth order for smooth ones, as exact as asked for,
// and refused where no table is good enough; an embedding net's slope against differences.
#include <algorithm>
#include <cmath>
#include <vector>

#include "check.h"
#include "model/function_table.h"
#include "model/model.h"

using namespace dpa2md;

namespace {

double worst_value, worst_slope;
void compare(const FunctionTable& t, const TabulatedFunction& f) {
  worst_value = worst_slope = 0;
  std::vector<double> a(t.channels), b(t.channels), c(t.channels), d(t.channels);
  for (int k = 0; k <= 1000; ++k) {
    const double x = t.lower + (t.upper() - t.lower) * k / 1000;
    f(x, a.data(), b.data());
    look_up(t, x, c.data(), d.data());
    for (int m = 0; m < t.channels; ++m) {
      worst_value = std::max(worst_value, std::abs(a[m] - c[m]));
      worst_slope = std::max(worst_slope, std::abs(b[m] - d[m]));
    }
  }
}

void test_quintic() {
  const TabulatedFunction f = [](double x, double* y, double* dy) {
    y[0] = 1 + x * (2 + x * (-3 + x * (0.5 + x * (0.2 - 0.1 * x))));
    dy[0] = 2 + x * (-6 + x * (1.5 + x * (0.8 - 0.5 * x)));
  };
  compare(tabulate(1, -2, 3, 1e-12, 64, f), f);
  CHECK(worst_value < 1e-12 && worst_slope < 1e-10);  // the curvature comes from differences
}

void test_order() {
  const TabulatedFunction f = [](double x, double* y, double* dy) {
    y[0] = std::tanh(x), dy[0] = 1 - y[0] * y[0];
    y[1] = std::exp(0.3 * x), dy[1] = 0.3 * y[1];
  };
  double before = 0, slope_before = 0;
  for (int cells : {16, 32, 64}) {
    compare(tabulate(2, -6, 6, 1.0, cells, f, cells), f);  // a tolerance that asks for nothing
    if (cells > 16) {
      CHECK(before / worst_value > 40 && slope_before / worst_slope > 20);  // 64 and 32
    }
    before = worst_value, slope_before = worst_slope;
  }
  const FunctionTable t = tabulate(2, -6, 6, 2e-13, 4096, f);
  CHECK(!t.empty());
  compare(t, f);
  CHECK(worst_value < 2e-12 && worst_slope < 5e-11);  // 2e-13 of values up to 6, 2e-11 of slopes up to 1.8
  CHECK(tabulate(2, -6, 6, 2e-13, 64, f).empty());    // too few cells allowed
}

void test_coarser_beginnings() {
  const TabulatedFunction f = [](double x, double* y, double* dy) {  // steep at 8
    const double t = std::tanh(3 * (x - 8));
    y[0] = t + std::sin(x), dy[0] = 3 * (1 - t * t) + std::cos(x);
  };
  const double tolerance = 2e-9;
  const FunctionTable t = tabulate(1, -0.3, 10, tolerance, 4096, f, 64, 8);
  CHECK(std::fmod(t.lower, 8 * t.width) == 0);
  const std::vector<FunctionTable> coarser = coarser_beginnings(t, tolerance, 8);
  CHECK(coarser.size() >= 2);
  double width = t.width, upper = t.upper();
  for (const FunctionTable& c : coarser) {
    CHECK(c.lower == t.lower && c.width == 2 * width && c.upper() <= upper && c.upper() < 8);
    compare(c, f);
    CHECK(worst_value < 2 * 2 * tolerance && worst_slope < 2 * 4 * 100 * tolerance);  // of 2 and 4, twice
    width = c.width, upper = c.upper();
  }
  const TabulatedFunction steep = [](double x, double* y, double* dy) {  // everywhere alike
    y[0] = std::sin(7 * x), dy[0] = 7 * std::cos(7 * x);
  };
  const FunctionTable all = tabulate(1, -0.3, 10, 1.5e-10, 4096, steep, 64, 8);
  CHECK(!all.empty() && coarser_beginnings(all, 1e-15, 8).empty());
}

void test_refused() {
  const TabulatedFunction kink = [](double x, double* y, double* dy) {
    y[0] = x > 0.123 ? x - 0.123 : 0, dy[0] = x > 0.123;
  };
  CHECK(tabulate(1, -1, 1, 1e-9, 1024, kink).empty());
  const TabulatedFunction nan = [](double, double* y, double* dy) { y[0] = dy[0] = std::nan(""); };
  CHECK(tabulate(1, -1, 1, 1e-9, 64, nan).empty());
  CHECK(tabulate(1, 1, 1, 1e-9, 64, kink).empty());
  CHECK(tabulate(1, 0, INFINITY, 1e-9, 64, kink).empty());
}

void test_net() {
  Net net;
  net.act.kind = Activation::kTanh;
  const auto layer = [](int in, int out, int skip, bool idt) {
    Layer l;
    l.w.shape = {in, out}, l.b.shape = {out};
    for (int k = 0; k < in * out; ++k) l.w.data.push_back(std::sin(1.0 + 3 * k));
    for (int k = 0; k < out; ++k) l.b.data.push_back(std::cos(2.0 * k));
    for (int k = 0; k < out && idt; ++k) l.idt.data.push_back(0.5 + 0.1 * k);
    l.skip = skip;
    return l;
  };
  net.layers = {layer(3, 4, 0, false), layer(4, 4, 1, true), layer(4, 8, 2, false)};
  const std::vector<double> rest = {0.3, -0.7};
  double y[8], dy[8], up[8], down[8], unused[8];
  for (double x : {-1.5, 0.0, 0.4, 2.0}) {
    const double h = 1e-5;
    evaluate_net(net, x, rest, y, dy);
    evaluate_net(net, x + h, rest, up, unused);
    evaluate_net(net, x - h, rest, down, unused);
    for (int m = 0; m < 8; ++m) CHECK(std::abs((up[m] - down[m]) / (2 * h) - dy[m]) < 1e-7);
  }
}

}  // namespace

int main() {
  test_quintic();
  test_order();
  test_coarser_beginnings();
  test_refused();
  test_net();
  return check_result();
}
