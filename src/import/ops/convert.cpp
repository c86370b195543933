// Conversions, copies, and nodes that mean nothing to a compiled model.
#include "import/ops/common.h"

namespace kiln::import {
namespace {

// Copies and changes of strides or device: values in the IR have none of these.
Value* identity(Call& call) {
  for (const char* name : {"self", "input", "a"}) {
    if (call.has(name)) return call.tensor(name);
  }
  call.fail("no operand", "a tensor");
}

Value* import_to(Call& call) { return cast_if(call, call.tensor("self"), call.dtype("dtype")); }

Value* import_like_other(Call& call) {
  return call.builder().cast(call.tensor("self"), call.tensor("other")->type.dtype);
}

// self takes the values of src, broadcast.
Value* import_copy(Call& call) {
  const ir::Type& type = call.tensor("self")->type;
  return call.builder().expand(call.builder().cast(call.tensor("src"), type.dtype), type.shape);
}

// What the model says of sizes.
std::vector<Value*> import_assertion(Call& call) {
  if (const auto condition = call.condition("self")) {
    const std::string text = "what the model asserts: " + call.text_or("assert_msg", "");
    call.builder().require({*condition, text, {}, ir::Requirement::Kind::Sizes});
  }
  return {};
}

// A condition on data, without which the run ends. What begins with an operator's name in brackets, as the decompositions
// of the front end write it, is that operator's fault.
std::vector<Value*> import_data_assertion(Call& call) {
  Value* condition = call.tensor("self");
  call.expect(condition->type.elements().is_constant(1), "a condition of " + condition->type.str(),
              "one element");
  condition = call.builder().cast(condition, DType::Bool);
  const std::string text = call.text_or("assert_msg", "");
  const size_t end = text.starts_with('[') ? text.find("] ") : std::string::npos;
  if (end == std::string::npos) {
    const std::string what =
        text.empty() ? "a condition that holds" : "what the model asserts: " + text;
    require_data(call, condition, "got false, expected " + what);
  } else {
    require_data(call, condition, text.substr(end + 2), text.substr(1, end - 1));
  }
  return {};
}

// Checks that tracing has already done.
std::vector<Value*> ignore(Call&) { return {}; }

constexpr Row kRows[] = {
    {"aten.alias.default", identity},
    {"aten.alias_copy.default", identity},
    {"aten.clone.default", identity},
    {"aten.contiguous.default", identity},
    {"aten.detach.default", identity},
    {"aten.detach_.default", identity},
    {"aten.detach_copy.default", identity},
    {"aten.lift.default", identity},
    {"aten.lift_fresh.default", identity},
    {"aten.lift_fresh_copy.default", identity},
    {"aten.positive.default", identity},
    {"aten.resolve_conj.default", identity},
    {"aten.resolve_neg.default", identity},
    {"aten.conj.default", identity},
    {"aten._conj.default", identity},
    {"aten._conj_copy.default", identity},
    {"aten.conj_physical.default", identity},
    {"aten._conj_physical.default", identity},
    {"aten.real.default", identity},
    {"aten.requires_grad_.default", identity},
    {"aten.to.device", import_to},
    {"aten.to.dtype", import_to},
    {"aten.to.dtype_layout", import_to},
    {"aten.to.other", import_like_other},
    {"aten.type_as.default", import_like_other},
    {"aten._to_copy.default", import_to},
    {"aten.copy.default", import_copy},
    {"aten._assert_tensor_metadata.default", ignore},
    {"aten._assert_async.msg", import_data_assertion},
    {"aten._assert_async.default", import_data_assertion},
    {"aten._assert_scalar.default", import_assertion},
    {"aten.sym_constrain_range.default", ignore},
    {"aten.sym_constrain_range_for_size.default", ignore},
};

}  // namespace

Rows convert_rows() { return kRows; }

}  // namespace kiln::import
