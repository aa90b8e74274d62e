// Folds the file's weights for the stages, once and in double: two consecutive matrices become their product,
// and the three update styles become one formula.
#pragma once

#include "model/model.h"

namespace dpa2md {

struct FoldedLayer {
  // x' = alpha x + sum_i scale_i * x_i, whatever the update style; empty: the layer has no such update
  double g1_alpha = 1, g2_alpha = 1, h2_alpha = 1, h2_scale = 0;
  Tensor scale_self, scale_conv, scale_mlp, scale_attn1;  // (g1)
  Tensor scale_linear2, scale_g1g1, scale_attn2;          // (g2)
  Tensor conv;                                            // (g2, g1), either direction of proj_g1g2
  Tensor attn1_query;                                     // (g1, heads g1): per head Wq Wk^T / sqrt(nd)
  Tensor attn1_value;                                     // (heads g1, g1): per head Wv Wo
  Tensor attn2_map;                                       // (heads, g2, g2): Wq Wk^T / sqrt(hidden)
  Tensor attn2_value;                                     // (heads, g2, g2): Wv Wo
};

FoldedLayer fold_layer(const Repformer& f, int layer);
// The way back, for gradients: adds to those of the layer's weights what the gradient of the folded ones
// gives. alpha is no weight; absent tensors are empty.
void unfold_layer(const Repformer& f, int layer, const FoldedLayer& gradient, RepformerLayer* to);

// Subtracts the means of rows of `width` numbers, as a layer norm would; for gradients, the same.
void without_row_means(std::vector<double>* rows, int width);

// (nt, g1): the type embedding through tebd_transform; empty without one.
Tensor fold_tebd(const Model& model);
// Adds to the gradients of both.
void unfold_tebd(const Model& model, const std::vector<double>& gradient, Model* to);

// (nt, 4, ng): what one empty slot adds to the moments of repinit; empty when davg is zero.
Tensor fold_empty_slots(const Model& model);
// Adds to the gradient of repinit's net.
void unfold_empty_slots(const Model& model, const std::vector<double>& gradient, Net* to);

}  // namespace dpa2md
