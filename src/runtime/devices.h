// The device halves that programs run on.
#pragma once

#include <string_view>

#include "backends/executable.h"
#include "support/status.h"

namespace kiln::runtime {

// The first call for a target whose device half is a library of its own opens that. Unsupported, with
// what is missing, where there is none. Any thread may call it.
Result<const Device*> find_device(std::string_view target);

// One more in this process, which outlives all use: for devices that are in no product, and for
// those that a library has linked in. Not while an engine is loaded. False: there is no room.
bool add_device(const Device& device);

}  // namespace kiln::runtime
