// repinit (two-body embedding) and g1_transform, forward and backward; also the whole descriptor of a DPA-1
// student.
//   M (4 x ng) = em^T g / nsel        D (axis x ng) = M[:axis]^T M
// The embedding g of each neighbour comes from a table of the distance (tables.h), or from the net itself
// where no table is good enough or an atom comes closer than the table reaches. D is kept with ng running
// fastest, the other way round than in DeePMD-kit: prepare_repinit turns the weights that read it.
#include <algorithm>

#include "cpu/cpu_backend.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
struct CpuBackend<T>::RepinitState {
  int n, ld;            // real neighbours, padded to the vector length
  T* raw = nullptr;     // (ng, ld) embedding before the gate of strip mode
  T* gate = nullptr;    // (ng, ld) T(t_j, t_i) [* sw], strip only
  T* g = nullptr;       // (ng, ld) raw (1 + gate)
  T* moment = nullptr;  // (4, padded ng)
  typename NetWeights<T>::Tape tape;
};

// T(t_j, t_i) of strip mode, (padded ng).
template <class T>
const T* CpuBackend<T>::repinit_gate(int center, int neighbor) const {
  const std::size_t row =
      (model_.repinit.one_side ? 0 : static_cast<std::size_t>(center) * model_.ntypes()) + neighbor;
  return w_repinit_.gate.data() + row * padded(model_.repinit.ng, lanes<T>());
}

// The input of a concat net: em_0, the neighbour's type embedding, the centre's unless one_side.
template <class T>
static T* embedding_input(const Embedding& e, const Buffer<T>& types, int tebd, int n, int ld, const T* em,
                          const std::int32_t* neighbor, int center, Arena& arena) {
  const int rows = e.strip ? 1 : 1 + tebd * (e.one_side ? 1 : 2);
  T* x = arena.zeros<T>(static_cast<std::size_t>(rows) * ld);
  for (int j = 0; j < n; ++j) {
    x[j] = em[4 * j];
    if (e.strip) continue;
    for (int c = 0; c < tebd; ++c) x[(1 + c) * ld + j] = types[neighbor[j] * tebd + c];
    for (int c = 0; !e.one_side && c < tebd; ++c) x[(1 + tebd + c) * ld + j] = types[center * tebd + c];
  }
  return x;
}

template <class T>
void CpuBackend<T>::repinit_atom(int i, Arena& arena, bool tape, RepinitState* s) {
  const Embedding& e = model_.repinit;
  const int ng = e.ng, ti = pairs().center_type[i];
  const std::int64_t p0 = pairs().repinit.first[i];
  const std::size_t e0 = env_row(env_repinit_, i);
  const T* em = env_repinit_.em.data() + 4 * e0;
  const std::int32_t* neighbor = pairs().type.data() + p0;
  const int n = s->n = pairs().repinit.count[i];
  const int ld = s->ld = padded(n, lanes<T>());
  const std::size_t size = static_cast<std::size_t>(ng) * ld;
  const T* x = embedding_input(e, types_, model_.tebd_dim(), n, ld, em, neighbor, ti, arena);
  s->raw = w_repinit_.net.forward(x, ld, arena, tape ? &s->tape : nullptr);
  s->g = s->raw;
  if (e.strip) {
    s->gate = arena.zeros<T>(size);
    s->g = arena.take<T>(size);
    for (int j = 0; j < n; ++j) {
      const T* gate = repinit_gate(ti, neighbor[j]);
      const T sw = model_.smooth ? env_repinit_.sw[e0 + j] : T(1);
      for (int m = 0; m < ng; ++m) s->gate[m * ld + j] = gate[m] * sw;
    }
    for (std::size_t k = 0; k < size; ++k) s->g[k] = s->raw[k] * (T(1) + s->gate[k]);
  }
  T* product = arena.take<T>(4 * static_cast<std::size_t>(ng));
  gemm(ng, 4, n, plain(s->g, ld), em, 4, product, 4, false);
  const int np = padded(ng, lanes<T>());
  s->moment = arena.zeros<T>(4 * static_cast<std::size_t>(np));
  transpose(ng, 4, product, 4, s->moment, np);
}

// Through the net: assigns d em and d sw of the atom's pairs from d M.
template <class T>
void CpuBackend<T>::repinit_net_backward(int i, const T* dmoment_t, Arena& a) {
  const Embedding& e = model_.repinit;
  const int ng = e.ng;
  RepinitState s;
  repinit_atom(i, a, true, &s);
  T* dmoment = a.take<T>(4 * static_cast<std::size_t>(ng));
  transpose(4, ng, dmoment_t, padded(ng, lanes<T>()), dmoment, 4);
  const std::int64_t p0 = pairs().repinit.first[i];
  const std::size_t e0 = env_row(env_repinit_, i);
  const T* em = env_repinit_.em.data() + 4 * e0;
  T* dem = env_repinit_.dem.data() + 4 * e0;
  T* dsw = env_repinit_.dsw.data() + e0;
  gemm(s.n, 4, ng, transposed(s.g, s.ld), dmoment, 4, dem, 4, false);
  T* em_t = a.zeros<T>(4 * static_cast<std::size_t>(s.ld));
  transpose(s.n, 4, em, 4, em_t, s.ld);
  T* dg = a.take<T>(static_cast<std::size_t>(ng) * s.ld);
  gemm(ng, s.ld, 4, plain(dmoment, 4), em_t, s.ld, dg, s.ld, false);
  std::fill(dsw, dsw + s.n, T(0));
  if (e.strip) {
    for (int m = 0; m < ng; ++m) {
      for (int j = 0; j < s.n; ++j) {
        const int k = m * s.ld + j;
        if (model_.smooth) {
          // gate = T sw; its derivative needs T even where sw = 0
          dsw[j] += dg[k] * s.raw[k] * repinit_gate(pairs().center_type[i], pairs().type[p0 + j])[m];
        }
        dg[k] *= T(1) + s.gate[k];
      }
    }
  }
  const T* dx = w_repinit_.net.backward(dg, s.ld, s.tape, 1, a);
  for (int j = 0; j < s.n; ++j) dem[4 * j] += dx[j];
}

// ---- the stage

// M of an atom, from tables if possible, with what the empty slots add.
template <class T>
void CpuBackend<T>::repinit_moments(int i, T* moment, Arena& arena) {
  const Embedding& e = model_.repinit;
  const int np = padded(e.ng, lanes<T>());
  if (const TablePlace<T>* places = repinit_places(i, false, arena)) {
    e.strip ? repinit_moment<true>(i, places, moment, arena)
            : repinit_moment<false>(i, places, moment, arena);
  } else {
    RepinitState s;
    repinit_atom(i, arena, false, &s);
    std::copy(s.moment, s.moment + 4 * np, moment);
  }
  if (!w_repinit_.empty.empty()) {
    const T empty = T(e.nsel - pairs().repinit.count[i] - pairs().zeroed[i]);
    axpy(4 * np, empty, w_repinit_.empty.data() + static_cast<std::size_t>(pairs().center_type[i]) * 4 * np,
         moment);
  }
  for (int k = 0; k < 4 * np; ++k) moment[k] /= T(e.nsel);
}

template <class T>
void CpuBackend<T>::repinit(Range range) {
  const int ng = model_.repinit.ng, axis = model_.repinit_axis, np = padded(ng, lanes<T>());
  for (int i = range.begin; i < range.end; ++i) {
    Arena::Scope scope(arena());
    T* out = rep_out(i);
    if (pairs().center_type[i] < 0) {
      std::fill(out, out + ng * axis, T(0));
      continue;
    }
    T* moment = keeps_moments() ? kept_moment(i) : arena().template take<T>(4 * static_cast<std::size_t>(np));
    repinit_moments(i, moment, arena());
    repinit_squares(moment, out);
  }
}

template <class T>
T* CpuBackend<T>::kept_moment(int i) {
  return moment_.data() + static_cast<std::size_t>(i) * 4 * padded(model_.repinit.ng, lanes<T>());
}

// D from M
template <class T>
void CpuBackend<T>::repinit_squares(const T* moment, T* out) const {
  const int ng = model_.repinit.ng, axis = model_.repinit_axis, np = padded(ng, lanes<T>());
  for (int a = 0; a < axis; ++a) {
    const T x[4] = {moment[a], moment[np + a], moment[2 * np + a], moment[3 * np + a]};
#pragma omp simd
    for (int m = 0; m < ng; ++m) {
      out[a * ng + m] =
          x[0] * moment[m] + x[1] * moment[np + m] + x[2] * moment[2 * np + m] + x[3] * moment[3 * np + m];
    }
  }
}

// d M (4, padded ng) from d D, with the 1 / nsel of M.
template <class T>
void CpuBackend<T>::repinit_moments_backward(int i, const T* moment, T* dmoment) {
  const int ng = model_.repinit.ng, axis = model_.repinit_axis, np = padded(ng, lanes<T>());
  const T* dout = drep_out(i);
  const T inv = T(1) / T(model_.repinit.nsel);
  for (int a = 0; a < axis; ++a) {
    for (int c = 0; c < 4; ++c) {
      axpy(ng, inv * moment[c * np + a], dout + a * ng, dmoment + c * np);
    }
  }
  for (int a = 0; a < axis; ++a) {
    for (int c = 0; c < 4; ++c) dmoment[c * np + a] += inv * dot(ng, dout + a * ng, moment + c * np);
  }
}

template <class T>
void CpuBackend<T>::repinit_backward(Range range) {
  const Embedding& e = model_.repinit;
  const std::size_t size = 4 * static_cast<std::size_t>(padded(e.ng, lanes<T>()));
  if (model_.is_dpa2) env_mat_block(env_repinit_, range);  // other blocks have been here since
  for (int i = range.begin; i < range.end; ++i) {
    if (pairs().repinit.count[i] == 0) continue;
    Arena& a = arena();
    Arena::Scope scope(a);
    T* moment = keeps_moments() ? kept_moment(i) : a.take<T>(size);
    if (!keeps_moments()) repinit_moments(i, moment, a);
    T* dmoment = a.zeros<T>(size);
    repinit_moments_backward(i, moment, dmoment);
    if (const TablePlace<T>* places = repinit_places(i, true, a)) {
      e.strip ? repinit_moment_backward<true>(i, places, dmoment, a)
              : repinit_moment_backward<false>(i, places, dmoment, a);
    } else {
      repinit_net_backward(i, dmoment, a);
    }
  }
}

// D of rows [D | three-body] transposed, (rows, cols) to (cols, rows): the backend's order and DeePMD-kit's,
// which a model without g1_transform's weight sees.
template <class T>
void CpuBackend<T>::repinit_order(int count, int rows, int cols, const T* in, T* out) const {
  for (int b = 0; b < count; ++b, in += repinit_width_, out += repinit_width_) {
    transpose(rows, cols, in, cols, out, rows);
    std::copy(in + rows * cols, in + repinit_width_, out + rows * cols);
  }
}

// g1 of layer 0: act( [D | three-body] W + tebd_transform(t_i) )
template <class T>
void CpuBackend<T>::g1_transform(Range range) {
  const int width = rep().g1_dim, rows = range.size();
  T* y = g1(0) + static_cast<std::size_t>(range.begin) * width;
  T* slope = g1_slope_.data() + static_cast<std::size_t>(range.begin) * width;
  const T* x = rep_out(range.begin);
  if (w_transform_.w.empty()) {
    repinit_order(rows, model_.repinit_axis, model_.repinit.ng, x, y);
  } else {
    w_transform_.forward(rows, x, repinit_width_, y, width);
  }
  for (int i = 0; i < rows && !w_tebd_.empty(); ++i) {
    const int t = std::max(0, pairs().center_type[range.begin + i]);
    axpy(width, T(1), w_tebd_.data() + static_cast<std::size_t>(t) * width,
         y + static_cast<std::size_t>(i) * width);
  }
  activate_array(rep().act, static_cast<std::size_t>(rows) * width, y, slope);
}

template <class T>
void CpuBackend<T>::g1_transform_backward(Range range) {
  const int width = rep().g1_dim, rows = range.size();
  const std::size_t at = static_cast<std::size_t>(range.begin) * width;
  T* dy = dg1(0) + at;
  for (std::size_t k = 0; k < static_cast<std::size_t>(rows) * width; ++k) dy[k] *= g1_slope_[at + k];
  T* dx = drep_out(range.begin);
  if (w_transform_.w.empty()) {
    repinit_order(rows, model_.repinit.ng, model_.repinit_axis, dy, dx);
  } else {
    w_transform_.backward(rows, dy, width, dx, repinit_width_, false);
  }
}

#define DPA2MD_INSTANTIATE(T)                                       \
  template void CpuBackend<T>::repinit(Range);                      \
  template void CpuBackend<T>::repinit_backward(Range);             \
  template const T* CpuBackend<T>::repinit_gate(int, int) const;    \
  template void CpuBackend<T>::repinit_squares(const T*, T*) const; \
  template T* CpuBackend<T>::kept_moment(int);                      \
  template void CpuBackend<T>::g1_transform(Range);                 \
  template void CpuBackend<T>::g1_transform_backward(Range);
DPA2MD_INSTANTIATE(float)
DPA2MD_INSTANTIATE(double)

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
