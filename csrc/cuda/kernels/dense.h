// The kernels that take a group of atoms per item, to use each weight for many rows: the transform into g1, a
// layer's dense updates, the fitting net; forward and backward.
#pragma once

#include "cuda/kernels/views.h"

namespace dpa2md {
namespace DPA2MD_GPU {

constexpr int kGroup = 16;  // atoms of an item

struct Rows {
  int begin, count;
};
DPA2MD_KERNEL inline Rows group_rows(int item, int natoms) {
  const int begin = item * kGroup;
  return {begin, natoms - begin < kGroup ? natoms - begin : kGroup};
}

// Stages rows of global memory in scratch as the left factor of a product, without bank conflicts.
template <class T>
DPA2MD_KERNEL std::size_t staged_size(int width) {
  return static_cast<std::size_t>(kGroup) * spread(width);
}
template <class T>
DPA2MD_KERNEL const T* staged(const ThreadBlock& b, int rows, int width, const T* x, T* to) {
  gather(b, rows, width, [&](int r) { return x + r * width; }, to, spread(width));
  return to;
}

// Zeroes an array.
template <class T>
struct Clear {
  static constexpr int kPiece = 1024;  // of an item
  std::int64_t size;
  T* x;

  int items() const { return static_cast<int>((size + kPiece - 1) / kPiece); }
  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    const std::int64_t begin = static_cast<std::int64_t>(item) * kPiece, left = size - begin;
    fill(b, static_cast<int>(left < kPiece ? left : kPiece), x + begin, T(0));
  }
};

// g1 of layer 0: act( [D | three-body] W + tebd_transform(t_i) )
template <class T>
struct Transform {
  static constexpr int kMostThreads = kDenseThreads;
  State<T> s;
  Linear<T> linear;  // no weight: the widths agree
  const T* tebd;     // (nt, g1) or null
  T *g1, *slope;     // (natoms, g1); slope: act'

  DPA2MD_KERNEL T* arrays(Scratch* scratch, int) const {
    return scratch->take<T>(staged_size<T>(s.repinit_width));
  }
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch scratch) const {
    const Rows rows = group_rows(item, s.natoms);
    const int width = s.rep.g1;
    const std::int64_t at = static_cast<std::int64_t>(rows.begin) * width;
    const T* x = s.rep_out + static_cast<std::int64_t>(rows.begin) * s.repinit_width;
    if (linear.w.rows) {
      x = staged(b, rows.count, s.repinit_width, x, arrays(&scratch, 0));
      forward(b, linear, rows.count, x, spread(s.repinit_width), g1 + at, width);
    } else {
      copy(b, rows.count, width, x, width, g1 + at, width);
    }
    if (tebd) {
      b.each_of(rows.count, width, [&](int k, int m, int c) {
        const int t = s.center_type[rows.begin + m];
        g1[at + k] += tebd[(t < 0 ? 0 : t) * width + c];
      });
    }
    activate_rows(b, s.rep.act, rows.count, width, g1 + at, width, slope + at, width);
  }
};

template <class T>
struct TransformBackward {
  static constexpr int kMostThreads = kDenseThreads;
  State<T> s;
  Linear<T> linear;
  const T *slope, *dg1;

  DPA2MD_KERNEL T* arrays(Scratch* scratch, int) const { return scratch->take<T>(staged_size<T>(s.rep.g1)); }
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch scratch) const {
    const Rows rows = group_rows(item, s.natoms);
    const int width = s.rep.g1;
    const std::int64_t at = static_cast<std::int64_t>(rows.begin) * width;
    T* dx = s.drep_out + static_cast<std::int64_t>(rows.begin) * s.repinit_width;
    if (linear.w.rows) {
      const int ld = spread(width);
      T* dy = arrays(&scratch, 0);
      b.each_of(rows.count, width,
                [&](int k, int m, int c) { dy[m * ld + c] = dg1[at + k] * slope[at + k]; });
      backward(b, linear, rows.count, static_cast<const T*>(dy), ld, dx, s.repinit_width, false,
               s.repinit_width);
    } else {
      b.each(rows.count * width, [&](int k) { dx[k] = dg1[at + k] * slope[at + k]; });
    }
  }
};

// y (natoms, out) = x (natoms, in) W, or in reverse dx [+]= dy W^T.
template <class T>
struct DenseForward {
  static constexpr int kMostThreads = kDenseThreads;
  int natoms;
  Linear<T> linear;
  const T* x;
  T* y;
  DPA2MD_KERNEL T* arrays(Scratch* scratch, int) const { return scratch->take<T>(staged_size<T>(linear.in)); }
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch scratch) const {
    const Rows rows = group_rows(item, natoms);
    const std::int64_t r = rows.begin;
    const T* at = staged(b, rows.count, linear.in, x + r * linear.in, arrays(&scratch, 0));
    forward(b, linear, rows.count, at, spread(linear.in), y + r * linear.out, linear.out);
  }
};
template <class T>
struct DenseBackward {
  static constexpr int kMostThreads = kDenseThreads;
  int natoms;
  Linear<T> linear;
  const T* dy;
  T* dx;
  DPA2MD_KERNEL T* arrays(Scratch* scratch, int) const {
    return scratch->take<T>(staged_size<T>(linear.out));
  }
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch scratch) const {
    const Rows rows = group_rows(item, natoms);
    const std::int64_t r = rows.begin;
    const T* at = staged(b, rows.count, linear.out, dy + r * linear.out, arrays(&scratch, 0));
    backward(b, linear, rows.count, at, spread(linear.out), dx + r * linear.in, linear.in, true, linear.in);
  }
};

// A node step's arrays for a chunk of atoms.
template <class T>
struct NodeArrays {
  T *cat, *conv;        // (natoms, linear1_in), (natoms, g1) when conv is outside
  T *query, *weighted;  // (natoms, heads, g1), attention only
};

// The update of g1 from the arrays of NodeMoments:
//   g1' = alpha g1 + s1 act(self g1) + s2 conv + s3 act(linear1 cat) + s4 attention
template <class T>
struct NodeUpdate {
  static constexpr int kMostThreads = kDenseThreads;
  State<T> s;
  LayerView<T> w;
  NodeArrays<T> a;
  const T* g1;
  T *out, *mlp_slope, *self_slope;  // slopes of this layer, null without forces

  struct Arrays {
    T *x, *y;  // a product's input; its output (group, ld)
    int ld;
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int) const {
    const int width = s.rep.g1, attended = s.rep.has_g1_attn ? s.rep.heads1 * width : 0;
    const int most = attended > w.mlp.in ? attended : w.mlp.in;
    T* x = scratch->take<T>(staged_size<T>(most > width ? most : width));
    return {x, scratch->take<T>(staged_size<T>(width)), spread(width)};
  }
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch scratch) const {
    const RepformerView& f = s.rep;
    const Rows rows = group_rows(item, s.natoms);
    const int width = f.g1;
    const std::int64_t r = rows.begin, at = r * width;
    const Arrays z = arrays(&scratch, 0);
    T* y = z.y;
    const auto product = [&](const Linear<T>& l, const T* x) {
      const T* left = staged(b, rows.count, l.in, x + r * l.in, z.x);
      forward(b, l, rows.count, left, spread(l.in), y, z.ld);
    };
    product(w.mlp, a.cat);
    activate_rows(b, f.act, rows.count, width, y, z.ld, mlp_slope ? mlp_slope + at : nullptr, width);
    b.each_of(rows.count, width, [&](int k, int m, int c) {
      T sum = w.g1_alpha * g1[at + k] + w.scale_mlp[c] * y[m * z.ld + c];
      if (f.has_conv && f.conv_outside) sum += w.scale_conv[c] * a.conv[at + k];
      out[at + k] = sum;
    });
    if (f.mlp_outside) {
      product(w.self, g1);
      activate_rows(b, f.act, rows.count, width, y, z.ld, self_slope ? self_slope + at : nullptr, width);
      b.each_of(rows.count, width,
                [&](int k, int m, int c) { out[at + k] += w.scale_self[c] * y[m * z.ld + c]; });
    }
    if (f.has_g1_attn) {
      product(w.attn1_value, a.weighted);
      b.each_of(rows.count, width,
                [&](int k, int m, int c) { out[at + k] += w.scale_attn1[c] * y[m * z.ld + c]; });
    }
  }
};

// Adds to d g1 of the atoms themselves; assigns the gradients of NodeMoments' arrays.
template <class T>
struct NodeUpdateBackward {
  static constexpr int kMostThreads = kDenseThreads;
  State<T> s;
  LayerView<T> w;
  NodeArrays<T> d;
  const T *dout, *mlp_slope, *self_slope;
  T* dg1;

  // (group, ld)
  DPA2MD_KERNEL T* arrays(Scratch* scratch, int) const { return scratch->take<T>(staged_size<T>(s.rep.g1)); }
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch scratch) const {
    const RepformerView& f = s.rep;
    const Rows rows = group_rows(item, s.natoms);
    const int width = f.g1;
    const std::int64_t r = rows.begin, at = r * width;
    const int ld = spread(width);
    T* dy = arrays(&scratch, 0);
    b.each_of(rows.count, width, [&](int k, int m, int c) {
      dg1[at + k] += w.g1_alpha * dout[at + k];
      if (f.has_conv && f.conv_outside) d.conv[at + k] = w.scale_conv[c] * dout[at + k];
      dy[m * ld + c] = w.scale_mlp[c] * dout[at + k] * mlp_slope[at + k];
    });
    backward(b, w.mlp, rows.count, static_cast<const T*>(dy), ld, d.cat + r * w.mlp.in, w.mlp.in, false,
             w.mlp.in);
    if (f.mlp_outside) {
      b.each_of(rows.count, width, [&](int k, int m, int c) {
        dy[m * ld + c] = w.scale_self[c] * dout[at + k] * self_slope[at + k];
      });
      backward(b, w.self, rows.count, static_cast<const T*>(dy), ld, dg1 + at, width, true, width);
    } else {
      b.each_of(rows.count, width,
                [&](int k, int m, int c) { dg1[at + k] += d.cat[(r + m) * w.mlp.in + c]; });
    }
    if (f.has_g1_attn) {
      const int in = f.heads1 * width;
      b.each_of(rows.count, width,
                [&](int k, int m, int c) { dy[m * ld + c] = w.scale_attn1[c] * dout[at + k]; });
      backward(b, w.attn1_value, rows.count, static_cast<const T*>(dy), ld, d.weighted + r * in, in, false,
               in);
    }
  }
};

// Computes energies and, since dE/dE_i = 1, the descriptor's gradient in the same kernel.
template <class T>
struct FittingKernel {
  static constexpr int kMostThreads = kDenseThreads;
  State<T> s;
  FittingView<T> f;
  int width;            // of the feature
  const T* feature;     // (natoms, width)
  const T* parameters;  // (natoms, f.parameters): fparam, aparam, case embedding, normalised
  T* dfeature;          // (natoms, width), when forces are asked for
  double* energy;       // (natoms)

  struct Arrays {
    NetBuffers<T> net;
    T* y;  // (group) the net's value, then d E
    T* vacuum;
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int) const {
    return {NetBuffers<T>(scratch, f.net, kGroup, s.forces), scratch->take<T>(kGroup),
            scratch->take<T>(kGroup)};
  }

  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch scratch) const {
    const Rows rows = group_rows(item, s.natoms);
    const Arrays a = arrays(&scratch, 0);
    NetBuffers<T> net = a.net;
    if (f.vacuum) {
      net.slope = nullptr;
      input(b, rows, true, net.x);
      forward(b, f.net, rows.count, &net);
      b.each(rows.count, [&](int k) { a.vacuum[k] = net.x[k]; });
      net = a.net;
    }
    input(b, rows, false, net.x);
    forward(b, f.net, rows.count, &net);
    b.each(rows.count, [&](int k) {
      const double value = double(net.x[k]) - (f.vacuum ? double(a.vacuum[k]) : 0.0);
      const AtomEnergy e = atom_energy(s.center_type[rows.begin + k], value, f.bias_atom_e, f.out_bias,
                                       f.zero_type, f.exclude);
      energy[rows.begin + k] = e.value;
      a.y[k] = e.counts ? T(1) : T(0);
    });
    if (!s.forces) return;
    copy(b, rows.count, 1, a.y, 1, net.x, 1);
    backward(b, f.net, rows.count, width, &net);
    copy(b, rows.count, width, net.x, width, dfeature + static_cast<std::int64_t>(rows.begin) * width, width);
  }

 private:
  DPA2MD_KERNEL void input(const ThreadBlock& b, Rows rows, bool vacuum, T* x) const {
    const int in = f.net.inputs, tebd_end = width + f.tebd;
    b.each_of(rows.count, in, [&](int k, int m, int c) {
      const std::int64_t i = rows.begin + m;
      const int t = s.center_type[i] < 0 ? 0 : s.center_type[i];
      x[k] = c >= tebd_end ? parameters[i * f.parameters + c - tebd_end]
             : vacuum      ? T(0)
             : c < width   ? feature[i * width + c]
                           : s.types[t * f.tebd + c - width];
    });
  }
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
