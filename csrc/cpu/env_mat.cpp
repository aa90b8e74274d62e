// Environment matrices, and the last step of the reverse sweep: from their gradients to forces and virial.
#include <cmath>

#include "cpu_backend.h"

namespace dpa2md {
namespace DPA2MD_ISA {

namespace {

inline double length(const double* v) { return std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]); }

}  // namespace

// em = (sw/(r+p) (1, v/(r+p)) - davg) / dstd, or (r, v)/rcut with direct_dist; always from double distances.
template <class T>
void CpuBackend<T>::env_mat_block(Env<T>& env, Range range) {
  const Block& b = *env.block;
  for (int i = range.begin; i < range.end; ++i) {
    const double* avg = &b.davg.data[4 * pairs().center_type[i] * (pairs().center_type[i] >= 0)];
    const double* std = &b.dstd.data[4 * pairs().center_type[i] * (pairs().center_type[i] >= 0)];
    const std::int64_t p0 = pairs().repinit.first[i];
    const std::size_t q0 = env_row(env, i);
    for (int k = 0; k < env.prefix->count[i]; ++k) {
      const double* v = &pairs().vec[3 * (p0 + k)];
      const double r = length(v);
      double sw, dsw;
      switch_function(r, b.rcut_smth, b.rcut, &sw, &dsw);
      env.sw[q0 + k] = static_cast<T>(sw);
      T* em = &env.em[4 * (q0 + k)];
      if (env.direct) {
        em[0] = static_cast<T>(r / b.rcut);
        for (int c = 0; c < 3; ++c) em[1 + c] = static_cast<T>(v[c] / b.rcut);
      } else {
        const double inv = 1.0 / (r + model_.env_protection);
        em[0] = static_cast<T>((sw * inv - avg[0]) / std[0]);
        for (int c = 0; c < 3; ++c)
          em[1 + c] = static_cast<T>((sw * v[c] * inv * inv - avg[1 + c]) / std[1 + c]);
      }
    }
  }
}

template <class T>
void CpuBackend<T>::env_mat(Range range) {
  env_mat_block(env_repinit_, range);
  if (model_.has_three_body) env_mat_block(env_three_, range);
  if (rep().nlayers) env_mat_block(env_rep_, range);
}

namespace {

// Adds dE/d(r_j - r_i) of one pair in one block, from the gradients of its em and sw.
template <class T>
void pair_gradient(const Env<T>& env, const double* std, double p, double r, const double* v, std::size_t q,
                   double* f) {
  const Block& b = *env.block;
  double sw, dsw;
  switch_function(r, b.rcut_smth, b.rcut, &sw, &dsw);
  const T* dem = &env.dem[4 * q];
  double along, across;  // f += along * v/r + across * dem_vector
  double scale[3];
  if (env.direct) {
    along = dem[0] / b.rcut;
    across = 1.0 / b.rcut;
    for (double& s : scale) s = 1.0;
  } else {
    const double inv = 1.0 / (r + p), inv2 = inv * inv;
    for (int c = 0; c < 3; ++c) scale[c] = 1.0 / std[1 + c];
    double dot = 0;
    for (int c = 0; c < 3; ++c) dot += dem[1 + c] * scale[c] * v[c];
    along = dem[0] / std[0] * (dsw * inv - sw * inv2) + dot * (dsw * inv2 - 2.0 * sw * inv2 * inv);
    across = sw * inv2;
  }
  along += env.dsw[q] * dsw;
  for (int c = 0; c < 3; ++c) f[c] += along * v[c] / r + across * dem[1 + c] * scale[c];
}

}  // namespace

namespace {

// A pair's vector f = dE/d(r_j - r_i) as force and virial (12): f to the centre, -f to the neighbour, of the
// virial half to either.
inline void add_pair(const double* f, const double* v, double* center, double* neighbor) {
  for (int a = 0; a < 3; ++a) {
    center[a] += f[a];
    neighbor[a] -= f[a];
  }
  for (int k = 0; k < 9; ++k) {
    const double half = 0.5 * f[k / 3] * v[k % 3];
    center[3 + k] -= half;
    neighbor[3 + k] -= half;
  }
}

}  // namespace

// Writes the forces of the block's own atoms (what others give them is added later, by `forces`), and what
// belongs to neighbours into their slots.
template <class T>
void CpuBackend<T>::env_mat_backward(Range range) {
  const Env<T>* envs[3] = {&env_repinit_, model_.has_three_body ? &env_three_ : nullptr,
                           rep().nlayers ? &env_rep_ : nullptr};
  dforce_.zero(12 * force_shares_.begin(range.begin), 12 * force_shares_.end(range.begin));
  for (int i = range.begin; i < range.end; ++i) {
    const std::int64_t p0 = pairs().repinit.first[i];
    double own[12] = {};
    for (int k = 0; k < pairs().repinit.count[i]; ++k) {
      const double* v = &pairs().vec[3 * (p0 + k)];
      const double r = length(v);
      double f[3] = {0, 0, 0};
      for (const Env<T>* env : envs) {
        if (!env || k >= env->prefix->count[i]) continue;
        pair_gradient(*env, &env->block->dstd.data[4 * pairs().center_type[i]], model_.env_protection, r, v,
                      env_row(*env, i) + k, f);
      }
      add_pair(f, v, own, &dforce_[12 * static_cast<std::size_t>(force_shares_.slot[p0 + k])]);
    }
    add_forces(i, own);
  }
}

template <class T>
void CpuBackend<T>::add_forces(std::size_t row, const double* sum) {
  for (int c = 0; c < 3; ++c) output_.force[3 * row + c] += sum[c];
  for (int c = 0; c < 9; ++c) output_.virial[9 * row + c] += sum[3 + c];
}

template <class T>
void CpuBackend<T>::forces(Range atoms) {
  const Shares::Chunk& chunk = force_shares_.of_atom(atoms.begin);
  const int rows = static_cast<int>(chunk.row.size());
#pragma omp parallel for schedule(static) if (threads_ > 1)
  for (int k = 0; k < rows; ++k) {
    double sum[12] = {};
    for (std::int32_t s = chunk.row_first[k]; s < chunk.row_first[k + 1]; ++s) {
      const double* slot = &dforce_[12 * static_cast<std::size_t>(chunk.row_slot[s])];
      for (int c = 0; c < 12; ++c) sum[c] += slot[c];
    }
    add_forces(chunk.row[k], sum);
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
