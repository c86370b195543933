// Complex tensors: products of many elements, moments, sums of products, and elements that a mask selects.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "import/ops/complex.h"

namespace kiln::import {
namespace {

using Results = std::vector<Complex>;

Pair self(Call& call) { return Pair::of(call, "self", result_part(call)); }
Results one(Call& call, const Pair& result) { return {result.value(call)}; }

// --- Products of elements ---

int64_t known_size(Call& call, const ir::Dim& size) {
  call.expect(size.is_constant(), "a product of " + size.str() + " complex numbers",
              "a number that is known");
  return size.constant();
}

Pair sliced(Call& call, const Pair& x, int64_t axis, int64_t start, int64_t size) {
  return {{call, slice(call, x.re, axis, start, size)},
          {call, slice(call, x.im, axis, start, size)}};
}

Pair joined(Call& call, const Pair& a, const Pair& b, int64_t axis) {
  const auto join = [&](const Expr& x, const Expr& y) {
    return Expr(call, call.make(Op::concat, {x, y}, {{"axis", axis}}));
  };
  return {join(a.re, b.re), join(a.im, b.im)};
}

// Of an axis, which keeps the size 1: halves are multiplied until one element is left.
Pair product(Call& call, Pair x, int64_t axis) {
  int64_t size = known_size(call, x.re.value()->type.shape[axis]);
  if (size == 0) {
    ir::Shape shape = x.re.value()->type.shape;
    shape[axis] = 1;
    const auto filled = [&](double value) {
      return Expr(call, call.builder().expand(x.re.constant(value), shape));
    };
    return {filled(1), filled(0)};
  }
  for (; size > 1; size = (size + 1) / 2) {
    const int64_t half = size / 2;
    const Pair multiplied = sliced(call, x, axis, 0, half) * sliced(call, x, axis, half, half);
    x = size % 2 == 0 ? multiplied
                      : joined(call, multiplied, sliced(call, x, axis, 2 * half, 1), axis);
  }
  return x;
}

Results import_prod(Call& call) {
  Pair x = self(call);
  const bool is_all = !call.has("dim");
  const bool keepdim = call.boolean_or("keepdim", false);
  if (x.re.value()->type.rank() == 0) return one(call, x);
  if (is_all) {
    const ir::Shape flat{x.re.value()->type.elements()};
    x = {{call, call.builder().reshape(x.re, flat)}, {call, call.builder().reshape(x.im, flat)}};
  }
  const int64_t axis = is_all ? 0 : call.axis("dim", x.re.value()->type.rank());
  const Pair result = product(call, x, axis);
  if (keepdim) return one(call, result);
  ir::Shape shape = result.re.value()->type.shape;
  shape.erase(shape.begin() + axis);
  return {{call.builder().reshape(result.re, shape), call.builder().reshape(result.im, shape)}};
}

// Each times the one before, then times that two before, four, ...
Results import_cumprod(Call& call) {
  Pair x = self(call);
  if (x.re.value()->type.rank() == 0) return one(call, x);
  const int64_t axis = call.axis("dim", x.re.value()->type.rank());
  const int64_t size = known_size(call, x.re.value()->type.shape[axis]);
  for (int64_t step = 1; step < size; step *= 2) {
    const Pair later =
        sliced(call, x, axis, step, size - step) * sliced(call, x, axis, 0, size - step);
    x = joined(call, sliced(call, x, axis, 0, step), later, axis);
  }
  return one(call, x);
}

// --- Moments ---

// What the importer of real numbers gives for each part.
std::vector<Value*> of_part(Call& call, Part part) {
  Call parts(call, {part});
  return call_row(*find_row(short_target(call.node().target)), parts);
}

// The variance is that of both parts together.
template <Op join>
Results import_deviation(Call& call) {
  const std::vector<Value*> re = of_part(call, Part::Real), im = of_part(call, Part::Imaginary);
  Results results{{Expr(call, re[0]).apply(join, {call, im[0]}).value(), nullptr}};
  if (re.size() == 2) results.push_back({re[1], im[1]});  // the mean
  return results;
}

// --- Sums of products ---

Pair times(const Pair& x, const Pair& y) { return x * y; }

template <Pair function(const Pair&, const Pair&)>
Results import_addc(Call& call) {
  const DType dtype = result_part(call);
  const Pair x = self(call), a = Pair::of(call, "tensor1", dtype),
             b = Pair::of(call, "tensor2", dtype);
  Pair added = function(a, b);
  if (call.has("value")) added = added * Pair::of(call, "value", dtype);
  return one(call, {x.re + added.re, x.im + added.im});
}

Results import_lerp(Call& call) {
  const DType dtype = result_part(call);
  const Pair start = self(call), end = Pair::of(call, "end", dtype),
             weight = Pair::of(call, "weight", dtype);
  const Pair difference{end.re - start.re, end.im - start.im};
  // From the nearer end.
  const Expr near = weight.re.apply(Op::hypot, weight.im).apply(Op::lt, 0.5);
  const Pair share{near.select(weight.re, weight.re - 1), weight.im};
  const Pair added = share * difference;
  return one(call,
             {near.select(start.re, end.re) + added.re, near.select(start.im, end.im) + added.im});
}

// beta self + alpha * what the row `target` gives for a and b.
Results add_product(Call& call, const Pair& product) {
  const DType dtype = result_part(call);
  Pair result = product, added = self(call);
  if (call.has("alpha")) result = result * Pair::of(call, "alpha", dtype);
  if (call.has("beta")) added = added * Pair::of(call, "beta", dtype);
  return one(call, {result.re + added.re, result.im + added.im});
}

Pair matmul(Call& call, const Complex& a, const Complex& b) {
  const auto multiply = [&](Value* x, Value* y) {
    return Expr(call, call.make(Op::matmul, {x, y}, {{"transpose_b", false}}));
  };
  return {multiply(a.re, b.re) - multiply(a.im, b.im), multiply(a.re, b.im) + multiply(a.im, b.re)};
}

Results import_addmv(Call& call) {
  const Complex vector = call.complex("vec");
  const Complex column{unsqueeze(call, vector.re, 1), unsqueeze(call, vector.im, 1)};
  const Pair result = matmul(call, call.complex("mat"), column);
  const auto flat = [&](Value* x) {
    return Expr(call, call.builder().reshape(x, {x->type.shape[0]}));
  };
  return add_product(call, {flat(result.re), flat(result.im)});
}

Results import_addbmm(Call& call) {
  const Pair result = matmul(call, call.complex("batch1"), call.complex("batch2"));
  const auto summed = [&](const Expr& x) {
    return Expr(call, reduce(call, Op::reduce_sum, x, {0}, false));
  };
  return add_product(call, {summed(result.re), summed(result.im)});
}

// x * w + bias, by real convolutions, each of which adds a part of the bias: what that is too much is taken away again.
Results import_convolution(Call& call) {
  const Row* row = find_row(short_target(call.node().target));
  const bool has_bias = call.has("bias");
  const auto term = [&](Part x, Part weight, Part bias) {
    Call parts(call, has_bias ? std::vector<Part>{x, weight, bias} : std::vector<Part>{x, weight});
    return Expr(call, call_row(*row, parts).at(0));
  };
  using enum Part;
  const Expr re = term(Real, Real, Real) - term(Imaginary, Imaginary, Imaginary);
  const Expr im = term(Real, Imaginary, Imaginary) + term(Imaginary, Real, Real);
  if (!has_bias) return one(call, {re, im});
  const Complex bias = call.complex("bias");
  const size_t behind = call.complex("weight").re->type.rank() - 2;
  const auto shaped = [&](Value* x) {
    ir::Shape shape(behind + 1, ir::Dim(1));
    shape[0] = x->type.shape[0];
    return Expr(call, call.builder().reshape(x, shape));
  };
  return one(call, {re + shaped(bias.im), im - shaped(bias.re)});
}

// --- Exponents ---

struct Exponents {
  Pair powers;  // e^(x - offset)
  Expr offset;  // the largest real part
};

Exponents exponents(Call& call, const Pair& x, const std::vector<int64_t>& axes) {
  const Expr largest(call, reduce(call, Op::reduce_max, x.re, axes, true));
  const Expr offset = largest.apply(Op::isinf).select(largest.constant(0), largest);
  const Expr size = (x.re - offset).apply(Op::exp);
  return {{size * x.im.apply(Op::cos), size * x.im.apply(Op::sin)}, offset};
}

Results import_logsumexp(Call& call) {
  const Pair x = self(call);
  const std::vector<int64_t> axes = call.axes_or_all("dim", x.re.value()->type.rank());
  const Exponents terms = exponents(call, x, axes);
  const auto sum = [&](const Expr& part) {
    return Expr(call, reduce(call, Op::reduce_sum, part, axes, true));
  };
  const Expr re = sum(terms.powers.re), im = sum(terms.powers.im);
  const Pair result{re.apply(Op::hypot, im).apply(Op::log) + terms.offset, im.apply(Op::atan2, re)};
  if (call.boolean_or("keepdim", false) || axes.empty()) return one(call, result);
  const auto squeezed = [&](const Expr& part) {
    return Expr(call, reduce(call, Op::reduce_sum, part, axes, false));
  };
  return one(call, {squeezed(result.re), squeezed(result.im)});
}

// --- Elements that a mask, or their truth, selects ---

Results import_masked_select(Call& call) {
  const Complex x = call.complex("self");
  Value* mask = call.tensor("mask");
  const ir::Shape shape = ir::broadcast_shapes(x.re->type.shape, mask->type.shape);
  Value* places = selected_places(call, call.builder().expand(mask, shape), 0);
  const auto taken = [&](Value* part) {
    part = call.builder().reshape(call.builder().expand(part, shape), {ir::product(shape)});
    return call.make(Op::gather, {part, places}, {{"axis", int64_t{0}}});
  };
  return {{taken(x.re), taken(x.im)}};
}

Value* truth(Call& call) {
  const Complex x = call.complex("self");
  return Expr(call, x.re).apply(Op::ne, 0) + Expr(call, x.im).apply(Op::ne, 0);
}

Results import_nonzero(Call& call) {
  Results results;
  for (Value* value : nonzero_of(call, truth(call))) results.push_back({value, nullptr});
  return results;
}

constexpr ComplexRow kRows[] = {
    {"aten.prod.default", import_prod},
    {"aten.prod.dim_int", import_prod},
    {"aten.cumprod.default", import_cumprod},
    {"aten.var.default", import_deviation<Op::add>},
    {"aten.var.dim", import_deviation<Op::add>},
    {"aten.var.correction", import_deviation<Op::add>},
    {"aten.std.default", import_deviation<Op::hypot>},
    {"aten.std.dim", import_deviation<Op::hypot>},
    {"aten.std.correction", import_deviation<Op::hypot>},
    {"aten.var_mean.default", import_deviation<Op::add>},
    {"aten.var_mean.dim", import_deviation<Op::add>},
    {"aten.var_mean.correction", import_deviation<Op::add>},
    {"aten.std_mean.default", import_deviation<Op::hypot>},
    {"aten.std_mean.dim", import_deviation<Op::hypot>},
    {"aten.std_mean.correction", import_deviation<Op::hypot>},
    {"aten.addcmul.default", import_addc<times>},
    {"aten.addcdiv.default", import_addc<divide>},
    {"aten.lerp.Scalar", import_lerp},
    {"aten.lerp.Tensor", import_lerp},
    {"aten.addmv.default", import_addmv},
    {"aten.addbmm.default", import_addbmm},
    {"aten.conv1d.default", import_convolution},
    {"aten.conv1d.padding", import_convolution},
    {"aten.conv2d.default", import_convolution},
    {"aten.conv2d.padding", import_convolution},
    {"aten.conv3d.default", import_convolution},
    {"aten.conv3d.padding", import_convolution},
    {"aten.conv_transpose1d.default", import_convolution},
    {"aten.conv_transpose2d.input", import_convolution},
    {"aten.conv_transpose3d.input", import_convolution},
    {"aten.convolution.default", import_convolution},
    {"aten.logsumexp.default", import_logsumexp},
    {"aten.masked_select.default", import_masked_select},
    {"aten.argwhere.default", import_nonzero},
    {"aten.nonzero.default", import_nonzero},
};

}  // namespace

ComplexRows complex_sum_rows() { return kRows; }

}  // namespace kiln::import
