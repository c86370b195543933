# libkiln: the compiler. LLVM is linked in; the error text and kiln_bytes come from libkiln_runtime.
kiln_add_shared_library(kiln_shared OUTPUT_NAME kiln
  SOURCES compile.cpp options.cpp run_engine.cpp running_calls.cpp tensor_check.cpp
  DEPENDS kiln_compiler kiln_runtime_shared nlohmann_json::nlohmann_json
)
