#include "model/parameters.h"

#include <algorithm>

#include "base/error.h"

namespace dpa2md {
namespace {

using Visit = std::function<void(const std::string&, Tensor*)>;

void visit(const std::string& name, Tensor* t, const Visit& f) {
  if (!t->empty()) f(name, t);
}

void visit_layer(const std::string& name, Layer* l, const Visit& f) {
  visit(name + ".w", &l->w, f);
  visit(name + ".b", &l->b, f);
  visit(name + ".idt", &l->idt, f);
}

void visit_net(const std::string& name, Net* net, const Visit& f) {
  for (std::size_t k = 0; k < net->layers.size(); ++k)
    visit_layer(name + "." + std::to_string(k), &net->layers[k], f);
}

void visit_repformer_layer(const std::string& p, RepformerLayer* y, const Visit& f) {
  visit_layer(p + ".linear1", &y->linear1, f);
  visit_layer(p + ".linear2", &y->linear2, f);
  visit_layer(p + ".g1_self", &y->g1_self, f);
  visit(p + ".conv.w", &y->conv, f);
  visit(p + ".g1g1.w", &y->g1g1, f);
  visit(p + ".attn2.qk.w", &y->attn2_qk, f);
  visit(p + ".attn2.v.w", &y->attn2_v, f);
  visit_layer(p + ".attn2.head", &y->attn2_head, f);
  visit(p + ".attn2.ln.w", &y->ln_w, f);
  visit(p + ".attn2.ln.b", &y->ln_b, f);
  visit(p + ".attn2.h2_head.w", &y->attn2_h2_head, f);
  visit(p + ".attn1.q.w", &y->attn1_q, f);
  visit(p + ".attn1.kv.w", &y->attn1_kv, f);
  visit_layer(p + ".attn1.head", &y->attn1_head, f);
  visit(p + ".g1_residual", &y->g1_residual, f);
  visit(p + ".g2_residual", &y->g2_residual, f);
  visit(p + ".h2_residual", &y->h2_residual, f);
}

// Calls part(begin, end) for parts of 0 … n-1, in OpenMP's threads if n is large.
template <class F>
void in_parts(std::size_t n, const F& part) {
  constexpr std::size_t most = 16384;
#pragma omp parallel for schedule(static) if (n > 2 * most)
  for (std::size_t k = 0; k < n; k += most) part(k, std::min(n, k + most));
}

}  // namespace

void each_parameter(Model* m, const Visit& f) {
  visit("type_embedding", &m->type_embedding, f);
  visit_net("repinit.net", &m->repinit.net, f);
  visit("repinit.strip_table", &m->repinit.strip_table, f);
  if (m->has_three_body) {
    visit_net("three_body.net", &m->three_body.net, f);
    visit("three_body.strip_table", &m->three_body.strip_table, f);
  }
  visit("g1_transform", &m->g1_transform, f);
  visit("tebd_transform", &m->tebd_transform, f);
  if (m->is_dpa2) visit_layer("repformer.g2_embd", &m->repformer.g2_embd, f);
  for (int l = 0; l < m->repformer.nlayers; ++l)
    visit_repformer_layer("repformer." + std::to_string(l), &m->repformer.layers[l], f);
  visit_net("fitting.net", &m->fitting.net, f);
}

void clear_parameters(Model* model) {
  each_parameter(model, [](const std::string&, Tensor* t) {
    double* to = t->data.data();
    in_parts(t->data.size(),
             [=](std::size_t begin, std::size_t end) { std::fill(to + begin, to + end, 0.0); });
  });
}

std::size_t parameter_count(const Model& model) {
  std::size_t count = 0;
  each_parameter(const_cast<Model*>(&model), [&](const std::string&, Tensor* t) { count += t->data.size(); });
  return count;
}

void get_parameters(const Model& model, double* flat) {
  each_parameter(const_cast<Model*>(&model), [&](const std::string&, Tensor* t) {
    const double* from = t->data.data();
    in_parts(t->data.size(),
             [=](std::size_t begin, std::size_t end) { std::copy(from + begin, from + end, flat + begin); });
    flat += t->data.size();
  });
}

void set_parameters(const double* flat, Model* model) {
  each_parameter(model, [&](const std::string&, Tensor* t) {
    double* to = t->data.data();
    in_parts(t->data.size(),
             [=](std::size_t begin, std::size_t end) { std::copy(flat + begin, flat + end, to + begin); });
    flat += t->data.size();
  });
}

void check_trainable(const Model& model) {
  if (!model.repinit.table.empty())
    throw Error(
        "a compressed model can't be trained, since a table has taken the place of its embedding net: use "
        "the "
        "model that was compressed.");
}

}  // namespace dpa2md
