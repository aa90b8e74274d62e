// pair_init and pair_step: the g2 and h2 updates of the repformers, forward and backward. One block of
// threads per atom; its pairs stay in shared memory for all updates of a layer:
//   g2' = alpha g2 + s1 act(linear2 g2) + s2 (g1_i gg1_j sw_j) P + s3 layernorm(attention)      h2' alike
// The attention is in repformer_pair_attention.h.
#pragma once

#include "cuda/kernels/repformer_pair_attention.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// ---- layer 0: g2 = act(em_0 W + b); h2 are the columns 1 … 3 of em, and its gradient those of d em

template <class T>
struct PairInit {
  State<T> s;
  const T *w, *bias;  // (g2)
  T* out;             // (repformer pairs, g2)

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch) const {
    const int d = s.rep.g2, n = s.repformer.count[i];
    const std::int64_t q0 = s.repformer.first[i];
    const T* em = s.repformer.em + 4 * q0;
    T* g2 = out + q0 * d;
    b.each_of(n, d, [&](int k, int j, int c) { g2[k] = em[4 * j] * w[c] + bias[c]; });
    activate_rows<T>(b, s.rep.act, n, d, g2, d, nullptr, 0);
  }
};

// Assigns column 0 of d em, from d g2.
template <class T>
struct PairInitBackward {
  State<T> s;
  const T *w, *bias;
  const T* dg2;  // (repformer pairs, g2)

  struct Arrays {
    T *x, *slope;  // (n, g2)
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int n) const {
    const std::size_t size = static_cast<std::size_t>(n) * s.rep.g2;
    return {scratch->take<T>(size), scratch->take<T>(size)};
  }
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    const int width = s.rep.g2, n = s.repformer.count[i];
    const std::int64_t q0 = s.repformer.first[i];
    const T* em = s.repformer.em + 4 * q0;
    T* dem = s.repformer.dem + 4 * q0;
    const Arrays a = arrays(&scratch, n);
    b.each_of(n, width, [&](int k, int j, int c) { a.x[k] = em[4 * j] * w[c] + bias[c]; });
    activate_rows(b, s.rep.act, n, width, a.x, width, a.slope, width);
    b.each_warp(n, [&](int j) {
      T sum = 0;
      for (int c = b.lane; c < width; c += b.lanes)
        sum += dg2[(q0 + j) * width + c] * a.slope[j * width + c] * w[c];
      sum = b.lane_sum(sum);
      if (b.lane == 0) dem[4 * j] = sum;
    });
  }
};

// ---- a step

template <class T>
struct PairBase {
  State<T> s;
  LayerView<T> w;
  PairState<T> in;
  const T* g1;  // (nrows, g1), read with g1g1
  KeptAttention<T> kept;

  DPA2MD_KERNEL int ld() const { return spread(s.rep.g2); }
  DPA2MD_KERNEL bool attends() const { return s.rep.has_g2_attn || s.rep.update_h2; }
  // Loads an atom's pair state into scratch.
  DPA2MD_KERNEL void load(const ThreadBlock& b, int i, PairScratch<T>* a) const {
    const std::int64_t q0 = a->q0 = s.repformer.first[i];
    gather(b, a->n, s.rep.g2, [&](int j) { return in.g2 + (q0 + j) * s.rep.g2; }, a->g2, a->ld);
    b.each(a->n * 3, [&](int k) { a->h2[k] = in.h2[(q0 + k / 3) * kH2Row + k % 3]; });
    b.each(a->n, [&](int j) { a->sw[j] = s.switch_of(q0 + j); });
    if (attends()) a->directions_met(b);
  }
  DPA2MD_KERNEL const T* neighbor_g1(int i, int j) const {
    return g1 + static_cast<std::int64_t>(s.repformer_row[s.repformer.first[i] + j]) * s.rep.g1;
  }
};

template <class T>
struct PairStep : PairBase<T> {
  static constexpr int kMostThreads = kAtomThreads;
  PairState<T> out;

  struct Arrays {
    PairScratch<T> pairs;
    T* y;        // (n, ld) one update
    T* product;  // (n, g1) g1_i gg1_j sw_j
    Attention<T> attention;
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int n) const {
    const RepformerView& f = this->s.rep;
    const std::size_t size = n;
    return {PairScratch<T>(scratch, n, this->ld(), this->attends()), scratch->take<T>(size * this->ld()),
            scratch->take<T>(f.has_g1g1 ? size * f.g1 : 0), Attention<T>(scratch, f, n, this->ld(), false)};
  }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    const State<T>& s = this->s;
    const LayerView<T>& w = this->w;
    const int n = s.repformer.count[i], d = s.rep.g2, ld = this->ld();
    if (n == 0) return;
    Arrays a = arrays(&scratch, n);
    this->load(b, i, &a.pairs);
    const std::int64_t q0 = a.pairs.q0;
    T* g2 = out.g2 + q0 * d;
    forward(b, w.linear2, n, static_cast<const T*>(a.pairs.g2), ld, a.y, ld);
    activate_rows<T>(b, s.rep.act, n, d, a.y, ld, nullptr, 0);
    b.each_of(n, d, [&](int k, int j, int c) {
      const int at = j * ld + c;
      g2[k] = w.g2_alpha * a.pairs.g2[at] + w.scale_linear2[c] * a.y[at];
    });
    if (s.rep.has_g1g1) g1g1(b, i, a, g2);
    if (this->attends()) {
      attention(b, s, w, a.pairs, a.attention, a.y, g2, s.rep.update_h2 ? out.h2 + q0 * kH2Row : nullptr,
                this->kept);
    }
  }

 private:
  DPA2MD_KERNEL void g1g1(const ThreadBlock& b, int i, const Arrays& a, T* g2) const {
    const int n = a.pairs.n, d = this->s.rep.g2, width = this->s.rep.g1;
    const T* own = this->g1 + static_cast<std::int64_t>(i) * width;
    b.each_of(n, width, [&](int k, int j, int c) {
      a.product[k] = own[c] * this->neighbor_g1(i, j)[c] * a.pairs.sw[j];
    });
    forward(b, this->w.g1g1, n, static_cast<const T*>(a.product), width, a.y, a.pairs.ld);
    b.each_of(n, d, [&](int k, int j, int c) { g2[k] += this->w.scale_g1g1[c] * a.y[j * a.pairs.ld + c]; });
  }
};

// Overwrites d g2(l + 1) with d g2(l); adds to d h2(l) (assigns it if h2 is updated) and d sw. With g1g1 it
// also adds to d g1(l) of the atom and assigns the pairs' shares dgg1.
template <class T>
struct PairStepBackward : PairBase<T> {
  static constexpr int kMostThreads = kAtomThreads;
  PairState<T> dout, din;
  T* dg1;

  struct Arrays {
    PairScratch<T> pairs;
    T *y, *dy;   // (n, ld)
    T* dg2;      // (n, ld)
    T* dsw;      // (n)
    T* product;  // (n, g1) gradient of g1_i gg1_j sw_j
    Attention<T> attention;
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int n) const {
    const RepformerView& f = this->s.rep;
    const std::size_t size = static_cast<std::size_t>(n) * this->ld();
    return {PairScratch<T>(scratch, n, this->ld(), this->attends()),
            scratch->take<T>(size),
            scratch->take<T>(size),
            scratch->take<T>(size),
            scratch->take<T>(n),
            scratch->take<T>(f.has_g1g1 ? static_cast<std::size_t>(n) * f.g1 : 0),
            Attention<T>(scratch, f, n, this->ld(), true)};
  }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    const State<T>& s = this->s;
    const LayerView<T>& w = this->w;
    const int n = s.repformer.count[i], d = s.rep.g2, ld = this->ld();
    if (n == 0) return;
    Arrays a = arrays(&scratch, n);
    this->load(b, i, &a.pairs);
    const std::int64_t q0 = a.pairs.q0;
    if (s.rep.update_h2) b.each(n * 3, [&](int k) { din.h2[(q0 + k / 3) * kH2Row + k % 3] = 0; });
    const T* up = dout.g2 + q0 * d;
    fill(b, n, a.dsw, T(0));
    forward(b, w.linear2, n, static_cast<const T*>(a.pairs.g2), ld, a.y, ld);
    activate_rows(b, s.rep.act, n, d, a.y, ld, a.dy, ld);
    b.each_of(n, d, [&](int k, int j, int c) {
      const int at = j * ld + c;
      a.dy[at] *= up[k] * w.scale_linear2[c];
      a.dg2[at] = w.g2_alpha * up[k];
    });
    backward(b, w.linear2, n, static_cast<const T*>(a.dy), ld, a.dg2, ld, true, d);
    if (s.rep.has_g1g1) g1g1(b, i, a, up);
    if (this->attends()) {
      attention_backward(b, s, w, a.pairs, a.attention, a.y, a.dy, up,
                         s.rep.update_h2 ? dout.h2 + q0 * kH2Row : nullptr, a.dg2, din.h2 + q0 * kH2Row,
                         a.dsw, this->kept);
    }
    b.each_of(n, d, [&](int k, int j, int c) { din.g2[q0 * d + k] = a.dg2[j * ld + c]; });
    if (s.smooth) b.each(n, [&](int j) { s.repformer.dsw[q0 + j] += a.dsw[j]; });
  }

 private:
  DPA2MD_KERNEL void g1g1(const ThreadBlock& b, int i, const Arrays& a, const T* up) const {
    const State<T>& s = this->s;
    const int n = a.pairs.n, d = s.rep.g2, width = s.rep.g1, ld = a.pairs.ld;
    const T* own = this->g1 + static_cast<std::int64_t>(i) * width;
    b.each_of(n, d, [&](int k, int j, int c) { a.dy[j * ld + c] = up[k] * this->w.scale_g1g1[c]; });
    backward(b, this->w.g1g1, n, static_cast<const T*>(a.dy), ld, a.product, width, false, width);
    b.each_warp(n, [&](int j) {
      const T* other = this->neighbor_g1(i, j);
      T* share = s.dgg1 + (a.pairs.q0 + j) * width;
      T along = 0;
      for (int c = b.lane; c < width; c += b.lanes) {
        const T g = a.product[j * width + c];
        share[c] = g * own[c] * a.pairs.sw[j];
        along += g * own[c] * other[c];
      }
      along = b.lane_sum(along);
      if (b.lane == 0) a.dsw[j] += along;
    });
    T* down = dg1 + static_cast<std::int64_t>(i) * width;
    b.each(width, [&](int c) {
      T sum = 0;
      for (int j = 0; j < n; ++j)
        sum += a.product[j * width + c] * this->neighbor_g1(i, j)[c] * a.pairs.sw[j];
      down[c] += sum;
    });
  }
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
