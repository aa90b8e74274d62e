// Tables of the embedding nets, for the types seen so far.
#pragma once

#include <cmath>
#include <memory>
#include <vector>

#include "cuda/host/device.h"
#include "cuda/kernels/repinit_tables.h"
#include "cuda/kernels/three_body_tables.h"
#include "model/embedding_tables.h"
#include "model/model.h"

namespace dpa2md {
namespace DPA2MD_GPU {

template <class T>
class ModelTables {
 public:
  // used: false leaves the nets to be computed.
  ModelTables(const Model& model, bool used) : model_(model), used_(used) {}

  // Makes them anew if a type is present (nt) that they lack; points the embeddings of *s at them. Returns
  // whether it did.
  bool update(const std::vector<char>& present, State<T>* s);
  std::size_t capacity() const { return store_ ? store_->capacity() : 0; }  // bytes

 private:
  void make_repinit(const std::vector<char>& types, EmbeddingView<T>* to);
  void make_three_body(const std::vector<char>& types, EmbeddingView<T>* to);
  const TableView<T>* upload_views(const std::vector<TableView<T>>& views);
  static double tolerance() { return table_tolerance(sizeof(T) == 4); }

  const Model& model_;
  bool used_;
  std::vector<char> types_;  // (nt) that the tables know
  std::unique_ptr<WeightStore<T>> store_;
};

namespace {

// The coefficients (kPowers) of a cell and channel, as a polynomial of the place from -1/2 to 1/2.
inline void find_polynomial(const FunctionTable& from, int cell, int channel, double* piece) {
  const int n = from.channels;
  const double* x = &from.node[static_cast<std::size_t>(cell) * 4 * n + channel];
  const double f = x[0], d = x[n], s0 = x[2 * n], c0 = x[3 * n], s1 = x[6 * n], c1 = x[7 * n];
  // coefficients for the place from 0 to 1
  double p[kPowers] = {f,
                       s0,
                       0.5 * c0,
                       10 * d - 6 * s0 - 4 * s1 - 1.5 * c0 + 0.5 * c1,
                       -15 * d + 8 * s0 + 7 * s1 + 1.5 * c0 - c1,
                       6 * d - 3 * s0 - 3 * s1 - 0.5 * c0 + 0.5 * c1};
  // shifts the place by 1/2
  for (int k = 0; k < kPowers; ++k) {
    for (int m = kPowers - 2; m >= k; --m) p[m] += 0.5 * p[m + 1];
  }
  std::copy(p, p + kPowers, piece);
}

// Uploads a table in T, with its channels padded to `channels`; at(power, channel) is the index of a
// coefficient within its cell.
template <class T, class At>
TableView<T> upload_table(const FunctionTable& from, int channels, WeightStore<T>* store, At at) {
  if (from.empty()) return {};
  const std::size_t size = static_cast<std::size_t>(kPowers) * channels;
  std::vector<double> pieces(from.cells * size, 0.0);
  for (int cell = 0; cell < from.cells; ++cell) {
    for (int m = 0; m < from.channels; ++m) {
      double p[kPowers];
      find_polynomial(from, cell, m, p);
      for (int k = 0; k < kPowers; ++k) pieces[cell * size + at(k, m)] = p[k];
    }
  }
  return {T(1.0 / from.width), static_cast<int>(std::lround(from.lower / from.width)), from.cells,
          store->put(pieces)};
}

}  // namespace

template <class T>
bool ModelTables<T>::update(const std::vector<char>& present, State<T>* s) {
  std::vector<char> types = types_;
  if (!used_ || !add_types(present, &types)) return false;
  types_.clear();  // until all are there
  s->embedding.table = s->embedding3.table = nullptr;
  store_ = std::make_unique<WeightStore<T>>();
  make_repinit(types, &s->embedding);
  if (model_.has_three_body) make_three_body(types, &s->embedding3);
  types_ = types;
  return true;
}

template <class T>
const TableView<T>* ModelTables<T>::upload_views(const std::vector<TableView<T>>& views) {
  for (const TableView<T>& v : views) {
    if (v.piece) return store_->put_array(views.data(), views.size());
  }
  return nullptr;
}

template <class T>
void ModelTables<T>::make_repinit(const std::vector<char>& types, EmbeddingView<T>* to) {
  const int nt = model_.ntypes(), channels = (model_.repinit.ng + 3) / 4 * 4;
  std::vector<TableView<T>> views(static_cast<std::size_t>(nt) * nt);
  for (const RepinitTable& t : tabulate_repinit(model_, types, tolerance())) {
    if (nt > kMostTabulatedTypes || t.table.cells > 1 << kCellBits) continue;
    const TableView<T> view =
        upload_table(t.table, channels, store_.get(), [&](int k, int m) { return k * channels + m; });
    for (int b = 0; b < nt; ++b) {
      if (t.neighbor < 0 || t.neighbor == b) views[t.center * nt + b] = view;
    }
  }
  to->table = upload_views(views);
  to->table_channels = channels;
}

template <class T>
void ModelTables<T>::make_three_body(const std::vector<char>& types, EmbeddingView<T>* to) {
  const int nt = model_.ntypes(), ng = model_.three_body.ng;
  const int channels = (ng + kTripleChannels - 1) / kTripleChannels * kTripleChannels;
  const ThreeBodyTables made = tabulate_three_body(model_, types, tolerance());
  std::vector<TableView<T>> views(static_cast<std::size_t>(nt) * nt);
  for (const ThreeBodyTable& t : made.tables) {
    const TableView<T> view = upload_table(t.table, channels, store_.get(), [](int k, int m) {
      const int lane = m % kTripleChannels,
                of_lane = k < 4 ? 4 * lane + k : 4 * kTripleChannels + 2 * lane + k - 4;
      return m / kTripleChannels * kTriplePiece + of_lane;
    });
    for (int a = 0; a < nt && t.a < 0; ++a) {
      for (int b = 0; b < nt; ++b) views[a * nt + b] = view;
    }
    if (t.a >= 0) views[t.a * nt + t.b] = views[t.b * nt + t.a] = view;
  }
  to->table = upload_views(views);
  to->table_channels = channels;
  to->reach = made.reach;
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
