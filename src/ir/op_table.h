// What generic code knows about an op: the rows of ops.def as data.
#pragma once

#include <span>
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
  Quantise,
  Pool,
  Move,
  Place,
  Control,
};

inline constexpr int kAnyNumber = -1;

// How many operands an op has; those past `min` may be absent.
struct OperandCount {
  int min = 0;
  int max = 0;  // kAnyNumber: no limit
};

struct AttrInfo {
  std::string_view name;
  std::string_view type;  // bool, int, float, str, dtype, ints, floats, dim, dims, literal, graph
  bool optional = false;
};

// The dtypes that operand 0 may have. Which operands share its dtype is a matter of the family.
enum class Takes : uint8_t { Anything, Floating, Integers, IntegersAndBool, OnlyI64 };
// The dtype of the result: that of the first or the last operand, one of its own, or that of the
// attribute `dtype`.
enum class Gives : uint8_t { First, Last, Bool, I64, Attribute };

// What a pointwise op is computed with, which is what it costs.
enum class OpEffort : uint8_t {
  Simple,    // an instruction or a few
  Root,      // a square root or a reciprocal
  Division,  // a quotient of two operands
  Series,    // a polynomial: exp, log, sin, tanh, erf and what is made of them
  Iterated,  // several of these: pow, atan2, remainders
};

// A row of ops.def. Its columns have these names; one that a row leaves out has the value here.
struct OpInfo {
  std::string_view name;
  OpKind kind = OpKind::Source;
  std::string_view summary;
  OperandCount operands = {kAnyNumber, kAnyNumber};  // left out: the number that the kind has
  std::string_view attributes;  // "name:type name:type", "?" in front of an optional one
  Takes takes = Takes::Anything;
  Gives gives = Gives::First;
  OpEffort effort = OpEffort::Simple;
  // The operands may be swapped without changing any bit of the result.
  bool commutative = false;
  // A pointwise result is always a value of its dtype, however exactly it is computed: a maximum is,
  // a sum is not, which has to be rounded.
  bool exact = false;
  // Reads the elements of its operand at other places: makes no kernel.
  bool view = false;
};

const OpInfo& op_info(Op op);
size_t op_count();

std::span<const AttrInfo> attributes_of(Op op);
const AttrInfo* find_attribute(Op op, std::string_view name);  // null: the op has none of the name

inline bool is_pointwise(Op op) {
  const OpKind kind = op_info(op).kind;
  return kind == OpKind::Unary || kind == OpKind::Binary || kind == OpKind::Ternary;
}
// Comparisons, isnan, isinf and logical_not: a bool result from operands of any dtype.
inline bool gives_bool(Op op) { return op_info(op).gives == Gives::Bool; }
inline bool is_commutative(Op op) { return op_info(op).commutative; }
// Whether the op's result may fall between the values of the dtype that its operands have, so that
// it is rounded. True for whatever is not pointwise.
inline bool rounds_result(Op op) { return !op_info(op).exact && !gives_bool(op); }
inline OpEffort effort_of(Op op) { return op_info(op).effort; }

// Whether operand 0 may have the dtype, and what it may have in words: "a floating dtype".
bool takes_dtype(Takes takes, DType dtype);
std::string_view expected_dtype(Takes takes);

// The name of the type an attribute holds, as in ops.def.
std::string_view attr_type_name(const Attr& attr);

}  // namespace kiln::ir
