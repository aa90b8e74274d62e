#include "cpu/stages/three_body.h"

#include <algorithm>

#include "cpu/vector/lanes.h"
#include "model/embedding_tables.h"

namespace dpa2md {
namespace DPA2MD_ISA {

namespace {
constexpr int kColumns = 256;  // about as many columns as keep the nets' arrays in the first-level cache

// The three-body gate summed over both orders of two types, rows padded for the tables.
template <class T>
Weights<T> both_orders(const Model& m) {
  const int nt = m.ntypes(), ng = m.three_body.ng, np = padded(ng, kTripleLanes);
  const std::vector<double>& gate = m.three_body.strip_table.data;
  Weights<T> out;
  out.resize(static_cast<std::size_t>(nt) * nt * np);
  out.zero(0, out.size());
  for (std::size_t a = 0; a < static_cast<std::size_t>(nt); ++a) {
    for (std::size_t b = 0; b < static_cast<std::size_t>(nt); ++b) {
      for (int c = 0; c < ng; ++c)
        out[(a * nt + b) * np + c] = Real<T>(gate[(a * nt + b) * ng + c] + gate[(b * nt + a) * ng + c]);
    }
  }
  return out;
}

}  // namespace

template <class T>
struct ThreeBodyStage<T>::Atom {
  int n;                     // neighbours
  const T *em, *sw;          // (n, 4), (n)
  T *dem, *dsw;              // their gradients; null without a reverse sweep
  const std::int32_t* type;  // (n)
  // of the neighbours j0 ... j0 + rows - 1, column (j - j0) n + k:
  int j0, rows, columns, ld;
  T* x;                 // net input (1 [+ 2 tebd], ld); row 0 is c_jk
  T* raw;               // (ng, ld)
  T* gate = nullptr;    // (ng, ld) T(t_j, t_k), strip only
  T* factor = nullptr;  // (ld) sw_j sw_k or 1: what multiplies the gate
  typename NetWeights<T>::Tape tape;
};

template <class T>
ThreeBodyStage<T>::ThreeBodyStage(const Model& m, const Weights<T>& types, Gradients<Real<T>>* gradients)
    : model_(m), types_(types) {
  prepare();
  if (!m.has_three_body || !gradients) return;
  const Embedding& e = m.three_body;
  net_gradient_.prepare(e.net, false, gradients);
  (e.strip ? gate_gradient_ : types_gradient_) =
      gradients->sums(e.strip ? e.strip_table.data.size() : m.type_embedding.data.size());
}

template <class T>
void ThreeBodyStage<T>::prepare() {
  if (!model_.has_three_body) return;
  const Embedding& e = model_.three_body;
  if (!e.net.empty()) net_.prepare(e.net);
  gate_ = cast_padded<T>(e.strip_table, e.ng);
  if (e.strip) both_ = both_orders<T>(model_);
}

template <class T>
void ThreeBodyStage<T>::add_gradient(Model* gradient) const {
  net_gradient_.add_gradient(&gradient->three_body.net);
  if (gate_gradient_) add_to(gate_gradient_->total, &gradient->three_body.strip_table);
  if (types_gradient_) add_to(types_gradient_->total, &gradient->type_embedding);
}

template <class T>
void ThreeBodyStage<T>::build_tables(const std::vector<char>& types) {
  const int nt = model_.ntypes();
  const ThreeBodyTables made = tabulate_three_body(model_, types, table_tolerance(sizeof(Real<T>) == 4));
  reach_ = made.reach;
  tables_.start(made.tables.empty() ? 0 : nt, model_.three_body.ng, kTripleLanes);
  for (const ThreeBodyTable& m : made.tables) {
    const Table<Real<T>>* table = tables_.add(m.table);
    for (int a = 0; a < nt && m.a < 0; ++a) {
      for (int b = 0; b < nt; ++b) tables_.set(a, b, table);
    }
    if (m.a >= 0) tables_.set(m.a, m.b, table), tables_.set(m.b, m.a, table);
  }
}

template <class T>
typename ThreeBodyStage<T>::Atom ThreeBodyStage<T>::atom(const Workspace& w, const Env<T>& env, int i) const {
  const std::size_t q0 = env.row(w, i);
  Atom s;
  s.n = w.pairs().three_body.count[i];
  s.em = env.em.data() + 4 * q0, s.sw = env.sw.data() + q0;
  s.dem = s.dsw = nullptr;
  s.type = w.pairs().type.data() + w.pairs().repinit.first[i];
  return s;
}

// g(c_jk) for the block of neighbours that begins with j0.
template <class T>
void ThreeBodyStage<T>::block(int j0, Arena& arena, bool tape, Atom* s) const {
  const Embedding& e = model_.three_body;
  const int n = s->n, tebd = e.strip ? 0 : model_.tebd_dim();
  s->j0 = j0;
  s->rows = std::min(std::max(1, kColumns / n), n - j0);
  s->columns = s->rows * n;
  const int ld = s->ld = padded(s->columns, lanes<T>());
  s->x = arena.zeros<T>(static_cast<std::size_t>(1 + 2 * tebd) * ld);
  for (int j = j0, column = 0; j < j0 + s->rows; ++j) {
    const T* ej = s->em + 4 * j;
    const Real<T>* tj = types_.data() + s->type[j] * tebd;
    for (int k = 0; k < n; ++k, ++column) {
      const T* ek = s->em + 4 * k;
      const Real<T>* tk = types_.data() + s->type[k] * tebd;
      s->x[column] = ej[1] * ek[1] + ej[2] * ek[2] + ej[3] * ek[3];
      for (int c = 0; c < tebd; ++c) {
        s->x[(1 + c) * ld + column] = T(tj[c]);
        s->x[(1 + tebd + c) * ld + column] = T(tk[c]);
      }
    }
  }
  s->raw = net_.forward(s->x, ld, arena, tape ? &s->tape : nullptr);
  if (e.strip) block_gate(arena, s);
}

template <class T>
void ThreeBodyStage<T>::block_gate(Arena& arena, Atom* s) const {
  const int ng = model_.three_body.ng, np = padded(ng, lanes<T>()), nt = model_.ntypes();
  const T* sw = s->sw;
  s->gate = arena.zeros<T>(static_cast<std::size_t>(ng) * s->ld);
  s->factor = arena.zeros<T>(s->ld);
  for (int column = 0; column < s->columns; ++column) {
    const int j = s->j0 + column / s->n, k = column % s->n;
    const Real<T>* gate = gate_.data() + (static_cast<std::size_t>(s->type[j]) * nt + s->type[k]) * np;
    for (int m = 0; m < ng; ++m) s->gate[m * s->ld + column] = T(gate[m]);
    s->factor[column] = model_.smooth ? sw[j] * sw[k] : T(1);
  }
}

// ---- from tables: c g(c) of every unordered pair (j, k), looked up a row j at a time

// A row of triples: neighbour j with the neighbours k >= j.
template <class T>
struct ThreeBodyStage<T>::Row {
  int np;            // n padded to the vector length
  T* direction;      // (3, np) em[1:4], transposed
  int* cell;         // (np)
  T *value, *slope;  // (5, np) weights
};

template <class T>
bool ThreeBodyStage<T>::in_reach(const Atom& s) const {
  if (tables_.empty() || is_dual<T>) return false;
  T longest(0);
  for (int j = 0; j < s.n; ++j) {
    const T* e = s.em + 4 * j;
    longest = std::max(longest, e[1] * e[1] + e[2] * e[2] + e[3] * e[3]);
  }
  return longest <= T(reach_);
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
  const Table<T>& any = *tables_(s.type[0], s.type[0]);  // all have the same cells
  const int np = row->np;
  const T *x = row->direction, *y = x + np, *z = y + np;
  const auto load = [](const T* p) { return *reinterpret_cast<const V*>(p); };
  for (int k = j / W * W; k < np; k += W) {
    const V c = x[j] * load(x + k) + y[j] * load(y + k) + z[j] * load(z + k);
    place_lanes<VALUES, SLOPES>(any, c, np, row->cell + k, row->value + k, row->slope + k);
  }
}

// The node of triple (j, k) in its table, and its weights gathered from the row.
template <class T>
const Real<T>* ThreeBodyStage<T>::node(const Atom& s, const Row& row, int j, int k, const T* from,
                                       T* w) const {
  for (int q = 0; q < 5; ++q) w[q] = from[q * row.np + k];
  const Table<Real<T>>& table = *tables_(s.type[j], s.type[k]);
  return table.node.data() + static_cast<std::size_t>(row.cell[k]) * 4 * tables_.padded_channels();
}

template <class T>
template <bool STRIP>
void ThreeBodyStage<T>::from_tables(const Atom& s, T* out, Arena& arena) const {
  constexpr int W = kTripleLanes;
  using V = typename Vector<T, W>::type;
  const int ng = model_.three_body.ng, np = tables_.padded_channels();
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
        if constexpr (STRIP) g *= T(2) + *reinterpret_cast<const V*>(both(s, j, k) + m) * opening(s, j, k);
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
void ThreeBodyStage<T>::from_tables_backward(const Atom& s, const T* dout, Arena& arena) const {
  constexpr int W = kTripleLanes;
  using V = typename Vector<T, W>::type;
  const int ng = model_.three_body.ng, np = tables_.padded_channels();
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
          const V gates = *reinterpret_cast<const V*>(both(s, j, k) + m);
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
const Real<T>* ThreeBodyStage<T>::both(const Atom& s, int j, int k) const {
  const std::size_t row = static_cast<std::size_t>(s.type[j]) * model_.ntypes() + s.type[k];
  return both_.data() + row * tables_.padded_channels();
}

// ---- the stage

template <class T>
void ThreeBodyStage<T>::net(Arena& arena, Atom* s, T* out) const {
  const Embedding& e = model_.three_body;
  const Real<T> factor = norm();
  std::fill(out, out + e.ng, T(0));
  for (int j = 0; j < s->n; j += s->rows) {
    Arena::Scope scope(arena);
    block(j, arena, false, s);
    for (int m = 0; m < e.ng; ++m) {
      const T* g = s->raw + m * s->ld;
      T sum = dot(s->ld, s->x, g);  // c = 0 in the padding
      for (int k = 0; e.strip && k < s->columns; ++k)
        sum += s->x[k] * g[k] * s->gate[m * s->ld + k] * s->factor[k];
      out[m] += sum * factor;
    }
  }
}

template <class T>
void ThreeBodyStage<T>::forward(const Workspace& w, const Env<T>& env, Range range, Rows<T> out) {
  Arena& a = w.arena();
  for (int i = range.begin; i < range.end; ++i) {
    Arena::Scope scope(a);
    T* to = out[i - range.begin];
    Atom s = atom(w, env, i);
    if (!in_reach(s)) {
      net(a, &s, to);
    } else if constexpr (!is_dual<T>) {
      model_.three_body.strip ? from_tables<true>(s, to, a) : from_tables<false>(s, to, a);
    }
  }
}

template <class T>
void ThreeBodyStage<T>::backward(const Workspace& w, Env<T>* env, Range range, Rows<T> dout) {
  Arena& a = w.arena();
  for (int i = range.begin; i < range.end; ++i) {
    Arena::Scope scope(a);
    Atom s = atom(w, *env, i);
    const std::size_t q0 = env->row(w, i);
    s.dem = env->dem.data() + 4 * q0, s.dsw = env->dsw.data() + q0;
    std::fill_n(s.dem, 4 * s.n, T(0));
    std::fill_n(s.dsw, s.n, T(0));
    const T* from = dout[i - range.begin];
    if constexpr (!is_dual<T>) {
      if (in_reach(s)) {
        model_.three_body.strip ? from_tables_backward<true>(s, from, a)
                                : from_tables_backward<false>(s, from, a);
        continue;
      }
    }
    for (int j = 0; j < s.n; j += s.rows) {
      Arena::Scope scope_of_block(a);
      block(j, a, true, &s);
      block_backward(from, w.group(i), &s, a);
    }
  }
}

// Adds the block's share to dem and dsw.
template <class T>
void ThreeBodyStage<T>::block_backward(const T* dout, [[maybe_unused]] int group, Atom* s,
                                       Arena& arena) const {
  const Embedding& e = model_.three_body;
  const Real<T> factor = norm();
  T* dc = arena.zeros<T>(s->ld);
  T* dfactor = arena.zeros<T>(s->ld);
  T* dg = arena.take<T>(static_cast<std::size_t>(e.ng) * s->ld);
  if constexpr (is_dual<T>) gate_backward(group, *s, dout);
  for (int m = 0; m < e.ng; ++m) {
    const T d = dout[m] * factor;
    const T* g = s->raw + m * s->ld;
    T* dgm = dg + m * s->ld;
    if (!e.strip) {
      for (int k = 0; k < s->ld; ++k) dc[k] += d * g[k], dgm[k] = d * s->x[k];
      continue;
    }
    const T* gate = s->gate + m * s->ld;
    for (int k = 0; k < s->ld; ++k) {
      const T open = T(1) + gate[k] * s->factor[k];
      dc[k] += d * g[k] * open;
      dgm[k] = d * s->x[k] * open;
      dfactor[k] += d * s->x[k] * g[k] * gate[k];
    }
  }
  if constexpr (is_dual<T>) {  // em and sw have no weights before them
    const typename NetWeights<T>::Gradient to{&net_gradient_, {}, group, s->columns};
    types_backward(group, *s, net_.backward(dg, s->ld, s->tape, e.strip ? 0 : e.net.in(), arena, to));
    return;
  }
  const T* dx = net_.backward(dg, s->ld, s->tape, 1, arena);
  T *dem = s->dem, *dsw = s->dsw;
  const T* sw = s->sw;
  for (int j = s->j0, column = 0; j < s->j0 + s->rows; ++j) {
    for (int k = 0; k < s->n; ++k, ++column) {
      const T d = dc[column] + dx[column];
      for (int c = 1; c < 4; ++c) {
        dem[4 * j + c] += d * s->em[4 * k + c];
        dem[4 * k + c] += d * s->em[4 * j + c];
      }
      if (e.strip && model_.smooth) {
        dsw[j] += dfactor[column] * sw[k];
        dsw[k] += dfactor[column] * sw[j];
      }
    }
  }
}

// T(t_j, t_k), which enters g as raw (1 + T factor).
template <class T>
void ThreeBodyStage<T>::gate_backward(int group, const Atom& s, const T* dout) const {
  const Embedding& e = model_.three_body;
  if (!e.strip) return;
  double* sum = gate_gradient_->of(group);
  for (int column = 0; column < s.columns; ++column) {
    const int j = s.j0 + column / s.n, k = column % s.n;
    double* to = sum + (static_cast<std::size_t>(s.type[j]) * model_.ntypes() + s.type[k]) * e.ng;
    const T factor = norm() * s.x[column] * s.factor[column];
    for (int m = 0; m < e.ng; ++m) to[m] += double(tangent_of(dout[m] * s.raw[m * s.ld + column] * factor));
  }
}

// The type embeddings, of dx (in, ld): what a concat net reads.
template <class T>
void ThreeBodyStage<T>::types_backward(int group, const Atom& s, const T* dx) const {
  if (model_.three_body.strip) return;
  const int tebd = model_.tebd_dim();
  double* sum = types_gradient_->of(group);
  for (int column = 0; column < s.columns; ++column) {
    double* first = sum + s.type[s.j0 + column / s.n] * tebd;
    double* second = sum + s.type[column % s.n] * tebd;
    for (int c = 0; c < tebd; ++c) {
      first[c] += double(tangent_of(dx[(1 + c) * s.ld + column]));
      second[c] += double(tangent_of(dx[(1 + tebd + c) * s.ld + column]));
    }
  }
}

template class ThreeBodyStage<float>;
template class ThreeBodyStage<double>;
template class ThreeBodyStage<Dual<float>>;
template class ThreeBodyStage<Dual<double>>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
