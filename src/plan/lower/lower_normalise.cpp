// Softmax and the normalisations: multi-stage nests that compute in f32 at least.
#include "plan/lower/lowering.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

using ir::Op;

Expr add(Expr a, Expr b) { return apply(Op::add, {std::move(a), std::move(b)}); }
Expr sub(Expr a, Expr b) { return apply(Op::sub, {std::move(a), std::move(b)}); }
Expr mul(Expr a, Expr b) { return apply(Op::mul, {std::move(a), std::move(b)}); }
Expr div(Expr a, Expr b) { return apply(Op::div, {std::move(a), std::move(b)}); }
Expr exp(Expr a) { return apply(Op::exp, {std::move(a)}); }

std::vector<bool> last_axes(size_t rank, int64_t count) {
  std::vector<bool> result(rank);
  for (size_t i = rank - static_cast<size_t>(count); i < rank; ++i) result[i] = true;
  return result;
}

std::vector<bool> one_axis(size_t rank, int64_t axis) {
  std::vector<bool> result(rank);
  result[static_cast<size_t>(axis)] = true;
  return result;
}

// The stages of one normalisation; every pass over the inner axes has loops of its own.
class Normalisation {
 public:
  Normalisation(Lowering& lowering, const ir::Node& node, std::vector<bool> inner)
      : lowering_(lowering),
        node_(node),
        shape_(node.input(0)->type.shape),
        dtype_(compute_dtype(node.input(0)->type.dtype)),
        split_(shape_, inner),
        builder_(split_.outer()),
        inner_(std::move(inner)) {}

  using Function = std::function<Expr(Expr x)>;
  Expr reduce(ReduceOp op, const Function& function) {
    LoopSpace space = split_.inner();
    return builder_.reduce(op, space.loops, function(element(space.indices)));
  }
  Expr mean(const Function& function) { return div(reduce(ReduceOp::Sum, function), count()); }
  // Stores function(x, position) and makes the kernel.
  void finish(const std::function<Expr(Expr x, const Indices& at)>& function) {
    LoopSpace space = split_.inner();
    Expr value = cast(function(element(space.indices), space.indices), node_.input(0)->type.dtype);
    builder_.store({lowering_.define(node_.output()),
                    std::move(space.loops),
                    std::move(space.indices),
                    std::move(value),
                    {}});
    lowering_.emit(node_, builder_.finish());
  }
  // weight and bias, where given, read at `at`.
  Expr scale_and_shift(Expr x, const Indices& at) const {
    if (node_.input(1)) x = mul(std::move(x), parameter(1, at));
    if (node_.input(2)) x = add(std::move(x), parameter(2, at));
    return x;
  }
  Expr number(double value) const { return constant(dtype_, value); }

 private:
  Expr element(const Indices& at) const { return cast(lowering_.load(node_.input(0), at), dtype_); }
  Expr parameter(size_t i, const Indices& at) const {
    return cast(lowering_.load(node_.input(i), at), dtype_);
  }
  Expr count() const {
    ir::Dim count = 1;
    for (size_t i = 0; i < shape_.size(); ++i) {
      if (inner_[i]) count *= shape_[i];
    }
    return cast(position(count), dtype_);
  }

  Lowering& lowering_;
  const ir::Node& node_;
  ir::Shape shape_;
  DType dtype_;
  AxisSplit split_;
  NestBuilder builder_;
  std::vector<bool> inner_;
};

void lower_softmax(Lowering& lowering, const ir::Node& node) {
  const size_t rank = node.input(0)->type.rank();
  Normalisation norm(lowering, node, one_axis(rank, node.attr<int64_t>("axis")));
  const Expr max = norm.reduce(ReduceOp::Max, [](Expr x) { return x; });
  const Expr sum = norm.reduce(ReduceOp::Sum, [&](Expr x) { return exp(sub(x, max)); });
  if (node.op == Op::log_softmax) {
    // PyTorch's kernel for the last axis keeps the sum and its logarithm in the 16 bits of x.
    const DType dtype = node.input(0)->type.dtype;
    const bool narrow = lowering.options().emulate_precision_casts && is_16_bit_float(dtype) &&
                        node.attr<int64_t>("axis") + 1 == static_cast<int64_t>(rank);
    const auto kept = [&](Expr x) { return narrow ? cast(cast(x, dtype), x->dtype) : x; };
    const Expr log = kept(apply(Op::log, {kept(sum)}));
    return norm.finish([&](Expr x, const Indices&) { return sub(sub(x, max), log); });
  }
  norm.finish([&](Expr x, const Indices&) { return div(exp(sub(x, max)), sum); });
}

// The trailing indices of a position: where the parameters of a normalisation over the last axes
// are read.
Indices trailing(const Indices& at, int64_t count) { return {at.end() - count, at.end()}; }

// Mean, then the mean of squared deviations: two passes keep the variance accurate.
void standardise(Normalisation& norm, double eps,
                 const std::function<Indices(const Indices&)>& parameter_position) {
  const Expr mean = norm.mean([](Expr x) { return x; });
  const Expr variance = norm.mean([&](Expr x) {
    const Expr deviation = sub(x, mean);
    return mul(deviation, deviation);
  });
  const Expr factor = apply(Op::rsqrt, {add(variance, norm.number(eps))});
  norm.finish([&](Expr x, const Indices& at) {
    return norm.scale_and_shift(mul(sub(x, mean), factor), parameter_position(at));
  });
}

void lower_layer_norm(Lowering& lowering, const ir::Node& node) {
  const auto axes = node.attr<int64_t>("axes");
  Normalisation norm(lowering, node, last_axes(node.input(0)->type.rank(), axes));
  standardise(norm, node.attr<double>("eps"),
              [&](const Indices& at) { return trailing(at, axes); });
}

void lower_rms_norm(Lowering& lowering, const ir::Node& node) {
  const auto axes = node.attr<int64_t>("axes");
  Normalisation norm(lowering, node, last_axes(node.input(0)->type.rank(), axes));
  const Expr square = norm.mean([](Expr x) { return mul(x, x); });
  const Expr factor = apply(Op::rsqrt, {add(square, norm.number(node.attr<double>("eps")))});
  norm.finish([&](Expr x, const Indices& at) {
    return norm.scale_and_shift(mul(x, factor), trailing(at, axes));
  });
}

// Reads x[N, C, ...] as [N, G, C/G, ...].
void lower_group_norm(Lowering& lowering, const ir::Node& node) {
  const ir::Value* x = node.input(0);
  const ir::Type& type = x->type;
  const ir::Dim groups(node.attr<int64_t>("groups"));
  const ir::Dim members = ir::floordiv(type.shape[1], groups);
  ir::Shape grouped = {type.shape[0], groups, members};
  grouped.insert(grouped.end(), type.shape.begin() + 2, type.shape.end());
  const DType dtype = compute_dtype(type.dtype);
  const AxisSplit split(grouped,
                        last_axes(grouped.size(), static_cast<int64_t>(grouped.size()) - 2));
  NestBuilder builder(split.outer());
  const auto ungrouped = [&](const Indices& at) {
    Indices result = {at[0], at[1] * members + at[2]};
    result.insert(result.end(), at.begin() + 3, at.end());
    return result;
  };
  const auto element = [&](const LoopSpace& space) {
    return cast(lowering.load(x, ungrouped(space.indices)), dtype);
  };
  const Expr count =
      cast(position(members * ir::product({type.shape.begin() + 2, type.shape.end()})), dtype);
  LoopSpace space = split.inner();
  const Expr mean = div(builder.reduce(ReduceOp::Sum, space.loops, element(space)), count);
  space = split.inner();
  const Expr deviation = sub(element(space), mean);
  const Expr variance =
      div(builder.reduce(ReduceOp::Sum, space.loops, mul(deviation, deviation)), count);
  space = split.inner();
  const Expr eps = constant(dtype, node.attr<double>("eps"));
  const Indices at = ungrouped(space.indices);
  Expr value = mul(sub(element(space), mean), apply(Op::rsqrt, {add(variance, eps)}));
  if (node.input(1)) value = mul(value, cast(lowering.load(node.input(1), {at[1]}), dtype));
  if (node.input(2)) value = add(value, cast(lowering.load(node.input(2), {at[1]}), dtype));
  builder.store({lowering.define(node.output()), space.loops, at, cast(value, type.dtype), {}});
  lowering.emit(node, builder.finish());
}

void lower_batch_norm(Lowering& lowering, const ir::Node& node) {
  const ir::Type& type = node.output()->type;
  const DType dtype = compute_dtype(type.dtype);
  LoopSpace space = make_loops(type.shape);
  const auto parameter = [&](size_t i) {
    return cast(lowering.load(node.input(i), {space.indices[1]}), dtype);
  };
  const Expr eps = constant(dtype, node.attr<double>("eps"));
  const Expr factor = apply(Op::rsqrt, {add(parameter(4), eps)});
  const Expr x = cast(lowering.load(node.input(0), space.indices), dtype);
  Expr value = mul(mul(sub(x, parameter(3)), factor), parameter(1));
  value = cast(add(std::move(value), parameter(2)), type.dtype);
  lowering.emit_pointwise(node, std::move(space), std::move(value));
}

}  // namespace

void lower_normalise(Lowering& lowering, const ir::Node& node) {
  switch (node.op) {
    case Op::softmax:
    case Op::log_softmax:
      return lower_softmax(lowering, node);
    case Op::layer_norm:
      return lower_layer_norm(lowering, node);
    case Op::rms_norm:
      return lower_rms_norm(lowering, node);
    case Op::group_norm:
      return lower_group_norm(lowering, node);
    case Op::batch_norm:
      return lower_batch_norm(lowering, node);
    default:
      break;
  }
  throw CompileError("[" + std::string(op_name(node.op)) + "] has no lowering");
}

}  // namespace kiln::plan
