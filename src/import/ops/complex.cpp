// Complex tensors: each is a pair of real ones, and an operator on them is a few on their parts.
#include <algorithm>
#include <numbers>
#include <optional>

#include "import/ops/complex.h"

namespace kiln::import {

Pair Pair::of(Call& call, std::string_view name, DType dtype) {
  ir::Builder& builder = call.builder();
  if (call.is_complex(name)) {
    const Complex value = call.complex(name);
    return {{call, builder.cast(value.re, dtype)}, {call, builder.cast(value.im, dtype)}};
  }
  const auto number = call.complex_number(name);
  Value* re =
      number ? builder.scalar(dtype, number->re) : as_value(builder, call.operand(name), dtype);
  return {{call, re}, {call, builder.scalar(dtype, number ? number->im : 0)}};
}

Complex Pair::value(Call& call) const {
  const ir::Shape shape = ir::broadcast_shapes(re.value()->type.shape, im.value()->type.shape);
  return {call.builder().expand(re, shape), call.builder().expand(im, shape)};
}

Pair operator*(const Pair& a, const Pair& b) {
  return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

// Both are scaled by the divisor's larger part first: no square in between overflows.
Pair divide(const Pair& a, const Pair& b) {
  const Expr scale =
      b.re.apply(Op::abs).apply(Op::maximum, b.im.apply(Op::abs)).apply(Op::reciprocal);
  const Pair x{a.re * scale, a.im * scale}, y{b.re * scale, b.im * scale};
  const Expr square = y.re * y.re + y.im * y.im;
  return {(x.re * y.re + x.im * y.im) / square, (x.im * y.re - x.re * y.im) / square};
}

DType result_part(Call& call) {
  const std::string name = call.node().output_names().at(0);
  return call.scope().recorded_type(name).dtype;
}

namespace {

using Results = std::vector<Complex>;

Results one(Call& call, const Pair& result) { return {result.value(call)}; }
Results one_real(const Expr& result) { return {{result.value(), nullptr}}; }

size_t tensor_count(const Call& call) {
  size_t count = 0;
  for (const auto& [name, argument] : call.node().inputs) {
    count += std::holds_alternative<TensorName>(argument);
    if (const auto* many = std::get_if<std::vector<TensorName>>(&argument)) count += many->size();
  }
  return count;
}

}  // namespace

std::vector<Complex> by_parts(Call& call) {
  const Row* row = find_row(short_target(call.node().target));
  Call real(call, {Part::Real}), imaginary(call, {Part::Imaginary});
  const std::vector<Value*> re = call_row(*row, real), im = call_row(*row, imaginary);
  Results results;
  for (size_t i = 0; i < re.size(); ++i) results.push_back({re[i], im[i]});
  return results;
}

std::vector<Complex> by_products(Call& call) {
  constexpr size_t kMost = 5;
  const Row* row = find_row(short_target(call.node().target));
  const size_t count = tensor_count(call);
  call.expect(count >= 1 && count <= kMost, std::to_string(count) + " complex factors",
              "1 to " + std::to_string(kMost));
  std::optional<Expr> re, im;
  for (size_t choice = 0; choice < size_t{1} << count; ++choice) {
    std::vector<Part> chosen;
    for (size_t i = 0; i < count; ++i)
      chosen.push_back((choice >> (count - 1 - i)) % 2 != 0 ? Part::Imaginary : Part::Real);
    const auto imaginary = std::ranges::count(chosen, Part::Imaginary);
    Call parts(call, std::move(chosen));
    const Expr term(call, call_row(*row, parts).at(0));
    std::optional<Expr>& sum = imaginary % 2 == 0 ? re : im;
    if (!sum) {
      sum = term;
    } else {
      sum = imaginary % 4 < 2 ? *sum + term : *sum - term;
    }
  }
  return one(call, {*re, *im});
}

namespace {

Pair self(Call& call) { return Pair::of(call, "self", result_part(call)); }
Pair other(Call& call) { return Pair::of(call, "other", result_part(call)); }

template <Op op>
Results add_sub(Call& call) {
  const Pair a = self(call), b = other(call), alpha = Pair::of(call, "alpha", result_part(call));
  const Pair scaled = alpha * b;
  return one(call, {a.re.apply(op, scaled.re), a.im.apply(op, scaled.im)});
}

template <Op op>
Results import_add_sub(Call& call) {
  if (call.has("alpha")) return add_sub<op>(call);
  const Pair a = self(call), b = other(call);
  return one(call, {a.re.apply(op, b.re), a.im.apply(op, b.im)});
}

Results import_rsub(Call& call) {
  Pair a = self(call);
  const Pair b = other(call);
  if (call.has("alpha")) a = a * Pair::of(call, "alpha", result_part(call));
  return one(call, {b.re - a.re, b.im - a.im});
}

Results import_mul(Call& call) { return one(call, self(call) * other(call)); }

Results import_div(Call& call) {
  call.expect(!call.has("rounding_mode"), "a rounding mode", "none for complex numbers");
  return one(call, divide(self(call), other(call)));
}

Results import_reciprocal(Call& call) {
  const Pair x = self(call);
  return one(call, divide({x.re.constant(1), x.re.constant(0)}, x));
}

Pair whole(Call& call, std::string_view name = "self") {
  const Complex value = call.complex(name);
  return {{call, value.re}, {call, value.im}};
}

Expr magnitude(const Pair& x) { return x.re.apply(Op::hypot, x.im); }
Expr angle(const Pair& x) { return x.im.apply(Op::atan2, x.re); }
Pair from_polar(const Expr& length, const Expr& angle) {
  return {length * angle.apply(Op::cos), length * angle.apply(Op::sin)};
}

Results import_abs(Call& call) { return one_real(magnitude(whole(call))); }
Results import_angle(Call& call) { return one_real(angle(whole(call))); }
Results import_real(Call& call) { return {{call.complex("self").re, nullptr}}; }
Results import_imag(Call& call) { return {{call.complex("self").im, nullptr}}; }

Results import_conj(Call& call) {
  const Pair x = whole(call);
  return one(call, {x.re, -x.im});
}

Results import_view_as_real(Call& call) {
  return {{join_parts(call.builder(), call.complex("self")), nullptr}};
}

Results import_view_as_complex(Call& call) {
  return {split_parts(call.builder(), call.tensor("self"))};
}

Results import_complex(Call& call) {
  return one(call, {{call, call.tensor("real")}, {call, call.tensor("imag")}});
}

Results import_polar(Call& call) {
  return one(call, from_polar({call, call.tensor("abs")}, {call, call.tensor("angle")}));
}

Results import_exp(Call& call) {
  const Pair x = whole(call);
  return one(call, from_polar(x.re.apply(Op::exp), x.im));
}

Results import_log(Call& call) {
  const Pair x = whole(call);
  return one(call, {magnitude(x).apply(Op::log), angle(x)});
}

// x / |x|, and 0 of 0.
Results import_sgn(Call& call) {
  const Pair x = whole(call);
  const Expr length = magnitude(x), zero = length.constant(0);
  const Expr is_zero = length.apply(Op::eq, zero);
  return one(call, {is_zero.select(zero, x.re / length), is_zero.select(zero, x.im / length)});
}

Results import_square(Call& call) {
  const Pair x = whole(call);
  return one(call, x * x);
}

// Small whole exponents are products.
Results import_pow(Call& call) {
  const Pair x = self(call);
  const double exponent = call.real_or("exponent", 1);
  constexpr double kMostFactors = 8;
  if (exponent < 1 || exponent > kMostFactors || exponent != static_cast<int>(exponent)) {
    // In f64: the exponent multiplies what rounding makes of the angle.
    const Pair wide = Pair::of(call, "self", DType::F64);
    const Expr length = magnitude(wide).apply(Op::pow, exponent);
    const Complex power = from_polar(length, angle(wide) * exponent).value(call);
    const DType dtype = result_part(call);
    return {{call.builder().cast(power.re, dtype), call.builder().cast(power.im, dtype)}};
  }
  Pair result = x;
  for (int i = 1; i < static_cast<int>(exponent); ++i) result = result * x;
  return one(call, result);
}

// To another complex type, from real numbers, or to them, which leaves the real part.
Results import_to(Call& call) {
  ir::Builder& builder = call.builder();
  if (!call.scope().is_complex(call.node().output_names().at(0)))
    return {{builder.cast(call.complex("self").re, result_part(call)), nullptr}};
  return one(call, self(call));
}

template <Op op, Op join>
Results import_comparison(Call& call) {
  DType dtype = DType::F32;
  for (const char* name : {"self", "other"})
    if (call.is_complex(name)) dtype = promote_types(dtype, call.complex(name).re->type.dtype);
  const Pair a = Pair::of(call, "self", dtype), b = Pair::of(call, "other", dtype);
  return one_real(a.re.apply(op, b.re).apply(join, a.im.apply(op, b.im)));
}

template <Op op>
Results import_test(Call& call) {
  const Pair x = whole(call);
  return one_real(x.re.apply(op).apply(Op::bitwise_or, x.im.apply(op)));
}

Results import_isfinite(Call& call) {
  const Pair x = whole(call);
  const auto finite = [](const Expr& part) {
    return part.apply(Op::isnan)
        .apply(Op::bitwise_or, part.apply(Op::isinf))
        .apply(Op::logical_not);
  };
  return one_real(finite(x.re).apply(Op::bitwise_and, finite(x.im)));
}

Results import_masked_fill(Call& call) {
  const Pair x = self(call), value = Pair::of(call, "value", result_part(call));
  const Expr mask(call, call.tensor("mask"));
  return one(call, {mask.select(value.re, x.re), mask.select(value.im, x.im)});
}

// Constants of a complex tensor's shape may be real.
template <int value>
Results import_filled(Call& call) {
  const std::string output = call.node().output_names().at(0);
  const bool is_complex = call.scope().is_complex(output);
  const ir::Type type = call.scope().recorded_type(output);
  ir::Shape shape = type.shape;
  if (is_complex) shape.pop_back();
  const char* name = call.has("value") ? "value" : call.has("s") ? "s" : "fill_value";
  const auto given = call.complex_number(name);
  const ComplexNumber number = given ? *given : ComplexNumber{call.real_or(name, value), 0};
  const auto fill = [&](double part) {
    return call.builder().expand(call.builder().scalar(type.dtype, part), shape);
  };
  return {{fill(number.re), is_complex ? fill(number.im) : nullptr}};
}

Results import_fill_with(Call& call) {
  const Pair value = Pair::of(call, "value", result_part(call));
  const ir::Shape shape = call.complex("self").re->type.shape;
  return {{call.builder().expand(value.re, shape), call.builder().expand(value.im, shape)}};
}

// Both parts from end to end.
Results import_linspace(Call& call) {
  const DType dtype = result_part(call);
  const Pair start = Pair::of(call, "start", dtype), end = Pair::of(call, "end", dtype);
  const int64_t steps = call.integer("steps");
  call.expect(steps >= 0, std::to_string(steps) + " steps", "0 or more");
  const Expr place(call, iota(call, ir::Dim(steps), dtype));
  const double last = static_cast<double>(std::max<int64_t>(steps - 1, 1));
  const Expr is_first_half =
      place.apply(Op::lt, static_cast<double>(steps / 2)) + place.apply(Op::lt, steps == 1 ? 1 : 0);
  const auto along = [&](const Expr& from, const Expr& to) {
    const Expr step = (to - from) / last;
    return is_first_half.select(from + step * place, to - step * (last - place));
  };
  return one(call, {along(start.re, end.re), along(start.im, end.im)});
}

Results import_eye(Call& call) {
  Call parts(call, {Part::Real});
  const Expr re(call, call_row(*find_row(short_target(call.node().target)), parts).at(0));
  return one(call, {re, re * 0});
}

Results ignore(Call&) { return {}; }

constexpr ComplexRow kRows[] = {
    {"aten.view_as_real.default", import_view_as_real},
    {"aten.view_as_real_copy.default", import_view_as_real},
    {"aten.view_as_complex.default", import_view_as_complex},
    {"aten.view_as_complex_copy.default", import_view_as_complex},
    {"aten.complex.default", import_complex},
    {"aten.polar.default", import_polar},
    {"aten.real.default", import_real},
    {"aten.imag.default", import_imag},
    {"aten.abs.default", import_abs},
    {"aten.angle.default", import_angle},
    {"aten.conj.default", import_conj},
    {"aten._conj.default", import_conj},
    {"aten._conj_copy.default", import_conj},
    {"aten.conj_physical.default", import_conj},
    {"aten._conj_physical.default", import_conj},
    {"aten.add.Tensor", import_add_sub<Op::add>},
    {"aten.add.Scalar", import_add_sub<Op::add>},
    {"aten.sub.Tensor", import_add_sub<Op::sub>},
    {"aten.sub.Scalar", import_add_sub<Op::sub>},
    {"aten.rsub.Scalar", import_rsub},
    {"aten.rsub.Tensor", import_rsub},
    {"aten.mul.Tensor", import_mul},
    {"aten.mul.Scalar", import_mul},
    {"aten.div.Tensor", import_div},
    {"aten.div.Scalar", import_div},
    {"aten.divide.Tensor", import_div},
    {"aten.true_divide.Tensor", import_div},
    {"aten.subtract.Tensor", import_add_sub<Op::sub>},
    {"aten.multiply.Tensor", import_mul},
    {"aten.reciprocal.default", import_reciprocal},
    {"aten.exp.default", import_exp},
    {"aten.log.default", import_log},
    {"aten.sgn.default", import_sgn},
    {"aten.square.default", import_square},
    {"aten.pow.Tensor_Scalar", import_pow},
    {"aten.eq.Tensor", import_comparison<Op::eq, Op::bitwise_and>},
    {"aten.eq.Scalar", import_comparison<Op::eq, Op::bitwise_and>},
    {"aten.ne.Tensor", import_comparison<Op::ne, Op::bitwise_or>},
    {"aten.ne.Scalar", import_comparison<Op::ne, Op::bitwise_or>},
    {"aten.isnan.default", import_test<Op::isnan>},
    {"aten.isinf.default", import_test<Op::isinf>},
    {"aten.isfinite.default", import_isfinite},
    {"aten._to_copy.default", import_to},
    {"aten.to.dtype", import_to},
    {"aten.to.dtype_layout", import_to},
    {"aten.to.device", import_to},
    {"aten.masked_fill.Scalar", import_masked_fill},
    {"aten.masked_fill.Tensor", import_masked_fill},
    {"aten.constant_pad_nd.default", by_parts},
    {"aten.pad.default", by_parts},
    {"aten.ones.default", import_filled<1>},
    {"aten.ones_like.default", import_filled<1>},
    {"aten.full.default", import_filled<1>},
    {"aten.full_like.default", import_filled<1>},
    {"aten.new_full.default", import_filled<1>},
    {"aten.new_ones.default", import_filled<1>},
    {"aten.fill.Scalar", import_filled<1>},
    {"aten.fill.Tensor", import_fill_with},
    {"aten.scalar_tensor.default", import_filled<0>},
    {"aten.zeros.default", import_filled<0>},
    {"aten.zeros_like.default", import_filled<0>},
    {"aten.new_zeros.default", import_filled<0>},
    {"aten.new_empty.default", import_filled<0>},
    {"aten.zero.default", import_filled<0>},
    {"aten.empty_like.default", import_filled<0>},
    {"aten.empty.memory_format", import_filled<0>},
    {"aten.linspace.default", import_linspace},
    {"aten.eye.default", import_eye},
    {"aten.eye.m", import_eye},
    {"aten._assert_tensor_metadata.default", ignore},

    {"aten.mm.default", by_products},
    {"aten.bmm.default", by_products},
    {"aten.matmul.default", by_products},
    {"aten.mv.default", by_products},
    {"aten.dot.default", by_products},
    {"aten.outer.default", by_products},
    {"aten.einsum.default", by_products},
    {"aten.linalg_cross.default", by_products},

    {"aten.alias.default", by_parts},
    {"aten.alias_copy.default", by_parts},
    {"aten._unsafe_index.Tensor", by_parts},
    {"aten._unsafe_index_put.default", by_parts},
    {"aten.concat.default", by_parts},
    {"aten.concatenate.default", by_parts},
    {"aten.index_add.default", by_parts},
    {"aten.index_fill.int_Scalar", by_parts},
    {"aten.index_put.default", by_parts},
    {"aten.put.default", by_parts},
    {"aten.repeat_interleave.self_Tensor", by_parts},
    {"aten.scatter.src", by_parts},
    {"aten.scatter.value", by_parts},
    {"aten.scatter_add.default", by_parts},
    {"aten.split_with_sizes_copy.default", by_parts},
    {"aten.split_copy.Tensor", by_parts},
    {"aten.unbind_copy.int", by_parts},
    {"aten.index_fill.int_Tensor", by_parts},
    {"aten.as_strided.default", by_parts},
    {"aten.as_strided_copy.default", by_parts},
    {"aten.as_strided_scatter.default", by_parts},
    {"aten.broadcast_to.default", by_parts},
    {"aten.cat.default", by_parts},
    {"aten.channel_shuffle.default", by_parts},
    {"aten.chunk.default", by_parts},
    {"aten.clone.default", by_parts},
    {"aten.column_stack.default", by_parts},
    {"aten.contiguous.default", by_parts},
    {"aten.copy.default", by_parts},
    {"aten.cumsum.default", by_parts},
    {"aten.detach.default", by_parts},
    {"aten.detach_.default", by_parts},
    {"aten.diagonal.default", by_parts},
    {"aten.diagonal_copy.default", by_parts},
    {"aten.diagonal_scatter.default", by_parts},
    {"aten.diff.default", by_parts},
    {"aten.dstack.default", by_parts},
    {"aten.expand.default", by_parts},
    {"aten.expand_as.default", by_parts},
    {"aten.expand_copy.default", by_parts},
    {"aten.flatten.using_ints", by_parts},
    {"aten.flip.default", by_parts},
    {"aten.gather.default", by_parts},
    {"aten.hstack.default", by_parts},
    {"aten.im2col.default", by_parts},
    {"aten.index.Tensor", by_parts},
    {"aten.index_copy.default", by_parts},
    {"aten.index_select.default", by_parts},
    {"aten.lift_fresh_copy.default", by_parts},
    {"aten.mT.default", by_parts},
    {"aten.masked_scatter.default", by_parts},
    {"aten.mean.default", by_parts},
    {"aten.mean.dim", by_parts},
    {"aten.meshgrid.default", by_parts},
    {"aten.meshgrid.indexing", by_parts},
    {"aten.moveaxis.int", by_parts},
    {"aten.moveaxis.intlist", by_parts},
    {"aten.movedim.int", by_parts},
    {"aten.movedim.intlist", by_parts},
    {"aten.narrow.default", by_parts},
    {"aten.native_channel_shuffle.default", by_parts},
    {"aten.neg.default", by_parts},
    {"aten._neg_view.default", by_parts},
    {"aten._neg_view_copy.default", by_parts},
    {"aten.permute.default", by_parts},
    {"aten.permute_copy.default", by_parts},
    {"aten.pixel_shuffle.default", by_parts},
    {"aten.pixel_unshuffle.default", by_parts},
    {"aten.positive.default", by_parts},
    {"aten.repeat.default", by_parts},
    {"aten.repeat_interleave.self_int", by_parts},
    {"aten.reshape.default", by_parts},
    {"aten.reshape_as.default", by_parts},
    {"aten.resolve_conj.default", by_parts},
    {"aten.resolve_neg.default", by_parts},
    {"aten.roll.default", by_parts},
    {"aten.rot90.default", by_parts},
    {"aten.select.int", by_parts},
    {"aten.select_scatter.default", by_parts},
    {"aten.slice.Tensor", by_parts},
    {"aten.slice_scatter.default", by_parts},
    {"aten.split.Tensor", by_parts},
    {"aten.split_with_sizes.default", by_parts},
    {"aten.squeeze.default", by_parts},
    {"aten.squeeze.dim", by_parts},
    {"aten.squeeze.dims", by_parts},
    {"aten.stack.default", by_parts},
    {"aten.sum.default", by_parts},
    {"aten.sum.dim_IntList", by_parts},
    {"aten.swapaxes.default", by_parts},
    {"aten.swapdims.default", by_parts},
    {"aten.t.default", by_parts},
    {"aten.take_along_dim.default", by_parts},
    {"aten.tile.default", by_parts},
    {"aten.transpose.int", by_parts},
    {"aten.tril.default", by_parts},
    {"aten.triu.default", by_parts},
    {"aten.unbind.int", by_parts},
    {"aten.unflatten.int", by_parts},
    {"aten.unfold.default", by_parts},
    {"aten.unfold_copy.default", by_parts},
    {"aten._unsafe_view.default", by_parts},
    {"aten.unsqueeze.default", by_parts},
    {"aten.unsqueeze_copy.default", by_parts},
    {"aten.view.default", by_parts},
    {"aten.view_as.default", by_parts},
    {"aten.view_copy.default", by_parts},
    {"aten.vstack.default", by_parts},
    {"aten.where.self", by_parts},
};

}  // namespace

ComplexRows complex_rows() { return kRows; }

}  // namespace kiln::import
