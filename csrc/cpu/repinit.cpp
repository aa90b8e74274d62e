// repinit (two-body embedding) and g1_transform, forward and backward; also the whole descriptor of a DPA-1
// student.
//   M (ng x 4) = g em / nsel        D (ng x axis) = M M[:axis]^T
#include <algorithm>

#include "cpu_backend.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
struct CpuBackend<T>::RepinitState {
  int n, ld;            // real neighbours, padded to the vector length
  T* raw = nullptr;     // (ng, ld) embedding before the gate of strip mode
  T* gate = nullptr;    // (ng, ld) T(t_j, t_i) [* sw], strip only
  T* g = nullptr;       // (ng, ld) raw (1 + gate)
  T* slope = nullptr;   // (ng, ld) d raw / d em_0, table only
  T* moment = nullptr;  // (ng, 4)
  typename NetWeights<T>::Tape tape;
};

namespace {

// A compressed model's embedding at x: value and slope of the quintic pieces, linear beyond both ends. The
// cell arithmetic follows the original's precision, because the number of fine cells is a truncated quotient.
template <class R, class T>
void table_lookup(const EmbeddingTable& t, const Buffer<T>& rows, int ng, R x, int ld, T* value, T* slope) {
  const R lower = R(t.lower), upper = R(t.upper), maximum = R(t.maximum), fine = R(t.stride0),
          coarse = R(t.stride1);
  const int fine_cells = int((upper - lower) / fine);
  int cell = 0;
  R beyond = 0;
  if (x < lower) {
    beyond = x - lower, x = 0;
  } else if (x < upper) {
    cell = int((x - lower) / fine);
    x -= cell * fine + lower;
  } else if (x < maximum) {
    cell = fine_cells + int((x - upper) / coarse);
    x -= (cell - fine_cells) * coarse + upper;
  } else {
    cell = fine_cells + int((std::nextafter(maximum, lower) - upper) / coarse);
    beyond = x - maximum;
    x = maximum - ((cell - fine_cells) * coarse + upper);
  }
  cell = std::clamp(cell, 0, static_cast<int>(t.coefficients.shape[0]) - 1);
  const T* a = rows.data() + static_cast<std::size_t>(cell) * 6 * ng;
  const T h = T(x), out = T(beyond);
  for (int m = 0; m < ng; ++m, a += 6) {
    const T d = a[1] + h * (2 * a[2] + h * (3 * a[3] + h * (4 * a[4] + h * 5 * a[5])));
    value[m * ld] = a[0] + h * (a[1] + h * (a[2] + h * (a[3] + h * (a[4] + h * a[5])))) + out * d;
    if (slope) slope[m * ld] = d;
  }
}

}  // namespace

// The lookup in the precision of the file.
template <class T>
void CpuBackend<T>::repinit_table(T x, int ld, T* value, T* slope) const {
  const EmbeddingTable& t = model_.repinit.table;
  if (model_.precision == "float32") {
    table_lookup(t, w_repinit_.table, model_.repinit.ng, static_cast<float>(x), ld, value, slope);
  } else {
    table_lookup(t, w_repinit_.table, model_.repinit.ng, static_cast<double>(x), ld, value, slope);
  }
}

// T(t_j, t_i) of strip mode, (ng).
template <class T>
const T* CpuBackend<T>::repinit_gate(int center, int neighbor) const {
  const std::size_t row =
      (model_.repinit.one_side ? 0 : static_cast<std::size_t>(center) * model_.ntypes()) + neighbor;
  return w_repinit_.gate.data() + row * model_.repinit.ng;
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
  const T* em = env_repinit_.em.data() + 4 * p0;
  const std::int32_t* neighbor = pairs().type.data() + p0;
  const int n = s->n = pairs().repinit.count[i];
  const int ld = s->ld = padded(n, lanes<T>());
  const std::size_t size = static_cast<std::size_t>(ng) * ld;
  if (!e.table.empty()) {
    s->raw = arena.zeros<T>(size);
    s->slope = tape ? arena.zeros<T>(size) : nullptr;
    for (int j = 0; j < n; ++j) {
      repinit_table(em[4 * j], ld, s->raw + j, s->slope ? s->slope + j : nullptr);
    }
  } else {
    const T* x = embedding_input(e, types_, model_.tebd_dim(), n, ld, em, neighbor, ti, arena);
    s->raw = w_repinit_.net.forward(x, ld, arena, tape ? &s->tape : nullptr);
  }
  s->g = s->raw;
  if (e.strip) {
    s->gate = arena.zeros<T>(size);
    s->g = arena.take<T>(size);
    for (int j = 0; j < n; ++j) {
      const T* gate = repinit_gate(ti, neighbor[j]);
      const T sw = model_.smooth ? env_repinit_.sw[p0 + j] : T(1);
      for (int m = 0; m < ng; ++m) s->gate[m * ld + j] = gate[m] * sw;
    }
    for (std::size_t k = 0; k < size; ++k) s->g[k] = s->raw[k] * (T(1) + s->gate[k]);
  }
  s->moment = arena.zeros<T>(4 * static_cast<std::size_t>(ng));
  gemm(ng, 4, n, plain(s->g, ld), em, 4, s->moment, 4, false);
  if (!w_repinit_.empty.empty()) {
    const T empty = T(e.nsel - n - pairs().zeroed[i]);
    axpy(4 * ng, empty, w_repinit_.empty.data() + static_cast<std::size_t>(ti) * 4 * ng, s->moment);
  }
  for (int k = 0; k < 4 * ng; ++k) s->moment[k] /= T(e.nsel);
}

// One empty slot of a model with nonzero davg: em = -davg/dstd through the ungated embedding (sw = 0 there).
template <class T>
void CpuBackend<T>::prepare_empty_slots() {
  const Embedding& e = model_.repinit;
  if (std::all_of(e.davg.data.begin(), e.davg.data.end(), [](double x) { return x == 0; })) return;
  Arena scratch;
  const int nt = model_.ntypes(), ld = padded(nt, lanes<T>());
  T* x = scratch.zeros<T>(ld);
  T* raw = scratch.zeros<T>(static_cast<std::size_t>(e.ng) * ld);
  for (int t = 0; t < nt; ++t) x[t] = T(-e.davg(t, 0) / e.dstd(t, 0));
  if (e.table.empty()) {
    raw = w_repinit_.net.forward(x, ld, scratch, nullptr);
  } else {
    for (int t = 0; t < nt; ++t) repinit_table(x[t], ld, raw + t, nullptr);
  }
  w_repinit_.empty.resize(static_cast<std::size_t>(nt) * e.ng * 4);
  for (int t = 0; t < nt; ++t) {
    for (int m = 0; m < e.ng; ++m) {
      for (int c = 0; c < 4; ++c) {
        w_repinit_.empty[(static_cast<std::size_t>(t) * e.ng + m) * 4 + c] =
            raw[m * ld + t] * T(-e.davg(t, c) / e.dstd(t, c));
      }
    }
  }
}

template <class T>
void CpuBackend<T>::repinit(Range range) {
  const int ng = model_.repinit.ng, axis = model_.repinit_axis;
  for (int i = range.begin; i < range.end; ++i) {
    Arena::Scope scope(arena());
    T* out = rep_out_.data() + static_cast<std::size_t>(i) * repinit_width_;
    if (pairs().center_type[i] < 0) {
      std::fill(out, out + ng * axis, T(0));
      continue;
    }
    RepinitState s;
    repinit_atom(i, arena(), false, &s);
    for (int m = 0; m < ng; ++m) {
      for (int a = 0; a < axis; ++a) {
        T sum = 0;
        for (int c = 0; c < 4; ++c) sum += s.moment[4 * m + c] * s.moment[4 * a + c];
        out[m * axis + a] = sum;
      }
    }
  }
}

template <class T>
void CpuBackend<T>::repinit_backward(Range range) {
  const Embedding& e = model_.repinit;
  const int ng = e.ng, axis = model_.repinit_axis;
  for (int i = range.begin; i < range.end; ++i) {
    if (pairs().repinit.count[i] == 0) continue;
    Arena& a = arena();
    Arena::Scope scope(a);
    RepinitState s;
    repinit_atom(i, a, true, &s);
    const T* dout = drep_out_.data() + static_cast<std::size_t>(i) * repinit_width_;
    T* dmoment = a.zeros<T>(4 * static_cast<std::size_t>(ng));
    for (int m = 0; m < ng; ++m) {
      for (int x = 0; x < axis; ++x) {
        const T d = dout[m * axis + x] / T(e.nsel);
        for (int c = 0; c < 4; ++c) {
          dmoment[4 * m + c] += d * s.moment[4 * x + c];
          dmoment[4 * x + c] += d * s.moment[4 * m + c];
        }
      }
    }
    const std::int64_t p0 = pairs().repinit.first[i];
    const T* em = env_repinit_.em.data() + 4 * p0;
    T* dem = env_repinit_.dem.data() + 4 * p0;
    T* dsw = env_repinit_.dsw.data() + p0;
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
    if (s.slope) {
      for (int m = 0; m < ng; ++m) {
        for (int j = 0; j < s.n; ++j) dem[4 * j] += dg[m * s.ld + j] * s.slope[m * s.ld + j];
      }
    } else {
      const T* dx = w_repinit_.net.backward(dg, s.ld, s.tape, 1, a);
      for (int j = 0; j < s.n; ++j) dem[4 * j] += dx[j];
    }
  }
}

// g1 of layer 0: act( [D | three-body] W + tebd_transform(t_i) )
template <class T>
void CpuBackend<T>::g1_transform(Range range) {
  const int width = rep().g1_dim, rows = range.size();
  T* y = g1(0) + static_cast<std::size_t>(range.begin) * width;
  T* slope = g1_slope_.data() + static_cast<std::size_t>(range.begin) * width;
  const T* x = rep_out_.data() + static_cast<std::size_t>(range.begin) * repinit_width_;
  if (w_transform_.w.empty()) {
    std::copy(x, x + static_cast<std::size_t>(rows) * width, y);
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
  T* dx = drep_out_.data() + static_cast<std::size_t>(range.begin) * repinit_width_;
  if (w_transform_.w.empty()) {
    std::copy(dy, dy + static_cast<std::size_t>(rows) * width, dx);
  } else {
    w_transform_.backward(rows, dy, width, dx, repinit_width_, false);
  }
}

#define DPA2MD_INSTANTIATE(T)                           \
  template void CpuBackend<T>::repinit(Range);          \
  template void CpuBackend<T>::repinit_backward(Range); \
  template void CpuBackend<T>::prepare_empty_slots();   \
  template void CpuBackend<T>::g1_transform(Range);     \
  template void CpuBackend<T>::g1_transform_backward(Range);
DPA2MD_INSTANTIATE(float)
DPA2MD_INSTANTIATE(double)

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
