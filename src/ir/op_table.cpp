#include "ir/op_table.h"

#include <algorithm>
#include <array>

#include "support/error.h"

namespace kiln::ir {
namespace {

using enum Takes;
using enum Gives;
using enum OpEffort;

// Operands of an op whose row says nothing else.
constexpr OperandCount usual_operands(OpKind kind) {
  switch (kind) {
    case OpKind::Source:
    case OpKind::Control:
      return {0, 0};
    case OpKind::Binary:
    case OpKind::Contract:
      return {2, 2};
    case OpKind::Ternary:
      return {3, 3};
    case OpKind::Quantise:
      return {2, 3};
    case OpKind::Unary:
    case OpKind::Reduce:
    case OpKind::Scan:
    case OpKind::Normalise:
    case OpKind::Pool:
    case OpKind::Move:
    case OpKind::Place:
      return {1, 1};
  }
  return {};
}

constexpr OpInfo completed(OpInfo row) {
  if (row.operands.min == kAnyNumber) row.operands = usual_operands(row.kind);
  return row;
}

constexpr std::array kOps = {
#define KILN_OP(op, op_kind, op_summary, ...) \
  completed(                                  \
      {.name = #op, .kind = OpKind::op_kind, .summary = op_summary __VA_OPT__(, ) __VA_ARGS__}),
#include "ir/ops.def"
#undef KILN_OP
};

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

const std::vector<std::vector<AttrInfo>>& attributes_by_op() {
  static const std::vector<std::vector<AttrInfo>> kAttributes = [] {
    std::vector<std::vector<AttrInfo>> result;
    for (const OpInfo& info : kOps) result.push_back(parse_attributes(info.attributes));
    return result;
  }();
  return kAttributes;
}

const std::map<std::string_view, Op>& ops_by_name() {
  static const std::map<std::string_view, Op> kByName = [] {
    std::map<std::string_view, Op> result;
    for (size_t i = 0; i < kOps.size(); ++i) result[kOps[i].name] = static_cast<Op>(i);
    return result;
  }();
  return kByName;
}

}  // namespace

const OpInfo& op_info(Op op) {
  const size_t index = static_cast<size_t>(op);
  KILN_CHECK(index < kOps.size(), "no op " + std::to_string(index));
  return kOps[index];
}

size_t op_count() { return kOps.size(); }

std::span<const AttrInfo> attributes_of(Op op) {
  KILN_CHECK(static_cast<size_t>(op) < kOps.size(), "no such op");
  return attributes_by_op()[static_cast<size_t>(op)];
}

const AttrInfo* find_attribute(Op op, std::string_view name) {
  for (const AttrInfo& info : attributes_of(op)) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

std::string_view op_name(Op op) { return op_info(op).name; }

std::optional<Op> op_from_name(std::string_view name) {
  const auto found = ops_by_name().find(name);
  if (found == ops_by_name().end()) return std::nullopt;
  return found->second;
}

bool takes_dtype(Takes takes, DType dtype) {
  switch (takes) {
    case Anything:
      return true;
    case Floating:
      return is_floating(dtype);
    case Integers:
      return is_integer(dtype);
    case IntegersAndBool:
      return !is_floating(dtype);
    case OnlyI64:
      return dtype == DType::I64;
  }
  return false;
}

std::string_view expected_dtype(Takes takes) {
  switch (takes) {
    case Anything:
      return "any dtype";
    case Floating:
      return "a floating dtype";
    case Integers:
      return "an integer dtype";
    case IntegersAndBool:
      return "an integer dtype or bool";
    case OnlyI64:
      return "i64";
  }
  return "";
}

std::string_view attr_type_name(const Attr& attr) {
  static constexpr std::array<std::string_view, std::variant_size_v<Attr>> kNames = {
      "bool", "int", "float", "str", "dtype", "ints", "floats", "dim", "dims", "literal", "graph"};
  return kNames[attr.index()];
}

}  // namespace kiln::ir
