#include "model/function_table.h"

#include <algorithm>
#include <cmath>

#include "model/model.h"

namespace dpa2md {
namespace {

constexpr double kLargestPlace = 1 << 22;  // cells from zero that a float can count, and halves of them
constexpr double kSlopeTolerance = 100;  // times that of the value: slopes lose two digits to the cell width

// Samples on the nodes of `cells` cells: value and slope from f, curvature from differences of the slope (of
// fourth order: 1e-12 or better for a function that varies over many steps).
FunctionTable sample(int channels, double lower, double width, int cells, const TabulatedFunction& f) {
  FunctionTable t;
  t.channels = channels, t.cells = cells, t.lower = lower, t.width = width;
  t.node.resize(static_cast<std::size_t>(cells + 1) * 4 * channels);
  const double step = 0.05 * t.width;
  std::vector<double> value(channels), slope(channels), near[4];
  for (auto& s : near) s.resize(channels);
  for (int k = 0; k <= cells; ++k) {
    const double x = lower + k * t.width;
    constexpr double offset[4] = {-2, -1, 1, 2};
    for (int s = 0; s < 4; ++s) f(x + offset[s] * step, value.data(), near[s].data());
    f(x, value.data(), slope.data());
    double* node = &t.node[static_cast<std::size_t>(k) * 4 * channels];
    for (int m = 0; m < channels; ++m) {
      const double curvature = (8 * (near[2][m] - near[1][m]) - (near[3][m] - near[0][m])) / (12 * step);
      node[m] = value[m];
      node[2 * channels + m] = t.width * slope[m];
      node[3 * channels + m] = t.width * t.width * curvature;
      if (k) (node - 4 * channels)[channels + m] = value[m] - (node - 4 * channels)[m];
    }
  }
  return t;
}

struct Scale {
  double largest = 0, steepest = 0;  // value and slope at the nodes
};
Scale scale_of(const FunctionTable& table) {
  Scale s;
  const int n = table.channels;
  for (int k = 0; k <= table.cells; ++k) {
    const double* node = &table.node[static_cast<std::size_t>(k) * 4 * n];
    for (int m = 0; m < n; ++m) {
      s.largest = std::max(s.largest, std::abs(node[m]));
      s.steepest = std::max(s.steepest, std::abs(node[2 * n + m]) / table.width);
    }
  }
  return s;
}

// How many of the first cells agree with f between their nodes, where a quintic piece is worst.
int accurate_cells(const FunctionTable& table, const Scale& scale, double tolerance,
                   const TabulatedFunction& f) {
  const int n = table.channels;
  const double allowed = tolerance * scale.largest,
               allowed_slope = kSlopeTolerance * tolerance * scale.steepest;
  std::vector<double> exact(n), exact_slope(n), value(n), slope(n);
  for (int k = 0; k < table.cells; ++k) {
    for (double t : {0.27, 0.5}) {
      const double x = table.lower + (k + t) * table.width;
      f(x, exact.data(), exact_slope.data());
      look_up(table, x, value.data(), slope.data());
      for (int m = 0; m < n; ++m) {  // written so that NaN fails
        if (!(std::abs(value[m] - exact[m]) <= allowed)) return k;
        if (!(std::abs(slope[m] - exact_slope[m]) <= allowed_slope)) return k;
      }
    }
  }
  return table.cells;
}

// Every second node of a table.
FunctionTable coarser(const FunctionTable& fine) {
  FunctionTable t;
  const std::size_t n = fine.channels;
  t.channels = fine.channels, t.cells = fine.cells / 2, t.lower = fine.lower, t.width = 2 * fine.width;
  t.node.resize((t.cells + 1) * 4 * n);
  for (int k = 0; k <= t.cells; ++k) {
    const double* from = &fine.node[8 * n * k];
    double* node = &t.node[4 * n * k];
    for (std::size_t m = 0; m < n; ++m) {
      node[m] = from[m], node[2 * n + m] = 2 * from[2 * n + m], node[3 * n + m] = 4 * from[3 * n + m];
      if (k < t.cells) node[n + m] = from[8 * n + m] - from[m];
    }
  }
  return t;
}

}  // namespace

void look_up(const FunctionTable& table, double x, double* value, double* slope) {
  const double at = (x - table.lower) / table.width;
  const int cell = std::clamp(static_cast<int>(at), 0, table.cells - 1), n = table.channels;
  double v[5], s[5];
  table_value_weights<double>(at - cell, v);
  table_slope_weights<double>(at - cell, s);
  const double* a = &table.node[static_cast<std::size_t>(cell) * 4 * n];
  for (int m = 0; m < n; ++m) {
    const double data[5] = {a[n + m], a[2 * n + m], a[3 * n + m], a[6 * n + m], a[7 * n + m]};
    value[m] = a[m], slope[m] = 0;
    for (int k = 0; k < 5; ++k) value[m] += v[k] * data[k], slope[m] += s[k] * data[k] / table.width;
  }
}

FunctionTable table_cells(double lower, double upper, int cells, int align) {
  FunctionTable t;
  if (!(upper > lower) || !std::isfinite(lower) || !std::isfinite(upper)) return t;
  const double width = std::exp2(std::floor(std::log2((upper - lower) / cells)));
  const double first = align * std::floor(lower / (align * width)), last = std::ceil(upper / width);
  if (std::max(std::abs(first), std::abs(last)) > kLargestPlace) return t;
  t.lower = first * width, t.width = width, t.cells = static_cast<int>(last - first);
  return t;
}

FunctionTable tabulate(int channels, double lower, double upper, double tolerance, int max_cells,
                       const TabulatedFunction& f, int min_cells, int align) {
  for (int cells = min_cells; cells <= max_cells; cells *= 2) {
    const FunctionTable at = table_cells(lower, upper, cells, align);
    if (at.empty()) return {};
    FunctionTable table = sample(channels, at.lower, at.width, at.cells, f);
    if (accurate_cells(table, scale_of(table), tolerance, f) == table.cells) return table;
  }
  return {};
}

std::vector<FunctionTable> coarser_beginnings(const FunctionTable& table, double tolerance, int align) {
  std::vector<FunctionTable> out;
  const Scale scale = scale_of(table);
  FunctionTable all = table;
  for (int step = 2; step <= align; step *= 2) {
    all = coarser(all);
    FunctionTable begin = all;
    begin.cells = accurate_cells(all, scale, tolerance, [&](double x, double* value, double* slope) {
      look_up(table, x, value, slope);
    });
    if (begin.empty()) break;
    begin.node.resize(static_cast<std::size_t>(begin.cells + 1) * 4 * table.channels);
    out.push_back(std::move(begin));
  }
  return out;
}

void evaluate_net(const Net& net, double x, const std::vector<double>& rest, double* value, double* slope) {
  std::vector<double> in(1, x), din(1, 1.0);
  in.insert(in.end(), rest.begin(), rest.end());
  din.resize(in.size(), 0.0);
  for (std::size_t k = 0; k < net.layers.size(); ++k) {
    const Layer& l = net.layers[k];
    std::vector<double> y(l.out(), 0.0), dy(l.out(), 0.0);
    if (!l.b.empty()) y.assign(l.b.data.begin(), l.b.data.end());
    for (int i = 0; i < l.in(); ++i) {
      const double* w = &l.w.data[static_cast<std::size_t>(i) * l.out()];
      for (int o = 0; o < l.out(); ++o) y[o] += in[i] * w[o], dy[o] += din[i] * w[o];
    }
    dispatch(net.act, [&](auto kind) {
      for (int o = 0; o < l.out() && !(net.linear_last && k + 1 == net.layers.size()); ++o) {
        double a, d;
        activate<decltype(kind)::value>(net.act, y[o], &a, &d);
        y[o] = a, dy[o] *= d;
      }
    });
    for (int o = 0; o < l.out() && !l.idt.empty(); ++o) y[o] *= l.idt.data[o], dy[o] *= l.idt.data[o];
    for (int o = 0; o < l.skip * l.in(); ++o) y[o] += in[o % l.in()], dy[o] += din[o % l.in()];
    in.swap(y), din.swap(dy);
  }
  std::copy(in.begin(), in.end(), value);
  std::copy(din.begin(), din.end(), slope);
}

void net_gradient(const Net& net, const std::vector<double>& x, std::vector<double> dy, Net* to) {
  const std::size_t count = net.layers.size();
  std::vector<std::vector<double>> in(count + 1, x), activated(count), slope(count);
  for (std::size_t k = 0; k < count; ++k) {
    const Layer& l = net.layers[k];
    std::vector<double>& y = activated[k];
    y.assign(l.out(), 0.0), slope[k].assign(l.out(), 1.0);
    if (!l.b.empty()) y.assign(l.b.data.begin(), l.b.data.end());
    for (int i = 0; i < l.in(); ++i) {
      for (int o = 0; o < l.out(); ++o) y[o] += in[k][i] * l.w(i, o);
    }
    dispatch(net.act, [&](auto kind) {
      for (int o = 0; o < l.out() && !(net.linear_last && k + 1 == count); ++o)
        activate<decltype(kind)::value>(net.act, y[o], &y[o], &slope[k][o]);
    });
    in[k + 1] = y;
    for (int o = 0; o < l.out() && !l.idt.empty(); ++o) in[k + 1][o] *= l.idt.data[o];
    for (int o = 0; o < l.skip * l.in(); ++o) in[k + 1][o] += in[k][o % l.in()];
  }
  for (std::size_t k = count; k-- > 0;) {
    const Layer& l = net.layers[k];
    Layer& g = to->layers[k];
    std::vector<double> dx(l.in(), 0.0);
    for (int o = 0; o < l.skip * l.in(); ++o) dx[o % l.in()] += dy[o];
    for (int o = 0; o < l.out(); ++o) {
      if (!l.idt.empty()) g.idt.data[o] += dy[o] * activated[k][o], dy[o] *= l.idt.data[o];
      dy[o] *= slope[k][o];
      if (!l.b.empty()) g.b.data[o] += dy[o];
      for (int i = 0; i < l.in(); ++i) {
        g.w.data[static_cast<std::size_t>(i) * l.out() + o] += in[k][i] * dy[o];
        dx[i] += l.w(i, o) * dy[o];
      }
    }
    dy = dx;
  }
}

}  // namespace dpa2md
