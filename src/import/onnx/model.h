// An ONNX model as an import::Model.
#pragma once

#include <memory>
#include <string>

#include "import/import.h"
#include "import/onnx/proto.h"
#include "import/onnx/tensor.h"

namespace kiln::import::onnx {

// Whether a file is to be read as ONNX: by its name, or its first bytes.
bool looks_like_onnx(const std::string& path, std::span<const std::byte> bytes);

// CompileError where the file is not such a model. `path` says where external data lie.
std::shared_ptr<Model> open_model(std::shared_ptr<const FileMap> file, const std::string& path);

}  // namespace kiln::import::onnx
