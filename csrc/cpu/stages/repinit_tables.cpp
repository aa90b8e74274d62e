// The moments of repinit from tables. Neighbours meet in few cells of a table (most are far, where the switch
// has made em_0 small), so that each of its rows is taken once an atom, whatever the number of neighbours
// that look it up:
//   M_c = sum_j em_jc g(x_j) = sum over rows of row (sum_j em_jc weight_j)
// and in reverse its products with d M are made first, and then weighted. Rows come in units of two
// (tables.h).
#include <algorithm>

#include "cpu/cpu_backend.h"
#include "cpu/vector/lanes.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
struct CpuBackend<T>::RepinitUnits {
  int count = 0;
  const T** rows;  // (count) two rows of channels
  int* slot;       // (n, 3) of every neighbour
  // strip mode: the types that there are among the neighbours, each with a gate of its own
  int types = 0;
  int* type;       // (types)
  int* type_slot;  // (n)
};

// In a compressed model's table, by the arithmetic of the file's precision.
template <class T>
void CpuBackend<T>::compressed_place(T x, TablePlace<T>* p) const {
  const CompressedGrid grid = compressed_grid(model_.repinit.table);
  place(dpa2md::compressed_place(grid, model_.precision == "float32", x), w_repinit_.compressed.data(),
        padded(model_.repinit.ng, lanes<T>()), p);
}

// Places of all neighbours in their tables, or else in a compressed model's own; null when there is none or
// one of them lies outside.
template <class T>
TablePlace<T>* CpuBackend<T>::repinit_places(int i, bool slopes, Arena& arena) {
  const int n = pairs().repinit.count[i];
  if (pairs().center_type[i] < 0) return nullptr;
  TablePlace<T>* places = arena.take<TablePlace<T>>(n);
  bool inside = !w_repinit_.tables.empty();
  for (int j = 0; inside && j < n; j += lanes<T>()) inside = repinit_places_lanes(i, j, slopes, places);
  if (inside) return places;
  if (w_repinit_.compressed.empty()) return nullptr;
  const T* em = env_repinit_.em.data() + 4 * env_row(env_repinit_, i);
  for (int j = 0; j < n; ++j) compressed_place(em[4 * j], &places[j]);
  return places;
}

// Of the neighbours from j on that fill a vector.
template <class T>
bool CpuBackend<T>::repinit_places_lanes(int i, int j, bool slopes, TablePlace<T>* places) const {
  constexpr int W = lanes<T>();
  const int n = std::min(W, pairs().repinit.count[i] - j), np = w_repinit_.tables.padded_channels();
  const std::int32_t* type = pairs().type.data() + pairs().repinit.first[i] + j;
  const T* em = env_repinit_.em.data() + 4 * (env_row(env_repinit_, i) + j);
  const Table<T>* table[W];
  using V = typename Vector<T, W>::type;
  using Ints = typename Vector<int, W>::type;
  V x{}, inverse_width{};
  Ints first{}, cells{};
  for (int k = 0; k < n; ++k) {
    const Table<T>* t = table[k] = w_repinit_.tables(pairs().center_type[i], type[k]);
    if (!t || !t->covers(em[4 * k])) return false;
    x[k] = em[4 * k], inverse_width[k] = t->inverse_width, first[k] = t->first, cells[k] = t->cells;
  }
  int cell[W];
  T value[5 * W], slope[5 * W];
  if (slopes) {
    place_lanes<true, true, T, V, Ints>(x * inverse_width, inverse_width, first, cells, W, cell, value,
                                        slope);
  } else {
    place_lanes<true, false, T, V, Ints>(x * inverse_width, inverse_width, first, cells, W, cell, value,
                                         slope);
  }
  for (int k = 0; k < n; ++k) {
    TablePlace<T>& p = places[j + k];
    p.node = table[k]->node.data() + static_cast<std::size_t>(cell[k]) * 4 * np;
    p.tail = p.node + 6 * np;
    p.unit[0] = table[k]->first_unit + 2 * cell[k], p.unit[1] = p.unit[0] + 1, p.unit[2] = p.unit[0] + 3;
    for (int q = 0; q < 5; ++q) p.value[q] = value[q * W + k];
    for (int q = 0; slopes && q < 5; ++q) p.slope[q] = slope[q * W + k];
  }
  return true;
}

// Each unit that the places name once. (The numbers of units are looked up in an array that is left as it was
// found: full of -1.)
template <class T>
void CpuBackend<T>::repinit_units(int i, const TablePlace<T>* places, bool types, Arena& arena,
                                  RepinitUnits* u) {
  const int n = pairs().repinit.count[i], np = padded(model_.repinit.ng, lanes<T>());
  u->rows = arena.take<const T*>(3 * static_cast<std::size_t>(n));
  u->slot = arena.take<int>(3 * static_cast<std::size_t>(n));
  int* used = arena.take<int>(3 * static_cast<std::size_t>(n));
  int* slot_of = unit_slot_.data() + static_cast<std::size_t>(thread_index()) * unit_count_;
  for (int j = 0; j < n; ++j) {
    const TablePlace<T>& p = places[j];
    const T* rows[3] = {p.node, p.node + 2 * np, p.tail};
    for (int q = 0; q < 3; ++q) {
      int& slot = slot_of[p.unit[q]];
      if (slot < 0) {
        used[u->count] = p.unit[q], u->rows[u->count] = rows[q];
        slot = u->count++;
      }
      u->slot[3 * j + q] = slot;
    }
  }
  for (int k = 0; k < u->count; ++k) slot_of[used[k]] = -1;
  if (!types) return;
  const std::int32_t* type = pairs().type.data() + pairs().repinit.first[i];
  u->type = arena.take<int>(n);
  u->type_slot = arena.take<int>(n);
  for (int j = 0; j < n; ++j) {
    const int at = static_cast<int>(std::find(u->type, u->type + u->types, type[j]) - u->type);
    if (at == u->types) u->type[u->types++] = type[j];
    u->type_slot[j] = at;
  }
}

namespace {

// em or a product with it: four numbers
template <class T>
using Four = typename Vector<T, 4>::type;
template <class T>
DPA2MD_INLINE Four<T>& four(T* p) {
  return *reinterpret_cast<Four<T>*>(p);
}
template <class T>
DPA2MD_INLINE const Four<T>& four(const T* p) {
  return *reinterpret_cast<const Four<T>*>(p);
}

// Adds a neighbour's weights times em to those of its units; each has two rows of four, (units, 2, 4).
template <class T>
DPA2MD_INLINE void add_weights(const int* slot, const T* w, Four<T> em, T* units) {
  T *a = units + 8 * slot[0], *b = units + 8 * slot[1], *c = units + 8 * slot[2];
  four(a) += em;
  four(a + 4) += w[0] * em;
  four(b) += w[1] * em;
  four(b + 4) += w[2] * em;
  four(c) += w[3] * em;
  four(c + 4) += w[4] * em;
}

// The products of d M with the rows of a neighbour's units, weighted as its value and as its slope.
template <class T>
DPA2MD_INLINE void weigh(const int* slot, const TablePlace<T>& p, const T* units, Four<T>* value,
                         Four<T>* slope) {
  const T *a = units + 8 * slot[0], *b = units + 8 * slot[1], *c = units + 8 * slot[2];
  const Four<T> rows[5] = {four(a + 4), four(b), four(b + 4), four(c), four(c + 4)};
  *value = four(a), *slope = Four<T>{};
  for (int q = 0; q < 5; ++q) *value += p.value[q] * rows[q], *slope += p.slope[q] * rows[q];
}

template <class T>
DPA2MD_INLINE T dot4(Four<T> x, Four<T> y) {
  const Four<T> z = x * y;
  return (z[0] + z[1]) + (z[2] + z[3]);
}

}  // namespace

// Strip mode: how much of T(t_j, t_i) opens the gate of a neighbour.
template <class T>
T CpuBackend<T>::repinit_opening(std::size_t env) const {
  return model_.smooth ? env_repinit_.sw[env] : T(1);
}

template <class T>
template <bool STRIP>
void CpuBackend<T>::repinit_moment(int i, const TablePlace<T>* places, T* moment, Arena& arena) {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  const int n = pairs().repinit.count[i], np = padded(model_.repinit.ng, W);
  const std::size_t e0 = env_row(env_repinit_, i);
  const T* em = env_repinit_.em.data() + 4 * e0;
  RepinitUnits u;
  repinit_units(i, places, STRIP, arena, &u);
  const std::size_t size = 8 * static_cast<std::size_t>(u.count);
  T* weights = arena.zeros<T>(size * (1 + u.types));  // ungated, then of every gate
  for (int j = 0; j < n; ++j) {
    add_weights<T>(u.slot + 3 * j, places[j].value, four(em + 4 * j), weights);
    if constexpr (STRIP)
      add_weights<T>(u.slot + 3 * j, places[j].value, four(em + 4 * j) * repinit_opening(e0 + j),
                     weights + size * (1 + u.type_slot[j]));
  }
  for (int m = 0; m < np; m += W) {
    V sum[4] = {};
    for (int set = 0; set <= u.types; ++set) {
      V part[4] = {};
      const T* w = weights + size * set;
      for (int k = 0; k < u.count; ++k, w += 8) {
        const V a = *reinterpret_cast<const V*>(u.rows[k] + m),
                b = *reinterpret_cast<const V*>(u.rows[k] + np + m);
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c) part[c] += a * w[c] + b * w[4 + c];
      }
      V gate = V{} + T(1);
      if (set > 0)
        gate = *reinterpret_cast<const V*>(repinit_gate(pairs().center_type[i], u.type[set - 1]) + m);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) sum[c] += part[c] * gate;
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) *reinterpret_cast<V*>(moment + c * np + m) = sum[c];
  }
}

// The products of all units' rows with d M (4, padded ng), (units, 2, 4); gate (padded ng) or null.
template <class T>
void CpuBackend<T>::repinit_unit_products(const RepinitUnits& u, const T* dmoment, const T* gate, T* out,
                                          Arena& arena) const {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  const int np = padded(model_.repinit.ng, W);
  Arena::Scope scope(arena);
  if (gate) {
    T* gated = arena.take<T>(4 * static_cast<std::size_t>(np));
    for (int c = 0; c < 4; ++c) {
      for (int m = 0; m < np; ++m) gated[c * np + m] = dmoment[c * np + m] * gate[m];
    }
    dmoment = gated;
  }
  for (int k = 0; k < u.count; ++k, out += 8) {
    V sum[8] = {};
    for (int m = 0; m < np; m += W) {
      const V a = *reinterpret_cast<const V*>(u.rows[k] + m),
              b = *reinterpret_cast<const V*>(u.rows[k] + np + m);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        const V d = *reinterpret_cast<const V*>(dmoment + c * np + m);
        sum[c] += a * d, sum[4 + c] += b * d;
      }
    }
    sum_four<T, W>(sum, out);
    sum_four<T, W>(sum + 4, out + 4);
  }
}

// Assigns d em and d sw of the atom's pairs from d M (4, padded ng).
template <class T>
template <bool STRIP>
void CpuBackend<T>::repinit_moment_backward(int i, const TablePlace<T>* places, const T* dmoment,
                                            Arena& arena) {
  const int n = pairs().repinit.count[i];
  const std::size_t e0 = env_row(env_repinit_, i);
  RepinitUnits u;
  repinit_units(i, places, STRIP, arena, &u);
  const std::size_t size = 8 * static_cast<std::size_t>(u.count);
  T* products = arena.take<T>(size * (1 + u.types));  // ungated, then of every gate
  repinit_unit_products(u, dmoment, nullptr, products, arena);
  for (int t = 0; t < u.types; ++t)
    repinit_unit_products(u, dmoment, repinit_gate(pairs().center_type[i], u.type[t]),
                          products + size * (1 + t), arena);
  for (int j = 0; j < n; ++j) {
    const Four<T> em = four(env_repinit_.em.data() + 4 * (e0 + j));
    Four<T> value, slope;
    weigh<T>(u.slot + 3 * j, places[j], products, &value, &slope);
    T dsw = 0;
    if constexpr (STRIP) {
      Four<T> gated, gated_slope;
      weigh<T>(u.slot + 3 * j, places[j], products + size * (1 + u.type_slot[j]), &gated, &gated_slope);
      const T opening = repinit_opening(e0 + j);
      value += opening * gated, slope += opening * gated_slope;
      if (model_.smooth) dsw = dot4<T>(em, gated);
    }
    value[0] += dot4<T>(em, slope);
    four(env_repinit_.dem.data() + 4 * (e0 + j)) = value;
    env_repinit_.dsw[e0 + j] = dsw;
  }
}

#define DPA2MD_INSTANTIATE(T)                                                                              \
  template void CpuBackend<T>::compressed_place(T, TablePlace<T>*) const;                                  \
  template TablePlace<T>* CpuBackend<T>::repinit_places(int, bool, Arena&);                                \
  template void CpuBackend<T>::repinit_moment<true>(int, const TablePlace<T>*, T*, Arena&);                \
  template void CpuBackend<T>::repinit_moment<false>(int, const TablePlace<T>*, T*, Arena&);               \
  template void CpuBackend<T>::repinit_moment_backward<true>(int, const TablePlace<T>*, const T*, Arena&); \
  template void CpuBackend<T>::repinit_moment_backward<false>(int, const TablePlace<T>*, const T*, Arena&);
DPA2MD_INSTANTIATE(float)
DPA2MD_INSTANTIATE(double)

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
