#include "gpus.h"

#include <cstring>
#include <vector>

namespace dpa2md {

#ifdef DPA2MD_LAMMPS_SERIAL

int rank_on_machine(MPI_Comm) { return 0; }
std::string gpu_sharing(MPI_Comm, const std::string&) { return "1 rank on 1 GPU"; }

#else

namespace {

// The ranks of this machine.
class Machine {
 public:
  explicit Machine(MPI_Comm world) {
    MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &comm_);
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
  }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;
  ~Machine() { MPI_Comm_free(&comm_); }
  int rank() const { return rank_; }

  // Counts the ranks with the same word as this one, and those of them before it. Collective.
  void count_alike(const std::string& word, int* alike, int* before) const {
    constexpr int kLength = 32;  // a PCI bus number takes 13
    std::vector<char> mine(kLength, 0), all(static_cast<std::size_t>(kLength) * size_);
    std::strncpy(mine.data(), word.c_str(), kLength - 1);
    MPI_Allgather(mine.data(), kLength, MPI_CHAR, all.data(), kLength, MPI_CHAR, comm_);
    *alike = *before = 0;
    for (int r = 0; r < size_; ++r) {
      const bool same = std::strncmp(mine.data(), all.data() + r * kLength, kLength) == 0;
      *alike += same;
      *before += same && r < rank_;
    }
  }

 private:
  MPI_Comm comm_;
  int rank_ = 0, size_ = 0;
};

std::string counted(int n, const std::string& what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

}  // namespace

int rank_on_machine(MPI_Comm world) { return Machine(world).rank(); }

std::string gpu_sharing(MPI_Comm world, const std::string& identity) {
  int alike = 0, before = 0, ranks = 0, gpus = 0, least = 0, most = 0;
  Machine(world).count_alike(identity, &alike, &before);
  int first = before == 0;
  MPI_Comm_size(world, &ranks);
  MPI_Allreduce(&first, &gpus, 1, MPI_INT, MPI_SUM, world);
  MPI_Allreduce(&alike, &least, 1, MPI_INT, MPI_MIN, world);
  MPI_Allreduce(&alike, &most, 1, MPI_INT, MPI_MAX, world);
  const std::string each =
      least == most ? std::to_string(most) : std::to_string(least) + " to " + std::to_string(most);
  return counted(ranks, "rank") + " on " + counted(gpus, "GPU") + (gpus > 1 ? ", " + each + " on each" : "");
}

#endif

}  // namespace dpa2md
