// One node of a program as an importer sees it: arguments by name with their defaults, and the
// means to build.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "import/operand.h"
#include "import/scope.h"

namespace kiln::import {

// A part of a complex number.
enum class Part : uint8_t { Real, Imaginary };

class Call {
 public:
  Call(const ProgramNode& node, Scope& scope) : node_(node), scope_(scope) {}
  // The same with a part in place of each complex operand: one part for all of them, or one for each
  // tensor among the arguments, in order.
  Call(const Call& call, std::vector<Part> parts)
      : node_(call.node_), scope_(call.scope_), builder_(call.builder_), parts_(std::move(parts)) {}
  // The same, making values of another graph: the body of a loop.
  Call(const Call& call, ir::Builder& builder)
      : node_(call.node_), scope_(call.scope_), builder_(&builder) {}

  const ProgramNode& node() const { return node_; }
  Scope& scope() const { return scope_; }
  ir::Builder& builder() const { return builder_ != nullptr ? *builder_ : scope_.builder(); }

  // "amax" of torch.ops.aten.amax.default.
  std::string operation() const;

  // Whether the argument is given and not None. torch.export omits arguments that have their
  // default.
  bool has(std::string_view name) const;

  ir::Value* tensor(std::string_view name) const;
  ir::Value* optional_tensor(std::string_view name) const;       // null for None
  std::vector<ir::Value*> tensors(std::string_view name) const;  // null for None
  bool is_complex(std::string_view name) const;
  Complex complex(std::string_view name) const;
  std::optional<ComplexNumber> complex_number(std::string_view name) const;
  // A tensor or a number.
  Operand operand(std::string_view name) const;
  Operand operand_or(std::string_view name, Number fallback) const;
  Number number(std::string_view name) const;
  Number number_or(std::string_view name, Number fallback) const;

  // A number that must be known now.
  int64_t integer(std::string_view name) const;
  int64_t integer_or(std::string_view name, int64_t fallback) const;
  double real_or(std::string_view name, double fallback) const;
  bool boolean_or(std::string_view name, bool fallback) const;
  std::string text_or(std::string_view name, std::string fallback) const;
  std::vector<int64_t> integers(std::string_view name) const;
  std::vector<int64_t> integers_or(std::string_view name, std::vector<int64_t> fallback) const;
  std::vector<double> reals(std::string_view name) const;
  std::optional<DType> dtype(std::string_view name) const;

  // The size of an output that is the value of `count`, an i64 scalar that the run computes, and at most
  // `bound`: the symbol that PyTorch recorded for `dim` of output `output`. Where it recorded another
  // size, because the model says what it is, the run checks that.
  ir::Dim find_size(ir::Value* count, size_t output, size_t dim, std::optional<ir::Dim> bound);

  // A condition on sizes as 1 or 0; nothing for one that depends on data, or is known.
  std::optional<ir::Dim> condition(std::string_view name) const;

  // Sizes and offsets, which may be symbolic.
  ir::Dim dim(std::string_view name) const;
  ir::Dim dim_or(std::string_view name, ir::Dim fallback) const;
  std::vector<ir::Dim> dims(std::string_view name) const;

  // Axes of a tensor, made non-negative. A scalar counts as rank 1, as in PyTorch.
  int64_t axis(std::string_view name, size_t rank) const;
  int64_t axis_or(std::string_view name, size_t rank, int64_t fallback) const;
  // Sorted, without repetition; all axes if the argument is missing, None or empty.
  std::vector<int64_t> axes_or_all(std::string_view name, size_t rank) const;
  int64_t normalise_axis(int64_t axis, size_t rank) const;

  // From now on operands of 16 bits are given as f32, and the results are rounded once when the
  // importer is done: what PyTorch computes in one kernel has no roundings inside.
  void compute_in_f32() { computes_in_f32_ = true; }
  bool computes_in_f32() const { return computes_in_f32_; }

  // Whether output i of several is referred to.
  bool output_used(size_t i) const;

  ir::Value* make(ir::Op op, std::vector<ir::Value*> inputs, ir::Attrs attrs = {}) const {
    return builder().value(op, std::move(inputs), std::move(attrs));
  }
  // A constant of rank 0, of the dtype of `like`.
  ir::Value* constant_like(ir::Value* like, double value) const {
    return builder().scalar(like->type.dtype, value);
  }

  // CompileError "got X, expected Y"; the importer adds the node.
  [[noreturn]] void fail(const std::string& got, const std::string& expected) const;
  void expect(bool condition, const std::string& got, const std::string& expected) const {
    if (!condition) fail(got, expected);
  }

 private:
  ir::Value* tensor(const TensorName& name, std::string_view argument) const;
  ir::Value* part(const TensorName& name, std::string_view argument) const;
  const Argument* find(std::string_view name) const;
  const Argument& get(std::string_view name) const;
  [[noreturn]] void wrong_kind(std::string_view name, std::string_view expected) const;
  int64_t known(const ir::Dim& dim, std::string_view name) const;

  const ProgramNode& node_;
  Scope& scope_;
  ir::Builder* builder_ = nullptr;  // null: that of the scope
  std::vector<Part> parts_;
  bool computes_in_f32_ = false;
};

}  // namespace kiln::import
