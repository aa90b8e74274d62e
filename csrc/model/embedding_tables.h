// Chooses the function tables (function_table.h) for the embedding nets and for pair states that depend on a
// distance alone: their ranges and tolerances. In double; a backend casts and arranges them.
#pragma once

#include <vector>

#include "model/function_table.h"
#include "model/model.h"

namespace dpa2md {

// The table of a (centre, neighbour) pair of types, or of all neighbours (-1). An empty table: the net is
// used. Most neighbours are far, where em_0 is small and larger cells follow, too.
struct RepinitTable {
  int center, neighbor;
  FunctionTable table;
  std::vector<FunctionTable> coarser;  // coarser_beginnings, up to kCoarsest times the width
};
constexpr int kCoarsest = 8;

// c g(c) of an unordered pair of neighbours' types, both orders summed, or (strip mode, types -1) of the
// common net in one order.
struct ThreeBodyTable {
  int a, b;
  FunctionTable table;
};

struct ThreeBodyTables {
  double reach = 0;                    // largest |c| that they cover
  std::vector<ThreeBodyTable> tables;  // none: the net is used
};

// Where a table of an embedding net is needed: of types a and b (-1: of all), and the types whose embeddings
// the net reads after x; several are summed.
struct TableRange {
  int a, b;
  double lower, upper;
  std::vector<std::vector<int>> types;
};
std::vector<TableRange> repinit_ranges(const Model& model, const std::vector<char>& present);
std::vector<TableRange> three_body_ranges(const Model& model, const std::vector<char>& present);

// Adds the present types to the known ones; returns whether any was new.
bool add_types(const std::vector<char>& present, std::vector<char>* known);

// A table's error, relative to its largest value: well below the rounding of float32 (6e-8); in double the
// cancellation error of nearly equal nodes, a hundredth of the parity tests' tolerance.
inline double table_tolerance(bool single) { return single ? 2e-9 : 2e-13; }

// Tables for the types with `present` set; for a compressed model over its fine cells.
std::vector<RepinitTable> tabulate_repinit(const Model& model, const std::vector<char>& present,
                                           double tolerance);
ThreeBodyTables tabulate_three_body(const Model& model, const std::vector<char>& present, double tolerance);

// The number of first layers whose g2 depends on em_0 alone and is multiplied with g1 in conv: the first
// layer, and those after it while neither attention nor g1 updates g2. 0 if the attention of g1 or the
// concatenation reads more than conv's sum.
int radial_layers(const Repformer& f);
// A table of the radial layers over em_0: for each layer g2 (g2) and g2 times conv's weight (g1). Empty if
// there are none or if it needs more than max_cells.
FunctionTable tabulate_radial_layers(const Model& model, const std::vector<char>& present, double tolerance,
                                     int max_cells);

}  // namespace dpa2md
