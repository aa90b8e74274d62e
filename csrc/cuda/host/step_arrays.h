// The arrays of a step that stages write for other stages, and where the part of a layer or of a chunk lies.
#pragma once

#include <algorithm>
#include <vector>

#include "cuda/host/chunks.h"
#include "cuda/host/step_sizes.h"
#include "cuda/kernels/repformer_node.h"
#include "cuda/kernels/repformer_pair.h"
#include "model/model.h"

namespace dpa2md {
namespace DPA2MD_GPU {

template <class T>
class StepArrays {
 public:
  explicit StepArrays(const Model& model) : model_(model) {}

  // remakes_attention: the reverse sweep recomputes what it does not keep, in kernels of its own.
  void plan(const StepSizes& z, const State<T>& s, bool remakes_attention, std::vector<Need>* needs);
  void forget_kept_attention() { kept_norm_.clear(), kept_rstd_.clear(); }
  // The sizes that its memory is for; those of no step give null pointers, to reserve scratch with.
  void set_sizes(const StepSizes& z) { sizes_ = z; }
  // Points the state at the arrays.
  void point(State<T>* s) const;

  // ---- arrays of all atoms
  T* g1(int l) const { return g1_.data() + static_cast<std::size_t>(l) * g1_size(); }
  T* dg1(int l) const { return dg1_.data() + static_cast<std::size_t>(l % 2) * g1_size(); }
  std::size_t g1_size() const { return sizes_.nrows * rep().g1_dim; }
  T* g1_slope() const { return g1_slope_.data(); }  // act' where g1 enters
  T* rep_out() const { return rep_out_.data(); }
  // Before the reverse sweep, the gradient of g2 has room for two numbers of every candidate.
  std::int32_t* pair_numbers() const { return reinterpret_cast<std::int32_t*>(dg2_.data()); }

  // ---- arrays of a chunk, with the pointers moved; `before`: the repformers' pairs before it
  PairState<T> pair(int layer, std::int64_t before) const;
  PairState<T> dpair(int layer) const;
  KeptAttention<T> kept_attention(int layer) const;
  KeptAttention<T> attention_again(std::int64_t before) const;
  NodeArrays<T> nodes(Range a) const;
  NodeArrays<T> dnodes(Range a) const;
  T* mlp_slope(int layer, Range a) const { return slope(mlp_slope_, layer, a); }
  T* self_slope(int layer, Range a) const { return slope(self_slope_, layer, a); }

 private:
  struct EnvArrays {
    Buffer<T> em, dem, sw, dsw;

    void plan(std::size_t pairs, std::size_t back, std::vector<Need>* needs) {
      append({need(&em, 4 * pairs), need(&dem, back * 4 * pairs), need(&sw, pairs), need(&dsw, back * pairs)},
             needs);
    }
    void point(EnvView<T>* to) const {
      to->em = em.data(), to->dem = dem.data(), to->sw = sw.data(), to->dsw = dsw.data();
    }
  };
  const Repformer& rep() const { return model_.repformer; }
  // Layers of g2 that are kept from the forward to the reverse sweep.
  std::size_t kept_g2(bool back) const { return rep().nlayers < 3 ? 0 : back ? rep().nlayers - 2 : 1; }
  std::size_t g2_size() const { return sizes_.repformer * rep().g2_dim; }
  std::size_t h2_size() const { return sizes_.repformer * kH2Row; }
  T* slope(const Buffer<T>& kept, int layer, Range a) const;

  const Model& model_;
  StepSizes sizes_;
  EnvArrays repinit_, three_, repformer_;
  Buffer<T> moment_, rep_out_, drep_out_;
  Buffer<T> g1_slope_, mlp_slope_, self_slope_;  // the last two: of the layers' dense updates
  Buffer<T> g1_, dg1_;                           // layers of (nrows, g1); two gradients in turn
  Buffer<T> g2_, dg2_;                           // (repformer pairs, g2): layers, see pair(); one gradient
  Buffer<T> g2_first_;                           // g2 of layer 0, of a chunk
  Buffer<T> kept_norm_, kept_rstd_;              // layers of KeptAttention
  Buffer<T> h2_, dh2_;                           // (repformer pairs, 3), where h2 is updated
  Buffer<T> dgg1_;  // (repformer pairs, g1): each pair's share of its neighbour's gradient
  Buffer<T> cat_, conv_, query_, weighted_, dquery_;
  Buffer<double> pair_force_;
  Buffer<int> tabulated_, tabulated3_;
};

template <class T>
void StepArrays<T>::plan(const StepSizes& z, const State<T>& s, bool remakes_attention,
                         std::vector<Need>* needs) {
  const Repformer& f = rep();
  const std::size_t n = z.natoms, back = z.forces, layers = f.nlayers, node = layers ? n : 0;
  const std::size_t chunk = z.chunk, node_chunk = layers ? chunk : 0;  // atoms
  const std::size_t g1 = z.nrows * f.g1_dim, g2 = z.repformer * f.g2_dim,
                    g2_chunk = z.chunk_repformer * f.g2_dim;
  const std::size_t h2 = f.update_h2 ? z.repformer * kH2Row : 0;
  const std::size_t slopes = layers ? ((layers - 1) * n + chunk) * f.g1_dim : 0;
  const std::size_t attention = f.has_g1_attn ? node_chunk * f.g1_dim * f.attn1_nhead : 0;
  const bool keeps = f.has_g2_attn && layers > 1;
  const std::size_t attentions = back && keeps && z.keep_attention ? layers - 1 : 0;
  // One chunk's attention, which the reverse sweep recomputes where it is not kept.
  const std::size_t again = back && keeps && !z.keep_attention && remakes_attention;
  const std::size_t numbers = (2 * z.candidates * sizeof(std::int32_t) + sizeof(T) - 1) / sizeof(T);
  // Atoms that [D | three-body] (the descriptor of a DPA-1 model) and the moments are held for.
  const std::size_t outputs = layers ? chunk : n, moments = layers ? n : chunk;
  append({need(&tabulated_, s.embedding.table ? n + 1 : 0),
          need(&tabulated3_, s.embedding3.table ? n + 1 : 0),
          need(&moment_, moments * 4 * model_.repinit.ng),
          need(&rep_out_, outputs * s.repinit_width),
          need(&drep_out_, layers ? 0 : back * chunk * s.repinit_width),
          need(&g1_slope_, node * f.g1_dim),
          need(&mlp_slope_, back * slopes),
          need(&self_slope_, back * f.g1_out_mlp * slopes),
          need(&g1_, layers ? (layers + 1) * g1 : 0),
          need(&dg1_, layers ? back * 2 * g1 : 0),
          need(&g2_, kept_g2(z.forces) * g2 + (layers > 1 ? g2_chunk : 0)),
          need(&g2_first_, layers ? g2_chunk : 0),
          need(&dg2_, back * std::max(layers ? g2 : 0, numbers)),
          need(&kept_norm_, attentions * g2 + again * g2_chunk),
          need(&kept_rstd_, attentions * z.repformer + again * z.chunk_repformer),
          need(&h2_, layers ? (layers - 1) * h2 : 0),
          need(&dh2_, back * std::min<std::size_t>(layers, 2) * h2),
          need(&dgg1_, back * z.chunk_repformer * f.g1_dim),
          need(&cat_, layers ? chunk * f.linear1_in() : 0),
          need(&conv_, f.has_conv && f.g1_out_conv ? node_chunk * f.g1_dim : 0),
          need(&query_, attention),
          need(&dquery_, back * attention),
          need(&weighted_, attention),
          need(&pair_force_, back * 3 * z.chunk_pairs)},
         needs);
  repinit_.plan(z.chunk_pairs, back, needs);
  three_.plan(z.chunk_three, back, needs);
  repformer_.plan(z.repformer, back, needs);
}

template <class T>
void StepArrays<T>::point(State<T>* s) const {
  repinit_.point(&s->repinit);
  three_.point(&s->three);
  repformer_.point(&s->repformer);
  s->tabulated = s->embedding.table ? tabulated_.data() : nullptr;
  s->tabulated3 = s->embedding3.table ? tabulated3_.data() : nullptr;
  s->moment = moment_.data(), s->rep_out = rep_out_.data();
  // In DPA-2 the gradient of [D | three-body] overwrites it, since no later stage reads it.
  s->drep_out = rep().nlayers ? rep_out_.data() : drep_out_.data();
  s->dgg1 = dgg1_.data(), s->pair_force = pair_force_.data();
}

// h2 of layer 0, columns 1 ... 3 of em; or its gradient, of d em.
template <class T>
T* directions(T* em) {
  return em ? em + 1 : nullptr;
}

// The pair state of a layer. Layer 0: g2 is made from em for each chunk, and h2 is part of em. Inner layers:
// g2 is kept for the reverse sweep; without one, all share one array. Last layer: g2 of one chunk, stored
// after the kept layers.
template <class T>
PairState<T> StepArrays<T>::pair(int l, std::int64_t before) const {
  const bool back = sizes_.forces;
  PairState<T> p{nullptr, directions(repformer_.em.data())};
  if (l == 0) {
    p.g2 = moved(g2_first_.data(), before, rep().g2_dim);
    return p;
  }
  if (l == rep().nlayers - 1) {
    p.g2 = moved(g2_.data() + kept_g2(back) * g2_size(), before, rep().g2_dim);
  } else {
    p.g2 = g2_.data() + (back ? l - 1 : 0) * g2_size();
  }
  if (rep().update_h2) p.h2 = h2_.data() + (l - 1) * h2_size();
  return p;
}

// The gradient of a layer's pair state: one array of d g2 for all layers; d h2 of layer 0 is part of d em.
template <class T>
PairState<T> StepArrays<T>::dpair(int l) const {
  const bool own = rep().update_h2 && l > 0;
  return {dg2_.data(), own ? dh2_.data() + (l % 2) * h2_size() : directions(repformer_.dem.data())};
}

template <class T>
KeptAttention<T> StepArrays<T>::kept_attention(int l) const {
  if (!sizes_.keep_attention || !sizes_.forces || !rep().has_g2_attn) return {};
  return {kept_norm_.data() + l * g2_size(), kept_rstd_.data() + l * sizes_.repformer};
}

// The arrays for a chunk's recomputed attention.
template <class T>
KeptAttention<T> StepArrays<T>::attention_again(std::int64_t before) const {
  return {moved(kept_norm_.data(), before, rep().g2_dim), moved(kept_rstd_.data(), before, 1)};
}

template <class T>
NodeArrays<T> StepArrays<T>::nodes(Range a) const {
  const int width = rep().g1_dim, heads = width * rep().attn1_nhead;
  return {moved(cat_.data(), a.begin, rep().linear1_in()), moved(conv_.data(), a.begin, width),
          moved(query_.data(), a.begin, heads), moved(weighted_.data(), a.begin, heads)};
}
// The node arrays' gradients: they overwrite the arrays, but for the query, which the reverse sweep reads.
template <class T>
NodeArrays<T> StepArrays<T>::dnodes(Range a) const {
  NodeArrays<T> d = nodes(a);
  d.query = moved(dquery_.data(), a.begin, rep().g1_dim * rep().attn1_nhead);
  return d;
}

// The slopes of a layer's dense update, kept for all atoms; for the last layer, for one chunk.
template <class T>
T* StepArrays<T>::slope(const Buffer<T>& kept, int l, Range a) const {
  if (!kept.size()) return nullptr;
  T* layer = kept.data() + static_cast<std::size_t>(l) * sizes_.natoms * rep().g1_dim;
  return l < rep().nlayers - 1 ? layer : moved(layer, a.begin, rep().g1_dim);
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
