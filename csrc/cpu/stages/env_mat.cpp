// Computed in double for either T, with an atom's pairs contiguous, so that loops over them vectorise.
#include "cpu/stages/env_mat.h"

#include <algorithm>
#include <cmath>

#include "cpu/vector/gemm.h"
#include "cpu/vector/lanes.h"
#include "cpu/vector/simd_math.h"
#include "model/formulas.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// Vectors from an atom to its neighbours, (np) each and filled up to whole vectors with neighbours 1 angstrom
// away.
template <class T>
struct EnvMatStage<T>::PairVectors {
  int np;
  Geometry<T>*x, *y, *z, *r;
};

template <class T>
typename EnvMatStage<T>::PairVectors EnvMatStage<T>::pair_vectors(const Workspace& w, int i, int n) const {
  Arena& arena = w.arena();
  PairVectors p;
  p.np = padded(n, lanes<double>());
  for (Geometry<T>** a : {&p.x, &p.y, &p.z, &p.r}) *a = arena.take<Geometry<T>>(p.np);
  read_vectors(w, i, n, &p);
  for (int k = n; k < p.np; ++k) p.x[k] = Geometry<T>(1), p.y[k] = p.z[k] = Geometry<T>(0);
#pragma omp simd
  for (int k = 0; k < p.np; ++k) p.r[k] = math::sqrt(p.x[k] * p.x[k] + p.y[k] * p.y[k] + p.z[k] * p.z[k]);
  return p;
}

// The vectors; of dual numbers, their tangents are how they move along the step's direction.
template <class T>
void EnvMatStage<T>::read_vectors(const Workspace& w, int i, int n, PairVectors* p) const {
  const double* vec = w.pairs().vec.data() + 3 * w.pairs().repinit.first[i];
  if constexpr (!is_dual<T>) {
    for (int k = 0; k < n; ++k) p->x[k] = vec[3 * k], p->y[k] = vec[3 * k + 1], p->z[k] = vec[3 * k + 2];
  } else {
    const Direction& along = *w.input.along;
    const std::int32_t* row = w.pairs().row.data() + w.pairs().repinit.first[i];
    const double *own = along.moves + 3 * i,
                 *strain = along.strains + 9 * (w.input.frame ? w.input.frame[i] : 0);
    for (int k = 0; k < n; ++k, vec += 3) {
      const double* other = along.moves + 3 * row[k];
      double d[3];
      for (int c = 0; c < 3; ++c)
        d[c] = other[c] - own[c] + strain[3 * c] * vec[0] + strain[3 * c + 1] * vec[1] +
               strain[3 * c + 2] * vec[2];
      p->x[k] = {vec[0], d[0]}, p->y[k] = {vec[1], d[1]}, p->z[k] = {vec[2], d[2]};
    }
  }
}

namespace {

constexpr int kDoubles = lanes<double>();
using Doubles = Vector<double, kDoubles>::type;

template <class G>
DPA2MD_INLINE typename Vector<G, kDoubles>::type at(const G* p) {
  return load<kDoubles>(p);
}

// Vectors of doubles to the numbers T in memory.
template <class T>
DPA2MD_INLINE void put(T* to, typename Vector<Geometry<T>, kDoubles>::type x) {
  using V = typename Vector<Real<T>, kDoubles>::type;
  if constexpr (is_dual<T>) {
    store<kDoubles>(to, {__builtin_convertvector(x.value, V), __builtin_convertvector(x.tangent, V)});
  } else {
    store<kDoubles>(to, __builtin_convertvector(x, V));
  }
}

// A sub-network's constants for a type of the centre.
struct EnvConstants {
  double rcut, rcut_smth, avg[4], inv_std[4];
  EnvConstants(const Subnet& b, int center_type) : rcut(b.rcut), rcut_smth(b.rcut_smth) {
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
DPA2MD_INLINE void switch_lanes(const EnvConstants& e, Dual<Doubles> r, Dual<Doubles>* sw, Dual<Doubles>*) {
  Doubles slope;
  switch_lanes(e, r.value, &sw->value, &slope);
  sw->tangent = slope * r.tangent;
}

}  // namespace

// em = (sw/(r+p) (1, v/(r+p)) - davg) / dstd, or (r, v)/rcut with direct_dist.
template <class T>
void EnvMatStage<T>::one(const Workspace& w, Env<T>* env, int i, const PairVectors& p) const {
  Arena& arena = w.arena();
  Arena::Scope scope(arena);
  const EnvConstants e(*env->subnet, w.pairs().center_type[i]);
  const int n = env->prefix->count[i], np = padded(n, lanes<double>());
  T* part = arena.take<T>(5 * static_cast<std::size_t>(np));  // em column by column, sw
  for (int k = 0; k < np; k += kDoubles) {
    using V = typename Vector<Geometry<T>, kDoubles>::type;
    const V r = at(p.r + k), v[3] = {at(p.x + k), at(p.y + k), at(p.z + k)};
    V sw, dsw;
    switch_lanes(e, r, &sw, &dsw);
    const auto column = [&](int c, V x) { put<T>(part + c * np + k, x); };
    column(4, sw);
    if (env->direct) {
      column(0, r / e.rcut);
      for (int c = 0; c < 3; ++c) column(1 + c, v[c] / e.rcut);
    } else {
      const V inv = 1.0 / (r + w.model.env_protection), across = sw * inv * inv;
      column(0, (sw * inv - e.avg[0]) * e.inv_std[0]);
      for (int c = 0; c < 3; ++c) column(1 + c, (across * v[c] - e.avg[1 + c]) * e.inv_std[1 + c]);
    }
  }
  const std::size_t q0 = env->row(w, i);
  transpose(4, n, part, np, env->em.data() + 4 * q0, 4);
  std::copy_n(part + 4 * np, n, env->sw.data() + q0);
}

template <class T>
void EnvMatStage<T>::again(const Workspace& w, Env<T>* env, Range atoms) const {
  for (int i = atoms.begin; i < atoms.end; ++i) {
    Arena::Scope scope(w.arena());
    one(w, env, i, pair_vectors(w, i, env->prefix->count[i]));
  }
}

template <class T>
void EnvMatStage<T>::forward(const Workspace& w, Range atoms) {
  for (int i = atoms.begin; i < atoms.end; ++i) {
    Arena::Scope scope(w.arena());
    const PairVectors p = pair_vectors(w, i, w.pairs().repinit.count[i]);
    one(w, &repinit, i, p);
    if (has_three_body_) one(w, &three_body, i, p);
    if (has_repformers_) one(w, &repformer, i, p);
  }
}

// ---- in reverse

// Adds to f (3, np) what the gradients of a sub-network's em and sw give to dE/d(r_j - r_i).
template <class T>
void EnvMatStage<T>::gradient(const Workspace& w, const Env<T>& env, int i, const PairVectors& p,
                              double* f) const {
  Arena& arena = w.arena();
  Arena::Scope scope(arena);
  const EnvConstants e(*env.subnet, w.pairs().center_type[i]);
  const int n = env.prefix->count[i], np = padded(n, lanes<double>());
  const std::size_t q0 = env.row(w, i);
  T* dem = arena.zeros<T>(5 * static_cast<std::size_t>(np));
  transpose(n, 4, env.dem.data() + 4 * q0, 4, dem, np);
  std::copy_n(env.dsw.data() + q0, n, dem + 4 * np);
  const auto given = [&](int c, int k) {
    return __builtin_convertvector(
        *reinterpret_cast<const typename Vector<T, kDoubles>::type*>(dem + c * np + k), Doubles);
  };
  for (int k = 0; k < np; k += kDoubles) {
    const Doubles r = at(p.r + k), v[3] = {at(p.x + k), at(p.y + k), at(p.z + k)}, inv_r = 1.0 / r;
    Doubles sw, dsw, d[3], along, across;  // f += along v/r + across d
    switch_lanes(e, r, &sw, &dsw);
    for (int c = 0; c < 3; ++c) d[c] = given(1 + c, k);
    if (env.direct) {
      along = given(0, k) / e.rcut;
      across = Doubles{} + 1.0 / e.rcut;
    } else {
      const Doubles inv = w.model.env_protection == 0 ? inv_r : 1.0 / (r + w.model.env_protection),
                    inv2 = inv * inv;
      for (int c = 0; c < 3; ++c) d[c] *= e.inv_std[1 + c];
      along = given(0, k) * e.inv_std[0] * (dsw * inv - sw * inv2) +
              (d[0] * v[0] + d[1] * v[1] + d[2] * v[2]) * (dsw * inv2 - 2.0 * sw * inv2 * inv);
      across = sw * inv2;
    }
    along = (along + given(4, k) * dsw) * inv_r;
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

void add_forces(const StepOutput& output, std::size_t row, const double* sum) {
  for (int c = 0; c < 3; ++c) output.force[3 * row + c] += sum[c];
  for (int c = 0; c < 9; ++c) output.virial[9 * row + c] += sum[3 + c];
}

}  // namespace

template <class T>
void EnvMatStage<T>::backward(const Workspace& w, Range atoms) {
  Arena& arena = w.arena();
  const Prefix& prefix = w.pairs().repinit;
  dforce_.zero(12 * shares_.begin(atoms.begin), 12 * shares_.end(atoms.begin));
  for (int i = atoms.begin; i < atoms.end; ++i) {
    Arena::Scope scope(arena);
    const int n = prefix.count[i];
    const PairVectors p = pair_vectors(w, i, n);
    double* f = arena.zeros<double>(3 * static_cast<std::size_t>(p.np));
    gradient(w, repinit, i, p, f);
    if (has_three_body_) gradient(w, three_body, i, p, f);
    if (has_repformers_) gradient(w, repformer, i, p, f);
    const std::int32_t* slot = shares_.slot.data() + prefix.first[i];
    PairForce own;
    for (int k = 0; k < n; ++k) {
      const PairForce pair(f[k], f[p.np + k], f[2 * p.np + k], p.x[k], p.y[k], p.z[k]);
      pair.add_to(&dforce_[12 * static_cast<std::size_t>(slot[k])]);
      own.low += pair.low, own.high += pair.high;
    }
    double sum[12] = {};
    own.add_to(sum);
    for (int c = 0; c < 3; ++c) sum[c] = -sum[c];
    add_forces(w.output, i, sum);
  }
}

template <class T>
void EnvMatStage<T>::forces(const Workspace& w, Range atoms) const {
  const Shares::Span& span = shares_.of_atom(atoms.begin);
  const int rows = static_cast<int>(span.row.size());
#pragma omp parallel for schedule(static) if (w.threads > 1)
  for (int k = 0; k < rows; ++k) {
    double sum[12] = {};
    for (std::int32_t s = span.row_first[k]; s < span.row_first[k + 1]; ++s) {
      const double* slot = &dforce_[12 * static_cast<std::size_t>(span.row_slot[s])];
      for (int c = 0; c < 12; ++c) sum[c] += slot[c];
    }
    add_forces(w.output, span.row[k], sum);
  }
}

// ---- what a step needs

template <class T>
EnvMatStage<T>::EnvMatStage(const Model& m)
    : has_three_body_(m.has_three_body), has_repformers_(m.repformer.nlayers > 0) {
  repinit.subnet = &m.repinit, three_body.subnet = &m.three_body, repformer.subnet = &m.repformer;
  repformer.direct = m.repformer.direct_dist;
}

template <class T>
void EnvMatStage<T>::begin(const Workspace& w, int spans) {
  const PairList& p = w.pairs();
  repinit.prefix = &p.repinit, three_body.prefix = &p.three_body, repformer.prefix = &p.repformer;
  repinit.block_pairs = most_in_block(p.repinit, p.natoms, w.block);
  three_body.block_pairs = most_in_block(p.three_body, p.natoms, w.block);
  if (w.input.forces && !is_dual<T>) shares_.build(p, p.repinit, w.block, spans);
}

template <class T>
void Env<T>::plan(std::size_t pairs, bool backward, MemoryPlan* to) {
  to->add(&em, 4 * pairs);
  to->add(&dem, backward ? 4 * pairs : 0);
  to->add(&sw, pairs);
  to->add(&dsw, backward ? pairs : 0);
}

template <class T>
void EnvMatStage<T>::plan(const Workspace& w, MemoryPlan* to) {
  const bool back = w.input.forces;
  repinit.plan(w.threads * repinit.block_pairs, back, to);
  three_body.plan(w.threads * three_body.block_pairs, back, to);
  repformer.plan(w.pairs().repformer.first[w.pairs().natoms], back, to);
  to->add(&dforce_, back && !is_dual<T> ? 12 * shares_.size() : 0);
}

template class EnvMatStage<float>;
template class EnvMatStage<double>;
// The sweep of dual numbers ends at the weights: it has no forces.
#define DPA2MD_INSTANTIATE(T)                                        \
  template EnvMatStage<T>::EnvMatStage(const Model&);                \
  template void EnvMatStage<T>::begin(const Workspace&, int);        \
  template void EnvMatStage<T>::plan(const Workspace&, MemoryPlan*); \
  template void EnvMatStage<T>::forward(const Workspace&, Range);    \
  template void EnvMatStage<T>::again(const Workspace&, Env<T>*, Range) const;
DPA2MD_INSTANTIATE(Dual<float>)
DPA2MD_INSTANTIATE(Dual<double>)

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
