// Tensors of a model as literals.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "import/onnx/proto.h"
#include "ir/type.h"
#include "support/file_map.h"

namespace kiln::import::onnx {

// The dtype of values of a TensorProto.DataType; nothing for one that Kiln has no type for.
std::optional<DType> dtype_of(int64_t data_type);
// "FLOAT8E4M3FN": the name in the schema, for messages.
std::string data_type_name(int64_t data_type);
// Whether two elements lie in a byte.
bool is_packed(int64_t data_type);
// The dtype; CompileError where there is none.
DType known_dtype(int64_t data_type, const std::string& what);

// Where tensors have their elements: the model's own file, and those beside it that it names.
class TensorFiles {
 public:
  // `folder`: where external data may lie; empty: the folder that the process works in.
  TensorFiles(std::shared_ptr<const FileMap> model, std::string folder)
      : model_(std::move(model)), folder_(std::move(folder)) {}

  // Borrows from the mapped file where elements lie there as Kiln wants them, else copies. 4-bit
  // integers become 8-bit ones. CompileError where elements are missing or not as the tensor says.
  ir::Literal literal(const Tensor& tensor);
  // The bytes of a tensor as they lie in its file, for the model's fingerprint.
  std::span<const std::byte> external_bytes(const Tensor& tensor);

 private:
  std::shared_ptr<const FileMap> open(const Tensor& tensor);

  std::shared_ptr<const FileMap> model_;
  std::string folder_;
  std::map<std::string, std::shared_ptr<const FileMap>, std::less<>> external_;
};

}  // namespace kiln::import::onnx
