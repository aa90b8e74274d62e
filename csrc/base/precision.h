// The precision of features and their gradients.
#pragma once

#include <optional>
#include <string>

#include "base/error.h"

namespace dpa2md {

enum class Precision { kFloat32, kFloat64 };

inline const char* name(Precision p) { return p == Precision::kFloat32 ? "float32" : "float64"; }

inline std::optional<Precision> precision_named(const std::string& text) {
  for (const Precision p : {Precision::kFloat32, Precision::kFloat64}) {
    if (text == name(p)) return p;
  }
  return {};
}

inline Precision parse_precision(const std::string& text) {
  if (const auto p = precision_named(text)) return *p;
  throw Error("the precision \"" + text + "\" is unknown: use \"float32\" or \"float64\".");
}

}  // namespace dpa2md
