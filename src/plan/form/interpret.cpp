// The interpreter of programs: one element at a time, in the order the kernels say. Slow and
// obvious.
#include "plan/form/interpret.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <set>
#include <unordered_map>

#include "ir/scalar.h"
#include "plan/form/access.h"
#include "plan/form/parts.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

using ir::Scalar;

struct Memory {
  ir::Literal literal;        // the view to read
  std::byte* data = nullptr;  // the same bytes to write; null where writing is an error
};

// Values of size symbols and loop indices.
class Environment {
 public:
  void set(const ir::SymbolPtr& symbol, int64_t value) { values_[symbol.get()] = value; }
  bool has(const ir::SymbolPtr& symbol) const { return values_.contains(symbol.get()); }
  // Of elements there are many: no Dim is made for a lookup.
  int64_t operator()(const ir::SymbolPtr& symbol) const {
    const auto it = values_.find(symbol.get());
    KILN_CHECK(it != values_.end(), symbol->name + " is not bound");
    return it->second;
  }
  int64_t operator()(const ir::Dim& dim) const {
    if (dim.is_constant()) return dim.constant();
    return dim.evaluate([this](const ir::SymbolPtr& symbol) { return (*this)(symbol); });
  }

 private:
  std::unordered_map<const ir::Symbol*, int64_t> values_;
};

// Leaves that a kernel supplies.
struct Leaves {
  std::vector<Scalar> reduced;
  std::array<Scalar, 2> accumulators;
};

class Interpreter {
 public:
  Interpreter(const Program& program, std::span<const ir::Literal> inputs)
      : program_(program), repeats_(repeat_ranges(program)) {
    bind_inputs(inputs);
    memory_.resize(program_.buffers.size());
    for (size_t i = 0; i < inputs.size(); ++i) memory_[program_.inputs[i]].literal = inputs[i];
  }

  std::vector<ir::Literal> run() {
    run(0, program_.kernels.size(), -1);
    std::vector<ir::Literal> outputs;
    for (BufferId output : program_.outputs) {
      allocate(output);
      outputs.push_back(memory_[output].literal);
    }
    return outputs;
  }

 private:
  // Kernels of a repeat, once; of the program: -1.
  void run(size_t first, size_t end, int32_t repeat) {
    for (size_t i = first; i < end;) {
      const int32_t inner = repeat_below(program_, program_.kernels[i], repeat);
      if (inner == -1) {
        run(program_.kernels[i++]);
        continue;
      }
      const auto number = static_cast<size_t>(inner);
      const Memory& condition = memory_[program_.repeats[number].condition];
      while (condition.literal.as_int(0) != 0)
        run(repeats_[number].first, repeats_[number].end, inner);
      i = repeats_[number].end;
    }
  }

  void run(const Kernel& kernel) {
    for (BufferId buffer : reads(kernel)) allocate(buffer);
    for (BufferId buffer : writes(kernel)) allocate(buffer);
    std::visit([&](const auto& body) { execute(body); }, kernel.body);
    for (BufferId buffer : writes(kernel)) find_size(buffer);
  }

  void bind_inputs(std::span<const ir::Literal> inputs) {
    KILN_CHECK(inputs.size() == program_.inputs.size(), "wrong number of inputs");
    for (size_t i = 0; i < inputs.size(); ++i) {
      const ir::Shape& shape = program_.buffers[program_.inputs[i]].type.shape;
      KILN_CHECK(shape.size() == inputs[i].shape.size(), "wrong rank of an input");
      for (size_t k = 0; k < shape.size(); ++k) {
        const ir::SymbolPtr symbol = shape[k].as_symbol();
        if (symbol && !environment_.has(symbol)) environment_.set(symbol, inputs[i].shape[k]);
      }
    }
  }

  std::vector<int64_t> sizes(const ir::Shape& shape) const {
    std::vector<int64_t> result;
    for (const ir::Dim& dim : shape) result.push_back(environment_(dim));
    return result;
  }

  // When a kernel first touches it: its sizes are known then. Fresh memory is filled with a pattern,
  // so that reading it before writing shows.
  void allocate(BufferId id) {
    const Buffer& buffer = program_.buffers[id];
    if (buffer.kind == BufferKind::Input || is_allocated_.contains(id)) return;
    is_allocated_.insert(id);
    auto& [literal, data] = memory_[id];
    if (buffer.kind == BufferKind::Constant) {
      literal = buffer.literal;
    } else if (buffer.alias_of >= 0 && buffer.kind == BufferKind::Temporary) {
      allocate(root(id));
      share(memory_[id], memory_[root(id)], sizes(buffer.type.shape), buffer.type.dtype);
    } else {
      literal = ir::Literal::allocate(buffer.type.dtype, sizes(buffer.type.shape), &data);
      if (!literal.bytes.empty()) std::memset(data, 0xdb, literal.bytes.size());
      if (buffer.alias_of >= 0) update(memory_[id], memory_[buffer.alias_of]);
    }
  }

  void find_size(BufferId buffer) {
    for (const DataSize& size : program_.data_sizes) {
      if (size.count != buffer) continue;
      const int64_t value = memory_[buffer].literal.as_int(0);
      const int64_t most = size.bound ? environment_(*size.bound) : size.symbol->max;
      if (value < size.symbol->min || value > std::min(size.symbol->max, most))
        throw CompileError("[run] got the size " + size.symbol->name + " = " +
                           std::to_string(value) + ", expected a number in its range");
      environment_.set(size.symbol, value);
    }
  }

  // The caller's memory is left alone: the output begins as a copy of the input, which is read there.
  static void update(Memory& output, Memory& input) {
    KILN_CHECK(output.literal.bytes.size() == input.literal.bytes.size(), "in-place sizes differ");
    if (!output.literal.bytes.empty())
      std::memcpy(output.data, input.literal.bytes.data(), output.literal.bytes.size());
    input.literal.bytes = output.literal.bytes;
    input.literal.owner = output.literal.owner;
  }

  BufferId root(BufferId buffer) const {
    while (program_.buffers[buffer].alias_of >= 0) buffer = program_.buffers[buffer].alias_of;
    return buffer;
  }

  static void share(Memory& alias, const Memory& owner, std::vector<int64_t> shape, DType dtype) {
    alias.literal.dtype = dtype;
    alias.literal.shape = std::move(shape);
    KILN_CHECK(static_cast<size_t>(alias.literal.elements()) * dtype_size(dtype) ==
                   owner.literal.bytes.size(),
               "in-place sizes differ");
    alias.literal.bytes = owner.literal.bytes;
    alias.literal.owner = owner.literal.owner;
    alias.data = owner.data;
  }

  // --- Elements ---

  int64_t offset_of(BufferId buffer, const std::vector<int64_t>& at) const {
    const std::vector<int64_t>& shape = memory_[buffer].literal.shape;
    KILN_CHECK(shape.size() == at.size(), "wrong rank of an access");
    int64_t offset = 0;
    for (size_t i = 0; i < at.size(); ++i) {
      KILN_CHECK(at[i] >= 0 && at[i] < shape[i],
                 program_.buffers[buffer].name + " is accessed out of bounds");
      offset = offset * shape[i] + at[i];
    }
    return offset;
  }

  Scalar read(BufferId buffer, int64_t offset) const {
    const ir::Literal& literal = memory_[buffer].literal;
    KILN_CHECK(offset >= 0 && offset < literal.elements(), "a view is out of bounds");
    return ir::element(literal, offset);
  }

  void write(BufferId buffer, int64_t offset, const Scalar& value) {
    const Memory& memory = memory_[buffer];
    KILN_CHECK(memory.data != nullptr, program_.buffers[buffer].name + " is read-only");
    KILN_CHECK(offset >= 0 && offset < memory.literal.elements(), "a view is out of bounds");
    KILN_CHECK(value.dtype == memory.literal.dtype, "a value of another dtype is stored");
    ir::set_element(memory.data, offset, value);
  }

  Scalar load(const ExprNode& node, std::span<const Scalar> args) const {
    std::vector<int64_t> at;
    at.reserve(args.size());
    for (const Scalar& arg : args) at.push_back(arg.integer);
    return read(node.buffer, offset_of(node.buffer, at));
  }

  Scalar value_of(const Expr& expr, const Leaves& leaves) const {
    std::unordered_map<const ExprNode*, Scalar> memo;
    return value_of(expr, leaves, memo);
  }

  Scalar value_of(const Expr& expr, const Leaves& leaves,
                  std::unordered_map<const ExprNode*, Scalar>& memo) const {
    // What has one user, or nothing below it, is found faster than remembered.
    if (expr.use_count() == 1 || expr->args.empty()) return compute(expr, leaves, memo);
    if (const auto it = memo.find(expr.get()); it != memo.end()) return it->second;
    return memo[expr.get()] = compute(expr, leaves, memo);
  }

  Scalar compute(const Expr& expr, const Leaves& leaves,
                 std::unordered_map<const ExprNode*, Scalar>& memo) const {
    switch (expr->kind) {
      case ExprKind::Constant:
        return {expr->dtype, expr->number, expr->integer};
      case ExprKind::Position:
        return {DType::I64, 0, environment_(expr->index)};
      case ExprKind::Reduced:
        return leaves.reduced.at(static_cast<size_t>(expr->slot));
      case ExprKind::Accumulator:
        return leaves.accumulators.at(static_cast<size_t>(expr->slot));
      default:
        break;
    }
    if (expr->predicate && !value_of(expr->predicate, leaves, memo).truth()) {
      if (expr->kind == ExprKind::Check) return value_of(expr->args[0], leaves, memo);
      return ir::make_scalar_int(expr->dtype, 0);
    }
    std::vector<Scalar> args;
    args.reserve(expr->args.size());
    for (const Expr& arg : expr->args) args.push_back(value_of(arg, leaves, memo));
    if (expr->kind == ExprKind::Load) return load(*expr, args);
    if (expr->kind == ExprKind::Check) return checked(*expr, args[0]);
    if (expr->op == ir::Op::cast) return convert(args[0], expr->dtype);
    return evaluate(expr->op, args, expr->gelu_tanh);
  }

  Scalar checked(const ExprNode& node, const Scalar& value) const {
    const auto& [operation, input, fault] = program_.checks.at(static_cast<size_t>(node.check));
    if (node.check_kind == CheckKind::Nonzero) {
      if (value.integer != 0) return value;
      throw CompileError("[" + operation + "] " +
                         (fault.empty() ? "got a division of integers by zero" : fault));
    }
    const int64_t size = environment_(node.index);
    const int64_t least = node.check_kind == CheckKind::IndexFromEnd ? -size : 0;
    if (value.integer >= least && value.integer < size) return value;
    throw CompileError("[" + operation + "] got the index " + std::to_string(value.integer) +
                       ", expected " + std::to_string(least) + " <= index < " +
                       std::to_string(size));
  }

  // --- Loops ---

  void for_each(const std::vector<Loop>& loops, const std::function<void()>& body,
                size_t depth = 0) {
    if (depth == loops.size()) return body();
    const int64_t extent = environment_(loops[depth].extent());
    for (int64_t i = 0; i < extent; ++i) {
      environment_.set(loops[depth].index, i);
      for_each(loops, body, depth + 1);
    }
  }

  static Scalar identity(ReduceOp op, DType dtype) {
    const double infinity = std::numeric_limits<double>::infinity();
    switch (op) {
      case ReduceOp::Sum:
        return ir::make_scalar_int(dtype, 0);
      case ReduceOp::Prod:
        return ir::make_scalar_int(dtype, 1);
      case ReduceOp::Max:
        return is_floating(dtype) ? ir::make_scalar(dtype, -infinity)
                                  : ir::make_scalar_int(dtype, least_integer(dtype));
      case ReduceOp::Min:
        return is_floating(dtype) ? ir::make_scalar(dtype, infinity)
                                  : ir::make_scalar_int(dtype, greatest_integer(dtype));
      default:
        break;
    }
    throw InternalError("ArgMax and ArgMin have no identity");
  }

  // Floats accumulate in double.
  static Scalar wide(const Scalar& value) {
    return is_floating(value.dtype) ? convert(value, DType::F64) : value;
  }

  Scalar reduce(const Reduction& reduction, const Leaves& leaves) {
    if (reduction.op == ReduceOp::ArgMax || reduction.op == ReduceOp::ArgMin) {
      return reduce_argument(reduction, leaves);
    }
    std::optional<Scalar> result;
    for_each(reduction.loops, [&] {
      const Scalar value = wide(value_of(reduction.value, leaves));
      result =
          result ? evaluate(combining_op(reduction.op), std::array{*result, value}, false) : value;
    });
    const DType dtype = reduction.value->dtype;
    return result ? convert(*result, dtype) : identity(reduction.op, dtype);
  }

  Scalar reduce_argument(const Reduction& reduction, const Leaves& leaves) {
    const bool max = reduction.op == ReduceOp::ArgMax;
    std::optional<double> best;
    int64_t at = 0;
    for_each(reduction.loops, [&] {
      const double value = value_of(reduction.value, leaves).as_double();
      const bool better = !best || (max ? value > *best : value < *best) || std::isnan(value);
      if (!better || (best && std::isnan(*best))) return;
      best = value;
      at = environment_(reduction.loops[0].index);
    });
    return {DType::I64, 0, at};
  }

  // --- Kernels ---

  void execute(const LoopNest& nest) {
    for_each(nest.outer, [&] {
      Leaves leaves;
      for (const Stage& stage : nest.stages) {
        if (const auto* reduction = std::get_if<Reduction>(&stage)) {
          leaves.reduced.push_back(reduce(*reduction, leaves));
        } else {
          store(std::get<Store>(stage), leaves);
        }
      }
    });
  }

  void store(const Store& store, const Leaves& leaves) {
    std::optional<Scalar> running;
    const ir::SymbolPtr innermost = store.scan ? store.loops.back().index : nullptr;
    for_each(store.loops, [&] {
      Scalar value = value_of(store.value, leaves);
      const DType dtype = value.dtype;
      if (store.scan) {
        if (environment_(innermost) == 0) running.reset();
        running =
            running ? evaluate(combining_op(*store.scan), std::array{*running, wide(value)}, false)
                    : wide(value);
        value = convert(*running, dtype);
      }
      std::vector<int64_t> at;
      for (const Index& index : store.indices) at.push_back(environment_(index));
      write(store.buffer, offset_of(store.buffer, at), value);
    });
  }

  int64_t offset_of(const View& view, const std::vector<Loop>& batch,
                    std::array<int64_t, 2> inner) const {
    int64_t offset = environment_(view.offset);
    for (size_t i = 0; i < batch.size(); ++i) {
      offset += environment_(view.strides[i]) * environment_(batch[i].index);
    }
    for (size_t i = 0; i < 2; ++i)
      offset += environment_(view.strides[batch.size() + i]) * inner[i];
    return offset;
  }

  // Elements of the operands of a contraction, as they are multiplied.
  double left_element(const Formats& formats, BufferId buffer, int64_t offset) const {
    return convert(read(buffer, offset), formats.left).as_double();
  }
  double right_element(const Formats& formats, BufferId buffer, int64_t offset) const {
    Scalar value = read(buffer, offset);
    if (program_.buffers[buffer].kind == BufferKind::Constant)
      value = convert(value, formats.weight);
    return convert(value, formats.right).as_double();
  }

  // Sums of integers are exact in f64.
  Scalar finish(const Formats& formats, const Expr& epilogue, double sum, double pair = 0) const {
    Leaves leaves;
    const auto scalar = [&](double value) {
      return ir::convert(ir::make_scalar(DType::F64, value), formats.accumulator);
    };
    leaves.accumulators = {scalar(sum), scalar(pair)};
    return value_of(epilogue, leaves);
  }

  void execute(const MatMul& matmul) {
    const std::vector<Loop> loops = with_loops(matmul.batch, {matmul.m, matmul.n});
    for_each(loops, [&] {
      const int64_t m = environment_(matmul.m.index), n = environment_(matmul.n.index);
      write(matmul.out.buffer, offset_of(matmul.out, matmul.batch, {m, n}),
            finish(matmul.formats, matmul.epilogue, product(matmul, matmul.b, m, n),
                   matmul.pair ? product(matmul, *matmul.pair, m, n) : 0));
    });
  }

  // What an element of the right operand stands for.
  double grouped(const MatMul& matmul, double element, int64_t k, int64_t n) const {
    if (!matmul.groups) return element;
    const Groups& groups = *matmul.groups;
    const auto at = [&](const View& view) {
      return read(view.buffer, offset_of(view, {}, {k / groups.size, n})).as_double();
    };
    const double zero = groups.zeros ? at(*groups.zeros) : 0;
    return (element - zero) * at(groups.scales);
  }

  // A row of a times a column of a right operand.
  double product(const MatMul& matmul, const View& right, int64_t m, int64_t n) const {
    const int64_t steps = environment_(matmul.k.extent());
    double sum = 0;
    for (int64_t k = 0; k < steps; ++k) {
      sum +=
          left_element(matmul.formats, matmul.a.buffer, offset_of(matmul.a, matmul.batch, {m, k})) *
          grouped(
              matmul,
              right_element(matmul.formats, right.buffer, offset_of(right, matmul.batch, {k, n})),
              k, n);
    }
    return sum;
  }

  // The sum for output pixel (b, y, x) and filter o.
  double convolve(const Convolution& c, const std::array<int64_t, 4>& at) const {
    const auto [b, y, x, o] = at;
    const int64_t height = environment_(c.height), width = environment_(c.width);
    const int64_t group_channels = c.channels / c.groups;
    const int64_t first = o / (environment_(c.o.extent()) / c.groups) * group_channels;
    double sum = 0;
    for (int64_t ky = 0; ky < c.kernel_h; ++ky) {
      const int64_t row = y * c.stride_h + ky * c.dilation_h - environment_(c.pad_top);
      for (int64_t kx = 0; kx < c.kernel_w; ++kx) {
        const int64_t column = x * c.stride_w + kx * c.dilation_w - environment_(c.pad_left);
        const bool outside = row < 0 || row >= height || column < 0 || column >= width;
        if (outside && c.padding == 0) continue;
        const int64_t pixel = ((b * height + row) * width + column) * c.channels + first;
        const int64_t filter = ((o * c.kernel_h + ky) * c.kernel_w + kx) * group_channels;
        for (int64_t channel = 0; channel < group_channels; ++channel) {
          const double element = outside ? static_cast<double>(c.padding)
                                         : left_element(c.formats, c.input, pixel + channel);
          sum += element * right_element(c.formats, c.weight, filter + channel);
        }
      }
    }
    return sum;
  }

  double add_pixel(const Convolution& c, const PixelSum& second,
                   const std::array<int64_t, 4>& at) const {
    const auto [b, y, x, o] = at;
    const int64_t row = b * environment_(second.height) + y * second.stride_h;
    const int64_t pixel =
        (row * environment_(second.width) + x * second.stride_w) * second.channels;
    double sum = 0;
    for (int64_t channel = 0; channel < second.channels; ++channel)
      sum += left_element(c.formats, second.input, pixel + channel) *
             right_element(c.formats, second.weight, o * second.channels + channel);
    return sum;
  }

  void execute(const Convolution& c) {
    const auto at = [&](const Loop& loop) { return environment_(loop.index); };
    const auto result = [&] {
      const std::array<int64_t, 4> point = {at(c.b), at(c.y), at(c.x), at(c.o)};
      const double second = c.second ? add_pixel(c, *c.second, point) : 0;
      return finish(c.formats, c.epilogue, convolve(c, point), second);
    };
    int64_t offset = 0;
    if (!c.pool) return for_each({c.b, c.y, c.x, c.o}, [&] { write(c.out, offset++, result()); });
    const DType dtype = program_.buffers[c.out].type.dtype;
    for_each({c.b, c.pool->y, c.pool->x, c.o}, [&] {
      Scalar most = ir::make_scalar(dtype, -std::numeric_limits<double>::infinity());
      for (int64_t tap = 0; tap < c.pool->kernel_h * c.pool->kernel_w; ++tap) {
        const int64_t y =
            at(c.pool->y) * c.pool->stride_h + tap / c.pool->kernel_w - c.pool->pad_top;
        const int64_t x =
            at(c.pool->x) * c.pool->stride_w + tap % c.pool->kernel_w - c.pool->pad_left;
        if (y < 0 || y >= environment_(c.y.extent()) || x < 0 || x >= environment_(c.x.extent()))
          continue;
        environment_.set(c.y.index, y);
        environment_.set(c.x.index, x);
        const Scalar next = ir::convert(result(), dtype);
        if (is_less(most, next)) most = next;
      }
      write(c.out, offset++, most);
    });
  }

  // exp(score - max) for each j; a row of zeros if nothing is kept.
  std::vector<double> attention_weights(const Attention& a, int64_t i) {
    const double infinity = std::numeric_limits<double>::infinity();
    std::vector<double> scores;
    double max = -infinity;
    for_each({a.j}, [&] {
      const int64_t j = environment_(a.j.index);
      double score = 0;
      for (int64_t d = 0; d < a.head_dim; ++d) {
        score += left_element(a.formats, a.q.buffer, offset_of(a.q, a.batch, {i, d})) *
                 right_element(a.formats, a.k.buffer, offset_of(a.k, a.batch, {j, d}));
      }
      score *= a.scale;
      if (a.bias) score += value_of(a.bias, {}).as_double();
      const bool dropped = (a.causal && j > i) || (a.keep && !value_of(a.keep, {}).truth());
      scores.push_back(dropped ? -infinity : score);
      max = std::max(max, scores.back());
    });
    for (double& score : scores) score = max == -infinity ? 0 : std::exp(score - max);
    return scores;
  }

  void execute(const Attention& a) {
    const std::vector<Loop> rows = with_loops(a.batch, {a.i});
    const DType dtype = program_.buffers[a.out.buffer].type.dtype;
    for_each(rows, [&] {
      const int64_t i = environment_(a.i.index);
      const std::vector<double> weights = attention_weights(a, i);
      double total = 0;
      for (double weight : weights) total += weight;
      for (int64_t e = 0; e < a.value_dim; ++e) {
        double sum = 0;
        for (size_t j = 0; j < weights.size(); ++j) {
          const int64_t offset = offset_of(a.v, a.batch, {static_cast<int64_t>(j), e});
          sum += weights[j] * right_element(a.formats, a.v.buffer, offset);
        }
        write(a.out.buffer, offset_of(a.out, a.batch, {i, e}),
              ir::make_scalar(dtype, total == 0 && !a.nan_rows ? 0 : sum / total));
      }
    });
  }

  // Not-a-number is the greatest.
  static bool is_less(const Scalar& a, const Scalar& b) {
    if (!is_floating(a.dtype)) return a.integer < b.integer;
    const double x = a.as_double(), y = b.as_double();
    return x < y || (std::isnan(y) && !std::isnan(x));
  }

  void execute(const Sort& sort) {
    const int64_t places = environment_(sort.place.extent());
    for_each(sort.outer, [&] {
      std::vector<Scalar> keys;
      for_each({sort.element}, [&] { keys.push_back(value_of(sort.key, {})); });
      KILN_CHECK(places <= static_cast<int64_t>(keys.size()), "more places than elements");
      std::vector<int64_t> order(keys.size());
      std::iota(order.begin(), order.end(), 0);
      std::ranges::stable_sort(order, [&](int64_t a, int64_t b) {
        const Scalar &x = keys[static_cast<size_t>(a)], &y = keys[static_cast<size_t>(b)];
        return sort.descending ? is_less(y, x) : is_less(x, y);
      });
      for (int64_t place = 0; place < places; ++place) {
        environment_.set(sort.place.index, place);
        write(sort.out.buffer, offset_of(sort.out, with_loops(sort.outer, {sort.place})),
              {DType::I64, 0, order[static_cast<size_t>(place)]});
      }
    });
  }

  int64_t offset_of(const View& view, const std::vector<Loop>& loops) const {
    int64_t offset = environment_(view.offset);
    for (size_t i = 0; i < loops.size(); ++i)
      offset += environment_(view.strides[i]) * environment_(loops[i].index);
    return offset;
  }

  void execute(const Custom& custom) {
    throw CompileError(
        "[" + custom.kernel +
        "] got a kernel of the user's own, expected Kiln's own: only engines call it");
  }

  void execute(const Scatter& scatter) {
    const std::vector<Loop> target =
        with_loops(with_loops(scatter.outer, {scatter.position}), scatter.inner);
    if (scatter.initial) {
      for_each(target, [&] {
        write(scatter.out.buffer, offset_of(scatter.out, target), value_of(scatter.initial, {}));
      });
    }
    const int64_t positions = environment_(scatter.position.extent());
    for_each(with_loops(with_loops(scatter.outer, {scatter.write}), scatter.inner), [&] {
      const int64_t place = value_of(scatter.index, {}).integer;
      if (place < 0 || place >= positions) return;
      Scalar value = value_of(scatter.value, {});
      environment_.set(scatter.position.index, place);
      const int64_t offset = offset_of(scatter.out, target);
      if (scatter.combine) {
        const Scalar before = read(scatter.out.buffer, offset);
        value = evaluate(combining_op(*scatter.combine), std::array{before, value}, false);
      }
      write(scatter.out.buffer, offset, value);
    });
  }

  const Program& program_;
  const std::vector<KernelRange> repeats_;
  Environment environment_;
  std::vector<Memory> memory_;
  std::set<BufferId> is_allocated_;  // looked up, never walked
};

}  // namespace

std::vector<ir::Literal> interpret(const Program& program, std::span<const ir::Literal> inputs) {
  return Interpreter(program, inputs).run();
}

}  // namespace kiln::plan
