#include "cpu/stages/repinit.h"

#include <algorithm>

#include "model/folding.h"

namespace dpa2md {
namespace DPA2MD_ISA {

template <class T>
struct RepinitStage<T>::Atom {
  int n, ld;            // real neighbours, padded to the vector length
  T* raw = nullptr;     // (ng, ld) embedding before the gate of strip mode
  T* gate = nullptr;    // (ng, ld) T(t_j, t_i) [* sw], strip only
  T* g = nullptr;       // (ng, ld) raw (1 + gate)
  T* moment = nullptr;  // (4, padded ng)
  typename NetWeights<T>::Tape tape;
};

// The input of a concat net: em_0, the neighbour's type embedding, the centre's unless one_side.
template <class T>
static T* embedding_input(const Embedding& e, const Weights<T>& types, int tebd, int n, int ld, const T* em,
                          const std::int32_t* neighbor, int center, Arena& arena) {
  const int rows = e.strip ? 1 : 1 + tebd * (e.one_side ? 1 : 2);
  T* x = arena.zeros<T>(static_cast<std::size_t>(rows) * ld);
  for (int j = 0; j < n; ++j) {
    x[j] = em[4 * j];
    if (e.strip) continue;
    for (int c = 0; c < tebd; ++c) x[(1 + c) * ld + j] = T(types[neighbor[j] * tebd + c]);
    for (int c = 0; !e.one_side && c < tebd; ++c) x[(1 + tebd + c) * ld + j] = T(types[center * tebd + c]);
  }
  return x;
}

template <class T>
void RepinitStage<T>::through_net(const Workspace& w, const Env<T>& env, int i, bool tape, Atom* s) const {
  const Embedding& e = model_.repinit;
  Arena& arena = w.arena();
  const int ng = e.ng, ti = w.pairs().center_type[i];
  const std::size_t e0 = env.row(w, i);
  const T* em = env.em.data() + 4 * e0;
  const std::int32_t* neighbor = w.pairs().type.data() + w.pairs().repinit.first[i];
  const int n = s->n = w.pairs().repinit.count[i];
  const int ld = s->ld = padded(n, lanes<T>());
  const std::size_t size = static_cast<std::size_t>(ng) * ld;
  const T* x = embedding_input(e, types_, model_.tebd_dim(), n, ld, em, neighbor, ti, arena);
  s->raw = net_.forward(x, ld, arena, tape ? &s->tape : nullptr);
  s->g = s->raw;
  if (e.strip) {
    s->gate = arena.zeros<T>(size);
    s->g = arena.take<T>(size);
    for (int j = 0; j < n; ++j) {
      const Real<T>* gate = tables_.gate(ti, neighbor[j]);
      const T sw = model_.smooth ? env.sw[e0 + j] : T(1);
      for (int m = 0; m < ng; ++m) s->gate[m * ld + j] = gate[m] * sw;
    }
    for (std::size_t k = 0; k < size; ++k) s->g[k] = s->raw[k] * (T(1) + s->gate[k]);
  }
  T* product = arena.take<T>(4 * static_cast<std::size_t>(ng));
  gemm(ng, 4, n, plain(s->g, ld), em, 4, product, 4, false);
  s->moment = arena.zeros<T>(4 * static_cast<std::size_t>(np_));
  transpose(ng, 4, product, 4, s->moment, np_);
}

// Through the net: assigns dem and dsw of the atom's pairs from d M.
template <class T>
void RepinitStage<T>::net_backward(const Workspace& w, Env<T>* env, int i, const T* dmoment_t) const {
  const Embedding& e = model_.repinit;
  Arena& a = w.arena();
  const int ng = e.ng;
  Atom s;
  through_net(w, *env, i, true, &s);
  T* dmoment = a.take<T>(4 * static_cast<std::size_t>(ng));
  transpose(4, ng, dmoment_t, np_, dmoment, 4);
  const std::int32_t* neighbor = w.pairs().type.data() + w.pairs().repinit.first[i];
  const std::size_t e0 = env->row(w, i);
  const T* em = env->em.data() + 4 * e0;
  T* dem = env->dem.data() + 4 * e0;
  T* dsw = env->dsw.data() + e0;
  gemm(s.n, 4, ng, transposed(s.g, s.ld), dmoment, 4, dem, 4, false);
  T* em_t = a.zeros<T>(4 * static_cast<std::size_t>(s.ld));
  transpose(s.n, 4, em, 4, em_t, s.ld);
  T* dg = a.take<T>(static_cast<std::size_t>(ng) * s.ld);
  gemm(ng, s.ld, 4, plain(dmoment, 4), em_t, s.ld, dg, s.ld, false);
  std::fill(dsw, dsw + s.n, T(0));
  if constexpr (is_dual<T>) gate_backward(w, *env, i, s, dg);
  if (e.strip) {
    for (int m = 0; m < ng; ++m) {
      for (int j = 0; j < s.n; ++j) {
        const int k = m * s.ld + j;
        if (model_.smooth) {
          // gate = T sw; its derivative needs T even where sw = 0
          dsw[j] += dg[k] * s.raw[k] * tables_.gate(w.pairs().center_type[i], neighbor[j])[m];
        }
        dg[k] *= T(1) + s.gate[k];
      }
    }
  }
  if constexpr (is_dual<T>) {
    const typename NetWeights<T>::Gradient to{&net_gradient_, w.group(i), s.n};
    types_backward(w, i, s.ld, net_.backward(dg, s.ld, s.tape, e.strip ? 0 : e.net.in(), a, to));
  } else {
    const T* dx = net_.backward(dg, s.ld, s.tape, 1, a);
    for (int j = 0; j < s.n; ++j) dem[4 * j] += dx[j];
  }
}

// ---- gradients by weights

// T(t_j, t_i), which enters g as raw (1 + T [sw]).
template <class T>
void RepinitStage<T>::gate_backward(const Workspace& w, const Env<T>& env, int i, const Atom& s,
                                    const T* dg) const {
  const Embedding& e = model_.repinit;
  if (!e.strip) return;
  const std::size_t e0 = env.row(w, i);
  const std::int32_t* neighbor = w.pairs().type.data() + w.pairs().repinit.first[i];
  const int center = e.one_side ? 0 : w.pairs().center_type[i] * model_.ntypes();
  double* sum = gate_gradient_->of(w.group(i));
  for (int j = 0; j < s.n; ++j) {
    const T sw = model_.smooth ? env.sw[e0 + j] : T(1);
    double* to = sum + static_cast<std::size_t>(center + neighbor[j]) * e.ng;
    for (int m = 0; m < e.ng; ++m) to[m] += double(tangent_of(dg[m * s.ld + j] * s.raw[m * s.ld + j] * sw));
  }
}

// The type embeddings, of dx (in, ld): what a concat net reads.
template <class T>
void RepinitStage<T>::types_backward(const Workspace& w, int i, int ld, const T* dx) const {
  const Embedding& e = model_.repinit;
  if (e.strip) return;
  const std::int32_t* neighbor = w.pairs().type.data() + w.pairs().repinit.first[i];
  const int tebd = model_.tebd_dim(), n = w.pairs().repinit.count[i];
  double* sum = types_gradient_->of(w.group(i));
  double* own = sum + w.pairs().center_type[i] * tebd;
  for (int c = 0; c < tebd; ++c) {
    for (int j = 0; j < n; ++j) sum[neighbor[j] * tebd + c] += double(tangent_of(dx[(1 + c) * ld + j]));
    for (int j = 0; !e.one_side && j < n; ++j) own[c] += double(tangent_of(dx[(1 + tebd + c) * ld + j]));
  }
}

// The empty slots, of d M.
template <class T>
void RepinitStage<T>::empty_backward(const Workspace& w, int i, const T* dmoment) const {
  if (empty_.empty()) return;
  const PairList& p = w.pairs();
  const int ng = model_.repinit.ng, empty = model_.repinit.nsel - p.repinit.count[i] - p.zeroed[i];
  double* to = empty_gradient_->of(w.group(i)) + static_cast<std::size_t>(p.center_type[i]) * 4 * ng;
  for (int c = 0; c < 4; ++c) {
    for (int m = 0; m < ng; ++m) to[c * ng + m] += empty * double(tangent_of(dmoment[c * np_ + m]));
  }
}

template <class T>
void RepinitStage<T>::add_gradient(Model* gradient, const Workspace& w) const {
  tables_.add_gradient(gradient, w);
  net_gradient_.add_gradient(&gradient->repinit.net);
  if (gate_gradient_) add_to(gate_gradient_->total, &gradient->repinit.strip_table);
  if (types_gradient_) add_to(types_gradient_->total, &gradient->type_embedding);
  if (empty_gradient_) unfold_empty_slots(model_, empty_gradient_->total, &gradient->repinit.net);
}

// ---- the stage

template <class T>
RepinitStage<T>::RepinitStage(const Workspace& w, const Weights<T>& types)
    : model_(w.model),
      types_(types),
      keeps_moments_(!w.low_memory || !w.model.is_dpa2),
      np_(padded(w.model.repinit.ng, lanes<T>())),
      tables_(w.model, w.threads) {
  prepare();
}

template <class T>
RepinitStage<T>::RepinitStage(const Workspace& w, const Weights<T>& types, const RepinitStage<Real<T>>& plain,
                              Gradients<Real<T>>* gradients)
    : model_(w.model),
      types_(types),
      keeps_moments_(true),
      np_(plain.np_),
      tables_(w.model, w.threads, plain.tables_, gradients) {
  prepare();
  const Embedding& e = model_.repinit;
  net_gradient_.prepare(e.net, gradients);
  if (e.strip) gate_gradient_ = gradients->sums(e.strip_table.data.size());
  if (!e.strip) types_gradient_ = gradients->sums(model_.type_embedding.data.size());
  if (!empty_.empty())
    empty_gradient_ = gradients->sums(static_cast<std::size_t>(model_.ntypes()) * 4 * e.ng);
}

template <class T>
void RepinitStage<T>::prepare() {
  tables_.prepare();
  if (!model_.repinit.net.empty()) net_.prepare(model_.repinit.net);
  empty_ = cast_padded<T>(fold_empty_slots(model_), model_.repinit.ng);
}

template <class T>
void RepinitStage<T>::plan(const Workspace& w, MemoryPlan* to) {
  to->add(&moment_, keeps_moments_ ? static_cast<std::size_t>(w.pairs().natoms) * 4 * np_ : 0);
}

// M of an atom, from tables if possible, with what the empty slots add.
template <class T>
void RepinitStage<T>::moments(const Workspace& w, const Env<T>& env, int i, T* moment) const {
  const Embedding& e = model_.repinit;
  if (const TablePlace<T>* places = tables_.places(w, env, i, false)) {
    tables_.moment(w, env, i, places, moment);
  } else {
    Atom s;
    through_net(w, env, i, false, &s);
    std::copy(s.moment, s.moment + 4 * np_, moment);
  }
  if (!empty_.empty()) {
    const PairList& p = w.pairs();
    const Real<T> empty = Real<T>(e.nsel - p.repinit.count[i] - p.zeroed[i]);
    axpy(4 * np_, empty, empty_.data() + static_cast<std::size_t>(p.center_type[i]) * 4 * np_, moment);
  }
  for (int k = 0; k < 4 * np_; ++k) moment[k] /= T(e.nsel);
}

template <class T>
void RepinitStage<T>::forward(const Workspace& w, const Env<T>& env, Range range, Rows<T> out) {
  const int ng = model_.repinit.ng, axis = model_.repinit_axis;
  Arena& a = w.arena();
  for (int i = range.begin; i < range.end; ++i) {
    Arena::Scope scope(a);
    T* to = out[i - range.begin];
    if (w.pairs().center_type[i] < 0) {
      std::fill(to, to + ng * axis, T(0));
      continue;
    }
    T* moment = keeps_moments_ ? kept_moment(i) : a.take<T>(4 * static_cast<std::size_t>(np_));
    moments(w, env, i, moment);
    squares(moment, to);
  }
}

// D from M
template <class T>
void RepinitStage<T>::squares(const T* moment, T* out) const {
  const int ng = model_.repinit.ng, axis = model_.repinit_axis, np = np_;
  for (int a = 0; a < axis; ++a) {
    const T x[4] = {moment[a], moment[np + a], moment[2 * np + a], moment[3 * np + a]};
    for_lanes<T>(ng, [&](int m, auto w) {
      const T* y = moment + m;
      store<w>(out + a * ng + m, load<w>(y) * x[0] + load<w>(y + np) * x[1] + load<w>(y + 2 * np) * x[2] +
                                     load<w>(y + 3 * np) * x[3]);
    });
  }
}

template <class T>
void RepinitStage<T>::descriptor(int i, double* out) const {
  const int ng = model_.repinit.ng, axis = model_.repinit_axis;
  std::vector<T> d(static_cast<std::size_t>(ng) * axis);
  squares(moment_.data() + static_cast<std::size_t>(i) * 4 * np_, d.data());
  for (int k = 0; k < ng * axis; ++k) out[k] = double(value_of(d[k % axis * ng + k / axis]));
}

// d M (4, padded ng) from d D, with the 1 / nsel of M.
template <class T>
void RepinitStage<T>::moments_backward(const T* dout, const T* moment, T* dmoment) const {
  const int ng = model_.repinit.ng, axis = model_.repinit_axis, np = np_;
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
void RepinitStage<T>::backward(const Workspace& w, Env<T>* env, Range range, Rows<T> dout) {
  const std::size_t size = 4 * static_cast<std::size_t>(np_);
  Arena& a = w.arena();
  for (int i = range.begin; i < range.end; ++i) {
    const bool virtual_atom = w.pairs().center_type[i] < 0;  // empty slots of others meet weights
    if (w.pairs().repinit.count[i] == 0 && (!is_dual<T> || empty_.empty() || virtual_atom)) continue;
    Arena::Scope scope(a);
    T* moment = keeps_moments_ ? kept_moment(i) : a.take<T>(size);
    if (!keeps_moments_) moments(w, *env, i, moment);
    T* dmoment = a.zeros<T>(size);
    moments_backward(dout[i - range.begin], moment, dmoment);
    if constexpr (is_dual<T>) empty_backward(w, i, dmoment);
    if (const TablePlace<T>* places = tables_.places(w, *env, i, true)) {
      tables_.moment_backward(w, env, i, places, dmoment);
    } else {
      net_backward(w, env, i, dmoment);
    }
  }
}

template class RepinitStage<float>;
template class RepinitStage<double>;
template class RepinitStage<Dual<float>>;
template class RepinitStage<Dual<double>>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
