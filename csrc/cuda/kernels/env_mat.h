// Environment matrices, and the end of the reverse sweep: forces and virial from their gradients.
#pragma once

#include "cuda/kernels/views.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// A pair's distance and vector, in double, with the only division that both kernels do.
struct PairDistance {
  double r, v[3], inverse;  // 1 / (r + protection)

  DPA2MD_KERNEL PairDistance(const double* r_of, const double* vec, std::int64_t p, double protection)
      : r(r_of[p]), v{vec[3 * p], vec[3 * p + 1], vec[3 * p + 2]}, inverse(1.0 / (r + protection)) {}

  template <class T>
  DPA2MD_KERNEL void switch_of(const EnvView<T>& env, double* sw, double* dsw) const {
    switch_polynomial(math::clamp((r - env.rcut_smth) * env.inverse_width, 0.0, 1.0), 1.0, sw, dsw);
    *dsw *= env.inverse_width;
  }
};

// em = (sw/(r+p) (1, v/(r+p)) - davg) / dstd, or (r, v)/rcut with direct_dist, for every sub-network that
// sees a pair. A warp per atom.
template <class T>
struct EnvMat {
  State<T> s;
  int end;         // of the atoms
  bool repformer;  // the repformers' own, too

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    each_of_item(b, item, end, [&](int i) {
      const int type = s.center_type[i] < 0 ? 0 : s.center_type[i];
      const int three = s.three.count ? s.three.count[i] : 0;
      const int nearest = repformer ? s.repformer.count[i] : 0;
      for (int k = b.lane; k < s.repinit.count[i]; k += b.lanes) {
        const PairDistance at(s.r, s.vec, s.repinit.first[i] + k, s.protection);
        put(s.repinit, type, at, s.repinit.first[i] + k);
        if (k < three) put(s.three, type, at, s.three.first[i] + k);
        if (k < nearest) put(s.repformer, type, at, s.repformer.first[i] + k);
      }
    });
  }

 private:
  DPA2MD_KERNEL void put(const EnvView<T>& env, int type, const PairDistance& at, std::int64_t q) const {
    double sw, dsw;
    at.switch_of(env, &sw, &dsw);
    env.sw[q] = T(sw);
    if (env.direct) {
      const double scale = 1.0 / env.rcut;
      four(env.em + 4 * q) = {T(at.r * scale), T(at.v[0] * scale), T(at.v[1] * scale), T(at.v[2] * scale)};
      return;
    }
    const double *avg = env.davg + 4 * type, *scale = env.inverse_std + 4 * type;
    const double radial = sw * at.inverse, along = radial * at.inverse;
    four(env.em + 4 * q) = {T((radial - avg[0]) * scale[0]), T((along * at.v[0] - avg[1]) * scale[1]),
                            T((along * at.v[1] - avg[2]) * scale[2]),
                            T((along * at.v[2] - avg[3]) * scale[3])};
  }
};

// dE/d(r_j - r_i) of every pair, from the gradients of em and sw in all blocks. A warp per atom.
template <class T>
struct EnvMatBackward {
  State<T> s;
  int end;

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    each_of_item(b, item, end, [&](int i) {
      const int three = s.three.count ? s.three.count[i] : 0;
      const int nearest = s.repformer.count ? s.repformer.count[i] : 0;
      for (int k = b.lane; k < s.repinit.count[i]; k += b.lanes) {
        const std::int64_t p = s.repinit.first[i] + k;
        const PairDistance at(s.r, s.vec, p, s.protection);
        double along = 0, across[3] = {0, 0, 0};  // f = along * v / r + across
        add(s.repinit, i, at, p, &along, across);
        if (k < three) add(s.three, i, at, s.three.first[i] + k, &along, across);
        if (k < nearest) add(s.repformer, i, at, s.repformer.first[i] + k, &along, across);
        along *= s.protection == 0 ? at.inverse : 1.0 / at.r;
        for (int c = 0; c < 3; ++c) s.pair_force[3 * p + c] = along * at.v[c] + across[c];
      }
    });
  }

 private:
  DPA2MD_KERNEL void add(const EnvView<T>& env, int i, const PairDistance& at, std::int64_t q, double* along,
                         double* across) const {
    const Four<T> dem = four(env.dem + 4 * q);
    double sw, dsw;
    at.switch_of(env, &sw, &dsw);
    *along += env.dsw[q] * dsw;
    if (env.direct) {
      const double scale = 1.0 / env.rcut;
      *along += dem.x[0] * scale;
      for (int c = 0; c < 3; ++c) across[c] += dem.x[1 + c] * scale;
      return;
    }
    const double* scale = env.inverse_std + 4 * s.center_type[i];
    const double inv = at.inverse, inv2 = inv * inv;
    double dot = 0;
    for (int c = 0; c < 3; ++c) {
      const double d = dem.x[1 + c] * scale[1 + c];
      dot += d * at.v[c];
      across[c] += sw * inv2 * d;
    }
    *along += dem.x[0] * scale[0] * (dsw * inv - sw * inv2) + dot * (dsw * inv2 - 2.0 * sw * inv2 * inv);
  }
};

// Accumulates forces and virial: each row gathers its own pairs, if it is an atom of the chunk, and the
// chunk's pairs in which it is the neighbour. The first chunk assigns. One warp per row.
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
