#include "ir/op_table.h"

#include <algorithm>
#include <array>

#include "support/error.h"

namespace kiln::ir {
namespace {

std::vector<AttrInfo> parse_attributes(std::string_view text) {
  std::vector<AttrInfo> result;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    std::string_view item = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    AttrInfo info;
    info.optional = item.starts_with('?');
    if (info.optional) item.remove_prefix(1);
    const size_t colon = item.find(':');
    info.name = item.substr(0, colon);
    info.type = item.substr(colon + 1);
    result.push_back(info);
  }
  return result;
}

const std::vector<OpInfo>& table() {
  static const std::vector<OpInfo> kTable = {
#define KILN_OP(name, kind, min_inputs, max_inputs, attributes, summary) \
  {#name, OpKind::kind, min_inputs, max_inputs, parse_attributes(attributes), summary},
#include "ir/ops.def"
#undef KILN_OP
  };
  return kTable;
}

const std::map<std::string_view, Op>& ops_by_name() {
  static const std::map<std::string_view, Op> kOps = [] {
    std::map<std::string_view, Op> result;
    for (size_t i = 0; i < table().size(); ++i) result[table()[i].name] = static_cast<Op>(i);
    return result;
  }();
  return kOps;
}

}  // namespace

const AttrInfo* OpInfo::find_attribute(std::string_view attribute) const {
  for (const AttrInfo& info : attributes) {
    if (info.name == attribute) return &info;
  }
  return nullptr;
}

const OpInfo& op_info(Op op) {
  const size_t index = static_cast<size_t>(op);
  KILN_CHECK(index < table().size(), "no op " + std::to_string(index));
  return table()[index];
}

size_t op_count() { return table().size(); }

std::string_view op_name(Op op) { return op_info(op).name; }

std::optional<Op> op_from_name(std::string_view name) {
  const auto found = ops_by_name().find(name);
  if (found == ops_by_name().end()) return std::nullopt;
  return found->second;
}

bool gives_bool(Op op) {
  switch (op) {
    case Op::isnan:
    case Op::isinf:
    case Op::logical_not:
    case Op::eq:
    case Op::ne:
    case Op::lt:
    case Op::le:
    case Op::gt:
    case Op::ge:
      return true;
    default:
      return false;
  }
}

bool is_commutative(Op op) {
  switch (op) {
    case Op::add:
    case Op::mul:
    case Op::hypot:
    case Op::maximum:
    case Op::minimum:
    case Op::bitwise_and:
    case Op::bitwise_or:
    case Op::bitwise_xor:
    case Op::eq:
    case Op::ne:
      return true;
    default:
      return false;
  }
}

bool rounds_result(Op op) {
  switch (op) {
    case Op::neg:
    case Op::abs:
    case Op::sign:
    case Op::relu:
    case Op::floor:
    case Op::ceil:
    case Op::round:
    case Op::trunc:
    case Op::cast:
    case Op::maximum:
    case Op::minimum:
    case Op::where:
      return false;
    default:
      return !gives_bool(op);
  }
}

OpEffort effort_of(Op op) {
  switch (op) {
    case Op::sqrt:
    case Op::rsqrt:
    case Op::reciprocal:
    case Op::hypot:
      return OpEffort::Root;
    case Op::div:
      return OpEffort::Division;
    case Op::exp:
    case Op::exp2:
    case Op::expm1:
    case Op::log:
    case Op::log2:
    case Op::log10:
    case Op::log1p:
    case Op::sin:
    case Op::cos:
    case Op::sinh:
    case Op::cosh:
    case Op::tanh:
    case Op::erf:
    case Op::erfc:
    case Op::sigmoid:
    case Op::silu:
    case Op::gelu:
      return OpEffort::Series;
    case Op::tan:
    case Op::asin:
    case Op::acos:
    case Op::asinh:
    case Op::acosh:
    case Op::atanh:
    case Op::pow:
    case Op::atan2:
    case Op::fmod:
    case Op::remainder:
    case Op::floor_div:
      return OpEffort::Iterated;
    default:
      return OpEffort::Simple;
  }
}

std::string_view attr_type_name(const Attr& attr) {
  static constexpr std::array<std::string_view, std::variant_size_v<Attr>> kNames = {
      "bool", "int", "float", "str", "dtype", "ints", "floats", "dim", "dims", "literal"};
  return kNames[attr.index()];
}

}  // namespace kiln::ir
