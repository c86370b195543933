#include "plan/form/work.h"

#include <algorithm>
#include <map>

#include "plan/form/access.h"
#include "plan/form/kernels.h"

namespace kiln::plan {
namespace {

ir::Dim extent_of(const std::vector<Loop>& loops) {
  ir::Dim result = 1;
  for (const Loop& loop : loops) result *= loop.extent();
  return result;
}

std::vector<Loop> joined(std::vector<Loop> loops, const std::vector<Loop>& more) {
  loops.insert(loops.end(), more.begin(), more.end());
  return loops;
}

class Counter {
 public:
  explicit Counter(const Program& program) : program_(program) {}

  Work count(const Kernel& kernel) {
    std::visit([&](const auto& body) { add(body); }, kernel.body);
    for (const auto* elements : {&read_, &written_})
      for (const auto& [id, count] : *elements)
        work_.bytes += count * static_cast<int64_t>(dtype_size(buffer(id).type.dtype));
    return std::move(work_);
  }

 private:
  const Buffer& buffer(BufferId id) const { return program_.buffers.at(static_cast<size_t>(id)); }

  using Elements = std::map<BufferId, ir::Dim>;

  // At most all of a buffer, at the sizes to optimise for.
  void touch(Elements& touched, BufferId id, const ir::Dim& elements) {
    const ir::Dim all = buffer(id).type.elements();
    const ir::Dim& fewer = elements.at_opt() < all.at_opt() ? elements : all;
    ir::Dim& most = touched.try_emplace(id, 0).first->second;
    if (most.at_opt() <= fewer.at_opt()) most = fewer;
  }

  // As many elements as there are points of the loops that its indices go by.
  void read(const ExprNode& load, const std::vector<Loop>& loops) {
    ir::Dim points = 1;
    for (const Loop& loop : loops) {
      bool uses = false;
      for (const Expr& index : load.args)
        visit(index, [&](const ExprNode& node) {
          uses |= node.kind == ExprKind::Position && node.index.mentions(loop.index);
        });
      if (uses) points *= loop.extent();
    }
    touch(read_, load.buffer, points);
  }

  // An expression at every point of `loops`.
  void add(const Expr& expr, const std::vector<Loop>& loops) {
    if (expr == nullptr) return;
    const ir::Dim points = extent_of(loops);
    int64_t operations = 0;
    visit(expr, [&](const ExprNode& node) {
      const bool computes = node.kind == ExprKind::Apply && node.op != ir::Op::cast;
      operations += computes && is_floating(node.dtype) ? 1 : 0;
      if (node.kind == ExprKind::Load) read(node, loops);
      if (node.kind != ExprKind::Load && is_floating(node.dtype))
        widest_ = std::max(widest_, dtype_size(node.dtype));
    });
    work_.operations += points * operations;
    work_.precision = widest_ == 8 ? "f64" : "f32";
  }

  void read(const View& view, const std::vector<Loop>& loops, const ir::Dim& inner = 1) {
    ir::Dim elements = inner;
    for (size_t i = 0; i < loops.size(); ++i)
      if (!view.strides.at(i).is_constant(0)) elements *= loops[i].extent();
    touch(read_, view.buffer, elements);
  }

  // A right operand; of 4 bits, two elements are a byte.
  void read(const View& view, const std::vector<Loop>& columns,
            const std::optional<Groups>& groups) {
    if (!groups) return read(view, columns);
    const Loop group =
        make_loop("group", ir::ceildiv(columns[columns.size() - 2].extent(), groups->size));
    const std::vector<Loop> of_groups = {group, columns.back()};
    read(groups->scales, of_groups);
    if (groups->zeros) read(*groups->zeros, of_groups);
    if (groups->bits == 8) return read(view, columns);
    const ir::Dim elements = columns[columns.size() - 2].extent() * columns.back().extent();
    touch(read_, view.buffer, ir::ceildiv(elements, 2));
  }

  void add(const LoopNest& nest) {
    for (const Stage& stage : nest.stages) {
      const std::vector<Loop> loops = joined(nest.outer, loops_of(stage));
      add(value_of(stage), loops);
      const auto* store = std::get_if<Store>(&stage);
      if (store == nullptr || store->scan) work_.operations += extent_of(loops);
      if (store != nullptr) touch(written_, store->buffer, extent_of(loops));
    }
  }

  void multiply(const Formats& formats, const ir::Dim& products) {
    work_.operations += products * 2;
    work_.precision = formats.tf32 ? "tf32" : dtype_name(formats.left);
  }

  void add(const MatMul& matmul) {
    std::vector<Loop> rows = matmul.batch, columns = matmul.batch, results = matmul.batch;
    rows = joined(rows, {matmul.m, matmul.k});
    columns = joined(columns, {matmul.k, matmul.n});
    results = joined(results, {matmul.m, matmul.n});
    read(matmul.a, rows);
    read(matmul.b, columns, matmul.groups);
    if (matmul.pair) read(*matmul.pair, columns);
    add(matmul.epilogue, results);
    touch(written_, matmul.out.buffer, extent_of(results));
    multiply(matmul.formats, extent_of(results) * matmul.k.extent() * (matmul.pair ? 2 : 1));
  }

  void add(const Convolution& conv) {
    const std::vector<Loop> results = {conv.b, conv.y, conv.x, conv.o};
    for (const BufferId id : {conv.input, conv.weight})
      touch(read_, id, buffer(id).type.elements());
    int64_t products = conv.kernel_h * conv.kernel_w * (conv.channels / conv.groups);
    if (conv.second) {
      touch(read_, conv.second->input, extent_of({conv.b, conv.y, conv.x}) * conv.second->channels);
      touch(read_, conv.second->weight, buffer(conv.second->weight).type.elements());
      products += conv.second->channels;
    }
    add(conv.epilogue, results);
    touch(written_, conv.out, extent_of(results));
    multiply(conv.formats, extent_of(results) * products);
  }

  void add(const Attention& attention) {
    const std::vector<Loop> rows = joined(attention.batch, {attention.i});
    const std::vector<Loop> keys = joined(attention.batch, {attention.j});
    const std::vector<Loop> scores = joined(rows, {attention.j});
    read(attention.q, rows, attention.head_dim);
    read(attention.k, keys, attention.head_dim);
    read(attention.v, keys, attention.value_dim);
    for (const Expr& expr : {attention.keep, attention.bias}) add(expr, scores);
    touch(written_, attention.out.buffer, extent_of(rows) * attention.value_dim);
    const int64_t products = attention.head_dim + attention.value_dim;
    const ir::Dim all = extent_of(scores) * products;
    multiply(attention.formats, attention.causal ? floordiv(all, 2) : all);
  }

  void add(const Sort& sort) {
    add(sort.key, joined(sort.outer, {sort.element}));
    touch(written_, sort.out.buffer, extent_of(joined(sort.outer, {sort.place})));
  }

  void add(const Scatter& scatter) {
    std::vector<Loop> written = joined(scatter.outer, {scatter.write});
    written = joined(written, scatter.inner);
    std::vector<Loop> results = joined(scatter.outer, {scatter.position});
    results = joined(results, scatter.inner);
    add(scatter.initial, results);
    add(scatter.index, written);
    add(scatter.value, written);
    touch(written_, scatter.out.buffer, extent_of(scatter.initial == nullptr ? written : results));
  }

  // What it computes is not known.
  void add(const Custom& custom) {
    for (const Custom::Tensor& input : custom.inputs)
      touch(read_, input.buffer, buffer(input.buffer).type.elements());
    for (const Custom::Tensor& output : custom.outputs)
      touch(written_, output.buffer, buffer(output.buffer).type.elements());
    work_.precision = "";
  }

  const Program& program_;
  Work work_{0, 0, "f32"};
  size_t widest_ = 0;
  Elements read_, written_;
};

}  // namespace

Work work_of(const Program& program, const Kernel& kernel) {
  return Counter(program).count(kernel);
}

}  // namespace kiln::plan
