// The text form of programs, for people and golden tests. Loop indices are renamed in order of
// appearance, so the text does not depend on how a program was arrived at.
#include "plan/form/text.h"

#include <map>

#include "plan/form/access.h"
#include "plan/form/parts.h"

namespace kiln::plan {
namespace {

const char* kind_name(BufferKind kind) {
  switch (kind) {
    case BufferKind::Input:
      return "input";
    case BufferKind::Output:
      return "output";
    case BufferKind::Constant:
      return "constant";
    case BufferKind::Temporary:
      return "temporary";
  }
  return "";
}

const char* reduce_name(ReduceOp op) {
  switch (op) {
    case ReduceOp::Sum:
      return "sum";
    case ReduceOp::Prod:
      return "prod";
    case ReduceOp::Max:
      return "max";
    case ReduceOp::Min:
      return "min";
    case ReduceOp::ArgMax:
      return "argmax";
    case ReduceOp::ArgMin:
      return "argmin";
  }
  return "";
}

std::string id(BufferId buffer) { return std::string("%").append(std::to_string(buffer)); }

std::string join(const Indices& indices) {
  std::string text;
  for (const Index& index : indices) text += (text.empty() ? "" : ", ") + index.str();
  return text;
}

// Prints one kernel; declares its loops as it meets them.
class KernelText {
 public:
  explicit KernelText(const Kernel& kernel) {
    text_ = "kernel " + kernel.name + ": ";
    std::visit([&](const auto& body) { print(body); }, kernel.body);
  }
  std::string take() { return std::move(text_); }

 private:
  Loop renamed(const Loop& loop, const std::string& name) {
    const Loop fresh{ir::make_loop_symbol(name, of(loop.extent()))};
    names_[loop.index] = fresh.index;
    return fresh;
  }
  // "i0 < 4, i1 < s0"
  std::string declare(const std::vector<Loop>& loops, const std::string& prefix) {
    std::string text;
    for (const Loop& loop : loops) {
      const Loop fresh = renamed(loop, prefix + std::to_string(counts_[prefix]++));
      text += (text.empty() ? "" : ", ") + fresh.index->name + " < " + fresh.extent().str();
    }
    return text;
  }
  std::optional<Index> rename(const ir::SymbolPtr& symbol) const {
    const auto it = names_.find(symbol);
    return it == names_.end() ? std::nullopt : std::optional<Index>(it->second);
  }
  ir::Dim of(const ir::Dim& dim) const {
    return dim.substitute([this](const ir::SymbolPtr& symbol) { return rename(symbol); });
  }
  std::string of(const Expr& expr) const {
    return to_string(substitute(expr, [this](const ir::SymbolPtr& s) { return rename(s); }));
  }

  void print(const LoopNest& nest) {
    text_ += "nest";
    if (!nest.outer.empty()) text_ += " over " + declare(nest.outer, "i");
    text_ += "\n";
    for (const Stage& stage : nest.stages) {
      counts_["j"] = 0;
      std::visit([&](const auto& s) { print_stage(s); }, stage);
    }
  }
  void print_stage(const Reduction& reduction) {
    const std::string loops = declare(reduction.loops, "j");
    text_ += "  r" + std::to_string(slot_++) + " = " + reduce_name(reduction.op) + " over " +
             loops + ": " + of(reduction.value) + "\n";
  }
  void print_stage(const Store& store) {
    const std::string loops = declare(store.loops, "j");
    text_ += "  ";
    if (!loops.empty()) text_ += "for " + loops + ": ";
    Indices indices;
    for (const Index& index : store.indices) indices.push_back(of(index));
    text_ += id(store.buffer) + "[" + join(indices) + "] = ";
    if (store.scan) text_ += std::string("scan ") + reduce_name(*store.scan) + " of ";
    text_ += of(store.value) + "\n";
  }

  std::string window(const View& view, const std::vector<Loop>& loops) const {
    Index offset = view.offset;
    for (size_t i = 0; i < loops.size(); ++i) offset += view.strides[i] * Index(loops[i].index);
    return id(view.buffer) + "[" + of(offset).str() + "]";
  }
  std::string batch(const std::vector<Loop>& loops) {
    std::string text = declare(loops, "b");
    return text.empty() ? text : text + ", ";
  }
  std::string loop(const Loop& loop, const std::string& name) {
    return name + " < " + renamed(loop, name).extent().str();
  }
  // Declared in this order, as the operands of + need not be.
  static std::string all(std::initializer_list<std::string> loops) {
    std::string text;
    for (const std::string& loop : loops) text += (text.empty() ? "" : ", ") + loop;
    return text;
  }

  // Nothing for f32 throughout.
  void print(const Formats& formats) {
    if (formats == Formats()) return;
    const auto name = [](DType dtype) { return std::string(dtype_name(dtype)); };
    text_ += "  formats = " + name(formats.left) + " * " + name(formats.right) + " -> " +
             name(formats.accumulator);
    if (formats.weight != formats.right) text_ += ", weight " + name(formats.weight);
    if (formats.tf32) text_ += ", tf32";
    text_ += "\n";
  }

  void print(const Groups& groups, const Loop& n) {
    const Loop group = make_loop("group", ir::kDimInfinity);
    text_ += "  groups of " + std::to_string(groups.size) + ", " + std::to_string(groups.bits) +
             " bits: scales " + window(groups.scales, {group, n});
    if (groups.zeros) text_ += ", zeros " + window(*groups.zeros, {group, n});
    text_ += "\n";
  }

  void print(const MatMul& matmul) {
    text_ += "matmul over " + batch(matmul.batch);
    text_ += all({loop(matmul.m, "m"), loop(matmul.n, "n"), loop(matmul.k, "k")}) + "\n";
    text_ += "  a = " + window(matmul.a, with_loops(matmul.batch, {matmul.m, matmul.k})) + "\n";
    text_ += "  b = " + window(matmul.b, with_loops(matmul.batch, {matmul.k, matmul.n})) + "\n";
    if (matmul.pair)
      text_ +=
          "  pair = " + window(*matmul.pair, with_loops(matmul.batch, {matmul.k, matmul.n})) + "\n";
    print(matmul.formats);
    if (matmul.groups) print(*matmul.groups, matmul.n);
    text_ += "  " + window(matmul.out, with_loops(matmul.batch, {matmul.m, matmul.n})) + " = " +
             of(matmul.epilogue) + "\n";
  }
  void print(const Convolution& c) {
    text_ += "convolution over " +
             all({loop(c.b, "b"), loop(c.y, "y"), loop(c.x, "x"), loop(c.o, "o")}) + "\n";
    const auto pair = [](const auto& a, const auto& b) { return a + "x" + b; };
    const auto ints = [&](int64_t a, int64_t b) {
      return pair(std::to_string(a), std::to_string(b));
    };
    text_ += "  input = " + id(c.input) + " " + pair(c.height.str(), c.width.str()) + "x" +
             std::to_string(c.channels) + "\n";
    text_ += "  weight = " + id(c.weight) + " " + ints(c.kernel_h, c.kernel_w) + " groups " +
             std::to_string(c.groups) + " stride " + ints(c.stride_h, c.stride_w) + " dilation " +
             ints(c.dilation_h, c.dilation_w) + " pad " + pair(c.pad_top.str(), c.pad_left.str()) +
             "\n";
    if (c.second)
      text_ += "  second = " + id(c.second->input) + " " +
               pair(c.second->height.str(), c.second->width.str()) + "x" +
               std::to_string(c.second->channels) + ", " + id(c.second->weight) + " stride " +
               ints(c.second->stride_h, c.second->stride_w) + "\n";
    if (c.padding != 0) text_ += "  padding " + std::to_string(c.padding) + "\n";
    if (c.winograd != 0) text_ += "  winograd " + ints(c.winograd, c.winograd) + "\n";
    if (c.pool)
      text_ += "  pool over " + all({loop(c.pool->y, "py"), loop(c.pool->x, "px")}) + " of " +
               ints(c.pool->kernel_h, c.pool->kernel_w) + " stride " +
               ints(c.pool->stride_h, c.pool->stride_w) + " pad " +
               ints(c.pool->pad_top, c.pool->pad_left) + "\n";
    print(c.formats);
    text_ += "  " + id(c.out) + " = " + of(c.epilogue) + "\n";
  }
  void print(const Attention& a) {
    text_ += "attention over " + batch(a.batch);
    text_ += all({loop(a.i, "i"), loop(a.j, "j")}) + "\n";
    const Loop d = make_loop("d", a.head_dim), e = make_loop("e", a.value_dim);
    text_ += "  q = " + window(a.q, with_loops(a.batch, {a.i, d})) + "\n";
    text_ += "  k = " + window(a.k, with_loops(a.batch, {a.j, d})) + "\n";
    text_ += "  v = " + window(a.v, with_loops(a.batch, {a.j, e})) + "\n";
    text_ += "  scale = " + to_string(constant(DType::F64, a.scale)) +
             (a.causal ? ", causal" : "") + (a.nan_rows ? ", nan rows" : "") + "\n";
    print(a.formats);
    if (a.keep) text_ += "  keep = " + of(a.keep) + "\n";
    if (a.bias) text_ += "  bias = " + of(a.bias) + "\n";
    text_ += "  out = " + window(a.out, with_loops(a.batch, {a.i, e})) + "\n";
  }

  void print(const Sort& sort) {
    text_ += "sort over " + batch(sort.outer);
    text_ += all({loop(sort.element, "i"), loop(sort.place, "place")}) +
             (sort.descending ? ", descending" : "") + "\n";
    text_ += "  key = " + of(sort.key) + "\n";
    text_ += "  " + window(sort.out, with_loops(sort.outer, {sort.place})) + "\n";
  }
  void print(const Scatter& s) {
    text_ += "scatter over " + batch(s.outer);
    text_ += all({loop(s.position, "position"), loop(s.write, "write")});
    if (const std::string inner = declare(s.inner, "j"); !inner.empty()) text_ += ", " + inner;
    if (s.initial) text_ += "\n  initial = " + of(s.initial);
    text_ += "\n  index = " + of(s.index) + "\n  ";
    text_ += window(s.out, with_loops(with_loops(s.outer, {s.position}), s.inner)) + " = ";
    if (s.combine) text_ += std::string(reduce_name(*s.combine)) + " with ";
    text_ += of(s.value) + "\n";
  }
  void print(const Custom& custom) {
    text_ += "custom " + custom.kernel + " " + custom.arguments + "\n";
    const auto list = [&](const char* what, const std::vector<Custom::Tensor>& tensors) {
      for (const Custom::Tensor& tensor : tensors)
        text_ += std::string("  ") + what + " " + id(tensor.buffer) + " as [" + join(tensor.shape) +
                 "]\n";
    };
    list("input", custom.inputs);
    list("output", custom.outputs);
  }

  std::string text_;
  std::map<ir::SymbolPtr, ir::SymbolPtr> names_;  // looked up, never walked
  std::map<std::string, int> counts_;
  int slot_ = 0;
};

std::string symbol_text(const ir::Symbol& symbol) {
  return "symbol " + symbol.name + " in [" + std::to_string(symbol.min) + ", " +
         std::to_string(symbol.max) + "], opt " + std::to_string(symbol.opt) + "\n";
}

}  // namespace

std::string to_text(const Program& program) {
  std::string text = "program " + program.name + "\n";
  for (const ir::SymbolPtr& symbol : program.symbols) text += symbol_text(*symbol);
  for (const DataSize& size : program.data_sizes)
    text += size.symbol->name + " is found in " + id(size.count) +
            (size.bound ? ", at most " + size.bound->str() : "") + "\n";
  for (const ir::Requirement& requirement : program.requirements)
    text += "require " + requirement.condition.str() + ": " + requirement.expected + "\n";
  for (size_t i = 0; i < program.buffers.size(); ++i) {
    const Buffer& buffer = program.buffers[i];
    text += id(static_cast<BufferId>(i)) + " = " + kind_name(buffer.kind) + " " + buffer.name +
            ": " + buffer.type.str();
    if (buffer.alias_of >= 0) text += " in place of " + id(buffer.alias_of);
    text += "\n";
  }
  const std::vector<KernelRange> repeats = repeat_ranges(program);
  for (size_t i = 0; i < program.kernels.size(); ++i) {
    for (size_t k = 0; k < repeats.size(); ++k)
      if (repeats[k].first == i && repeats[k].end > i)
        text += "while " + id(program.repeats[k].condition) + ":\n";
    text += KernelText(program.kernels[i]).take();
    for (const KernelRange& repeat : repeats)
      if (repeat.end == i + 1) text += "end of while\n";
  }
  return text;
}

}  // namespace kiln::plan
