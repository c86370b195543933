#include "ir/infer.h"

#include <algorithm>
#include <cmath>

#include "ir/builder.h"
#include "ir/op_table.h"
#include "ir/scalar.h"
#include "ir/unequal_sizes.h"
#include "support/error.h"

namespace kiln::ir {
namespace {

void check_operands(const Call& call, const OpInfo& info) {
  const size_t low = info.operands.min;
  const bool fits = call.count() >= low && (info.operands.max == kAnyNumber ||
                                            call.count() <= static_cast<size_t>(info.operands.max));
  if (!fits) {
    std::string expected = std::to_string(low);
    if (info.operands.max == kAnyNumber) expected += " or more";
    if (info.operands.max > info.operands.min) {
      expected.append(" to ").append(std::to_string(info.operands.max));
    }
    call.fail(std::to_string(call.count()) + " operands", expected);
  }
  for (size_t i = 0; i < low; ++i) {
    call.expect(call.has(i), "no operand " + std::to_string(i), "a value");
  }
}

void check_attributes(const Call& call, const Attrs& attrs) {
  for (const auto& [name, value] : attrs) {
    const AttrInfo* attribute = find_attribute(call.op(), name);
    if (attribute == nullptr) call.fail("attribute " + name, "an attribute of the op table");
    call.expect(attr_type_name(value) == attribute->type,
                "attribute " + name + " of type " + std::string(attr_type_name(value)),
                std::string(attribute->type));
  }
  for (const AttrInfo& attribute : attributes_of(call.op())) {
    call.expect(attribute.optional || attrs.find(attribute.name) != attrs.end(),
                "no attribute " + std::string(attribute.name), std::string(attribute.type));
  }
}

void check_dtype(const Call& call, const OpInfo& info) {
  if (call.count() == 0) return;
  const DType dtype = call.type(0).dtype;
  call.expect(takes_dtype(info.takes, dtype), std::string(dtype_name(dtype)),
              std::string(expected_dtype(info.takes)));
}

// Numbers that are not computed with are moved, chosen and cast.
void check_storage(const Call& call, const OpInfo& info) {
  const bool replaces = call.op() == Op::scatter && call.attr<std::string>("combine") == "replace";
  if (info.kind == OpKind::Move || info.kind == OpKind::Source || info.kind == OpKind::Control ||
      replaces || call.op() == Op::cast || call.op() == Op::where)
    return;
  for (size_t i = 0; i < call.count(); ++i) {
    if (!call.has(i) || !is_storage_only(call.type(i).dtype)) continue;
    call.fail(std::string(dtype_name(call.type(i).dtype)),
              "a dtype that is computed with: cast it first");
  }
}

Type infer(const Call& call, OpKind kind) {
  switch (kind) {
    case OpKind::Source:
      return infer_source(call);
    case OpKind::Unary:
    case OpKind::Binary:
    case OpKind::Ternary:
      return infer_pointwise(call);
    case OpKind::Reduce:
    case OpKind::Scan:
      return infer_reduce(call);
    case OpKind::Normalise:
      return infer_normalise(call);
    case OpKind::Contract:
      return infer_contract(call);
    case OpKind::Pool:
      return infer_pool(call);
    case OpKind::Move:
      return infer_move(call);
    case OpKind::Place:
      return infer_place(call);
    case OpKind::Quantise:
      return infer_quantise(call);
    case OpKind::Control:
      break;
  }
  KILN_CHECK(false, "no shape inference for " + std::string(op_name(call.op())));
  return {};
}

}  // namespace

std::string shape_str(const Shape& shape) {
  const std::string text = Type{DType::F32, shape}.str();
  return text.substr(text.find('['));
}

std::string list_str(const std::vector<int64_t>& values) {
  return shape_str(Shape(values.begin(), values.end()));
}

void Call::fail(const std::string& got, const std::string& expected) const {
  throw CompileError("[" + std::string(op_name(op_)) + "] got " + got + ", expected " + expected);
}

void Call::expect_same_dtypes() const {
  for (size_t i = 1; i < count(); ++i) {
    if (!has(i) || type(i).dtype == type(0).dtype) continue;
    fail("dtypes " + std::string(dtype_name(type(0).dtype)) + " and " +
             std::string(dtype_name(type(i).dtype)),
         "operands of one dtype");
  }
}

DType Call::result_dtype() const {
  switch (op_info(op_).gives) {
    case Gives::First:
      return type(0).dtype;
    case Gives::Last:
      return inputs_.back()->type.dtype;
    case Gives::Bool:
      return DType::Bool;
    case Gives::I64:
      return DType::I64;
    case Gives::Attribute:
      return attr<DType>("dtype");
  }
  return DType::F32;
}

void Call::expect_held(double value, DType dtype) const {
  expect(std::isnan(value) ? is_floating(dtype) : held_number(dtype, value) == value,
         "the value " + std::to_string(value),
         "a number that " + std::string(dtype_name(dtype)) + " holds");
}

void Call::expect_rank(size_t i, size_t rank) const {
  expect(type(i).rank() == rank,
         "operand " + std::to_string(i) + " of shape " + shape_str(shape(i)),
         "rank " + std::to_string(rank));
}

void Call::expect_axis(int64_t axis, size_t rank) const {
  expect(axis >= 0 && axis < static_cast<int64_t>(rank), "axis " + std::to_string(axis),
         "an axis of rank " + std::to_string(rank));
}

void Call::expect_axes(const std::vector<int64_t>& axes, size_t rank, bool sorted) const {
  for (int64_t axis : axes) expect_axis(axis, rank);
  std::vector<int64_t> ordered = axes;
  std::sort(ordered.begin(), ordered.end());
  const bool repeated = std::adjacent_find(ordered.begin(), ordered.end()) != ordered.end();
  expect(!repeated, "axes " + list_str(axes), "each axis once");
  expect(!sorted || ordered == axes, "axes " + list_str(axes), "sorted axes");
}

void Call::expect_equal(const Dim& got, const Dim& expected, const std::string& what) const {
  expect_equal(got, expected, what + " " + got.str(), expected.str());
}

void Call::expect_equal(const Dim& a, const Dim& b, const std::string& got,
                        const std::string& expected) const {
  if (provably_equal(a, b)) return;
  if (!may_be_equal(a, b)) fail(got, expected);
  throw UnequalSizes("[" + std::string(op_name(op_)) + "] got " + got + ", expected " + expected, a,
                     b);
}

std::vector<Type> infer_types(Op op, const std::vector<Value*>& inputs, const Attrs& attrs) {
  const Call call(op, inputs, attrs);
  const OpInfo& info = op_info(op);
  check_operands(call, info);
  check_attributes(call, attrs);
  check_dtype(call, info);
  check_storage(call, info);
  if (info.kind == OpKind::Control) return infer_control(call);
  return {infer(call, info.kind)};
}

}  // namespace kiln::ir
