// All of GpuBackend, for the files that compile it.
#pragma once

#include "cuda/host/gpu_exchange.h"
#include "cuda/host/gpu_memory.h"
#include "cuda/host/gpu_pairs.h"
#include "cuda/host/gpu_stages.h"
#include "cuda/host/gpu_step.h"
#include "cuda/host/gpu_tables.h"
#include "cuda/host/gpu_weights.h"
