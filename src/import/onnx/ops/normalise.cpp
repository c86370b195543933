// Softmax and the norms.
#include <algorithm>

#include "import/onnx/ops/common.h"

namespace kiln::import::onnx {
namespace {

// Before version 13 all axes from `axis` on count as one.
template <typename Function>
Value* along_softmax_axis(NodeCall& call, const Function& function) {
  Value* x = call.input(0);
  const bool old = call.version() < 13;
  const int64_t axis = call.axis(call.integer_or("axis", old ? 1 : -1), x->type.rank());
  if (!old) return function(x, axis);
  const auto split = x->type.shape.begin() + axis;
  Value* matrix = call.builder().reshape(
      x, {ir::product({x->type.shape.begin(), split}), ir::product({split, x->type.shape.end()})});
  return call.builder().reshape(function(matrix, 1), x->type.shape);
}

template <Op op>
Value* import_softmax(NodeCall& call) {
  return along_softmax_axis(
      call, [&](Value* x, int64_t axis) { return call.make(op, {x}, {{"axis", axis}}); });
}

// 1 at the first of the largest elements.
Value* import_hardmax(NodeCall& call) {
  return along_softmax_axis(call, [&](Value* x, int64_t axis) -> Value* {
    const Expr best = call.expr(call.make(Op::argmax, {x}, {{"axis", axis}, {"keepdim", true}}));
    const Dim& size = x->type.shape[static_cast<size_t>(axis)];
    const Expr place = call.expr(along_axis(call, iota(call.call(), size), x->type.rank(), axis));
    return call.builder().cast(best.apply(Op::eq, place), x->type.dtype);
  });
}

int64_t first_axis(NodeCall& call, const Value* x) {
  return call.axis(call.integer_or("axis", -1), x->type.rank());
}

DType stash_dtype(NodeCall& call, const Value* x) {
  call.ignore("stash_type");  // sums are f32 at least, whatever it says
  return x->type.dtype == DType::F64 ? DType::F64 : DType::F32;
}

// A weight of the normalised axes' shape goes into the op; another is broadcast after it.
Value* scaled(NodeCall& call, Value* normal, Value* scale, Value* bias) {
  Expr result = call.expr(normal);
  if (scale != nullptr) result = result * call.expr(scale);
  return bias != nullptr ? result + call.expr(bias) : result;
}

std::vector<Value*> import_layer_norm(NodeCall& call) {
  Value *x = call.input(0), *scale = call.input(1), *bias = call.optional_input(2);
  const int64_t axis = first_axis(call, x), axes = rank_of(x) - axis;
  const DType dtype = x->type.dtype, stash = stash_dtype(call, x);
  const double eps = call.real_or("epsilon", 1e-5F);
  ir::Builder& builder = call.builder();
  const Shape normalised(x->type.shape.begin() + axis, x->type.shape.end());
  const bool fits = scale->type.shape == normalised &&
                    (bias == nullptr || bias->type.shape == normalised) &&
                    scale->type.dtype == dtype;
  const ir::Attrs attrs{{"axes", axes}, {"eps", eps}};
  std::vector<Value*> operands{x};
  if (fits) operands.push_back(scale);
  if (fits && bias != nullptr) operands.push_back(bias);
  Value* result = call.make(Op::layer_norm, operands, attrs);
  if (!fits) result = scaled(call, result, scale, bias);
  std::vector<Value*> results{result, nullptr, nullptr};
  if (call.output_used(1) || call.output_used(2)) {
    const Expr wide = call.expr(builder.cast(x, stash));
    const std::vector<int64_t> over = range(axis, rank_of(x));
    const Expr mean = call.expr(reduce(call.call(), Op::reduce_mean, wide, over, true));
    const Expr centred = wide - mean;
    const Expr variance =
        call.expr(reduce(call.call(), Op::reduce_mean, centred * centred, over, true));
    results[1] = mean;
    results[2] = (variance + eps).apply(Op::rsqrt);
  }
  return results;
}

Value* import_rms_norm(NodeCall& call) {
  Value *x = call.input(0), *scale = call.input(1);
  const int64_t axis = first_axis(call, x);
  (void)stash_dtype(call, x);
  const ir::Attrs attrs{{"axes", rank_of(x) - axis}, {"eps", call.real_or("epsilon", 1e-5F)}};
  const Shape normalised(x->type.shape.begin() + axis, x->type.shape.end());
  if (scale->type.shape == normalised && scale->type.dtype == x->type.dtype)
    return call.make(Op::rms_norm, {x, scale}, attrs);
  return scaled(call, call.make(Op::rms_norm, {x}, attrs), scale, nullptr);
}

Value* import_instance_norm(NodeCall& call) {
  Value* x = call.input(0);
  call.expect(x->type.rank() >= 3, "rank " + std::to_string(x->type.rank()), "3 or more");
  const int64_t groups = known_size(call, x->type.shape[1], "channels");
  return call.make(Op::group_norm, {x, call.input(1), call.input(2)},
                   {{"groups", groups}, {"eps", call.real_or("epsilon", 1e-5F)}});
}

// Scale and bias were those of groups before version 21.
Value* import_group_norm(NodeCall& call) {
  Value* x = call.input(0);
  call.expect(x->type.rank() >= 3, "rank " + std::to_string(x->type.rank()), "3 or more");
  (void)stash_dtype(call, x);
  const int64_t groups = call.integer("num_groups");
  const int64_t channels = known_size(call, x->type.shape[1], "channels");
  call.expect(groups >= 1 && channels % groups == 0, std::to_string(groups) + " groups",
              "a divisor of " + std::to_string(channels));
  const auto per_channel = [&](size_t i) {
    Value* value = call.input(i);
    if (call.version() >= 21) return value;
    Value* column = call.builder().reshape(value, {groups, 1});
    return call.builder().reshape(call.builder().expand(column, {groups, channels / groups}),
                                  {channels});
  };
  return call.make(Op::group_norm, {x, per_channel(1), per_channel(2)},
                   {{"groups", groups}, {"eps", call.real_or("epsilon", 1e-5F)}});
}

Value* with_statistics(NodeCall& call, Value* mean, Value* variance) {
  return call.aten("aten.batch_norm.default", {{"input", call.input(0)},
                                               {"weight", call.input(1)},
                                               {"bias", call.input(2)},
                                               {"running_mean", mean},
                                               {"running_var", variance},
                                               {"training", false},
                                               {"eps", call.real_or("epsilon", 1e-5F)}});
}

// In training mode by the statistics of the batch, which change the running ones.
std::vector<Value*> import_batch_norm(NodeCall& call) {
  Value *x = call.input(0), *mean = call.input(3), *variance = call.input(4);
  call.expect(x->type.rank() >= 2, "rank " + std::to_string(x->type.rank()), "2 or more");
  call.expect(call.integer_or("spatial", 1) == 1, "spatial = 0", "1");
  call.expect(call.version() >= 7 || call.flag_or("is_test", false), "training", "is_test = 1");
  const double momentum = call.real_or("momentum", 0.9F);
  if (!call.flag_or("training_mode", false)) return {with_statistics(call, mean, variance)};
  std::vector<int64_t> axes = range(2, rank_of(x));
  axes.insert(axes.begin(), 0);
  ir::Builder& builder = call.builder();
  const Expr wide = call.expr(builder.cast(x, compute_dtype(x->type.dtype)));
  const Expr now = call.expr(reduce(call.call(), Op::reduce_mean, wide, axes, true));
  const Expr centred = wide - now;
  Value* spread = reduce(call.call(), Op::reduce_mean, centred * centred, axes, false);
  const auto as_running = [&](Value* value) {
    return builder.cast(builder.reshape(value, mean->type.shape), mean->type.dtype);
  };
  const auto moved = [&](Value* running, Value* batch) {
    return call.expr(running) * momentum + call.expr(as_running(batch)) * (1 - momentum);
  };
  return {with_statistics(call, as_running(now), as_running(spread)), moved(mean, now),
          moved(variance, spread)};
}

// x / (bias + alpha / size * sum of squares over channels nearby) ^ beta
Value* import_lrn(NodeCall& call) {
  constexpr int64_t kMaxSize = 256;
  const int64_t size = call.integer("size");
  call.expect(size >= 1 && size <= kMaxSize, "size " + std::to_string(size),
              "1 to " + std::to_string(kMaxSize));
  const double alpha = call.real_or("alpha", 1e-4F), beta = call.real_or("beta", 0.75),
               bias = call.real_or("bias", 1);
  Value* input = call.input(0);
  call.expect(input->type.rank() >= 2, "rank " + std::to_string(input->type.rank()), "2 or more");
  return composed(call, input, [&](const Expr& x) {
    std::vector<Dim> before(input->type.rank(), Dim(0)), after = before;
    before[1] = (size - 1) / 2;
    after[1] = size - 1 - (size - 1) / 2;
    Value* squares = pad_with(call, x * x, before, after, 0);
    std::optional<Expr> sum;
    for (int64_t i = 0; i < size; ++i) {
      const Expr part = call.expr(slice(call.call(), squares, 1, i, input->type.shape[1]));
      sum = sum ? *sum + part : part;
    }
    return x / (*sum * (alpha / static_cast<double>(size)) + bias).apply(Op::pow, beta);
  });
}

Value* import_lp_normalisation(NodeCall& call) {
  Value* input = call.input(0);
  const int64_t axis = call.axis(call.integer_or("axis", -1), input->type.rank());
  const int64_t order = call.integer_or("p", 2);
  call.expect(order == 1 || order == 2, "p = " + std::to_string(order), "1 or 2");
  return composed(call, input, [&](const Expr& x) {
    const Expr terms = order == 1 ? x.apply(Op::abs) : x * x;
    const Expr sum = call.expr(reduce(call.call(), Op::reduce_sum, terms, {axis}, true));
    const Expr norm = order == 1 ? sum : sum.apply(Op::sqrt);
    return norm.apply(Op::eq, 0).select(x.constant(0), x / norm);
  });
}

Value* import_mean_variance(NodeCall& call) {
  Value* input = call.input(0);
  const std::vector<int64_t> axes =
      call.axes(call.integers_or("axes", {0, 2, 3}), input->type.rank());
  return composed(call, input, [&](const Expr& x) {
    const Expr mean = call.expr(reduce(call.call(), Op::reduce_mean, x, axes, true));
    const Expr centred = x - mean;
    const Expr variance =
        call.expr(reduce(call.call(), Op::reduce_mean, centred * centred, axes, true));
    return centred / (variance.apply(Op::sqrt) + 1e-9);
  });
}

constexpr OperatorRow kRows[] = {
    {"BatchNormalization", import_batch_norm},
    {"GroupNormalization", import_group_norm},
    {"Hardmax", import_hardmax},
    {"InstanceNormalization", import_instance_norm},
    {"LRN", import_lrn},
    {"LayerNormalization", import_layer_norm},
    {"LogSoftmax", import_softmax<Op::log_softmax>},
    {"LpNormalization", import_lp_normalisation},
    {"MeanVarianceNormalization", import_mean_variance},
    {"RMSNormalization", import_rms_norm},
    {"SimplifiedLayerNormalization", import_rms_norm},  // its name in ONNX Runtime
    {"Softmax", import_softmax<Op::softmax>},
};

}  // namespace

OperatorRows normalise_operators() { return kRows; }

}  // namespace kiln::import::onnx
