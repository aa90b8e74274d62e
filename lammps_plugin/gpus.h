// The choice of each rank's GPU, and a summary of how ranks share the GPUs.
#pragma once

#include <mpi.h>

#include <string>

namespace dpa2md {

// The rank's number among those on its machine. Collective.
int rank_on_machine(MPI_Comm world);

// "8 ranks on 4 GPUs, 2 on each", from every rank's GPU (gpu_identity). Collective.
std::string gpu_sharing(MPI_Comm world, const std::string& identity);

}  // namespace dpa2md
