#include "plan/form/parts.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "plan/form/access.h"
#include "plan/form/kernels.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

// The size symbols of everything in a kernel.
class Mentions {
 public:
  explicit Mentions(const Kernel& kernel) {
    std::visit([&](const auto& body) { add(body); }, kernel.body);
    for_each_expr(kernel, [&](const Expr& expr) {
      visit(expr, [&](const ExprNode& node) { add(node.index); });
    });
  }
  void add(const ir::Dim& dim) {
    for (const ir::SymbolPtr& symbol : dim.symbols()) symbols.insert(symbol);
  }

  std::set<ir::SymbolPtr> symbols;  // looked up, never walked

 private:
  void add(const std::vector<Loop>& loops) {
    for (const Loop& loop : loops) add(loop.extent());
  }
  void add(const View& view) {
    add(view.offset);
    for (const ir::Dim& stride : view.strides) add(stride);
  }
  void add(const LoopNest& nest) {
    add(nest.outer);
    for (const Stage& stage : nest.stages) {
      add(loops_of(stage));
      if (const auto* store = std::get_if<Store>(&stage))
        for (const Index& index : store->indices) add(index);
    }
  }
  void add(const MatMul& matmul) {
    add(with_loops(matmul.batch, {matmul.m, matmul.n, matmul.k}));
    for (const View* view : {&matmul.a, &matmul.b, &matmul.out}) add(*view);
    if (matmul.pair) add(*matmul.pair);
  }
  void add(const Convolution& c) {
    add(std::vector<Loop>{c.b, c.y, c.x, c.o});
    for (const ir::Dim& dim : {c.height, c.width, c.pad_top, c.pad_left}) add(dim);
    if (c.second)
      for (const ir::Dim& dim : {c.second->height, c.second->width}) add(dim);
  }
  void add(const Attention& a) {
    add(with_loops(a.batch, {a.i, a.j}));
    for (const View* view : {&a.q, &a.k, &a.v, &a.out}) add(*view);
  }
  void add(const Sort& sort) {
    add(with_loops(sort.outer, {sort.element, sort.place}));
    add(sort.out);
  }
  void add(const Scatter& s) {
    add(with_loops(with_loops(s.outer, {s.position, s.write}), s.inner));
    add(s.out);
  }
  void add(const Custom& custom) {
    for (const auto* tensors : {&custom.inputs, &custom.outputs})
      for (const Custom::Tensor& tensor : *tensors)
        for (const ir::Dim& size : tensor.shape) add(size);
  }
};

}  // namespace

std::vector<size_t> mentioned_sizes(const Program& program, const Kernel& kernel) {
  Mentions mentions(kernel);
  for (const auto& touched : {reads(kernel), writes(kernel)})
    for (const BufferId buffer : touched)
      for (const ir::Dim& dim : program.buffers[buffer].type.shape) mentions.add(dim);
  std::vector<size_t> result;
  for (size_t i = 0; i < program.data_sizes.size(); ++i)
    if (mentions.symbols.contains(program.data_sizes[i].symbol)) result.push_back(i);
  return result;
}

bool is_count(const Program& program, BufferId buffer) {
  return std::ranges::find(program.data_sizes, buffer, &DataSize::count) !=
         program.data_sizes.end();
}

std::vector<KernelRange> repeat_ranges(const Program& program) {
  std::vector<KernelRange> ranges(program.repeats.size());
  for (size_t i = 0; i < program.kernels.size(); ++i) {
    for (int32_t at = program.kernels[i].repeat; at != -1;) {
      const auto repeat = static_cast<size_t>(at);
      if (ranges[repeat].end == 0) ranges[repeat].first = i;
      ranges[repeat].end = i + 1;
      at = program.repeats[repeat].outer;
    }
  }
  return ranges;
}

int32_t repeat_below(const Program& program, const Kernel& kernel, int32_t outer) {
  int32_t repeat = kernel.repeat;
  if (repeat == outer) return -1;
  while (program.repeats[static_cast<size_t>(repeat)].outer != outer)
    repeat = program.repeats[static_cast<size_t>(repeat)].outer;
  return repeat;
}

bool is_condition(const Program& program, BufferId buffer) {
  return std::ranges::find(program.repeats, buffer, &Repeat::condition) != program.repeats.end();
}

void order_by_parts(Program& program) {
  std::vector<int> part_of(program.buffers.size(), 0);  // that writes it last
  std::vector<int> kernel_parts;
  for (const Kernel& kernel : program.kernels) {
    int part = 0;
    for (const auto& touched : {reads(kernel), writes(kernel)})
      for (const BufferId buffer : touched) part = std::max(part, part_of[buffer]);
    for (const size_t size : mentioned_sizes(program, kernel))
      part = std::max(part, part_of[program.data_sizes[size].count] + 1);
    for (const BufferId buffer : writes(kernel)) part_of[buffer] = part;
    kernel_parts.push_back(part);
  }
  std::vector<size_t> order(program.kernels.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](size_t i) { return kernel_parts[i]; });
  std::vector<Kernel> kernels;
  for (const size_t i : order) kernels.push_back(std::move(program.kernels[i]));
  program.kernels = std::move(kernels);

  std::ranges::stable_sort(program.data_sizes, {},
                           [&](const DataSize& size) { return part_of[size.count]; });
  program.symbols.resize(program.symbols.size() - program.data_sizes.size());
  for (const DataSize& size : program.data_sizes) program.symbols.push_back(size.symbol);
}

std::vector<size_t> reads_of_sizes(const Program& program) {
  std::vector<size_t> steps;
  std::set<BufferId> written;  // looked up, never walked
  const auto read_written = [&](size_t step) {
    while (steps.size() < program.data_sizes.size() &&
           written.contains(program.data_sizes[steps.size()].count))
      steps.push_back(step);
  };
  const std::vector<KernelRange> repeats = repeat_ranges(program);
  for (size_t i = 0; i < program.kernels.size() && !program.data_sizes.empty(); ++i) {
    for (const size_t size : mentioned_sizes(program, program.kernels[i])) {
      if (size < steps.size()) continue;
      const int32_t repeat = repeat_below(program, program.kernels[i]);
      read_written(repeat == -1 ? i : repeats[static_cast<size_t>(repeat)].first);
      KILN_CHECK(size < steps.size(), "kernel " + program.kernels[i].name +
                                          " mentions a size before a kernel has written it");
    }
    for (const BufferId buffer : writes(program.kernels[i])) written.insert(buffer);
  }
  read_written(program.kernels.size());
  KILN_CHECK(steps.size() == program.data_sizes.size(), "a size that no kernel writes");
  return steps;
}

}  // namespace kiln::plan
