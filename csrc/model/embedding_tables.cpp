#include "model/embedding_tables.h"

#include <algorithm>
#include <cmath>

#include "model/compressed_table.h"
#include "model/folding.h"

namespace dpa2md {
namespace {

// Atoms closer than this are computed with the net itself.
constexpr double kRepinitReach = 0.45, kThreeBodyReach = 0.6, kRadialReach = 0.6;  // angstrom
constexpr int kMinCells = 64;
constexpr int kMaxCells = 8192;  // a few megabytes for two elements
// For numbers that were rounded to float32: a third of the rounding.
constexpr double kRoundedTolerance = 2e-8;

double inverse_distance(double r, double rcut_smth, double rcut, double protection) {
  double sw, dsw;
  switch_function(r, rcut_smth, rcut, &sw, &dsw);
  return std::max(sw, 1e-3) / (r + protection);
}

std::vector<double> type_inputs(const Model& m, const std::vector<int>& types) {
  std::vector<double> out;
  for (int t : types) {
    for (int c = 0; c < m.tebd_dim(); ++c) out.push_back(m.type_embedding(t, c));
  }
  return out;
}

int fine_cells(const EmbeddingTable& t) { return static_cast<int>((t.upper - t.lower) / t.stride0); }

// Value and slope of a compressed model's fine pieces; the first and the last go on beyond their ends, so
// that there is no kink.
void compressed_function(const EmbeddingTable& t, int ng, double x, double* value, double* slope) {
  const int cell = std::clamp(static_cast<int>((x - t.lower) / t.stride0), 0, fine_cells(t) - 1);
  const double h = x - (t.lower + cell * t.stride0);
  const double* a = t.coefficients.data.data() + static_cast<std::size_t>(cell) * 6 * ng;
  for (int m = 0; m < ng; ++m) compressed_value(a + 6 * m, h, 0.0, value + m, slope + m);
}

// Fine pieces, `step` of them made one: the quintic through values, slopes and curvatures at its two ends.
FunctionTable joined_pieces(const EmbeddingTable& t, int ng, int step) {
  FunctionTable out;
  const int rows = static_cast<int>(t.coefficients.shape[0]);
  out.channels = ng, out.cells = std::min(fine_cells(t), rows - 1) / step;
  out.lower = t.lower, out.width = step * t.stride0;
  out.node.resize(static_cast<std::size_t>(out.cells + 1) * 4 * ng);
  const std::size_t next = static_cast<std::size_t>(step) * 6 * ng;
  for (int k = 0; k <= out.cells; ++k) {
    const double* a = &t.coefficients.data[k * next];
    double* node = &out.node[static_cast<std::size_t>(k) * 4 * ng];
    for (int m = 0; m < ng; ++m, a += 6) {
      node[m] = a[0], node[2 * ng + m] = out.width * a[1];
      node[3 * ng + m] = 2 * out.width * out.width * a[2];
      if (k < out.cells) node[ng + m] = a[next] - a[0];
    }
  }
  return out;
}

// Whether the table has the values and slopes of all borders of fine pieces, to the rounding of float32. A
// slope feels the rounding of the values at both ends of its piece.
bool meets_borders(const EmbeddingTable& t, const FunctionTable& joined, int step) {
  constexpr double kRounding = 4e-7;  // of a net in float32
  const int ng = joined.channels, borders = step * joined.cells;
  double largest = 0, steepest = 0, off = 0, slope_off = 0;
  std::vector<double> value(ng), slope(ng);
  for (int k = 0; k <= borders; ++k) {
    look_up(joined, t.lower + k * t.stride0, value.data(), slope.data());
    const double* a = &t.coefficients.data[static_cast<std::size_t>(k) * 6 * ng];
    for (int m = 0; m < ng; ++m, a += 6) {
      largest = std::max(largest, std::abs(a[0])), steepest = std::max(steepest, std::abs(a[1]));
      off = std::max(off, std::abs(value[m] - a[0]));
      slope_off = std::max(slope_off, std::abs(slope[m] - a[1]));
    }
  }
  return off <= kRounding * largest && slope_off <= kRounding * (steepest + 2 * largest / joined.width);
}

// DeePMD-kit makes the table of a float32 model in float32: values, slopes and curvatures at the borders of
// its pieces are as good as that, but what it makes of their differences has lost its digits, and slopes
// within the pieces are off by 1e-5. Longer pieces through the same borders lose less. Empty if none follow.
FunctionTable smooth_pieces(const EmbeddingTable& t, int ng) {
  for (int step = 64; step > 1; step /= 2) {
    if (step > fine_cells(t)) continue;
    FunctionTable joined = joined_pieces(t, ng, step);
    if (meets_borders(t, joined, step)) return joined;
  }
  return {};
}

// Value and slope of c g(c), summed over the given type inputs.
void triple_function(const Net& net, const std::vector<std::vector<double>>& rests, double c, double* value,
                     double* slope) {
  const int ng = net.out();
  std::vector<double> g(ng), dg(ng);
  std::fill(value, value + ng, 0.0), std::fill(slope, slope + ng, 0.0);
  for (const auto& rest : rests) {
    evaluate_net(net, c, rest, g.data(), dg.data());
    for (int m = 0; m < ng; ++m) value[m] += c * g[m], slope[m] += g[m] + c * dg[m];
  }
}

}  // namespace

bool add_types(const std::vector<char>& present, std::vector<char>* known) {
  known->resize(present.size(), 0);
  bool added = false;
  for (std::size_t t = 0; t < present.size(); ++t) {
    added = added || (present[t] && !(*known)[t]);
    (*known)[t] |= present[t];
  }
  return added;
}

std::vector<TableRange> repinit_ranges(const Model& model, const std::vector<char>& present) {
  const Embedding& e = model.repinit;
  const double closest = inverse_distance(kRepinitReach, e.rcut_smth, e.rcut, model.env_protection);
  std::vector<TableRange> out;
  for (int a = 0; a < model.ntypes(); ++a) {
    if (!present[a]) continue;
    const double avg = e.davg(a, 0), std = e.dstd(a, 0);
    const double lower = -avg / std, upper = (closest - avg) / std;
    if (e.strip) out.push_back({a, -1, lower, upper, {{}}});
    for (int b = 0; b < model.ntypes() && !e.strip; ++b) {
      if (!present[b]) continue;
      out.push_back({a, b, lower, upper, {{b}}});
      if (!e.one_side) out.back().types[0].push_back(a);
    }
  }
  return out;
}

// Concat mode: a function for every (centre, neighbour). Strip mode: one net for all types, but its input
// depends on the centre's davg and dstd. A compressed model's table has small cells, each with six numbers a
// channel: larger ones, which neighbours share, are faster.
std::vector<RepinitTable> tabulate_repinit(const Model& model, const std::vector<char>& present,
                                           double tolerance) {
  const Embedding& e = model.repinit;
  std::vector<RepinitTable> out;
  const bool compressed = e.net.empty(), rounded = model.precision == Precision::kFloat32;
  double first = -HUGE_VAL, last = HUGE_VAL;
  FunctionTable smooth;
  if (compressed) first = e.table.lower, last = e.table.upper;
  if (compressed && rounded) {
    smooth = smooth_pieces(e.table, e.ng);
    if (smooth.empty()) return out;
    last = smooth.upper(), tolerance = std::max(tolerance, kRoundedTolerance);
  }
  const std::vector<TableRange> ranges = repinit_ranges(model, present);
  for (const TableRange& r : ranges) out.push_back({r.a, r.b, {}, {}});
#pragma omp parallel for schedule(dynamic)
  for (std::size_t k = 0; k < out.size(); ++k) {
    RepinitTable& t = out[k];
    const std::vector<double> rest = type_inputs(model, ranges[k].types[0]);
    const double lower = std::max(first, ranges[k].lower), upper = std::min(last, ranges[k].upper);
    const auto f = [&](double x, double* value, double* slope) {
      if (!compressed) return evaluate_net(e.net, x, rest, value, slope);
      if (!rounded) return compressed_function(e.table, e.ng, x, value, slope);
      look_up(smooth, x, value, slope);
    };
    t.table = tabulate(e.ng, lower, upper, tolerance, kMaxCells, f, kMinCells, kCoarsest);
    if (!t.table.empty()) t.coarser = coarser_beginnings(t.table, tolerance, kCoarsest);
  }
  return out;
}

std::vector<TableRange> three_body_ranges(const Model& model, const std::vector<char>& present) {
  const Embedding& e = model.three_body;
  std::vector<TableRange> out;
  double longest = 0;  // of the directions em[1:4]
  const double closest = inverse_distance(kThreeBodyReach, e.rcut_smth, e.rcut, model.env_protection);
  if (e.strip) out.push_back({-1, -1, 0, 0, {{}}});
  for (int a = 0; a < model.ntypes(); ++a) {
    if (!present[a]) continue;
    double avg = 0, std = e.dstd(a, 1);
    for (int c = 1; c < 4; ++c) avg += e.davg(a, c) * e.davg(a, c), std = std::min(std, e.dstd(a, c));
    longest = std::max(longest, (closest + std::sqrt(avg)) / std);
    for (int b = a; b < model.ntypes() && !e.strip; ++b) {
      if (present[b]) out.push_back({a, b, 0, 0, {{a, b}, {b, a}}});
    }
  }
  for (TableRange& r : out) r.lower = -longest * longest, r.upper = longest * longest;
  return out;
}

// All tables have the same cells, so that the place of a triple does not depend on its types.
ThreeBodyTables tabulate_three_body(const Model& model, const std::vector<char>& present, double tolerance) {
  const Embedding& e = model.three_body;
  ThreeBodyTables out;
  const std::vector<TableRange> ranges = three_body_ranges(model, present);
  for (const TableRange& r : ranges) out.tables.push_back({r.a, r.b, {}});
  out.reach = ranges.empty() ? 0 : ranges.front().upper;
  int cells = 64;
  for (bool good = false; !good; cells *= 2) {
    if (cells > kMaxCells) return {};
    good = true;
#pragma omp parallel for schedule(dynamic)
    for (std::size_t k = 0; k < out.tables.size(); ++k) {
      ThreeBodyTable& t = out.tables[k];
      std::vector<std::vector<double>> rests;
      for (const std::vector<int>& types : ranges[k].types) rests.push_back(type_inputs(model, types));
      t.table = tabulate(
          e.ng, -out.reach, out.reach, tolerance, cells,
          [&](double c, double* value, double* slope) { triple_function(e.net, rests, c, value, slope); },
          cells);
      if (t.table.empty()) {
#pragma omp atomic write
        good = false;
      }
    }
  }
  return out;
}

int radial_layers(const Repformer& f) {
  if (f.nlayers == 0 || !f.has_conv || !f.g1_out_conv || f.has_g1_attn) return 0;
  return f.has_g2_attn || f.has_g1g1 || f.update_h2 ? 1 : f.nlayers;
}

namespace {

// A number and its derivative by em_0, of every channel.
struct Channels {
  std::vector<double> value, slope;
  explicit Channels(std::size_t n) : value(n, 0.0), slope(n, 0.0) {}
};

// x w + b (or no bias), w (in, out)
Channels linear(const Channels& x, const Tensor& w, const Tensor* bias) {
  const std::size_t out = static_cast<std::size_t>(w.shape[1]);
  Channels y(out);
  if (bias && !bias->empty()) y.value.assign(bias->data.begin(), bias->data.end());
  for (std::size_t i = 0; i < x.value.size(); ++i) {
    for (std::size_t o = 0; o < out; ++o) {
      y.value[o] += x.value[i] * w.data[i * out + o];
      y.slope[o] += x.slope[i] * w.data[i * out + o];
    }
  }
  return y;
}

void activate_channels(const Activation& act, Channels* x) {
  dispatch(act, [&](auto kind) {
    for (std::size_t c = 0; c < x->value.size(); ++c) {
      double y, d;
      activate<decltype(kind)::value>(act, x->value[c], &y, &d);
      x->value[c] = y, x->slope[c] *= d;
    }
  });
}

}  // namespace

FunctionTable tabulate_radial_layers(const Model& model, const std::vector<char>& present, double tolerance,
                                     int max_cells) {
  const Repformer& f = model.repformer;
  const int layers = radial_layers(f);
  if (layers == 0) return {};
  std::vector<FoldedLayer> folded;
  folded.reserve(layers);
  for (int l = 0; l < layers; ++l) folded.push_back(fold_layer(f, l));
  const auto state = [&](double em, double* value, double* slope) {
    Channels x(1);
    x.value[0] = em, x.slope[0] = 1;
    Channels g2 = linear(x, f.g2_embd.w, &f.g2_embd.b);
    activate_channels(f.act, &g2);
    for (int l = 0; l < layers; ++l) {
      for (const Channels& part : {g2, linear(g2, folded[l].conv, nullptr)}) {
        value = std::copy(part.value.begin(), part.value.end(), value);
        slope = std::copy(part.slope.begin(), part.slope.end(), slope);
      }
      if (l + 1 == layers) return;
      Channels y = linear(g2, f.layers[l].linear2.w, &f.layers[l].linear2.b);
      activate_channels(f.act, &y);
      for (std::size_t c = 0; c < y.value.size(); ++c) {
        g2.value[c] = folded[l].g2_alpha * g2.value[c] + folded[l].scale_linear2.data[c] * y.value[c];
        g2.slope[c] = folded[l].g2_alpha * g2.slope[c] + folded[l].scale_linear2.data[c] * y.slope[c];
      }
    }
  };
  double lower = 0, upper = 0;
  bool first = true;
  const double closest = inverse_distance(kRadialReach, f.rcut_smth, f.rcut, model.env_protection);
  for (int t = 0; t < model.ntypes(); ++t) {
    if (!present[t]) continue;
    const double avg = f.davg(t, 0), std = f.dstd(t, 0);
    const double from = f.direct_dist ? kRadialReach / f.rcut : -avg / std;
    const double to = f.direct_dist ? 1.0 : (closest - avg) / std;
    lower = first ? from : std::min(lower, from), upper = first ? to : std::max(upper, to);
    first = false;
  }
  return tabulate(layers * (f.g2_dim + f.g1_dim), lower, upper, tolerance, max_cells, state);
}

}  // namespace dpa2md
