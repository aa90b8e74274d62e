// The tables of the types in use, in the backend's precision and layout.
#include "cpu/tables.h"

#include "cpu/cpu_backend.h"
#include "model/embedding_tables.h"

namespace dpa2md {
namespace DPA2MD_ISA {

// Makes the tables again when types have come up that they do not know.
template <class T>
void CpuBackend<T>::build_tables() {
  if (!use_tables_) return;
  const std::vector<char>& present = pairs().types_present;
  tabulated_.resize(model_.ntypes(), 0);
  bool grown = false;
  for (std::size_t t = 0; t < present.size(); ++t) {
    if (present[t] && !tabulated_[t]) tabulated_[t] = 1, grown = true;
  }
  if (!grown) return;
  build_repinit_tables();
  if (model_.has_three_body) build_three_body_tables();
  build_radial_table();
}

// One that a core's second cache can hold, or none: products are faster than waiting for memory.
template <class T>
void CpuBackend<T>::build_radial_table() {
  constexpr std::size_t most_bytes = 768 << 10;  // of a layer, and up to twice as many
  const int channels = rep().g2_dim + rep().g1_dim;
  if (radial_layers(rep()) == 0) return;
  const auto cells = static_cast<int>(most_bytes / (4 * channels * sizeof(T)));
  const FunctionTable made = tabulate_radial_layers(model_, tabulated_, table_tolerance(single()), cells);
  radial_layers_ = made.empty() ? 0 : radial_layers(rep());
  radial_ld_ = padded(channels, lanes<T>());
  radial_ = std::vector<Table<T>>(radial_layers_);
  for (int l = 0; l < radial_layers_; ++l) radial_[l].set(made, l * channels, channels, radial_ld_);
}

template <class T>
void CpuBackend<T>::build_repinit_tables() {
  const int nt = model_.ntypes();
  w_repinit_.tables.start(nt, model_.repinit.ng, lanes<T>());
  for (const RepinitTable& made : tabulate_repinit(model_, tabulated_, table_tolerance(single()))) {
    const Table<T>* table = w_repinit_.tables.add(made.table);
    for (int b = 0; b < nt; ++b) {
      if (made.neighbor < 0 || made.neighbor == b) w_repinit_.tables.set(made.center, b, table);
    }
  }
  make_room_for_units(w_repinit_.tables.units());
}

// For an embedding's tables, and for a compressed model's own.
template <class T>
void CpuBackend<T>::make_room_for_units(int count) {
  if (!model_.repinit.table.empty())
    count = std::max(count, 3 * static_cast<int>(model_.repinit.table.coefficients.shape[0]));
  unit_count_ = padded(count, 16);  // threads share no cache line
  unit_slot_.assign(static_cast<std::size_t>(threads_) * unit_count_, -1);
}

template <class T>
void CpuBackend<T>::build_three_body_tables() {
  const int nt = model_.ntypes();
  const ThreeBodyTables made = tabulate_three_body(model_, tabulated_, table_tolerance(single()));
  reach_ = made.reach;
  w_three_.tables.start(made.tables.empty() ? 0 : nt, model_.three_body.ng, kTripleLanes);
  for (const ThreeBodyTable& m : made.tables) {
    const Table<T>* table = w_three_.tables.add(m.table);
    for (int a = 0; a < nt && m.a < 0; ++a) {
      for (int b = 0; b < nt; ++b) w_three_.tables.set(a, b, table);
    }
    if (m.a >= 0) w_three_.tables.set(m.a, m.b, table), w_three_.tables.set(m.b, m.a, table);
  }
}

template void CpuBackend<float>::build_tables();
template void CpuBackend<float>::make_room_for_units(int);
template void CpuBackend<double>::make_room_for_units(int);
template void CpuBackend<double>::build_tables();

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
