// repinit (two-body embedding), forward and backward; also the whole descriptor of a DPA-1 student.
//   M (4 x ng) = em^T g / nsel        D (ng x axis) = M^T M[:, :axis]
// Takes a chunk of neighbours at a time, so that its embedding net fits into shared memory.
#pragma once

#include "cuda/kernels/views.h"

namespace dpa2md {
namespace DPA2MD_GPU {

constexpr int kNeighborChunk = 32;

// The embedding g of a chunk of neighbours.
template <class T>
struct EmbeddingChunk {
  int n;                    // neighbours
  std::int64_t p0;          // the first one's pair
  NetBuffers<T> net;        // net.x: d raw / d em_0 on the way back
  T *raw, *g, *dg, *slope;  // (n, ng) before and after the gate; slope of a compressed table
};

// d M of an atom, and the scratch to compute it from d D.
template <class T>
struct MomentGradient {
  static constexpr int kParts = 8;  // of the sum over ng, which are added up afterwards
  int ld;
  T* d;     // (4, ld), zero beyond ng
  T* rows;  // (ng, 4): M
  T* part;  // (parts, axis, 4)

  DPA2MD_KERNEL MomentGradient(Scratch* scratch, int channels, int axis)
      : ld(channels),
        d(scratch->take<T>(4 * channels)),
        rows(scratch->take<T>(4 * channels)),
        part(scratch->take<T>(kParts * 4 * axis)) {}
};

template <class T>
struct RepinitBase {
  State<T> s;

  DPA2MD_KERNEL EmbeddingChunk<T> chunk(Scratch* scratch, bool back) const {
    const EmbeddingView<T>& e = s.embedding;
    const std::size_t size = static_cast<std::size_t>(kNeighborChunk) * e.ng;
    EmbeddingChunk<T> c{
        0,       0,       NetBuffers<T>(scratch, e.net, e.net.count ? kNeighborChunk : 0, back),
        nullptr, nullptr, nullptr,
        nullptr};
    if (!e.net.count) c.raw = scratch->take<T>(size);
    if (!e.net.count && back) c.slope = scratch->take<T>(size);
    if (e.strip) c.g = scratch->take<T>(size);
    if (back) c.dg = scratch->take<T>(size);
    return c;
  }

  DPA2MD_KERNEL const T* gate_of_types(int i, int type) const {
    const EmbeddingView<T>& e = s.embedding;
    return e.gate + ((e.one_side ? 0 : static_cast<std::int64_t>(s.center_type[i]) * s.nt) + type) * e.ng;
  }
  DPA2MD_KERNEL const T* gate(int i, std::int64_t pair) const { return gate_of_types(i, s.type[pair]); }
  DPA2MD_KERNEL T opening(std::int64_t pair) const { return s.smooth ? s.repinit.sw[pair] : T(1); }

  // Computes the embedding of neighbours j0 … of atom i: g with the gate, raw without.
  DPA2MD_KERNEL void embed(const ThreadBlock& b, int i, int j0, EmbeddingChunk<T>* c) const {
    const EmbeddingView<T>& e = s.embedding;
    const int left = s.repinit.count[i] - j0, ng = e.ng;
    const int n = c->n = left < kNeighborChunk ? left : kNeighborChunk;
    const std::int64_t p0 = c->p0 = s.repinit.first[i] + j0;
    const T* em = s.repinit.em + 4 * p0;
    if (e.net.count) {
      inputs(b, i, c);
      forward(b, e.net, n, &c->net);
      c->raw = c->net.x;
    } else {
      b.each(n * ng, [&](int k) {
        const CompressedPlace p = compressed_place(e.grid, e.compressed_single, double(em[4 * (k / ng)]));
        T slope;
        compressed_value(e.compressed + (p.cell * ng + k % ng) * 6, T(p.x), T(p.beyond), c->raw + k, &slope);
        if (c->slope) c->slope[k] = slope;
      });
    }
    if (!e.strip) {
      c->g = c->raw;
      return;
    }
    b.each_of(n, ng, [&](int k, int j, int m) {
      const std::int64_t p = p0 + j;
      c->g[k] = c->raw[k] * (T(1) + gate(i, p)[m] * opening(p));
    });
  }

  // Turns the sum (4) of em^T g_m over neighbours into M of channel m; stores it in s.moment and `rows` (ng,
  // 4).
  DPA2MD_KERNEL void keep_moment(int i, int m, const T* sum, T* rows) const {
    const EmbeddingView<T>& e = s.embedding;
    const T share = T(1) / T(s.repinit.nsel);
    const T empty = T(s.repinit.nsel - s.repinit.count[i] - s.zeroed[i]);
    DPA2MD_UNROLL
    for (int c = 0; c < 4; ++c) {
      T x = sum[c];
      if (e.empty) x += empty * e.empty[(static_cast<std::int64_t>(s.center_type[i]) * 4 + c) * e.ng + m];
      rows[4 * m + c] = s.moment[(static_cast<std::int64_t>(i) * 4 + c) * e.ng + m] = x * share;
    }
  }
  // Computes D from M, one thread per row.
  DPA2MD_KERNEL void descriptor(const ThreadBlock& b, int i, const T* rows) const {
    const int axis = s.repinit_axis;
    T* out = s.rep_out + static_cast<std::int64_t>(i) * s.repinit_width;
    const bool fours = axis % 4 == 0 && s.repinit_width % 4 == 0;
    b.each(s.embedding.ng, [&](int g) {
      const Four<T> own = four(rows + 4 * g);
      const auto element = [&](int a) {
        const Four<T> x = four(rows + 4 * a);
        return own.x[0] * x.x[0] + own.x[1] * x.x[1] + own.x[2] * x.x[2] + own.x[3] * x.x[3];
      };
      if (fours) {
        for (int a = 0; a < axis; a += 4)
          four(out + g * axis + a) = {element(a), element(a + 1), element(a + 2), element(a + 3)};
      } else {
        for (int a = 0; a < axis; ++a) out[g * axis + a] = element(a);
      }
    });
  }
  // Turns the sum (4, ng) of em^T g over neighbours into M and D.
  DPA2MD_KERNEL void finish(const ThreadBlock& b, int i, const T* moment, T* rows) const {
    const int ng = s.embedding.ng;
    b.each(ng, [&](int m) {
      const T sum[4] = {moment[m], moment[ng + m], moment[2 * ng + m], moment[3 * ng + m]};
      keep_moment(i, m, sum, rows);
    });
    descriptor(b, i, rows);
  }
  // d M from d D, with the factor 1 / nsel: the rows' part and, for the first `axis` channels, the columns'.
  DPA2MD_KERNEL void moment_gradient(const ThreadBlock& b, int i, const MomentGradient<T>& to) const {
    const int ng = s.embedding.ng, axis = s.repinit_axis;
    constexpr int kParts = MomentGradient<T>::kParts;
    const T share = T(1) / T(s.repinit.nsel);
    const T* moment = s.moment + static_cast<std::int64_t>(i) * 4 * ng;
    const T* dout = s.drep_out + static_cast<std::int64_t>(i) * s.repinit_width;
    b.each(ng, [&](int g) {
      four(to.rows + 4 * g) = {moment[g], moment[ng + g], moment[2 * ng + g], moment[3 * ng + g]};
    });
    b.each(kParts * axis, [&](int k) {
      Four<T> sum = {};
      for (int h = k / axis; h < ng; h += kParts) add(dout[h * axis + k % axis], to.rows + 4 * h, &sum);
      four(to.part + 4 * k) = sum;
    });
    const bool fours = axis % 4 == 0 && s.repinit_width % 4 == 0;
    b.each(to.ld, [&](int g) {
      Four<T> sum = {};
      const T* d = dout + g * axis;
      if (g < ng && fours) {
        for (int a = 0; a < axis; a += 4) {
          const Four<T> x = four(d + a);
          DPA2MD_UNROLL
          for (int q = 0; q < 4; ++q) add(x.x[q], to.rows + 4 * (a + q), &sum);
        }
      } else if (g < ng) {
        for (int a = 0; a < axis; ++a) add(d[a], to.rows + 4 * a, &sum);
      }
      for (int k = g; g < axis && k < kParts * axis; k += axis) add(T(1), to.part + 4 * k, &sum);
      for (int c = 0; c < 4; ++c) to.d[c * to.ld + g] = sum.x[c] * share;
    });
  }

 private:
  DPA2MD_KERNEL static void add(T x, const T* row, Four<T>* sum) {
    const Four<T> y = four(row);
    for (int c = 0; c < 4; ++c) sum->x[c] += x * y.x[c];
  }
  // Writes the net's input: em_0 and, in concat mode, the type embeddings of the neighbour and, unless
  // one_side, of the centre.
  DPA2MD_KERNEL void inputs(const ThreadBlock& b, int i, EmbeddingChunk<T>* c) const {
    const int in = s.embedding.net.inputs, tebd = s.tebd;
    b.each(c->n * in, [&](int k) {
      const int column = k % in;
      const std::int64_t p = c->p0 + k / in;
      c->net.x[k] = column == 0      ? s.repinit.em[4 * p]
                    : column <= tebd ? s.types[s.type[p] * tebd + column - 1]
                                     : s.types[s.center_type[i] * tebd + column - 1 - tebd];
    });
  }
};

template <class T>
struct Repinit : RepinitBase<T> {
  DPA2MD_KERNEL bool none_left() const { return all_tabulated(this->s.tabulated, this->s.natoms); }
  struct Arrays {
    EmbeddingChunk<T> chunk;
    T *moment, *rows;  // (4, ng), (ng, 4)
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int) const {
    const std::size_t size = 4 * this->s.embedding.ng;
    return {this->chunk(scratch, false), scratch->take<T>(size), scratch->take<T>(size)};
  }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    const State<T>& s = this->s;
    const int ng = s.embedding.ng, n = s.repinit.count[i];
    if (s.tabulated && s.tabulated[i]) return;
    if (s.center_type[i] < 0) {
      return fill(b, ng * s.repinit_axis, s.rep_out + static_cast<std::int64_t>(i) * s.repinit_width, T(0));
    }
    const Arrays a = arrays(&scratch, 0);
    fill(b, 4 * ng, a.moment, T(0));
    for (int j0 = 0; j0 < n; j0 += kNeighborChunk) {
      EmbeddingChunk<T> c = a.chunk;
      this->embed(b, i, j0, &c);
      gemm(b, 4, ng, c.n, transposed(s.repinit.em + 4 * c.p0, 4), plain(static_cast<const T*>(c.g), ng),
           a.moment, ng, true);
    }
    this->finish(b, i, a.moment, a.rows);
  }
};

// Assigns d em and d sw of the atom's pairs.
template <class T>
struct RepinitBackward : RepinitBase<T> {
  DPA2MD_KERNEL bool none_left() const { return all_tabulated(this->s.tabulated, this->s.natoms); }
  struct Arrays {
    EmbeddingChunk<T> chunk;
    MomentGradient<T> moment;
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int) const {
    return {this->chunk(scratch, true),
            MomentGradient<T>(scratch, this->s.embedding.ng, this->s.repinit_axis)};
  }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int i, Scratch scratch) const {
    if (this->s.repinit.count[i] == 0 || (this->s.tabulated && this->s.tabulated[i])) return;
    const Arrays a = arrays(&scratch, 0);
    this->moment_gradient(b, i, a.moment);
    for (int j0 = 0; j0 < this->s.repinit.count[i]; j0 += kNeighborChunk) {
      EmbeddingChunk<T> c = a.chunk;
      this->embed(b, i, j0, &c);
      chunk_backward(b, i, a.moment.d, &c);
    }
  }

 private:
  DPA2MD_KERNEL void chunk_backward(const ThreadBlock& b, int i, const T* dmoment,
                                    EmbeddingChunk<T>* c) const {
    const State<T>& s = this->s;
    const EmbeddingView<T>& e = s.embedding;
    const int ng = e.ng, n = c->n;
    const T* em = s.repinit.em + 4 * c->p0;
    T* dem = s.repinit.dem + 4 * c->p0;
    gemm(b, n, 4, ng, plain(static_cast<const T*>(c->g), ng), transposed(dmoment, ng), dem, 4, false);
    gemm(b, n, ng, 4, plain(em, 4), plain(dmoment, ng), c->dg, ng, false);
    b.each_warp(n, [&](int j) {
      // gate = T sw; its derivative needs T even where sw = 0
      T along = 0;
      for (int m = b.lane; e.strip && m < ng; m += b.lanes) {
        const T t = this->gate(i, c->p0 + j)[m];
        if (s.smooth) along += c->dg[j * ng + m] * c->raw[j * ng + m] * t;
        c->dg[j * ng + m] *= T(1) + t * this->opening(c->p0 + j);
      }
      along = b.lane_sum(along);
      T slope = 0;
      for (int m = b.lane; c->slope && m < ng; m += b.lanes)
        slope += c->dg[j * ng + m] * c->slope[j * ng + m];
      slope = b.lane_sum(slope);
      if (b.lane == 0) {
        s.repinit.dsw[c->p0 + j] = along;
        dem[4 * j] += slope;
      }
    });
    if (!e.net.count) return;
    copy(b, n, ng, c->dg, ng, c->net.x, ng);
    backward(b, e.net, n, 1, &c->net);
    b.each(n, [&](int j) { dem[4 * j] += c->net.x[j]; });
  }
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
