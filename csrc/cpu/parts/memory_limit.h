#pragma once

#include <cstddef>
#include <cstdint>

namespace dpa2md {

// Throws Error if a step needs `bytes` and the machine's free memory plus the reused `held` bytes is less.
void check_memory(std::size_t bytes, std::size_t held, std::int64_t natoms, bool low_memory);

}  // namespace dpa2md
