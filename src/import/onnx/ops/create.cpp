// Tensors that are made of no others: constants, ranges, windows.
#include <cmath>
#include <numbers>

#include "import/onnx/fields.h"
#include "import/onnx/ops/common.h"

namespace kiln::import::onnx {
namespace {

Value* import_constant(NodeCall& call) {
  const std::vector<double> reals = call.reals_or("value_floats", {});
  const std::vector<int64_t> integers = call.integers_or("value_ints", {});
  if (call.has("value")) {
    Value* value = call.builder().constant(call.context().files.literal(call.tensor("value")));
    if (is_packed(call.tensor("value").data_type)) call.context().packed.insert(value);
    return value;
  }
  if (call.has("value_float"))
    return call.builder().scalar(DType::F32, call.real_or("value_float", 0));
  if (call.has("value_int"))
    return call.builder().constant(
        ir::Literal::scalar_int(DType::I64, call.integer_or("value_int", 0)));
  if (call.has("value_floats"))
    return call.real_constant(DType::F32, reals, {static_cast<int64_t>(reals.size())});
  if (call.has("value_ints")) return call.integer_constant(integers);
  call.fail("no value that is a tensor or numbers", "one (sparse and text are not supported)");
}

Value* import_constant_of_shape(NodeCall& call) {
  const Shape shape = call.dims(0);
  if (!call.has("value")) return full(call, shape, DType::F32, 0);
  call.expect(!is_packed(call.tensor("value").data_type), "4-bit numbers", "larger ones");
  Value* value = call.builder().constant(call.context().files.literal(call.tensor("value")));
  call.expect(value->type.elements().is_constant(1), "a value of type " + value->type.str(),
              "one element");
  return call.builder().expand(call.builder().reshape(value, {}), shape);
}

// Of integers the sizes may be symbolic; of floats all is known.
Value* import_range(NodeCall& call) {
  const DType dtype = call.input(0)->type.dtype;
  if (is_integer(dtype)) {
    const Dim start = call.dim(0), limit = call.dim(1);
    const int64_t step = call.integer(size_t{2});
    call.expect(step != 0 && step > -ir::kDimInfinity, "delta " + std::to_string(step), "another");
    const Dim count =
        ir::max(0, step > 0 ? ir::ceildiv(limit - start, step) : ir::ceildiv(start - limit, -step));
    Value* numbers = call.make(
        Op::iota, {}, {{"size", count}, {"dtype", DType::I64}, {"start", start}, {"step", step}});
    return call.builder().cast(numbers, dtype);
  }
  const std::vector<double> start = call.reals(0), limit = call.reals(1), delta = call.reals(2);
  call.expect(start.size() == 1 && limit.size() == 1 && delta.size() == 1 && delta[0] != 0,
              "several numbers, or delta 0", "one start, one limit and one delta");
  const double size = std::max(0.0, std::ceil((limit[0] - start[0]) / delta[0]));
  call.expect(size < 0x1p31, std::to_string(size) + " elements", "fewer");
  std::vector<double> values(static_cast<size_t>(size));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = start[0] + static_cast<double>(i) * delta[0];
  return call.real_constant(dtype, values, {static_cast<int64_t>(values.size())});
}

// Where the column is the row plus k.
Value* import_eye_like(NodeCall& call) {
  Value* x = call.input(0);
  const int64_t k = call.integer_or("k", 0);
  const DType dtype =
      call.has("dtype") ? known_dtype(call.integer("dtype"), "attribute dtype") : x->type.dtype;
  call.expect(x->type.rank() == 2 && std::abs(static_cast<double>(k)) < 0x1p31,
              "an input of type " + x->type.str(), "a matrix");
  const Expr rows = call.expr(unsqueeze(call.call(), iota(call.call(), x->type.shape[0]), 1));
  const Expr columns = call.expr(iota(call.call(), x->type.shape[1]));
  return call.builder().cast(columns.apply(Op::eq, rows + static_cast<double>(k)), dtype);
}

// Inference: the input as it is, and a mask that is true.
std::vector<Value*> import_dropout(NodeCall& call) {
  Value* x = call.input(0);
  for (const char* name : {"seed", "ratio", "is_test"}) call.ignore(name);
  call.optional_input(1);
  if (Value* training = call.optional_input(2)) {
    const Elements* known = call.known(training);
    const bool off = known != nullptr && known->size() == 1 && known->integers[0].is_constant(0);
    const Elements* ratio = call.has_input(1) ? call.known(call.input(1)) : nullptr;
    const bool drops_nothing = ratio != nullptr && ratio->reals == std::vector<double>{0};
    call.expect(off || drops_nothing, "training_mode", "inference");
  }
  return {x, call.output_used(1) ? full(call, x->type.shape, DType::Bool, 1) : nullptr};
}

// Sums of cosines, over the whole of a period or up to its last sample.
Value* window(NodeCall& call, const std::vector<double>& weights) {
  const int64_t size = call.integer(size_t{0});
  call.expect(size >= 0 && size < (1 << 24), std::to_string(size) + " samples", "fewer");
  const bool periodic = call.flag_or("periodic", true);
  const DType dtype = known_dtype(call.integer_or("output_datatype", field::kFloat), "the result");
  const double period = static_cast<double>(periodic ? size : size - 1);
  std::vector<double> values;
  for (int64_t i = 0; i < size; ++i) {
    double value = 0;
    for (size_t k = 0; k < weights.size(); ++k)
      value += weights[k] * std::cos(2 * std::numbers::pi * static_cast<double>(k) *
                                     static_cast<double>(i) / period);
    values.push_back(value);
  }
  return call.real_constant(dtype, values, {size});
}

Value* import_blackman(NodeCall& call) { return window(call, {0.42, -0.5, 0.08}); }
Value* import_hamming(NodeCall& call) { return window(call, {25.0 / 46, -21.0 / 46}); }
Value* import_hann(NodeCall& call) { return window(call, {0.5, -0.5}); }

constexpr OperatorRow kRows[] = {
    {"BlackmanWindow", import_blackman},
    {"Constant", import_constant},
    {"ConstantOfShape", import_constant_of_shape},
    {"Dropout", import_dropout},
    {"EyeLike", import_eye_like},
    {"HammingWindow", import_hamming},
    {"HannWindow", import_hann},
    {"Range", import_range},
};

}  // namespace

OperatorRows create_operators() { return kRows; }

}  // namespace kiln::import::onnx
