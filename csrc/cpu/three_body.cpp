// Three-body repinit, forward and backward:
//   c_jk = em_j[1:4] . em_k[1:4]      g1_b[m] = sum_jk c_jk g(c_jk, t_j, t_k)[m] / nsel^2
// over all ordered pairs of neighbours, j = k too; a few neighbours j against all k at a time, in one row of
// columns (j, k), so that the small nets work on long vectors.
#include <algorithm>

#include "cpu_backend.h"

namespace dpa2md {
namespace DPA2MD_ISA {

namespace {
constexpr int kColumns = 256;  // about as many columns as keep the nets' arrays in the first-level cache
}

template <class T>
struct CpuBackend<T>::TripleState {
  int n;                     // neighbours of the atom
  std::int64_t q0;           // first pair in the three-body prefix
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
  s->q0 = pairs().three_body.first[i];
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
  const int ng = model_.three_body.ng, nt = model_.ntypes();
  const T* sw = env_three_.sw.data() + s->q0;
  s->gate = arena.zeros<T>(static_cast<std::size_t>(ng) * s->ld);
  s->factor = arena.zeros<T>(s->ld);
  for (int column = 0; column < s->columns; ++column) {
    const int j = s->j0 + column / s->n, k = column % s->n;
    const T* gate = w_three_.gate.data() + (static_cast<std::size_t>(s->type[j]) * nt + s->type[k]) * ng;
    for (int m = 0; m < ng; ++m) s->gate[m * s->ld + column] = gate[m];
    s->factor[column] = model_.smooth ? sw[j] * sw[k] : T(1);
  }
}

template <class T>
void CpuBackend<T>::three_body(Range range) {
  const Embedding& e = model_.three_body;
  const T norm = T(1.0 / (static_cast<double>(e.nsel) * e.nsel));
  for (int i = range.begin; i < range.end; ++i) {
    Arena& a = arena();
    T* out = rep_out_.data() + static_cast<std::size_t>(i + 1) * repinit_width_ - e.ng;
    std::fill(out, out + e.ng, T(0));
    TripleState s;
    triples_atom(i, &s);
    for (int j = 0; j < s.n; j += s.rows) {
      Arena::Scope scope(a);
      triples_block(j, a, false, &s);
      for (int m = 0; m < e.ng; ++m) {
        const T* g = s.raw + m * s.ld;
        T sum = dot(s.ld, s.x, g);  // c = 0 in the padding
        for (int k = 0; e.strip && k < s.columns; ++k)
          sum += s.x[k] * g[k] * s.gate[m * s.ld + k] * s.factor[k];
        out[m] += sum * norm;
      }
    }
  }
}

template <class T>
void CpuBackend<T>::three_body_backward(Range range) {
  for (int i = range.begin; i < range.end; ++i) {
    TripleState s;
    triples_atom(i, &s);
    std::fill_n(env_three_.dem.data() + 4 * s.q0, 4 * s.n, T(0));
    std::fill_n(env_three_.dsw.data() + s.q0, s.n, T(0));
    for (int j = 0; j < s.n; j += s.rows) {
      Arena::Scope scope(arena());
      triples_block(j, arena(), true, &s);
      triples_backward(
          drep_out_.data() + static_cast<std::size_t>(i + 1) * repinit_width_ - model_.three_body.ng, &s,
          arena());
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
