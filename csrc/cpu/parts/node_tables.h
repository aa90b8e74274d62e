// Tables of an embedding net whose weights change every step, made fast and with the way back: an embedding
// of a few hundred nodes takes the place of one of every pair, and the gradient by the nodes' values, slopes
// and curvatures goes through the net at the nodes only. In double.
#pragma once

#include <vector>

#include "cpu/parts/workspace.h"
#include "cpu/vector/memory.h"
#include "model/embedding_tables.h"

namespace dpa2md {
namespace DPA2MD_ISA {

struct NodeTable {
  TableRange range;
  FunctionTable table;  // empty: the net is used
};

class NodeTables {
 public:
  // Makes the tables of `net` over `ranges`, on as many cells as small errors take; of x net(x) with
  // `times_x`, summed over a range's type inputs. `same_cells`: one number of cells for all. Empty tables
  // where `most_cells` do not suffice.
  void make(const Net& net, const Tensor& type_embedding, std::vector<TableRange> ranges, bool times_x,
            bool same_cells, const Workspace& w);
  const std::vector<NodeTable>& tables() const { return tables_; }
  // sums: gradients by the tables' nodes, ((cells + 1) 4, padded) of one table after another, of those that
  // are not empty. Adds to the gradients of the net and of the type embedding.
  void add_gradient(const Net& net, const Tensor& type_embedding, const std::vector<double>& sums, int padded,
                    Net* net_gradient, Tensor* type_gradient, const Workspace& w) const;

 private:
  struct Jets;
  static void evaluate(const Net& net, int count, const double* x, const double* rest, bool keep,
                       Arena& arena, Jets* out);
  static void backward(const Net& net, const Jets& jets, double* dy, Arena& arena, Net* gradient,
                       double* drest);
  FunctionTable sample(const Net& net, const Tensor& types, const TableRange& range, int cells,
                       const Workspace& w) const;
  // of some nodes of a table; drest: by the inputs after x
  void add_part(const Net& net, const double* rest, const FunctionTable& t, const double* sums, int padded,
                Range nodes, Arena& arena, Net* net_gradient, double* drest) const;

  std::vector<NodeTable> tables_;
  bool times_x_ = false;
};

}  // namespace DPA2MD_ISA
}  // namespace dpa2md
