// The device halves that programs run on.
#pragma once

#include <string_view>

#include "backends/executable.h"

namespace kiln::runtime {

// Null for a target that this version does not know. A device half that is a library of its own is
// opened when a program for it is first asked for: an entry of the table whose functions do so.
const Device* find_device(std::string_view target);

// One more in this process, which outlives all use: for devices that are in no product. Not while
// an engine is loaded. False: there is no room.
bool add_device(const Device& device);

}  // namespace kiln::runtime
