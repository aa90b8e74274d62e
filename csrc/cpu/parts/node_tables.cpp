#include "cpu/parts/node_tables.h"

#include <algorithm>
#include <cmath>

#include "base/activation.h"
#include "base/jet.h"
#include "cpu/parts/gradients.h"
#include "cpu/vector/gemm.h"

namespace dpa2md {
namespace DPA2MD_ISA {

namespace {

constexpr int kFewestCells = 32, kMostCells = 1024;
constexpr int kPart = 64;  // nodes that a thread evaluates together
// Of the largest value and slope. x net(x) is largest at the ends of its range, where triples are rare.
constexpr double kTolerance = 1e-8, kTimesTolerance = 2e-9, kSlopes = 100;

// Whether pieces of fifth order fit: not where a derivative jumps.
bool smooth(const Activation& a) {
  return a.kind != Activation::kRelu && a.kind != Activation::kRelu6 && a.kind != Activation::kSilut;
}

std::vector<double> inputs(const Tensor& types, const std::vector<int>& of) {
  const int width = static_cast<int>(types.shape[1]);
  std::vector<double> out;
  for (const int t : of) out.insert(out.end(), &types.data[t * width], &types.data[t * width] + width);
  return out;
}

}  // namespace

// A net at `count` nodes as jets (base/jet.h): rows of channels with three parts of `ld` numbers each, the
// Taylor coefficients.
struct NodeTables::Jets {
  int count, ld;
  std::vector<const double*> x;    // of every layer: what it reads,
  std::vector<double*> slope;      // the activation's slope (null: linear), and
  std::vector<double*> activated;  // what the factor idt meets (null: no idt)
  const double* y;                 // (out, 3, ld)
};

// ---- forward

namespace {

using J = Jet<double>;
J at(const double* row, int ld, int s) { return {row[s], row[ld + s], row[2 * ld + s]}; }
void put(double* row, int ld, int s, const J& x) {
  row[s] = x.c[0], row[ld + s] = x.c[1], row[2 * ld + s] = x.c[2];
}

std::vector<double> nodes_of(const FunctionTable& t) {
  std::vector<double> x(t.cells + 1);
  for (int k = 0; k <= t.cells; ++k) x[k] = t.lower + k * t.width;
  return x;
}

void activate_jets(const Activation& a, int rows, int ld, double* y, double* slope) {
  dispatch(a, [&](auto kind) {
    constexpr Activation::Kind K = decltype(kind)::value;
    for (int r = 0; r < rows; ++r, y += 3 * ld, slope += 3 * ld) {
#pragma omp simd
      for (int s = 0; s < ld; ++s) {
        J value, of;
        activate<K>(a, at(y, ld, s), &value, &of);
        put(y, ld, s, value);
        put(slope, ld, s, of);
      }
    }
  });
}

}  // namespace

// rest: the inputs after x, the same at all nodes.
void NodeTables::evaluate(const Net& net, int count, const double* x, const double* rest, bool keep,
                          Arena& arena, Jets* out) {
  const int ld = out->ld = padded(count, lanes<double>()), columns = 3 * ld;
  out->count = count;
  double* in = arena.zeros<double>(static_cast<std::size_t>(net.in()) * columns);
  for (int s = 0; s < ld; ++s) put(in, ld, s, {x[std::min(s, count - 1)], 1, 0});
  for (int c = 1; c < net.in(); ++c) std::fill_n(in + c * columns, ld, rest[c - 1]);
  for (std::size_t k = 0; k < net.layers.size(); ++k) {
    const Layer& l = net.layers[k];
    const int rows = l.out();
    const std::size_t size = static_cast<std::size_t>(rows) * columns;
    double* y = arena.zeros<double>(size);
    for (int o = 0; o < rows && !l.b.empty(); ++o) std::fill_n(y + o * columns, ld, l.b.data[o]);
    gemm(rows, columns, l.in(), transposed<double>(l.w.data.data(), rows), in, columns, y, columns, true);
    double *slope = nullptr, *activated = nullptr;
    if (!(net.linear_last && k + 1 == net.layers.size())) {
      slope = arena.take<double>(size);
      activate_jets(net.act, rows, ld, y, slope);
    }
    if (!l.idt.empty()) {
      activated = arena.take<double>(size);
      std::copy(y, y + size, activated);
      for (int o = 0; o < rows; ++o) {
        for (int s = o * columns; s < (o + 1) * columns; ++s) y[s] *= l.idt.data[o];
      }
    }
    for (int copy = 0; copy < l.skip; ++copy) {
      double* part = y + static_cast<std::size_t>(copy) * l.in() * columns;
      for (int s = 0; s < l.in() * columns; ++s) part[s] += in[s];
    }
    if (keep) out->x.push_back(in), out->slope.push_back(slope), out->activated.push_back(activated);
    in = y;
  }
  out->y = in;
}

// The nodes of x net(x) or net(x), summed over the type inputs.
FunctionTable NodeTables::sample(const Net& net, const Tensor& types, const TableRange& range, int cells,
                                 const Workspace& w) const {
  FunctionTable t = table_cells(range.lower, range.upper, cells);
  if (t.empty()) return t;
  const int channels = t.channels = net.out(), count = t.cells + 1;
  t.node.assign(static_cast<std::size_t>(count) * 4 * channels, 0.0);
  const std::vector<double> x = nodes_of(t);
#pragma omp parallel for schedule(dynamic) if (w.threads > 1)
  for (int first = 0; first < count; first += kPart) {
    Arena& arena = w.arena();
    const int part = std::min(kPart, count - first);
    for (const std::vector<int>& of : range.types) {
      Arena::Scope scope(arena);
      Jets jets;
      evaluate(net, part, x.data() + first, inputs(types, of).data(), false, arena, &jets);
      for (int m = 0; m < channels; ++m) {
        const double* row = jets.y + static_cast<std::size_t>(m) * 3 * jets.ld;
        for (int k = 0; k < part; ++k) {
          const J y = times_x_ ? at(row, jets.ld, k) * J{x[first + k], 1, 0} : at(row, jets.ld, k);
          double* node = &t.node[static_cast<std::size_t>(first + k) * 4 * channels + m];
          node[0] += y.c[0];
          node[2 * channels] += t.width * y.c[1];
          node[3 * channels] += 2 * t.width * t.width * y.c[2];
        }
      }
    }
  }
  for (int k = 0; k < t.cells; ++k) {
    double* node = &t.node[static_cast<std::size_t>(k) * 4 * channels];
    for (int m = 0; m < channels; ++m) node[channels + m] = node[4 * channels + m] - node[m];
  }
  return t;
}

namespace {

// Whether the piece between every second node, over two cells, gives the node between 64 times (its slope 32
// times) as badly as the table may: a quintic piece of half the width is that much better.
bool good(const FunctionTable& t, double tolerance) {
  const int n = t.channels;
  double largest = 0, steepest = 0, error = 0, slope_error = 0;
  for (int k = 0; k <= t.cells; ++k) {
    for (int m = 0; m < n; ++m) {
      largest = std::max(largest, std::abs(t.node[static_cast<std::size_t>(k) * 4 * n + m]));
      steepest = std::max(steepest, std::abs(t.node[(static_cast<std::size_t>(k) * 4 + 2) * n + m]));
    }
  }
  for (int k = 1; k < t.cells; ++k) {
    for (int m = 0; m < n; ++m) {
      const double* node = &t.node[static_cast<std::size_t>(k) * 4 * n + m];
      const double *a = node - 4 * n, *b = node + 4 * n;
      // slopes are per cell, and the piece is two of them wide
      const double value =
          0.5 * (a[0] + b[0]) + 5.0 / 16 * (a[2 * n] - b[2 * n]) + 1.0 / 16 * (a[3 * n] + b[3 * n]);
      const double slope =
          15.0 / 16 * (b[0] - a[0]) - 7.0 / 16 * (a[2 * n] + b[2 * n]) + 1.0 / 16 * (b[3 * n] - a[3 * n]);
      error = std::max(error, std::abs(value - node[0]));
      slope_error = std::max(slope_error, std::abs(slope - node[2 * n]));
    }
  }
  return error <= 64 * tolerance * largest && slope_error <= 32 * kSlopes * tolerance * steepest;
}

}  // namespace

void NodeTables::make(const Net& net, const Tensor& types, std::vector<TableRange> ranges, bool times_x,
                      bool same_cells, const Workspace& w) {
  times_x_ = times_x;
  tables_.clear();
  for (TableRange& r : ranges) tables_.push_back({std::move(r), {}});
  if (!smooth(net.act)) return;
  bool all = false;
  for (int cells = kFewestCells; cells <= kMostCells && !all; cells *= 2) {
    all = true;
    for (NodeTable& t : tables_) {
      if (!t.table.empty() && !same_cells) continue;
      t.table = sample(net, types, t.range, cells, w);
      if (good(t.table, times_x ? kTimesTolerance : kTolerance)) continue;
      all = false;
      if (!same_cells) t.table = {};
    }
  }
  for (NodeTable& t : tables_) {
    if (same_cells && !all) t.table = {};
  }
}

// ---- the way back. Reversed, the coefficients of adjoints multiply like those of numbers: with y = s x, the
// adjoint of x's last coefficient is that of y's times s_0, of the one before y's times s_0 and the last's
// times s_1, ... So dy holds them reversed, and a weight's gradient is the last coefficient of x dy.

void NodeTables::backward(const Net& net, const Jets& jets, double* dy, Arena& arena, Net* gradient,
                          double* drest) {
  const int ld = jets.ld, columns = 3 * ld;
  const auto last = [&](const double* x, const double* y) {
    double sum = 0;
    for (int s = 0; s < jets.count; ++s) sum += (at(x, ld, s) * at(y, ld, s)).c[2];
    return sum;
  };
  for (std::size_t k = net.layers.size(); k-- > 0;) {
    const Layer& l = net.layers[k];
    Layer& to = gradient->layers[k];
    const int in = l.in(), out = l.out();
    double* dx = arena.zeros<double>(static_cast<std::size_t>(in) * columns);
    for (int copy = 0; copy < l.skip; ++copy) {
      for (int s = 0; s < in * columns; ++s) dx[s] += dy[static_cast<std::size_t>(copy) * in * columns + s];
    }
    // dy as (3 ld, out), last coefficients first, for the product with x
    double* dy_t = arena.take<double>(static_cast<std::size_t>(out) * columns);
    for (int o = 0; o < out; ++o) {
      double* row = dy + static_cast<std::size_t>(o) * columns;
      if (!l.idt.empty()) {
        to.idt.data[o] += last(jets.activated[k] + static_cast<std::size_t>(o) * columns, row);
        for (int s = 0; s < columns; ++s) row[s] *= l.idt.data[o];
      }
      const double* slope = jets.slope[k] ? jets.slope[k] + static_cast<std::size_t>(o) * columns : nullptr;
#pragma omp simd
      for (int s = 0; s < ld; ++s) {
        if (slope) put(row, ld, s, at(row, ld, s) * at(slope, ld, s));
      }
      for (int part = 0; part < 3; ++part) {
        for (int s = 0; s < ld; ++s)
          dy_t[static_cast<std::size_t>((2 - part) * ld + s) * out + o] = row[part * ld + s];
      }
      for (int s = 0; s < ld && !l.b.empty(); ++s) to.b.data[o] += row[2 * ld + s];
    }
    gemm(in, out, columns, plain<double>(jets.x[k], columns), dy_t, out, to.w.data.data(), out, true);
    gemm(in, columns, out, plain<double>(l.w.data.data(), out), dy, columns, dx, columns, true);
    dy = dx;
  }
  for (int c = 1; c < net.in(); ++c) {
    for (int s = 0; s < ld; ++s) drest[c - 1] += dy[c * columns + 2 * ld + s];
  }
}

void NodeTables::add_part(const Net& net, const double* rest, const FunctionTable& t, const double* sums,
                          int padded, Range nodes, Arena& arena, Net* net_gradient, double* drest) const {
  Arena::Scope scope(arena);
  const int n = t.channels;
  const std::vector<double> x = nodes_of(t);
  Jets jets;
  evaluate(net, nodes.size(), x.data() + nodes.begin, rest, true, arena, &jets);
  double* dy = arena.zeros<double>(static_cast<std::size_t>(n) * 3 * jets.ld);
  for (int k = nodes.begin; k < nodes.end; ++k) {
    const double* g = sums + static_cast<std::size_t>(k) * 4 * padded;
    for (int m = 0; m < n; ++m) {
      const double before = k > 0 ? g[m - 3 * padded] : 0.0, after = k < t.cells ? g[padded + m] : 0.0;
      const J d = {2 * t.width * t.width * g[3 * padded + m], t.width * g[2 * padded + m],
                   g[m] - after + before};
      put(dy + static_cast<std::size_t>(m) * 3 * jets.ld, jets.ld, k - nodes.begin,
          times_x_ ? d * J{x[k], 1, 0} : d);
    }
  }
  backward(net, jets, dy, arena, net_gradient, drest);
}

namespace {

// The gradient of some nodes.
struct Part {
  const FunctionTable* table;
  const std::vector<int>* types;
  const double* sums;  // of the table
  Range nodes;
  Net net;
  std::vector<double> rest;
};

Net zeros_like(const Net& net) {
  Net out = net;
  for (Layer& l : out.layers) {
    for (Tensor* t : {&l.w, &l.b, &l.idt}) std::fill(t->data.begin(), t->data.end(), 0.0);
  }
  return out;
}

}  // namespace

// Parts do not depend on the number of threads.
void NodeTables::add_gradient(const Net& net, const Tensor& types, const std::vector<double>& sums,
                              int padded, Net* net_gradient, Tensor* type_gradient,
                              const Workspace& w) const {
  std::vector<Part> parts;
  const double* from = sums.data();
  for (const NodeTable& made : tables_) {
    const int count = made.table.empty() ? 0 : made.table.cells + 1;
    for (const std::vector<int>& of : made.range.types) {
      for (int first = 0; first < count; first += kPart)
        parts.push_back({&made.table, &of, from, {first, std::min(count, first + kPart)}, {}, {}});
    }
    from += static_cast<std::size_t>(count) * 4 * padded;
  }
#pragma omp parallel for schedule(dynamic) if (w.threads > 1)
  for (std::size_t k = 0; k < parts.size(); ++k) {
    Part& p = parts[k];
    p.net = zeros_like(net);
    p.rest.assign(net.in() - 1, 0.0);
    add_part(net, inputs(types, *p.types).data(), *p.table, p.sums, padded, p.nodes, w.arena(), &p.net,
             p.rest.data());
  }
  const int width = static_cast<int>(types.shape[1]);
  for (const Part& p : parts) {
    for (std::size_t k = 0; k < net.layers.size(); ++k) {
      const Layer& l = p.net.layers[k];
      Layer& to = net_gradient->layers[k];
      add_to(l.w.data, &to.w), add_to(l.b.data, &to.b), add_to(l.idt.data, &to.idt);
    }
    for (std::size_t c = 0; c < p.rest.size(); ++c)
      type_gradient->data[(*p.types)[c / width] * width + c % width] += p.rest[c];
  }
}

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
