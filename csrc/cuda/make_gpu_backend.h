// All of GpuBackend, for the files that compile it.
#pragma once

#include "gpu_exchange.h"
#include "gpu_memory.h"
#include "gpu_pairs.h"
#include "gpu_stages.h"
#include "gpu_step.h"
#include "gpu_tables.h"
#include "gpu_weights.h"
