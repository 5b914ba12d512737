// SPDX-License-Identifier: Apache-2.0
// What this kernel and host lack, and what follows from it.
#pragma once

#include "agent/options.h"

namespace mesh::admin {

// Prints a table (or JSON) of checks. 0: all there; 1: runs degraded; 2: cannot run.
int run_preflight(const Options& options);

}  // namespace mesh::admin
