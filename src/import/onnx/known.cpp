// Evaluates ops of the IR on elements that are sizes.
#include "import/onnx/known.h"

#include <algorithm>

#include "ir/dim_ops.h"
#include "ir/op_table.h"
#include "ir/scalar.h"
#include "ir/size_overflow.h"

namespace kiln::import::onnx {
namespace {

using ir::Dim;
using ir::Node;
using ir::Op;
using ir::Value;

using MaybeElements = std::optional<Elements>;
using Sizes = std::vector<int64_t>;

// More are a tensor of the model, not sizes.
constexpr int64_t kMaxElements = 256;

std::optional<Sizes> constant_sizes(const ir::Shape& shape) {
  Sizes sizes;
  for (const Dim& dim : shape) {
    if (!dim.is_constant() || dim.constant() > kMaxElements) return std::nullopt;
    sizes.push_back(dim.constant());
  }
  return sizes;
}

int64_t count_of(const Sizes& sizes) {
  int64_t count = 1;
  for (const int64_t size : sizes) count = std::min(count * size, kMaxElements + 1);
  return count;
}

// The index of each axis of an element, and back.
Sizes unravel(int64_t index, const Sizes& sizes) {
  Sizes result(sizes.size());
  for (size_t i = sizes.size(); i-- > 0;) {
    result[i] = index % sizes[i];
    index /= sizes[i];
  }
  return result;
}

int64_t ravel(const Sizes& index, const Sizes& sizes) {
  int64_t result = 0;
  for (size_t i = 0; i < sizes.size(); ++i) result = result * sizes[i] + index[i];
  return result;
}

// Of a result's index, the element of an operand that broadcasts to it.
int64_t broadcast_index(const Sizes& index, const Sizes& sizes) {
  const size_t lead = index.size() - sizes.size();
  Sizes own(sizes.size());
  for (size_t i = 0; i < sizes.size(); ++i) own[i] = sizes[i] == 1 ? 0 : index[lead + i];
  return ravel(own, sizes);
}

void push(Elements& to, const Elements& from, int64_t index) {
  const auto i = static_cast<size_t>(index);
  if (is_floating(from.dtype))
    to.reals.push_back(from.reals[i]);
  else
    to.integers.push_back(from.integers[i]);
}

std::optional<ir::Scalar> scalar_at(const Elements& elements, int64_t index) {
  const auto i = static_cast<size_t>(index);
  if (is_floating(elements.dtype)) return ir::make_scalar(elements.dtype, elements.reals[i]);
  if (!elements.integers[i].is_constant()) return std::nullopt;
  return ir::make_scalar_int(elements.dtype, elements.integers[i].constant());
}

void push_scalar(Elements& to, const ir::Scalar& scalar) {
  if (is_floating(to.dtype))
    to.reals.push_back(scalar.number);
  else
    to.integers.emplace_back(scalar.integer);
}

std::optional<Dim> on_sizes(Op op, const Dim& a, const Dim& b) {
  if (const auto decided = ir::decide(op, a, b)) return Dim(*decided ? 1 : 0);
  return ir::combine(op, a, b);
}

// A cast of a size to an integer that is as wide as PyTorch's and ONNX's sizes.
bool keeps_sizes(DType from, DType to) {
  const auto wide = [](DType dtype) { return dtype == DType::I64 || dtype == DType::I32; };
  return wide(from) && wide(to);
}

bool is_zero(const ir::Scalar& divisor) {
  return !is_floating(divisor.dtype) && divisor.integer == 0;
}

// One element of a pointwise op; false if it is not known.
bool push_pointwise(Elements& to, const Node& node, std::span<const Elements* const> operands,
                    std::span<const int64_t> at) {
  std::vector<ir::Scalar> scalars;
  for (size_t i = 0; i < operands.size(); ++i)
    if (const auto scalar = scalar_at(*operands[i], at[i])) scalars.push_back(*scalar);
  const auto integer = [&](size_t i) { return operands[i]->integers[static_cast<size_t>(at[i])]; };
  if (node.op == Op::where) {
    const Dim& condition = integer(0);
    if (!condition.is_constant()) return false;
    const size_t taken = condition.is_constant(0) ? 2 : 1;
    push(to, *operands[taken], at[taken]);
    return true;
  }
  if (node.op != Op::gelu && scalars.size() == operands.size()) {
    const bool divides = node.op == Op::div || node.op == Op::floor_div ||
                         node.op == Op::remainder || node.op == Op::fmod;
    if (divides && is_zero(scalars[1])) return false;
    push_scalar(to, node.op == Op::cast ? ir::convert(scalars[0], to.dtype)
                                        : ir::evaluate(node.op, scalars, false));
    return true;
  }
  std::optional<Dim> result;
  if (node.op == Op::cast && keeps_sizes(operands[0]->dtype, to.dtype)) result = integer(0);
  if (node.op == Op::neg) result = -integer(0);
  if (scalars.size() < operands.size() && operands.size() == 2)
    result = on_sizes(node.op, integer(0), integer(1));
  if (!result) return false;
  to.integers.push_back(std::move(*result));
  return true;
}

}  // namespace

const Elements* KnownElements::find(const Value* value) {
  const auto [at, is_new] = found_.try_emplace(value);
  if (!is_new) return at->second ? &*at->second : nullptr;
  MaybeElements elements;
  try {
    elements = compute(*value);
  } catch (const ir::SizeOverflow&) {
    // Not known then: whoever needs it says so.
  }
  std::optional<Elements>& slot = found_[value];
  slot = std::move(elements);
  return slot ? &*slot : nullptr;
}

MaybeElements KnownElements::compute(const Value& value) {
  const auto sizes = constant_sizes(value.type.shape);
  if (!sizes || count_of(*sizes) > kMaxElements || value.producer == nullptr) return std::nullopt;
  const Node& node = *value.producer;
  switch (ir::op_info(node.op).kind) {
    case ir::OpKind::Source:
      return compute_source(node, static_cast<size_t>(count_of(*sizes)));
    case ir::OpKind::Unary:
    case ir::OpKind::Binary:
    case ir::OpKind::Ternary:
      return compute_pointwise(node);
    case ir::OpKind::Reduce:
      return compute_reduction(node);
    case ir::OpKind::Move:
      if (node.op == Op::concat) return compute_concat(node);
      if (node.op == Op::gather) return compute_gather(node);
      return compute_move(node);
    default:
      return std::nullopt;
  }
}

MaybeElements KnownElements::compute_source(const Node& node, size_t count) {
  Elements result{node.output()->type.dtype, {}, {}};
  const bool real = is_floating(result.dtype);
  if (node.op == Op::data_size) return std::nullopt;
  if (node.op == Op::constant) {
    const auto& literal = node.attr<ir::Literal>("value");
    if (literal.replaceable) return std::nullopt;
    for (size_t i = 0; i < count; ++i)
      push_scalar(result, ir::element(literal, static_cast<int64_t>(i)));
    return result;
  }
  if (node.op == Op::full) {
    const ir::Scalar value = ir::make_scalar(result.dtype, node.attr<double>("value"));
    for (size_t i = 0; i < count; ++i) push_scalar(result, value);
    return result;
  }
  if (real) return std::nullopt;
  if (node.op == Op::dim_value) {
    result.integers.push_back(node.attr<Dim>("value"));
    return result;
  }
  for (size_t i = 0; i < count; ++i)
    result.integers.push_back(node.attr<Dim>("start") +
                              Dim(static_cast<int64_t>(i)) * node.attr<int64_t>("step"));
  return result;
}

MaybeElements KnownElements::compute_pointwise(const Node& node) {
  std::vector<const Elements*> operands;
  std::vector<Sizes> shapes;
  for (const Value* input : node.inputs) {
    operands.push_back(find(input));
    if (operands.back() == nullptr) return std::nullopt;
    shapes.push_back(*constant_sizes(input->type.shape));
  }
  if (node.op == Op::check_index || node.op == Op::check_nonzero) return *operands[0];
  const ir::Type& type = node.output()->type;
  const Sizes sizes = *constant_sizes(type.shape);
  Elements result{type.dtype, {}, {}};
  for (int64_t i = 0; i < count_of(sizes); ++i) {
    const Sizes index = unravel(i, sizes);
    std::vector<int64_t> at;
    for (const Sizes& shape : shapes) at.push_back(broadcast_index(index, shape));
    if (!push_pointwise(result, node, operands, at)) return std::nullopt;
  }
  return result;
}

MaybeElements KnownElements::compute_move(const Node& node) {
  const Elements* from = node.inputs.size() == 1 ? find(node.inputs[0]) : nullptr;
  if (from == nullptr || node.op == Op::pad) return std::nullopt;
  if (node.op == Op::reshape) return *from;
  const Sizes shape = *constant_sizes(node.inputs[0]->type.shape);
  const Sizes sizes = *constant_sizes(node.output()->type.shape);
  Elements result{from->dtype, {}, {}};
  for (int64_t i = 0; i < count_of(sizes); ++i) {
    Sizes index = unravel(i, sizes);
    if (node.op == Op::expand) {
      push(result, *from, broadcast_index(index, shape));
      continue;
    }
    if (node.op == Op::permute) {
      const auto& axes = node.attr<std::vector<int64_t>>("axes");
      Sizes moved(index.size());
      for (size_t k = 0; k < axes.size(); ++k) moved[static_cast<size_t>(axes[k])] = index[k];
      index = moved;
    } else if (node.op == Op::flip) {
      for (const int64_t axis : node.attr<std::vector<int64_t>>("axes")) {
        const auto k = static_cast<size_t>(axis);
        index[k] = sizes[k] - 1 - index[k];
      }
    } else {  // a slice
      const Dim& start = node.attr<Dim>("start");
      if (node.op != Op::slice || !start.is_constant()) return std::nullopt;
      const auto k = static_cast<size_t>(node.attr<int64_t>("axis"));
      index[k] = start.constant() + index[k] * node.attr<int64_t>("step");
      if (index[k] < 0 || index[k] >= shape[k]) return std::nullopt;
    }
    push(result, *from, ravel(index, shape));
  }
  return result;
}

MaybeElements KnownElements::compute_concat(const Node& node) {
  std::vector<const Elements*> parts;
  std::vector<Sizes> shapes;
  for (const Value* input : node.inputs) {
    parts.push_back(find(input));
    if (parts.back() == nullptr) return std::nullopt;
    shapes.push_back(*constant_sizes(input->type.shape));
  }
  const auto axis = static_cast<size_t>(node.attr<int64_t>("axis"));
  const Sizes sizes = *constant_sizes(node.output()->type.shape);
  Elements result{node.output()->type.dtype, {}, {}};
  for (int64_t i = 0; i < count_of(sizes); ++i) {
    Sizes index = unravel(i, sizes);
    size_t part = 0;
    while (index[axis] >= shapes[part][axis]) index[axis] -= shapes[part++][axis];
    push(result, *parts[part], ravel(index, shapes[part]));
  }
  return result;
}

MaybeElements KnownElements::compute_gather(const Node& node) {
  const Elements *from = find(node.inputs[0]), *index = find(node.inputs[1]);
  if (from == nullptr || index == nullptr) return std::nullopt;
  const Sizes shape = *constant_sizes(node.inputs[0]->type.shape);
  const Sizes index_shape = *constant_sizes(node.inputs[1]->type.shape);
  const Sizes sizes = *constant_sizes(node.output()->type.shape);
  const auto axis = static_cast<size_t>(node.attr<int64_t>("axis"));
  Elements result{from->dtype, {}, {}};
  for (int64_t i = 0; i < count_of(sizes); ++i) {
    const Sizes at = unravel(i, sizes);
    const auto begin = at.begin() + static_cast<int64_t>(axis);
    const auto end = begin + static_cast<int64_t>(index_shape.size());
    const Dim& taken = index->integers[static_cast<size_t>(ravel(Sizes(begin, end), index_shape))];
    if (!taken.is_constant()) return std::nullopt;
    const int64_t place = taken.constant() + (taken.constant() < 0 ? shape[axis] : 0);
    if (place < 0 || place >= shape[axis]) return std::nullopt;
    Sizes source(at.begin(), begin);
    source.push_back(place);
    source.insert(source.end(), end, at.end());
    push(result, *from, ravel(source, shape));
  }
  return result;
}

// Of all elements of a vector: the number of elements of a shape, and the like.
MaybeElements KnownElements::compute_reduction(const Node& node) {
  const bool sums = node.op == Op::reduce_sum, multiplies = node.op == Op::reduce_prod;
  const Elements* from = sums || multiplies ? find(node.inputs[0]) : nullptr;
  if (from == nullptr || is_floating(from->dtype) || from->dtype == DType::Bool ||
      node.inputs[0]->type.rank() != 1)
    return std::nullopt;
  Dim total(sums ? 0 : 1);
  for (const Dim& element : from->integers) total = sums ? total + element : total * element;
  return Elements{from->dtype, {total}, {}};
}

}  // namespace kiln::import::onnx
