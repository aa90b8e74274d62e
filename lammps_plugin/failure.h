// What the core throws, as text: LAMMPS has its own way to stop a run.
#pragma once

#include <new>
#include <string>

#include "../csrc/error.h"

namespace dpa2md {

// Runs `work`; returns what went wrong as a sentence, or nothing.
template <class F>
std::string failure_of(F&& work) {
  try {
    work();
  } catch (const dpa2md::Error& e) {
    return e.what();
  } catch (const std::bad_alloc&) {
    return "out of memory: use more ranks or fewer atoms.";
  }
  return "";
}

}  // namespace dpa2md
