#include "plan/passes/inliner.h"

#include <algorithm>

#include "plan/form/kernels.h"
#include "plan/passes/contraction_result.h"
#include "plan/passes/fusion.h"

namespace kiln::plan {
namespace {

class Inliner {
 public:
  Inliner(Program& program, Consumers consumers)
      : program_(program), uses_(program), consumers_(consumers) {}

  bool run() {
    bool changed = false;
    for (size_t i = 0; i < program_.kernels.size(); ++i) changed |= try_producer(i);
    if (changed) remove_empty(program_);
    return changed;
  }

 private:
  const TargetTraits& traits() const { return program_.traits; }

  bool try_producer(size_t index) {
    const auto producer = as_pointwise(program_.kernels[index]);
    if (!producer || program_.buffers[producer->buffer].kind == BufferKind::Constant) return false;
    const BufferId buffer = producer->buffer;
    if (uses_.writers[buffer].size() != 1 || uses_.readers[buffer].empty()) return false;
    if (has_checks(producer->value) && !is_read_whole(buffer)) return false;
    const bool removable = program_.buffers[buffer].kind == BufferKind::Temporary;
    if (follows_narrowing(*producer)) return false;
    if (is_free(producer->value)) return inline_everywhere(index, *producer);
    if (!removable || !all_can_take(*producer)) return false;
    if (!worth_it(*producer)) return false;
    return inline_everywhere(index, *producer);
  }

  // No dearer than the load that it replaces.
  bool is_free(const Expr& value) const {
    const int64_t loads = load_count(value), cost = cost_of(traits(), value);
    return loads == 0 ? cost <= traits().position_cost : loads == 1 && cost <= 1;
  }

  bool takes_inlining(const Kernel& kernel) const {
    return consumers_ == Consumers::All || !std::holds_alternative<LoopNest>(kernel.body) ||
           as_pointwise(kernel).has_value() || is_concat(kernel);
  }
  static bool is_concat(const Kernel& kernel) {
    const auto& nest = std::get<LoopNest>(kernel.body);
    return std::ranges::all_of(nest.stages, [](const Stage& stage) {
      const auto* store = std::get_if<Store>(&stage);
      return store && !store->scan;
    });
  }

  // Whether some loop nest reads every element: it makes the same checks.
  bool is_read_whole(BufferId buffer) const {
    return std::ranges::any_of(uses_.readers[buffer], [&](size_t reader) {
      const auto* nest = std::get_if<LoopNest>(&program_.kernels[reader].body);
      return nest && takes_inlining(program_.kernels[reader]) &&
             std::ranges::any_of(nest->stages, [&](const Stage& stage) {
               return reads_all(program_, buffer, value_of(stage),
                                with_loops(nest->outer, loops_of(stage)));
             });
    });
  }

  // Checks stay in loop nests.
  static bool takes_checks(const Kernel& kernel, const Pointwise& producer) {
    return std::holds_alternative<LoopNest>(kernel.body) || !has_checks(producer.value);
  }

  bool all_can_take(const Pointwise& producer) const {
    return std::ranges::all_of(uses_.readers[producer.buffer], [&](size_t reader) {
      const Kernel& kernel = program_.kernels[reader];
      const auto operand = operands(kernel);
      return takes_inlining(kernel) && takes_checks(kernel, producer) &&
             std::ranges::find(operand, producer.buffer) == operand.end();
    });
  }

  bool reads_contraction(const Pointwise& producer) const {
    return std::ranges::any_of(loads(producer.value), [&](BufferId buffer) {
      const auto& writers = uses_.writers[buffer];
      return writers.size() == 1 &&
             !std::holds_alternative<LoopNest>(program_.kernels[writers[0]].body);
    });
  }

  // Whether its result takes less memory than that of the contraction that it reads: a quantisation, which becomes an
  // epilogue and takes what follows after it, unless another contraction does that.
  bool narrows_contraction(const Pointwise& producer) const {
    const auto size = [&](BufferId buffer) {
      return dtype_size(program_.buffers[buffer].type.dtype);
    };
    return std::ranges::any_of(loads(producer.value), [&](BufferId buffer) {
      const auto& writers = uses_.writers[buffer];
      return writers.size() == 1 && uses_.readers[buffer].size() == 1 &&
             epilogue_of(program_.kernels[writers[0]]) != nullptr &&
             size(producer.buffer) < size(buffer);
    });
  }

  // Whether it is next in line for the epilogue that such a result becomes, and would be computed by each of
  // its readers otherwise.
  bool follows_narrowing(const Pointwise& producer) const {
    if (consumers_ != Consumers::Pointwise || uses_.readers[producer.buffer].size() < 2)
      return false;
    return std::ranges::any_of(loads(producer.value), [&](BufferId buffer) {
      const auto& writers = uses_.writers[buffer];
      if (writers.size() != 1 || uses_.readers[buffer].size() != 1) return false;
      const auto before = as_pointwise(program_.kernels[writers[0]]);
      return before && narrows_contraction(*before);
    });
  }

  bool worth_it(const Pointwise& producer) const {
    const int64_t own = std::max<int64_t>(1, points_at_opt(producer.loops));
    int64_t points = 0;
    for (size_t reader : uses_.readers[producer.buffer]) {
      points += loading_points(program_.kernels[reader], producer.buffer);
    }
    // What an epilogue could compute must stay one kernel with one consumer.
    if (consumers_ == Consumers::Pointwise && reads_contraction(producer)) {
      return uses_.readers[producer.buffer].size() == 1 && points <= own &&
             !narrows_contraction(producer);
    }
    const int64_t cost = cost_of(traits(), producer.value) + load_count(producer.value);
    return (points - own) * cost <= traits().round_trip_cost * own;
  }

  // How many times a kernel evaluates loads of a buffer.
  static int64_t loading_points(const Kernel& kernel, BufferId buffer) {
    if (const auto* nest = std::get_if<LoopNest>(&kernel.body)) {
      int64_t points = 0;
      for (const Stage& stage : nest->stages) {
        points += load_sites(value_of(stage), buffer) * points_at_opt(loops_of(stage));
      }
      return points * points_at_opt(nest->outer);
    }
    if (const auto* scatter = std::get_if<Scatter>(&kernel.body)) {
      const int64_t written =
          load_sites(scatter->index, buffer) + load_sites(scatter->value, buffer);
      return (load_sites(scatter->initial, buffer) * points_at_opt({scatter->position}) +
              written * points_at_opt({scatter->write})) *
             points_at_opt(with_loops(scatter->outer, scatter->inner));
    }
    int64_t sites = 0;
    for_each_expr(kernel, [&](const Expr& expr) { sites += load_sites(expr, buffer); });
    return sites * points_at_opt(expr_loops(kernel));
  }

  // The loops around the epilogue or the mask of a contraction.
  static std::vector<Loop> expr_loops(const Kernel& kernel) {
    if (const auto* matmul = std::get_if<MatMul>(&kernel.body)) {
      return with_loops(matmul->batch, {matmul->m, matmul->n});
    }
    if (const auto* c = std::get_if<Convolution>(&kernel.body)) return {c->b, c->y, c->x, c->o};
    if (const auto* sort = std::get_if<Sort>(&kernel.body))
      return with_loops(sort->outer, {sort->element});
    const auto& attention = std::get<Attention>(kernel.body);
    return with_loops(attention.batch, {attention.i, attention.j});
  }

  // Inlines into each reader that stays within the limits; true if any did.
  bool inline_everywhere(size_t index, const Pointwise& producer) {
    bool changed = false, all = true;
    const std::vector<size_t> readers = uses_.readers[producer.buffer];
    for (size_t reader : readers) {
      const Kernel& kernel = program_.kernels[reader];
      const bool done =
          takes_inlining(kernel) && takes_checks(kernel, producer) && inline_into(reader, producer);
      if (done) {
        absorb_sources(program_.kernels[reader], program_.kernels[index]);
        uses_.update(program_, reader);
      }
      changed |= done;
      const auto still = reads(program_.kernels[reader]);
      all &= std::ranges::find(still, producer.buffer) == still.end();
    }
    if (all && program_.buffers[producer.buffer].kind == BufferKind::Temporary) {
      make_empty(program_.kernels[index]);
      uses_.update(program_, index);
    }
    return changed;
  }

  void absorb_sources(Kernel& kernel, const Kernel& producer) const {
    // Sources, arithmetic on positions and the like do not name kernels.
    if (cost_of(traits(), as_pointwise(producer)->value) > 0) absorb_name(kernel, producer);
  }

  // Whether the value of a load makes no use of an index that is checked: one row for all.
  static bool loses_checks(const ExprNode& load, const Expr& value) {
    const std::vector<int32_t> kept = checks_of(value);
    return std::ranges::any_of(load.args, [&](const Expr& arg) {
      return std::ranges::any_of(checks_of(arg), [&](int32_t check) {
        return std::ranges::find(kept, check) == kept.end();
      });
    });
  }
  static std::vector<int32_t> checks_of(const Expr& expr) {
    std::vector<int32_t> checks;
    visit(expr, [&](const ExprNode& node) {
      if (node.kind == ExprKind::Check) checks.push_back(node.check);
    });
    return checks;
  }

  bool inline_into(size_t reader, const Pointwise& producer) {
    Kernel copy = program_.kernels[reader];
    bool replaced = false, allowed = true;
    transform_exprs(copy, [&](const Expr& expr) {
      Expr result = rewrite(expr, [&](const ExprNode& node) -> Expr {
        if (node.kind != ExprKind::Load || node.buffer != producer.buffer) return nullptr;
        Expr value = inline_load(producer, node);
        if (value && loses_checks(node, value)) return nullptr;
        replaced |= value != nullptr;
        return value;
      });
      if (result == expr) return expr;
      allowed &= is_small_enough(traits(), result) && loads_in_bounds(program_, result) &&
                 epilogue_takes(program_, program_.kernels[reader], result);
      return result;
    });
    if (!replaced || !allowed) return false;
    program_.kernels[reader] = std::move(copy);
    return true;
  }

  Program& program_;
  Uses uses_;
  const Consumers consumers_;
};

}  // namespace

bool inline_producers(Program& program, Consumers consumers) {
  return Inliner(program, consumers).run();
}

}  // namespace kiln::plan
