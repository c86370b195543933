// Products of groups of rows with a matrix each, as layers of experts have them.
#include <optional>

#include "import/ops/common.h"

namespace kiln::import {
namespace {

using ir::Dim;

constexpr int64_t kMostGroups = 256;

// The matrix at `index` of many, without that axis.
Value* matrix(Call& call, Value* weight, int64_t index) {
  const ir::Shape& shape = weight->type.shape;
  return call.builder().reshape(slice(call, weight, 0, index, 1), {shape[1], shape[2]});
}

// i64 [rows, 1]: which group a row is in, by where groups end. Behind the last end it is the number of groups.
Expr group_of(Call& call, Value* ends, const Dim& rows) {
  const Expr row(call, unsqueeze(call, iota(call, rows), 1));
  const Expr is_behind = row.apply(Op::ge, {call, as_index(call, ends)});
  return {call,
          reduce(call, Op::reduce_sum, call.builder().cast(is_behind, DType::I64), {1}, true)};
}

Value* product(Call& call, Value* x, Value* weight) {
  return call.make(Op::matmul, {x, weight}, {{"transpose_b", false}});
}

// Few rows: each with a copy of its matrix.
Value* by_rows(Call& call, Value* x, Value* weight, const Expr& group, int64_t groups) {
  const Dim rows = x->type.shape[0];
  const Expr known = group.apply(Op::minimum, static_cast<double>(groups - 1));
  Value* index = call.builder().reshape(known, {rows});
  Value* own = call.make(Op::gather, {weight, index}, {{"axis", int64_t{0}}});
  Value* result = product(call, unsqueeze(call, x, 1), own);
  return call.builder().reshape(result, {rows, weight->type.shape[2]});
}

// Each matrix with all rows, of which those of its group are taken.
Value* by_groups(Call& call, Value* x, Value* weight, const Expr& group, int64_t groups) {
  std::optional<Expr> result;
  for (int64_t i = 0; i < groups; ++i) {
    const Expr all(call, product(call, x, matrix(call, weight, i)));
    const Expr is_own = group.apply(Op::eq, static_cast<double>(i));
    result = is_own.select(all, result ? *result : all.constant(0));
  }
  return *result;
}

// [rows, k] x [groups, k, n], with the ends of the groups of rows; rows behind the last one give zeros.
Value* grouped_product(Call& call, Value* x, Value* weight, Value* ends) {
  call.expect(x->type.rank() == 2 && weight->type.rank() == 3 && ends != nullptr,
              "products of " + x->type.str() + " and " + weight->type.str(),
              "[rows, k], [groups, k, n] and the ends of the groups");
  const Dim &groups = weight->type.shape[0], rows = x->type.shape[0];
  call.expect(groups.is_constant() && groups.constant() >= 1 && groups.constant() <= kMostGroups,
              groups.str() + " groups", "1 to " + std::to_string(kMostGroups));
  const int64_t count = groups.constant();
  const Expr group = group_of(call, ends, rows);
  if (rows.upper_bound() > count / 2) return by_groups(call, x, weight, group, count);
  const Expr result(call, by_rows(call, x, weight, group, count));
  return group.apply(Op::lt, static_cast<double>(count)).select(result, result.constant(0));
}

Value* import_grouped_mm(Call& call) {
  Value *x = call.tensor("self"), *weight = call.tensor("mat2");
  Value* ends = call.optional_tensor("offs");
  call.expect(!call.has("bias"), "a bias", "none");
  Value* result =
      ends == nullptr ? product(call, x, weight) : grouped_product(call, x, weight, ends);
  return cast_if(call, result, call.dtype("out_dtype"));
}

// What transformers registers for machines without the operator.
Value* import_fallback(Call& call) {
  return grouped_product(call, call.tensor("input"), call.tensor("weight"), call.tensor("offs"));
}

constexpr Row kRows[] = {
    {"aten._grouped_mm.default", import_grouped_mm},
    {"transformers.grouped_mm_fallback.default", import_fallback},
};

}  // namespace

Rows experts_rows() { return kRows; }

}  // namespace kiln::import
