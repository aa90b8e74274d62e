// All of GpuBackend, for the files that compile it.
#pragma once

#include "cuda/host/gpu_stages.h"
#include "cuda/host/gpu_step.h"
