// Which GPU a rank takes, and how the ranks share the GPUs.
#pragma once

#include <mpi.h>

#include <string>

namespace dpa2md {

// The rank's number among those on its machine. Collective.
int rank_on_machine(MPI_Comm world);

// "8 ranks on 4 GPUs, 2 on each", where every rank says what tells its GPU from the others of its machine
// (gpu_identity). Collective.
std::string gpu_sharing(MPI_Comm world, const std::string& identity);

}  // namespace dpa2md
