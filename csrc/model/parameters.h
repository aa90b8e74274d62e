// The weights of a model that training changes, by the names of their records (docs/model-format.md), always
// in the same order. Statistics and energy biases are none.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model/model.h"

namespace dpa2md {

// Calls f for every weight that the model has.
void each_parameter(Model* model, const std::function<void(const std::string& name, Tensor* weight)>& f);

// Sets all weights to zero, for a gradient with the shapes of the model.
void clear_parameters(Model* model);

// One weight after another.
std::size_t parameter_count(const Model& model);
void get_parameters(const Model& model, double* flat);
void set_parameters(const double* flat, Model* model);

// Throws Error for a model that can't be trained: a compressed one, whose nets are gone.
void check_trainable(const Model& model);

}  // namespace dpa2md
