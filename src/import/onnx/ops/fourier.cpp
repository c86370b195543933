// Fourier transforms: DFT and STFT. Complex numbers are pairs along the last axis, real ones have one element there.
#include "import/ops/fourier.h"

#include "import/onnx/ops/common.h"

namespace kiln::import::onnx {
namespace {

// Function of each part.
Complex each(const Complex& x, const auto& function) {
  return {function(x.re), x.im == nullptr ? nullptr : function(x.im)};
}

// The parts of x, without its last axis.
Complex parts_of(NodeCall& call, Value* x) {
  call.expect(is_floating(x->type.dtype), x->type.str(), "floating numbers");
  call.expect(x->type.rank() >= 2, "a signal of shape " + shape_text(x->type.shape),
              "an axis to transform, and one of 1 or 2 elements");
  const Dim& width = x->type.shape.back();
  call.expect(width.is_constant(1) || width.is_constant(2),
              "a signal of shape " + shape_text(x->type.shape),
              "a last axis of 1 element, or of 2 for complex numbers");
  const Shape shape(x->type.shape.begin(), x->type.shape.end() - 1);
  const auto part = [&](int64_t i) {
    Value* one = slice(call.call(), x, rank_of(x) - 1, i, 1);
    return call.builder().cast(call.builder().reshape(one, shape), compute_dtype(x->type.dtype));
  };
  return {part(0), width.is_constant(2) ? part(1) : nullptr};
}

// The parts side by side; a real result has one element there.
Value* joined(NodeCall& call, const Complex& x, DType dtype) {
  std::vector<Value*> columns;
  for (Value* part : {x.re, x.im})
    if (part != nullptr)
      columns.push_back(call.builder().cast(unsqueeze(call.call(), part, rank_of(part)), dtype));
  return concat(call, columns, rank_of(x.re));
}

// The last axis cut, or filled with zeros.
Complex resized(NodeCall& call, const Complex& x, const Dim& size) {
  const Dim missing = size - x.re->type.shape.back();
  if (missing.is_constant(0)) return x;
  return each(x, [&](Value* y) {
    std::vector<Dim> before(y->type.rank(), Dim(0)), after = before;
    after.back() = missing;
    return pad_with(call, y, before, after, 0);
  });
}

Value* first_values(NodeCall& call, Value* x, const Dim& count) {
  return slice(call.call(), x, rank_of(x) - 1, 0, count);
}

// The first half of a real signal's transform.
Complex half_transform(NodeCall& call, const Complex& x, const Dim& n) {
  call.expect(x.im == nullptr, "onesided = 1 and complex numbers", "real ones, or onesided = 0");
  if (n.is_constant()) return fourier_of_real(call.call(), x.re);
  const Dim count = ir::floordiv(n, 2) + 1;
  return each(fourier(call.call(), x, -1), [&](Value* y) { return first_values(call, y, count); });
}

// All results divided by n.
Complex divided(NodeCall& call, const Complex& x, const Dim& n) {
  Value* size = call.make(Op::dim_value, {}, {{"value", n}, {"dtype", x.re->type.dtype}});
  return each(x, [&](Value* y) -> Value* { return call.expr(y) / call.expr(size); });
}

Complex inverse_transform(NodeCall& call, const Complex& x, const Dim& n, bool to_real) {
  if (!to_real) return divided(call, fourier(call.call(), x, 1), n);
  const int64_t size = known_size(call, n, "dft_length of a transform to real numbers");
  Complex half = resized(call, x, Dim(size / 2 + 1));
  if (half.im == nullptr) half.im = full(call, half.re->type.shape, half.re->type.dtype, 0);
  return divided(call, {inverse_to_real(call.call(), half, size), nullptr}, n);
}

Value* import_dft(NodeCall& call) {
  Value* input = call.input(0);
  const bool is_inverse = call.flag_or("inverse", false);
  const bool is_onesided = call.flag_or("onesided", false);
  int64_t axis = call.version() < 20 ? call.integer_or("axis", 1) : -2;
  if (call.version() >= 20 && call.has_input(2)) axis = call.integer(2);
  const Complex signal = parts_of(call, input);
  const int64_t given = axis;
  axis = call.axis(axis, input->type.rank());
  const int64_t last = rank_of(signal.re) - 1;
  call.expect(axis <= last, "axis " + std::to_string(given) + ", the last one",
              "another: it has the parts of complex numbers");
  Complex x = each(signal, [&](Value* y) { return move_axis(call.call(), y, axis, last); });
  const Dim present = x.re->type.shape.back();
  const bool to_real = is_inverse && is_onesided;
  const Dim n = call.has_input(1) ? call.dim(1) : to_real ? 2 * (present - 1) : present;
  call.expect(ir::provably_less(Dim(0), n), "dft_length " + n.str(), "1 or more");
  if (!to_real) x = resized(call, x, n);
  const Complex result = is_inverse    ? inverse_transform(call, x, n, to_real)
                         : is_onesided ? half_transform(call, x, n)
                                       : fourier(call.call(), x, -1);
  const auto back = [&](Value* y) { return move_axis(call.call(), y, last, axis); };
  return joined(call, each(result, back), input->type.dtype);
}

// [batch, length, 1 or 2] -> [batch, frames, bins, 2]
Value* import_stft(NodeCall& call) {
  Value *input = call.input(0), *window = call.optional_input(2);
  call.expect(input->type.rank() == 3, "a signal of shape " + shape_text(input->type.shape),
              "rank 3");
  const int64_t step = call.integer(1);
  const Dim length = input->type.shape[1];
  const Dim size = call.has_input(3)   ? call.dim(3)
                   : window != nullptr ? window->type.shape.at(0)
                                       : length;
  call.expect(step >= 1, "frame_step " + std::to_string(step), "1 or more");
  call.expect(ir::provably_less(Dim(0), size), "frame_length " + size.str(), "1 or more");
  call.expect(ir::provably_less_equal(size, length),
              "frames of " + size.str() + " values of a signal of " + length.str(),
              "a signal that is as long (give its size a range)");
  const Complex signal = parts_of(call, input);
  const Dim count = ir::floordiv(length - size, step) + 1;
  const Expr start = call.expr(unsqueeze(call.call(), iota(call.call(), count), 1));
  Value* index = start * static_cast<double>(step) + call.expr(iota(call.call(), size));
  const Complex frames = each(signal, [&](Value* y) -> Value* {
    const Expr cut = call.expr(call.make(Op::gather, {y, index}, {{"axis", int64_t{1}}}));
    if (window == nullptr) return cut;
    call.expect(window->type.rank() == 1 && ir::provably_equal(window->type.shape[0], size),
                "a window of shape " + shape_text(window->type.shape), "[" + size.str() + "]");
    return cut * call.expr(call.builder().cast(window, y->type.dtype));
  });
  const Complex result = call.flag_or("onesided", true) ? half_transform(call, frames, size)
                                                        : fourier(call.call(), frames, -1);
  return joined(call, result, input->type.dtype);
}

constexpr OperatorRow kRows[] = {
    {"DFT", import_dft},
    {"STFT", import_stft},
};

}  // namespace

OperatorRows fourier_operators() { return kRows; }

}  // namespace kiln::import::onnx
