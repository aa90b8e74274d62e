// The moments of repinit from tables whose cells are so small that few neighbours share one: the embedding of
// every neighbour is made of its six rows and used at once.
#include "cpu/stages/repinit_tables.h"
#include "cpu/vector/lanes.h"

namespace dpa2md {
namespace DPA2MD_ISA {

namespace {

// The six rows of a place: f and the five that are weighted.
template <class T>
struct PlaceRows {
  const T* row[6];
  PlaceRows(const TablePlace<T>& p, int np)
      : row{p.node, p.node + np, p.node + 2 * np, p.node + 3 * np, p.tail, p.tail + np} {}
};

}  // namespace

// Whether g of every neighbour costs less than all rows of their cells: these are read again for the gate of
// every type. The limits were measured (docs/history.md).
template <class T>
bool RepinitTables<T>::few_share_cells(const Workspace& w, int i, const TablePlace<T>* places) const {
  constexpr double kShared = 0.25, kSharedGated = 0.48;  // cells times sets of rows, for each neighbour
  const int n = w.pairs().repinit.count[i];
  const std::int32_t* type = w.pairs().type.data() + w.pairs().repinit.first[i];
  Arena::Scope scope(w.arena());
  char* seen = w.arena().template zeros<char>(model_.ntypes());
  int* slot_of = unit_slot_.data() + static_cast<std::size_t>(thread_index()) * unit_count_;  // full of -1
  int cells = 0, types = 0;
  for (int j = 0; j < n; ++j) {
    int& slot = slot_of[places[j].unit[0]];
    cells += slot < 0, slot = 0;
    types += !seen[type[j]], seen[type[j]] = 1;
  }
  for (int j = 0; j < n; ++j) slot_of[places[j].unit[0]] = -1;
  return model_.repinit.strip ? cells * (1 + types) > kSharedGated * n : cells > kShared * n;
}

// T(t_j, t_i) of every neighbour; strip mode.
template <class T>
const Real<T>** RepinitTables<T>::gates(const Workspace& w, int i) const {
  if (!model_.repinit.strip) return nullptr;
  const int n = w.pairs().repinit.count[i], center = w.pairs().center_type[i];
  const std::int32_t* type = w.pairs().type.data() + w.pairs().repinit.first[i];
  const Real<T>** out = w.arena().template take<const Real<T>*>(n);
  for (int j = 0; j < n; ++j) out[j] = gate(center, type[j]);
  return out;
}

// B vectors of channels, from m on.
template <class T>
template <bool STRIP, int B>
void RepinitTables<T>::channels_one_by_one(const Env<T>& env, std::size_t e0, int n,
                                           const TablePlace<T>* places, const Real<T>* const* gates, int m,
                                           T* moment) const {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  const int np = padded(model_.repinit.ng, W);
  V sum[4][B] = {};
  for (int j = 0; j < n; ++j) {
    const PlaceRows<T> rows(places[j], np);
    const T *weight = places[j].value, *em = env.em.data() + 4 * (e0 + j);
    V g[B];
    for (int v = 0; v < B; ++v) g[v] = load<W>(rows.row[0] + m + v * W);
#pragma GCC unroll 5
    for (int q = 0; q < 5; ++q) {
      for (int v = 0; v < B; ++v) g[v] += weight[q] * load<W>(rows.row[1 + q] + m + v * W);
    }
    if constexpr (STRIP) {
      const T open = opening(env, e0 + j);
      for (int v = 0; v < B; ++v) g[v] += g[v] * (open * load<W>(gates[j] + m + v * W));
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      for (int v = 0; v < B; ++v) sum[c][v] += em[c] * g[v];
    }
  }
  for (int c = 0; c < 4; ++c) {
    for (int v = 0; v < B; ++v) store<W>(moment + c * np + m + v * W, sum[c][v]);
  }
}

template <class T>
void RepinitTables<T>::moment_one_by_one(const Workspace& w, const Env<T>& env, int i,
                                         const TablePlace<T>* places, T* moment) const {
  constexpr int W = lanes<T>();
  const int n = w.pairs().repinit.count[i], np = padded(model_.repinit.ng, W);
  const std::size_t e0 = env.row(w, i);
  const Real<T>* const* gate_of = gates(w, i);
  const auto channels = [&](auto blocks, int m) {
    constexpr int B = decltype(blocks)::value;
    gate_of ? channels_one_by_one<true, B>(env, e0, n, places, gate_of, m, moment)
            : channels_one_by_one<false, B>(env, e0, n, places, gate_of, m, moment);
  };
  int m = 0;
  for (; m + 2 * W <= np; m += 2 * W) channels(std::integral_constant<int, 2>{}, m);
  if (m < np) channels(std::integral_constant<int, 1>{}, m);
}

// With d M . em_j = s of a channel: d em_c = sum d M_c g (and of em_0 sum s dg/dx), d sw = sum s raw T.
template <class T>
template <bool STRIP>
void RepinitTables<T>::pairs_one_by_one(Env<T>* env, std::size_t e0, int n, const TablePlace<T>* places,
                                        const Real<T>* const* gates, const T* dmoment) const {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  const int np = padded(model_.repinit.ng, W);
  for (int j = 0; j < n; ++j) {
    const TablePlace<T>& p = places[j];
    const PlaceRows<T> rows(p, np);
    const T* em = env->em.data() + 4 * (e0 + j);
    const T open = STRIP ? opening(*env, e0 + j) : T(0);
    V sum[4] = {}, of_switch{};
    for (int m = 0; m < np; m += W) {
      V g = load<W>(rows.row[0] + m), slope{}, s{}, d[4];
#pragma GCC unroll 5
      for (int q = 0; q < 5; ++q) {
        const V row = load<W>(rows.row[1 + q] + m);
        g += p.value[q] * row, slope += p.slope[q] * row;
      }
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) d[c] = load<W>(dmoment + c * np + m), s += em[c] * d[c];
      if constexpr (STRIP) {
        const V gate = load<W>(gates[j] + m), opened = spread<W>(T(1)) + open * gate;
        of_switch += s * (g * gate);
        g *= opened, slope *= opened;
      }
      sum[0] += s * slope;
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) sum[c] += d[c] * g;
    }
    sum_four<T, W>(sum, env->dem.data() + 4 * (e0 + j));
    env->dsw[e0 + j] = STRIP && model_.smooth ? sum_lanes<T, W>(of_switch) : T(0);
  }
}

template <class T>
void RepinitTables<T>::backward_one_by_one(const Workspace& w, Env<T>* env, int i,
                                           const TablePlace<T>* places, const T* dmoment) const {
  const int n = w.pairs().repinit.count[i];
  const std::size_t e0 = env->row(w, i);
  const Real<T>* const* gate_of = gates(w, i);
  gate_of ? pairs_one_by_one<true>(env, e0, n, places, gate_of, dmoment)
          : pairs_one_by_one<false>(env, e0, n, places, gate_of, dmoment);
}

template bool RepinitTables<float>::few_share_cells(const Workspace&, int, const TablePlace<float>*) const;
template bool RepinitTables<double>::few_share_cells(const Workspace&, int, const TablePlace<double>*) const;
template void RepinitTables<float>::moment_one_by_one(const Workspace&, const Env<float>&, int,
                                                      const TablePlace<float>*, float*) const;
template void RepinitTables<double>::moment_one_by_one(const Workspace&, const Env<double>&, int,
                                                       const TablePlace<double>*, double*) const;
template void RepinitTables<float>::backward_one_by_one(const Workspace&, Env<float>*, int,
                                                        const TablePlace<float>*, const float*) const;
template void RepinitTables<double>::backward_one_by_one(const Workspace&, Env<double>*, int,
                                                         const TablePlace<double>*, const double*) const;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
