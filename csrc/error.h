// The one exception of the core: a sentence that names the thing and the remedy.
#pragma once

#include <stdexcept>

namespace dpa2md {

class Error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace dpa2md
