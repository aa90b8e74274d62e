// A DPA-2 (or DPA-1 student) model as the file describes it: switches by their names in the field, weights in
// double. Backends derive their own folded weights from it (`prepare`).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/activation.h"
#include "base/precision.h"
#include "model/formulas.h"
#include "model/model_file.h"

namespace dpa2md {

struct Layer {
  Tensor w;      // (in, out)
  Tensor b;      // (out) or empty
  Tensor idt;    // (out) or empty
  int skip = 0;  // 0 none, 1 y += x, 2 y += (x, x)

  int in() const { return static_cast<int>(w.shape[0]); }
  int out() const { return static_cast<int>(w.shape[1]); }
};

struct Net {
  std::vector<Layer> layers;
  Activation act;
  bool linear_last = false;  // the last layer has no activation (fitting net)

  bool empty() const { return layers.empty(); }
  int in() const { return layers.front().in(); }
  int out() const { return layers.back().out(); }
};

// The common part of the sub-networks (repinit, three-body, repformers): each sees its neighbours within a
// cutoff, through an environment matrix of its own.
struct Subnet {
  double rcut = 0, rcut_smth = 0;  // angstrom
  int nsel = 0;                    // slots of the padded original: normalisation and softmax phantoms
  int room = 0;       // most neighbours that it sees, the nearest: nsel, or no bound (all_neighbors)
  Tensor davg, dstd;  // (nt, 4)
};

// A compressed embedding net: quintic pieces in em_0, linear beyond the ends.
struct EmbeddingTable {
  Tensor coefficients;  // (rows, 6 ng)
  double lower = 0, upper = 0, maximum = 0, stride0 = 0, stride1 = 0;
  bool empty() const { return coefficients.empty(); }
};

struct Embedding : Subnet {  // repinit, three-body, DPA-1
  bool strip = false, one_side = false;
  int ng = 0;
  Net net;  // empty when `table` is used
  EmbeddingTable table;
  Tensor strip_table;  // (nt or 1, nt, ng), strip only
};

struct RepformerLayer {
  Layer linear1, linear2, g1_self;
  Tensor conv, g1g1;  // proj_g1g2, proj_g1g1g2
  Tensor attn2_qk, attn2_v, attn2_h2_head;
  Layer attn2_head;
  Tensor ln_w, ln_b;
  Tensor attn1_q, attn1_kv;
  Layer attn1_head;
  Tensor g1_residual, g2_residual, h2_residual;
};

struct Repformer : Subnet {
  Activation act;
  int nlayers = 0, g1_dim = 0, g2_dim = 0, axis = 0;
  bool direct_dist = false;
  bool has_conv = false, has_grrg = false, has_drrd = false, has_g1_attn = false;
  bool has_g1g1 = false, has_g2_attn = false, update_h2 = false, attn2_gate = false;
  int attn1_hidden = 0, attn1_nhead = 0, attn2_hidden = 0, attn2_nhead = 0;
  enum class Style { kAvg, kIncr, kResidual } style = Style::kAvg;
  bool use_sqrt_nnei = false, g1_out_conv = false, g1_out_mlp = false;
  double ln_eps = 1e-5;
  Layer g2_embd;
  std::vector<RepformerLayer> layers;

  Linear1Parts linear1_parts() const { return {!g1_out_mlp, has_conv && !g1_out_conv, has_grrg, has_drrd}; }
  Linear1Columns linear1_columns() const {
    return dpa2md::linear1_columns(linear1_parts(), g1_dim, g2_dim, axis);
  }
  int linear1_in() const { return linear1_columns().end; }  // width of what linear1 reads
};

struct Fitting {
  Net net;
  Tensor bias_atom_e, out_bias;  // (nt)
  bool vacuum = false;
  Tensor fparam_avg, fparam_inv_std, default_fparam, aparam_avg, aparam_inv_std, case_embedding;
  std::vector<char> zero_type;  // (nt) fitting exclude_types: zero before out_bias

  int nfparam() const { return static_cast<int>(fparam_avg.data.size()); }
  int naparam() const { return static_cast<int>(aparam_avg.data.size()); }
};

struct Model {
  std::string path;
  std::map<std::string, std::string> meta;
  bool is_dpa2 = true;
  std::vector<std::string> elements;
  Precision precision = Precision::kFloat64;  // the wider of descriptor and fitting
  double env_protection = 0;
  bool smooth = true, concat_tebd = true;
  bool all_neighbors = false;  // every neighbour within a cutoff is seen: DeePMD-kit's graph route
  Tensor type_embedding;       // (nt, tebd_dim)
  Embedding repinit;           // DPA-1: the only sub-network
  int repinit_axis = 0;
  bool has_three_body = false;
  Embedding three_body;
  Tensor g1_transform, tebd_transform;
  Repformer repformer;  // nlayers == 0 for DPA-1
  Fitting fitting;
  std::vector<char> pair_exclude;        // (nt, nt) model level
  std::vector<char> descriptor_exclude;  // (nt, nt)
  std::vector<char> atom_exclude;        // (nt)

  // Reads and validates a file. Throws Error with one sentence.
  static Model read(const std::string& path);

  int ntypes() const { return static_cast<int>(elements.size()); }
  int tebd_dim() const { return static_cast<int>(type_embedding.shape[1]); }
  double rcut() const { return repinit.rcut; }
  int descriptor_dim() const;  // what the fitting net sees before fparam
};

}  // namespace dpa2md
