// Which function tables (function_table.h) stand in for the embedding nets, over which range, and how exact.
// In double; a backend casts and arranges them.
#pragma once

#include <vector>

#include "function_table.h"
#include "model.h"

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

// A table's error, relative to its largest value: well below the rounding of float32 (6e-8); in double what
// the cancellation of nearly equal nodes leaves, a hundredth of what the parity tests would notice.
inline double table_tolerance(bool single) { return single ? 2e-9 : 2e-13; }

// Of the types with `present` set. Empty for a compressed model.
std::vector<RepinitTable> tabulate_repinit(const Model& model, const std::vector<char>& present,
                                           double tolerance);
ThreeBodyTables tabulate_three_body(const Model& model, const std::vector<char>& present, double tolerance);

}  // namespace dpa2md
