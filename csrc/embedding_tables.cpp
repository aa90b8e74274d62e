#include "embedding_tables.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

namespace dpa2md {
namespace {

// Atoms closer than this are computed with the net itself.
constexpr double kRepinitReach = 0.45, kThreeBodyReach = 0.6;  // angstrom
constexpr int kMaxCells = 8192;                                // a few megabytes for two elements

double inverse_distance(double r, double rcut_smth, double rcut, double protection) {
  double sw, dsw;
  switch_function(r, rcut_smth, rcut, &sw, &dsw);
  return std::max(sw, 1e-3) / (r + protection);
}

std::vector<double> type_inputs(const Model& m, std::initializer_list<int> types) {
  std::vector<double> out;
  for (int t : types) {
    for (int c = 0; c < m.tebd_dim(); ++c) out.push_back(m.type_embedding(t, c));
  }
  return out;
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

// Concat mode: a function for every (centre, neighbour). Strip mode: one net for all types, but its input
// depends on the centre's davg and dstd.
std::vector<RepinitTable> tabulate_repinit(const Model& model, const std::vector<char>& present,
                                           double tolerance) {
  const Embedding& e = model.repinit;
  std::vector<RepinitTable> out;
  if (e.net.empty()) return out;
  for (int a = 0; a < model.ntypes(); ++a) {
    if (!present[a]) continue;
    if (e.strip) out.push_back({a, -1, {}});
    for (int b = 0; b < model.ntypes() && !e.strip; ++b) {
      if (present[b]) out.push_back({a, b, {}});
    }
  }
  const double closest = inverse_distance(kRepinitReach, e.rcut_smth, e.rcut, model.env_protection);
#pragma omp parallel for schedule(dynamic)
  for (std::size_t k = 0; k < out.size(); ++k) {
    RepinitTable& t = out[k];
    std::vector<double> rest;
    if (!e.strip)
      rest = e.one_side ? type_inputs(model, {t.neighbor}) : type_inputs(model, {t.neighbor, t.center});
    const double avg = e.davg(t.center, 0), std = e.dstd(t.center, 0);
    t.table =
        tabulate(e.ng, -avg / std, (closest - avg) / std, tolerance, kMaxCells,
                 [&](double x, double* value, double* slope) { evaluate_net(e.net, x, rest, value, slope); });
  }
  return out;
}

// All tables have the same cells, so that the place of a triple does not depend on its types.
ThreeBodyTables tabulate_three_body(const Model& model, const std::vector<char>& present, double tolerance) {
  const Embedding& e = model.three_body;
  ThreeBodyTables out;
  double longest = 0;  // of the directions em[1:4]
  const double closest = inverse_distance(kThreeBodyReach, e.rcut_smth, e.rcut, model.env_protection);
  if (e.strip) out.tables.push_back({-1, -1, {}});
  for (int a = 0; a < model.ntypes(); ++a) {
    if (!present[a]) continue;
    double avg = 0, std = e.dstd(a, 1);
    for (int c = 1; c < 4; ++c) avg += e.davg(a, c) * e.davg(a, c), std = std::min(std, e.dstd(a, c));
    longest = std::max(longest, (closest + std::sqrt(avg)) / std);
    for (int b = a; b < model.ntypes() && !e.strip; ++b) {
      if (present[b]) out.tables.push_back({a, b, {}});
    }
  }
  out.reach = longest * longest;
  int cells = 64;
  for (bool good = false; !good; cells *= 2) {
    if (cells > kMaxCells) return {};
    good = true;
#pragma omp parallel for schedule(dynamic)
    for (std::size_t k = 0; k < out.tables.size(); ++k) {
      ThreeBodyTable& t = out.tables[k];
      std::vector<std::vector<double>> rests{{}};
      if (!e.strip) rests = {type_inputs(model, {t.a, t.b}), type_inputs(model, {t.b, t.a})};
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

}  // namespace dpa2md
