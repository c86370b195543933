// Operands of contractions that are dequantize(q, scale, zero_point), or integers as floats: what products
// of integers read; and scaled numbers of f8e4m3: what products of those read.
#pragma once

#include <optional>

#include "plan/lower/lowering.h"

namespace kiln::plan {

// A position of a value that is, or is a view of, a dequantize of i8 or u8, or a cast of one to floats,
// which is the same without scale and zero point.
struct Quantised {
  const ir::Node* node = nullptr;  // the dequantize or cast
  Indices at;                      // the position in its result
  DType dtype() const { return node->input(0)->type.dtype; }
  // Null where there is none.
  const ir::Value* scale() const { return operand(1); }
  const ir::Value* zero_point() const { return operand(2); }

 private:
  const ir::Value* operand(size_t i) const {
    return i < node->inputs.size() ? node->inputs[i] : nullptr;
  }
};
std::optional<Quantised> quantised(const ir::Value* value, Indices at);

// The element of a scale or zero point that serves a position of x: one for each block.
Indices block_indices(const ir::Shape& own, const ir::Shape& x, const Indices& at);
// The scale, and the zero point as i32: the constants 1 and 0 where there is none.
Expr scale_of(Lowering& lowering, const Quantised& operand, DType dtype);
Expr zero_point_of(Lowering& lowering, const Quantised& operand);

// Constant elements less their zero points, dense over loops of which the first are the channels, and
// their sums for each channel (i32).
struct SignedWeight {
  ir::Literal values;  // i8
  ir::Literal sums;
};
// Nothing where elements or zero points are no constants, where a difference leaves i8, or where as many
// products as there are for a channel may leave i32.
// With ZeroPoint::Kept the elements keep it, which always fits: those of u8 are moved by 128.
enum class ZeroPoint : uint8_t { Subtracted, Kept };
std::optional<SignedWeight> signed_weight(const Quantised& weight, const std::vector<Loop>& loops,
                                          ZeroPoint zero_point = ZeroPoint::Subtracted);

// The same elements as `dtype`, for kernels that do not multiply integers. Nothing where an operand is no
// constant, or its position is not affine in the loops.
std::optional<ir::Literal> floating_weight(const Quantised& weight, const std::vector<Loop>& loops,
                                           DType dtype);

// An operand of an integer product as u8 (the left one) or i8 (the right one), with the zero point that belongs
// to it (i32). The other type is moved by 128 in a copy, as is what cannot be read where it lies; `at` is the
// position of the operand itself.
struct ByteOperand {
  View view;
  Expr zero_point;
  Quantised operand;
};
ByteOperand byte_operand(Lowering& lowering, const ir::Value* value, const Indices& at,
                         const std::vector<Loop>& loops, DType dtype = DType::U8);
// One of its elements, as i32.
Expr byte_element(Lowering& lowering, const Quantised& operand, DType dtype);

// What a product of integers stands for: (sum - zero_point * sums[channel]) * scale * scale, as f32 or f64.
struct IntegerSum {
  const ByteOperand& left;
  const Quantised& right;
  const SignedWeight& weight;
  Index channel;
  Expr sum = accumulator(DType::I32);
};
Expr dequantised_sum(Lowering& lowering, const IntegerSum& sum, DType dtype);

// Whether neither scale nor zero point changes along a loop.
bool is_uniform_along(Lowering& lowering, const Quantised& operand, const std::vector<Loop>& loops);

// A position of a value that is numbers of f8e4m3, cast to another floating type and multiplied or divided by
// scales, with views in between. Roundings to 16 bits on the way are not made.
struct Float8Operand {
  struct Scale {
    const ir::Value* value = nullptr;
    Indices at;
    bool divides = false;
  };
  const ir::Value* codes = nullptr;
  Indices at;  // the position in them
  std::vector<Scale> scales;
};
std::optional<Float8Operand> float8_operand(const ir::Value* value, Indices at);
// What the numbers are multiplied by, as f32.
Expr scale_of(Lowering& lowering, const Float8Operand& operand);
bool is_uniform_along(Lowering& lowering, const Float8Operand& operand,
                      const std::vector<Loop>& loops);

}  // namespace kiln::plan
