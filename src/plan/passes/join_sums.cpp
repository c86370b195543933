// Two convolutions whose results meet in an epilogue become one with a second sum: the last convolution of a residual
// block and the projection of the block's input that it is added to.
//
// Before: the epilogue of a convolution (of one pixel it is a MatMul) loads, for each of its own points, the result of
// another one at that very point, which nobody else reads. One of them takes one pixel for each result, without
// padding. After: one convolution at the place of the reader, whose epilogue has both sums; the other result is
// never stored.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "plan/form/kernels.h"
#include "plan/passes/contraction_result.h"
#include "plan/passes/fusion.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

bool is_view(const View& view, const ir::Dim& rows, const ir::Dim& columns) {
  return view.offset.is_constant(0) && view.strides.size() == 2 && view.strides[0] == rows &&
         view.strides[1] == columns;
}

// A product of rows and filters as a convolution of one pixel, the rows of which are one line of an image.
std::optional<Convolution> as_convolution(const Program& program, const Kernel& kernel) {
  if (const auto* convolution = std::get_if<Convolution>(&kernel.body)) return *convolution;
  const auto* matmul = std::get_if<MatMul>(&kernel.body);
  if (!matmul || !matmul->batch.empty() || matmul->pair || matmul->groups ||
      !matmul->k.extent().is_constant())
    return std::nullopt;
  const ir::Dim &m = matmul->m.extent(), &n = matmul->n.extent(), &k = matmul->k.extent();
  const auto is_whole = [&](BufferId id, const ir::Dim& elements) {
    return program.buffers[id].type.elements() == elements;
  };
  if (!is_view(matmul->a, k, 1) || !is_view(matmul->b, 1, k) || !is_view(matmul->out, n, 1) ||
      !is_whole(matmul->a.buffer, m * k) || !is_whole(matmul->b.buffer, n * k) ||
      !is_whole(matmul->out.buffer, m * n))
    return std::nullopt;
  Convolution c{make_loop("b", 1), make_loop("y", 1), matmul->m, matmul->n};
  c.input = matmul->a.buffer;
  c.weight = matmul->b.buffer;
  c.out = matmul->out.buffer;
  c.height = 1;
  c.width = m;
  c.channels = k.constant();
  c.pad_top = c.pad_left = 0;
  c.formats = matmul->formats;
  c.epilogue = matmul->epilogue;
  return c;
}

// The sum of a convolution as a second one, for results that are the pixels of another convolution in their order.
std::optional<PixelSum> as_second(const Convolution& c) {
  const bool is_pixel = c.kernel_h == 1 && c.kernel_w == 1 && c.groups == 1 && !c.pool &&
                        !c.second && c.padding == 0 && c.pad_top.is_constant(0) &&
                        c.pad_left.is_constant(0);
  if (!is_pixel) return std::nullopt;
  return PixelSum{c.input, c.weight, c.height, c.width, c.channels, c.stride_h, c.stride_w};
}

// Whether its pixels are one line, each of one pixel of the input.
bool is_line(const Convolution& c) {
  return c.b.extent().is_constant(1) && c.y.extent().is_constant(1) && c.kernel_h == 1 &&
         c.kernel_w == 1 && c.stride_w == 1 && c.pad_left.is_constant(0) && c.width == c.x.extent();
}

// The same results as those of `to`, over its loops, where there are as many; an image that was one line gets its lines.
bool give_loops(Convolution& c, const Convolution& to) {
  const auto replace = [&](const std::vector<Loop>& loops, const Indices& values) {
    c.epilogue = substitute(c.epilogue, replace_loops(loops, values));
    c.b = to.b;
    c.y = to.y;
    c.x = to.x;
    c.o = to.o;
    return true;
  };
  if (!(c.o.extent() == to.o.extent())) return false;
  const Index b(to.b.index), y(to.y.index), x(to.x.index), o(to.o.index);
  if (c.b.extent() == to.b.extent() && c.y.extent() == to.y.extent() &&
      c.x.extent() == to.x.extent())
    return replace({c.b, c.y, c.x, c.o}, {b, y, x, o});
  const ir::Dim pixels = to.b.extent() * to.y.extent() * to.x.extent();
  if (!is_line(c) || !(c.x.extent() == pixels)) return false;
  c.height = to.y.extent();
  c.width = to.x.extent();
  return replace({c.x, c.o}, {(b * to.y.extent() + y) * to.x.extent() + x, o});
}

// Whether a reader loads a result in its epilogue alone, for each of its own points at that very point.
bool loads_own_point(const Program& program, const Kernel& reader, const Expr& epilogue,
                     BufferId result) {
  const std::vector<BufferId> operand = operands(reader);
  if (std::ranges::find(operand, result) != operand.end()) return false;
  const ir::Shape& shape = program.buffers[result].type.shape;
  const Index own = contraction_result(reader)->offset;
  bool matches = true;
  visit(epilogue, [&](const ExprNode& node) {
    if (node.kind != ExprKind::Load || node.buffer != result) return;
    const auto at = load_indices(node);
    matches &= at && !node.predicate && linearize(shape, *at) == own;
  });
  return matches;
}

// A convolution with another's sum as its second one, which its epilogue loads or which loads it, as `result`.
std::optional<Convolution> joined(const Program& program, Convolution producer, Convolution reader,
                                  BufferId result) {
  const auto of_producer = as_second(producer), of_reader = as_second(reader);
  if (producer.second || reader.second || (!of_producer && !of_reader)) return std::nullopt;
  const bool is_reader_main = of_producer.has_value();
  Expr& second = is_reader_main ? producer.epilogue : reader.epilogue;
  second = rewrite(second, [](const ExprNode& node) -> Expr {
    return node.kind == ExprKind::Accumulator ? accumulator(node.dtype, 1) : nullptr;
  });
  Convolution c = is_reader_main ? reader : producer;
  c.epilogue = rewrite(reader.epilogue, [&](const ExprNode& node) -> Expr {
    return node.kind == ExprKind::Load && node.buffer == result ? producer.epilogue : nullptr;
  });
  c.out = reader.out;
  const PixelSum& sum = is_reader_main ? *of_producer : *of_reader;
  if (!allows_second_sum(program, c, sum)) return std::nullopt;
  c.second = sum;
  return c;
}

bool join(Program& program, size_t producer_index, size_t reader_index) {
  const Kernel &before = program.kernels[producer_index], &after = program.kernels[reader_index];
  auto producer = as_convolution(program, before), reader = as_convolution(program, after);
  if (!producer || !reader) return false;
  const BufferId result = producer->out;
  if (!loads_own_point(program, after, reader->epilogue, result)) return false;
  const bool has_loops =
      is_line(*reader) ? give_loops(*reader, *producer) : give_loops(*producer, *reader);
  if (!has_loops) return false;
  auto convolution = joined(program, *producer, *reader, result);
  if (!convolution || !is_small_enough(program.traits, convolution->epilogue) ||
      !loads_in_bounds(program, convolution->epilogue))
    return false;
  Kernel kernel = after;
  kernel.body = std::move(*convolution);
  if (!epilogue_takes(program, kernel, std::get<Convolution>(kernel.body).epilogue)) return false;
  absorb_name(kernel, before);
  program.kernels[reader_index] = std::move(kernel);
  make_empty(program.kernels[producer_index]);
  return true;
}

}  // namespace

bool join_sums(Program& program) {
  if (!program.traits.second_sums) return false;
  const auto result = [&](size_t i) {
    return epilogue_of(program.kernels[i]) ? writes(program.kernels[i])[0] : BufferId{-1};
  };
  return fuse_with_readers(program, result, [&](size_t producer, size_t reader) {
    return join(program, producer, reader);
  });
}

}  // namespace kiln::plan
