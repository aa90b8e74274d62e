#include "cpu/stages/three_body.h"

#include <algorithm>

#include "cpu/vector/lanes.h"

namespace dpa2md {
namespace DPA2MD_ISA {

namespace {
constexpr int kColumns = 256;  // about as many columns as keep the nets' arrays in the first-level cache

}  // namespace

template <class T>
ThreeBodyStage<T>::ThreeBodyStage(const Model& m, const Weights<T>& types)
    : model_(m),
      types_(types),
      tables_(std::make_shared<Tables<Real<T>>>()),
      node_tables_(std::make_shared<NodeTables>()) {
  prepare();
}

template <class T>
ThreeBodyStage<T>::ThreeBodyStage(const Model& m, const Weights<T>& types,
                                  const ThreeBodyStage<Real<T>>& plain, Gradients<Real<T>>* gradients)
    : model_(m), types_(types), tables_(plain.tables_), node_tables_(plain.node_tables_) {
  prepare();
  if (!m.has_three_body) return;
  const Embedding& e = m.three_body;
  net_gradient_.prepare(e.net, gradients);
  table_gradient_ = gradients->tables();
  (e.strip ? gate_gradient_ : types_gradient_) =
      gradients->sums(e.strip ? e.strip_table.data.size() : m.type_embedding.data.size());
}

template <class T>
void ThreeBodyStage<T>::prepare() {
  if (!model_.has_three_body) return;
  const Embedding& e = model_.three_body;
  if (!e.net.empty()) net_.prepare(e.net);
  gate_ = cast_padded<T>(e.strip_table, e.ng);
  if (e.strip) prepare_both();
}

template <class T>
void ThreeBodyStage<T>::add_gradient(Model* gradient, const Workspace& w) const {
  add_table_gradient(gradient, w);
  net_gradient_.add_gradient(&gradient->three_body.net);
  if (gate_gradient_) add_to(gate_gradient_->total, &gradient->three_body.strip_table);
  if (types_gradient_) add_to(types_gradient_->total, &gradient->type_embedding);
}

template <class T>
typename ThreeBodyStage<T>::Atom ThreeBodyStage<T>::atom(const Workspace& w, const Env<T>& env, int i) const {
  const std::size_t q0 = env.row(w, i);
  Atom s;
  s.n = w.pairs().three_body.count[i];
  s.em = env.em.data() + 4 * q0, s.sw = env.sw.data() + q0;
  s.dem = s.dsw = nullptr;
  s.type = w.pairs().type.data() + w.pairs().repinit.first[i];
  return s;
}

// g(c_jk) for the block of neighbours that begins with j0.
template <class T>
void ThreeBodyStage<T>::block(int j0, Arena& arena, bool tape, Atom* s) const {
  const Embedding& e = model_.three_body;
  const int n = s->n, tebd = e.strip ? 0 : model_.tebd_dim();
  s->j0 = j0;
  s->rows = std::min(std::max(1, kColumns / n), n - j0);
  s->columns = s->rows * n;
  const int ld = s->ld = padded(s->columns, lanes<T>());
  s->x = arena.zeros<T>(static_cast<std::size_t>(1 + 2 * tebd) * ld);
  for (int j = j0, column = 0; j < j0 + s->rows; ++j) {
    const T* ej = s->em + 4 * j;
    const Real<T>* tj = types_.data() + s->type[j] * tebd;
    for (int k = 0; k < n; ++k, ++column) {
      const T* ek = s->em + 4 * k;
      const Real<T>* tk = types_.data() + s->type[k] * tebd;
      s->x[column] = ej[1] * ek[1] + ej[2] * ek[2] + ej[3] * ek[3];
      for (int c = 0; c < tebd; ++c) {
        s->x[(1 + c) * ld + column] = T(tj[c]);
        s->x[(1 + tebd + c) * ld + column] = T(tk[c]);
      }
    }
  }
  s->raw = net_.forward(s->x, ld, arena, tape ? &s->tape : nullptr);
  if (e.strip) block_gate(arena, s);
}

template <class T>
void ThreeBodyStage<T>::block_gate(Arena& arena, Atom* s) const {
  const int ng = model_.three_body.ng, np = padded(ng, lanes<T>()), nt = model_.ntypes();
  const T* sw = s->sw;
  s->gate = arena.zeros<T>(static_cast<std::size_t>(ng) * s->ld);
  s->factor = arena.zeros<T>(s->ld);
  for (int column = 0; column < s->columns; ++column) {
    const int j = s->j0 + column / s->n, k = column % s->n;
    const Real<T>* gate = gate_.data() + (static_cast<std::size_t>(s->type[j]) * nt + s->type[k]) * np;
    for (int m = 0; m < ng; ++m) s->gate[m * s->ld + column] = T(gate[m]);
    s->factor[column] = model_.smooth ? sw[j] * sw[k] : T(1);
  }
}

// ---- the stage

template <class T>
void ThreeBodyStage<T>::net(Arena& arena, Atom* s, T* out) const {
  const Embedding& e = model_.three_body;
  const Real<T> factor = norm();
  std::fill(out, out + e.ng, T(0));
  for (int j = 0; j < s->n; j += s->rows) {
    Arena::Scope scope(arena);
    block(j, arena, false, s);
    for (int m = 0; m < e.ng; ++m) {
      const T* g = s->raw + m * s->ld;
      T sum = dot(s->ld, s->x, g);  // c = 0 in the padding
      for (int k = 0; e.strip && k < s->columns; ++k)
        sum += s->x[k] * g[k] * s->gate[m * s->ld + k] * s->factor[k];
      out[m] += sum * factor;
    }
  }
}

template <class T>
void ThreeBodyStage<T>::forward(const Workspace& w, const Env<T>& env, Range range, Rows<T> out) {
  Arena& a = w.arena();
  for (int i = range.begin; i < range.end; ++i) {
    Arena::Scope scope(a);
    T* to = out[i - range.begin];
    Atom s = atom(w, env, i);
    if (!in_reach(s)) {
      net(a, &s, to);
    } else {
      from_tables(s, to, a);
    }
  }
}

template <class T>
void ThreeBodyStage<T>::backward(const Workspace& w, Env<T>* env, Range range, Rows<T> dout) {
  Arena& a = w.arena();
  for (int i = range.begin; i < range.end; ++i) {
    Arena::Scope scope(a);
    Atom s = atom(w, *env, i);
    const std::size_t q0 = env->row(w, i);
    s.dem = env->dem.data() + 4 * q0, s.dsw = env->dsw.data() + q0;
    std::fill_n(s.dem, 4 * s.n, T(0));
    std::fill_n(s.dsw, s.n, T(0));
    const T* from = dout[i - range.begin];
    if (in_reach(s)) {
      from_tables_backward(s, w.group(i), from, a);
      continue;
    }
    for (int j = 0; j < s.n; j += s.rows) {
      Arena::Scope scope_of_block(a);
      block(j, a, true, &s);
      block_backward(from, w.group(i), &s, a);
    }
  }
}

// Adds the block's share to dem and dsw.
template <class T>
void ThreeBodyStage<T>::block_backward(const T* dout, [[maybe_unused]] int group, Atom* s,
                                       Arena& arena) const {
  const Embedding& e = model_.three_body;
  const Real<T> factor = norm();
  T* dc = arena.zeros<T>(s->ld);
  T* dfactor = arena.zeros<T>(s->ld);
  T* dg = arena.take<T>(static_cast<std::size_t>(e.ng) * s->ld);
  if constexpr (is_dual<T>) gate_backward(group, *s, dout);
  for (int m = 0; m < e.ng; ++m) {
    const T d = dout[m] * factor;
    const T* g = s->raw + m * s->ld;
    T* dgm = dg + m * s->ld;
    if (!e.strip) {
      for (int k = 0; k < s->ld; ++k) dc[k] += d * g[k], dgm[k] = d * s->x[k];
      continue;
    }
    const T* gate = s->gate + m * s->ld;
    for (int k = 0; k < s->ld; ++k) {
      const T open = T(1) + gate[k] * s->factor[k];
      dc[k] += d * g[k] * open;
      dgm[k] = d * s->x[k] * open;
      dfactor[k] += d * s->x[k] * g[k] * gate[k];
    }
  }
  if constexpr (is_dual<T>) {  // em and sw have no weights before them
    const typename NetWeights<T>::Gradient to{&net_gradient_, group, s->columns};
    types_backward(group, *s, net_.backward(dg, s->ld, s->tape, e.strip ? 0 : e.net.in(), arena, to));
    return;
  }
  const T* dx = net_.backward(dg, s->ld, s->tape, 1, arena);
  T *dem = s->dem, *dsw = s->dsw;
  const T* sw = s->sw;
  for (int j = s->j0, column = 0; j < s->j0 + s->rows; ++j) {
    for (int k = 0; k < s->n; ++k, ++column) {
      const T d = dc[column] + dx[column];
      for (int c = 1; c < 4; ++c) {
        dem[4 * j + c] += d * s->em[4 * k + c];
        dem[4 * k + c] += d * s->em[4 * j + c];
      }
      if (e.strip && model_.smooth) {
        dsw[j] += dfactor[column] * sw[k];
        dsw[k] += dfactor[column] * sw[j];
      }
    }
  }
}

// T(t_j, t_k), which enters g as raw (1 + T factor).
template <class T>
void ThreeBodyStage<T>::gate_backward(int group, const Atom& s, const T* dout) const {
  const Embedding& e = model_.three_body;
  if (!e.strip) return;
  double* sum = gate_gradient_->of(group);
  for (int column = 0; column < s.columns; ++column) {
    const int j = s.j0 + column / s.n, k = column % s.n;
    double* to = sum + (static_cast<std::size_t>(s.type[j]) * model_.ntypes() + s.type[k]) * e.ng;
    const T factor = norm() * s.x[column] * s.factor[column];
    for (int m = 0; m < e.ng; ++m) to[m] += double(tangent_of(dout[m] * s.raw[m * s.ld + column] * factor));
  }
}

// The type embeddings, of dx (in, ld): what a concat net reads.
template <class T>
void ThreeBodyStage<T>::types_backward(int group, const Atom& s, const T* dx) const {
  if (model_.three_body.strip) return;
  const int tebd = model_.tebd_dim();
  double* sum = types_gradient_->of(group);
  for (int column = 0; column < s.columns; ++column) {
    double* first = sum + s.type[s.j0 + column / s.n] * tebd;
    double* second = sum + s.type[column % s.n] * tebd;
    for (int c = 0; c < tebd; ++c) {
      first[c] += double(tangent_of(dx[(1 + c) * s.ld + column]));
      second[c] += double(tangent_of(dx[(1 + tebd + c) * s.ld + column]));
    }
  }
}

template class ThreeBodyStage<float>;
template class ThreeBodyStage<double>;
template class ThreeBodyStage<Dual<float>>;
template class ThreeBodyStage<Dual<double>>;

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
