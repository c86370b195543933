// repeat and custom.
#include "ir/infer.h"

namespace kiln::ir {
namespace {

std::string type_str(const Value* value) { return value->type.str(); }

bool same_type(const Type& a, const Type& b) {
  if (a.dtype != b.dtype || a.rank() != b.rank()) return false;
  for (size_t i = 0; i < a.rank(); ++i)
    if (!provably_equal(a.shape[i], b.shape[i])) return false;
  return true;
}

// Their types are what the model says: nobody else knows.
std::vector<Type> infer_custom(const Call& call) {
  const std::vector<int64_t>&dtypes = call.integers("dtypes"), &ranks = call.integers("ranks");
  const std::vector<Dim>& sizes = call.dims("shapes");
  call.expect(!call.attr<std::string>("kernel").empty(), "no kernel", "its name");
  for (size_t i = 0; i < call.count(); ++i)
    call.expect(call.has(i), "no operand " + std::to_string(i), "a value");
  call.expect(
      !dtypes.empty() && dtypes.size() == ranks.size(),
      std::to_string(dtypes.size()) + " dtypes and " + std::to_string(ranks.size()) + " ranks",
      "one of each for each result, at least one");
  std::vector<Type> results;
  size_t used = 0;
  for (size_t i = 0; i < dtypes.size(); ++i) {
    call.expect(dtypes[i] >= 0 && dtypes[i] < kDTypeCount, "dtype " + std::to_string(dtypes[i]),
                "one that there is");
    const auto left = static_cast<int64_t>(sizes.size() - used);
    call.expect(ranks[i] >= 0 && ranks[i] <= left, "rank " + std::to_string(ranks[i]),
                "at most the " + std::to_string(left) + " sizes that are left");
    Type& type = results.emplace_back(Type{static_cast<DType>(dtypes[i]), {}});
    for (int64_t axis = 0; axis < ranks[i]; ++axis) type.shape.push_back(sizes[used++]);
  }
  call.expect(used == sizes.size(), std::to_string(sizes.size()) + " sizes",
              std::to_string(used) + ", as many as the ranks say");
  return results;
}

std::vector<Type> infer_repeat(const Call& call) {
  const Graph& body = *call.attr<std::shared_ptr<Graph>>("body");
  call.expect(call.type(0) == Type{DType::Bool, {}}, "the condition " + call.type(0).str(),
              "a bool scalar");
  call.expect(body.inputs().size() == call.count() - 1,
              "a body with " + std::to_string(body.inputs().size()) + " inputs",
              std::to_string(call.count() - 1) + ", one for each operand behind the condition");
  const size_t carried = body.outputs().size() - 1;
  call.expect(!body.outputs().empty() && carried >= 1 && carried <= body.inputs().size(),
              "a body with " + std::to_string(body.outputs().size()) + " results",
              "a condition, and a new value for each of its first inputs, at least one");
  const Type& condition = body.outputs()[0]->type;
  call.expect(condition == Type{DType::Bool, {}}, "a body with the condition " + condition.str(),
              "a bool scalar");
  std::vector<Type> results;
  for (size_t i = 0; i < body.inputs().size(); ++i) {
    const Value* input = body.inputs()[i];
    call.expect(call.has(i + 1), "no operand " + std::to_string(i + 1),
                "an operand for each input");
    call.expect(same_type(call.type(i + 1), input->type), call.type(i + 1).str(),
                type_str(input) + ", the input %" + input->name + " of the body");
    if (i >= carried) continue;
    const Value* next = body.outputs()[i + 1];
    call.expect(same_type(next->type, input->type), "the new value " + type_str(next),
                type_str(input) + ", the type of %" + input->name);
    results.push_back(call.type(i + 1));
  }
  return results;
}

}  // namespace

std::vector<Type> infer_control(const Call& call) {
  return call.op() == Op::custom ? infer_custom(call) : infer_repeat(call);
}

}  // namespace kiln::ir
