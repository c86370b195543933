// Operands of pointwise ops and PyTorch's type promotion.
#pragma once

#include <initializer_list>
#include <span>
#include <variant>
#include <vector>

#include "ir/builder.h"

namespace kiln::import {

// A Python number. A symbolic size counts as an int.
using Number = std::variant<bool, int64_t, double, ir::Dim>;

// What PyTorch's operators take for `Tensor` and `Scalar` arguments alike.
struct Operand {
  ir::Value* tensor = nullptr;  // null: `number`
  Number number = int64_t{0};

  Operand(ir::Value* value) : tensor(value) {}
  Operand(Number value) : number(std::move(value)) {}
};

// The dtype PyTorch gives a tensor made of the number: bool, i64, or the default f32.
DType number_dtype(const Number& number);
double number_as_double(const Number& number);

// torch.promote_types
DType promote_types(DType a, DType b);
// torch.result_type: tensors with axes decide first, then those without, then Python numbers,
// within a category (bool < integer < floating) as well as across.
DType result_type(std::span<const Operand> operands);
// The same, but f32 where that would not be floating.
DType floating_result_type(std::span<const Operand> operands);

// The operand as a value of the dtype: a cast, or a constant of rank 0.
ir::Value* as_value(ir::Builder& builder, const Operand& operand, DType dtype);
// All operands in their common dtype.
std::vector<ir::Value*> promote(ir::Builder& builder, std::initializer_list<Operand> operands);

}  // namespace kiln::import
