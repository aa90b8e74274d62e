// What is done to whole groups of atoms at once, because weights then meet many rows: the transform into g1,
// the dense updates of a layer, the fitting net; forward and backward.
#pragma once

#include "views.h"

namespace dpa2md {
namespace DPA2MD_GPU {

constexpr int kGroup = 16;  // atoms of an item
constexpr int kDenseThreads = 512;

struct Rows {
  int begin, count;
};
DPA2MD_KERNEL inline Rows group_rows(int item, int natoms) {
  const int begin = item * kGroup;
  return {begin, natoms - begin < kGroup ? natoms - begin : kGroup};
}

// g1 of layer 0: act( [D | three-body] W + tebd_transform(t_i) )
template <class T>
struct Transform {
  static constexpr int kMostThreads = kDenseThreads;
  State<T> s;
  Linear<T> linear;  // no weight: the widths agree
  const T* tebd;     // (nt, g1) or null
  T *g1, *slope;     // (natoms, g1); slope: act'

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    const Rows rows = group_rows(item, s.natoms);
    const int width = s.rep.g1;
    const std::int64_t at = static_cast<std::int64_t>(rows.begin) * width;
    const T* x = s.rep_out + static_cast<std::int64_t>(rows.begin) * s.repinit_width;
    if (linear.w.rows) {
      forward(b, linear, rows.count, x, s.repinit_width, g1 + at, width);
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
  const T* slope;
  T* dg1;  // overwritten

  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    const Rows rows = group_rows(item, s.natoms);
    const int width = s.rep.g1;
    const std::int64_t at = static_cast<std::int64_t>(rows.begin) * width;
    T* dx = s.drep_out + static_cast<std::int64_t>(rows.begin) * s.repinit_width;
    b.each(rows.count * width, [&](int k) { dg1[at + k] *= slope[at + k]; });
    if (linear.w.rows) {
      backward(b, linear, rows.count, dg1 + at, width, dx, s.repinit_width, false, s.repinit_width);
    } else {
      copy(b, rows.count, width, dg1 + at, width, dx, width);
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
  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    const Rows rows = group_rows(item, natoms);
    const std::int64_t r = rows.begin;
    forward(b, linear, rows.count, x + r * linear.in, linear.in, y + r * linear.out, linear.out);
  }
};
template <class T>
struct DenseBackward {
  static constexpr int kMostThreads = kDenseThreads;
  int natoms;
  Linear<T> linear;
  const T* dy;
  T* dx;
  DPA2MD_KERNEL void arrays(Scratch*, int) const {}
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch) const {
    const Rows rows = group_rows(item, natoms);
    const std::int64_t r = rows.begin;
    backward(b, linear, rows.count, dy + r * linear.out, linear.out, dx + r * linear.in, linear.in, true,
             linear.in);
  }
};

// What a node step keeps of a chunk's atoms.
template <class T>
struct NodeArrays {
  T *cat, *conv;        // (natoms, linear1_in), (natoms, g1) when conv is outside
  T *query, *weighted;  // (natoms, heads, g1), attention only
};

// The update of g1 from what NodeMoments gathered:
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
    T* y;  // (group, g1)
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int) const {
    return {scratch->take<T>(static_cast<std::size_t>(kGroup) * s.rep.g1)};
  }
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch scratch) const {
    const RepformerView& f = s.rep;
    const Rows rows = group_rows(item, s.natoms);
    const int width = f.g1;
    const std::int64_t r = rows.begin, at = r * width;
    T* y = arrays(&scratch, 0).y;
    forward(b, w.mlp, rows.count, a.cat + r * w.mlp.in, w.mlp.in, y, width);
    activate_rows(b, f.act, rows.count, width, y, width, mlp_slope ? mlp_slope + at : nullptr, width);
    b.each_of(rows.count, width, [&](int k, int, int c) {
      T sum = w.g1_alpha * g1[at + k] + w.scale_mlp[c] * y[k];
      if (f.has_conv && f.conv_outside) sum += w.scale_conv[c] * a.conv[at + k];
      out[at + k] = sum;
    });
    if (f.mlp_outside) {
      forward(b, w.self, rows.count, g1 + at, width, y, width);
      activate_rows(b, f.act, rows.count, width, y, width, self_slope ? self_slope + at : nullptr, width);
      b.each_of(rows.count, width, [&](int k, int, int c) { out[at + k] += w.scale_self[c] * y[k]; });
    }
    if (f.has_g1_attn) {
      const int in = f.heads1 * width;
      forward(b, w.attn1_value, rows.count, a.weighted + r * in, in, y, width);
      b.each_of(rows.count, width, [&](int k, int, int c) { out[at + k] += w.scale_attn1[c] * y[k]; });
    }
  }
};

// Adds to d g1 of the atoms themselves, assigns the gradients of what NodeMoments gathered.
template <class T>
struct NodeUpdateBackward {
  static constexpr int kMostThreads = kDenseThreads;
  State<T> s;
  LayerView<T> w;
  NodeArrays<T> d;
  const T *dout, *mlp_slope, *self_slope;
  T* dg1;

  struct Arrays {
    T* dy;  // (group, g1)
  };
  DPA2MD_KERNEL Arrays arrays(Scratch* scratch, int) const {
    return {scratch->take<T>(static_cast<std::size_t>(kGroup) * s.rep.g1)};
  }
  DPA2MD_KERNEL void operator()(const ThreadBlock& b, int item, Scratch scratch) const {
    const RepformerView& f = s.rep;
    const Rows rows = group_rows(item, s.natoms);
    const int width = f.g1;
    const std::int64_t r = rows.begin, at = r * width;
    T* dy = arrays(&scratch, 0).dy;
    b.each_of(rows.count, width, [&](int k, int, int c) {
      dg1[at + k] += w.g1_alpha * dout[at + k];
      if (f.has_conv && f.conv_outside) d.conv[at + k] = w.scale_conv[c] * dout[at + k];
      dy[k] = w.scale_mlp[c] * dout[at + k] * mlp_slope[at + k];
    });
    backward(b, w.mlp, rows.count, dy, width, d.cat + r * w.mlp.in, w.mlp.in, false, w.mlp.in);
    if (f.mlp_outside) {
      b.each_of(rows.count, width,
                [&](int k, int, int c) { dy[k] = w.scale_self[c] * dout[at + k] * self_slope[at + k]; });
      backward(b, w.self, rows.count, dy, width, dg1 + at, width, true, width);
    } else {
      b.each_of(rows.count, width,
                [&](int k, int m, int c) { dg1[at + k] += d.cat[(r + m) * w.mlp.in + c]; });
    }
    if (f.has_g1_attn) {
      const int in = f.heads1 * width;
      b.each_of(rows.count, width, [&](int k, int, int c) { dy[k] = w.scale_attn1[c] * dout[at + k]; });
      backward(b, w.attn1_value, rows.count, dy, width, d.weighted + r * in, in, false, in);
    }
  }
};

// Energies and, since dE/dE_i = 1, the descriptor's gradient in the same sweep.
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
      const int t = s.center_type[rows.begin + k];
      double e = 0;
      if (t >= 0 && !f.zero_type[t])
        e = double(net.x[k]) - (f.vacuum ? double(a.vacuum[k]) : 0.0) + f.bias_atom_e[t];
      if (t >= 0) e += f.out_bias[t];
      const bool counts = t >= 0 && !f.exclude[t];
      energy[rows.begin + k] = counts ? e : 0.0;
      a.y[k] = counts && !f.zero_type[t] ? T(1) : T(0);
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
