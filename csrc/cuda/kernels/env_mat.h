// Environment matrices, and the last step of the reverse sweep: from their gradients to forces and virial.
#pragma once

#include "cuda/kernels/views.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// em = (sw/(r+p) (1, v/(r+p)) - davg) / dstd, or (r, v)/rcut with direct_dist; always from double distances.
template <class T>
struct EnvMat {
  State<T> s;
  EnvView<T> env;

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch) const {
    const int type = s.center_type[i] < 0 ? 0 : s.center_type[i];
    const double *avg = env.davg + 4 * type, *std = env.dstd + 4 * type;
    const std::int64_t p0 = s.repinit.first[i], q0 = env.first[i];
    b.each(env.count[i], [&](int k) {
      const double r = s.r[p0 + k];
      const double* v = s.vec + 3 * (p0 + k);
      double sw, dsw;
      switch_function(r, env.rcut_smth, env.rcut, &sw, &dsw);
      env.sw[q0 + k] = T(sw);
      T* em = env.em + 4 * (q0 + k);
      if (env.direct) {
        em[0] = T(r / env.rcut);
        for (int c = 0; c < 3; ++c) em[1 + c] = T(v[c] / env.rcut);
      } else {
        const double inv = 1.0 / (r + s.protection);
        em[0] = T((sw * inv - avg[0]) / std[0]);
        for (int c = 0; c < 3; ++c) em[1 + c] = T((sw * v[c] * inv * inv - avg[1 + c]) / std[1 + c]);
      }
    });
  }
};

// dE/d(r_j - r_i) of every pair, from the gradients of em and sw in all blocks.
template <class T>
struct EnvMatBackward {
  State<T> s;

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch) const {
    const std::int64_t p0 = s.repinit.first[i];
    b.each(s.repinit.count[i], [&](int k) {
      double f[3] = {0, 0, 0};
      for (const EnvView<T>* env : {&s.repinit, &s.three, &s.repformer}) {
        if (env->count && k < env->count[i]) add(*env, i, p0 + k, env->first[i] + k, f);
      }
      for (int c = 0; c < 3; ++c) s.pair_force[3 * (p0 + k) + c] = f[c];
    });
  }

 private:
  DPA2MD_KERNEL void add(const EnvView<T>& env, int i, std::int64_t p, std::int64_t q, double* f) const {
    const double r = s.r[p];
    const double *v = s.vec + 3 * p, *std = env.dstd + 4 * s.center_type[i];
    const T* dem = env.dem + 4 * q;
    double sw, dsw, along, across, scale[3];  // f += along * v/r + across * dem_vector
    switch_function(r, env.rcut_smth, env.rcut, &sw, &dsw);
    if (env.direct) {
      along = dem[0] / env.rcut;
      across = 1.0 / env.rcut;
      for (double& x : scale) x = 1.0;
    } else {
      const double inv = 1.0 / (r + s.protection), inv2 = inv * inv;
      for (int c = 0; c < 3; ++c) scale[c] = 1.0 / std[1 + c];
      double dot = 0;
      for (int c = 0; c < 3; ++c) dot += dem[1 + c] * scale[c] * v[c];
      along = dem[0] / std[0] * (dsw * inv - sw * inv2) + dot * (dsw * inv2 - 2.0 * sw * inv2 * inv);
      across = sw * inv2;
    }
    along += env.dsw[q] * dsw;
    for (int c = 0; c < 3; ++c) f[c] += along * v[c] / r + across * dem[1 + c] * scale[c];
  }
};

// The one place where forces and virial are made: to those of every row are added its own pairs, where it is
// an atom of the chunk, and the chunk's pairs in which it is the neighbour. The first chunk assigns them. One
// warp a row.
template <class T>
struct Forces {
  State<T> s;
  int begin, end;  // the chunk's atoms
  bool assigns;
  RowPairs pairs;
  double *force, *virial;  // (nrows, 3), (nrows, 9)

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    each_of_item(b, item, s.nrows, [&](int k) { row(b, k); });
  }

 private:
  DPA2MD_KERNEL void row(const ThreadBlock& b, int row) const {
    double sum[12] = {};  // force, virial
    std::int64_t from, to;
    pairs.find(b, row, &from, &to);
    const bool own = begin <= row && row < end;
    if (!assigns && !own && from == to) return;
    if (own) {
      const std::int64_t p0 = s.repinit.first[row];
      for (int k = b.lane; k < s.repinit.count[row]; k += b.lanes) add(p0 + k, 1.0, sum);
    }
    for (std::int64_t k = from + b.lane; k < to; k += b.lanes) add(pairs.pair[k], -1.0, sum);
    for (int c = 0; c < 12; ++c) {
      const double total = b.lane_sum(sum[c]);
      if (b.lane != 0) continue;
      double* to_row = c < 3 ? &force[3 * static_cast<std::int64_t>(row) + c]
                             : &virial[9 * static_cast<std::int64_t>(row) + c - 3];
      *to_row = assigns ? total : *to_row + total;
    }
  }
  DPA2MD_KERNEL void add(std::int64_t p, double sign, double* sum) const {
    const double *f = s.pair_force + 3 * p, *v = s.vec + 3 * p;
    for (int a = 0; a < 3; ++a) {
      sum[a] += sign * f[a];
      for (int c = 0; c < 3; ++c) sum[3 + 3 * a + c] -= 0.5 * f[a] * v[c];
    }
  }
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
