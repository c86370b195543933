// Field numbers and enumerators of the official schema, onnx.proto, by the names that they have there.
#pragma once

#include <cstdint>

namespace kiln::import::onnx::field {

using Tag = uint32_t;

namespace model {
inline constexpr Tag kIrVersion = 1, kGraph = 7, kOpsetImport = 8, kFunctions = 25;
}
namespace opset {
inline constexpr Tag kDomain = 1, kVersion = 2;
}
namespace graph {
inline constexpr Tag kNode = 1, kName = 2, kInitializer = 5, kInput = 11, kOutput = 12,
                     kValueInfo = 13, kSparseInitializer = 15;
}
namespace node {
inline constexpr Tag kInput = 1, kOutput = 2, kName = 3, kOpType = 4, kAttribute = 5, kDomain = 7,
                     kOverload = 8;
}
namespace attribute {
inline constexpr Tag kName = 1, kF = 2, kI = 3, kS = 4, kT = 5, kG = 6, kFloats = 7, kInts = 8,
                     kStrings = 9, kType = 20, kRefAttrName = 21;
enum Type : int64_t {
  Undefined = 0,
  Float = 1,
  Int = 2,
  String = 3,
  TensorType = 4,
  GraphType = 5,
  Floats = 6,
  Ints = 7,
  Strings = 8,
};
}  // namespace attribute
namespace value_info {
inline constexpr Tag kName = 1, kType = 2;
}
namespace type {
inline constexpr Tag kTensor = 1, kSequence = 4, kMap = 5, kOpaque = 7, kSparseTensor = 8,
                     kOptional = 9;
inline constexpr Tag kElemType = 1, kShape = 2;     // of Tensor
inline constexpr Tag kDim = 1;                      // of TensorShapeProto
inline constexpr Tag kDimValue = 1, kDimParam = 2;  // of Dimension
}  // namespace type
namespace tensor {
inline constexpr Tag kDims = 1, kDataType = 2, kSegment = 3, kFloatData = 4, kInt32Data = 5,
                     kStringData = 6, kInt64Data = 7, kName = 8, kRawData = 9, kDoubleData = 10,
                     kUint64Data = 11, kExternalData = 13, kDataLocation = 14;
inline constexpr int64_t kExternal = 1;     // DataLocation
inline constexpr Tag kKey = 1, kValue = 2;  // of StringStringEntryProto
}  // namespace tensor
namespace function {
inline constexpr Tag kName = 1, kInput = 4, kOutput = 5, kNode = 7, kOpsetImport = 9, kDomain = 10,
                     kAttributeProto = 11, kOverload = 13;
}

// TensorProto.DataType
inline constexpr int64_t kFloat = 1, kUint8 = 2, kInt8 = 3, kUint16 = 4, kInt16 = 5, kInt32 = 6,
                         kInt64 = 7, kString = 8, kBool = 9, kFloat16 = 10, kDouble = 11,
                         kUint32 = 12, kUint64 = 13, kBfloat16 = 16, kUint4 = 21, kInt4 = 22;

}  // namespace kiln::import::onnx::field
