#include "import/operand.h"

#include <algorithm>
#include <array>
#include <optional>

#include "support/error.h"

namespace kiln::import {
namespace {

DType promote_integers(DType a, DType b) {
  if (a == DType::Bool) return b;
  if (b == DType::Bool) return a;
  // u8 with a signed type: the next signed type that holds both.
  if (a == DType::U8) return b == DType::I8 ? DType::I16 : b;
  if (b == DType::U8) return a == DType::I8 ? DType::I16 : a;
  return dtype_size(a) >= dtype_size(b) ? a : b;
}

DType promote_floats(DType a, DType b) {
  if (dtype_size(a) == dtype_size(b)) return DType::F32;  // f16 with bf16
  return dtype_size(a) > dtype_size(b) ? a : b;
}

using MaybeDType = std::optional<DType>;

MaybeDType join(MaybeDType a, DType b) { return a ? promote_types(*a, b) : b; }

// The lower group only counts if it is of a higher category.
MaybeDType combine(MaybeDType higher, MaybeDType lower) {
  if (!higher) return lower;
  if (!lower || is_floating(*higher)) return higher;
  if (*higher == DType::Bool || is_floating(*lower)) return promote_types(*higher, *lower);
  return higher;
}

ir::Literal number_literal(const Number& number, DType dtype) {
  if (const auto* value = std::get_if<int64_t>(&number)) {
    if (is_integer(dtype)) return ir::Literal::scalar_int(dtype, *value);
  }
  return ir::Literal::scalar(dtype, number_as_double(number));
}

}  // namespace

DType number_dtype(const Number& number) {
  if (std::holds_alternative<bool>(number)) return DType::Bool;
  return std::holds_alternative<double>(number) ? DType::F32 : DType::I64;
}

double number_as_double(const Number& number) {
  if (const auto* value = std::get_if<bool>(&number)) return *value ? 1 : 0;
  if (const auto* value = std::get_if<int64_t>(&number)) return static_cast<double>(*value);
  if (const auto* value = std::get_if<double>(&number)) return *value;
  const ir::Dim& dim = std::get<ir::Dim>(number);
  if (!dim.is_constant()) {
    throw CompileError("got the symbolic size " + dim.str() + ", expected a number");
  }
  return static_cast<double>(dim.constant());
}

DType promote_types(DType a, DType b) {
  if (a == b) return a;
  if (is_floating(a) && is_floating(b)) return promote_floats(a, b);
  if (is_floating(a)) return a;
  if (is_floating(b)) return b;
  return promote_integers(a, b);
}

DType result_type(std::span<const Operand> operands) {
  MaybeDType with_axes, without_axes, numbers;
  for (const Operand& operand : operands) {
    if (operand.tensor == nullptr) {
      numbers = join(numbers, number_dtype(operand.number));
    } else {
      const ir::Type& type = operand.tensor->type;
      MaybeDType& group = type.rank() > 0 ? with_axes : without_axes;
      group = join(group, type.dtype);
    }
  }
  return combine(with_axes, combine(without_axes, numbers)).value_or(DType::F32);
}

DType floating_result_type(std::span<const Operand> operands) {
  const DType dtype = result_type(operands);
  return is_floating(dtype) ? dtype : DType::F32;
}

ir::Value* as_value(ir::Builder& builder, const Operand& operand, DType dtype) {
  if (operand.tensor != nullptr) return builder.cast(operand.tensor, dtype);
  if (const auto* dim = std::get_if<ir::Dim>(&operand.number); dim && !dim->is_constant()) {
    return builder.value(ir::Op::dim_value, {}, {{"value", *dim}, {"dtype", dtype}});
  }
  return builder.constant(number_literal(operand.number, dtype));
}

std::vector<ir::Value*> promote(ir::Builder& builder, std::initializer_list<Operand> operands) {
  const DType dtype = result_type(std::span(operands.begin(), operands.size()));
  std::vector<ir::Value*> result;
  for (const Operand& operand : operands) result.push_back(as_value(builder, operand, dtype));
  return result;
}

}  // namespace kiln::import
