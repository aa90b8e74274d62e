// Three-body repinit, forward and backward:
//   c_jk = em_j[1:4] . em_k[1:4]      g1_b[m] = sum_jk c_jk g(c_jk, t_j, t_k)[m] / nsel^2
// over all ordered pairs of neighbours, j = k too; a few neighbours j against all k at a time, in one row of
// columns (j, k), so that the small nets work on long vectors.
#include <algorithm>

#include "cpu/cpu_backend.h"
#include "cpu/vector/lanes.h"

namespace dpa2md {
namespace DPA2MD_ISA {

namespace {
constexpr int kColumns = 256;  // about as many columns as keep the nets' arrays in the first-level cache
}

template <class T>
struct CpuBackend<T>::TripleState {
  int n;                     // neighbours of the atom
  std::size_t q0;            // first row in env_three_
  const T* em;               // (n, 4)
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
void CpuBackend<T>::triples_atom(int i, TripleState* s) {
  s->n = pairs().three_body.count[i];
  s->q0 = env_row(env_three_, i);
  s->em = env_three_.em.data() + 4 * s->q0;
  s->type = pairs().type.data() + pairs().repinit.first[i];
}

// g(c_jk) for the block of neighbours that begins with j0.
template <class T>
void CpuBackend<T>::triples_block(int j0, Arena& arena, bool tape, TripleState* s) {
  const Embedding& e = model_.three_body;
  const int n = s->n, tebd = e.strip ? 0 : model_.tebd_dim();
  s->j0 = j0;
  s->rows = std::min(std::max(1, kColumns / n), n - j0);
  s->columns = s->rows * n;
  const int ld = s->ld = padded(s->columns, lanes<T>());
  s->x = arena.zeros<T>(static_cast<std::size_t>(1 + 2 * tebd) * ld);
  for (int j = j0, column = 0; j < j0 + s->rows; ++j) {
    const T* ej = s->em + 4 * j;
    const T* tj = types_.data() + s->type[j] * tebd;
    for (int k = 0; k < n; ++k, ++column) {
      const T* ek = s->em + 4 * k;
      const T* tk = types_.data() + s->type[k] * tebd;
      s->x[column] = ej[1] * ek[1] + ej[2] * ek[2] + ej[3] * ek[3];
      for (int c = 0; c < tebd; ++c) {
        s->x[(1 + c) * ld + column] = tj[c];
        s->x[(1 + tebd + c) * ld + column] = tk[c];
      }
    }
  }
  s->raw = w_three_.net.forward(s->x, ld, arena, tape ? &s->tape : nullptr);
  if (e.strip) triples_gate(arena, s);
}

template <class T>
void CpuBackend<T>::triples_gate(Arena& arena, TripleState* s) {
  const int ng = model_.three_body.ng, np = padded(ng, lanes<T>()), nt = model_.ntypes();
  const T* sw = env_three_.sw.data() + s->q0;
  s->gate = arena.zeros<T>(static_cast<std::size_t>(ng) * s->ld);
  s->factor = arena.zeros<T>(s->ld);
  for (int column = 0; column < s->columns; ++column) {
    const int j = s->j0 + column / s->n, k = column % s->n;
    const T* gate = w_three_.gate.data() + (static_cast<std::size_t>(s->type[j]) * nt + s->type[k]) * np;
    for (int m = 0; m < ng; ++m) s->gate[m * s->ld + column] = gate[m];
    s->factor[column] = model_.smooth ? sw[j] * sw[k] : T(1);
  }
}

// ---- from tables: c g(c) of every unordered pair (j, k), looked up a row j at a time

// A row of triples: neighbour j with the neighbours k >= j.
template <class T>
struct CpuBackend<T>::TripleRow {
  int np;            // n padded to the vector length
  T* direction;      // (3, np) em[1:4], transposed
  int* cell;         // (np)
  T *value, *slope;  // (5, np) weights
};

template <class T>
bool CpuBackend<T>::triples_in_reach(const TripleState& s) const {
  if (w_three_.tables.empty()) return false;
  T longest = 0;
  for (int j = 0; j < s.n; ++j) {
    const T* e = s.em + 4 * j;
    longest = std::max(longest, e[1] * e[1] + e[2] * e[2] + e[3] * e[3]);
  }
  return longest <= T(reach_);
}

template <class T>
void CpuBackend<T>::triples_row_buffers(const TripleState& s, Arena& arena, TripleRow* row) {
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
void CpuBackend<T>::triples_row(const TripleState& s, int j, TripleRow* row) {
  constexpr int W = lanes<T>();
  using V = typename Vector<T, W>::type;
  const Table<T>& any = *w_three_.tables(s.type[0], s.type[0]);  // all have the same cells
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
const T* CpuBackend<T>::triples_node(const TripleState& s, const TripleRow& row, int j, int k, const T* from,
                                     T* w) const {
  for (int q = 0; q < 5; ++q) w[q] = from[q * row.np + k];
  const Table<T>& table = *w_three_.tables(s.type[j], s.type[k]);
  return table.node.data() + static_cast<std::size_t>(row.cell[k]) * 4 * w_three_.tables.padded_channels();
}

template <class T>
template <bool STRIP>
void CpuBackend<T>::three_body_tables(const TripleState& s, T* out, Arena& arena) {
  constexpr int W = kTripleLanes;
  using V = typename Vector<T, W>::type;
  const int ng = model_.three_body.ng, np = w_three_.tables.padded_channels();
  const T norm = T(1.0 / (static_cast<double>(model_.three_body.nsel) * model_.three_body.nsel));
  TripleRow row;
  triples_row_buffers(s, arena, &row);
  T* sum = arena.zeros<T>(np);
  for (int j = 0; j < s.n; ++j) {
    triples_row<true, false>(s, j, &row);
    for (int m = 0; m < np; m += W) {
      V total{};
      for (int k = j; k < s.n; ++k) {
        T w[5];
        const T* node = triples_node(s, row, j, k, row.value, w) + m;
        V g = table_value<W>(node, node + 6 * np, np, w);
        if constexpr (STRIP)
          g *= T(2) + *reinterpret_cast<const V*>(triples_both(s, j, k) + m) * triples_opening(s, j, k);
        total += k == j ? T(0.5) * g : g;
      }
      *reinterpret_cast<V*>(sum + m) += total;
    }
  }
  for (int m = 0; m < ng; ++m) out[m] = norm * sum[m];
}

// Adds to d em and d sw.
template <class T>
template <bool STRIP>
void CpuBackend<T>::three_body_tables_backward(const TripleState& s, const T* dout, Arena& arena) {
  constexpr int W = kTripleLanes;
  using V = typename Vector<T, W>::type;
  const int ng = model_.three_body.ng, np = w_three_.tables.padded_channels();
  const T norm = T(1.0 / (static_cast<double>(model_.three_body.nsel) * model_.three_body.nsel));
  TripleRow row;
  triples_row_buffers(s, arena, &row);
  T* d = arena.zeros<T>(np);
  for (int m = 0; m < ng; ++m) d[m] = norm * dout[m];
  T* dc = arena.take<T>(row.np + 4);
  T* dopening = arena.take<T>(row.np + 4);
  T* ddirection = arena.zeros<T>(3 * static_cast<std::size_t>(row.np));
  T* dsw = env_three_.dsw.data() + s.q0;
  const T* sw = env_three_.sw.data() + s.q0;
  for (int j = 0; j < s.n; ++j) {
    triples_row<STRIP, true>(s, j, &row);
    // the triple's vector to be summed, and in strip mode its gate's
    const auto slope_of = [&](int k, V* opening) {
      V total{};
      T w[5], ws[5];
      const T* node = triples_node(s, row, j, k, row.slope, ws);
      for (int m = 0; m < np; m += W) {
        const V dm = *reinterpret_cast<const V*>(d + m);
        V slope = table_slope<W>(node + m, node + m + 6 * np, np, ws);
        if constexpr (STRIP) {
          triples_node(s, row, j, k, row.value, w);
          const V both = *reinterpret_cast<const V*>(triples_both(s, j, k) + m);
          *opening += dm * both * table_value<W>(node + m, node + m + 6 * np, np, w);
          slope *= T(2) + both * triples_opening(s, j, k);
        }
        total += dm * slope;
      }
      return total;
    };
    for (int k = j; k < s.n; k += 4) {  // four at a time; what lies beyond the last is not read again
      V slope[4], opening[4] = {};
      for (int q = 0; q < 4; ++q) slope[q] = slope_of(std::min(k + q, s.n - 1), &opening[q]);
      sum_four<T, W>(slope, dc + k);
      if constexpr (STRIP) sum_four<T, W>(opening, dopening + k);
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
  T* dem = env_three_.dem.data() + 4 * s.q0;
  for (int k = 0; k < s.n; ++k) {
    for (int x = 0; x < 3; ++x) dem[4 * k + 1 + x] += ddirection[x * row.np + k];
  }
}

// Strip mode: T(t_j, t_k) + T(t_k, t_j), (padded ng), and how far it opens the gate.
template <class T>
const T* CpuBackend<T>::triples_both(const TripleState& s, int j, int k) const {
  const std::size_t row = static_cast<std::size_t>(s.type[j]) * model_.ntypes() + s.type[k];
  return w_three_.both.data() + row * w_three_.tables.padded_channels();
}
template <class T>
T CpuBackend<T>::triples_opening(const TripleState& s, int j, int k) const {
  const T* sw = env_three_.sw.data() + s.q0;
  return model_.smooth ? sw[j] * sw[k] : T(1);
}

// ---- the stage

template <class T>
void CpuBackend<T>::three_body_net(TripleState* s, T* out, Arena& arena) {
  const Embedding& e = model_.three_body;
  const T norm = T(1.0 / (static_cast<double>(e.nsel) * e.nsel));
  std::fill(out, out + e.ng, T(0));
  for (int j = 0; j < s->n; j += s->rows) {
    Arena::Scope scope(arena);
    triples_block(j, arena, false, s);
    for (int m = 0; m < e.ng; ++m) {
      const T* g = s->raw + m * s->ld;
      T sum = dot(s->ld, s->x, g);  // c = 0 in the padding
      for (int k = 0; e.strip && k < s->columns; ++k)
        sum += s->x[k] * g[k] * s->gate[m * s->ld + k] * s->factor[k];
      out[m] += sum * norm;
    }
  }
}

template <class T>
void CpuBackend<T>::three_body(Range range) {
  const Embedding& e = model_.three_body;
  Arena& a = arena();
  for (int i = range.begin; i < range.end; ++i) {
    Arena::Scope scope(a);
    T* out = rep_out(i) + repinit_width_ - e.ng;
    TripleState s;
    triples_atom(i, &s);
    if (!triples_in_reach(s)) {
      three_body_net(&s, out, a);
    } else {
      e.strip ? three_body_tables<true>(s, out, a) : three_body_tables<false>(s, out, a);
    }
  }
}

template <class T>
void CpuBackend<T>::three_body_backward(Range range) {
  const Embedding& e = model_.three_body;
  Arena& a = arena();
  env_mat_block(env_three_, range);  // other blocks have been here since
  for (int i = range.begin; i < range.end; ++i) {
    Arena::Scope scope(a);
    TripleState s;
    triples_atom(i, &s);
    std::fill_n(env_three_.dem.data() + 4 * s.q0, 4 * s.n, T(0));
    std::fill_n(env_three_.dsw.data() + s.q0, s.n, T(0));
    const T* dout = drep_out(i) + repinit_width_ - e.ng;
    if (triples_in_reach(s)) {
      e.strip ? three_body_tables_backward<true>(s, dout, a) : three_body_tables_backward<false>(s, dout, a);
      continue;
    }
    for (int j = 0; j < s.n; j += s.rows) {
      Arena::Scope block(a);
      triples_block(j, a, true, &s);
      triples_backward(dout, &s, a);
    }
  }
}

// Adds the block's share to d em and d sw; dout (ng) is the gradient of g1_b.
template <class T>
void CpuBackend<T>::triples_backward(const T* dout, TripleState* s, Arena& arena) {
  const Embedding& e = model_.three_body;
  const T norm = T(1.0 / (static_cast<double>(e.nsel) * e.nsel));
  T* dc = arena.zeros<T>(s->ld);
  T* dfactor = arena.zeros<T>(s->ld);
  T* dg = arena.take<T>(static_cast<std::size_t>(e.ng) * s->ld);
  for (int m = 0; m < e.ng; ++m) {
    const T d = dout[m] * norm;
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
  const T* dx = w_three_.net.backward(dg, s->ld, s->tape, 1, arena);
  T* dem = env_three_.dem.data() + 4 * s->q0;
  T* dsw = env_three_.dsw.data() + s->q0;
  const T* sw = env_three_.sw.data() + s->q0;
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

#define DPA2MD_INSTANTIATE(T)                     \
  template void CpuBackend<T>::three_body(Range); \
  template void CpuBackend<T>::three_body_backward(Range);
DPA2MD_INSTANTIATE(float)
DPA2MD_INSTANTIATE(double)

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
