// GpuBackend: tables of the embedding nets for the types that have come up.
#pragma once

#include "cuda/host/gpu_backend.h"
#include "model/embedding_tables.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// Makes the tables again when types have come up that they do not know.
template <class T>
void GpuBackend<T>::build_tables(const std::vector<char>& present) {
  if (!use_tables_) return;
  tabulated_types_.resize(present.size(), 0);
  bool grown = false;
  for (std::size_t t = 0; t < present.size(); ++t) {
    grown = grown || (present[t] && !tabulated_types_[t]);
    tabulated_types_[t] |= present[t];
  }
  if (!grown) return;
  reserved_ = false;
  tables_ = std::make_unique<WeightStore<T>>();
  build_repinit_tables();
  if (model_.has_three_body) build_three_body_tables();
}

namespace {

// A table in T with its rows padded to `channels` numbers.
template <class T>
TableView<T> upload_table(const FunctionTable& from, int channels, WeightStore<T>* store) {
  if (from.empty()) return {};
  std::vector<double> node(static_cast<std::size_t>(from.cells + 1) * 4 * channels, 0.0);
  for (std::size_t row = 0; row < 4 * static_cast<std::size_t>(from.cells + 1); ++row) {
    for (int m = 0; m < from.channels; ++m) node[row * channels + m] = from.node[row * from.channels + m];
  }
  return {from.lower, 1.0 / from.width, from.cells, store->put(node)};
}

}  // namespace

template <class T>
const TableView<T>* GpuBackend<T>::upload_views(const std::vector<TableView<T>>& views) {
  for (const TableView<T>& v : views) {
    if (v.node) return tables_->put_array(views.data(), views.size());
  }
  return nullptr;
}

template <class T>
void GpuBackend<T>::build_repinit_tables() {
  const int nt = model_.ntypes();
  std::vector<TableView<T>> views(static_cast<std::size_t>(nt) * nt);
  for (const RepinitTable& t : tabulate_repinit(model_, tabulated_types_, table_tolerance(single()))) {
    const TableView<T> view = upload_table(t.table, model_.repinit.ng, tables_.get());
    for (int b = 0; b < nt; ++b) {
      if (t.neighbor < 0 || t.neighbor == b) views[t.center * nt + b] = view;
    }
  }
  state_.embedding.table = upload_views(views);
  state_.embedding.table_channels = model_.repinit.ng;
}

template <class T>
void GpuBackend<T>::build_three_body_tables() {
  const int nt = model_.ntypes(), ng = model_.three_body.ng;
  const int channels = (ng + kTripleChannels - 1) / kTripleChannels * kTripleChannels;
  const ThreeBodyTables made = tabulate_three_body(model_, tabulated_types_, table_tolerance(single()));
  std::vector<TableView<T>> views(static_cast<std::size_t>(nt) * nt);
  for (const ThreeBodyTable& t : made.tables) {
    const TableView<T> view = upload_table(t.table, channels, tables_.get());
    for (int a = 0; a < nt && t.a < 0; ++a) {
      for (int b = 0; b < nt; ++b) views[a * nt + b] = view;
    }
    if (t.a >= 0) views[t.a * nt + t.b] = views[t.b * nt + t.a] = view;
  }
  state_.embedding3.table = upload_views(views);
  state_.embedding3.table_channels = channels;
  state_.embedding3.reach = made.reach;
}

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
