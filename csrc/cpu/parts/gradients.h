// Gradients by weights, collected by a reverse sweep on dual numbers. Of a product's two factors x and dy the
// tangent of x^T dy is wanted: x' dy + x dy' (value and tangent), which is one plain product of the rows
// [x; x'] and [dy'; dy]. Weights that meet a row an atom keep these rows, and one product for all atoms
// follows the sweep. Weights that meet pairs add up while the pairs are there, in double, one sum for each
// group of atoms. Groups do not depend on the number of threads, nor does any sum.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "cpu/parts/memory_plan.h"
#include "cpu/parts/workspace.h"
#include "cpu/vector/gemm.h"
#include "cpu/vector/memory.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// [first; second] of the values and tangents of x (rows, width), (2 rows, width)
enum class Halves { kValueFirst, kTangentFirst };
template <class R>
void split_dual(Halves order, int rows, int width, const Dual<R>* x, int ldx, R* out) {
  R* value = out + (order == Halves::kValueFirst ? 0 : static_cast<std::size_t>(rows) * width);
  R* tangent = out + (order == Halves::kValueFirst ? static_cast<std::size_t>(rows) * width : 0);
  for (int r = 0; r < rows; ++r, x += ldx, value += width, tangent += width) {
#pragma omp simd
    for (int c = 0; c < width; ++c) value[c] = x[c].value, tangent[c] = x[c].tangent;
  }
}
// The same of x (width, rows) as it lies in a net's sweep.
template <class R>
void split_dual_transposed(Halves order, int rows, int width, const Dual<R>* x, int ldx, R* out) {
  R* value = out + (order == Halves::kValueFirst ? 0 : static_cast<std::size_t>(rows) * width);
  R* tangent = out + (order == Halves::kValueFirst ? static_cast<std::size_t>(rows) * width : 0);
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < width; ++c) {
      value[static_cast<std::size_t>(r) * width + c] = x[static_cast<std::size_t>(c) * ldx + r].value;
      tangent[static_cast<std::size_t>(r) * width + c] = x[static_cast<std::size_t>(c) * ldx + r].tangent;
    }
  }
}

// A weight (in, out) with its bias (out) that meets a row an atom.
template <class R>
class RowGradient {
 public:
  RowGradient(int in, int out) : in_(in), out_(out) {}
  void plan(int natoms, MemoryPlan* to) {
    natoms_ = natoms;
    to->add(&x_, 2 * static_cast<std::size_t>(natoms) * in_);
    to->add(&dy_, 2 * static_cast<std::size_t>(natoms) * out_);
  }
  // The block's x, (2 rows, in): values, then tangents; and dy, (2 rows, out): tangents, then values.
  R* x(Range a) { return x_.data() + 2 * static_cast<std::size_t>(a.begin) * in_; }
  R* dy(Range a) { return dy_.data() + 2 * static_cast<std::size_t>(a.begin) * out_; }
  // Keeps x (rows, in) and dy (rows, out).
  void keep_x(Range a, const Dual<R>* from, int ldx) {
    split_dual(Halves::kValueFirst, a.size(), in_, from, ldx, x(a));
  }
  void keep_dy(Range a, const Dual<R>* from, int ldy) {
    split_dual(Halves::kTangentFirst, a.size(), out_, from, ldy, dy(a));
  }
  // After the sweep: some rows of `weight`, for each of the panels; and the bias. `block`: atoms of a stage
  // call.
  int panels() const { return (in_ + kPanel - 1) / kPanel; }
  void begin_sums() {
    weight.resize(static_cast<std::size_t>(in_) * out_);  // sum_panel() assigns
    bias.assign(out_, 0);
  }
  void sum_panel(int panel, Arena& arena);
  void sum_bias(int block);

  std::vector<double> weight, bias;

 private:
  static constexpr int kPanel = 32;
  int in_, out_, natoms_ = 0;
  Buffer<R> x_, dy_;
};

// Products of many rows in the weights' precision, added in double.
template <class R>
void RowGradient<R>::sum_panel(int panel, Arena& arena) {
  constexpr int stretch = 512;  // rows
  Arena::Scope scope(arena);
  const int first = panel * kPanel, count = std::min(kPanel, in_ - first);
  R* product = arena.take<R>(static_cast<std::size_t>(count) * out_);
  R* x = arena.take<R>(static_cast<std::size_t>(stretch) * count);  // the panel's columns side by side
  double* to = weight.data() + static_cast<std::size_t>(first) * out_;
  std::fill_n(to, natoms_ == 0 ? static_cast<std::size_t>(count) * out_ : 0, 0.0);
  for (int r = 0; r < 2 * natoms_; r += stretch) {
    const int rows = std::min(stretch, 2 * natoms_ - r);
    for (int k = 0; k < rows; ++k)
      std::copy_n(x_.data() + static_cast<std::size_t>(r + k) * in_ + first, count, x + k * count);
    gemm(count, out_, rows, transposed<R>(x, count), dy_.data() + static_cast<std::size_t>(r) * out_, out_,
         product, out_, false);
    if (r == 0) {
      for (int k = 0; k < count * out_; ++k) to[k] = double(product[k]);
    } else {
      for (int k = 0; k < count * out_; ++k) to[k] += double(product[k]);
    }
  }
}

template <class R>
void RowGradient<R>::sum_bias(int block) {
  for (int a = 0; a < natoms_; a += block) {
    const int rows = std::min(block, natoms_ - a);
    const R* dy = dy_.data() + 2 * static_cast<std::size_t>(a) * out_;
    for (int r = 0; r < rows; ++r, dy += out_) {
      for (int c = 0; c < out_; ++c) bias[c] += double(dy[c]);
    }
  }
}

// Sums of `size` numbers, one a group of atoms.
class GroupSums {
 public:
  explicit GroupSums(std::size_t size) : size_(size) {}
  void plan(int groups, MemoryPlan* to) {
    groups_ = groups;
    to->add(&sums_, groups * stride());
  }
  void clear() { sums_.zero(0, sums_.size()); }
  double* of(int group) { return sums_.data() + group * stride(); }
  void sum() {
    total.assign(size_, 0);
    for (int g = 0; g < groups_; ++g) {
      for (std::size_t k = 0; k < size_; ++k) total[k] += sums_[g * stride() + k];
    }
  }

  std::vector<double> total;

 private:
  std::size_t stride() const { return (size_ + 7) / 8 * 8; }
  std::size_t size_;
  int groups_ = 0;
  Buffer<double> sums_;
};

// sum (in, out) += tangent of x^T dy for x (rows, in), dy (rows, out)
template <class R>
void add_product(int rows, int in, int out, const Dual<R>* x, int ldx, const Dual<R>* dy, int ldy,
                 Arena& arena, double* sum) {
  Arena::Scope scope(arena);
  R* left = arena.take<R>(2 * static_cast<std::size_t>(rows) * in);
  R* right = arena.take<R>(2 * static_cast<std::size_t>(rows) * out);
  R* product = arena.take<R>(static_cast<std::size_t>(in) * out);
  split_dual(Halves::kValueFirst, rows, in, x, ldx, left);
  split_dual(Halves::kTangentFirst, rows, out, dy, ldy, right);
  gemm(in, out, 2 * rows, transposed<R>(left, in), right, out, product, out, false);
#pragma omp simd
  for (int k = 0; k < in * out; ++k) sum[k] += double(product[k]);
}
// The same of x (in, ldx), dy (out, ldy), whose columns are the rows.
template <class R>
void add_column_product(int rows, int in, int out, const Dual<R>* x, int ldx, const Dual<R>* dy, int ldy,
                        Arena& arena, double* sum) {
  Arena::Scope scope(arena);
  R* left = arena.take<R>(2 * static_cast<std::size_t>(rows) * in);
  R* right = arena.take<R>(2 * static_cast<std::size_t>(rows) * out);
  R* product = arena.take<R>(static_cast<std::size_t>(in) * out);
  for (int c = 0; c < in; ++c, x += ldx) {
    R* to = left + 2 * static_cast<std::size_t>(rows) * c;
#pragma omp simd
    for (int r = 0; r < rows; ++r) to[r] = x[r].value, to[rows + r] = x[r].tangent;
  }
  split_dual_transposed(Halves::kTangentFirst, rows, out, dy, ldy, right);
  gemm(in, out, 2 * rows, plain<R>(left, 2 * rows), right, out, product, out, false);
#pragma omp simd
  for (int k = 0; k < in * out; ++k) sum[k] += double(product[k]);
}
// sum (width) += tangents of the sums over rows of x (rows, width)
template <class R>
void add_row_sum(int rows, int width, const Dual<R>* x, int ldx, double* sum) {
  for (int r = 0; r < rows; ++r, x += ldx) {
    for (int c = 0; c < width; ++c) sum[c] += double(x[c].tangent);
  }
}
// sum (width) += tangents of the sums over columns of x (width, ldx)
template <class R>
void add_column_sum(int columns, int width, const Dual<R>* x, int ldx, double* sum) {
  for (int c = 0; c < width; ++c, x += ldx) {
    for (int k = 0; k < columns; ++k) sum[c] += double(x[k].tangent);
  }
}
// sum (width) += tangents of the sums over rows of x times y
template <class R>
void add_row_dot(int rows, int width, const Dual<R>* x, int ldx, const Dual<R>* y, int ldy, double* sum) {
  for (int r = 0; r < rows; ++r, x += ldx, y += ldy) {
    for (int c = 0; c < width; ++c) sum[c] += double((x[c] * y[c]).tangent);
  }
}

// Sums of tables (units, width), one a group of atoms; the number of units may differ from step to step.
template <class R>
class TableGradient {
 public:
  void resize(int units, int width) { units_ = units, width_ = width; }
  void plan(int groups, MemoryPlan* to) {
    groups_ = groups;
    to->add(&sums_, groups * size());
  }
  void clear(int group) { sums_.zero(group * size(), (group + 1) * size()); }
  R* of(int group, int unit) {
    return sums_.data() + group * size() + static_cast<std::size_t>(unit) * width_;
  }
  void sum(std::size_t begin, std::size_t end) {
    std::fill(total.begin() + begin, total.begin() + end, 0.0);
    for (int g = 0; g < groups_; ++g) {
      const R* from = sums_.data() + g * size();
      for (std::size_t k = begin; k < end; ++k) total[k] += double(from[k]);
    }
  }
  std::size_t size() const { return static_cast<std::size_t>(units_) * width_; }

  std::vector<double> total;

 private:
  int units_ = 0, width_ = 0, groups_ = 0;
  Buffer<R> sums_;
};

inline void add_to(const std::vector<double>& sum, Tensor* to) {
  for (std::size_t k = 0; k < sum.size(); ++k) to->data[k] += sum[k];
}

// All gradients of a model; stages ask for them once and write into them during a sweep.
template <class R>
class Gradients {
 public:
  RowGradient<R>* rows(int in, int out) {
    return (rows_.push_back(std::make_unique<RowGradient<R>>(in, out)), rows_.back().get());
  }
  GroupSums* sums(std::size_t size) {
    return (sums_.push_back(std::make_unique<GroupSums>(size)), sums_.back().get());
  }
  TableGradient<R>* tables() {
    return (tables_.push_back(std::make_unique<TableGradient<R>>()), tables_.back().get());
  }
  void plan(int natoms, int groups, MemoryPlan* to) {
    groups_ = groups;
    for (const auto& t : tables_) t->plan(groups, to);
    for (const auto& r : rows_) r->plan(natoms, to);
    for (const auto& s : sums_) s->plan(groups, to);
  }
  void clear(const Workspace& w) {
    for (const auto& s : sums_) s->clear();
#pragma omp parallel for schedule(static) if (w.threads > 1)
    for (int g = 0; g < groups_; ++g) {
      for (const auto& t : tables_) t->clear(g);
    }
  }
  // After the sweep.
  void finish(const Workspace& w) {
    for (const auto& s : sums_) s->sum();
    constexpr std::size_t part = 4096;
    for (const auto& t : tables_) {
      t->total.resize(t->size());
#pragma omp parallel for schedule(static) if (w.threads > 1)
      for (std::size_t k = 0; k < t->size(); k += part) t->sum(k, std::min(t->size(), k + part));
    }
    std::vector<std::pair<RowGradient<R>*, int>> panels;
    for (const auto& r : rows_) {
      r->begin_sums(), r->sum_bias(w.block);
      for (int p = 0; p < r->panels(); ++p) panels.push_back({r.get(), p});
    }
#pragma omp parallel for schedule(dynamic) if (w.threads > 1)
    for (std::size_t k = 0; k < panels.size(); ++k) panels[k].first->sum_panel(panels[k].second, w.arena());
  }

 private:
  std::vector<std::unique_ptr<RowGradient<R>>> rows_;
  std::vector<std::unique_ptr<GroupSums>> sums_;
  std::vector<std::unique_ptr<TableGradient<R>>> tables_;
  int groups_ = 0;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
