// What the lowering of one op family uses: how values are read, and how kernels are made.
//
// Reshape, permute, expand, slice and flip make no kernel: they are views. A value that is a view
// is read from the buffer underneath, at indices that the view operations map.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "plan/form/access.h"
#include "plan/form/program.h"
#include "plan/lower/lower.h"

namespace kiln::plan {

class Lowering {
 public:
  Lowering(const ir::Graph& graph, const TargetTraits& traits, const LowerOptions& options)
      : graph_(graph), options_(options) {
    program_.traits = traits;
  }
  Program run();

  const TargetTraits& traits() const { return program_.traits; }
  const LowerOptions& options() const { return options_; }

  // One element of a value. Elements of uniform and of evenly spaced constants are computed, not
  // read.
  Expr load(const ir::Value* value, const Indices& at, Expr predicate = nullptr);
  // The same where some indices are data: they must be in bounds for every input, except along an
  // axis without elements, where they read zero.
  Expr load_gathered(const ir::Value* value, std::vector<Expr> at);
  // One element of an operand that is broadcast to `shape`.
  Expr load_broadcast(const ir::Value* value, const ir::Shape& shape, const Indices& at);

  // The buffer of a node's result, made on first use.
  BufferId define(const ir::Value* value);
  // A buffer that holds the value densely, under whatever shape: made by a copy if the value is a
  // true view.
  BufferId dense(const ir::Value* value);
  // The elements of a constant, or of what was defined as one; null for other values.
  const ir::Literal* literal_of(const ir::Value* value) const;
  ir::Dim elements(BufferId buffer) const { return program_.buffers[buffer].type.elements(); }
  // From here on the value is this constant.
  void define_constant(const ir::Value* value, ir::Literal literal);
  // A buffer of u8 or i8 that holds the integers of a quantised() value densely, moved by 128 if they are of the
  // other type: made by a copy that all users share.
  BufferId byte_copy(const ir::Value* value, DType dtype);
  BufferId add_constant(std::string name, ir::Literal literal);
  BufferId add_temporary(std::string name, ir::Type type);

  // From here on the symbol is what the value of a data_size node will be.
  void add_data_size(const ir::Node& node);

  // The kernels of a repeat node's body.
  void add_repeat(const ir::Node& node);

  // The value, checked as a check_index or check_nonzero node says.
  Expr checked(const ir::Node& node, Expr value);

  // A window on a value over `loops`; `at` is a position of the value in terms of them. Nothing if
  // the offset is not affine with non-negative strides.
  std::optional<View> view(const ir::Value* value, const Indices& at,
                           const std::vector<Loop>& loops);
  // A window on a buffer that holds the value densely.
  View dense_view(BufferId buffer, const ir::Shape& shape, const Indices& at,
                  const std::vector<Loop>& loops);

  // The operand of a contraction: a view of the value, or of a dense copy where there is none.
  View operand_view(const ir::Value* value, const Indices& at, const std::vector<Loop>& loops);

  // How a contraction of these buffers computes: in f32 for 16-bit types, with constants as they
  // are.
  // With `tf32`, f32 may be rounded to TF32 where the target can.
  Formats formats(BufferId left, BufferId right, bool tf32 = false) const;

  // Appends a kernel named after the node.
  void emit(const ir::Node& node, decltype(Kernel::body) body);
  // A pointwise kernel: value at every position of the node's result.
  void emit_pointwise(const ir::Node& node, LoopSpace space, Expr value);

 private:
  struct Access {
    BufferId buffer = -1;
    Indices indices;
  };
  // A constant whose elements are base + step * offset; step 0: all equal.
  struct Progression {
    Expr first;
    int64_t step = 0;
  };

  void add_inputs();
  void choose_output_buffers();
  void copy_to_outputs();
  void emit_copy(const ir::Value* value, BufferId target, const std::string& stem);
  BufferId shaped(const ir::Value* value);
  void carry(const ir::Graph& body, const std::vector<BufferId>& carried);
  bool has_buffer(const ir::Value* value) const { return buffers_.contains(value); }
  BufferId buffer_of(const ir::Value* value);
  // The value underneath the views, and the position in it.
  std::pair<const ir::Value*, Indices> resolve(const ir::Value* value, Indices at) const;
  std::optional<Expr> known_element(const ir::Value* value, const Indices& at);
  const std::optional<Progression>& progression(const ir::Value* constant);

  const ir::Graph& graph_;
  const LowerOptions options_;
  Program program_;
  std::map<const ir::Value*, BufferId> buffers_;    // looked up, never walked
  std::map<const ir::Value*, BufferId> output_of_;  // looked up, never walked
  std::map<const ir::Value*, std::optional<Progression>> progressions_;
  std::map<std::pair<const ir::Value*, DType>, BufferId> byte_copies_;  // looked up, never walked
  int kernel_count_ = 0;
  int32_t repeat_ = -1;  // that is lowered
};

// One file per family. CompileError for what has no lowering.
void lower_source(Lowering& lowering, const ir::Node& node);
void lower_pointwise(Lowering& lowering, const ir::Node& node);
void lower_reduce(Lowering& lowering, const ir::Node& node);
void lower_normalise(Lowering& lowering, const ir::Node& node);
void lower_contract(Lowering& lowering, const ir::Node& node);
void lower_convolution(Lowering& lowering, const ir::Node& node);
void lower_attention(Lowering& lowering, const ir::Node& node);
void lower_pool(Lowering& lowering, const ir::Node& node);
void lower_quantise(Lowering& lowering, const ir::Node& node);
void lower_move(Lowering& lowering, const ir::Node& node);
void lower_place(Lowering& lowering, const ir::Node& node);
void lower_repeat(Lowering& lowering, const ir::Node& node);
void lower_custom(Lowering& lowering, const ir::Node& node);
// Whatever the op.
void lower_node(Lowering& lowering, const ir::Node& node);

// Whether the op is a view, and the position in its operand of a position in its result.
bool is_view(ir::Op op);
Indices view_indices(const ir::Node& node, const Indices& at);

// f32 for the 16-bit floating types: what sums and normalisations compute in.
DType compute_dtype(DType dtype);
// What a contraction adds up in: its attribute `accumulate`, or compute_dtype.
DType accumulator_dtype(const ir::Node& node);
// Whether the target's kernels for results of these dtypes compute the contraction: they add up in
// compute_dtype.
bool has_kernel(const std::vector<DType>& dtypes, const ir::Node& node);

// Builds a multi-stage nest.
class NestBuilder {
 public:
  explicit NestBuilder(std::vector<Loop> outer) { nest_.outer = std::move(outer); }
  // The reduction over `loops`; the value itself where there is nothing to reduce.
  Expr reduce(ReduceOp op, std::vector<Loop> loops, Expr value);
  void store(Store store) { nest_.stages.push_back(std::move(store)); }
  LoopNest finish() { return std::move(nest_); }

 private:
  LoopNest nest_;
  int32_t slots_ = 0;
};

// The axes of a shape in two groups: loops over the outer ones are shared by all stages, loops over
// the inner ones are made for each stage.
class AxisSplit {
 public:
  AxisSplit(const ir::Shape& shape, std::vector<bool> inner);
  const std::vector<Loop>& outer() const { return outer_; }
  // Loops over the inner axes, and the full position.
  LoopSpace inner() const;
  // The full position with 0 along the inner axes.
  Indices outer_position() const { return position_; }

 private:
  ir::Shape shape_;
  std::vector<bool> inner_;
  std::vector<Loop> outer_;
  Indices position_;
};

}  // namespace kiln::plan
