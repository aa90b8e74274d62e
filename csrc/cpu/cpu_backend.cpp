// Weights folded once, buffers sized once a step, blocks of atoms handed to threads.
#include "cpu_backend.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <numeric>

#include "../threads.h"
#include "memory_limit.h"

namespace dpa2md {
namespace DPA2MD_ISA {

namespace {
#define DPA2MD_STRING(x) DPA2MD_STRING_(x)
#define DPA2MD_STRING_(x) #x
}  // namespace

template <class T>
void Panels<T>::pack(int rows, int columns, const T* from) {
  constexpr int panel = 2 * lanes<T>();
  in = rows, out = columns;
  w.resize(static_cast<std::size_t>(in) * out);
  T* to = w.data();
  for (int c = 0; c < out; c += panel) {
    for (int r = 0; r < in; ++r) to = std::copy_n(from + r * out + c, std::min(panel, out - c), to);
  }
}

// Rows of the weight in stretches that stay in the first cache for all tiles.
template <class T>
void Panels<T>::multiply(int rows, const T* x, int ldx, T* y, int ldy, bool add) const {
  constexpr int panel = 2 * lanes<T>(), stretch = 128;
  for (int c = 0; c < out; c += panel) {
    const int columns = std::min(panel, out - c);
    const T* b = w.data() + static_cast<std::size_t>(c) * in;
    for (int r = 0; r < in; r += stretch) {
      gemm(rows, columns, std::min(stretch, in - r), plain(x + r, ldx),
           b + static_cast<std::size_t>(r) * columns, columns, y + c, ldy, add || r > 0);
    }
  }
}

template <class T>
void Linear<T>::prepare(const Tensor& weight, const Tensor* bias) {
  const int in = static_cast<int>(weight.shape[0]), out = static_cast<int>(weight.shape[1]);
  const Buffer<T> plain_order = cast<T>(weight);
  Buffer<T> transposed_order;
  transposed_order.resize(plain_order.size());
  transpose(in, out, plain_order.data(), out, transposed_order.data(), in);
  w.pack(in, out, plain_order.data());
  wt.pack(out, in, transposed_order.data());
  if (bias) b = cast<T>(*bias);
}

template <class T>
void Linear<T>::forward(int rows, const T* x, int ldx, T* y, int ldy) const {
  for (int r = 0; r < rows && !b.empty(); ++r)
    std::copy(b.data(), b.data() + w.out, y + static_cast<std::size_t>(r) * ldy);
  w.multiply(rows, x, ldx, y, ldy, !b.empty());
}

template <class T>
void Linear<T>::backward(int rows, const T* dy, int ldy, T* dx, int ldx, bool add) const {
  wt.multiply(rows, dy, ldy, dx, ldx, add);
}

template <class T>
CpuBackend<T>::CpuBackend(const Model& model, int threads, bool tables, bool low_memory)
    : model_(model),
      threads_(threads),
      use_tables_(tables),
      low_memory_(low_memory),
      arenas_(new Arena[threads_]),
      kept_arenas_(new Arena[threads_]),
      kept_(new PairAttention*[threads_]) {
  prepare();
}

template <class T>
CpuBackend<T>::~CpuBackend() {
  delete[] arenas_;
  delete[] kept_arenas_;
  delete[] kept_;
  delete[] layers_;
}

template <class T>
Arena& CpuBackend<T>::arena() const {
  return arenas_[thread_index()];
}

template <class T>
std::string CpuBackend<T>::description() const {
  return std::string("cpu (") + (DPA2MD_STRING(DPA2MD_ISA) + 4) + ", " + (single() ? "float32" : "float64") +
         ", " + std::to_string(threads_) + (threads_ == 1 ? " thread" : " threads") +
         (low_memory_ ? ", low memory)" : ")");
}

namespace {

// The rows of a weight that reads D (DeePMD-kit: (ng, axis), here (axis, ng)) in the order of this backend.
Tensor repinit_rows(const Model& m, Tensor weight) {
  const int ng = m.repinit.ng, axis = m.repinit_axis;
  const std::size_t width = static_cast<std::size_t>(weight.shape[1]);
  const std::vector<double> from = weight.data;
  for (int g = 0; g < ng; ++g) {
    for (int a = 0; a < axis; ++a) {
      std::copy_n(from.begin() + (g * axis + a) * width, width, weight.data.begin() + (a * ng + g) * width);
    }
  }
  return weight;
}

// Rows of `columns` numbers, each padded with zeros to whole vectors.
template <class T>
Buffer<T> cast_padded(const Tensor& t, int columns) {
  Buffer<T> out;
  const std::size_t rows = t.data.size() / columns, np = padded(columns, lanes<T>());
  out.resize(rows * np);
  out.zero(0, rows * np);
  for (std::size_t r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) out[r * np + c] = static_cast<T>(t.data[r * columns + c]);
  }
  return out;
}

// A compressed model's table (rows, ng, 6) as (rows, 6, padded ng).
template <class T>
Buffer<T> coefficients_by_power(const Embedding& e) {
  const std::size_t np = padded(e.ng, lanes<T>()), rows = e.table.coefficients.data.size() / (6 * e.ng);
  Buffer<T> out;
  out.resize(rows * 6 * np);
  out.zero(0, out.size());
  const double* from = e.table.coefficients.data.data();
  for (std::size_t r = 0; r < rows; ++r) {
    for (int m = 0; m < e.ng; ++m) {
      for (int k = 0; k < 6; ++k) out[(r * 6 + k) * np + m] = T(*from++);
    }
  }
  return out;
}

// The three-body gate summed over both orders of two types, rows padded for the tables.
template <class T>
Buffer<T> both_orders(const Model& m) {
  const int nt = m.ntypes(), ng = m.three_body.ng, np = padded(ng, kTripleLanes);
  const std::vector<double>& gate = m.three_body.strip_table.data;
  Buffer<T> out;
  out.resize(static_cast<std::size_t>(nt) * nt * np);
  out.zero(0, out.size());
  for (std::size_t a = 0; a < static_cast<std::size_t>(nt); ++a) {
    for (std::size_t b = 0; b < static_cast<std::size_t>(nt); ++b) {
      for (int c = 0; c < ng; ++c)
        out[(a * nt + b) * np + c] = T(gate[(a * nt + b) * ng + c] + gate[(b * nt + a) * ng + c]);
    }
  }
  return out;
}

}  // namespace

template <class T>
void CpuBackend<T>::prepare() {
  const Model& m = model_;
  types_ = cast<T>(m.type_embedding);
  const auto embedding = [](const Embedding& e, EmbeddingWeights<T>* w) {
    if (!e.net.empty()) w->net.prepare(e.net);
    w->gate = cast_padded<T>(e.strip_table, e.ng);
    if (!e.table.empty()) w->compressed = coefficients_by_power<T>(e);
  };
  embedding(m.repinit, &w_repinit_);
  prepare_empty_slots();
  repinit_width_ = m.repinit.ng * m.repinit_axis;
  env_repinit_.block = &m.repinit;
  if (!m.is_dpa2) {
    Net net = m.fitting.net;
    net.layers[0].w = repinit_rows(m, net.layers[0].w);
    w_fitting_.prepare(net);
    return;
  }
  w_fitting_.prepare(m.fitting.net);
  if (m.has_three_body) {
    embedding(m.three_body, &w_three_);
    if (m.three_body.strip) w_three_.both = both_orders<T>(m);
    repinit_width_ += m.three_body.ng;
    env_three_.block = &m.three_body;
  }
  env_rep_.block = &m.repformer;
  env_rep_.direct = m.repformer.direct_dist;
  if (!m.g1_transform.empty()) w_transform_.prepare(repinit_rows(m, m.g1_transform), nullptr);
  if (!m.tebd_transform.empty()) {
    const int nt = m.ntypes(), width = m.repformer.g1_dim;
    w_tebd_.resize(static_cast<std::size_t>(nt) * width);
    for (int t = 0; t < nt; ++t) {
      for (int c = 0; c < width; ++c) {
        double sum = 0;
        for (int k = 0; k < m.tebd_dim(); ++k) sum += m.type_embedding(t, k) * m.tebd_transform(k, c);
        w_tebd_[static_cast<std::size_t>(t) * width + c] = T(sum);
      }
    }
  }
  w_g2_embd_ = cast<T>(m.repformer.g2_embd.w);
  b_g2_embd_ = cast<T>(m.repformer.g2_embd.b);
  layers_ = new RepformerWeights<T>[m.repformer.nlayers];
  for (int l = 0; l < m.repformer.nlayers; ++l) prepare_repformer_layer(l);
}

namespace {

// Column of channel c, head h in an output viewed as (channels, heads): the head runs fastest.
int head_fastest(int c, int h, int heads) { return c * heads + h; }

// Per head: sum_c left[a][column(c)] right[b][column'(c)] -> Tensor (heads, rows, cols), in double.
template <class F>
Tensor fold(int heads, int rows, int cols, F&& element) {
  Tensor t{{heads, rows, cols}, std::vector<double>(static_cast<std::size_t>(heads) * rows * cols)};
  for (int h = 0; h < heads; ++h) {
    for (int a = 0; a < rows; ++a) {
      for (int b = 0; b < cols; ++b)
        t.data[(static_cast<std::size_t>(h) * rows + a) * cols + b] = element(h, a, b);
    }
  }
  return t;
}

Tensor heads_transposed(const Tensor& t) {
  const int rows = static_cast<int>(t.shape[1]), cols = static_cast<int>(t.shape[2]);
  return fold(static_cast<int>(t.shape[0]), cols, rows, [&](int h, int a, int b) {
    return t.data[(static_cast<std::size_t>(h) * rows + b) * cols + a];
  });
}

Tensor without_row_means(Tensor t, int width) {
  for (auto row = t.data.begin(); row != t.data.end(); row += width) {
    const double mean = std::accumulate(row, row + width, 0.0) / width;
    for (int c = 0; c < width; ++c) row[c] -= mean;
  }
  return t;
}

}  // namespace

template <class T>
void CpuBackend<T>::prepare_repformer_layer(int l) {
  const Repformer& f = rep();
  const RepformerLayer& m = f.layers[l];
  RepformerWeights<T>& w = layers_[l];
  const int g1w = f.g1_dim, g2w = f.g2_dim;
  const bool pair_update = l + 1 < f.nlayers;

  // x' = alpha x + sum of scaled updates, in the order of the original's update list
  const auto scales = [&](int updates, const Tensor& residual, int width, T* alpha) {
    *alpha = f.style == Repformer::Style::kAvg ? T(1.0 / std::sqrt(updates + 1.0)) : T(1);
    return [=, &residual, &f, next = 0]() mutable {
      Buffer<T> s;
      s.resize(width);
      for (int c = 0; c < width; ++c) {
        s[c] = f.style == Repformer::Style::kResidual ? T(residual(next, c))
               : f.style == Repformer::Style::kAvg    ? T(1.0 / std::sqrt(updates + 1.0))
                                                      : T(1.0 / std::sqrt(double(updates)));
      }
      ++next;
      return s;
    };
  };
  const int g1_updates = 1 + f.g1_out_mlp + (f.has_conv && f.g1_out_conv) + f.has_g1_attn;
  auto next_g1 = scales(g1_updates, m.g1_residual, g1w, &w.g1_alpha);
  if (f.g1_out_mlp) w.scale_self = next_g1();
  if (f.has_conv && f.g1_out_conv) w.scale_conv = next_g1();
  w.scale_mlp = next_g1();
  if (f.has_g1_attn) w.scale_attn1 = next_g1();

  w.mlp.prepare(m.linear1.w, &m.linear1.b);
  if (f.g1_out_mlp) w.self.prepare(m.g1_self.w, &m.g1_self.b);
  if (f.has_conv) {
    w.conv.resize(static_cast<std::size_t>(g2w) * g1w);
    for (int k = 0; k < g2w; ++k) {
      for (int c = 0; c < g1w; ++c) w.conv[k * g1w + c] = T(f.g1_out_conv ? m.conv(k, c) : m.conv(c, k));
    }
    w.conv_t.resize(w.conv.size());
    transpose(g2w, g1w, w.conv.data(), g1w, w.conv_t.data(), g2w);
  }
  if (f.has_g1_attn) {
    const int nd = f.attn1_hidden, nh = f.attn1_nhead;
    Tensor query{{g1w, nh * g1w}, std::vector<double>(static_cast<std::size_t>(g1w) * nh * g1w, 0.0)};
    Tensor value{{nh * g1w, g1w}, std::vector<double>(static_cast<std::size_t>(g1w) * nh * g1w, 0.0)};
    for (int h = 0; h < nh; ++h) {
      for (int a = 0; a < g1w; ++a) {
        double* q = &query.data[static_cast<std::size_t>(a) * nh * g1w + h * g1w];
        double* v = &value.data[static_cast<std::size_t>(h * g1w + a) * g1w];
        for (int b = 0; b < g1w; ++b) {
          for (int c = 0; c < nd; ++c) {
            q[b] += m.attn1_q(a, head_fastest(c, h, nh)) * m.attn1_kv(b, head_fastest(c, h, nh)) /
                    std::sqrt(double(nd));
          }
        }
        for (int c = 0; c < g1w; ++c) {
          const double x = m.attn1_kv(a, head_fastest(nd + c, h, nh));
          for (int b = 0; b < g1w; ++b) v[b] += x * m.attn1_head.w(h * g1w + c, b);
        }
      }
    }
    w.attn1_query.prepare(query, nullptr);
    w.attn1_value.prepare(value, &m.attn1_head.b);
  }
  w.g2_alpha = w.h2_alpha = T(1);
  w.h2_scale = T(0);
  if (!pair_update) return;

  const int g2_updates = 1 + f.has_g1g1 + f.has_g2_attn;
  auto next_g2 = scales(g2_updates, m.g2_residual, g2w, &w.g2_alpha);
  w.scale_linear2 = next_g2();
  if (f.has_g1g1) w.scale_g1g1 = next_g2();
  if (f.has_g2_attn) w.scale_attn2 = next_g2();
  w.linear2.prepare(m.linear2.w, &m.linear2.b);
  if (f.has_g1g1) w.g1g1.prepare(m.g1g1, nullptr);
  const int nd = f.attn2_hidden, nh = f.attn2_nhead;
  if (f.has_g2_attn || f.update_h2) {
    const Tensor map = fold(nh, g2w, g2w, [&](int h, int a, int b) {
      double sum = 0;  // q are heads 0 … nh-1 of the 2 nh, k the rest
      for (int c = 0; c < nd; ++c) {
        sum += m.attn2_qk(a, head_fastest(c, h, 2 * nh)) * m.attn2_qk(b, head_fastest(c, nh + h, 2 * nh));
      }
      return sum / std::sqrt(double(nd));
    });
    w.attn2_map = cast<T>(map);
    w.attn2_map_t = cast<T>(heads_transposed(map));
  }
  if (f.has_g2_attn) {
    const Tensor value = fold(nh, g2w, g2w, [&](int h, int a, int b) {
      double sum = 0;
      for (int c = 0; c < g2w; ++c) {
        sum += m.attn2_v(a, head_fastest(c, h, nh)) * m.attn2_head.w(head_fastest(c, h, nh), b);
      }
      return sum;
    });
    const Tensor centred = without_row_means(value, g2w);  // the layer norm would take it away
    w.attn2_value = cast<T>(centred);
    w.attn2_value_t = cast<T>(heads_transposed(centred));
    w.attn2_bias = cast<T>(without_row_means(m.attn2_head.b, g2w));
    w.ln_w = cast<T>(m.ln_w);
    w.ln_b = cast<T>(m.ln_b);
  }
  if (f.update_h2) {
    w.h2_head = cast<T>(m.attn2_h2_head);
    w.h2_scale = scales(1, m.h2_residual, 1, &w.h2_alpha)()[0];
  }
}

template <class T>
void CpuBackend<T>::begin(const StepInput& input, const StepOutput& output) {
  input_ = input;
  output_ = output;
  env_repinit_.prefix = &pairs().repinit;
  env_three_.prefix = &pairs().three_body;
  env_rep_.prefix = &pairs().repformer;
  block_ = block_size(pairs().natoms);
  build_tables();
  if (input.forces) {
    if (any_reads_gg1()) g1_shares_.build(pairs(), pairs().repformer, block_, chunk_blocks());
    force_shares_.build(pairs(), pairs().repinit, block_, chunk_blocks());
  }
  reserve();
}

namespace {

// Most pairs of a block of atoms, in whole cache lines, so that threads do not share any.
std::size_t most_in_block(const Prefix& p, int natoms, int block) {
  std::int64_t most = 0;
  for (int i = 0; i < natoms; i += block)
    most = std::max(most, p.first[std::min(natoms, i + block)] - p.first[i]);
  return static_cast<std::size_t>(most + 15) / 16 * 16 + 16;
}

}  // namespace

template <class T>
void CpuBackend<T>::reserve() {
  const Repformer& f = rep();
  const std::size_t n = pairs().natoms, rows = pairs().nrows, near = pairs().repformer.first[n];
  const std::size_t blocks = static_cast<std::size_t>(threads_) * block_;  // atoms at work
  const bool back = input_.forces;
  g1_stride_ = rows * f.g1_dim;
  g2_stride_ = near * f.g2_dim;
  h2_stride_ = near * kH2;
  const std::size_t layers = f.nlayers, before_last = layers ? layers - 1 : 0;
  const std::size_t slopes = back && !low_memory_ ? before_last * n * f.g1_dim : 0;
  const auto in_blocks = [&](const Prefix& p) { return most_in_block(p, pairs().natoms, block_); };
  env_repinit_.block_pairs = in_blocks(pairs().repinit);
  env_three_.block_pairs = in_blocks(pairs().three_body);
  near_block_ = in_blocks(pairs().repformer);
  const std::size_t all = threads_ * env_repinit_.block_pairs, three = threads_ * env_three_.block_pairs;

  struct Plan {
    Buffer<T>* buffer;
    std::size_t size;
  };
  const Plan plan[] = {
      {&env_repinit_.em, 4 * all},
      {&env_repinit_.dem, back * 4 * all},
      {&env_repinit_.sw, all},
      {&env_repinit_.dsw, back * all},
      {&env_three_.em, 4 * three},
      {&env_three_.dem, back * 4 * three},
      {&env_three_.sw, three},
      {&env_three_.dsw, back * three},
      {&env_rep_.em, 4 * near},
      {&env_rep_.dem, back * 4 * near},
      {&env_rep_.sw, near},
      {&env_rep_.dsw, back * near},
      {&moment_, keeps_moments() ? n * 4 * padded(model_.repinit.ng, lanes<T>()) : 0},
      {&rep_out_, blocks * repinit_width_},
      {&drep_out_, back * blocks * repinit_width_},
      {&g1_slope_, n * f.g1_dim},
      {&mlp_slope_, slopes},
      {&self_slope_, f.g1_out_mlp * slopes},
      {&mlp_slope_block_, blocks * f.g1_dim},
      {&self_slope_block_, f.g1_out_mlp * blocks * f.g1_dim},
      {&g1_, (back ? layers + 1 : 3) * (layers > 0) * g1_stride_},
      {&dg1_, back * 2 * g1_stride_},
      {&g2_, g2_slots() * g2_stride_},
      {&g2_block_, threads_ * near_block_ * f.g2_dim},
      {&dg2_, back * g2_stride_},
      {&h2_, f.update_h2 ? before_last * h2_stride_ : 0},
      {&dh2_, f.update_h2 ? back * 2 * h2_stride_ : 0},
      {&dgg1_, back * g1_shares_.size() * f.g1_dim},
  };
  const std::size_t force_slots = back * 12 * force_shares_.size();
  std::size_t bytes = force_slots * sizeof(double), held = dforce_.size() * sizeof(double);
  for (const Plan& p : plan) bytes += p.size * sizeof(T), held += p.buffer->size() * sizeof(T);
  check_memory(bytes, held, static_cast<std::int64_t>(n), low_memory_);
  for (const Plan& p : plan) p.buffer->resize(p.size);
  dforce_.resize(force_slots);
}

// 4 to 32 atoms: weights meet many rows at once, and threads share the work evenly.
template <class T>
int CpuBackend<T>::block_size(int count) const {
  return std::clamp(count / (4 * threads_), 4, 32);
}

// Few enough that what they give to neighbours stays in cache, enough that no thread waits long for the
// others.
template <class T>
int CpuBackend<T>::chunk_blocks() const {
  return 16 * threads_;
}

template <class T>
void CpuBackend<T>::run(int natoms, const std::function<void(Range)>& stage,
                        const std::function<void(Range)>& gather) {
  const int block = block_size(natoms), chunk = gather ? chunk_blocks() * block : std::max(natoms, 1);
  std::exception_ptr failure;  // must not leave a parallel region
  for (int from = 0; from < natoms && !failure; from += chunk) {
    const int to = std::min(natoms, from + chunk);
#pragma omp parallel for schedule(dynamic) if (threads_ > 1)
    for (int begin = from; begin < to; begin += block) {
      try {
        stage({begin, std::min(to, begin + block)});
      } catch (...) {
#pragma omp critical
        failure = std::current_exception();
      }
    }
    if (gather && !failure) gather({from, to});
  }
  if (failure) std::rethrow_exception(failure);
}

template struct Panels<float>;
template struct Panels<double>;
template struct Linear<float>;
template struct Linear<double>;
template class CpuBackend<float>;
template class CpuBackend<double>;

std::unique_ptr<Backend> make_backend(const Model& model, bool single, int threads, bool tables,
                                      bool low_memory) {
  if (single) return std::make_unique<CpuBackend<float>>(model, threads, tables, low_memory);
  return std::make_unique<CpuBackend<double>>(model, threads, tables, low_memory);
}

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
