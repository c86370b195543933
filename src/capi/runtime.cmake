# libkiln_runtime: loads and runs engines. It stays in memory once loaded, since its threads may be parked in it.
kiln_add_shared_library(kiln_runtime_shared OUTPUT_NAME kiln_runtime
  SOURCES kernels.cpp options.cpp runs.cpp runtime.cpp sessions.cpp tensor_check.cpp
  DEPENDS kiln_runtime_part
)
target_link_options(kiln_runtime_shared PRIVATE -Wl,-z,nodelete)
set_target_properties(kiln_runtime_shared PROPERTIES SOVERSION 0)
# Opened where an engine needs it, so that it is no part of the link.
add_dependencies(kiln_runtime_shared kiln_cuda_shared)
kiln_small_code(kernels.cpp options.cpp runtime.cpp sessions.cpp tensor_check.cpp)
