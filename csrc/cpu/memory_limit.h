#pragma once

#include <cstddef>
#include <cstdint>

namespace dpa2md {

// Throws Error when a step would need `bytes` but the machine has not that much left beside the `held` ones
// it reuses.
void check_memory(std::size_t bytes, std::size_t held, std::int64_t natoms, bool low_memory);

}  // namespace dpa2md
