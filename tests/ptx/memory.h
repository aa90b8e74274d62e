// Memory of the machine, and what is known of each of its bytes: whether it was written, and which accesses
// nothing separates from the next one.
#pragma once

#include <string>

#include "machine.h"

namespace ptx {

// What a launch is doing, and what went wrong.
struct Now {
  const Kernel* kernel = nullptr;
  unsigned char* const* parameters = nullptr;
  u32 number = 0;  // of launches so far
  int errors = 0;
};
extern Now now;

// To stderr, the first few.
void report(const char* what, const Thread& t, const Site* site, const std::string& more = "");

enum class Access { load, store, atomic };

// Checks an access, of one thread or of all of its warp; one that cannot be done goes elsewhere.
void look(u64* at, u32 bytes, const Thread& t, const Site* site, Access access, bool whole_warp = false);
bool in_shared(u64 at);

// Fresh shared memory, where it begins.
unsigned char* clear_shared(std::size_t bytes);

}  // namespace ptx
