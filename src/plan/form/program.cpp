#include "plan/form/program.h"

#include <algorithm>

#include "plan/form/kernels.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

void add_once(std::vector<BufferId>& buffers, BufferId buffer) {
  if (buffer >= 0 && std::ranges::find(buffers, buffer) == buffers.end()) buffers.push_back(buffer);
}

template <typename Body, typename Visit>
void visit_stage_exprs(Body& nest, const Visit& visit) {
  for (auto& stage : nest.stages) {
    std::visit([&](auto& s) { visit(s.value); }, stage);
  }
}

// Calls visit(Expr&) for each expression slot of a kernel that holds one.
template <typename KernelType, typename Visit>
void visit_expr_slots(KernelType& kernel, const Visit& visit) {
  const auto when_present = [&](auto& expr) {
    if (expr) visit(expr);
  };
  if (auto* nest = std::get_if<LoopNest>(&kernel.body)) visit_stage_exprs(*nest, when_present);
  if (auto* matmul = std::get_if<MatMul>(&kernel.body)) when_present(matmul->epilogue);
  if (auto* convolution = std::get_if<Convolution>(&kernel.body)) {
    when_present(convolution->epilogue);
  }
  if (auto* attention = std::get_if<Attention>(&kernel.body)) {
    when_present(attention->keep);
    when_present(attention->bias);
  }
  if (auto* sort = std::get_if<Sort>(&kernel.body)) when_present(sort->key);
  if (auto* scatter = std::get_if<Scatter>(&kernel.body)) {
    when_present(scatter->initial);
    when_present(scatter->index);
    when_present(scatter->value);
  }
}

}  // namespace

const Expr& value_of(const Stage& stage) {
  return std::visit([](const auto& s) -> const Expr& { return s.value; }, stage);
}

Expr& value_of(Stage& stage) {
  return std::visit([](auto& s) -> Expr& { return s.value; }, stage);
}

const std::vector<Loop>& loops_of(const Stage& stage) {
  return std::visit([](const auto& s) -> const std::vector<Loop>& { return s.loops; }, stage);
}

std::vector<Loop>& loops_of(Stage& stage) {
  return std::visit([](auto& s) -> std::vector<Loop>& { return s.loops; }, stage);
}

void for_each_expr(const Kernel& kernel, const std::function<void(const Expr&)>& visitor) {
  visit_expr_slots(kernel, visitor);
}

void transform_exprs(Kernel& kernel, const std::function<Expr(const Expr&)>& transform) {
  visit_expr_slots(kernel, [&](Expr& expr) { expr = transform(expr); });
}

std::vector<BufferId*> buffer_slots(Kernel& kernel) {
  if (auto* c = std::get_if<Convolution>(&kernel.body)) {
    if (!c->second) return {&c->input, &c->weight, &c->out};
    return {&c->input, &c->weight, &c->second->input, &c->second->weight, &c->out};
  }
  if (auto* m = std::get_if<MatMul>(&kernel.body)) {
    std::vector<BufferId*> slots = {&m->a.buffer, &m->b.buffer, &m->out.buffer};
    if (m->pair) slots.push_back(&m->pair->buffer);
    if (m->groups) slots.push_back(&m->groups->scales.buffer);
    if (m->groups && m->groups->zeros) slots.push_back(&m->groups->zeros->buffer);
    return slots;
  }
  if (auto* a = std::get_if<Attention>(&kernel.body)) {
    return {&a->q.buffer, &a->k.buffer, &a->v.buffer, &a->out.buffer};
  }
  if (auto* sort = std::get_if<Sort>(&kernel.body)) return {&sort->out.buffer};
  if (auto* scatter = std::get_if<Scatter>(&kernel.body)) return {&scatter->out.buffer};
  std::vector<BufferId*> result;
  if (auto* custom = std::get_if<Custom>(&kernel.body)) {
    for (Custom::Tensor& input : custom->inputs) result.push_back(&input.buffer);
    for (Custom::Tensor& output : custom->outputs) result.push_back(&output.buffer);
    return result;
  }
  for (Stage& stage : std::get<LoopNest>(kernel.body).stages) {
    if (auto* store = std::get_if<Store>(&stage)) result.push_back(&store->buffer);
  }
  return result;
}

void renumber_buffers(Kernel& kernel, const std::vector<BufferId>& ids) {
  transform_exprs(kernel, [&](const Expr& expr) {
    return rewrite(expr, [&](const ExprNode& node) -> Expr {
      if (node.kind != ExprKind::Load || ids[node.buffer] == node.buffer) return nullptr;
      return load(ids[node.buffer], node.dtype, node.args, node.predicate);
    });
  });
  for (BufferId* id : buffer_slots(kernel)) *id = ids[*id];
}

std::vector<const View*> input_views(const Kernel& kernel) {
  if (const auto* matmul = std::get_if<MatMul>(&kernel.body)) {
    std::vector<const View*> views = {&matmul->a, &matmul->b};
    if (matmul->pair) views.push_back(&*matmul->pair);
    if (matmul->groups) views.push_back(&matmul->groups->scales);
    if (matmul->groups && matmul->groups->zeros) views.push_back(&*matmul->groups->zeros);
    return views;
  }
  if (const auto* attention = std::get_if<Attention>(&kernel.body)) {
    return {&attention->q, &attention->k, &attention->v};
  }
  return {};
}

std::vector<BufferId> operands(const Kernel& kernel) {
  std::vector<BufferId> result;
  for (const View* view : input_views(kernel)) add_once(result, view->buffer);
  if (const auto* convolution = std::get_if<Convolution>(&kernel.body)) {
    add_once(result, convolution->input);
    add_once(result, convolution->weight);
    if (convolution->second) {
      add_once(result, convolution->second->input);
      add_once(result, convolution->second->weight);
    }
  }
  if (const auto* custom = std::get_if<Custom>(&kernel.body))
    for (const Custom::Tensor& input : custom->inputs) add_once(result, input.buffer);
  return result;
}

bool share_memory(const Program& program, const std::vector<BufferId>& some,
                  const std::vector<BufferId>& others) {
  const auto memory_of = [&](BufferId buffer) {
    while (program.buffers[buffer].alias_of >= 0) buffer = program.buffers[buffer].alias_of;
    return buffer;
  };
  return std::ranges::any_of(some, [&](BufferId buffer) {
    return std::ranges::find(others, memory_of(buffer), memory_of) != others.end();
  });
}

std::vector<BufferId> loads(const Expr& expr) {
  std::vector<BufferId> result;
  visit(expr, [&](const ExprNode& node) {
    if (node.kind == ExprKind::Load) add_once(result, node.buffer);
  });
  return result;
}

std::vector<BufferId> reads(const Kernel& kernel) {
  std::vector<BufferId> result = operands(kernel);
  for_each_expr(kernel, [&](const Expr& expr) {
    for (BufferId buffer : loads(expr)) add_once(result, buffer);
  });
  return result;
}

std::vector<BufferId> writes(const Kernel& kernel) {
  std::vector<BufferId> result;
  if (const auto* nest = std::get_if<LoopNest>(&kernel.body)) {
    for (const Stage& stage : nest->stages) {
      if (const auto* store = std::get_if<Store>(&stage)) add_once(result, store->buffer);
    }
  }
  if (const auto* matmul = std::get_if<MatMul>(&kernel.body)) add_once(result, matmul->out.buffer);
  if (const auto* convolution = std::get_if<Convolution>(&kernel.body)) {
    add_once(result, convolution->out);
  }
  if (const auto* attention = std::get_if<Attention>(&kernel.body)) {
    add_once(result, attention->out.buffer);
  }
  if (const auto* sort = std::get_if<Sort>(&kernel.body)) add_once(result, sort->out.buffer);
  if (const auto* scatter = std::get_if<Scatter>(&kernel.body))
    add_once(result, scatter->out.buffer);
  if (const auto* custom = std::get_if<Custom>(&kernel.body))
    for (const Custom::Tensor& output : custom->outputs) add_once(result, output.buffer);
  return result;
}

ir::Op combining_op(ReduceOp op) {
  switch (op) {
    case ReduceOp::Sum:
      return ir::Op::add;
    case ReduceOp::Prod:
      return ir::Op::mul;
    case ReduceOp::Max:
      return ir::Op::maximum;
    case ReduceOp::Min:
      return ir::Op::minimum;
    default:
      break;
  }
  throw InternalError("ArgMax and ArgMin combine no values");
}

namespace {

// An element of 8 bits as i32, less a zero point.
bool is_byte(const Expr& expr) {
  if (expr->kind != ExprKind::Apply || expr->dtype != DType::I32) return false;
  if (expr->op == ir::Op::sub)
    return is_byte(expr->args[0]) && expr->args[1]->kind == ExprKind::Constant;
  const DType from = expr->args[0]->dtype;
  return expr->op == ir::Op::cast && (from == DType::U8 || from == DType::I8);
}

}  // namespace

bool sums_byte_products(const Stage& stage) {
  const auto* reduction = std::get_if<Reduction>(&stage);
  if (reduction == nullptr || reduction->op != ReduceOp::Sum) return false;
  const Expr& value = reduction->value;
  return value->kind == ExprKind::Apply && value->op == ir::Op::mul && value->dtype == DType::I32 &&
         is_byte(value->args[0]) && is_byte(value->args[1]);
}

bool allows_winograd(const Program& program, const Convolution& c) {
  const bool is_small = c.kernel_h == 3 && c.kernel_w == 3 && c.stride_h == 1 && c.stride_w == 1 &&
                        c.dilation_h == 1 && c.dilation_w == 1 && c.groups == 1;
  const DType pixel = program.buffers[c.input].type.dtype,
              weight = program.buffers[c.weight].type.dtype;
  return is_small && c.formats == Formats{.weight = weight} &&
         (pixel == DType::F32 || is_16_bit_float(pixel)) &&
         (weight == DType::F32 || is_16_bit_float(weight));
}

bool allows_pool(const Program& program, const Convolution& c, const Pool& pool) {
  const auto& most = program.traits.pooled_convolutions;
  const DType dtype = program.buffers[c.input].type.dtype;
  if (!most || !is_16_bit_float(dtype) || program.buffers[c.weight].type.dtype != dtype ||
      program.buffers[c.out].type.dtype != dtype || c.winograd != 0 ||
      program.buffers[c.weight].kind != BufferKind::Constant)
    return false;
  const auto within = [](std::initializer_list<int64_t> sizes, int64_t limit) {
    return std::ranges::all_of(sizes, [&](int64_t size) { return size >= 1 && size <= limit; });
  };
  return c.groups == 1 && c.dilation_h == 1 && c.dilation_w == 1 &&
         within({c.channels}, most->channels) && within({c.kernel_h, c.kernel_w}, most->kernel) &&
         within({c.stride_h, c.stride_w}, most->stride) &&
         within({pool.kernel_h, pool.kernel_w, pool.stride_h, pool.stride_w}, most->window) &&
         pool.pad_top >= 0 && pool.pad_top < pool.kernel_h && pool.pad_left >= 0 &&
         pool.pad_left < pool.kernel_w && c.o.extent().is_constant() &&
         c.o.extent().constant() % most->vector == 0;
}

std::optional<Corner> corner_of(const ir::Dim& pad, const ir::Dim& pixels, int64_t stride,
                                const ir::Dim& size) {
  const ir::Dim upper = (pixels - 1) * stride - pad - (size - 1);
  if (!pad.is_constant() || !upper.is_constant()) return std::nullopt;
  return Corner{-pad.constant(), upper.constant()};
}

bool allows_second_sum(const Program& program, const Convolution& c, const PixelSum& second) {
  const auto& limits = program.traits.second_sums;
  const DType dtype = program.buffers[c.input].type.dtype;
  if (!limits || !is_16_bit_float(dtype) || c.groups != 1 || c.winograd != 0 || c.pool ||
      c.formats.accumulator != DType::F32)
    return false;
  // Results of the graph may begin anywhere in memory.
  const auto suits_image = [&](BufferId id) {
    const Buffer& image = program.buffers[id];
    return image.type.dtype == dtype && image.kind != BufferKind::Output;
  };
  const auto suits_filters = [&](BufferId id) {
    const Buffer& filters = program.buffers[id];
    return filters.type.dtype == dtype && filters.kind == BufferKind::Constant;
  };
  const auto suits_axis = [&](const ir::Dim& pad, const Loop& pixels, int64_t stride,
                              const ir::Dim& size, int64_t taps_apart) {
    const auto corner = corner_of(pad, pixels.extent(), stride, size);
    return corner && stride <= limits->stride && taps_apart <= limits->reach &&
           std::min(corner->lower, corner->upper) >= -limits->corner &&
           std::max(corner->lower, corner->upper) < limits->corner;
  };
  const ir::Dim pixels = c.b.extent() * c.y.extent() * c.x.extent();
  const bool suits_output =
      c.o.extent().is_constant() && c.o.extent().constant() >= limits->fewest_filters &&
      pixels.at_opt() >= limits->fewest_pixels && pixels.upper_bound() <= limits->most_pixels;
  return suits_output && suits_image(c.input) && suits_image(second.input) &&
         suits_filters(c.weight) && suits_filters(second.weight) &&
         c.channels % limits->vector == 0 && second.channels % limits->vector == 0 &&
         suits_axis(c.pad_top, c.y, c.stride_h, c.height, (c.kernel_h - 1) * c.dilation_h) &&
         suits_axis(c.pad_left, c.x, c.stride_w, c.width, (c.kernel_w - 1) * c.dilation_w) &&
         suits_axis(0, c.y, second.stride_h, second.height, 0) &&
         suits_axis(0, c.x, second.stride_w, second.width, 0);
}

}  // namespace kiln::plan
