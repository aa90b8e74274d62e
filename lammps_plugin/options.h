// The arguments of `pair_style dpa2 model.dpa2 [more.dpa2 ...] [keyword value ...]`.
#pragma once

#include <string>
#include <vector>

namespace dpa2md {

struct Options {
  std::vector<std::string> models;
  std::string precision;  // "": the model's own
  std::string device = "cpu";
  int threads = 0;  // 0: LAMMPS's own number of threads
  bool low_memory = false;
  std::vector<double> fparam, aparam;  // for the frame; the same for every atom
  // IDs of LAMMPS's computes that give them instead, anew for every evaluation; "": none
  std::string fparam_compute, aparam_compute;
  std::string fparam_fix;    // the same of a fix: its scalar for all of them, or
  int fparam_fix_index = 0;  // its vector from this entry on, counted from 1; 0: the scalar
  // model deviation, with two models or more
  int out_freq = 100;    // 0: never
  std::string out_file;  // "": model_devi.out
  bool atomic = false;
  double relative = -1, relative_v = -1;  // < 0: absolute
};

// Throws Error with a sentence.
Options parse_options(int narg, char** arg);

}  // namespace dpa2md
