// Which tables the embeddings get, over which range, and how exact.
#include "tables.h"

#include <algorithm>
#include <cmath>

#include "cpu_backend.h"

namespace dpa2md {
namespace DPA2MD_ISA {

namespace {

// Atoms closer than this are computed with the net itself.
constexpr double kRepinitReach = 0.45, kThreeBodyReach = 0.6;  // angstrom

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

}  // namespace

// Makes the tables again when types have come up that they do not know.
template <class T>
void CpuBackend<T>::build_tables() {
  if (!use_tables_) return;
  const std::vector<char>& present = pairs().types_present;
  tabulated_.resize(model_.ntypes(), 0);
  bool grown = false;
  for (std::size_t t = 0; t < present.size(); ++t) {
    if (present[t] && !tabulated_[t]) tabulated_[t] = 1, grown = true;
  }
  if (!grown) return;
  // well below the rounding error of float32 (6e-8); in double what the cancellation of nearly equal nodes
  // leaves, still a hundredth of what the parity tests would notice
  const double tolerance = single() ? 2e-9 : 2e-13;
  constexpr int max_cells = 8192;  // a few megabytes for two elements
  if (!model_.repinit.net.empty()) build_repinit_tables(tolerance, max_cells);
  if (model_.has_three_body) build_three_body_tables(tolerance, max_cells);
}

// Concat mode: a function for every (centre, neighbour). Strip mode: one net for all types, but its input
// depends on the centre's davg and dstd.
template <class T>
void CpuBackend<T>::build_repinit_tables(double tolerance, int max_cells) {
  const Embedding& e = model_.repinit;
  const int nt = model_.ntypes();
  w_repinit_.tables.start(nt, e.ng, lanes<T>());
  struct Job {
    int center, neighbor;  // neighbor -1: all
    FunctionTable table;
  };
  std::vector<Job> jobs;
  for (int a = 0; a < nt; ++a) {
    if (!tabulated_[a]) continue;
    if (e.strip) jobs.push_back({a, -1, {}});
    for (int b = 0; b < nt && !e.strip; ++b) {
      if (tabulated_[b]) jobs.push_back({a, b, {}});
    }
  }
  const double closest = inverse_distance(kRepinitReach, e.rcut_smth, e.rcut, model_.env_protection);
#pragma omp parallel for schedule(dynamic)
  for (std::size_t k = 0; k < jobs.size(); ++k) {
    Job& job = jobs[k];
    std::vector<double> rest;
    if (!e.strip) {
      rest =
          e.one_side ? type_inputs(model_, {job.neighbor}) : type_inputs(model_, {job.neighbor, job.center});
    }
    const double avg = e.davg(job.center, 0), std = e.dstd(job.center, 0);
    job.table =
        tabulate(e.ng, -avg / std, (closest - avg) / std, tolerance, max_cells,
                 [&](double x, double* value, double* slope) { evaluate_net(e.net, x, rest, value, slope); });
  }
  for (const Job& job : jobs) {
    const Table<T>* table = w_repinit_.tables.add(job.table);
    for (int b = 0; b < nt; ++b) {
      if (job.neighbor < 0 || job.neighbor == b) w_repinit_.tables.set(job.center, b, table);
    }
  }
}

// c g(c) of an unordered pair of neighbours, both orders summed (strip: of the common net). All tables have
// the same cells, so that a row of triples finds its places at once; without one of them there are none.
template <class T>
void CpuBackend<T>::build_three_body_tables(double tolerance, int max_cells) {
  const Embedding& e = model_.three_body;
  const int nt = model_.ntypes(), ng = e.ng;
  w_three_.tables.start(nt, ng, kTripleLanes);
  double longest = 0;  // of the directions em[1:4]
  const double closest = inverse_distance(kThreeBodyReach, e.rcut_smth, e.rcut, model_.env_protection);
  struct Job {
    int a, b;
    std::vector<double> ab, ba;
    FunctionTable table;
  };
  std::vector<Job> jobs;
  if (e.strip) jobs.push_back({-1, -1, {}, {}, {}});
  for (int a = 0; a < nt; ++a) {
    if (!tabulated_[a]) continue;
    double avg = 0, std = e.dstd(a, 1);
    for (int c = 1; c < 4; ++c) avg += e.davg(a, c) * e.davg(a, c), std = std::min(std, e.dstd(a, c));
    longest = std::max(longest, (closest + std::sqrt(avg)) / std);
    for (int b = a; b < nt && !e.strip; ++b) {
      if (tabulated_[b]) {
        jobs.push_back({a, b, type_inputs(model_, {a, b}), type_inputs(model_, {b, a}), {}});
      }
    }
  }
  reach_ = longest * longest;
  const auto function = [&](const Job& job) {
    return [&e, &job, ng](double c, double* value, double* slope) {
      std::vector<double> g(ng), dg(ng);
      std::fill(value, value + ng, 0.0), std::fill(slope, slope + ng, 0.0);
      for (const auto* rest : {&job.ab, &job.ba}) {
        evaluate_net(e.net, c, *rest, g.data(), dg.data());
        for (int m = 0; m < ng; ++m) value[m] += c * g[m], slope[m] += g[m] + c * dg[m];
        if (e.strip) break;
      }
    };
  };
  int cells = 64;
  for (bool good = false; !good; cells *= 2) {
    if (cells > max_cells) return w_three_.tables.start(0, ng, kTripleLanes);
    good = true;
#pragma omp parallel for schedule(dynamic)
    for (std::size_t k = 0; k < jobs.size(); ++k) {
      jobs[k].table = tabulate(ng, -reach_, reach_, tolerance, cells, function(jobs[k]), cells);
      if (jobs[k].table.empty()) {
#pragma omp atomic write
        good = false;
      }
    }
  }
  for (const Job& job : jobs) {
    const Table<T>* table = w_three_.tables.add(job.table);
    for (int a = 0; a < nt; ++a) {
      for (int b = 0; b < nt && job.a < 0; ++b) w_three_.tables.set(a, b, table);
    }
    if (job.a >= 0) w_three_.tables.set(job.a, job.b, table), w_three_.tables.set(job.b, job.a, table);
  }
}

template void CpuBackend<float>::build_tables();
template void CpuBackend<double>::build_tables();

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
