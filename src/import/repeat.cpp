#include "import/repeat.h"

#include <algorithm>
#include <utility>

#include "ir/op_table.h"
#include "support/error.h"

namespace kiln::import {
namespace {

using ir::Op;
using ir::Value;
using Values = std::vector<Value*>;

Value* integer(ir::Builder& builder, int64_t number) {
  return builder.constant(ir::Literal::scalar_int(DType::I64, number));
}

Value* size(ir::Builder& builder, const ir::Dim& dim) {
  return builder.value(Op::dim_value, {}, {{"value", dim}, {"dtype", DType::I64}});
}

// The row `index`, an i64 scalar, of a tensor.
Value* row_at(ir::Builder& builder, Value* x, Value* index) {
  Value* row = builder.value(Op::gather, {x, builder.reshape(index, {1})}, {{"axis", int64_t{0}}});
  return builder.reshape(row, ir::Shape(x->type.shape.begin() + 1, x->type.shape.end()));
}

// The tensor with `row` in place of the row `index`.
Value* with_row(ir::Builder& builder, Value* x, Value* index, Value* row) {
  ir::Shape shape = row->type.shape;
  shape.insert(shape.begin(), 1);
  return builder.value(
      Op::scatter,
      {x, builder.reshape(index, ir::Shape(shape.size(), 1)), builder.reshape(row, shape)},
      {{"axis", int64_t{0}}, {"combine", std::string("replace")}});
}

Values joined(Values values, const Values& others) {
  values.insert(values.end(), others.begin(), others.end());
  return values;
}

Values step_at(ir::Builder& builder, const RowStep& step, const RowLoop& loop, Value* index) {
  Values operands = loop.states;
  for (Value* x : loop.rows) operands.push_back(row_at(builder, x, index));
  return step(builder, joined(std::move(operands), loop.others));
}

// The types of the rows of results, found by a step that is thrown away.
std::vector<ir::Type> result_types(ir::Builder& builder, const RowLoop& loop, const RowStep& step) {
  Repeat trial(builder);
  Value* index = trial.carry(integer(builder, 0));
  RowLoop inner;
  inner.states = trial.carry(loop.states);
  inner.rows = trial.use(loop.rows);
  inner.others = trial.use(loop.others);
  const Values results = step_at(trial.builder(), step, inner, index);
  trial.check();
  std::vector<ir::Type> types;
  for (size_t i = loop.states.size(); i < results.size(); ++i) {
    if (results[i] == nullptr)
      throw CompileError("got a result that is no tensor, expected tensors");
    types.push_back(results[i]->type);
  }
  return types;
}

}  // namespace

Repeat::Repeat(ir::Builder& outer)
    : outer_(outer), body_(std::make_shared<ir::Graph>()), builder_(*body_) {
  body_->name = "body";
  body_->outer_symbols = outer.graph().known_symbols();
}

Value* Repeat::add_input(Value* outer) {
  operands_.push_back(outer);
  return body_->add_input(outer->name, outer->type);
}

Value* Repeat::carry(Value* initial) {
  KILN_CHECK(operands_.size() == carried_, "carried values come first");
  ++carried_;
  return add_input(initial);
}

// What is made of nothing is made again, so that passes see it.
Value* Repeat::use(Value* outer) {
  if (outer == nullptr) return nullptr;
  const auto [found, fresh] = used_.try_emplace(outer);
  if (!fresh) return found->second;
  const ir::Node* maker = outer->producer;
  if (maker == nullptr || ir::op_info(maker->op).kind != ir::OpKind::Source ||
      !maker->inputs.empty())
    return found->second = add_input(outer);
  found->second = builder_.value(maker->op, {}, maker->attrs);
  body_->rename(found->second, outer->name);
  return found->second;
}

Values Repeat::carry(const Values& initial) {
  Values result;
  for (Value* value : initial) result.push_back(carry(value));
  return result;
}

Values Repeat::use(const Values& outer) {
  Values result;
  for (Value* value : outer) result.push_back(use(value));
  return result;
}

void Repeat::check() const {
  if (!body_->data_symbols().empty())
    throw CompileError(
        "got a size that depends on data within a loop or a branch, expected sizes that are known "
        "before it");
}

Values Repeat::finish(Value* condition, Value* again, Values next) {
  check();
  for (ir::Requirement& requirement : std::exchange(body_->requirements, {}))
    outer_.require(std::move(requirement));
  std::vector<std::string> names{"again"};
  for (size_t i = 0; i < next.size(); ++i) names.push_back("next" + std::to_string(i));
  next.insert(next.begin(), again);
  body_->set_outputs(std::move(next), std::move(names));
  body_->erase_dead();
  Values operands = joined({condition}, operands_);
  return outer_.node(Op::repeat, std::move(operands), {{"body", body_}})->outputs;
}

Values repeat_rows(ir::Builder& builder, const RowLoop& loop, const RowStep& step) {
  const std::vector<ir::Type> types = result_types(builder, loop, step);
  Values initial{integer(builder, 0)};
  initial.insert(initial.end(), loop.states.begin(), loop.states.end());
  for (const ir::Type& type : types) {
    ir::Shape shape = type.shape;
    shape.insert(shape.begin(), loop.steps);
    initial.push_back(builder.value(
        Op::full, {}, {{"shape", std::move(shape)}, {"dtype", type.dtype}, {"value", 0.0}}));
  }
  if (loop.steps.is_constant(0)) return {initial.begin() + 1, initial.end()};
  Repeat repeat(builder);
  const Values carried = repeat.carry(initial);
  const size_t states = loop.states.size();
  RowLoop inner;
  inner.states.assign(carried.begin() + 1, carried.begin() + 1 + static_cast<ptrdiff_t>(states));
  inner.rows = repeat.use(loop.rows);
  inner.others = repeat.use(loop.others);
  ir::Builder& body = repeat.builder();
  Values results = step_at(body, step, inner, carried[0]);
  for (size_t i = states; i < results.size(); ++i)
    results[i] = with_row(body, carried[i + 1], carried[0], results[i]);
  Value* next = body.value(Op::add, {carried[0], integer(body, 1)});
  Value* again = body.value(Op::lt, {next, size(body, loop.steps)});
  results.insert(results.begin(), next);
  Value* any = builder.value(Op::gt, {size(builder, loop.steps), integer(builder, 0)});
  Values last = repeat.finish(any, again, std::move(results));
  last.erase(last.begin());
  return last;
}

}  // namespace kiln::import
