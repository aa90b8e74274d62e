#include "model/model.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace dpa2md {
namespace {

Activation parse_activation(Records& r, const std::string& name) {
  const std::string text = r.text(name);
  Activation a;
  if (text == "linear") return a;
  if (text == "tanh") return a.kind = Activation::kTanh, a;
  if (text == "relu") return a.kind = Activation::kRelu, a;
  if (text == "relu6") return a.kind = Activation::kRelu6, a;
  if (text == "softplus") return a.kind = Activation::kSoftplus, a;
  if (text == "sigmoid") return a.kind = Activation::kSigmoid, a;
  if (text == "silu") return a.kind = Activation::kSilu, a;
  if (text == "gelu") return a.kind = Activation::kGelu, a;
  if (text.rfind("silut:", 0) == 0) {
    char* end = nullptr;
    a.threshold = std::strtod(text.c_str() + 6, &end);
    if (end != text.c_str() + 6 && *end == '\0' && std::isfinite(a.threshold)) {
      const double s = 1.0 / (1.0 + std::exp(-a.threshold));
      a.kind = Activation::kSilut;
      a.slope = s * (1.0 + a.threshold * (1.0 - s));
      a.offset = a.threshold * s;
      return a;
    }
  }
  r.refuse("asks for the activation '" + text + "' in '" + name + "', which dpa2md does not know");
}

int positive(Records& r, const std::string& name, std::int64_t limit = 1 << 20) {
  const std::int64_t value = r.integer(name);
  if (value < 1 || value > limit)
    r.refuse("holds '" + name + "' = " + std::to_string(value) + ", out of range");
  return static_cast<int>(value);
}

Layer read_layer(Records& r, const std::string& name, std::int64_t in, std::int64_t out, bool bias) {
  Layer layer;
  layer.w = r.tensor(name + ".w", {in, out});
  if (bias) layer.b = r.tensor(name + ".b", {layer.w.shape[1]});
  return layer;
}

Net read_net(Records& r, const std::string& name, const Activation& act, std::int64_t in, bool linear_last) {
  Net net;
  net.act = act;
  net.linear_last = linear_last;
  const int count = positive(r, name + ".layers", 64);
  const auto skip = r.integers(name + ".skip", {count});
  for (int k = 0; k < count; ++k) {
    const std::string at = name + "." + std::to_string(k);
    Layer layer;
    layer.w = r.tensor(at + ".w", {in, -1});
    const std::int64_t out = layer.w.shape[1];
    layer.b = r.optional_tensor(at + ".b", {out});
    layer.idt = r.optional_tensor(at + ".idt", {out});
    layer.skip = static_cast<int>(skip[k]);
    const bool fits = skip[k] == 0 || (skip[k] == 1 && out == in) || (skip[k] == 2 && out == 2 * in);
    if (out < 1 || !fits) r.refuse("holds an impossible skip connection or width in '" + at + "'");
    net.layers.push_back(std::move(layer));
    in = out;
  }
  return net;
}

void read_subnet(Records& r, const std::string& p, int nt, Subnet* b) {
  b->rcut = r.real(p + ".rcut");
  b->rcut_smth = r.real(p + ".rcut_smth");
  b->room = b->nsel = positive(r, p + ".nsel", 1 << 16);
  b->davg = r.tensor(p + ".davg", {nt, 4});
  b->dstd = r.tensor(p + ".dstd", {nt, 4});
  if (!(b->rcut > 0) || b->rcut > 1e3 || b->rcut_smth < 0 || b->rcut_smth >= b->rcut) {
    r.refuse("holds impossible cutoffs in '" + p + "' (0 <= rcut_smth < rcut is needed)");
  }
  for (double s : b->dstd.data) {
    if (s == 0) r.refuse("holds a zero in '" + p + ".dstd', by which every environment would be divided");
  }
}

void read_embedding(Records& r, const std::string& p, int nt, int tebd, Embedding* e) {
  read_subnet(r, p, nt, e);
  const bool three_body = p == "three_body";
  const Activation act = parse_activation(r, p + ".activation");
  const std::string mode = r.text(p + ".mode");
  if (mode != "concat" && mode != "strip")
    r.refuse("holds '" + p + ".mode' = '" + mode + "', which is unknown");
  e->strip = mode == "strip";
  e->one_side = three_body ? false : r.flag(p + ".one_side");
  if (!three_body && r.has(p + ".table")) {
    if (!e->strip) r.refuse("holds a tabulated embedding outside strip mode, which no DeePMD-kit model has");
    e->table.coefficients = r.tensor(p + ".table", {-1, -1});
    const auto info = r.tensor(p + ".table_info", {5}).data;
    e->table.lower = info[0], e->table.upper = info[1], e->table.maximum = info[2];
    e->table.stride0 = info[3], e->table.stride1 = info[4];
    const bool ordered = info[0] < info[1] && info[1] <= info[2] && info[3] > 0 && info[4] > 0;
    const double rows = (info[1] - info[0]) / info[3] + (info[2] - info[1]) / info[4];
    const auto& shape = e->table.coefficients.shape;
    if (!ordered || shape[1] % 6 != 0 || shape[1] == 0 || shape[0] + 2 < rows || shape[0] < 1) {
      r.refuse("holds a table in '" + p + "' that does not fit its own bounds; convert it again");
    }
    e->ng = static_cast<int>(shape[1] / 6);
  } else {
    const int types = e->strip ? 0 : (e->one_side ? tebd : 2 * tebd);
    e->net = read_net(r, p + ".net", act, 1 + types, false);
    e->ng = e->net.out();
  }
  if (e->strip) e->strip_table = r.tensor(p + ".strip_table", {e->one_side ? 1 : nt, nt, e->ng});
}

RepformerLayer read_repformer_layer(Records& r, const Repformer& f, int l) {
  const std::string p = "repformer." + std::to_string(l);
  const bool pair_update = l + 1 < f.nlayers;
  const int g1 = f.g1_dim, g2 = f.g2_dim;
  RepformerLayer y;
  y.linear1 = read_layer(r, p + ".linear1", f.linear1_in(), g1, true);
  int g1_updates = 1;
  if (f.g1_out_mlp) y.g1_self = read_layer(r, p + ".g1_self", g1, g1, true), ++g1_updates;
  if (f.has_conv) {
    y.conv = f.g1_out_conv ? r.tensor(p + ".conv.w", {g2, g1}) : r.tensor(p + ".conv.w", {g1, g2});
    if (f.g1_out_conv) ++g1_updates;
  }
  if (f.has_g1_attn) {
    const int nd = f.attn1_hidden, nh = f.attn1_nhead;
    y.attn1_q = r.tensor(p + ".attn1.q.w", {g1, nd * nh});
    y.attn1_kv = r.tensor(p + ".attn1.kv.w", {g1, (nd + g1) * nh});
    y.attn1_head = read_layer(r, p + ".attn1.head", g1 * nh, g1, true);
    ++g1_updates;
  }
  int g2_updates = 0;
  if (pair_update) {
    y.linear2 = read_layer(r, p + ".linear2", g2, g2, true);
    g2_updates = 1;
    if (f.has_g1g1) y.g1g1 = r.tensor(p + ".g1g1.w", {g1, g2}), ++g2_updates;
    const int nh = f.attn2_nhead;
    if (f.has_g2_attn || f.update_h2) {
      y.attn2_qk = r.tensor(p + ".attn2.qk.w", {g2, 2 * f.attn2_hidden * nh});
    }
    if (f.has_g2_attn) {
      y.attn2_v = r.tensor(p + ".attn2.v.w", {g2, g2 * nh});
      y.attn2_head = read_layer(r, p + ".attn2.head", g2 * nh, g2, true);
      y.ln_w = r.tensor(p + ".attn2.ln.w", {g2});
      y.ln_b = r.tensor(p + ".attn2.ln.b", {g2});
      ++g2_updates;
    }
    if (f.update_h2) y.attn2_h2_head = r.tensor(p + ".attn2.h2_head.w", {nh, 1});
  }
  if (f.style == Repformer::Style::kResidual) {
    y.g1_residual = r.tensor(p + ".g1_residual", {g1_updates, g1});
    if (pair_update) y.g2_residual = r.tensor(p + ".g2_residual", {g2_updates, g2});
    if (pair_update && f.update_h2) y.h2_residual = r.tensor(p + ".h2_residual", {1, 1});
  }
  return y;
}

void read_repformer(Records& r, int nt, Repformer* f) {
  read_subnet(r, "repformer", nt, f);
  f->act = parse_activation(r, "repformer.activation");
  f->nlayers = positive(r, "repformer.nlayers", 1024);
  f->g1_dim = positive(r, "repformer.g1_dim", 1 << 14);
  f->g2_dim = positive(r, "repformer.g2_dim", 1 << 14);
  f->axis = positive(r, "repformer.axis", 1 << 10);
  f->direct_dist = r.flag("repformer.direct_dist");
  f->has_conv = r.flag("repformer.has_conv");
  f->has_grrg = r.flag("repformer.has_grrg");
  f->has_drrd = r.flag("repformer.has_drrd");
  f->has_g1_attn = r.flag("repformer.has_g1_attn");
  f->has_g1g1 = r.flag("repformer.has_g1g1");
  f->has_g2_attn = r.flag("repformer.has_g2_attn");
  f->update_h2 = r.flag("repformer.update_h2");
  f->attn2_gate = r.flag("repformer.attn2_gate");
  f->attn1_hidden = positive(r, "repformer.attn1_hidden", 1 << 14);
  f->attn1_nhead = positive(r, "repformer.attn1_nhead", 1 << 10);
  f->attn2_hidden = positive(r, "repformer.attn2_hidden", 1 << 14);
  f->attn2_nhead = positive(r, "repformer.attn2_nhead", 1 << 10);
  f->use_sqrt_nnei = r.flag("repformer.use_sqrt_nnei");
  f->g1_out_conv = r.flag("repformer.g1_out_conv");
  f->g1_out_mlp = r.flag("repformer.g1_out_mlp");
  f->ln_eps = r.real("repformer.ln_eps");
  const std::string style = r.text("repformer.update_style");
  if (style == "res_avg")
    f->style = Repformer::Style::kAvg;
  else if (style == "res_incr")
    f->style = Repformer::Style::kIncr;
  else if (style == "res_residual")
    f->style = Repformer::Style::kResidual;
  else
    r.refuse("holds the update style '" + style + "', which dpa2md does not know");
  if (f->axis > f->g2_dim || f->axis > f->g1_dim)
    r.refuse("holds 'repformer.axis' beyond the width of g1 or g2");
  if (f->linear1_in() < 1)
    r.refuse("switches off every input of the repformers' linear1, which is impossible");
  f->g2_embd = read_layer(r, "repformer.g2_embd", 1, f->g2_dim, true);
  for (int l = 0; l < f->nlayers; ++l) f->layers.push_back(read_repformer_layer(r, *f, l));
}

std::vector<char> read_mask(Records& r, const std::string& name, const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  for (auto s : shape) count *= s;
  std::vector<char> mask(static_cast<std::size_t>(count), 0);
  if (!r.has(name)) return mask;
  const auto values = r.integers(name, shape);
  for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = values[i] != 0;
  return mask;
}

void read_fitting(Records& r, const Model& m, Fitting* f) {
  const int nt = m.ntypes();
  f->fparam_avg = r.optional_tensor("fitting.fparam_avg", {-1});
  f->fparam_inv_std = r.optional_tensor("fitting.fparam_inv_std", {f->nfparam()});
  f->default_fparam = r.optional_tensor("fitting.default_fparam", {f->nfparam()});
  f->aparam_avg = r.optional_tensor("fitting.aparam_avg", {-1});
  f->aparam_inv_std = r.optional_tensor("fitting.aparam_inv_std", {f->naparam()});
  f->case_embedding = r.optional_tensor("fitting.case_embedding", {-1});
  if (f->fparam_inv_std.data.size() != f->fparam_avg.data.size() ||
      f->aparam_inv_std.data.size() != f->aparam_avg.data.size()) {
    r.refuse("holds averages of fparam or aparam without their scales; convert it again");
  }
  const int in =
      m.descriptor_dim() + f->nfparam() + f->naparam() + static_cast<int>(f->case_embedding.data.size());
  f->net = read_net(r, "fitting.net", parse_activation(r, "fitting.activation"), in, true);
  if (f->net.out() != 1)
    r.refuse("holds a fitting net with more than one output; only energies are supported");
  f->bias_atom_e = r.tensor("fitting.bias_atom_e", {nt});
  f->out_bias = r.tensor("fitting.out_bias", {nt});
  f->zero_type = read_mask(r, "fitting.exclude", {nt});
  f->vacuum = r.flag("fitting.vacuum");
}

std::vector<std::string> split_lines(const std::string& text) {
  std::vector<std::string> out(1);
  for (char c : text) {
    if (c == '\n')
      out.emplace_back();
    else
      out.back() += c;
  }
  return out;
}

Precision read_precision(Records& r, const std::string& record) {
  const std::string text = r.text(record);
  if (const auto p = precision_named(text)) return *p;
  r.refuse("holds '" + record + "' = '" + text + "', expected float32 or float64");
}

// An empty slot adds a constant to the moments; it is only well defined in strip mode with smooth
// (elsewhere the original's energy depends on the order of atoms).
void check_statistics(Records& r, const Model& m) {
  const auto nonzero = [](const Tensor& t) {
    return std::any_of(t.data.begin(), t.data.end(), [](double x) { return x != 0; });
  };
  if (nonzero(m.repinit.davg) && !(m.repinit.strip && m.smooth)) {
    r.refuse("has a nonzero davg in repinit outside smooth strip mode, where the original is ill-defined");
  }
  for (int t = 0; m.has_three_body && t < m.ntypes(); ++t) {
    for (int c = 1; c < 4; ++c) {
      if (m.three_body.davg(t, c) != 0)
        r.refuse("has a nonzero vector davg in three-body, which is ill-defined");
    }
  }
}

}  // namespace

int Model::descriptor_dim() const {
  return (is_dpa2 ? repformer.g1_dim : repinit.ng * repinit_axis) + (concat_tebd ? tebd_dim() : 0);
}

Model Model::read(const std::string& path) {
  Records r = Records::read(path);
  Model m;
  m.path = path;
  m.meta = r.meta();
  const std::string kind = r.text("model.kind");
  if (kind != "dpa1" && kind != "dpa2")
    r.refuse("holds the model kind '" + kind + "', which dpa2md does not know");
  m.is_dpa2 = kind == "dpa2";
  m.elements = split_lines(r.text("model.elements"));
  const int nt = m.ntypes();
  m.precision = std::max(read_precision(r, "model.precision"), read_precision(r, "model.fitting_precision"));
  m.env_protection = r.real("descriptor.env_protection");
  if (m.env_protection < 0) r.refuse("holds a negative env_protection, which would divide by zero");
  m.smooth = r.flag("descriptor.smooth");
  m.concat_tebd = r.flag("descriptor.concat_tebd");
  m.pair_exclude = read_mask(r, "model.pair_exclude", {nt, nt});
  m.descriptor_exclude = read_mask(r, "descriptor.exclude", {nt, nt});
  m.atom_exclude = read_mask(r, "model.atom_exclude", {nt});
  m.type_embedding = r.tensor("type_embedding", {nt, -1});
  read_embedding(r, "repinit", nt, m.tebd_dim(), &m.repinit);
  m.repinit_axis = positive(r, "repinit.axis", m.repinit.ng);
  if (m.is_dpa2) {
    int width = m.repinit.ng * m.repinit_axis;
    m.has_three_body = r.has("three_body.rcut");
    if (m.has_three_body)
      read_embedding(r, "three_body", nt, m.tebd_dim(), &m.three_body), width += m.three_body.ng;
    read_repformer(r, nt, &m.repformer);
    m.g1_transform = r.optional_tensor("g1_transform", {width, m.repformer.g1_dim});
    if (m.g1_transform.empty() && width != m.repformer.g1_dim) {
      r.refuse("lacks 'g1_transform' although repinit is not as wide as g1; convert it again");
    }
    m.tebd_transform = r.optional_tensor("tebd_transform", {m.tebd_dim(), m.repformer.g1_dim});
    const bool inside =
        m.repformer.rcut <= m.repinit.rcut && m.repformer.nsel <= m.repinit.nsel &&
        (!m.has_three_body || (m.three_body.rcut <= m.repinit.rcut && m.three_body.nsel <= m.repinit.nsel));
    if (!inside) r.refuse("has repformers or three-body reaching beyond repinit, which DPA-2 does not allow");
  }
  m.all_neighbors = r.has("model.all_neighbors") && r.flag("model.all_neighbors");
  if (m.all_neighbors) {
    m.repinit.room = m.three_body.room = m.repformer.room = std::numeric_limits<int>::max();
  }
  check_statistics(r, m);
  read_fitting(r, m, &m.fitting);
  r.refuse_unused();
  return m;
}

}  // namespace dpa2md
