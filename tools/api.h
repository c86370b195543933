// The C API with owning handles and Failure for errors.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "failure.h"
#include "kiln/kiln.h"
#include "npy.h"

namespace tools {

template <auto destroy>
struct Destroy {
  template <typename T>
  void operator()(T* handle) const {
    destroy(handle);
  }
};
using Engine = std::unique_ptr<kiln_engine, Destroy<kiln_engine_destroy>>;
using Session = std::unique_ptr<kiln_session, Destroy<kiln_session_destroy>>;
using Model = std::unique_ptr<kiln_model, Destroy<kiln_model_destroy>>;
using Bytes = std::unique_ptr<kiln_bytes, Destroy<kiln_bytes_destroy>>;

// Failure with the library's text.
void check(kiln_status status);

Engine load_engine(const std::string& path, const std::string& cpu_variant);
Session make_session(const Engine& engine, int threads);
std::vector<kiln_tensor_info> inputs_of(const Engine& engine);
std::vector<kiln_tensor_info> outputs_of(const Engine& engine);
std::string text_of(const Bytes& bytes);

// "float32[1..8..32, 384]"
std::string type_text(const kiln_tensor_info& info);

// Random contents of a shape: floats in [-1, 1), integers 0 or 1 (valid as indices nearly
// everywhere). The same every time.
Array random_array(kiln_dtype dtype, std::vector<int64_t> shape);

// Arrays of the shapes that the outputs have for these inputs.
std::vector<Array> make_outputs(const Engine& engine, const Session& session,
                                std::vector<Array>& inputs);
void run(const Session& session, std::vector<Array>& inputs, std::vector<Array>& outputs);

}  // namespace tools
