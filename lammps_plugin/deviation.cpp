#include "deviation.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"

namespace dpa2md {

std::vector<double> force_deviation(const std::vector<std::vector<double>>& forces, double relative) {
  const std::size_t n = forces[0].size() / 3;
  const double models = static_cast<double>(forces.size());
  std::vector<double> out(n);
  for (std::size_t i = 0; i < n; ++i) {
    double variance = 0, magnitude = 0;
    for (int c = 0; c < 3; ++c) {
      double mean = 0;
      for (const auto& f : forces) mean += f[3 * i + c] / models;
      for (const auto& f : forces) variance += (f[3 * i + c] - mean) * (f[3 * i + c] - mean) / models;
      magnitude += mean * mean;
    }
    out[i] = std::sqrt(variance);
    if (relative >= 0) out[i] /= std::sqrt(magnitude) + relative;
  }
  return out;
}

std::vector<double> virial_deviation(const std::vector<std::vector<double>>& virials, double relative) {
  const double models = static_cast<double>(virials.size());
  std::vector<double> out(9, 0.0);
  double magnitude = 0;
  for (int c = 0; c < 9; ++c) {
    double mean = 0;
    for (const auto& v : virials) mean += v[c] / models;
    for (const auto& v : virials) out[c] += (v[c] - mean) * (v[c] - mean) / models;
    out[c] = std::sqrt(out[c]);
    magnitude += mean * mean;
  }
  for (double& x : out) {
    if (relative >= 0) x /= std::sqrt(magnitude) + relative;
  }
  return out;
}

DeviationSummary summarize(MPI_Comm world, const std::vector<double>& per_atom_f,
                           const std::vector<double>& per_component_v) {
  DeviationSummary s;
  double squares = 0;
  for (double v : per_component_v) squares += v * v;
  s.max_v = *std::max_element(per_component_v.begin(), per_component_v.end());
  s.min_v = *std::min_element(per_component_v.begin(), per_component_v.end());
  s.avg_v = std::sqrt(squares / 9);

  double sums[2] = {0, static_cast<double>(per_atom_f.size())};
  double extremes[2] = {0, -std::numeric_limits<double>::max()};  // largest, minus the smallest
  for (double f : per_atom_f) {
    sums[0] += f;
    extremes[0] = std::max(extremes[0], f);
    extremes[1] = std::max(extremes[1], -f);
  }
  double all_sums[2], all_extremes[2];
  MPI_Allreduce(sums, all_sums, 2, MPI_DOUBLE, MPI_SUM, world);
  MPI_Allreduce(extremes, all_extremes, 2, MPI_DOUBLE, MPI_MAX, world);
  if (all_sums[1] > 0) {
    s.max_f = all_extremes[0];
    s.min_f = -all_extremes[1];
    s.avg_f = all_sums[0] / all_sums[1];
  }
  return s;
}

void DeviationFile::open(const std::string& path, bool append, bool atomic) {
  close();
  path_ = path;
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT, 0666);
  file_ = descriptor < 0 ? nullptr : fdopen(descriptor, "r+");
  if (!file_)
    throw Error("the file " + path + " of the model deviation can't be written (" + std::strerror(errno) +
                "): choose another out_file.");
  // a file system without locks answers something else
  if (flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    close();
    throw Error("the file " + path + " of the model deviation is being written by another pair style or " +
                "process: give each its own out_file (replicas: a variable of style world).");
  }
  if (append) find_last_line();
  if (last_line_ >= 0) return;
  if (ftruncate(descriptor, 0) == 0) std::rewind(file_);
  std::fprintf(file_, "#%11s", "step");
  for (const char* name :
       {"max_devi_v", "min_devi_v", "avg_devi_v", "max_devi_f", "min_devi_f", "avg_devi_f"})
    std::fprintf(file_, "%19s", name);
  std::fprintf(file_, atomic ? "%19s\n" : "%s\n", atomic ? "atm_devi_f(N)" : "");
  std::fflush(file_);
}

void DeviationFile::close() {
  if (file_) std::fclose(file_);
  file_ = nullptr;
  last_step_ = last_line_ = -1;
}

// Finds the last line of a continued file and seeks to its end; an empty file has none.
void DeviationFile::find_last_line() {
  if (std::fseek(file_, 0, SEEK_END) != 0) return;
  long end = std::ftell(file_);
  const auto byte = [&](long at) {
    std::fseek(file_, at, SEEK_SET);
    return std::fgetc(file_);
  };
  while (end > 0 && byte(end - 1) != '\n') --end;  // a killed run leaves a part of a line, to be overwritten
  if (end <= 0) return;
  last_line_ = end - 1;
  while (last_line_ > 0 && byte(last_line_ - 1) != '\n') --last_line_;
  std::fseek(file_, last_line_, SEEK_SET);
  long long step = -1;
  if (std::fscanf(file_, "%lld", &step) == 1) last_step_ = step;
  std::fseek(file_, end, SEEK_SET);
}

void DeviationFile::write(std::int64_t step, const DeviationSummary& s, const std::vector<double>& atomic) {
  if (step == last_step_ && last_line_ >= 0) std::fseek(file_, last_line_, SEEK_SET);
  last_line_ = std::ftell(file_);
  last_step_ = step;
  std::fprintf(file_, "%12lld", static_cast<long long>(step));
  for (double x : {s.max_v, s.min_v, s.avg_v, s.max_f, s.min_f, s.avg_f}) std::fprintf(file_, " %18.6e", x);
  for (double x : atomic) std::fprintf(file_, " %18.6e", x);
  std::fprintf(file_, "\n");
  if (std::fflush(file_) != 0)
    throw Error("the file " + path_ + " of the model deviation can't be written: is the disk full?");
  // a line in the place of a longer one; a pipe has no length to cut
  if (last_line_ >= 0 && ftruncate(fileno(file_), std::ftell(file_)) != 0) last_line_ = -1;
}

}  // namespace dpa2md
