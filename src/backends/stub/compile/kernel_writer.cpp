#include "backends/stub/compile/kernel_writer.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "backends/common/dim_terms.h"
#include "ir/op_table.h"
#include "plan/form/access.h"
#include "plan/form/kernels.h"
#include "support/error.h"

namespace kiln::stub {
namespace {

using ir::Op;
using plan::Expr;
using plan::ExprKind;
using plan::ExprNode;

void require_dtype(DType dtype) {
  if (has_dtype(dtype)) return;
  throw CompileError("[stub] got elements of type " + std::string(dtype_name(dtype)) +
                     ", expected f32, f64, i32, i64 or bool");
}

struct Row {
  Op op;
  Code code;
  bool on_numbers, on_integers;
};

constexpr Row kRows[] = {
    {Op::neg, Code::Negate, true, true},        {Op::abs, Code::Absolute, true, true},
    {Op::exp, Code::Exp, true, false},          {Op::log, Code::Log, true, false},
    {Op::sqrt, Code::Sqrt, true, false},        {Op::tanh, Code::Tanh, true, false},
    {Op::erf, Code::Erf, true, false},          {Op::floor, Code::Floor, true, false},
    {Op::isnan, Code::IsNan, true, false},      {Op::add, Code::Add, true, true},
    {Op::sub, Code::Subtract, true, true},      {Op::mul, Code::Multiply, true, true},
    {Op::div, Code::Divide, true, true},        {Op::floor_div, Code::FloorDivide, false, true},
    {Op::remainder, Code::Modulo, false, true}, {Op::bitwise_and, Code::And, false, true},
    {Op::bitwise_or, Code::Or, false, true},    {Op::bitwise_xor, Code::Xor, false, true},
    {Op::maximum, Code::Maximum, true, true},   {Op::minimum, Code::Minimum, true, true},
    {Op::eq, Code::Equal, true, true},          {Op::lt, Code::Less, true, true},
    {Op::le, Code::LessEqual, true, true},
};

const Row* find_row(Op op, DType dtype) {
  const auto found = std::ranges::find(kRows, op, &Row::op);
  if (found == std::end(kRows)) return nullptr;
  return (is_floating(dtype) ? found->on_numbers : found->on_integers) ? found : nullptr;
}

ir::Dim points(const std::vector<plan::Loop>& loops) {
  ir::Dim result = 1;
  for (const plan::Loop& loop : loops) result *= loop.extent();
  return result;
}

}  // namespace

std::vector<Instruction> KernelWriter::write(const plan::LoopNest& nest) {
  emit({.code = Code::Begin});
  bind_task(nest.outer);
  for (const plan::Stage& stage : nest.stages) {
    values_.clear();  // values of other stages may lie in loops that are closed
    std::visit([&](const auto& s) { write(s); }, stage);
  }
  emit({.code = Code::Return});
  code_.front().immediate = registers_;
  return std::move(code_);
}

KernelWriter::Register KernelWriter::fresh() {
  if (registers_ == std::numeric_limits<Register>::max())
    throw CompileError("[stub] the kernel needs more than 65535 registers");
  return registers_++;
}

size_t KernelWriter::emit(Instruction instruction) {
  code_.push_back(instruction);
  return code_.size() - 1;
}

KernelWriter::Register KernelWriter::emit_to_fresh(Instruction instruction) {
  instruction.to = fresh();
  emit(instruction);
  return instruction.to;
}

KernelWriter::Register KernelWriter::integer(int64_t value) {
  return emit_to_fresh({.code = Code::Constant, .immediate = value});
}

KernelWriter::Register KernelWriter::number(DType dtype, double value) {
  return is_floating(dtype) ? integer(std::bit_cast<int64_t>(value))
                            : integer(static_cast<int64_t>(value));
}

KernelWriter::Register KernelWriter::binary(Code code, DType dtype, Register a, Register b) {
  return emit_to_fresh({.code = code, .dtype = dtype, .a = a, .b = b});
}

// --- Positions ---

KernelWriter::Register KernelWriter::value_of(const ir::Dim& dim) {
  if (dim.is_constant()) return integer(dim.constant());
  if (!backend::depends_on_loops(dim))
    return emit_to_fresh({.code = Code::Parameter, .immediate = interface_.param_index(dim)});
  Register sum = 0;
  for (const ir::Term& term : dim.terms()) {
    Register product = integer(term.coefficient);
    for (const ir::AtomPtr& atom : term.factors)
      product = binary(Code::Multiply, DType::I64, product, value_of_atom(*atom));
    sum = sum == 0 ? product : binary(Code::Add, DType::I64, sum, product);
  }
  return sum;
}

KernelWriter::Register KernelWriter::value_of_atom(const ir::Atom& atom) {
  switch (atom.kind) {
    case ir::AtomKind::Symbol:
      return atom.symbol->is_loop ? loops_.at(atom.symbol.get()) : value_of(ir::Dim(atom.symbol));
    case ir::AtomKind::FloorDiv:
      return binary(Code::FloorDivide, DType::I64, value_of(atom.a), value_of(atom.b));
    case ir::AtomKind::Mod:
      return binary(Code::Modulo, DType::I64, value_of(atom.a), value_of(atom.b));
    case ir::AtomKind::Min:
      return binary(Code::Minimum, DType::I64, value_of(atom.a), value_of(atom.b));
    case ir::AtomKind::Max:
      return binary(Code::Maximum, DType::I64, value_of(atom.a), value_of(atom.b));
  }
  throw InternalError("unknown kind of atom");
}

// Row-major.
KernelWriter::Register KernelWriter::offset(plan::BufferId buffer,
                                            std::span<const Register> indices) {
  const ir::Shape& shape = program_.buffers.at(static_cast<size_t>(buffer)).type.shape;
  Register offset = integer(0);
  for (size_t i = 0; i < shape.size(); ++i) {
    offset = binary(Code::Multiply, DType::I64, offset, value_of(shape[i]));
    offset = binary(Code::Add, DType::I64, offset, indices[i]);
  }
  return offset;
}

// --- Expressions ---

KernelWriter::Register KernelWriter::value_of(const Expr& expr) {
  if (const auto known = values_.find(expr.get()); known != values_.end()) return known->second;
  require_dtype(expr->dtype);
  return values_[expr.get()] = compute(expr);
}

KernelWriter::Register KernelWriter::compute(const Expr& expr) {
  switch (expr->kind) {
    case ExprKind::Constant:
      return constant(*expr);
    case ExprKind::Position:
      return value_of(expr->index);
    case ExprKind::Load:
      return load(*expr);
    case ExprKind::Reduced:
      return reduced_.at(static_cast<size_t>(expr->slot));
    case ExprKind::Apply:
      return apply(*expr);
    case ExprKind::Check:
      return check(*expr);
    case ExprKind::Accumulator:
      break;
  }
  throw InternalError("an accumulator in a loop nest");
}

KernelWriter::Register KernelWriter::constant(const ExprNode& node) {
  return is_floating(node.dtype) ? number(node.dtype, node.number) : integer(node.integer);
}

KernelWriter::Register KernelWriter::load(const ExprNode& node) {
  std::vector<Register> indices;
  for (const Expr& arg : node.args) indices.push_back(value_of(arg));
  const Register at = offset(node.buffer, indices);
  const int64_t buffer = interface_.buffer_index(node.buffer);
  if (!node.predicate) {
    return emit_to_fresh({.code = Code::Load, .dtype = node.dtype, .a = at, .immediate = buffer});
  }
  const Register predicate = value_of(node.predicate);
  const Register result = integer(0);  // the bits of 0.0 too
  const size_t skip = emit({.code = Code::SkipUnless, .a = predicate});
  emit({.code = Code::Load, .dtype = node.dtype, .to = result, .a = at, .immediate = buffer});
  code_[skip].immediate = static_cast<int64_t>(code_.size());
  return result;
}

KernelWriter::Register KernelWriter::check(const ExprNode& node) {
  const Register value = value_of(node.args[0]);
  const Register failed = value_of(plan::failure(node));
  emit({.code = Code::Note, .a = failed, .immediate = interface_.check_bit(node.check)});
  return value;
}

KernelWriter::Register KernelWriter::apply(const ExprNode& node) {
  std::vector<Register> args;
  for (const Expr& arg : node.args) args.push_back(value_of(arg));
  const DType dtype = node.args[0]->dtype;
  if (node.op == Op::cast) {
    return emit_to_fresh({.code = Code::Convert,
                          .dtype = node.dtype,
                          .a = args[0],
                          .immediate = static_cast<int64_t>(dtype)});
  }
  if (node.op == Op::where)
    return emit_to_fresh({.code = Code::Select, .a = args[0], .b = args[1], .c = args[2]});
  if (const Row* row = find_row(node.op, dtype)) {
    const Register second = args.size() == 2 ? args[1] : Register{0};
    return emit_to_fresh({.code = row->code, .dtype = dtype, .a = args[0], .b = second});
  }
  return apply_composed(node, args);
}

// What is made of other instructions.
KernelWriter::Register KernelWriter::apply_composed(const ExprNode& node,
                                                    const std::vector<Register>& args) {
  const DType dtype = node.args[0]->dtype;
  const auto zero = [&] { return number(dtype, 0); };
  const auto one = [&] { return number(dtype, 1); };
  switch (node.op) {
    case Op::ne:
      return binary(Code::Equal, DType::Bool, binary(Code::Equal, dtype, args[0], args[1]),
                    integer(0));
    case Op::gt:
      return binary(Code::Less, dtype, args[1], args[0]);
    case Op::ge:
      return binary(Code::LessEqual, dtype, args[1], args[0]);
    case Op::logical_not:
      return binary(Code::Equal, dtype, args[0], zero());
    case Op::relu:
      return binary(Code::Maximum, dtype, args[0], zero());
    case Op::reciprocal:
      return binary(Code::Divide, dtype, one(), args[0]);
    case Op::rsqrt:
      return binary(Code::Divide, dtype, one(),
                    emit_to_fresh({.code = Code::Sqrt, .dtype = dtype, .a = args[0]}));
    case Op::isinf:
      return binary(Code::Equal, dtype,
                    emit_to_fresh({.code = Code::Absolute, .dtype = dtype, .a = args[0]}),
                    number(dtype, std::numeric_limits<double>::infinity()));
    case Op::bitwise_not:
      if (dtype == DType::Bool) return binary(Code::Equal, dtype, args[0], zero());
      return binary(Code::Subtract, dtype, integer(-1), args[0]);
    default:
      break;
  }
  throw CompileError("[stub] got " + std::string(op_name(node.op)) + " of " +
                     std::string(dtype_name(dtype)) + ", which the machine cannot compute");
}

// --- Loops and stages ---

// Task t is point t of the outer loops, in row-major order.
void KernelWriter::bind_task(const std::vector<plan::Loop>& outer) {
  interface_.tasks = points(outer);
  Register rest = 0;
  for (size_t i = outer.size(); i-- > 0;) {
    const Register extent = value_of(outer[i].extent());
    loops_[outer[i].index.get()] = binary(Code::Modulo, DType::I64, rest, extent);
    rest = binary(Code::FloorDivide, DType::I64, rest, extent);
  }
}

void KernelWriter::open(const std::vector<plan::Loop>& loops) {
  for (const plan::Loop& loop : loops) {
    const Register extent = value_of(loop.extent());
    const Register index = fresh();
    loops_[loop.index.get()] = index;
    open_.push_back(emit({.code = Code::Loop, .to = index, .a = extent}));
  }
}

void KernelWriter::close(const std::vector<plan::Loop>& loops) {
  for (size_t i = 0; i < loops.size(); ++i) {
    const size_t begin = open_.back();
    open_.pop_back();
    code_[begin].immediate =
        static_cast<int64_t>(emit({.code = Code::End, .immediate = static_cast<int64_t>(begin)}));
  }
}

void KernelWriter::write(const plan::Reduction& reduction) {
  const DType dtype = reduction.value->dtype;
  require_dtype(dtype);
  const double infinity = std::numeric_limits<double>::infinity();
  const auto identity = [&]() -> std::pair<Code, Register> {
    switch (reduction.op) {
      case plan::ReduceOp::Sum:
        return {Code::Add, number(dtype, 0)};
      case plan::ReduceOp::Prod:
        return {Code::Multiply, number(dtype, 1)};
      case plan::ReduceOp::Max:
        return {Code::Maximum,
                is_floating(dtype) ? number(dtype, -infinity) : integer(least_integer(dtype))};
      case plan::ReduceOp::Min:
        return {Code::Minimum,
                is_floating(dtype) ? number(dtype, infinity) : integer(greatest_integer(dtype))};
      default:
        break;
    }
    throw CompileError("[stub] got an argmax or argmin, which the machine cannot compute");
  };
  const auto [code, result] = identity();
  open(reduction.loops);
  const Register value = value_of(reduction.value);
  emit({.code = code, .dtype = dtype, .to = result, .a = result, .b = value});
  close(reduction.loops);
  reduced_.push_back(result);
}

void KernelWriter::write(const plan::Store& store) {
  if (store.scan) throw CompileError("[stub] got a scan, which the machine cannot compute");
  open(store.loops);
  const Register value = value_of(store.value);
  std::vector<Register> indices;
  for (const plan::Index& index : store.indices) indices.push_back(value_of(index));
  emit({.code = Code::Store,
        .dtype = store.value->dtype,
        .a = offset(store.buffer, indices),
        .b = value,
        .immediate = interface_.buffer_index(store.buffer)});
  close(store.loops);
  interface_.task_writes[store.buffer] += points(store.loops);
}

}  // namespace kiln::stub
