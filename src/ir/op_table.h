// What generic code knows about an op: the rows of ops.def as data.
#pragma once

#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace kiln::ir {

enum class OpKind : uint8_t {
  Source,
  Unary,
  Binary,
  Ternary,
  Reduce,
  Scan,
  Normalise,
  Contract,
  Pool,
  Move,
  Other,
};

struct AttrInfo {
  std::string_view name;
  std::string_view type;  // bool, int, float, str, dtype, ints, floats, dim, dims, literal
  bool optional = false;
};

struct OpInfo {
  std::string_view name;
  OpKind kind = OpKind::Other;
  int min_inputs = 0;
  int max_inputs = 0;  // -1: any number
  std::vector<AttrInfo> attributes;
  std::string_view summary;

  const AttrInfo* find_attribute(std::string_view attribute) const;
};

const OpInfo& op_info(Op op);
size_t op_count();

inline bool is_pointwise(Op op) {
  const OpKind kind = op_info(op).kind;
  return kind == OpKind::Unary || kind == OpKind::Binary || kind == OpKind::Ternary;
}
// Comparisons, isnan, isinf and logical_not: a bool result from operands of any dtype.
bool gives_bool(Op op);
// The operands may be swapped without changing any bit of the result.
bool is_commutative(Op op);

// Whether the op's result may fall between the values of the dtype that its operands have, so that
// it is rounded: a sum does, a maximum does not. True for whatever is not pointwise, `cast`
// excepted.
bool rounds_result(Op op);

// What a pointwise op is computed with, which is what it costs.
enum class OpEffort : uint8_t {
  Simple,    // an instruction or a few
  Root,      // a square root or a reciprocal
  Division,  // a quotient of two operands
  Series,    // a polynomial: exp, log, sin, tanh, erf and what is made of them
  Iterated,  // several of these: pow, atan2, remainders
};
OpEffort effort_of(Op op);

// The name of the type an attribute holds, as in ops.def.
std::string_view attr_type_name(const Attr& attr);

}  // namespace kiln::ir
