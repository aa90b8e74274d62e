// The three-body stage from tables: c g(c) of every unordered pair (j, k), looked up a row j at a time.
#include <algorithm>

#include "cpu/stages/three_body.h"
#include "cpu/vector/lanes.h"
#include "model/embedding_tables.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
void ThreeBodyStage<T>::build_tables(const std::vector<char>& types) {
  const int nt = model_.ntypes();
  const ThreeBodyTables made = tabulate_three_body(model_, types, table_tolerance(sizeof(Real<T>) == 4));
  reach_ = made.reach;
  tables_->start(made.tables.empty() ? 0 : nt, model_.three_body.ng, kTripleLanes);
  for (const ThreeBodyTable& m : made.tables) {
    const Table<Real<T>>* table = tables_->add(m.table);
    for (int a = 0; a < nt && m.a < 0; ++a) {
      for (int b = 0; b < nt; ++b) tables_->set(a, b, table);
    }
    if (m.a >= 0) tables_->set(m.a, m.b, table), tables_->set(m.b, m.a, table);
  }
}

// The same from a net that moves (node_tables.h).
template <class T>
void ThreeBodyStage<T>::follow_tables(const std::vector<char>& types, const Workspace& w) {
  const int nt = model_.ntypes();
  std::vector<TableRange> ranges = three_body_ranges(model_, types);
  reach_ = ranges.empty() ? 0 : ranges.front().upper;
  node_tables_->make(model_.three_body.net, model_.type_embedding, std::move(ranges), true, true, w);
  const bool any = !node_tables_->tables().empty() && !node_tables_->tables().front().table.empty();
  tables_->start(any ? nt : 0, model_.three_body.ng, kTripleLanes);
  for (const NodeTable& m : node_tables_->tables()) {
    if (!any) break;
    const Table<Real<T>>* table = tables_->add(m.table);
    for (int a = 0; a < nt && m.range.a < 0; ++a) {
      for (int b = 0; b < nt; ++b) tables_->set(a, b, table);
    }
    if (m.range.a >= 0) tables_->set(m.range.a, m.range.b, table), tables_->set(m.range.b, m.range.a, table);
  }
}

template <class T>
void ThreeBodyStage<T>::adopt_tables(const ThreeBodyStage<Real<T>>& plain) {
  reach_ = plain.reach_;
  table_gradient_->resize(tables_->units(), 2 * tables_->padded_channels());
}

// The three-body gate summed over both orders of two types, rows padded for the tables.
template <class T>
void ThreeBodyStage<T>::prepare_both() {
  const int nt = model_.ntypes(), ng = model_.three_body.ng, np = padded(ng, kTripleLanes);
  const std::vector<double>& gate = model_.three_body.strip_table.data;
  Weights<T>& out = both_;
  out.resize(static_cast<std::size_t>(nt) * nt * np);
  out.zero(0, out.size());
  for (std::size_t a = 0; a < static_cast<std::size_t>(nt); ++a) {
    for (std::size_t b = 0; b < static_cast<std::size_t>(nt); ++b) {
      for (int c = 0; c < ng; ++c)
        out[(a * nt + b) * np + c] = Real<T>(gate[(a * nt + b) * ng + c] + gate[(b * nt + a) * ng + c]);
    }
  }
}

// ---- from tables: c g(c) of every unordered pair (j, k), looked up a row j at a time

template <class T>
bool ThreeBodyStage<T>::in_reach(const Atom& s) const {
  if (tables_->empty()) return false;
  Real<T> longest = 0;
  for (int j = 0; j < s.n; ++j) {
    const T* e = s.em + 4 * j;
    longest = std::max(longest, value_of(e[1] * e[1] + e[2] * e[2] + e[3] * e[3]));
  }
  return longest <= Real<T>(reach_);
}

template <class T>
void ThreeBodyStage<T>::row_buffers(const Atom& s, Arena& arena, Row* row) const {
  const int np = row->np = padded(s.n, lanes<T>());
  row->direction = arena.zeros<T>(3 * static_cast<std::size_t>(np));
  for (int k = 0; k < s.n; ++k) {
    for (int x = 0; x < 3; ++x) row->direction[x * np + k] = s.em[4 * k + 1 + x];
  }
  row->cell = arena.take<int>(np);
  row->value = arena.take<T>(5 * static_cast<std::size_t>(np));
  row->slope = arena.take<T>(5 * static_cast<std::size_t>(np));
}

template <class T>
template <bool VALUES, bool SLOPES>
void ThreeBodyStage<T>::places(const Atom& s, int j, Row* row) const {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  const Table<Real<T>>& any = *(*tables_)(s.type[0], s.type[0]);  // all have the same cells
  const int np = row->np;
  const T *x = row->direction, *y = x + np, *z = y + np;
  for (int k = j / W * W; k < np; k += W) {
    const V c = x[j] * load<W>(x + k) + y[j] * load<W>(y + k) + z[j] * load<W>(z + k);
    place_lanes<VALUES, SLOPES>(any, c, np, row->cell + k, row->value + k, row->slope + k);
  }
}

// The node of triple (j, k) in its table, and its weights gathered from the row.
template <class T>
const Real<T>* ThreeBodyStage<T>::node(const Atom& s, const Row& row, int j, int k, const T* from,
                                       T* w) const {
  for (int q = 0; q < 5; ++q) w[q] = from[q * row.np + k];
  const Table<Real<T>>& table = *(*tables_)(s.type[j], s.type[k]);
  return table.node.data() + static_cast<std::size_t>(row.cell[k]) * 4 * tables_->padded_channels();
}

template <class T>
template <bool STRIP>
void ThreeBodyStage<T>::looked_up(const Atom& s, T* out, Arena& arena) const {
  constexpr int W = kTripleLanes;
  using V = typename Vector<T, W>::type;
  const int ng = model_.three_body.ng, np = tables_->padded_channels();
  const Real<T> factor = norm();
  Row row;
  row_buffers(s, arena, &row);
  T* sum = arena.zeros<T>(np);
  for (int j = 0; j < s.n; ++j) {
    places<true, false>(s, j, &row);
    for (int m = 0; m < np; m += W) {
      V total{};
      for (int k = j; k < s.n; ++k) {
        T w[5];
        const T* at = node(s, row, j, k, row.value, w) + m;
        V g = table_value<W>(at, at + 6 * np, np, w);
        if constexpr (STRIP)
          g *= T(2) + *reinterpret_cast<const V*>(both(s.type[j], s.type[k]) + m) * opening(s, j, k);
        total += k == j ? T(0.5) * g : g;
      }
      *reinterpret_cast<V*>(sum + m) += total;
    }
  }
  for (int m = 0; m < ng; ++m) out[m] = factor * sum[m];
}

// Adds to d em and d sw.
template <class T>
template <bool STRIP>
void ThreeBodyStage<T>::looked_up_backward(const Atom& s, const T* dout, Arena& arena) const {
  constexpr int W = kTripleLanes;
  using V = typename Vector<T, W>::type;
  const int ng = model_.three_body.ng, np = tables_->padded_channels();
  const Real<T> factor = norm();
  Row row;
  row_buffers(s, arena, &row);
  T* d = arena.zeros<T>(np);
  for (int m = 0; m < ng; ++m) d[m] = factor * dout[m];
  T* dc = arena.take<T>(row.np + 4);
  T* dopening = arena.take<T>(row.np + 4);
  T* ddirection = arena.zeros<T>(3 * static_cast<std::size_t>(row.np));
  T* dsw = s.dsw;
  const T* sw = s.sw;
  for (int j = 0; j < s.n; ++j) {
    places<STRIP, true>(s, j, &row);
    // the triple's vector to be summed, and in strip mode its gate's
    const auto slope_of = [&](int k, V* dopen) {
      V total{};
      T w[5], ws[5];
      const T* at = node(s, row, j, k, row.slope, ws);
      for (int m = 0; m < np; m += W) {
        const V dm = *reinterpret_cast<const V*>(d + m);
        V slope = table_slope<W>(at + m, at + m + 6 * np, np, ws);
        if constexpr (STRIP) {
          node(s, row, j, k, row.value, w);
          const V gates = *reinterpret_cast<const V*>(both(s.type[j], s.type[k]) + m);
          *dopen += dm * gates * table_value<W>(at + m, at + m + 6 * np, np, w);
          slope *= T(2) + gates * opening(s, j, k);
        }
        total += dm * slope;
      }
      return total;
    };
    for (int k = j; k < s.n; k += 4) {  // four at a time; what lies beyond the last is not read again
      V slope[4], dopen[4] = {};
      for (int q = 0; q < 4; ++q) slope[q] = slope_of(std::min(k + q, s.n - 1), &dopen[q]);
      sum_four<T, W>(slope, dc + k);
      if constexpr (STRIP) sum_four<T, W>(dopen, dopening + k);
    }
    dc[j] *= T(0.5);
    if constexpr (STRIP) dopening[j] *= T(0.5);
    for (int x = 0; x < 3; ++x) {
      const T* e = row.direction + x * row.np;
      T* de = ddirection + x * row.np;
      const T own = dot(s.n - j, dc + j, e + j);
      axpy(s.n - j, e[j], dc + j, de + j);
      de[j] += own;
    }
    if (STRIP && model_.smooth) {
      const T own = dot(s.n - j, dopening + j, sw + j);
      axpy(s.n - j, sw[j], dopening + j, dsw + j);
      dsw[j] += own;
    }
  }
  T* dem = s.dem;
  for (int k = 0; k < s.n; ++k) {
    for (int x = 0; x < 3; ++x) dem[4 * k + 1 + x] += ddirection[x * row.np + k];
  }
}

// Strip mode: T(t_j, t_k) + T(t_k, t_j), (padded ng).
template <class T>
const Real<T>* ThreeBodyStage<T>::both(int a, int b) const {
  const std::size_t row = static_cast<std::size_t>(a) * model_.ntypes() + b;
  return both_.data() + row * tables_->padded_channels();
}

// ---- dual numbers: the weights of all triples are added up for every row of the tables, which then meet the
// channels once. The reverse sweep adds the same weights times d out to the gradients of the rows.

// (sets, tables' units, 2): of triples; in strip mode, after that, of those of every pair of types, opened.
template <class T>
struct ThreeBodyStage<T>::RowWeights {
  int rows, sets;
  T* of;                      // (sets, rows)
  const std::int32_t *a, *b;  // (sets - 1) types
};

template <class T>
typename ThreeBodyStage<T>::RowWeights ThreeBodyStage<T>::row_weights(const Atom& s, Arena& arena) const {
  const bool strip = model_.three_body.strip;
  const int nt = model_.ntypes();
  RowWeights w;
  w.rows = 2 * tables_->units(), w.sets = 1;
  std::int32_t *a = arena.take<std::int32_t>(strip ? s.n * s.n : 0),
               *b = arena.take<std::int32_t>(strip ? s.n * s.n : 0);
  int* set_of = arena.zeros<int>(strip ? nt * nt : 0);
  for (int j = 0; j < s.n && strip; ++j) {
    for (int k = j; k < s.n; ++k) {
      const int x = std::min(s.type[j], s.type[k]), y = std::max(s.type[j], s.type[k]);
      if (set_of[x * nt + y]) continue;
      a[w.sets - 1] = x, b[w.sets - 1] = y;
      set_of[x * nt + y] = set_of[y * nt + x] = w.sets++;
    }
  }
  w.a = a, w.b = b;
  w.of = arena.zeros<T>(static_cast<std::size_t>(w.sets) * w.rows);
  Row row;
  row_buffers(s, arena, &row);
  const auto add = [&](T* to, const T* x, T count) {  // a node's rows and the next's
    to[0] += count, to[1] += count * x[0], to[2] += count * x[1], to[3] += count * x[2];
    to[6] += count * x[3], to[7] += count * x[4];
  };
  for (int j = 0; j < s.n; ++j) {
    places<true, false>(s, j, &row);
    for (int k = j; k < s.n; ++k) {
      T x[5];
      for (int q = 0; q < 5; ++q) x[q] = row.value[q * row.np + k];
      const std::size_t first = 2 * (*tables_)(s.type[j], s.type[k])->first_unit + 4 * row.cell[k];
      const T half = T(k == j ? 0.5 : 1.0);
      add(w.of + first, x, strip ? half + half : half);
      if (strip)
        add(w.of + static_cast<std::size_t>(set_of[s.type[j] * nt + s.type[k]]) * w.rows + first, x,
            half * opening(s, j, k));
    }
  }
  return w;
}

template <class T>
void ThreeBodyStage<T>::from_rows(const Atom& s, T* out, Arena& arena) const {
  constexpr int W = kTripleLanes;
  using V = typename Vector<T, W>::type;
  const int ng = model_.three_body.ng, np = tables_->padded_channels();
  const RowWeights w = row_weights(s, arena);
  T* sum = arena.zeros<T>(np);
  for (int m = 0; m < np; m += W) {
    for (int set = 0; set < w.sets; ++set) {
      V part{};
      each_row(w.of + static_cast<std::size_t>(set) * w.rows,
               [&](const T& x, const Real<T>* node, int) { part += load<W>(node + m) * x; });
      add<W>(sum + m, set == 0 ? part : part * load<W>(both(w.a[set - 1], w.b[set - 1]) + m));
    }
  }
  for (int m = 0; m < ng; ++m) out[m] = norm() * sum[m];
}

template <class T>
void ThreeBodyStage<T>::add_row_gradients(const Atom& s, int group, const T* dout, Arena& arena) const {
  constexpr int W = kTripleLanes;
  using V = typename Vector<T, W>::type;
  const int ng = model_.three_body.ng, np = tables_->padded_channels(), nt = model_.ntypes();
  const RowWeights w = row_weights(s, arena);
  T* d = arena.zeros<T>(np);
  for (int m = 0; m < ng; ++m) d[m] = norm() * dout[m];
  for (int m = 0; m < np; m += W) {
    for (int set = 0; set < w.sets; ++set) {
      const T* weight = w.of + static_cast<std::size_t>(set) * w.rows;
      const V dm = load<W>(d + m), open = set == 0 ? dm : dm * load<W>(both(w.a[set - 1], w.b[set - 1]) + m);
      V gated{};
      Real<T>* sum = table_gradient_->of(group, 0) + m;
      each_row(weight, [&](const T& x, const Real<T>* node, int row) {
        store<W>(sum + row * np, load<W>(sum + row * np) + tangent_of(open * x));
        if (set > 0) gated += load<W>(node + m) * x;
      });
      if (set == 0) continue;
      const auto dboth = tangent_of(gated * dm);
      const int a = w.a[set - 1], b = w.b[set - 1];
      for (int lane = 0; lane < std::min(W, ng - m); ++lane) {
        double* gate = gate_gradient_->of(group) + m + lane;
        gate[static_cast<std::size_t>(a * nt + b) * ng] += double(dboth[lane]);
        gate[static_cast<std::size_t>(b * nt + a) * ng] += double(dboth[lane]);
      }
    }
  }
}

// Calls f(weight, channels, row) for the rows of all tables that have a weight.
template <class T>
template <class F>
void ThreeBodyStage<T>::each_row(const T* weight, const F& f) const {
  const int np = tables_->padded_channels();
  int row = 0;
  tables_->each([&](const Table<Real<T>>& t) {
    for (int k = 0; k < 4 * (t.cells + 1); ++k, ++row) {
      if (value_of(weight[row]) != 0 || tangent_of(weight[row]) != 0)
        f(weight[row], t.node.data() + static_cast<std::size_t>(k) * np, row);
    }
  });
}

// ---- whichever

template <class T>
void ThreeBodyStage<T>::from_tables(const Atom& s, T* out, Arena& arena) const {
  if constexpr (is_dual<T>) {
    from_rows(s, out, arena);
  } else {
    model_.three_body.strip ? looked_up<true>(s, out, arena) : looked_up<false>(s, out, arena);
  }
}
template <class T>
void ThreeBodyStage<T>::from_tables_backward(const Atom& s, [[maybe_unused]] int group, const T* dout,
                                             Arena& arena) const {
  if constexpr (is_dual<T>) {
    add_row_gradients(s, group, dout, arena);
  } else {
    model_.three_body.strip ? looked_up_backward<true>(s, dout, arena)
                            : looked_up_backward<false>(s, dout, arena);
  }
}
template <class T>
void ThreeBodyStage<T>::add_table_gradient(Model* gradient, const Workspace& w) const {
  if (!table_gradient_ || tables_->empty()) return;
  node_tables_->add_gradient(model_.three_body.net, model_.type_embedding, table_gradient_->total,
                             tables_->padded_channels(), &gradient->three_body.net, &gradient->type_embedding,
                             w);
}

#define DPA2MD_INSTANTIATE(T)                                                                      \
  template void ThreeBodyStage<T>::build_tables(const std::vector<char>&);                         \
  template void ThreeBodyStage<T>::follow_tables(const std::vector<char>&, const Workspace&);      \
  template void ThreeBodyStage<T>::adopt_tables(const ThreeBodyStage<Real<T>>&);                   \
  template void ThreeBodyStage<T>::prepare_both();                                                 \
  template bool ThreeBodyStage<T>::in_reach(const Atom&) const;                                    \
  template void ThreeBodyStage<T>::from_tables(const Atom&, T*, Arena&) const;                     \
  template void ThreeBodyStage<T>::from_tables_backward(const Atom&, int, const T*, Arena&) const; \
  template void ThreeBodyStage<T>::add_table_gradient(Model*, const Workspace&) const;
DPA2MD_INSTANTIATE(float)
DPA2MD_INSTANTIATE(double)
DPA2MD_INSTANTIATE(Dual<float>)
DPA2MD_INSTANTIATE(Dual<double>)

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
