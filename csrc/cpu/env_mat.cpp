// Environment matrices, and the last step of the reverse sweep: from their gradients to forces and virial.
#include <cmath>

#include "cpu_backend.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// em = (sw/(r+p) (1, v/(r+p)) - davg) / dstd, or (r, v)/rcut with direct_dist; always from double distances.
template <class T>
void CpuBackend<T>::env_mat_block(Env<T>& env, Range range) {
  const Block& b = *env.block;
  for (int i = range.begin; i < range.end; ++i) {
    const double* avg = &b.davg.data[4 * pairs().center_type[i] * (pairs().center_type[i] >= 0)];
    const double* std = &b.dstd.data[4 * pairs().center_type[i] * (pairs().center_type[i] >= 0)];
    const std::int64_t p0 = pairs().repinit.first[i], q0 = env.prefix->first[i];
    for (int k = 0; k < env.prefix->count[i]; ++k) {
      const double r = pairs().r[p0 + k];
      const double* v = &pairs().vec[3 * (p0 + k)];
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
void pair_gradient(const Env<T>& env, const double* std, double p, double r, const double* v, std::int64_t q,
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

template <class T>
void CpuBackend<T>::env_mat_backward(Range range) {
  const Env<T>* envs[3] = {&env_repinit_, model_.has_three_body ? &env_three_ : nullptr,
                           rep().nlayers ? &env_rep_ : nullptr};
  for (int i = range.begin; i < range.end; ++i) {
    const std::int64_t p0 = pairs().repinit.first[i];
    for (int k = 0; k < pairs().repinit.count[i]; ++k) {
      double* f = &pair_force_[3 * (p0 + k)];
      f[0] = f[1] = f[2] = 0;
      for (const Env<T>* env : envs) {
        if (!env || k >= env->prefix->count[i]) continue;
        pair_gradient(*env, &env->block->dstd.data[4 * pairs().center_type[i]], model_.env_protection,
                      pairs().r[p0 + k], &pairs().vec[3 * (p0 + k)], env->prefix->first[i] + k, f);
      }
    }
  }
}

// The one place where forces and virial are made: a row gathers its own pairs and those in which it is the
// neighbour.
template <class T>
void CpuBackend<T>::forces(Range rows) {
  const auto add = [&](std::int64_t p, double sign, double* force, double* virial) {
    const double* f = &pair_force_[3 * p];
    const double* v = &pairs().vec[3 * p];
    for (int a = 0; a < 3; ++a) {
      force[a] += sign * f[a];
      for (int b = 0; b < 3; ++b) virial[3 * a + b] -= 0.5 * f[a] * v[b];
    }
  };
  for (int row = rows.begin; row < rows.end; ++row) {
    double force[3] = {0, 0, 0}, virial[9] = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    if (row < pairs().natoms) {
      const std::int64_t p0 = pairs().repinit.first[row];
      for (int k = 0; k < pairs().repinit.count[row]; ++k) add(p0 + k, 1.0, force, virial);
    }
    const Transpose& t = pairs().by_row;
    for (std::int64_t k = t.first[row]; k < t.first[row + 1]; ++k) add(t.pair[k], -1.0, force, virial);
    for (int c = 0; c < 3; ++c) output_.force[3 * static_cast<std::size_t>(row) + c] = force[c];
    for (int c = 0; c < 9; ++c) output_.virial[9 * static_cast<std::size_t>(row) + c] = virial[c];
  }
}

#define DPA2MD_INSTANTIATE(T)                           \
  template void CpuBackend<T>::env_mat(Range);          \
  template void CpuBackend<T>::env_mat_backward(Range); \
  template void CpuBackend<T>::forces(Range);
DPA2MD_INSTANTIATE(float)
DPA2MD_INSTANTIATE(double)

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
