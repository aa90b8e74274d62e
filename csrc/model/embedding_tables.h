// Which function tables (function_table.h) stand in for the embedding nets and for pair states that see
// nothing but a distance, over which range, and how exact. In double; a backend casts and arranges them.
#pragma once

#include <vector>

#include "model/function_table.h"
#include "model/model.h"

namespace dpa2md {

// The table of a (centre, neighbour) pair of types, or of all neighbours (-1). An empty table: the net is
// used.
struct RepinitTable {
  int center, neighbor;
  FunctionTable table;
};

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

// Marks the types that are present as known; whether any was not.
bool add_types(const std::vector<char>& present, std::vector<char>* known);

// A table's error, relative to its largest value: well below the rounding of float32 (6e-8); in double what
// the cancellation of nearly equal nodes leaves, a hundredth of what the parity tests would notice.
inline double table_tolerance(bool single) { return single ? 2e-9 : 2e-13; }

// Of the types with `present` set; of a compressed model in float64 as far as its fine cells reach.
std::vector<RepinitTable> tabulate_repinit(const Model& model, const std::vector<char>& present,
                                           double tolerance);
ThreeBodyTables tabulate_three_body(const Model& model, const std::vector<char>& present, double tolerance);

// How many layers, from the first on, have a g2 that depends on nothing but em_0 and meets g1 in conv: of the
// first layer it always does, of the others where no attention or g1 updates it. (None where the attention of
// g1 or the concatenation reads more than conv's sum.)
int radial_layers(const Repformer& f);
// Such layers side by side as a function of em_0: of each g2 (g2) and g2 times conv's weight (g1). Empty
// where there are none or more than max_cells would be needed.
FunctionTable tabulate_radial_layers(const Model& model, const std::vector<char>& present, double tolerance,
                                     int max_cells);

}  // namespace dpa2md
