// A device half that is a library of its own, and lies beside the one with the runtime: libkiln_cuda.so.
//
// It exports one function, called kDeviceFunction, that gives its Device. What is handed over is C++, and
// is used only between libraries of one build: both say of which they are (KILN_DEVICE_INTERFACE, from
// cmake/KilnDeviceInterface.cmake).
#pragma once

#include "backends/executable.h"

namespace kiln {

// `own` gets what the library is of, for as long as that is in memory. Null for a caller of another
// build.
using DeviceFunction = const Device*(const char* caller, const char** own);

inline constexpr const char* kDeviceFunction = "kiln_device";

}  // namespace kiln
