// Three-body repinit, forward and backward:
//   c_jk = em_j[1:4] . em_k[1:4]      g1_b[m] = sum_jk c_jk g(c_jk, t_j, t_k)[m] / nsel^2
// over all ordered pairs of neighbours, j = k too; one neighbour j against all k at a time.
#include <algorithm>

#include "cpu_backend.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
struct CpuBackend<T>::TripleState {
  int n, ld;
  std::int64_t q0;  // first pair in the three-body prefix
  const T* em;      // (n, 4)
  T* x;             // net input (1 + 2 tebd, ld); row 0 is c_jk
  // of the current j:
  T* raw;     // (ng, ld)
  T* gate;    // (ng, ld) T(t_j, t_k), strip only
  T* factor;  // (ld) sw_j sw_k or 1: what multiplies the gate
  typename NetWeights<T>::Tape tape;
};

// g(c_jk) for all k at fixed j.
template <class T>
void CpuBackend<T>::triples_row(const std::int32_t* type, int j, Arena& arena, bool tape, TripleState* s) {
  const Embedding& e = model_.three_body;
  const int tebd = model_.tebd_dim(), nt = model_.ntypes();
  const T* sw = env_three_.sw.data() + s->q0;
  const T* ej = s->em + 4 * j;
  for (int k = 0; k < s->n; ++k) {
    const T* ek = s->em + 4 * k;
    s->x[k] = ej[1] * ek[1] + ej[2] * ek[2] + ej[3] * ek[3];
  }
  for (int c = 0; !e.strip && c < tebd; ++c) {
    for (int k = 0; k < s->n; ++k) s->x[(1 + c) * s->ld + k] = types_[type[j] * tebd + c];
  }
  s->raw = w_three_.net.forward(s->x, s->ld, arena, tape ? &s->tape : nullptr);
  if (!e.strip) return;
  s->gate = arena.zeros<T>(static_cast<std::size_t>(e.ng) * s->ld);
  s->factor = arena.zeros<T>(s->ld);
  for (int k = 0; k < s->n; ++k) {
    const T* gate = w_three_.gate.data() + (static_cast<std::size_t>(type[j]) * nt + type[k]) * e.ng;
    for (int m = 0; m < e.ng; ++m) s->gate[m * s->ld + k] = gate[m];
    s->factor[k] = model_.smooth ? sw[j] * sw[k] : T(1);
  }
}

template <class T>
void CpuBackend<T>::triples_atom(int i, Arena& arena, TripleState* s) {
  const Embedding& e = model_.three_body;
  const int tebd = model_.tebd_dim();
  s->n = pairs().three_body.count[i];
  s->ld = padded(s->n, lanes<T>());
  s->q0 = pairs().three_body.first[i];
  s->em = env_three_.em.data() + 4 * s->q0;
  const std::int32_t* type = pairs().type.data() + pairs().repinit.first[i];
  s->x = arena.zeros<T>(static_cast<std::size_t>(e.strip ? 1 : 1 + 2 * tebd) * s->ld);
  for (int c = 0; !e.strip && c < tebd; ++c) {
    for (int k = 0; k < s->n; ++k) s->x[(1 + tebd + c) * s->ld + k] = types_[type[k] * tebd + c];
  }
}

template <class T>
void CpuBackend<T>::three_body(Range range) {
  const Embedding& e = model_.three_body;
  const double norm = 1.0 / (static_cast<double>(e.nsel) * e.nsel);
  for (int i = range.begin; i < range.end; ++i) {
    Arena& a = arena();
    Arena::Scope scope(a);
    T* out = rep_out_.data() + static_cast<std::size_t>(i + 1) * repinit_width_ - e.ng;
    std::fill(out, out + e.ng, T(0));
    TripleState s;
    triples_atom(i, a, &s);
    const std::int32_t* type = pairs().type.data() + pairs().repinit.first[i];
    for (int j = 0; j < s.n; ++j) {
      Arena::Scope row(a);
      triples_row(type, j, a, false, &s);
      for (int m = 0; m < e.ng; ++m) {
        const T* g = s.raw + m * s.ld;
        T sum = 0;
        if (e.strip) {
          for (int k = 0; k < s.n; ++k) sum += s.x[k] * g[k] * (T(1) + s.gate[m * s.ld + k] * s.factor[k]);
        } else {
          sum = dot(s.ld, s.x, g);
        }
        out[m] += sum * T(norm);
      }
    }
  }
}

template <class T>
void CpuBackend<T>::three_body_backward(Range range) {
  const Embedding& e = model_.three_body;
  const T norm = T(1.0 / (static_cast<double>(e.nsel) * e.nsel));
  for (int i = range.begin; i < range.end; ++i) {
    Arena& a = arena();
    Arena::Scope scope(a);
    const T* dout = drep_out_.data() + static_cast<std::size_t>(i + 1) * repinit_width_ - e.ng;
    TripleState s;
    triples_atom(i, a, &s);
    const std::int32_t* type = pairs().type.data() + pairs().repinit.first[i];
    T* dem = env_three_.dem.data() + 4 * s.q0;
    T* dsw = env_three_.dsw.data() + s.q0;
    std::fill(dem, dem + 4 * s.n, T(0));
    std::fill(dsw, dsw + s.n, T(0));
    T* dc = a.take<T>(s.ld);
    T* dfactor = a.take<T>(s.ld);
    T* dg = a.take<T>(static_cast<std::size_t>(e.ng) * s.ld);
    for (int j = 0; j < s.n; ++j) {
      Arena::Scope row(a);
      triples_row(type, j, a, true, &s);
      std::fill(dc, dc + s.ld, T(0));
      std::fill(dfactor, dfactor + s.ld, T(0));
      for (int m = 0; m < e.ng; ++m) {
        const T d = dout[m] * norm;
        const T* g = s.raw + m * s.ld;
        for (int k = 0; k < s.ld; ++k) {
          T gated = g[k], open = T(1);
          if (e.strip) {
            const T gate = s.gate[m * s.ld + k];
            open = T(1) + gate * s.factor[k];
            gated = g[k] * open;
            dfactor[k] += d * s.x[k] * g[k] * gate;
          }
          dc[k] += d * gated;
          dg[m * s.ld + k] = d * s.x[k] * open;
        }
      }
      const T* dx = w_three_.net.backward(dg, s.ld, s.tape, 1, a);
      for (int k = 0; k < s.n; ++k) {
        const T d = dc[k] + dx[k];
        for (int c = 1; c < 4; ++c) {
          dem[4 * j + c] += d * s.em[4 * k + c];
          dem[4 * k + c] += d * s.em[4 * j + c];
        }
        if (e.strip && model_.smooth) {
          dsw[j] += dfactor[k] * env_three_.sw[s.q0 + k];
          dsw[k] += dfactor[k] * env_three_.sw[s.q0 + j];
        }
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
