// matmul and linear. Types for which the target has no MatMul kernels are reduction nests.
#include <limits>

#include "plan/form/fold.h"
#include "plan/lower/grouped_weight.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

using ir::Op;

// Operands as positions in terms of the loops of a MatMul.
struct Contraction {
  std::vector<Loop> batch;
  Loop m, n, k;
  const ir::Value* a = nullptr;
  const ir::Value* b = nullptr;
  Indices a_at, b_at, out_at;

  std::vector<Loop> loops(const std::vector<Loop>& inner) const { return with_loops(batch, inner); }
};

ir::Shape leading(const ir::Shape& shape, size_t drop) {
  return {shape.begin(), shape.end() - static_cast<std::ptrdiff_t>(drop)};
}

Indices operator+(Indices a, const Indices& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// Position in an operand whose leading axes are broadcast to `shape`.
Indices broadcast_position(const ir::Shape& own, const Indices& at) {
  Indices result(at.end() - static_cast<std::ptrdiff_t>(own.size()), at.end());
  for (size_t i = 0; i < own.size(); ++i) {
    if (own[i].is_constant(1)) result[i] = 0;
  }
  return result;
}

// x[..., k] * weight[n, k]: all leading axes of x make up m.
Contraction flat_linear(const ir::Node& node) {
  const ir::Shape& x = node.input(0)->type.shape;
  const ir::Shape& weight = node.input(1)->type.shape;
  Contraction c;
  c.a = node.input(0);
  c.b = node.input(1);
  c.m = make_loop("m", ir::product(leading(x, 1)));
  c.n = make_loop("n", weight[0]);
  c.k = make_loop("k", weight[1]);
  const Indices lead = delinearize(leading(x, 1), c.m.index);
  c.a_at = lead + Indices{c.k.index};
  c.b_at = {c.n.index, c.k.index};
  c.out_at = lead + Indices{c.n.index};
  return c;
}

Indices matrix_position(const Index& row, const Index& column, bool transposed) {
  return transposed ? Indices{column, row} : Indices{row, column};
}

// Batched: the leading axes of the result are batch loops. linear is matmul with transpose_b.
Contraction batched(const ir::Node& node) {
  const ir::Shape& a = node.input(0)->type.shape;
  const ir::Shape& b = node.input(1)->type.shape;
  const ir::Shape& out = node.output()->type.shape;
  const bool transposed = node.op == Op::linear || node.attr<bool>("transpose_b");
  Contraction c;
  c.a = node.input(0);
  c.b = node.input(1);
  LoopSpace batch = make_loops(leading(out, 2), "b");
  c.batch = std::move(batch.loops);
  c.m = make_loop("m", out[out.size() - 2]);
  c.n = make_loop("n", out.back());
  c.k = make_loop("k", a.back());
  c.a_at = broadcast_position(leading(a, 2), batch.indices) + Indices{c.m.index, c.k.index};
  c.b_at = broadcast_position(leading(b, 2), batch.indices) +
           matrix_position(c.k.index, c.n.index, transposed);
  c.out_at = batch.indices + Indices{c.m.index, c.n.index};
  return c;
}

// A matmul whose right side has no batch is a linear of a transposed or plain weight.
Contraction flat_matmul(const ir::Node& node) {
  const ir::Shape& a = node.input(0)->type.shape;
  const ir::Shape& b = node.input(1)->type.shape;
  const bool transposed = node.attr<bool>("transpose_b");
  Contraction c;
  c.a = node.input(0);
  c.b = node.input(1);
  c.m = make_loop("m", ir::product(leading(a, 1)));
  c.n = make_loop("n", node.output()->type.shape.back());
  c.k = make_loop("k", a.back());
  const Indices lead = delinearize(leading(a, 1), c.m.index);
  c.a_at = lead + Indices{c.k.index};
  c.b_at = Indices(b.size() - 2) + matrix_position(c.k.index, c.n.index, transposed);
  const Indices out_lead(node.output()->type.rank() - a.size());
  c.out_at = out_lead + lead + Indices{c.n.index};
  return c;
}

bool has_batch(const ir::Shape& shape) { return !ir::product(leading(shape, 2)).is_constant(1); }

Contraction choose(Lowering& lowering, const ir::Node& node) {
  const bool linear = node.op == Op::linear;
  if (!linear && has_batch(node.input(1)->type.shape)) return batched(node);
  Contraction flat = linear ? flat_linear(node) : flat_matmul(node);
  if (lowering.view(flat.a, flat.a_at, {flat.m, flat.k})) return flat;
  // Leading axes that do not flatten may still be affine one by one.
  if (node.input(0)->type.rank() < 3) return flat;
  Contraction separate = batched(node);
  const bool affine =
      lowering.view(separate.a, separate.a_at, separate.loops({separate.m, separate.k}))
          .has_value();
  return affine ? separate : flat;
}

Expr with_bias(Lowering& lowering, const ir::Node& node, Expr sum, const Index& n) {
  if (node.op == Op::linear && node.input(2)) {
    const Expr bias = cast(lowering.load(node.input(2), {n}), sum->dtype);
    sum = apply(Op::add, {std::move(sum), bias});
  }
  return cast(std::move(sum), node.output()->type.dtype);
}

void emit_nest(Lowering& lowering, const ir::Node& node, const Contraction& c) {
  NestBuilder builder(c.loops({c.m, c.n}));
  const DType dtype = accumulator_dtype(node);
  const Expr a = cast(lowering.load(c.a, c.a_at), dtype);
  const Expr b = cast(lowering.load(c.b, c.b_at), dtype);
  const Expr product = apply(Op::mul, {a, b});
  Expr sum = builder.reduce(ReduceOp::Sum, {c.k}, product);
  Expr value = with_bias(lowering, node, std::move(sum), c.n.index);
  builder.store({lowering.define(node.output()), {}, c.out_at, std::move(value), {}});
  lowering.emit(node, builder.finish());
}

// --- Integers ---

constexpr Formats kIntegers{DType::U8, DType::I8, DType::I32, DType::I8};

void emit_product(Lowering& lowering, const ir::Node& node, const Contraction& c, MatMul matmul,
                  Expr value) {
  matmul.epilogue = with_bias(lowering, node, std::move(value), c.n.index);
  matmul.out = lowering.dense_view(lowering.define(node.output()), node.output()->type.shape,
                                   c.out_at, c.loops({c.m, c.n}));
  lowering.emit(node, std::move(matmul));
}

// The sum along k of the elements of an operand, for each point of the other loops: what the zero point of
// the other operand costs.
Expr row_sum(Lowering& lowering, const ir::Node& node, const Contraction& c, const Loop& row,
             const Quantised& operand, DType dtype) {
  NestBuilder builder(c.loops({row}));
  const Expr sum = builder.reduce(ReduceOp::Sum, {c.k}, byte_element(lowering, operand, dtype));
  ir::Shape shape;
  Indices at;
  for (const Loop& loop : c.loops({row})) {
    shape.push_back(loop.extent());
    at.emplace_back(loop.index);
  }
  const BufferId sums =
      lowering.add_temporary(node.output()->name + "_sums", {DType::I32, std::move(shape)});
  builder.store({sums, {}, at, sum, {}});
  lowering.emit(node, builder.finish());
  return load_at(sums, DType::I32, at);
}

// Products of numbers of 8 bits less their zero points, whatever these are, whose sum i32 holds.
constexpr int64_t kMostRunTimeSteps = std::numeric_limits<int32_t>::max() / (255 * 255);

// Both operands are computed in the run: sum of (a - za) (b - zb) = a b - za sum(b) - zb sum(a) + k za zb.
bool emit_run_time_integers(Lowering& lowering, const ir::Node& node, const Contraction& c) {
  const auto left = quantised(c.a, c.a_at), right = quantised(c.b, c.b_at);
  const DType dtype = compute_dtype(node.output()->type.dtype);
  if (!left || !right || c.k.extent().upper_bound() > kMostRunTimeSteps) return false;
  if (!is_uniform_along(lowering, *left, {c.k}) || !is_uniform_along(lowering, *right, {c.k}))
    return false;
  const ByteOperand a = byte_operand(lowering, c.a, c.a_at, c.loops({c.m, c.k}), DType::U8);
  const ByteOperand b = byte_operand(lowering, c.b, c.b_at, c.loops({c.k, c.n}), DType::I8);
  const auto is_zero = [](const Expr& value) {
    const auto scalar = as_scalar(value);
    return scalar && scalar->integer == 0;
  };
  const auto times = [](const Expr& x, const Expr& y) { return apply(Op::mul, {x, y}); };
  Expr sum = accumulator(DType::I32);
  if (!is_zero(a.zero_point)) {
    const Expr sums = row_sum(lowering, node, c, c.n, *right, DType::I8);
    sum = apply(Op::sub, {sum, times(a.zero_point, sums)});
  }
  if (!is_zero(b.zero_point)) {
    const Expr sums = row_sum(lowering, node, c, c.m, *left, DType::U8);
    sum = apply(Op::sub, {sum, times(b.zero_point, sums)});
  }
  if (!is_zero(a.zero_point) && !is_zero(b.zero_point)) {
    const Expr steps = cast(position(c.k.extent()), DType::I32);
    sum = apply(Op::add, {sum, times(steps, times(a.zero_point, b.zero_point))});
  }
  const Expr scale = times(scale_of(lowering, *left, dtype), scale_of(lowering, *right, dtype));
  MatMul matmul{c.batch, c.m, c.n, c.k, a.view, b.view, {}, kIntegers, {}};
  emit_product(lowering, node, c, std::move(matmul), times(cast(std::move(sum), dtype), scale));
  return true;
}

// A constant right operand whose elements less their zero points leave i8: sum of a w - zw sum(a), for a less its
// zero point.
bool emit_asymmetric_weight(Lowering& lowering, const ir::Node& node, const Contraction& c,
                            const Quantised& left, const Quantised& right) {
  if (c.k.extent().upper_bound() > kMostRunTimeSteps) return false;
  const auto weight = signed_weight(right, {c.n, c.k}, ZeroPoint::Kept);
  if (!weight) return false;
  const ByteOperand bytes = byte_operand(lowering, c.a, c.a_at, c.loops({c.m, c.k}));
  const auto of = [](Op op, const Expr& x, const Expr& y) { return apply(op, {x, y}); };
  const Expr shift = constant_int(DType::I32, right.dtype() == DType::U8 ? 128 : 0);
  const Expr zero = of(Op::sub, zero_point_of(lowering, right), shift);
  const Expr steps = cast(position(c.k.extent()), DType::I32);
  const Expr row = of(Op::sub, row_sum(lowering, node, c, c.m, left, DType::U8),
                      of(Op::mul, steps, bytes.zero_point));
  const Expr sum = of(Op::sub, accumulator(DType::I32), of(Op::mul, zero, row));
  MatMul matmul{c.batch, c.m, c.n, c.k, bytes.view, {}, {}, kIntegers, {}};
  const BufferId values =
      lowering.add_constant(right.node->input(0)->name + "_moved", weight->values);
  matmul.b = lowering.dense_view(values, {c.n.extent(), c.k.extent()}, {c.n.index, c.k.index},
                                 c.loops({c.k, c.n}));
  const DType dtype = compute_dtype(node.output()->type.dtype);
  emit_product(lowering, node, c, std::move(matmul),
               dequantised_sum(lowering, {bytes, right, *weight, c.n.index, sum}, dtype));
  return true;
}

// A constant of [n, rows] as [row, n].
View columns_of(Lowering& lowering, const std::string& name, ir::Literal literal) {
  const ir::Dim rows = literal.shape[1];
  return {lowering.add_constant(name, std::move(literal)), 0, {1, rows}};
}

// A constant right operand beside floats: of 4 bits, or with scales that change along k.
bool emit_grouped(Lowering& lowering, const ir::Node& node, const Contraction& c,
                  const Quantised& right, bool is_uniform) {
  if (!is_uniform_along(lowering, right, c.batch)) return false;
  auto weight = grouped_weight(right, c.n, c.k);
  if (!weight || (is_uniform && weight->bits == 8)) return false;
  MatMul matmul{c.batch, c.m, c.n, c.k, {}, {}, {}, {}, {}};
  matmul.a = lowering.operand_view(c.a, c.a_at, c.loops({c.m, c.k}));
  const ir::Dim steps = weight->values.shape[1];
  const BufferId values =
      lowering.add_constant(right.node->input(0)->name, std::move(weight->values));
  matmul.b = lowering.dense_view(values, {c.n.extent(), steps}, {c.n.index, c.k.index},
                                 c.loops({c.k, c.n}));
  matmul.formats.weight = DType::I8;
  Groups groups{weight->size, weight->bits, {}, {}};
  groups.scales = columns_of(lowering, right.scale()->name, std::move(weight->scales));
  if (weight->zeros)
    groups.zeros = columns_of(lowering, right.zero_point()->name, std::move(*weight->zeros));
  matmul.groups = std::move(groups);
  emit_product(lowering, node, c, std::move(matmul), accumulator(DType::F32));
  return true;
}

// A constant right operand: a product of integers if the left one is quantised too; otherwise its bits
// are widened as they are read, and scaled in the epilogue or group by group. False for other products.
bool emit_quantised(Lowering& lowering, const ir::Node& node, const Contraction& c) {
  const DType dtype = compute_dtype(node.output()->type.dtype);
  if (!lowering.traits().integer_products || accumulator_dtype(node) != dtype) return false;
  const auto right = quantised(c.b, c.b_at);
  if (!right) return false;
  if (lowering.literal_of(right->node->input(0)) == nullptr)
    return emit_run_time_integers(lowering, node, c);
  const bool is_uniform = is_uniform_along(lowering, *right, with_loops(c.batch, {c.k}));
  const auto left = quantised(c.a, c.a_at);
  const bool is_integer = is_uniform && left && is_uniform_along(lowering, *left, {c.k});
  if (!is_integer && (dtype != DType::F32 || !lowering.traits().integer_weights)) return false;
  if (!is_integer && emit_grouped(lowering, node, c, *right, is_uniform)) return true;
  if (!is_uniform) return false;
  const auto weight = signed_weight(*right, {c.n, c.k});
  if (!weight) return is_integer && emit_asymmetric_weight(lowering, node, c, *left, *right);

  MatMul matmul{c.batch, c.m, c.n, c.k, {}, {}, {}, {}, {}};
  Expr value;
  if (is_integer) {
    const ByteOperand bytes = byte_operand(lowering, c.a, c.a_at, c.loops({c.m, c.k}));
    value = dequantised_sum(lowering, {bytes, *right, *weight, c.n.index}, dtype);
    matmul.a = bytes.view;
    matmul.formats = kIntegers;
  } else {
    matmul.a = lowering.operand_view(c.a, c.a_at, c.loops({c.m, c.k}));
    matmul.formats.weight = DType::I8;
    value = apply(Op::mul, {accumulator(DType::F32), scale_of(lowering, *right, DType::F32)});
  }
  const BufferId bytes = lowering.add_constant(right->node->input(0)->name, weight->values);
  matmul.b = lowering.dense_view(bytes, {c.n.extent(), c.k.extent()}, {c.n.index, c.k.index},
                                 c.loops({c.k, c.n}));
  emit_product(lowering, node, c, std::move(matmul), std::move(value));
  return true;
}

// --- Float8 ---

// The elements of an operand of f8e4m3 where they lie: constants, or rows that are contiguous along k, which
// is what instructions take.
std::optional<View> float8_view(Lowering& lowering, const Float8Operand& operand,
                                const std::vector<Loop>& loops, size_t k) {
  auto view = lowering.view(operand.codes, operand.at, loops);
  const bool is_constant = lowering.literal_of(operand.codes) != nullptr;
  if (view && !is_constant && !view->strides[k].is_constant(1)) return std::nullopt;
  return view;
}

// Operands that are scaled numbers of f8e4m3 are multiplied as such; constants of them are read in 8 bits by
// products of few rows. Scales are in the epilogue. False for other products.
bool emit_float8(Lowering& lowering, const ir::Node& node, const Contraction& c) {
  const TargetTraits& traits = lowering.traits();
  if (compute_dtype(node.output()->type.dtype) != DType::F32) return false;
  const auto right = float8_operand(c.b, c.b_at);
  if (!right || !is_uniform_along(lowering, *right, {c.k})) return false;
  const auto b = float8_view(lowering, *right, c.loops({c.k, c.n}), c.batch.size());
  if (!b) return false;

  MatMul matmul{c.batch, c.m, c.n, c.k, {}, *b, {}, {}, {}};
  Expr scale = scale_of(lowering, *right);
  const auto left = float8_operand(c.a, c.a_at);
  std::optional<View> a;
  if (traits.float8_products && left && is_uniform_along(lowering, *left, {c.k}))
    a = float8_view(lowering, *left, c.loops({c.m, c.k}), c.batch.size() + 1);
  if (a) {
    matmul.a = *a;
    matmul.formats = {DType::F8E4M3, DType::F8E4M3, DType::F32, DType::F8E4M3,
                      lowering.options().tf32_products};
    scale = apply(Op::mul, {scale_of(lowering, *left), scale});
  } else {
    const bool is_weight = lowering.literal_of(right->codes) != nullptr;
    if (!is_weight || c.m.extent().upper_bound() > traits.float8_weight_rows) return false;
    matmul.a = lowering.operand_view(c.a, c.a_at, c.loops({c.m, c.k}));
    matmul.formats = lowering.formats(matmul.a.buffer, b->buffer);
    matmul.formats.right = matmul.formats.left;
  }
  emit_product(lowering, node, c, std::move(matmul),
               apply(Op::mul, {accumulator(DType::F32), scale}));
  return true;
}

}  // namespace

void lower_contract(Lowering& lowering, const ir::Node& node) {
  if (!has_kernel(lowering.traits().matmul, node)) {
    return emit_nest(lowering, node, node.op == Op::linear ? flat_linear(node) : batched(node));
  }
  Contraction c = choose(lowering, node);
  if (emit_quantised(lowering, node, c) || emit_float8(lowering, node, c)) return;
  View a = lowering.operand_view(c.a, c.a_at, c.loops({c.m, c.k}));
  View b = lowering.operand_view(c.b, c.b_at, c.loops({c.k, c.n}));
  const Formats formats = lowering.formats(a.buffer, b.buffer, lowering.options().tf32_products);
  Expr epilogue = with_bias(lowering, node, accumulator(formats.accumulator), c.n.index);
  View out = lowering.dense_view(lowering.define(node.output()), node.output()->type.shape,
                                 c.out_at, c.loops({c.m, c.n}));
  lowering.emit(node, MatMul{c.batch, c.m, c.n, c.k, std::move(a), std::move(b), std::move(out),
                             formats, std::move(epilogue)});
}

}  // namespace kiln::plan
