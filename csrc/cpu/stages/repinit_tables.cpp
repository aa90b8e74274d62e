#include "cpu/stages/repinit_tables.h"

#include <algorithm>

#include "cpu/parts/net.h"
#include "cpu/vector/gemm.h"
#include "cpu/vector/lanes.h"
#include "model/embedding_tables.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
RepinitTables<T>::RepinitTables(const Model& m, int threads, const RepinitTables<Real<T>>& plain,
                                Gradients<Real<T>>* gradients)
    : model_(m), threads_(threads), tables_(plain.tables_), node_tables_(plain.node_tables_) {
  table_gradient_ = gradients->tables();
  if (m.repinit.strip) gate_gradient_ = gradients->sums(m.repinit.strip_table.data.size());
}

template <class T>
RepinitTables<T>::RepinitTables(const Model& m, int threads)
    : model_(m),
      threads_(threads),
      tables_(std::make_shared<Tables<Real<T>>>()),
      node_tables_(std::make_shared<NodeTables>()) {
  if (m.repinit.table.empty()) return;
  compressed_ = coefficients_by_power<T>(m.repinit);
  make_room_for_units(0);
}

template <class T>
void RepinitTables<T>::prepare() {
  gate_ = cast_padded<T>(model_.repinit.strip_table, model_.repinit.ng);
}

template <class T>
void RepinitTables<T>::build(const std::vector<char>& types) {
  const int nt = model_.ntypes();
  tables_->start(nt, model_.repinit.ng, lanes<T>());
  for (const RepinitTable& made : tabulate_repinit(model_, types, table_tolerance(sizeof(Real<T>) == 4))) {
    const Table<Real<T>>* table = tables_->add(made.table, made.coarser);
    for (int b = 0; b < nt; ++b) {
      if (made.neighbor < 0 || made.neighbor == b) tables_->set(made.center, b, table);
    }
  }
  make_room_for_units(tables_->units());
}

template <class T>
void RepinitTables<T>::follow(const std::vector<char>& types, const Workspace& w) {
  const int nt = model_.ntypes();
  tables_->start(nt, model_.repinit.ng, lanes<T>());
  node_tables_->make(model_.repinit.net, model_.type_embedding, repinit_ranges(model_, types), false, false,
                     w);
  for (const NodeTable& made : node_tables_->tables()) {
    const Table<Real<T>>* table = tables_->add(made.table);
    for (int b = 0; b < nt; ++b) {
      if (made.range.b < 0 || made.range.b == b) tables_->set(made.range.a, b, table);
    }
  }
  make_room_for_units(tables_->units());
}

template <class T>
void RepinitTables<T>::adopt() {
  make_room_for_units(tables_->units());
  table_gradient_->resize(tables_->units(), 2 * tables_->padded_channels());
}

// For an embedding's tables, and for a compressed model's own.
template <class T>
void RepinitTables<T>::make_room_for_units(int count) {
  if (!model_.repinit.table.empty())
    count = std::max(count, 3 * static_cast<int>(model_.repinit.table.coefficients.shape[0]));
  unit_count_ = padded(count, 16);  // threads share no cache line
  unit_slot_.assign(static_cast<std::size_t>(threads_) * unit_count_, -1);
}

template <class T>
const Real<T>* RepinitTables<T>::gate(int center, int neighbor) const {
  const std::size_t row =
      (model_.repinit.one_side ? 0 : static_cast<std::size_t>(center) * model_.ntypes()) + neighbor;
  return gate_.data() + row * padded(model_.repinit.ng, lanes<T>());
}

template <class T>
struct RepinitTables<T>::Units {
  int count = 0;
  const Real<T>** rows;  // (count) two rows of channels
  int* number;           // (count) among the units of all tables
  int* slot;             // (n, 3) of every neighbour
  // strip mode: the types that there are among the neighbours, each with a gate of its own
  int types = 0;
  int* type;       // (types)
  int* type_slot;  // (n)
};

// The place in a compressed model's table, with the arithmetic of the file's precision.
template <class T>
void RepinitTables<T>::compressed_place(T x, TablePlace<T>* p) const {
  const CompressedGrid grid = compressed_grid(model_.repinit.table);
  if constexpr (!is_dual<T>)
    place(dpa2md::compressed_place(grid, model_.precision == Precision::kFloat32, x), compressed_.data(),
          padded(model_.repinit.ng, lanes<T>()), p);
}

// The places in the tables, or else in a compressed model's own table.
template <class T>
TablePlace<T>* RepinitTables<T>::places(const Workspace& w, const Env<T>& env, int i, bool slopes) const {
  const int n = w.pairs().repinit.count[i];
  if (w.pairs().center_type[i] < 0) return nullptr;
  TablePlace<T>* places = w.arena().template take<TablePlace<T>>(n);
  bool inside = !tables_->empty();
  for (int j = 0; inside && j < n; j += lanes<T>()) inside = places_lanes(w, env, i, j, slopes, places);
  if (inside) return places;
  if (compressed_.empty()) return nullptr;
  const T* em = env.em.data() + 4 * env.row(w, i);
  for (int j = 0; j < n; ++j) compressed_place(em[4 * j], &places[j]);
  return places;
}

// The places of a vector of neighbours, from j on.
template <class T>
bool RepinitTables<T>::places_lanes(const Workspace& w, const Env<T>& env, int i, int j, bool slopes,
                                    TablePlace<T>* places) const {
  constexpr int W = lanes<T>();
  const int n = std::min(W, w.pairs().repinit.count[i] - j), np = tables_->padded_channels();
  const std::int32_t* type = w.pairs().type.data() + w.pairs().repinit.first[i] + j;
  const T* em = env.em.data() + 4 * (env.row(w, i) + j);
  const Table<Real<T>>* table[W];
  using V = typename Vector<T, W>::type;
  using Plain = typename Vector<Real<T>, W>::type;
  using Ints = typename Vector<int, W>::type;
  T x[W] = {};
  Plain inverse_width{};
  Ints first{}, cells{};
  for (int k = 0; k < n; ++k) {
    const Table<Real<T>>* t = (*tables_)(w.pairs().center_type[i], type[k]);
    if (!t || !t->covers(value_of(em[4 * k]))) return false;
    t = table[k] = t->coarsest(value_of(em[4 * k]));
    x[k] = em[4 * k], inverse_width[k] = t->inverse_width, first[k] = t->first, cells[k] = t->cells;
  }
  int cell[W];
  T value[5 * W], slope[5 * W];
  if (slopes) {
    place_lanes<true, true, T, V, Plain, Ints>(load<W>(x) * inverse_width, inverse_width, first, cells, W,
                                               cell, value, slope);
  } else {
    place_lanes<true, false, T, V, Plain, Ints>(load<W>(x) * inverse_width, inverse_width, first, cells, W,
                                                cell, value, slope);
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

// Each unit that the places name once; types in strip mode. (The numbers of units are looked up in an array
// that is left as it was found: full of -1.)
template <class T>
typename RepinitTables<T>::Units RepinitTables<T>::units(const Workspace& w, int i,
                                                         const TablePlace<T>* places) const {
  Arena& arena = w.arena();
  const int n = w.pairs().repinit.count[i], np = padded(model_.repinit.ng, lanes<T>());
  Units u;
  u.rows = arena.take<const Real<T>*>(3 * static_cast<std::size_t>(n));
  u.slot = arena.take<int>(3 * static_cast<std::size_t>(n));
  int* used = u.number = arena.take<int>(3 * static_cast<std::size_t>(n));
  int* slot_of = unit_slot_.data() + static_cast<std::size_t>(thread_index()) * unit_count_;
  for (int j = 0; j < n; ++j) {
    const TablePlace<T>& p = places[j];
    const Real<T>* rows[3] = {p.node, p.node + 2 * np, p.tail};
    for (int q = 0; q < 3; ++q) {
      int& slot = slot_of[p.unit[q]];
      if (slot < 0) {
        used[u.count] = p.unit[q], u.rows[u.count] = rows[q];
        slot = u.count++;
      }
      u.slot[3 * j + q] = slot;
    }
  }
  for (int k = 0; k < u.count; ++k) slot_of[used[k]] = -1;
  if (!model_.repinit.strip) return u;
  const std::int32_t* type = w.pairs().type.data() + w.pairs().repinit.first[i];
  u.type = arena.take<int>(n);
  u.type_slot = arena.take<int>(n);
  int* slot_of_type = arena.take<int>(model_.ntypes());
  std::fill_n(slot_of_type, model_.ntypes(), -1);
  for (int j = 0; j < n; ++j) {
    int& slot = slot_of_type[type[j]];
    if (slot < 0) u.type[slot = u.types++] = type[j];
    u.type_slot[j] = slot;
  }
  return u;
}

namespace {

// em or a product with it: four numbers
template <class T>
using Four = typename Vector<T, 4>::type;
template <class T>
DPA2MD_INLINE Four<T> four(const T* p) {
  return load<4>(p);
}

// Adds a neighbour's weights times em to those of its units; each has two rows of four, (units, 2, 4).
template <class T>
DPA2MD_INLINE void add_weights(const int* slot, const T* w, Four<T> em, T* units) {
  T *a = units + 8 * slot[0], *b = units + 8 * slot[1], *c = units + 8 * slot[2];
  add<4>(a, em);
  add<4>(a + 4, w[0] * em);
  add<4>(b, w[1] * em);
  add<4>(b + 4, w[2] * em);
  add<4>(c, w[3] * em);
  add<4>(c + 4, w[4] * em);
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

// The weights of the units' rows times em: (1 + types, units, 2, 4), ungated, then of every gate.
template <class T>
T* RepinitTables<T>::unit_weights(const Workspace& w, const Env<T>& env, int i, const TablePlace<T>* places,
                                  const Units& u) const {
  const int n = w.pairs().repinit.count[i];
  const std::size_t e0 = env.row(w, i), size = 8 * static_cast<std::size_t>(u.count);
  const T* em = env.em.data() + 4 * e0;
  T* weights = w.arena().template zeros<T>(size * (1 + u.types));
  for (int j = 0; j < n; ++j) {
    add_weights<T>(u.slot + 3 * j, places[j].value, four(em + 4 * j), weights);
    if (u.types > 0)
      add_weights<T>(u.slot + 3 * j, places[j].value, four(em + 4 * j) * opening(env, e0 + j),
                     weights + size * (1 + u.type_slot[j]));
  }
  return weights;
}

template <class T>
template <bool STRIP>
void RepinitTables<T>::moment_of(const Workspace& w, const Env<T>& env, int i, const TablePlace<T>* places,
                                 T* moment) const {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  const int np = padded(model_.repinit.ng, W), center = w.pairs().center_type[i];
  const Units u = units(w, i, places);
  const std::size_t size = 8 * static_cast<std::size_t>(u.count);
  const T* weights = unit_weights(w, env, i, places, u);
  for (int m = 0; m < np; m += W) {
    V sum[4] = {};
    for (int set = 0; set <= u.types; ++set) {
      V part[4] = {};
      const T* weight = weights + size * set;
      for (int k = 0; k < u.count; ++k, weight += 8) {
        const auto a = load<W>(u.rows[k] + m), b = load<W>(u.rows[k] + np + m);
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c) part[c] += a * weight[c] + b * weight[4 + c];
      }
      auto open = spread<W>(Real<T>(1));
      if (set > 0) open = load<W>(gate(center, u.type[set - 1]) + m);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) sum[c] += part[c] * open;
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) store<W>(moment + c * np + m, sum[c]);
  }
}

// The products of all units' rows with d M (4, padded ng), (units, 2, 4); gate (padded ng) or null.
template <class T>
void RepinitTables<T>::unit_products(const Units& u, const T* dmoment, const T* gate, T* out,
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
      const auto a = load<W>(u.rows[k] + m), b = load<W>(u.rows[k] + np + m);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        const V d = load<W>(dmoment + c * np + m);
        sum[c] += a * d, sum[4 + c] += b * d;
      }
    }
    sum_four<T, W>(sum, out);
    sum_four<T, W>(sum + 4, out + 4);
  }
}

template <class T>
template <bool STRIP>
void RepinitTables<T>::moment_of_backward(const Workspace& w, Env<T>* env, int i, const TablePlace<T>* places,
                                          const T* dmoment) const {
  Arena& arena = w.arena();
  const int n = w.pairs().repinit.count[i];
  const std::size_t e0 = env->row(w, i);
  const Units u = units(w, i, places);
  const std::size_t size = 8 * static_cast<std::size_t>(u.count);
  T* products = arena.take<T>(size * (1 + u.types));  // ungated, then of every gate
  unit_products(u, dmoment, nullptr, products, arena);
  for (int t = 0; t < u.types; ++t)
    unit_products(u, dmoment, gate(w.pairs().center_type[i], u.type[t]), products + size * (1 + t), arena);
  for (int j = 0; j < n; ++j) {
    const Four<T> em = four(env->em.data() + 4 * (e0 + j));
    Four<T> value, slope;
    weigh<T>(u.slot + 3 * j, places[j], products, &value, &slope);
    T dsw = 0;
    if constexpr (STRIP) {
      Four<T> gated, gated_slope;
      weigh<T>(u.slot + 3 * j, places[j], products + size * (1 + u.type_slot[j]), &gated, &gated_slope);
      const T open = opening(*env, e0 + j);
      value += open * gated, slope += open * gated_slope;
      if (model_.smooth) dsw = dot4<T>(em, gated);
    }
    value[0] += dot4<T>(em, slope);
    store<4>(env->dem.data() + 4 * (e0 + j), value);
    env->dsw[e0 + j] = dsw;
  }
}

template <class T>
void RepinitTables<T>::moment(const Workspace& w, const Env<T>& env, int i, const TablePlace<T>* places,
                              T* moment) const {
  if constexpr (!is_dual<T>) {
    if (few_share_cells(w, i, places)) return moment_one_by_one(w, env, i, places, moment);
  }
  model_.repinit.strip ? moment_of<true>(w, env, i, places, moment)
                       : moment_of<false>(w, env, i, places, moment);
}
template <class T>
void RepinitTables<T>::moment_backward(const Workspace& w, Env<T>* env, int i, const TablePlace<T>* places,
                                       const T* dmoment) const {
  if constexpr (is_dual<T>) {
    add_gradients(w, *env, i, places, dmoment);
  } else {
    if (few_share_cells(w, i, places)) return backward_one_by_one(w, env, i, places, dmoment);
    model_.repinit.strip ? moment_of_backward<true>(w, env, i, places, dmoment)
                         : moment_of_backward<false>(w, env, i, places, dmoment);
  }
}

// ---- gradients of the tables: every row's is the sum of its weights times d M

template <class T>
void RepinitTables<T>::add_gradients([[maybe_unused]] const Workspace& w, [[maybe_unused]] const Env<T>& env,
                                     [[maybe_unused]] int i, [[maybe_unused]] const TablePlace<T>* places,
                                     [[maybe_unused]] const T* dmoment) const {
  if constexpr (is_dual<T>) {
    constexpr int W = lanes<T>();
    using V = typename Vector<T, W>::type;
    const int np = padded(model_.repinit.ng, W), ng = model_.repinit.ng, center = w.pairs().center_type[i];
    const Units u = units(w, i, places);
    const std::size_t size = 8 * static_cast<std::size_t>(u.count);
    const T* weights = unit_weights(w, env, i, places, u);
    for (int m = 0; m < np; m += W) {
      V d[4];
      for (int c = 0; c < 4; ++c) d[c] = load<W>(dmoment + c * np + m);
      for (int set = 0; set <= u.types; ++set) {
        const T* weight = weights + size * set;
        V open[4] = {d[0], d[1], d[2], d[3]}, gated{};
        if (set > 0) {
          const auto gate_of = load<W>(gate(center, u.type[set - 1]) + m);
          for (int c = 0; c < 4; ++c) open[c] = d[c] * gate_of;
        }
        for (int k = 0; k < u.count; ++k, weight += 8) {
          Real<T>* sum = table_gradient_->of(w.group(i), u.number[k]) + m;
          for (int row = 0; row < 2; ++row) {
            const T* x = weight + 4 * row;
            auto total = load<W>(sum + row * np);
#pragma GCC unroll 4
            for (int c = 0; c < 4; ++c) total += open[c].tangent * x[c].value + open[c].value * x[c].tangent;
            store<W>(sum + row * np, total);
          }
          if (set == 0) continue;
          const auto a = load<W>(u.rows[k] + m), b = load<W>(u.rows[k] + np + m);
#pragma GCC unroll 4
          for (int c = 0; c < 4; ++c) gated += (a * weight[c] + b * weight[4 + c]) * d[c];
        }
        if (set == 0) continue;
        const int row = model_.repinit.one_side ? 0 : center * model_.ntypes();
        double* to =
            gate_gradient_->of(w.group(i)) + static_cast<std::size_t>(row + u.type[set - 1]) * ng + m;
        for (int lane = 0; lane < std::min(W, ng - m); ++lane) to[lane] += double(gated.tangent[lane]);
      }
    }
  }
}

template <class T>
void RepinitTables<T>::add_gradient(Model* gradient, const Workspace& w) const {
  if (gate_gradient_) add_to(gate_gradient_->total, &gradient->repinit.strip_table);
  if (!table_gradient_ || tables_->empty()) return;
  node_tables_->add_gradient(model_.repinit.net, model_.type_embedding, table_gradient_->total,
                             tables_->padded_channels(), &gradient->repinit.net, &gradient->type_embedding,
                             w);
}

template class RepinitTables<float>;
template class RepinitTables<double>;
template class RepinitTables<Dual<float>>;
template class RepinitTables<Dual<double>>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
