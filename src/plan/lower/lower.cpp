#include "plan/lower/lower.h"

#include <algorithm>
#include <cstring>

#include "ir/op_table.h"
#include "plan/form/fold.h"
#include "plan/form/parts.h"
#include "plan/form/rewrite.h"
#include "plan/lower/lowering.h"
#include "plan/lower/quantised.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

using ir::Op;
using ir::OpKind;

void lower_contraction(Lowering& lowering, const ir::Node& node) {
  if (node.op == Op::convolution) return lower_convolution(lowering, node);
  if (node.op == Op::attention) return lower_attention(lowering, node);
  lower_contract(lowering, node);
}

// The constant difference of the integers in a literal, if there is one.
std::optional<int64_t> common_step(const ir::Literal& literal) {
  const int64_t count = literal.elements();
  const size_t size = dtype_size(literal.dtype);
  if (count <= 1) return 0;
  if (std::memcmp(literal.bytes.data(), literal.bytes.data() + size, literal.bytes.size() - size) ==
      0) {
    return 0;
  }
  if (literal.dtype != DType::I64 && literal.dtype != DType::I32) return std::nullopt;
  const int64_t step = literal.as_int(1) - literal.as_int(0);
  for (int64_t i = 2; i < count; ++i) {
    if (literal.as_int(i) - literal.as_int(i - 1) != step) return std::nullopt;
  }
  return step;
}

Expr first_element(const ir::Literal& literal) {
  if (is_floating(literal.dtype)) return constant(literal.dtype, literal.as_double(0));
  return constant_int(literal.dtype, literal.as_int(0));
}

// The input that a value is, if all of it is there in some shape and dtype.
const ir::Value* as_input(const ir::Value* value) {
  while (value->producer != nullptr) {
    const Op op = value->producer->op;
    const bool keeps = op == Op::reshape || op == Op::permute || op == Op::expand || op == Op::cast;
    if (!keeps || !is_integer(value->type.dtype)) return nullptr;
    value = value->producer->input(0);
  }
  return is_integer(value->type.dtype) ? value : nullptr;
}

}  // namespace

void lower_node(Lowering& lowering, const ir::Node& node) {
  switch (ir::op_info(node.op).kind) {
    case OpKind::Source:
      if (node.op == Op::constant) return;  // made where it is used
      return lower_source(lowering, node);
    case OpKind::Unary:
    case OpKind::Binary:
    case OpKind::Ternary:
      return lower_pointwise(lowering, node);
    case OpKind::Reduce:
    case OpKind::Scan:
      return lower_reduce(lowering, node);
    case OpKind::Normalise:
      return lower_normalise(lowering, node);
    case OpKind::Contract:
      return lower_contraction(lowering, node);
    case OpKind::Quantise:
      return lower_quantise(lowering, node);
    case OpKind::Pool:
      return lower_pool(lowering, node);
    case OpKind::Place:
      return lower_place(lowering, node);
    case OpKind::Move:
      if (is_view(node.op)) return;
      return lower_move(lowering, node);
    case OpKind::Control:
      if (node.op == Op::custom) return lower_custom(lowering, node);
      return lower_repeat(lowering, node);
  }
}

Program lower(const ir::Graph& graph, const TargetTraits& traits, const LowerOptions& options) {
  return Lowering(graph, traits, options).run();
}

Program Lowering::run() {
  program_.name = graph_.name;
  program_.symbols = graph_.size_symbols();
  program_.requirements = graph_.requirements;
  program_.updates = graph_.updates;
  add_inputs();
  choose_output_buffers();
  for (const auto& node : graph_.nodes()) lower_node(*this, *node);
  copy_to_outputs();
  if (!program_.data_sizes.empty() && program_.repeats.empty()) order_by_parts(program_);
  return std::move(program_);
}

void Lowering::add_inputs() {
  for (const ir::Value* input : graph_.inputs()) {
    const BufferId buffer =
        program_.add_buffer({BufferKind::Input, input->name, input->type, {}, -1});
    program_.inputs.push_back(buffer);
    buffers_[input] = buffer;
  }
}

// A computed value is written straight to the first output that wants it; other outputs are copies.
void Lowering::choose_output_buffers() {
  const auto& outputs = graph_.outputs();
  for (size_t i = 0; i < outputs.size(); ++i) {
    const ir::Value* value = outputs[i];
    const auto& names = graph_.output_names();
    const std::string& name = i < names.size() && !names[i].empty() ? names[i] : value->name;
    const BufferId buffer = program_.add_buffer({BufferKind::Output, name, value->type, {}, -1});
    program_.outputs.push_back(buffer);
    const bool computed =
        value->producer && value->producer->op != Op::constant && !is_view(value->producer->op);
    if (computed) output_of_.emplace(value, buffer);
  }
}

void Lowering::copy_to_outputs() {
  for (size_t i = 0; i < program_.outputs.size(); ++i) {
    const ir::Value* value = graph_.outputs()[i];
    const auto direct = output_of_.find(value);
    if (direct != output_of_.end() && direct->second == program_.outputs[i]) continue;
    emit_copy(value, program_.outputs[i], "copy");
  }
}

void Lowering::emit_copy(const ir::Value* value, BufferId target, const std::string& stem) {
  LoopSpace space = make_loops(value->type.shape);
  Store store{target, {}, space.indices, load(value, space.indices), {}};
  const std::string name = stem + "_" + std::to_string(kernel_count_++);
  program_.kernels.push_back(
      {name, LoopNest{std::move(space.loops), {std::move(store)}}, {value->name}});
}

std::pair<const ir::Value*, Indices> Lowering::resolve(const ir::Value* value, Indices at) const {
  while (!has_buffer(value) && value->producer && is_view(value->producer->op)) {
    at = view_indices(*value->producer, at);
    value = value->producer->input(0);
  }
  return {value, std::move(at)};
}

BufferId Lowering::buffer_of(const ir::Value* value) {
  if (const auto it = buffers_.find(value); it != buffers_.end()) return it->second;
  KILN_CHECK(value->producer && value->producer->op == Op::constant,
             value->name + " is not lowered");
  const BufferId buffer = add_constant(value->name, value->producer->attr<ir::Literal>("value"));
  return buffers_[value] = buffer;
}

BufferId Lowering::define(const ir::Value* value) {
  if (const auto it = buffers_.find(value); it != buffers_.end()) return it->second;
  const auto output = output_of_.find(value);
  const BufferId buffer =
      output != output_of_.end() ? output->second : add_temporary(value->name, value->type);
  return buffers_[value] = buffer;
}

BufferId Lowering::add_constant(std::string name, ir::Literal literal) {
  ir::Type type = literal.type();
  return program_.add_buffer(
      {BufferKind::Constant, std::move(name), std::move(type), std::move(literal), -1});
}

BufferId Lowering::add_temporary(std::string name, ir::Type type) {
  return program_.add_buffer({BufferKind::Temporary, std::move(name), std::move(type), {}, -1});
}

BufferId Lowering::dense(const ir::Value* value) {
  // What is under a reshape has the same elements in the same order, and its copy has the simpler
  // indices.
  while (!has_buffer(value) && value->producer && value->producer->op == Op::reshape) {
    value = value->producer->input(0);
  }
  const LoopSpace space = make_loops(value->type.shape);
  const auto [source, at] = resolve(value, space.indices);
  if (linearize(source->type.shape, at) == linearize(value->type.shape, space.indices) &&
      source->type.elements() == value->type.elements()) {
    return buffer_of(source);
  }
  const BufferId buffer = add_temporary(value->name, value->type);
  emit_copy(value, buffer, "copy");
  return buffers_[value] = buffer;
}

const std::optional<Lowering::Progression>& Lowering::progression(const ir::Value* value) {
  const auto [it, added] = progressions_.try_emplace(value);
  if (!added) return it->second;
  const auto& literal = value->producer->attr<ir::Literal>("value");
  if (literal.elements() == 0 || literal.replaceable) return it->second;
  if (const auto step = common_step(literal))
    it->second = Progression{first_element(literal), *step};
  return it->second;
}

std::optional<Expr> Lowering::known_element(const ir::Value* value, const Indices& at) {
  if (!value->producer || value->producer->op != Op::constant) return std::nullopt;
  const auto& known = progression(value);
  if (!known) return std::nullopt;
  if (known->step == 0) return known->first;
  const Index offset = linearize(value->type.shape, at) * Index(known->step);
  return cast(position(offset + Index(known->first->integer)), value->type.dtype);
}

Expr Lowering::load(const ir::Value* value, const Indices& at, Expr predicate) {
  const auto [source, indices] = resolve(value, at);
  const DType dtype = source->type.dtype;
  if (const auto known = known_element(source, indices)) {
    if (!predicate) return *known;
    return apply(Op::where, {predicate, *known, constant_int(dtype, 0)});
  }
  return load_at(buffer_of(source), dtype, indices, std::move(predicate));
}

void Lowering::add_data_size(const ir::Node& node) {
  const ir::SymbolPtr symbol = node.attr<ir::Dim>("size").as_symbol();
  if (!traits().data_sizes)
    throw CompileError("[data_size] got the size " + symbol->name +
                       ", which depends on data, for a target whose runs do not wait for one, "
                       "expected the CPU");
  DataSize size{symbol, define(node.output()), std::nullopt};
  if (node.has_attr("bound")) size.bound = node.attr<ir::Dim>("bound");
  program_.symbols.push_back(symbol);
  program_.data_sizes.push_back(std::move(size));
}

Expr Lowering::checked(const ir::Node& node, Expr value) {
  if (!options_.check_bounds) return value;
  const bool is_index = node.op == Op::check_index;
  const bool both_ends = is_index && node.attr<bool>("negative");
  const CheckKind kind = !is_index   ? CheckKind::Nonzero
                         : both_ends ? CheckKind::IndexFromEnd
                                     : CheckKind::Index;
  const auto id = static_cast<int32_t>(program_.checks.size());
  Expr result = check(std::move(value), kind, is_index ? node.attr<ir::Dim>("size") : 0, id);
  if (result->kind != ExprKind::Check) return result;
  const auto& inputs = graph_.inputs();
  const auto input = std::ranges::find(inputs, as_input(node.input(0)));
  const bool is_input = input != inputs.end();
  program_.checks.push_back({node.attr<std::string>("operator"),
                             is_input ? static_cast<int32_t>(input - inputs.begin()) : -1,
                             node.has_attr("fault") ? node.attr<std::string>("fault") : ""});
  return result;
}

// Data indices go through views as stand-in symbols.
Expr Lowering::load_gathered(const ir::Value* value, std::vector<Expr> at) {
  Expr occupied;  // null: no axis that data picks from is empty
  Indices indices;
  std::vector<std::pair<ir::SymbolPtr, Expr>> data;
  for (size_t i = 0; i < at.size(); ++i) {
    if (const auto known = as_index(at[i])) {
      indices.push_back(*known);
      continue;
    }
    const ir::Dim& size = value->type.shape[i];
    if (size.lower_bound() < 1) {
      occupied = logical_and(occupied, apply(Op::gt, {position(size), position(0)}));
    }
    data.emplace_back(ir::make_loop_symbol("data", size), at[i]);
    indices.push_back(Index(data.back().first));
  }
  return substitute_values(load(value, indices, occupied),
                           [&](const ir::SymbolPtr& symbol) -> Expr {
                             for (const auto& [stand_in, expr] : data) {
                               if (stand_in == symbol) return expr;
                             }
                             return nullptr;
                           });
}

Expr Lowering::load_broadcast(const ir::Value* value, const ir::Shape& shape, const Indices& at) {
  const ir::Shape& own = value->type.shape;
  Indices indices(at.end() - static_cast<std::ptrdiff_t>(own.size()), at.end());
  for (size_t i = 0; i < own.size(); ++i) {
    const ir::Dim& target = shape[shape.size() - own.size() + i];
    if (own[i].is_constant(1) && !target.is_constant(1)) indices[i] = 0;
  }
  return load(value, indices);
}

std::optional<View> Lowering::view(const ir::Value* value, const Indices& at,
                                   const std::vector<Loop>& loops) {
  const auto [source, indices] = resolve(value, at);
  auto affine = as_affine(linearize(source->type.shape, indices), loops);
  if (!affine) return std::nullopt;
  const bool backwards = std::ranges::any_of(
      affine->strides, [](const ir::Dim& stride) { return stride.lower_bound() < 0; });
  if (backwards) return std::nullopt;
  return View{buffer_of(source), std::move(affine->base), std::move(affine->strides)};
}

const ir::Literal* Lowering::literal_of(const ir::Value* value) const {
  if (const auto it = buffers_.find(value); it != buffers_.end()) {
    const Buffer& buffer = program_.buffers[it->second];
    return buffer.kind == BufferKind::Constant ? &buffer.literal : nullptr;
  }
  if (!value->producer || value->producer->op != Op::constant) return nullptr;
  return &value->producer->attr<ir::Literal>("value");
}

void Lowering::define_constant(const ir::Value* value, ir::Literal literal) {
  buffers_[value] = add_constant(value->name, std::move(literal));
}

BufferId Lowering::byte_copy(const ir::Value* value, DType dtype) {
  const auto [it, added] = byte_copies_.try_emplace({value, dtype});
  if (!added) return it->second;
  LoopSpace space = make_loops(value->type.shape);
  const Quantised operand = *quantised(value, space.indices);
  Expr byte = cast(byte_element(*this, operand, dtype), dtype);
  it->second = add_temporary(value->name + "_bytes", {dtype, value->type.shape});
  const std::string name = "bytes_" + std::to_string(kernel_count_++);
  Store store{it->second, {}, space.indices, std::move(byte), {}};
  program_.kernels.push_back(
      {name, LoopNest{std::move(space.loops), {std::move(store)}}, {value->name}});
  return it->second;
}

View Lowering::dense_view(BufferId buffer, const ir::Shape& shape, const Indices& at,
                          const std::vector<Loop>& loops) {
  auto affine = as_affine(linearize(shape, at), loops);
  KILN_CHECK(affine.has_value(), "a dense view that is not affine");
  return {buffer, std::move(affine->base), std::move(affine->strides)};
}

View Lowering::operand_view(const ir::Value* value, const Indices& at,
                            const std::vector<Loop>& loops) {
  if (auto found = view(value, at, loops)) return *found;
  return dense_view(dense(value), value->type.shape, at, loops);
}

Formats Lowering::formats(BufferId left, BufferId right, bool tf32) const {
  const auto operand = [&](BufferId id) {
    const DType dtype = program_.buffers[id].type.dtype;
    return traits().native_16_bit ? dtype : compute_dtype(dtype);
  };
  Formats formats;
  formats.left = operand(left);
  formats.right = operand(right);
  formats.accumulator = compute_dtype(formats.left);
  const Buffer& buffer = program_.buffers[right];
  formats.weight = buffer.kind == BufferKind::Constant ? buffer.type.dtype : formats.right;
  formats.tf32 = tf32 && traits().tf32 && formats.left == DType::F32 && formats.right == DType::F32;
  return formats;
}

void Lowering::emit(const ir::Node& node, decltype(Kernel::body) body) {
  const std::string name = std::string(op_name(node.op)) + "_" + std::to_string(kernel_count_++);
  program_.kernels.push_back({name, std::move(body), {node.output()->name}});
}

void Lowering::emit_pointwise(const ir::Node& node, LoopSpace space, Expr value) {
  Store store{define(node.output()), {}, std::move(space.indices), std::move(value), {}};
  emit(node, LoopNest{std::move(space.loops), {std::move(store)}});
}

DType compute_dtype(DType dtype) { return is_16_bit_float(dtype) ? DType::F32 : dtype; }

DType accumulator_dtype(const ir::Node& node) {
  return node.attr_or("accumulate", compute_dtype(node.output()->type.dtype));
}

bool has_kernel(const std::vector<DType>& dtypes, const ir::Node& node) {
  const DType dtype = node.input(0)->type.dtype;
  const bool listed = std::ranges::find(dtypes, dtype) != dtypes.end();
  return listed && accumulator_dtype(node) == compute_dtype(dtype);
}

Expr NestBuilder::reduce(ReduceOp op, std::vector<Loop> loops, Expr value) {
  const bool argument = op == ReduceOp::ArgMax || op == ReduceOp::ArgMin;
  if (loops.empty()) return argument ? constant_int(DType::I64, 0) : value;
  const DType dtype = argument ? DType::I64 : value->dtype;
  nest_.stages.push_back(Reduction{op, std::move(loops), std::move(value)});
  return reduced(slots_++, dtype);
}

AxisSplit::AxisSplit(const ir::Shape& shape, std::vector<bool> inner)
    : shape_(shape), inner_(std::move(inner)) {
  ir::Shape outer = shape_;
  for (size_t i = 0; i < outer.size(); ++i) {
    if (inner_[i]) outer[i] = 1;
  }
  LoopSpace space = make_loops(outer);
  outer_ = std::move(space.loops);
  position_ = std::move(space.indices);
}

LoopSpace AxisSplit::inner() const {
  ir::Shape inner = shape_;
  for (size_t i = 0; i < inner.size(); ++i) {
    if (!inner_[i]) inner[i] = 1;
  }
  LoopSpace space = make_loops(inner, "j");
  for (size_t i = 0; i < inner.size(); ++i) {
    if (!inner_[i]) space.indices[i] = position_[i];
  }
  return space;
}

}  // namespace kiln::plan
