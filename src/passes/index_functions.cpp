#include "passes/index_functions.h"

#include <algorithm>
#include <limits>

#include "ir/op_table.h"
#include "ir/size_overflow.h"
#include "passes/rewrite.h"

namespace kiln::passes {
namespace {

using ir::Dim;
using ir::Literal;
using ir::Node;
using ir::Op;
using ir::Shape;
using ir::Value;

using Position = std::vector<Dim>;
// The value of a bool or integer at one position of a node's result.
struct Element {
  Dim value;
  bool margin = false;
};
using MaybeElement = std::optional<Element>;

// Larger polynomials are given up: they prove nothing and take time.
constexpr size_t kMaxTerms = 16;

MaybeElement truth(bool value) { return Element{Dim(value ? 1 : 0)}; }

MaybeElement from_margin(const Dim& margin) {
  if (margin.lower_bound() >= 0) return truth(true);
  if (margin.upper_bound() < 0) return truth(false);
  return Element{margin, true};
}

bool fits(DType dtype, const Dim& value) {
  if (value.terms().size() > kMaxTerms) return false;
  const int64_t low = value.lower_bound(), high = value.upper_bound();
  if (low <= -ir::kDimInfinity || high >= ir::kDimInfinity) return false;
  return is_exact(dtype, static_cast<double>(low)) && is_exact(dtype, static_cast<double>(high));
}

// base + step * i along one axis, the same along all others; as value at `position`.
MaybeElement affine_element(const Literal& literal, const Position& position) {
  int64_t stride = 1;
  for (size_t axis = literal.shape.size(); axis-- > 0; stride *= literal.shape[axis]) {
    const int64_t size = literal.shape[axis];
    if (size < 2) continue;
    const int64_t base = literal.as_int(0);
    int64_t step = 0;
    if (__builtin_sub_overflow(literal.as_int(stride), base, &step)) return std::nullopt;
    if (step == 0) continue;
    if (std::abs(step) > std::numeric_limits<int32_t>::max()) return std::nullopt;
    for (int64_t i = 0; i < literal.elements(); ++i) {
      if (literal.as_int(i) != base + step * (i / stride % size)) return std::nullopt;
    }
    return Element{Dim(base) + position[axis] * step};
  }
  return std::nullopt;
}

// Computes the element of one node at one position, from the functions of its operands.
class Evaluator {
 public:
  Evaluator(const IndexFunctions& functions, const Node& node, Position position)
      : functions_(functions), node_(node), position_(std::move(position)) {}

  MaybeElement run() const {
    switch (ir::op_info(node_.op).kind) {
      case ir::OpKind::Source:
        return source();
      case ir::OpKind::Unary:
      case ir::OpKind::Binary:
      case ir::OpKind::Ternary:
        return pointwise();
      case ir::OpKind::Reduce:
      case ir::OpKind::Scan:
        return reduction();
      case ir::OpKind::Move:
        return move();
      default:
        return std::nullopt;
    }
  }

 private:
  // --- Operands ---

  MaybeElement operand(size_t i, const Position& position) const {
    const IndexFunction* function = functions_.find(node_.input(i));
    if (function == nullptr) return std::nullopt;
    return Element{function->at(position), function->margin};
  }
  // The operand at the node's own position, broadcast.
  MaybeElement broadcast_operand(size_t i) const {
    const size_t rank = node_.input(i)->type.rank();
    return operand(i, Position(position_.end() - static_cast<int64_t>(rank), position_.end()));
  }
  // The same, where a plain number is needed.
  std::optional<Dim> number(size_t i) const {
    const MaybeElement element = broadcast_operand(i);
    if (!element || element->margin) return std::nullopt;
    return element->value;
  }
  std::optional<bool> known_bool(size_t i) const {
    const auto value = number(i);
    if (!value || !value->is_constant()) return std::nullopt;
    return !value->is_constant(0);
  }

  // --- Families ---

  MaybeElement source() const {
    switch (node_.op) {
      case Op::constant: {
        const Literal& literal = node_.attr<Literal>("value");
        if (literal.replaceable || literal.elements() == 0) return std::nullopt;
        const auto uniform = uniform_value(node_.output());
        if (uniform && std::abs(*uniform) <= 0x1p53) return Element{literal.as_int(0)};
        return literal.dtype == DType::Bool ? std::nullopt : affine_element(literal, position_);
      }
      case Op::full:
        return Element{static_cast<int64_t>(node_.attr<double>("value"))};
      case Op::iota:
        return Element{node_.attr<Dim>("start") + position_[0] * node_.attr<int64_t>("step")};
      case Op::dim_value:
        return Element{node_.attr<Dim>("value")};
      default:
        return std::nullopt;
    }
  }

  MaybeElement pointwise() const {
    switch (node_.op) {
      case Op::lt:
      case Op::le:
      case Op::gt:
      case Op::ge:
      case Op::eq:
      case Op::ne:
        return comparison();
      case Op::logical_not:
      case Op::bitwise_not:
      case Op::bitwise_and:
      case Op::bitwise_or:
        return node_.input(0)->type.dtype == DType::Bool ? logic() : std::nullopt;
      case Op::where:
        return selection();
      case Op::cast:
        return broadcast_operand(0);  // checked against the dtype by the caller
      case Op::check_index:
      case Op::check_nonzero:
        return checked();
      default:
        return node_.output()->type.dtype == DType::Bool ? std::nullopt : arithmetic();
    }
  }

  MaybeElement arithmetic() const {
    const auto a = number(0);
    if (!a) return std::nullopt;
    if (node_.op == Op::neg) return Element{-*a};
    if (node_.inputs.size() != 2) return std::nullopt;
    const auto b = number(1);
    if (!b) return std::nullopt;
    switch (node_.op) {
      case Op::add:
        return Element{*a + *b};
      case Op::sub:
        return Element{*a - *b};
      case Op::mul:
        return Element{*a * *b};
      case Op::minimum:
        return Element{min(*a, *b)};
      case Op::maximum:
        return Element{max(*a, *b)};
      case Op::floor_div:
        return b->lower_bound() >= 1 ? MaybeElement(Element{floordiv(*a, *b)}) : std::nullopt;
      case Op::remainder:
        return b->lower_bound() >= 1 ? MaybeElement(Element{mod(*a, *b)}) : std::nullopt;
      default:
        return std::nullopt;
    }
  }

  // The operand where the check always holds.
  MaybeElement checked() const {
    const auto value = number(0);
    if (!value) return std::nullopt;
    bool holds = value->lower_bound() > 0 || value->upper_bound() < 0;
    if (node_.op == Op::check_index) {
      const Dim& size = node_.attr<Dim>("size");
      const Dim least = node_.attr<bool>("negative") ? -size : Dim(0);
      holds = provably_less_equal(least, *value) && provably_less(*value, size);
    }
    return holds ? MaybeElement(Element{*value}) : std::nullopt;
  }

  MaybeElement comparison() const {
    const auto a = number(0), b = number(1);
    if (!a || !b) return std::nullopt;
    const Dim difference = *b - *a;
    switch (node_.op) {
      case Op::le:
        return from_margin(difference);
      case Op::lt:
        return from_margin(difference - 1);
      case Op::ge:
        return from_margin(-difference);
      case Op::gt:
        return from_margin(-difference - 1);
      default:
        break;
    }
    const bool is_eq = node_.op == Op::eq;
    if (difference.is_constant(0)) return truth(is_eq);
    if (difference.lower_bound() > 0 || difference.upper_bound() < 0) return truth(!is_eq);
    return std::nullopt;
  }

  MaybeElement logic() const {
    if (node_.inputs.size() == 1) {
      const MaybeElement x = broadcast_operand(0);
      if (!x) return std::nullopt;
      if (x->margin) return Element{-x->value - 1, true};
      const auto known = known_bool(0);
      return known ? truth(!*known) : std::nullopt;
    }
    const bool is_and = node_.op == Op::bitwise_and;
    for (size_t i = 0; i < 2; ++i) {
      const auto known = known_bool(i);
      if (!known) continue;
      return *known == is_and ? broadcast_operand(1 - i) : truth(!is_and);
    }
    return std::nullopt;
  }

  MaybeElement selection() const {
    if (const auto condition = known_bool(0)) return broadcast_operand(*condition ? 1 : 2);
    return std::nullopt;
  }

  // Reductions and scans of what does not change along the axis.
  MaybeElement reduction() const {
    if (node_.op == Op::cumsum) {
      const int64_t axis = node_.attr<int64_t>("axis");
      const auto value = number(0);
      const ir::SymbolPtr symbol = position_[axis].as_symbol();
      if (!value || (symbol && value->mentions(symbol))) return std::nullopt;
      return Element{*value * (position_[axis] + 1)};
    }
    return std::nullopt;
  }

  MaybeElement move() const {
    const int64_t rank = static_cast<int64_t>(node_.input(0)->type.rank());
    Position position = position_;
    switch (node_.op) {
      case Op::reshape:
        return operand(0, unflatten(flat_position(), node_.input(0)->type.shape));
      case Op::expand:
        return broadcast_operand(0);
      case Op::permute:
        for (int64_t i = 0; i < rank; ++i) {
          position[node_.attr<std::vector<int64_t>>("axes")[i]] = position_[i];
        }
        return operand(0, position);
      case Op::slice: {
        const int64_t axis = node_.attr<int64_t>("axis");
        position[axis] = node_.attr<Dim>("start") + position_[axis] * node_.attr<int64_t>("step");
        return operand(0, position);
      }
      case Op::flip:
        for (int64_t axis : node_.attr<std::vector<int64_t>>("axes")) {
          position[axis] = node_.input(0)->type.shape[axis] - 1 - position_[axis];
        }
        return operand(0, position);
      case Op::concat:
        return concatenation();
      case Op::gather:
      case Op::gather_nd:
      case Op::gather_elements:
        return gathered();
      default:
        return std::nullopt;
    }
  }

  Dim flat_position() const {
    Dim flat = 0;
    for (size_t i = 0; i < position_.size(); ++i) {
      flat = flat * node_.output()->type.shape[i] + position_[i];
    }
    return flat;
  }

  static Position unflatten(Dim flat, const Shape& shape) {
    Position position(shape.size(), Dim(0));
    for (size_t i = shape.size(); i-- > 0;) {
      if (shape[i].is_constant(1) || shape[i].is_constant(0)) continue;
      position[i] = i == 0 ? flat : mod(flat, shape[i]);
      flat = floordiv(flat, shape[i]);
    }
    return position;
  }

  // All parts must agree with the last one continued towards the front: concat([-1], [0, 1, 2]) is
  // iota - 1.
  MaybeElement concatenation() const {
    const int64_t axis = node_.attr<int64_t>("axis");
    const ir::SymbolPtr symbol = position_[axis].as_symbol();
    if (!symbol) return std::nullopt;
    Dim offset = node_.output()->type.shape[axis];
    MaybeElement whole;
    for (size_t i = node_.inputs.size(); i-- > 0;) {
      const Dim& size = node_.input(i)->type.shape[axis];
      offset = offset - size;
      Position position = position_;
      position[axis] = position_[axis] - offset;
      if (size.is_constant(1)) position[axis] = 0;
      const MaybeElement part = operand(i, position);
      if (!part || part->margin) return std::nullopt;
      if (!whole) {
        if (size.is_constant(1)) return std::nullopt;  // one element has no direction
        whole = part;
      } else {
        const Dim expected =
            size.is_constant(1) ? whole->value.substitute(symbol, offset) : whole->value;
        if (!provably_equal(part->value, expected)) return std::nullopt;
      }
    }
    return whole;
  }

  // x known, index known and not negative.
  MaybeElement gathered() const {
    const int64_t axis = node_.attr<int64_t>("axis");
    if (node_.op == Op::gather_elements) {
      const MaybeElement index = operand(1, position_);
      if (!index || index->value.lower_bound() < 0) return std::nullopt;
      Position position = position_;
      position[axis] = index->value;
      return operand(0, position);
    }
    const int64_t indices = static_cast<int64_t>(node_.inputs.size()) - 1;
    const int64_t x_rank = static_cast<int64_t>(node_.input(0)->type.rank());
    const int64_t block = static_cast<int64_t>(position_.size()) - (x_rank - indices);
    Position position(position_.begin(), position_.begin() + axis);
    for (int64_t i = 1; i <= indices; ++i) {
      const int64_t rank = static_cast<int64_t>(node_.input(i)->type.rank());
      const auto end = position_.begin() + axis + block;
      const MaybeElement index = operand(i, Position(end - rank, end));
      if (!index || index->value.lower_bound() < 0) return std::nullopt;
      position.push_back(index->value);
    }
    position.insert(position.end(), position_.begin() + axis + block, position_.end());
    return operand(0, position);
  }

  const IndexFunctions& functions_;
  const Node& node_;
  Position position_;
};

}  // namespace

Dim IndexFunction::at(const std::vector<Dim>& position) const {
  return value.substitute([&](const ir::SymbolPtr& symbol) -> std::optional<Dim> {
    for (size_t i = 0; i < index.size(); ++i) {
      if (index[i].as_symbol() == symbol) return position[i];
    }
    return std::nullopt;
  });
}

void IndexFunctions::analyse(const Node& node) {
  if (node.outputs.size() != 1 || is_floating(node.output()->type.dtype)) return;
  IndexFunction function;
  for (const Dim& size : node.output()->type.shape) {
    const bool single = size.is_constant(1);
    function.index.push_back(single ? Dim(0) : Dim(ir::make_loop_symbol("i", size)));
  }
  MaybeElement element;
  try {
    element = Evaluator(*this, node, function.index).run();
  } catch (const ir::SizeOverflow&) {
    return;  // such elements wrap around: no function of sizes
  }
  if (!element) return;
  function.value = element->value;
  function.margin = element->margin;
  const DType dtype = node.output()->type.dtype;
  if (dtype == DType::Bool && !function.margin) {
    if (!function.value.is_constant()) return;
    function.value = function.value.is_constant(0) ? 0 : 1;
  } else if (!fits(function.margin ? DType::I64 : dtype, function.value)) {
    return;
  }
  if (function.margin && dtype != DType::Bool) return;
  functions_[node.output()] = std::move(function);
}

const IndexFunction* IndexFunctions::find(const Value* value) const {
  const auto found = functions_.find(value);
  return found == functions_.end() ? nullptr : &found->second;
}

void IndexFunctions::share(const Value* from, const Value* to) {
  if (const IndexFunction* function = find(from)) functions_[to] = *function;
}

}  // namespace kiln::passes
