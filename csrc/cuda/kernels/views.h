// The kernels' view of the model and of the step: plain structures of device pointers and sizes, passed by
// value. All arrays use global indices of atoms and pairs; for an array of one chunk, the pointer is moved
// accordingly (chunks.h). T, float or double, is the type of features and their gradients; distances,
// energies and forces are double.
#pragma once

#include <cstdint>

#include "cuda/block/block_math.h"
#include "model/compressed_table.h"
#include "model/formulas.h"

namespace dpa2md {
namespace DPA2MD_GPU {

// A sub-network's environment matrix and its gradient. Pair k of atom i is first[i] + k.
template <class T>
struct EnvView {
  double rcut = 0, rcut_smth = 0, inverse_width = 0;  // of the switch, between the two
  int nsel = 0;
  bool direct = false;  // (r, x, y, z)/rcut instead of the smooth environment
  const double *davg = nullptr, *inverse_std = nullptr;  // (nt, 4); 1 / dstd
  const int* count = nullptr;                            // (natoms)
  const std::int64_t* first = nullptr;                   // (natoms + 1)
  T *em = nullptr, *dem = nullptr;                       // (pairs, 4)
  T *sw = nullptr, *dsw = nullptr;                       // (pairs)
};

// A net tabulated over its first input: a polynomial (tables.h) per cell; the cell width is a power of two.
template <class T>
struct TableView {
  T inverse_width = 0;
  int first = 0, cells = 0;  // cell 0 begins at `first` widths
  const T* piece = nullptr;  // (cells, kPowers channels), in the order that its kernels read; null: no table
};

// The embedding of a sub-network (repinit, three-body).
template <class T>
struct EmbeddingView {
  bool strip = false, one_side = false;
  int ng = 0;
  NetView<T> net;                 // count 0: the compressed table is used
  const T* gate = nullptr;        // (nt or 1, nt, ng) T(t_j, t_i), strip only
  CompressedGrid grid;            // of
  const T* compressed = nullptr;  // (rows, ng, 6)
  bool compressed_single = false;
  const TableView<T>* table = nullptr;  // (nt, nt), null: no tables
  int table_channels = 0;
  double reach = 0;          // three-body: largest |c| of the tables
  const T* empty = nullptr;  // (nt, 4, ng) what one empty slot adds to the moments; null: nothing
};

// The switches and sizes of the repformers; names as in model.h.
struct RepformerView {
  int nlayers = 0, g1 = 0, g2 = 0, axis = 0, heads1 = 0, heads2 = 0;
  Linear1Columns linear1;  // columns of the concatenation that linear1 reads: [g1 | conv | grrg | drrd]
  bool has_conv = false, has_grrg = false, has_drrd = false, has_g1_attn = false;
  bool has_g1g1 = false, has_g2_attn = false, update_h2 = false, gate = false;
  bool conv_outside = false, mlp_outside = false, sqrt_nnei = false;
  bool crowds = false;  // an atom can have more neighbours than slots, and its softmax shares: slot_shares.h
  double ln_eps = 0;
  Activation act;

  DPA2MD_KERNEL bool node_reads_gg1() const { return has_conv || has_drrd || has_g1_attn; }
  DPA2MD_KERNEL bool reads_gg1() const { return node_reads_gg1() || has_g1g1; }
  // Channels of g2 and directions of h2 that meet gg1.
  DPA2MD_KERNEL int met_g2() const { return has_conv ? g2 : 0; }
  DPA2MD_KERNEL int met_h2() const { return has_drrd ? 3 : 0; }
};

// The folded weights of a layer (folding.h); null or empty where it has no such update.
template <class T>
struct LayerView {
  T g1_alpha, g2_alpha, h2_alpha, h2_scale;
  const T *scale_self, *scale_conv, *scale_mlp, *scale_attn1;  // (g1)
  const T *scale_linear2, *scale_g1g1, *scale_attn2;           // (g2)
  Linear<T> mlp, self, linear2, g1g1;
  const T* conv;  // (g2, g1)
  Linear<T> attn1_query, attn1_value;
  Weight<T> attn2_map, attn2_map_t, attn2_value, attn2_value_t;  // (heads, g2, g2)
  const T *attn2_bias, *ln_w, *ln_b;                             // (g2)
  const T* h2_head;                                              // (heads)
};

template <class T>
struct FittingView {
  NetView<T> net;
  const double *bias_atom_e, *out_bias;  // (nt)
  const char *zero_type, *exclude;       // (nt)
  bool vacuum = false;
  int tebd = 0, parameters = 0;  // columns behind the feature; 0 tebd without concat_output_tebd
};

// Everything of the model and of the step that does not depend on the layer.
template <class T>
struct State {
  // the model
  int nt = 0, tebd = 0;
  bool smooth = true;
  double protection = 0;
  const T* types = nullptr;  // (nt, tebd)
  int repinit_axis = 0, repinit_width = 0;
  EmbeddingView<T> embedding, embedding3;  // of repinit, of three-body
  RepformerView rep;
  // the step
  int natoms = 0, nrows = 0;
  bool forces = false;
  const double *vec = nullptr, *r = nullptr;            // (pairs, 3), (pairs)
  const std::int32_t* type = nullptr;                   // (pairs) of the neighbour
  const std::int32_t* repformer_row = nullptr;          // (repformer pairs) row of the neighbour
  const int *center_type = nullptr, *zeroed = nullptr;  // (natoms)
  EnvView<T> repinit, three, repformer;                 // repformer: the repformers' neighbours
  T* moment = nullptr;                                  // (natoms, 4, ng)
  T *rep_out = nullptr, *drep_out = nullptr;            // (natoms, repinit_width): [D | three-body]
  T* dgg1 = nullptr;                                    // (repformer pairs, g1)
  // (natoms + 1) whether tables served an atom; the last entry counts the atoms they did not; null: no tables
  int *tabulated = nullptr, *tabulated3 = nullptr;
  double* pair_force = nullptr;  // (pairs, 3): dE/d(r_j - r_i)

  DPA2MD_KERNEL T switch_of(std::int64_t q) const { return smooth ? repformer.sw[q] : T(1); }
  // 1/N of conv, and the factor of the symmetrised moments
  DPA2MD_KERNEL T inverse_count(int n) const { return T(dpa2md::inverse_count(smooth, repformer.nsel, n)); }
  DPA2MD_KERNEL T inverse_moment(int n) const {
    return T(dpa2md::inverse_moment(smooth, rep.sqrt_nnei, repformer.nsel, n));
  }
};

// Whether tables have served all atoms.
DPA2MD_KERNEL inline bool all_tabulated(const int* tabulated, int natoms) {
  return tabulated && tabulated[natoms] == 0;
}

// The pair state of a layer.
template <class T>
struct PairState {
  T *g2, *h2;  // (repformer pairs, g2), (repformer pairs, 3) with rows kH2Row apart
};

// The pairs of every neighbour row, ascending; find() restricts them to a chunk of atoms.
struct RowPairs {
  const std::int64_t* first;  // (nrows) offset of a row's pairs
  const int* count;           // (nrows)
  const std::int32_t* pair;
  bool all;                 // there is one chunk, else
  std::int64_t begin, end;  // numbers of the chunk's pairs

  // Finds the offsets of the chunk's pairs in a row: from … to - 1. All lanes of a warp call.
  DPA2MD_KERNEL void find(const ThreadBlock& b, int row, std::int64_t* from, std::int64_t* to) const {
    *from = first[row];
    *to = first[row] + count[row];
    if (all) return;
    int before = 0, through = 0;
    for (std::int64_t k = *from + b.lane; k < *to; k += b.lanes) {
      before += pair[k] < begin;
      through += pair[k] < end;
    }
    *to = *from + b.lane_sum(through);
    *from += b.lane_sum(before);
  }
};

}  // namespace DPA2MD_GPU
}  // namespace dpa2md
