// A loop of an engine while it is made: the graph that runs each time, and what it begins with.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ir/builder.h"

namespace kiln::import {

class Repeat {
 public:
  explicit Repeat(ir::Builder& outer);

  // Makes the body.
  ir::Builder& builder() { return builder_; }
  ir::Graph& body() { return *body_; }

  // In the body: a value that each time hands to the next, and begins as `initial`. All of these before any `use`.
  ir::Value* carry(ir::Value* initial);
  // In the body: a value of the graph around it. Null stays null.
  ir::Value* use(ir::Value* outer);
  std::vector<ir::Value*> carry(const std::vector<ir::Value*>& initial);
  std::vector<ir::Value*> use(const std::vector<ir::Value*>& outer);

  // CompileError for a body that an engine cannot repeat. `finish` does it, who throws the body away asks.
  void check() const;

  // The carried values when it is over: `condition` says whether the body runs the first time, and
  // `again`, a value of the body, whether it runs once more with `next` as the carried values.
  std::vector<ir::Value*> finish(ir::Value* condition, ir::Value* again,
                                 std::vector<ir::Value*> next);

 private:
  ir::Value* add_input(ir::Value* outer);

  ir::Builder& outer_;
  std::shared_ptr<ir::Graph> body_;
  ir::Builder builder_;
  std::vector<ir::Value*> operands_;
  size_t carried_ = 0;
  std::map<const ir::Value*, ir::Value*> used_;  // looked up, never walked
};

// A loop over the rows of tensors, their elements along the first axis: `step` makes new states and rows of results from
// the states and a row of each tensor. Gives the last states, and the tensors that the rows of results make up.
struct RowLoop {
  std::vector<ir::Value*> states, rows, others;
  ir::Dim steps;
};
using RowStep = std::function<std::vector<ir::Value*>(
    ir::Builder& builder, const std::vector<ir::Value*>& operands)>;  // states, rows, others
std::vector<ir::Value*> repeat_rows(ir::Builder& builder, const RowLoop& loop, const RowStep& step);

}  // namespace kiln::import
