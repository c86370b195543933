// The verifier: the numbered rules of docs/plan.md, checked kernel by kernel.
#include "plan/form/verify.h"

#include <algorithm>
#include <set>

#include "plan/form/access.h"
#include "plan/form/bounds.h"
#include "plan/form/kernels.h"
#include "plan/form/parts.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

[[noreturn]] void fail(const char* rule, const std::string& where, const std::string& what) {
  throw InternalError(std::string("plan rule ") + rule + ", " + where + ": " + what);
}

// The first and last kernel that touches each buffer; -1 if none does.
struct Touches {
  explicit Touches(const Program& program)
      : first(program.buffers.size(), -1), last(first), first_written(first) {
    for (size_t i = 0; i < program.kernels.size(); ++i) {
      for (BufferId buffer : reads(program.kernels[i])) add(buffer, static_cast<int>(i));
      for (BufferId buffer : writes(program.kernels[i])) {
        if (add(buffer, static_cast<int>(i)) && first_written[buffer] < 0)
          first_written[buffer] = static_cast<int>(i);
      }
    }
  }
  bool add(BufferId buffer, int kernel) {
    // Rule P1 reports it.
    if (buffer < 0 || static_cast<size_t>(buffer) >= first.size()) return false;
    if (first[buffer] < 0) first[buffer] = kernel;
    last[buffer] = kernel;
    return true;
  }
  std::vector<int> first, last, first_written;
};

class Verifier {
 public:
  explicit Verifier(const Program& program) : program_(program), uses_(program) {}

  void run() {
    check_nesting();
    check_buffers();
    std::set<std::string> names;
    for (const Kernel& kernel : program_.kernels) {
      kernel_ = &kernel;
      if (!names.insert(kernel.name).second) fail_here("P2", "the name is taken");
      open_symbols();
      std::visit([&](const auto& body) { check(body); }, kernel.body);
      for (BufferId buffer : writes(kernel)) written_.insert(buffer);
    }
    check_sizes();
    check_repeats();
    for (BufferId output : program_.outputs) {
      if (!written_.contains(output) && !updates_input(output))
        fail("P7", buffer_name(output), "the output is not written");
    }
  }

 private:
  [[noreturn]] void fail_here(const char* rule, const std::string& what) const {
    fail(rule, "kernel " + kernel_->name, what);
  }
  const Buffer& buffer(BufferId id) const {
    if (id < 0 || static_cast<size_t>(id) >= program_.buffers.size()) {
      fail_here("P1", "no buffer " + std::to_string(id));
    }
    return program_.buffers[id];
  }
  std::string buffer_name(BufferId id) const { return "buffer " + program_.buffers[id].name; }

  // P3, P14: sizes that the run finds are in scope where their numbers are written.
  void open_symbols() {
    scope_ = {program_.symbols.begin(), program_.symbols.end()};
    for (const DataSize& size : program_.data_sizes)
      if (!written_.contains(size.count)) scope_.erase(size.symbol);
  }

  // P14
  void check_sizes() const {
    for (const DataSize& size : program_.data_sizes) {
      const Buffer& count = program_.buffers.at(size.count);
      const bool writable = count.kind == BufferKind::Temporary || count.kind == BufferKind::Output;
      if (!writable || count.type.dtype != DType::I64 || count.type.rank() != 0)
        fail("P14", buffer_name(size.count), "it cannot hold the size " + size.symbol->name);
      if (!written_.contains(size.count))
        fail("P14", buffer_name(size.count), "nothing writes the size " + size.symbol->name);
    }
  }

  // P17
  void check_repeats() const {
    const std::vector<KernelRange> ranges = repeat_ranges(program_);
    for (size_t i = 0; i < ranges.size(); ++i) {
      const Repeat& repeat = program_.repeats[i];
      const Buffer& condition = program_.buffers.at(repeat.condition);
      const bool writable =
          condition.kind == BufferKind::Temporary || condition.kind == BufferKind::Output;
      if (!writable || !(condition.type == ir::Type{DType::Bool, {}}))
        fail("P17", buffer_name(repeat.condition), "it cannot hold the condition of a repeat");
      const int first = uses_.first_written[repeat.condition];
      if (first < 0 || static_cast<size_t>(first) >= ranges[i].first)
        fail("P17", buffer_name(repeat.condition),
             "nothing writes the condition before the repeat");
      for (size_t k = ranges[i].first; k < ranges[i].end; ++k)
        if (!is_in(program_.kernels[k], static_cast<int32_t>(i)))
          fail("P17", "kernel " + program_.kernels[k].name, "it stands between those of a repeat");
    }
  }
  bool is_in(const Kernel& kernel, int32_t repeat) const {
    int32_t at = kernel.repeat;
    while (at != -1 && at != repeat) at = program_.repeats[static_cast<size_t>(at)].outer;
    return at == repeat;
  }
  // P17: before anything walks from one to those around it.
  void check_nesting() const {
    for (size_t i = 0; i < program_.repeats.size(); ++i)
      if (program_.repeats[i].outer < -1 || program_.repeats[i].outer >= static_cast<int32_t>(i))
        fail("P17", "repeat " + std::to_string(i), "it is in none before it");
    for (const Kernel& kernel : program_.kernels)
      if (kernel.repeat < -1 || kernel.repeat >= static_cast<int32_t>(program_.repeats.size()))
        fail("P17", "kernel " + kernel.name, "it is in no repeat of the program");
  }

  // P1
  void check_buffers() const {
    const auto expect = [&](BufferId id, BufferKind kind) {
      if (program_.buffers.at(id).kind != kind) fail("P1", buffer_name(id), "wrong kind");
    };
    for (BufferId id : program_.inputs) expect(id, BufferKind::Input);
    for (BufferId id : program_.outputs) expect(id, BufferKind::Output);
    for (size_t i = 0; i < program_.buffers.size(); ++i) {
      const Buffer& buffer = program_.buffers[i];
      const auto id = static_cast<BufferId>(i);
      if (buffer.kind == BufferKind::Constant && !(buffer.literal.type() == buffer.type)) {
        fail("P1", buffer_name(id), "the literal is " + buffer.literal.type().str());
      }
      if (buffer.alias_of >= 0)
        buffer.kind == BufferKind::Output ? check_update(id) : check_alias(id);
    }
  }

  // P8
  void check_alias(BufferId id) const {
    const Buffer& alias = program_.buffers[id];
    const Buffer& owner = program_.buffers.at(alias.alias_of);
    if (alias.kind != BufferKind::Temporary || owner.kind != BufferKind::Temporary) {
      fail("P8", buffer_name(id), "only temporaries share memory");
    }
    const ir::Dim bytes =
        alias.type.elements() * static_cast<int64_t>(dtype_size(alias.type.dtype));
    if (!(bytes == owner.type.elements() * static_cast<int64_t>(dtype_size(owner.type.dtype)))) {
      fail("P8", buffer_name(id), "shares memory of another size");
    }
    if (uses_.first[id] < uses_.last[alias.alias_of]) {
      fail("P8", buffer_name(id), "takes memory that is still in use");
    }
  }

  bool updates_input(BufferId id) const {
    return program_.buffers[id].kind == BufferKind::Output && program_.buffers[id].alias_of >= 0;
  }

  // P13
  void check_update(BufferId id) const {
    const Buffer& output = program_.buffers[id];
    const Buffer& input = program_.buffers.at(output.alias_of);
    if (input.kind != BufferKind::Input || !(input.type == output.type))
      fail("P13", buffer_name(id), "it updates what is no input of its type");
    const auto shares = [&](const Buffer& other) { return other.alias_of == output.alias_of; };
    if (std::ranges::count_if(program_.buffers, shares) != 1)
      fail("P13", buffer_name(id), "it updates an input that others update too");
    if (uses_.first_written[id] < 0) return;
    const auto writer = static_cast<size_t>(uses_.first_written[id]);
    const int32_t repeat = repeat_below(program_, program_.kernels[writer]);
    for (size_t i = 0; i < program_.kernels.size(); ++i) {
      const Kernel& kernel = program_.kernels[i];
      const bool is_again = repeat != -1 && repeat_below(program_, kernel) == repeat;
      if (i <= writer && !is_again) continue;
      const std::vector<BufferId> read = reads(kernel);
      if (std::ranges::find(read, output.alias_of) != read.end())
        fail("P13", buffer_name(id), "kernel " + kernel.name + " reads what was overwritten");
    }
  }

  // P3
  void check_scope(const ir::Dim& dim) const {
    for (const ir::SymbolPtr& symbol : dim.symbols()) {
      if (!scope_.contains(symbol))
        fail_here("P3", symbol->name + " is not in scope in " + dim.str());
    }
  }
  void open(const std::vector<Loop>& loops) {
    for (const Loop& loop : loops) {
      check_scope(loop.extent());
      if (!scope_.insert(loop.index).second)
        fail_here("P3", "loop " + loop.index->name + " is open twice");
    }
  }
  void close(const std::vector<Loop>& loops) {
    for (const Loop& loop : loops) scope_.erase(loop.index);
  }

  struct Leaves {
    std::vector<DType> reduced;
    std::optional<DType> accumulator;
    int32_t sums = 1;
  };

  // P4, P5
  void check_expr(const Expr& expr, const Leaves& leaves) const {
    visit(expr, [&](const ExprNode& node) {
      check_scope(node.index);
      if (node.kind == ExprKind::Accumulator) check_accumulator(node, leaves);
      if (node.kind == ExprKind::Reduced) check_slot(node, leaves);
      if (node.kind == ExprKind::Load) check_load(node);
      if (node.kind == ExprKind::Check) check_check(node);
    });
  }
  void check_accumulator(const ExprNode& node, const Leaves& leaves) const {
    if (!leaves.accumulator) fail_here("P4", "an accumulator outside of an epilogue");
    if (*leaves.accumulator != node.dtype) fail_here("P4", "the accumulator has another dtype");
    if (node.slot < 0 || node.slot >= leaves.sums)
      fail_here("P4", "there is no accumulator " + std::to_string(node.slot));
  }
  // P10
  void check_formats(const Formats& formats, BufferId left, BufferId right) const {
    const bool constant = buffer(right).kind == BufferKind::Constant;
    const bool has_bytes = formats.accumulator == DType::I32;
    if (has_bytes || (constant && formats.weight == DType::I8))
      check_integers(formats, left, right);
    if (has_bytes) return;
    check_float8(formats, constant);
    for (BufferId id : {left, right}) {
      const bool is_weight = id == right && formats.weight == DType::I8;
      if (!is_weight && !is_floating(buffer(id).type.dtype))
        fail_here("P10", buffer(id).name + " is not floating");
    }
    const bool rounds = formats.left == DType::F32 || formats.left == DType::F8E4M3;
    if (formats.tf32 && (!rounds || formats.right != formats.left))
      fail_here("P10", "TF32 of operands that are not f32");
    for (DType dtype : {formats.left, formats.right}) {
      if (!is_floating(dtype) || !is_lossless(dtype, formats.accumulator))
        fail_here("P10",
                  "the accumulator does not hold operands of " + std::string(dtype_name(dtype)));
    }
    if (formats.accumulator != DType::F32 && formats.accumulator != DType::F64)
      fail_here("P10", "sums of " + std::string(dtype_name(formats.accumulator)));
    const bool is_weight = is_floating(formats.weight) || formats.weight == DType::I8;
    if (!is_lossless(formats.weight, formats.right) || !is_weight ||
        (!constant && formats.weight != formats.right))
      fail_here("P10", "a weight of " + std::string(dtype_name(formats.weight)));
  }
  // P10
  void check_float8(const Formats& formats, bool constant) const {
    const bool left = formats.left == DType::F8E4M3, right = formats.right == DType::F8E4M3;
    if (left != right) fail_here("P10", "a product of f8e4m3 and another type");
    if (left && (!program_.traits.float8_products || formats.accumulator != DType::F32))
      fail_here("P10", "the target has no products of f8e4m3 with such sums");
    const bool is_weight = !right && constant && formats.weight == DType::F8E4M3;
    if (is_weight && program_.traits.float8_weight_rows == 0)
      fail_here("P10", "the target has no weights of f8e4m3");
  }
  // P10
  void check_integers(const Formats& formats, BufferId left, BufferId right) const {
    const TargetTraits& traits = program_.traits;
    const bool is_convolution = std::holds_alternative<Convolution>(kernel_->body);
    const bool has_products = is_floating(formats.accumulator) ? traits.integer_weights
                              : is_convolution                 ? traits.integer_convolutions
                                                               : traits.integer_products;
    if (!has_products) fail_here("P10", "the target has no such products of integers");
    const Buffer& weight = buffer(right);
    const bool is_sum =
        !is_floating(formats.accumulator) && std::holds_alternative<MatMul>(kernel_->body);
    if ((!is_sum && weight.kind != BufferKind::Constant) || weight.type.dtype != DType::I8)
      fail_here("P10", weight.name + " is not a constant of i8");
    if (is_floating(formats.accumulator)) return;
    const Formats integers{DType::U8, DType::I8, DType::I32, DType::I8};
    if (!(formats == integers) || buffer(left).type.dtype != DType::U8)
      fail_here("P10", "a product of integers that is not u8 * i8 -> i32");
  }
  // P9
  void check_check(const ExprNode& node) const {
    if (!std::holds_alternative<LoopNest>(kernel_->body))
      fail_here("P9", "a check outside of a loop nest");
    if (node.check < 0 || static_cast<size_t>(node.check) >= program_.checks.size())
      fail_here("P9", "no check " + std::to_string(node.check));
    const bool fits =
        node.check_kind == CheckKind::Nonzero ? is_integer(node.dtype) : node.dtype == DType::I64;
    if (!fits || node.args.size() != 1 || node.args[0]->dtype != node.dtype)
      fail_here("P4", "a check of a value of " + std::string(dtype_name(node.dtype)));
    if (node.predicate && node.predicate->dtype != DType::Bool)
      fail_here("P4", "a predicate is not bool");
  }
  void check_slot(const ExprNode& node, const Leaves& leaves) const {
    const auto slot = static_cast<size_t>(node.slot);
    if (slot >= leaves.reduced.size())
      fail_here("P4", "r" + std::to_string(slot) + " is not computed yet");
    if (leaves.reduced[slot] != node.dtype)
      fail_here("P4", "r" + std::to_string(slot) + " has another dtype");
  }
  void check_load(const ExprNode& node) const {
    const Buffer& source = buffer(node.buffer);
    if (source.type.dtype != node.dtype) fail_here("P4", source.name + " has another dtype");
    if (source.type.rank() != node.args.size()) fail_here("P4", source.name + " has another rank");
    if (node.predicate && node.predicate->dtype != DType::Bool)
      fail_here("P4", "a predicate is not bool");
    check_readable(node.buffer);
    for (size_t i = 0; i < node.args.size(); ++i) {
      if (node.args[i]->dtype != DType::I64) fail_here("P4", "an index is not i64");
      if (!provably_in_range(node.args[i], source.type.shape[i], node.predicate)) {
        fail_here("P5", "index " + to_string(node.args[i]) + " of " + source.name +
                            " may leave [0, " + source.type.shape[i].str() + ")");
      }
    }
  }

  // P7
  void check_readable(BufferId id) const {
    const BufferKind kind = buffer(id).kind;
    if (kind == BufferKind::Input || kind == BufferKind::Constant || written_.contains(id) ||
        updates_input(id))
      return;
    fail_here("P7", buffer(id).name + " is read before it is written");
  }
  void check_writable(BufferId id) const {
    const BufferKind kind = buffer(id).kind;
    if (kind == BufferKind::Input || kind == BufferKind::Constant) {
      fail_here("P7", buffer(id).name + " is not writable");
    }
  }
  void check_result(BufferId id, const Expr& value) const {
    check_writable(id);
    if (value->dtype != buffer(id).type.dtype)
      fail_here("P4", "a value of another dtype is stored");
  }

  // P6
  void check_view(const View& view, const std::vector<Loop>& loops) const {
    check_scope(view.offset);
    if (view.strides.size() != loops.size())
      fail_here("P6", "a view with the wrong number of strides");
    ir::Dim last = view.offset;
    for (size_t i = 0; i < loops.size(); ++i) {
      check_scope(view.strides[i]);
      if (!provably_non_negative(view.strides[i])) fail_here("P6", "a negative stride");
      last += view.strides[i] * (loops[i].extent() - 1);
    }
    const ir::Dim room = buffer(view.buffer).type.elements() - 1 - last;
    if (!provably_non_negative(view.offset) || !provably_non_negative(room)) {
      fail_here("P6", "a view leaves " + buffer(view.buffer).name);
    }
  }

  void check(const LoopNest& nest) {
    open(nest.outer);
    Leaves leaves;
    for (const Stage& stage : nest.stages) {
      if (const auto* reduction = std::get_if<Reduction>(&stage)) {
        open(reduction->loops);
        check_expr(reduction->value, leaves);
        close(reduction->loops);
        const bool argument =
            reduction->op == ReduceOp::ArgMax || reduction->op == ReduceOp::ArgMin;
        if (argument && reduction->loops.size() != 1)
          fail_here("P4", "an argmax over several loops");
        leaves.reduced.push_back(argument ? DType::I64 : reduction->value->dtype);
      } else {
        check_store(std::get<Store>(stage), leaves);
      }
    }
  }
  void check_store(const Store& store, const Leaves& leaves) {
    open(store.loops);
    check_expr(store.value, leaves);
    check_result(store.buffer, store.value);
    if (store.scan && store.loops.empty()) fail_here("P4", "a scan without a loop");
    const ir::Shape& shape = buffer(store.buffer).type.shape;
    if (store.indices.size() != shape.size()) fail_here("P4", "a store of another rank");
    for (size_t i = 0; i < shape.size(); ++i) {
      check_scope(store.indices[i]);
      if (!provably_in_range(position(store.indices[i]), shape[i], nullptr)) {
        fail_here("P5", "index " + store.indices[i].str() + " of " + buffer(store.buffer).name +
                            " may leave [0, " + shape[i].str() + ")");
      }
    }
    close(store.loops);
    written_.insert(store.buffer);  // later stages of the kernel may read it
  }

  void check(const MatMul& matmul) {
    open(with_loops(matmul.batch, {matmul.m, matmul.n, matmul.k}));
    check_view(matmul.a, with_loops(matmul.batch, {matmul.m, matmul.k}));
    check_view(matmul.b, with_loops(matmul.batch, {matmul.k, matmul.n}));
    if (matmul.pair) check_pair(matmul);
    if (matmul.groups) check_groups(matmul, *matmul.groups);
    check_view(matmul.out, with_loops(matmul.batch, {matmul.m, matmul.n}));
    for (BufferId id : operands(*kernel_)) check_readable(id);
    scope_.erase(matmul.k.index);
    check_formats(matmul.formats, matmul.a.buffer, matmul.b.buffer);
    check_expr(matmul.epilogue, {{}, matmul.formats.accumulator, matmul.pair ? 2 : 1});
    check_result(matmul.out.buffer, matmul.epilogue);
  }

  // P15
  void check_groups(const MatMul& matmul, const Groups& groups) {
    const bool is_weight = buffer(matmul.b.buffer).kind == BufferKind::Constant &&
                           matmul.k.extent().is_constant() && matmul.n.extent().is_constant();
    Formats formats;
    formats.weight = DType::I8;
    if (!is_weight || !(matmul.formats == formats) || matmul.pair)
      fail_here("P15", "groups of another right operand than a constant of i8 beside f32");
    if (groups.size < 1 || (groups.bits != 4 && groups.bits != 8))
      fail_here("P15", "groups without elements, or of " + std::to_string(groups.bits) + " bits");
    const std::vector<Loop> loops = {
        make_loop("group", ir::ceildiv(matmul.k.extent(), ir::Dim(groups.size))), matmul.n};
    // The last group is whole in b.
    const Loop steps = make_loop("k", loops[0].extent() * groups.size);
    for (const Loop& loop : {loops[0], steps}) scope_.insert(loop.index);
    check_view(matmul.b, with_loops(matmul.batch, {steps, matmul.n}));
    check_view(groups.scales, loops);
    if (groups.zeros) check_view(*groups.zeros, loops);
    for (const Loop& loop : {loops[0], steps}) scope_.erase(loop.index);
    const Buffer& scales = buffer(groups.scales.buffer);
    const bool has_scales =
        scales.kind == BufferKind::Constant && is_lossless(scales.type.dtype, DType::F32);
    if (!has_scales || !is_floating(scales.type.dtype))
      fail_here("P15", scales.name + " is not a constant of f32, f16 or bf16");
    if (!groups.zeros) return;
    const Buffer& zeros = buffer(groups.zeros->buffer);
    if (zeros.kind != BufferKind::Constant || zeros.type.dtype != DType::I8)
      fail_here("P15", zeros.name + " is not a constant of i8");
  }

  // P12
  void check_pair(const MatMul& matmul) {
    check_view(*matmul.pair, with_loops(matmul.batch, {matmul.k, matmul.n}));
    const Buffer &b = buffer(matmul.b.buffer), &pair = buffer(matmul.pair->buffer);
    if (!program_.traits.paired_products) fail_here("P12", "the target has no paired products");
    if (b.kind != BufferKind::Constant || pair.kind != BufferKind::Constant)
      fail_here("P12", "a pair of right operands that are not constants");
    if (b.type.dtype != pair.type.dtype || matmul.b.strides != matmul.pair->strides)
      fail_here("P12", "a pair of right operands that are not alike");
  }

  // P19
  void check_second(const Convolution& c, const PixelSum& second) {
    const ir::Dim pixels = c.b.extent() * second.height * second.width * second.channels;
    if (!(buffer(second.input).type.elements() == pixels))
      fail_here("P6", "the second input has another size");
    if (!(buffer(second.weight).type.elements() == c.o.extent() * second.channels))
      fail_here("P6", "the filters of the second sum have another size");
    const auto within = [](const Loop& loop, int64_t stride, const ir::Dim& size) {
      return (size - 1 - (loop.extent() - 1) * stride).lower_bound() >= 0;
    };
    if (!within(c.y, second.stride_h, second.height) || !within(c.x, second.stride_w, second.width))
      fail_here("P19", "pixels of a second sum outside of its image");
    if (!allows_second_sum(program_, c, second))
      fail_here("P19", "a second sum that the target has no kernel for");
  }

  void check(const Convolution& c) {
    open({c.b, c.y, c.x, c.o});
    for (BufferId id : operands(*kernel_)) check_readable(id);
    const ir::Dim pixels = c.b.extent() * c.height * c.width * c.channels;
    const ir::Dim results =
        c.pool ? c.b.extent() * c.pool->y.extent() * c.pool->x.extent() * c.o.extent()
               : c.b.extent() * c.y.extent() * c.x.extent() * c.o.extent();
    if (!(buffer(c.input).type.elements() == pixels)) fail_here("P6", "the input has another size");
    if (!(buffer(c.out).type.elements() == results)) fail_here("P6", "the result has another size");
    const bool has_tiles = c.winograd == 2 || c.winograd == 4;
    if (c.winograd != 0 && (!has_tiles || !allows_winograd(program_, c)))
      fail_here("P11", "Winograd's algorithm for another convolution, or with other tiles");
    const bool has_padding = c.padding > 0 && c.padding <= 255 && c.formats.left == DType::U8;
    if (c.padding != 0 && !has_padding)
      fail_here("P10", "padding that is not an element of the input");
    if (c.pool && !allows_pool(program_, c, *c.pool))
      fail_here("P16", "a pooling that the target has no kernel for");
    check_formats(c.formats, c.input, c.weight);
    if (c.second) check_second(c, *c.second);
    check_expr(c.epilogue, {{}, c.formats.accumulator, c.second ? 2 : 1});
    check_result(c.out, c.epilogue);
  }

  void check(const Attention& a) {
    const Loop d = make_loop("d", a.head_dim), e = make_loop("e", a.value_dim);
    open(with_loops(a.batch, {a.i, a.j}));
    check_view(a.q, with_loops(a.batch, {a.i, d}));
    check_view(a.k, with_loops(a.batch, {a.j, d}));
    check_view(a.v, with_loops(a.batch, {a.j, e}));
    check_view(a.out, with_loops(a.batch, {a.i, e}));
    for (BufferId id : operands(*kernel_)) check_readable(id);
    check_writable(a.out.buffer);
    if (a.keep) check_expr(a.keep, {});
    if (a.bias) check_expr(a.bias, {});
    if (a.keep && a.keep->dtype != DType::Bool) fail_here("P4", "keep is not bool");
    if (a.bias && a.bias->dtype != a.formats.accumulator)
      fail_here("P4", "bias is not of the accumulator's dtype");
    check_formats(a.formats, a.q.buffer, a.k.buffer);
    check_formats(a.formats, a.q.buffer, a.v.buffer);
  }

  void check(const Sort& sort) {
    open(sort.outer);
    open({sort.element});
    check_expr(sort.key, {});
    close({sort.element});
    open({sort.place});
    check_view(sort.out, with_loops(sort.outer, {sort.place}));
    check_writable(sort.out.buffer);
    if (sort.key->dtype == DType::Bool) fail_here("P4", "a key is bool");
    if (buffer(sort.out.buffer).type.dtype != DType::I64)
      fail_here("P4", "an order is stored as another dtype than i64");
  }

  void check(const Scatter& s) {
    open(with_loops(s.outer, s.inner));
    open({s.position});
    check_view(s.out, with_loops(with_loops(s.outer, {s.position}), s.inner));
    if (s.initial) {
      check_expr(s.initial, {});
      check_result(s.out.buffer, s.initial);
    } else if (!updates_input(s.out.buffer) && !written_.contains(s.out.buffer)) {
      fail_here("P7", "nothing is in " + buffer(s.out.buffer).name + " to begin with");
    }
    close({s.position});
    open({s.write});
    check_expr(s.index, {});
    check_expr(s.value, {});
    check_result(s.out.buffer, s.value);
    if (s.index->dtype != DType::I64) fail_here("P4", "an index is not i64");
    if (s.combine == ReduceOp::ArgMax || s.combine == ReduceOp::ArgMin)
      fail_here("P4", "argmax of what is written");
  }

  // P18
  void check(const Custom& custom) {
    if (!program_.traits.calls) fail_here("P18", "the target calls no kernels of the user's own");
    const auto check_whole = [&](const Custom::Tensor& tensor) {
      ir::Dim elements = 1;
      for (const ir::Dim& size : tensor.shape) {
        check_scope(size);
        elements *= size;
      }
      if (!(elements == buffer(tensor.buffer).type.elements()))
        fail_here("P18", buffer(tensor.buffer).name + " has another size than its tensor");
    };
    for (const Custom::Tensor& input : custom.inputs) {
      check_whole(input);
      check_readable(input.buffer);
    }
    std::set<BufferId> touched;
    for (const Custom::Tensor& input : custom.inputs) touched.insert(input.buffer);
    for (const Custom::Tensor& output : custom.outputs) {
      check_whole(output);
      check_writable(output.buffer);
      if (!touched.insert(output.buffer).second)
        fail_here("P18", buffer(output.buffer).name + " is read, or written twice");
      if (const BufferId alias = buffer(output.buffer).alias_of; touched.contains(alias))
        fail_here("P18", buffer(output.buffer).name + " overlaps what it reads");
    }
    if (custom.kernel.empty() || custom.outputs.empty())
      fail_here("P18", "it has no name, or writes nothing");
  }

  const Program& program_;
  const Touches uses_;
  const Kernel* kernel_ = nullptr;
  std::set<ir::SymbolPtr> scope_;
  std::set<BufferId> written_;
};

}  // namespace

void verify(const Program& program) { Verifier(program).run(); }

}  // namespace kiln::plan
