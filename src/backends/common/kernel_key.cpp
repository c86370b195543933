#include "backends/common/kernel_key.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <span>

#include "backends/common/constant_magnitude.h"
#include "support/hash.h"

namespace kiln::backend {

using ir::Dim;

namespace {

// Writes a kernel as text in which buffers, loops and shared expressions are numbered in order of
// occurrence.
class KeyWriter {
 public:
  explicit KeyWriter(const plan::Program& program) : program_(program) {}

  KernelKey write(const plan::Kernel& kernel) {
    text("kind", static_cast<int64_t>(kernel.body.index()));
    std::visit([&](const auto& body) { write(body); }, kernel.body);
    return std::move(key_);
  }

 private:
  void text(const std::string& value) { key_.text += value + " "; }
  void text(const char* name, int64_t value) { text(name + std::to_string(value)); }

  void write(const plan::LoopNest& nest) {
    write(nest.outer);
    for (const plan::Stage& stage : nest.stages)
      std::visit([&](const auto& s) { write(s); }, stage);
  }

  void write(const plan::Reduction& reduction) {
    text("reduce", static_cast<int64_t>(reduction.op));
    write(reduction.loops);
    write(reduction.value);
  }

  void write(const plan::Store& store) {
    text("store", store.scan ? static_cast<int64_t>(*store.scan) : -1);
    write(store.loops);
    buffer(store.buffer);
    for (const Dim& index : store.indices) write(index);
    write(store.value);
  }

  void write(const plan::MatMul& matmul) {
    write(matmul.batch);
    write(std::vector<plan::Loop>{matmul.m, matmul.n, matmul.k});
    for (const plan::View* view : {&matmul.a, &matmul.b, &matmul.out}) write(*view);
    text("pair", matmul.pair.has_value());
    if (matmul.pair) write(*matmul.pair);
    if (matmul.groups) write(*matmul.groups);
    write(matmul.formats);
    write(matmul.epilogue);
  }

  void write(const plan::Groups& groups) {
    text("groups", groups.size);
    text("bits", groups.bits);
    write(groups.scales);
    if (groups.zeros) write(*groups.zeros);
  }

  void write(const plan::Convolution& c) {
    write(std::vector<plan::Loop>{c.b, c.y, c.x, c.o});
    for (plan::BufferId id : {c.input, c.weight, c.out}) buffer(id);
    for (const Dim& dim : {c.height, c.width, c.pad_top, c.pad_left}) write(dim);
    for (int64_t value : {c.channels, c.groups, c.kernel_h, c.kernel_w, c.stride_h, c.stride_w,
                          c.dilation_h, c.dilation_w, c.padding, c.winograd}) {
      text("", value);
    }
    text("pool", c.pool.has_value());
    if (c.pool) {
      write(std::vector<plan::Loop>{c.pool->y, c.pool->x});
      for (int64_t value : {c.pool->kernel_h, c.pool->kernel_w, c.pool->stride_h, c.pool->stride_w,
                            c.pool->pad_top, c.pool->pad_left})
        text("", value);
    }
    text("second", c.second.has_value());
    if (c.second) {
      for (plan::BufferId id : {c.second->input, c.second->weight}) buffer(id);
      for (const Dim& dim : {c.second->height, c.second->width}) write(dim);
      for (int64_t value : {c.second->channels, c.second->stride_h, c.second->stride_w})
        text("", value);
    }
    write(c.formats);
    write(c.epilogue);
  }

  void write(const plan::Attention& attention) {
    write(attention.batch);
    write(std::vector<plan::Loop>{attention.i, attention.j});
    text("d", attention.head_dim);
    text("e", attention.value_dim);
    for (const plan::View* view : {&attention.q, &attention.k, &attention.v, &attention.out}) {
      write(*view);
    }
    text("scale", std::bit_cast<int64_t>(attention.scale));
    text("causal", attention.causal);
    text("nan_rows", attention.nan_rows);
    write(attention.formats);
    write(attention.keep);
    write(attention.bias);
  }

  void write(const plan::Sort& sort) {
    write(sort.outer);
    write(std::vector<plan::Loop>{sort.element, sort.place});
    text("descending", sort.descending);
    write(sort.out);
    write(sort.key);
  }

  void write(const plan::Scatter& scatter) {
    write(scatter.outer);
    write(std::vector<plan::Loop>{scatter.position, scatter.write});
    write(scatter.inner);
    text("combine", scatter.combine ? static_cast<int64_t>(*scatter.combine) : -1);
    write(scatter.out);
    write(scatter.initial);
    write(scatter.index);
    write(scatter.value);
  }

  void write(const plan::Custom& custom) {
    for (const std::string* part : {&custom.kernel, &custom.arguments})
      text(std::to_string(part->size()) + ":" + *part);
    for (const auto* tensors : {&custom.inputs, &custom.outputs}) {
      text("tensors", static_cast<int64_t>(tensors->size()));
      for (const plan::Custom::Tensor& tensor : *tensors) {
        buffer(tensor.buffer);
        for (const Dim& size : tensor.shape) write(size);
        text(";");
      }
    }
  }

  void write(const plan::Formats& formats) {
    if (formats == plan::Formats()) return;  // f32 throughout
    text("formats");
    for (DType dtype : {formats.left, formats.right, formats.accumulator, formats.weight})
      text(std::string(dtype_name(dtype)));
    if (formats.tf32) text("tf32");
  }

  void write(const plan::View& view) {
    buffer(view.buffer);
    write(view.offset);
    for (const Dim& stride : view.strides) write(stride);
    text(";");
  }

  void write(const std::vector<plan::Loop>& loops) {
    for (const plan::Loop& loop : loops) {
      symbol(loop.index);
      text("<");
      write(loop.extent());
    }
    text(";");
  }

  void write(const Dim& dim) {
    for (const ir::Term& term : dim.terms()) {
      text("", term.coefficient);
      for (const ir::AtomPtr& factor : term.factors) write(*factor);
      text("+");
    }
    text(".");
  }

  void write(const ir::Atom& atom) {
    if (atom.kind == ir::AtomKind::Symbol) return symbol(atom.symbol);
    text("atom", static_cast<int64_t>(atom.kind));
    write(atom.a);
    write(atom.b);
  }

  // Loops by order of occurrence; sizes are the same for all kernels of a program.
  void symbol(const ir::SymbolPtr& symbol) {
    if (!symbol->is_loop) return text("s", size_number(symbol));
    const auto number = static_cast<int64_t>(loops_.size());
    text("i", loops_.try_emplace(symbol->id, number).first->second);
  }

  // Ids are counted over the life of a process, places in the program are not.
  int64_t size_number(const ir::SymbolPtr& symbol) const {
    const auto& symbols = program_.symbols;
    const auto found = std::ranges::find(symbols, symbol);
    return found - symbols.begin() +
           (found == symbols.end() ? static_cast<int64_t>(symbol->id) : 0);
  }

  void buffer(plan::BufferId id) {
    const auto known = std::ranges::find(key_.buffers, id);
    text("b", known - key_.buffers.begin());
    if (known != key_.buffers.end()) return;
    key_.buffers.push_back(id);
    const plan::Buffer& buffer = program_.buffers.at(static_cast<size_t>(id));
    text(std::string(dtype_name(buffer.type.dtype)));
    text(buffer.kind == plan::BufferKind::Constant ? "constant" : "");
    for (const Dim& size : buffer.type.shape) write(size);
  }

  // What code may go by.
  void magnitude(const plan::Buffer& buffer) {
    const double bound = magnitude_bound(buffer);
    if (std::isfinite(bound)) text("m", std::ilogb(bound));
  }

  void check(const plan::ExprNode& node) {
    const auto known = std::ranges::find(key_.checks, node.check);
    text("c", known - key_.checks.begin());
    if (known == key_.checks.end()) key_.checks.push_back(node.check);
    text("", static_cast<int64_t>(node.check_kind));
    write(node.index);
  }

  void write(const plan::Expr& expr) {
    if (!expr) return text("none");
    std::map<const plan::ExprNode*, int64_t> numbers;  // never iterated
    plan::visit(expr, [&](const plan::ExprNode& node) {
      const auto number = static_cast<int64_t>(numbers.size());
      numbers[&node] = number;
      text("e", static_cast<int64_t>(node.kind));
      text(std::string(dtype_name(node.dtype)));
      write_leaf(node);
      for (const plan::Expr& arg : node.args) text("n", numbers.at(arg.get()));
      if (node.predicate) text("if", numbers.at(node.predicate.get()));
    });
    text(";");
  }

  void write_leaf(const plan::ExprNode& node) {
    switch (node.kind) {
      case plan::ExprKind::Constant:
        text("", std::bit_cast<int64_t>(node.number));
        return text("", node.integer);
      case plan::ExprKind::Position:
        return write(node.index);
      case plan::ExprKind::Load:
        buffer(node.buffer);
        return magnitude(program_.buffers.at(static_cast<size_t>(node.buffer)));
      case plan::ExprKind::Reduced:
        return text("r", node.slot);
      case plan::ExprKind::Accumulator:
        return text("a", node.slot);
      case plan::ExprKind::Apply:
        text(std::string(op_name(node.op)));
        return text("", node.gelu_tanh);
      case plan::ExprKind::Check:
        return check(node);
    }
  }

  const plan::Program& program_;
  KernelKey key_;
  std::map<uint64_t, int64_t> loops_;
};

}  // namespace

std::string KernelKey::hash() const { return hash_str(hash128(std::as_bytes(std::span(text)))); }

KernelKey key_of(const plan::Program& program, const plan::Kernel& kernel) {
  return KeyWriter(program).write(kernel);
}

}  // namespace kiln::backend
