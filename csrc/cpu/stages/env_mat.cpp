// Environment matrices, and the last step of the reverse sweep: from their gradients to forces and virial. In
// double whatever T is; an atom's pairs side by side, so that loops over them become vectors.
#include <algorithm>
#include <cmath>

#include "cpu/cpu_backend.h"
#include "cpu/vector/lanes.h"
#include "cpu/vector/simd_math.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// Vectors from an atom to its neighbours, (np) each and filled up to whole vectors with neighbours 1 angstrom
// away.
template <class T>
struct CpuBackend<T>::PairVectors {
  int np;
  double *x, *y, *z, *r;
};

template <class T>
typename CpuBackend<T>::PairVectors CpuBackend<T>::pair_vectors(int i, int n, Arena& arena) const {
  PairVectors p;
  p.np = padded(n, lanes<double>());
  for (double** a : {&p.x, &p.y, &p.z, &p.r}) *a = arena.take<double>(p.np);
  const double* vec = pairs().vec.data() + 3 * pairs().repinit.first[i];
  for (int k = 0; k < n; ++k) p.x[k] = vec[3 * k], p.y[k] = vec[3 * k + 1], p.z[k] = vec[3 * k + 2];
  for (int k = n; k < p.np; ++k) p.x[k] = 1, p.y[k] = p.z[k] = 0;
#pragma omp simd
  for (int k = 0; k < p.np; ++k) p.r[k] = std::sqrt(p.x[k] * p.x[k] + p.y[k] * p.y[k] + p.z[k] * p.z[k]);
  return p;
}

namespace {

constexpr int kDoubles = lanes<double>();
using Doubles = Vector<double, kDoubles>::type;

DPA2MD_INLINE const Doubles& at(const double* p) { return *reinterpret_cast<const Doubles*>(p); }

// What the formulas of a block need of it and of the centre's type.
struct EnvConstants {
  double rcut, rcut_smth, avg[4], inv_std[4];
  EnvConstants(const Block& b, int center_type) : rcut(b.rcut), rcut_smth(b.rcut_smth) {
    for (int c = 0; c < 4; ++c) {
      avg[c] = b.davg.data[4 * std::max(0, center_type) + c];
      inv_std[c] = 1.0 / b.dstd.data[4 * std::max(0, center_type) + c];
    }
  }
};

// switch_function of many distances
DPA2MD_INLINE void switch_lanes(const EnvConstants& e, Doubles r, Doubles* sw, Doubles* dsw) {
  const double width = e.rcut - e.rcut_smth;
  const Doubles u = max_lanes(Doubles{}, min_lanes(Doubles{} + 1.0, (r - e.rcut_smth) / width));
  switch_polynomial(u, width, sw, dsw);
}

}  // namespace

// em = (sw/(r+p) (1, v/(r+p)) - davg) / dstd, or (r, v)/rcut with direct_dist.
template <class T>
void CpuBackend<T>::env_mat_atom(Env<T>& env, int i, const PairVectors& p, Arena& arena) {
  Arena::Scope scope(arena);
  const EnvConstants e(*env.block, pairs().center_type[i]);
  const int n = env.prefix->count[i], np = padded(n, lanes<double>());
  T* part = arena.take<T>(5 * static_cast<std::size_t>(np));  // em column by column, sw
  for (int k = 0; k < np; k += kDoubles) {
    const Doubles r = at(p.r + k), v[3] = {at(p.x + k), at(p.y + k), at(p.z + k)};
    Doubles sw, dsw;
    switch_lanes(e, r, &sw, &dsw);
    const auto store = [&](int c, Doubles x) {
      *reinterpret_cast<typename Vector<T, kDoubles>::type*>(part + c * np + k) =
          __builtin_convertvector(x, typename Vector<T, kDoubles>::type);
    };
    store(4, sw);
    if (env.direct) {
      store(0, r / e.rcut);
      for (int c = 0; c < 3; ++c) store(1 + c, v[c] / e.rcut);
    } else {
      const Doubles inv = 1.0 / (r + model_.env_protection), across = sw * inv * inv;
      store(0, (sw * inv - e.avg[0]) * e.inv_std[0]);
      for (int c = 0; c < 3; ++c) store(1 + c, (across * v[c] - e.avg[1 + c]) * e.inv_std[1 + c]);
    }
  }
  const std::size_t q0 = env_row(env, i);
  transpose(4, n, part, np, env.em.data() + 4 * q0, 4);
  std::copy_n(part + 4 * np, n, env.sw.data() + q0);
}

template <class T>
void CpuBackend<T>::env_mat_block(Env<T>& env, Range range) {
  Arena& arena_ = arena();
  for (int i = range.begin; i < range.end; ++i) {
    Arena::Scope scope(arena_);
    env_mat_atom(env, i, pair_vectors(i, env.prefix->count[i], arena_), arena_);
  }
}

template <class T>
void CpuBackend<T>::env_mat(Range range) {
  Arena& arena_ = arena();
  for (int i = range.begin; i < range.end; ++i) {
    Arena::Scope scope(arena_);
    const PairVectors p = pair_vectors(i, pairs().repinit.count[i], arena_);
    env_mat_atom(env_repinit_, i, p, arena_);
    if (model_.has_three_body) env_mat_atom(env_three_, i, p, arena_);
    if (rep().nlayers) env_mat_atom(env_repformer_, i, p, arena_);
  }
}

// ---- in reverse

// Adds to f (3, np) what the gradients of a block's em and sw give to dE/d(r_j - r_i).
template <class T>
void CpuBackend<T>::env_gradient(const Env<T>& env, int i, const PairVectors& p, double* f, Arena& arena) {
  Arena::Scope scope(arena);
  const EnvConstants e(*env.block, pairs().center_type[i]);
  const int n = env.prefix->count[i], np = padded(n, lanes<double>());
  const std::size_t q0 = env_row(env, i);
  T* dem = arena.zeros<T>(5 * static_cast<std::size_t>(np));
  transpose(n, 4, env.dem.data() + 4 * q0, 4, dem, np);
  std::copy_n(env.dsw.data() + q0, n, dem + 4 * np);
  const auto gradient = [&](int c, int k) {
    return __builtin_convertvector(
        *reinterpret_cast<const typename Vector<T, kDoubles>::type*>(dem + c * np + k), Doubles);
  };
  for (int k = 0; k < np; k += kDoubles) {
    const Doubles r = at(p.r + k), v[3] = {at(p.x + k), at(p.y + k), at(p.z + k)}, inv_r = 1.0 / r;
    Doubles sw, dsw, d[3], along, across;  // f += along v/r + across d
    switch_lanes(e, r, &sw, &dsw);
    for (int c = 0; c < 3; ++c) d[c] = gradient(1 + c, k);
    if (env.direct) {
      along = gradient(0, k) / e.rcut;
      across = Doubles{} + 1.0 / e.rcut;
    } else {
      const Doubles inv = model_.env_protection == 0 ? inv_r : 1.0 / (r + model_.env_protection),
                    inv2 = inv * inv;
      for (int c = 0; c < 3; ++c) d[c] *= e.inv_std[1 + c];
      along = gradient(0, k) * e.inv_std[0] * (dsw * inv - sw * inv2) +
              (d[0] * v[0] + d[1] * v[1] + d[2] * v[2]) * (dsw * inv2 - 2.0 * sw * inv2 * inv);
      across = sw * inv2;
    }
    along = (along + gradient(4, k) * dsw) * inv_r;
    for (int c = 0; c < 3; ++c) *reinterpret_cast<Doubles*>(f + c * p.np + k) += along * v[c] + across * d[c];
  }
}

namespace {

// A pair's vector f = dE/d(r_j - r_i) as force and virial (12): f to the centre, -f to the neighbour; of the
// virial -f (x) v half to either.
struct PairForce {
  using Eight = Vector<double, 8>::type;
  using Four = Vector<double, 4>::type;
  Eight low{};
  Four high{};
  DPA2MD_INLINE PairForce() = default;
  DPA2MD_INLINE PairForce(double fx, double fy, double fz, double x, double y, double z) {
    const Eight f = {-fx, -fy, -fz, -0.5 * fx, -0.5 * fy, -0.5 * fz, 0, 0}, v = {x, y, z, 1, 0, 0, 0, 0};
    low = pick_lanes(f, f, std::integer_sequence<int, 0, 1, 2, 3, 3, 3, 4, 4>{}) *
          pick_lanes(v, v, std::integer_sequence<int, 3, 3, 3, 0, 1, 2, 0, 1>{});
    const Four a = {-0.5 * fy, -0.5 * fz, -0.5 * fz, -0.5 * fz}, b = {z, x, y, z};
    high = a * b;
  }
  DPA2MD_INLINE void add_to(double* sum) const {
    *reinterpret_cast<Eight*>(sum) += low;
    *reinterpret_cast<Four*>(sum + 8) += high;
  }
};

}  // namespace

// Adds to the forces of the block's own atoms, and writes what belongs to neighbours into their slots.
template <class T>
void CpuBackend<T>::env_mat_backward(Range range) {
  Arena& arena_ = arena();
  dforce_.zero(12 * force_shares_.begin(range.begin), 12 * force_shares_.end(range.begin));
  for (int i = range.begin; i < range.end; ++i) {
    Arena::Scope scope(arena_);
    const int n = pairs().repinit.count[i];
    const PairVectors p = pair_vectors(i, n, arena_);
    double* f = arena_.zeros<double>(3 * static_cast<std::size_t>(p.np));
    env_gradient(env_repinit_, i, p, f, arena_);
    if (model_.has_three_body) env_gradient(env_three_, i, p, f, arena_);
    if (rep().nlayers) env_gradient(env_repformer_, i, p, f, arena_);
    const std::int32_t* slot = force_shares_.slot.data() + pairs().repinit.first[i];
    PairForce own;
    for (int k = 0; k < n; ++k) {
      const PairForce pair(f[k], f[p.np + k], f[2 * p.np + k], p.x[k], p.y[k], p.z[k]);
      pair.add_to(&dforce_[12 * static_cast<std::size_t>(slot[k])]);
      own.low += pair.low, own.high += pair.high;
    }
    double sum[12] = {};
    own.add_to(sum);
    for (int c = 0; c < 3; ++c) sum[c] = -sum[c];
    add_forces(i, sum);
  }
}

template <class T>
void CpuBackend<T>::add_forces(std::size_t row, const double* sum) {
  for (int c = 0; c < 3; ++c) output_.force[3 * row + c] += sum[c];
  for (int c = 0; c < 9; ++c) output_.virial[9 * row + c] += sum[3 + c];
}

template <class T>
void CpuBackend<T>::forces(Range atoms) {
  const Shares::Span& span = force_shares_.of_atom(atoms.begin);
  const int rows = static_cast<int>(span.row.size());
#pragma omp parallel for schedule(static) if (threads_ > 1)
  for (int k = 0; k < rows; ++k) {
    double sum[12] = {};
    for (std::int32_t s = span.row_first[k]; s < span.row_first[k + 1]; ++s) {
      const double* slot = &dforce_[12 * static_cast<std::size_t>(span.row_slot[s])];
      for (int c = 0; c < 12; ++c) sum[c] += slot[c];
    }
    add_forces(span.row[k], sum);
  }
}

#define DPA2MD_INSTANTIATE(T)                                 \
  template void CpuBackend<T>::env_mat(Range);                \
  template void CpuBackend<T>::env_mat_block(Env<T>&, Range); \
  template void CpuBackend<T>::env_mat_backward(Range);       \
  template void CpuBackend<T>::forces(Range);
DPA2MD_INSTANTIATE(float)
DPA2MD_INSTANTIATE(double)

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
