// The part of a g1 update that reads an atom's neighbours, forward and backward. With w_j = sw_j (1 in
// non-smooth models):
//   Q|S = [g2 w | h2 w]^T gg1       conv = sum_k P_kc Q_kc / N      drrd = sym(S c)      grrg = sym((h2 w)^T
//   g2 c)
// The dense parts are in dense.h, the local attention in repformer_node_attention.h.
#pragma once

#include "cuda/kernels/repformer_node_attention.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// out[a][d] = sum_x S[x][a] S[x][d] / 3 for a < axis, with S (3, width), rows `ld` apart
template <class T>
DPA2MD_KERNEL void symmetrise(const ThreadBlock& b, const T* s, int ld, int width, int axis, T* out) {
  b.each_of(axis, width, [&](int k, int a, int d) {
    out[k] = (s[a] * s[d] + s[ld + a] * s[ld + d] + s[2 * ld + a] * s[2 * ld + d]) / 3;
  });
}
// ds (3, width) = scale * d S
template <class T>
DPA2MD_KERNEL void symmetrise_backward(const ThreadBlock& b, const T* s, int ld, int width, int axis,
                                       const T* dout, T scale, T* ds, int ldd) {
  b.each_of(3, width, [&](int, int x, int d) {
    T sum = 0;
    for (int a = 0; a < axis; ++a) sum += s[x * ld + a] * dout[a * width + d];
    ds[x * ldd + d] = scale / 3 * sum;
  });
  // adds the row part for the first `axis` columns
  b.each_warp(axis, [&](int a) {
    T sum[3] = {0, 0, 0};
    for (int d = b.lane; d < width; d += b.lanes) {
      const T g = dout[a * width + d];
      for (int x = 0; x < 3; ++x) sum[x] += s[x * ld + d] * g;
    }
    for (int x = 0; x < 3; ++x) {
      const T all = b.lane_sum(sum[x]);
      if (b.lane == 0) ds[x * ldd + a] += scale / 3 * all;
    }
  });
}

// An atom's neighbourhood in a layer, in scratch.
template <class T>
struct Neighborhood {
  int n;
  std::int64_t q0;  // first pair in the repformers' prefix
  T* sw;            // (n) switch, or 1 in non-smooth models
  T* gg1;           // (n, ld)
  int ld, ldl;
  T* left;  // (n, ldl): [g2 w | h2 w], the parts that are multiplied with gg1

  DPA2MD_KERNEL Plain<T> rows() const { return {gg1, ld}; }
};

template <class T>
struct NodeBase {
  State<T> s;
  LayerView<T> w;
  NodeArrays<T> a;
  PairState<T> pair;
  const T* g1;  // (nrows, g1)

  DPA2MD_KERNEL int met() const { return s.rep.met_g2() + s.rep.met_h2(); }
  DPA2MD_KERNEL Neighborhood<T> neighborhood(Scratch* scratch, int n) const {
    const std::size_t size = n;
    const int ld = spread(s.rep.g1), ldl = spread(met());
    T* sw = scratch->take<T>(size);
    T* gg1 = scratch->take<T>(s.rep.node_reads_gg1() ? size * ld : 0);
    return {n, 0, sw, gg1, ld, ldl, scratch->take<T>(met() ? size * ldl : 0)};
  }
  DPA2MD_KERNEL void load(const ThreadBlock& b, int i, Neighborhood<T>* x) const {
    const RepformerView& f = s.rep;
    const int width = f.g1, kq = f.met_g2(), kk = met();
    const std::int64_t q0 = x->q0 = s.repformer.first[i];
    b.each(x->n, [&](int j) { x->sw[j] = s.switch_of(q0 + j); });
    if (f.node_reads_gg1()) {
      const auto row = [&](int j) { return g1 + static_cast<std::int64_t>(s.repformer_row[q0 + j]) * width; };
      gather(b, x->n, width, row, x->gg1, x->ld);
    }
    if (kq) {
      b.each_of(x->n, kq,
                [&](int k, int j, int c) { x->left[j * x->ldl + c] = x->sw[j] * pair.g2[q0 * kq + k]; });
    }
    if (kk > kq) {
      b.each(3 * x->n, [&](int k) {
        x->left[k / 3 * x->ldl + kq + k % 3] = x->sw[k / 3] * pair.h2[(q0 + k / 3) * kH2Row + k % 3];
      });
    }
  }
  // S2 (3, g2): the moments of g2
  DPA2MD_KERNEL void pair_moments(const ThreadBlock& b, const Neighborhood<T>& x, T* s2) const {
    const int width = s.rep.g2;
    const T c = s.inverse_moment(x.n), *g2 = pair.g2 + x.q0 * width, *h2 = pair.h2 + x.q0 * kH2Row;
    b.each_of(3, width, [&](int k, int a, int d) {
      T sum = 0;
      for (int j = 0; j < x.n; ++j) sum += x.sw[j] * h2[j * kH2Row + a] * g2[j * width + d];
      s2[k] = c * sum;
    });
  }
};

// Computes the atom's rows of `a` from its neighbours.
template <class T>
struct NodeMoments : NodeBase<T> {
  static constexpr int kMostThreads = kAtomThreads;
  struct Arrays {
    Neighborhood<T> x;
    T* product;  // (met, g1): Q | S
    T* s2;       // (3, g2)
    LocalAttention<T> attention;
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int n) const {
    const RepformerView& f = this->s.rep;
    return {this->neighborhood(scratch, n), scratch->take<T>(static_cast<std::size_t>(this->met()) * f.g1),
            scratch->take<T>(f.has_grrg ? 3 * f.g2 : 0), LocalAttention<T>(scratch, f, n, false)};
  }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    const State<T>& s = this->s;
    const RepformerView& f = s.rep;
    Arrays y = arrays(&scratch, s.repformer.count[i]);
    this->load(b, i, &y.x);
    T* cat = this->a.cat + static_cast<std::int64_t>(i) * f.linear1.end;
    if (!f.mlp_outside) copy(b, 1, f.g1, this->g1 + static_cast<std::int64_t>(i) * f.g1, f.g1, cat, f.g1);
    if (f.has_grrg) {
      this->pair_moments(b, y.x, y.s2);
      symmetrise(b, y.s2, f.g2, f.g2, f.axis, cat + f.linear1.grrg);
    }
    if (this->met()) conv_drrd(b, i, y, cat);
    if (f.has_g1_attn) {
      const std::int64_t at = static_cast<std::int64_t>(i) * f.heads1 * f.g1;
      local_attention(b, s, y.x.n, y.x.sw, y.x.rows(), this->a.query + at, y.attention,
                      this->a.weighted + at);
    }
  }

 private:
  DPA2MD_KERNEL void conv_drrd(const ThreadBlock& b, int i, const Arrays& y, T* cat) const {
    const State<T>& s = this->s;
    const RepformerView& f = s.rep;
    const int width = f.g1, kq = f.met_g2(), kk = this->met(), n = y.x.n;
    gemm(b, kk, width, n, transposed(static_cast<const T*>(y.x.left), y.x.ldl), y.x.rows(), y.product, width,
         false);
    const T inv = s.inverse_count(n);
    const T *p = this->w.conv, *q = y.product;
    if (kq && f.conv_outside) {
      T* conv = this->a.conv + static_cast<std::int64_t>(i) * width;
      b.each(width, [&](int c) {
        T sum = 0;
        for (int k = 0; k < kq; ++k) sum += p[k * width + c] * q[k * width + c];
        conv[c] = inv * sum;
      });
    } else if (kq) {  // into the concatenation: projected to g2's width
      b.each_warp(kq, [&](int k) {
        T sum = 0;
        for (int c = b.lane; c < width; c += b.lanes) sum += p[k * width + c] * q[k * width + c];
        sum = b.lane_sum(sum);
        if (b.lane == 0) cat[f.linear1.conv + k] = inv * sum;
      });
    }
    if (!f.has_drrd) return;
    T* s1 = y.product + kq * width;
    const T c = s.inverse_moment(n);
    b.each(3 * width, [&](int k) { s1[k] *= c; });
    symmetrise(b, s1, width, width, f.axis, cat + f.linear1.drrd);
  }
};

// The reverse of NodeMoments, from the gradients `d` of `a`. Assigns d query; adds to d g2(l), d h2, d sw and
// the pairs' shares dgg1. clear_pairs, clear_shares: assigns these instead, as the first kernel of the sweep.
template <class T>
struct NodeMomentsBackward : NodeBase<T> {
  static constexpr int kMostThreads = kAtomThreads;
  NodeArrays<T> d;  // of a
  PairState<T> dpair;
  bool clear_pairs, clear_shares;

  struct Arrays {
    Neighborhood<T> x;
    T *product, *dproduct;  // (met, ld)
    int ld;
    T* dleft;     // (n, ldl)
    T *s2, *ds2;  // (3, g2)
    T* dsw;       // (n)
    LocalAttention<T> attention;
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int n) const {
    const RepformerView& f = this->s.rep;
    const std::size_t kk = this->met(), ld = spread(f.g1);
    const std::size_t moments = f.has_grrg ? 3 * f.g2 : 0;
    return {this->neighborhood(scratch, n),
            scratch->take<T>(static_cast<std::size_t>(f.met_h2()) * f.g1),
            scratch->take<T>(kk * ld),
            static_cast<int>(ld),
            scratch->take<T>(kk ? n * spread(this->met()) : 0),
            scratch->take<T>(moments),
            scratch->take<T>(moments),
            scratch->take<T>(n),
            LocalAttention<T>(scratch, f, n, true)};
  }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    const State<T>& s = this->s;
    const RepformerView& f = s.rep;
    Arrays y = arrays(&scratch, s.repformer.count[i]);
    this->load(b, i, &y.x);
    const int n = y.x.n;
    const std::int64_t q0 = y.x.q0;
    const T* dcat = d.cat + static_cast<std::int64_t>(i) * f.linear1.end;
    T* dgg1 = s.dgg1 + q0 * f.g1;
    if (clear_pairs) {
      fill(b, n * f.g2, dpair.g2 + q0 * f.g2, T(0));
      b.each(n * 3, [&](int k) { dpair.h2[(q0 + k / 3) * kH2Row + k % 3] = 0; });
    }
    fill(b, n, y.dsw, T(0));
    if (f.has_grrg) grrg_backward(b, y, dcat + f.linear1.grrg);
    if (this->met()) {
      conv_drrd_backward(b, i, y, dcat, dgg1);
    } else if (f.reads_gg1() && clear_shares) {
      fill(b, n * f.g1, dgg1, T(0));
    }
    if (f.has_g1_attn) {
      const std::int64_t at = static_cast<std::int64_t>(i) * f.heads1 * f.g1;
      local_attention_backward(b, s, n, y.x.sw, y.x.rows(), this->a.query + at, d.weighted + at, y.attention,
                               d.query + at, dgg1, y.dsw);
    }
    b.each(n, [&](int j) {
      const T before = clear_pairs ? T(0) : s.repformer.dsw[q0 + j];
      s.repformer.dsw[q0 + j] = before + (s.smooth ? y.dsw[j] : T(0));
    });
  }

 private:
  DPA2MD_KERNEL void grrg_backward(const ThreadBlock& b, const Arrays& y, const T* dout) const {
    const State<T>& s = this->s;
    const int width = s.rep.g2;
    this->pair_moments(b, y.x, y.s2);
    symmetrise_backward(b, y.s2, width, width, s.rep.axis, dout, s.inverse_moment(y.x.n), y.ds2, width);
    b.each_warp(y.x.n, [&](int j) {
      const T* g2 = this->pair.g2 + (y.x.q0 + j) * width;
      const T* h2 = this->pair.h2 + (y.x.q0 + j) * kH2Row;
      T* dg2 = dpair.g2 + (y.x.q0 + j) * width;
      T along[3] = {0, 0, 0};
      for (int c = b.lane; c < width; c += b.lanes) {
        T sum = 0;
        for (int x = 0; x < 3; ++x) {
          sum += h2[x] * y.ds2[x * width + c];
          along[x] += y.ds2[x * width + c] * g2[c];
        }
        dg2[c] += y.x.sw[j] * sum;
      }
      pair_directions(b, y, j, h2, along);
    });
  }
  // d h2 and d sw of neighbour j from the gradient of h2 w, summed over lanes here
  DPA2MD_KERNEL void pair_directions(const ThreadBlock& b, const Arrays& y, int j, const T* h2,
                                     const T* along) const {
    T sum[3];
    for (int x = 0; x < 3; ++x) sum[x] = b.lane_sum(along[x]);
    if (b.lane != 0) return;
    T* dh2 = dpair.h2 + (y.x.q0 + j) * kH2Row;
    for (int x = 0; x < 3; ++x) dh2[x] += y.x.sw[j] * sum[x];
    y.dsw[j] += h2[0] * sum[0] + h2[1] * sum[1] + h2[2] * sum[2];
  }

  DPA2MD_KERNEL void conv_drrd_backward(const ThreadBlock& b, int i, const Arrays& y, const T* dcat,
                                        T* dgg1) const {
    const State<T>& s = this->s;
    const RepformerView& f = s.rep;
    const int width = f.g1, kq = f.met_g2(), ks = f.met_h2(), kk = kq + ks, n = y.x.n;
    const T *left = y.x.left, *p = this->w.conv;
    const T inv = s.inverse_count(n);
    if (kq) {
      const T* dconv = f.conv_outside ? d.conv + static_cast<std::int64_t>(i) * width : nullptr;
      if (dconv && width % 4 == 0) {
        each_four(b, kq, width, [&](int m, int c) {
          const Four<T> weight = four(p + m * width + c), down = four(dconv + c);
          Four<T>& to = four(y.dproduct + m * y.ld + c);
          for (int e = 0; e < 4; ++e) to.x[e] = inv * weight.x[e] * down.x[e];
        });
      } else {
        b.each_of(kq, width, [&](int k, int m, int c) {
          y.dproduct[m * y.ld + c] = inv * p[k] * (dconv ? dconv[c] : dcat[f.linear1.conv + m]);
        });
      }
    }
    if (ks) {
      const T c = s.inverse_moment(n);
      gemm(b, 3, width, n, transposed(left + kq, y.x.ldl), y.x.rows(), y.product, width, false);
      b.each(3 * width, [&](int k) { y.product[k] *= c; });
      symmetrise_backward(b, y.product, width, width, f.axis, dcat + f.linear1.drrd, c,
                          y.dproduct + kq * y.ld, y.ld);
    }
    const T* dproduct = y.dproduct;
    gemm(b, n, width, kk, plain(left, y.x.ldl), plain(dproduct, y.ld), dgg1, width, !clear_shares);
    gemm(b, n, kk, width, y.x.rows(), transposed(dproduct, y.ld), y.dleft, y.x.ldl, false);
    b.each_warp(n, [&](int j) {
      const T* g2 = this->pair.g2 + (y.x.q0 + j) * f.g2;
      T* dg2 = dpair.g2 + (y.x.q0 + j) * f.g2;
      const T* dl = y.dleft + j * y.x.ldl;
      T along = 0;
      for (int c = b.lane; c < kq; c += b.lanes) {
        dg2[c] += y.x.sw[j] * dl[c];
        along += dl[c] * g2[c];
      }
      for (int x = b.lane; x < ks; x += b.lanes) {
        dpair.h2[(y.x.q0 + j) * kH2Row + x] += y.x.sw[j] * dl[kq + x];
        along += dl[kq + x] * this->pair.h2[(y.x.q0 + j) * kH2Row + x];
      }
      along = b.lane_sum(along);
      if (b.lane == 0) y.dsw[j] += along;
    });
  }
};

// Gathers the shares of a chunk's pairs into d g1 of their neighbours' rows, one warp per row.
template <class T>
struct GatherG1Gradient {
  State<T> s;
  RowPairs repformer;
  T* dg1;

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    each_of_item(b, item, s.nrows, [&](int k) { row(b, k); });
  }

 private:
  DPA2MD_KERNEL void row(const ThreadBlock& b, int row) const {
    const int width = s.rep.g1;
    T* d = dg1 + static_cast<std::int64_t>(row) * width;
    std::int64_t from, to;
    repformer.find(b, row, &from, &to);
    if (from == to) return;
    const auto share = [&](std::int64_t k) {
      return s.dgg1 + static_cast<std::int64_t>(repformer.pair[k]) * width;
    };
    if (width % 4 == 0) {
      for (int c = 4 * b.lane; c < width; c += 4 * b.lanes) {
        Four<T> sum = four(d + c);
        for (std::int64_t k = from; k < to; ++k) {
          const Four<T> x = four(share(k) + c);
          for (int e = 0; e < 4; ++e) sum.x[e] += x.x[e];
        }
        four(d + c) = sum;
      }
    } else {
      for (int c = b.lane; c < width; c += b.lanes) {
        T sum = d[c];
        for (std::int64_t k = from; k < to; ++k) sum += share(k)[c];
        d[c] = sum;
      }
    }
  }
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
