// Reductions, and running sums.
#include "import/onnx/ops/common.h"

namespace kiln::import::onnx {
namespace {

struct Reduction {
  std::vector<int64_t> axes;
  bool keepdims = true;
};

// Without axes: all of them, or none where noop_with_empty_axes says so.
Reduction read_reduction(NodeCall& call, const Value* x) {
  Reduction reduction;
  reduction.keepdims = call.flag_or("keepdims", true);
  const bool none = call.flag_or("noop_with_empty_axes", false);
  const std::vector<int64_t> given = call.list(1, "axes").value_or(std::vector<int64_t>{});
  if (!given.empty())
    reduction.axes = call.axes(given, x->type.rank());
  else if (!none)
    reduction.axes = range(0, rank_of(x));
  return reduction;
}

Expr sum_of(NodeCall& call, const Expr& x, const Reduction& over) {
  return call.expr(reduce(call.call(), Op::reduce_sum, x, over.axes, over.keepdims));
}

template <Op op>
Value* plain(NodeCall& call) {
  Value* x = call.input(0);
  const Reduction over = read_reduction(call, x);
  return reduce(call.call(), op, x, over.axes, over.keepdims);
}

// A function of sums in which 16-bit floats are computed as f32.
using Composition = Expr (*)(NodeCall& call, const Expr& x, const Reduction& over);
template <Composition function>
Value* summed(NodeCall& call) {
  Value* x = call.input(0);
  const Reduction over = read_reduction(call, x);
  return composed(call, x, [&](const Expr& wide) { return function(call, wide, over); });
}

// Roots and logarithms of integers are those of floats, cut off.
template <Composition function>
Value* summed_floating(NodeCall& call) {
  Value* x = call.input(0);
  if (is_floating(x->type.dtype)) return summed<function>(call);
  const Reduction over = read_reduction(call, x);
  const Expr wide = call.expr(call.builder().cast(x, DType::F64));
  return call.builder().cast(function(call, wide, over), x->type.dtype);
}

Expr mean(NodeCall& call, const Expr& x, const Reduction& over) {
  return call.expr(reduce(call.call(), Op::reduce_mean, x, over.axes, over.keepdims));
}

Expr l1(NodeCall& call, const Expr& x, const Reduction& over) {
  return sum_of(call, x.apply(Op::abs), over);
}

Expr sum_square(NodeCall& call, const Expr& x, const Reduction& over) {
  return sum_of(call, x * x, over);
}

Expr l2(NodeCall& call, const Expr& x, const Reduction& over) {
  return sum_square(call, x, over).apply(Op::sqrt);
}

Expr log_sum(NodeCall& call, const Expr& x, const Reduction& over) {
  return sum_of(call, x, over).apply(Op::log);
}

// m + log(sum(e^(x - m))), m the maximum, or 0 where that is infinite.
Expr log_sum_exp(NodeCall& call, const Expr& x, const Reduction& over) {
  const Expr largest = call.expr(reduce(call.call(), Op::reduce_max, x, over.axes, true));
  const Expr offset = largest.apply(Op::isinf).select(largest.constant(0), largest);
  const Expr sum = sum_of(call, (x - offset).apply(Op::exp), over).apply(Op::log);
  return sum + call.expr(call.builder().reshape(offset, sum.value()->type.shape));
}

template <Op op>
Value* import_arg(NodeCall& call) {
  Value* x = call.input(0);
  const int64_t axis = call.axis(call.integer_or("axis", 0), x->type.rank());
  const bool keepdims = call.flag_or("keepdims", true);
  require_elements(call.call(), x, {axis}, ir::Requirement::Kind::Sizes);
  const auto index = [&](Value* of) {
    return call.make(op, {of}, {{"axis", axis}, {"keepdim", keepdims}});
  };
  if (!call.flag_or("select_last_index", false)) return index(x);
  Value* flipped = call.make(Op::flip, {x}, {{"axes", std::vector<int64_t>{axis}}});
  const Expr last = call.expr(
      call.make(Op::dim_value, {},
                {{"value", x->type.shape[static_cast<size_t>(axis)] - 1}, {"dtype", DType::I64}}));
  return last - call.expr(index(flipped));
}

// exclusive: without the element itself; reverse: from the end.
template <Op op>
Value* import_running(NodeCall& call) {
  Value* x = call.input(0);
  const int64_t axis = call.axis(call.integer(size_t{1}), x->type.rank());
  const bool exclusive = call.flag_or("exclusive", false), reverse = call.flag_or("reverse", false);
  const auto flip = [&](Value* value) {
    if (!reverse) return value;
    return call.make(Op::flip, {value}, {{"axes", std::vector<int64_t>{axis}}});
  };
  const DType dtype = x->type.dtype;
  x = call.builder().cast(flip(x), compute_dtype(dtype));
  if (exclusive) {  // a neutral element comes in at the front, and the last one goes
    std::vector<Dim> before(x->type.rank(), Dim(0)), after = before;
    before[static_cast<size_t>(axis)] = 1;
    after[static_cast<size_t>(axis)] = -1;
    x = pad_with(call, x, before, after, op == Op::cumprod ? 1 : 0);
  }
  return flip(call.builder().cast(call.make(op, {x}, {{"axis", axis}}), dtype));
}

constexpr OperatorRow kRows[] = {
    {"ArgMax", import_arg<Op::argmax>},
    {"ArgMin", import_arg<Op::argmin>},
    {"CumProd", import_running<Op::cumprod>},
    {"CumSum", import_running<Op::cumsum>},
    {"ReduceL1", summed<l1>},
    {"ReduceL2", summed_floating<l2>},
    {"ReduceLogSum", summed_floating<log_sum>},
    {"ReduceLogSumExp", summed_floating<log_sum_exp>},
    {"ReduceMax", plain<Op::reduce_max>},
    {"ReduceMean", summed_floating<mean>},
    {"ReduceMin", plain<Op::reduce_min>},
    {"ReduceProd", plain<Op::reduce_prod>},
    {"ReduceSum", plain<Op::reduce_sum>},
    {"ReduceSumSquare", summed<sum_square>},
};

}  // namespace

OperatorRows reduce_operators() { return kRows; }

}  // namespace kiln::import::onnx
