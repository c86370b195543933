// Functions of a byte become tables of their 256 values, made when the model is compiled:
//
// Before: u8(... f(f32(q) * scale) ...) with q a byte, as quantised models have it between two layers: dequantise, an
// activation, quantise. After: table[q].
//
// A value of 8 bits is such a function if everything else that it is made of is known now. Tables hold what the
// interpreter computes, so that the results are the same on every machine. They are worth it where the function costs
// more than the target's `byte_table_cost`.
#include <algorithm>
#include <cstddef>
#include <map>
#include <utility>

#include "plan/form/fold.h"
#include "plan/form/kernels.h"
#include "plan/passes/fusion.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

constexpr int kBytes = 256;

bool is_byte(DType dtype) { return dtype == DType::U8 || dtype == DType::I8; }

// What an expression depends on: nothing, one byte, or more than that.
struct Source {
  Expr byte;  // null: nothing, or more
  bool is_more = false;
};

// One function of a byte, ready to be evaluated.
class Function {
 public:
  Function(const Expr& value, const Expr& byte) : byte_(byte) { add(value); }

  Scalar at(const Scalar& byte) const {
    std::vector<Scalar> values;
    for (const Step& step : steps_) values.push_back(evaluate_step(step, byte, values));
    return values.back();
  }

 private:
  struct Step {
    Expr expr;
    std::vector<size_t> args;
  };

  size_t add(const Expr& expr) {
    if (const auto found = places_.find(expr.get()); found != places_.end()) return found->second;
    Step step{expr, {}};
    if (expr != byte_) {
      for (const Expr& arg : expr->args) step.args.push_back(add(arg));
    }
    steps_.push_back(std::move(step));
    return places_[expr.get()] = steps_.size() - 1;
  }

  Scalar evaluate_step(const Step& step, const Scalar& byte,
                       const std::vector<Scalar>& values) const {
    if (step.expr == byte_) return byte;
    if (const auto known = as_scalar(step.expr)) return *known;
    std::vector<Scalar> args;
    for (const size_t i : step.args) args.push_back(values[i]);
    if (step.expr->op == ir::Op::cast) return convert(args[0], step.expr->dtype);
    return evaluate(step.expr->op, args, step.expr->gelu_tanh);
  }

  const Expr byte_;
  std::vector<Step> steps_;                   // operands before what uses them
  std::map<const ExprNode*, size_t> places_;  // never iterated
};

class Tabulator {
 public:
  explicit Tabulator(Program& program) : program_(program) {}

  bool changed() const { return changed_; }

  Expr run(const Expr& expr) {
    if (!expr) return nullptr;
    if (const auto found = results_.find(expr.get()); found != results_.end()) return found->second;
    kept_.push_back(expr);
    return results_[expr.get()] = is_worth_it(expr) ? look_up(expr) : with_tables_inside(expr);
  }

 private:
  bool is_worth_it(const Expr& expr) {
    if (!is_byte(expr->dtype)) return false;
    const Expr byte = source_of(expr).byte;
    if (byte == nullptr || byte == expr) return false;
    const TargetTraits& traits = program_.traits;
    return cost_of(traits, expr) - cost_of(traits, byte) > traits.byte_table_cost;
  }

  Expr look_up(const Expr& expr) {
    const Expr byte = source_of(expr).byte;
    changed_ = true;
    // The bits of a signed byte are the place of its value.
    const Expr place = cast(cast(run(byte), DType::U8), DType::I64);
    return load(table_of(expr, byte), expr->dtype, {place});
  }

  BufferId table_of(const Expr& expr, const Expr& byte) {
    const Function function(expr, byte);
    std::vector<int64_t> values;
    for (int i = 0; i < kBytes; ++i)
      values.push_back(function.at(ir::make_scalar_int(byte->dtype, i)).integer);
    const auto [found, fresh] = tables_.try_emplace({expr->dtype, values}, -1);
    if (!fresh) return found->second;
    std::byte* data = nullptr;
    ir::Literal literal = ir::Literal::allocate(expr->dtype, {kBytes}, &data);
    for (int i = 0; i < kBytes; ++i)
      ir::Literal::set_int(data, expr->dtype, i, values[static_cast<size_t>(i)]);
    Buffer table;
    table.kind = BufferKind::Constant;
    table.name = "table_" + std::to_string(tables_.size());
    table.type = ir::Type{expr->dtype, {ir::Dim(kBytes)}};
    table.literal = std::move(literal);
    return found->second = program_.add_buffer(std::move(table));
  }

  Expr with_tables_inside(const Expr& expr) {
    std::vector<Expr> args;
    for (const Expr& arg : expr->args) args.push_back(run(arg));
    Expr predicate = run(expr->predicate);
    if (args == expr->args && predicate == expr->predicate) return expr;
    return with_operands(*expr, std::move(args), std::move(predicate));
  }

  const Source& source_of(const Expr& expr) {
    if (const auto found = sources_.find(expr.get()); found != sources_.end()) return found->second;
    kept_.push_back(expr);
    Source source = source_of_operands(expr);
    if (source.is_more && is_byte(expr->dtype)) source = {expr, false};
    return sources_[expr.get()] = std::move(source);
  }

  Source source_of_operands(const Expr& expr) {
    if (expr->kind == ExprKind::Constant) return {};
    if (expr->kind != ExprKind::Apply) return {nullptr, true};
    Source all;
    for (const Expr& arg : expr->args) {
      const Source& one = source_of(arg);
      if (one.is_more || (all.byte && one.byte && all.byte != one.byte)) return {nullptr, true};
      if (one.byte) all.byte = one.byte;
    }
    return all;
  }

  Program& program_;
  bool changed_ = false;
  std::map<const ExprNode*, Source> sources_;  // never iterated, like the next
  std::map<const ExprNode*, Expr> results_;
  std::vector<Expr> kept_;  // keys of both must not be freed and used again
  std::map<std::pair<DType, std::vector<int64_t>>, BufferId> tables_;
};

}  // namespace

bool tabulate_bytes(Program& program) {
  if (program.traits.byte_table_cost == 0) return false;
  Tabulator tabulator(program);
  for (Kernel& kernel : program.kernels)
    transform_exprs(kernel, [&](const Expr& value) { return tabulator.run(value); });
  return tabulator.changed();
}

}  // namespace kiln::plan
