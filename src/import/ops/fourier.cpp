// Fourier transforms, as products with constant matrices.
//
// A short transform is one product. A longer one of n = n1 * n2 values is n2 transforms of n1 values, a factor for each
// result, and n1 transforms of n2 values; a prime length is a convolution (Bluestein), by transforms of a power of 2. All
// tables are computed in f64.
#include "import/ops/fourier.h"

#include <cmath>
#include <numbers>

namespace kiln::import {
namespace {

// The longest transform that is one product, and the longest of a prime length.
constexpr int64_t kDirect = 64;
constexpr int64_t kDirectPrime = 128;
constexpr int64_t kLongest = int64_t{1} << 20;
// The longest one whose length is not known: a table of its square.
constexpr int64_t kLongestOpen = 4096;

struct Root {
  double re, im;
};

// e^(2 pi i k / n), exact at the quarters.
Root root_of_unity(int64_t k, int64_t n) {
  k = (k % n + n) % n;
  if (4 * k % n == 0) {
    constexpr Root kQuarters[] = {{1, 0}, {0, 1}, {-1, 0}, {0, -1}};
    return kQuarters[4 * k / n];
  }
  const double angle = 2 * std::numbers::pi * static_cast<double>(k) / static_cast<double>(n);
  return {std::cos(angle), std::sin(angle)};
}

template <typename Element>
Value* table(Call& call, DType dtype, const std::vector<int64_t>& shape, const Element& element) {
  std::byte* data = nullptr;
  ir::Literal literal = ir::Literal::allocate(dtype, shape, &data);
  for (int64_t i = 0; i < literal.elements(); ++i) ir::Literal::set(data, dtype, i, element(i));
  return call.builder().constant(std::move(literal));
}

int64_t last_axis(const Value* x) { return static_cast<int64_t>(x->type.rank()) - 1; }

Value* part_of_last(Call& call, Value* x, int64_t start, int64_t size) {
  return slice(call, x, last_axis(x), start, size);
}

int64_t length_of(Call& call, const Value* x) {
  call.expect(x->type.rank() > 0, "a scalar", "an axis to transform");
  const ir::Dim& size = x->type.shape.back();
  call.expect(size.is_constant(), size.str() + " values", "a length that is known");
  call.expect(size.constant() >= 1 && size.constant() <= kLongest, size.str() + " values",
              "1 to " + std::to_string(kLongest));
  return size.constant();
}

// Of a length that varies with the inputs: matrices of all roots are computed at run time.
Complex of_any_length(Call& call, const Complex& x, int sign) {
  const ir::Dim& n = x.re->type.shape.back();
  call.expect(n.upper_bound() <= kLongestOpen,
              "up to " + std::to_string(n.upper_bound()) + " values",
              "at most " + std::to_string(kLongestOpen) + ", or a length that is known");
  ir::Builder& builder = call.builder();
  const Expr row(call, unsqueeze(call, iota(call, n), 1)), column(call, iota(call, n));
  const Expr length(call, as_value(builder, Number(n), DType::I64));
  const Expr turns = (row * column).apply(Op::remainder, length.apply(Op::maximum, 1));
  const Expr angle = Expr(call, builder.cast(turns, DType::F64)) * (2 * sign * std::numbers::pi) /
                     Expr(call, builder.cast(length, DType::F64));
  const DType dtype = x.re->type.dtype;
  const auto product = [&](Value* y, Op function) {
    Value* weight = builder.cast(angle.apply(function), dtype);
    const bool is_vector = y->type.rank() == 1;
    Value* result = call.make(Op::matmul, {is_vector ? unsqueeze(call, y, 0) : y, weight},
                              {{"transpose_b", false}});
    return Expr(call, builder.reshape(result, y->type.shape));
  };
  const Expr re = product(x.re, Op::cos), im = product(x.re, Op::sin);
  if (x.im == nullptr) return {re, im};
  return {re - product(x.im, Op::sin), im + product(x.im, Op::cos)};
}

// One product for `count` results of n values: the real and then the imaginary parts of the roots' sums.
Value* product(Call& call, Value* x, int64_t count, int sign) {
  const int64_t n = length_of(call, x);
  Value* weight = table(call, x->type.dtype, {2 * count, n}, [&](int64_t i) {
    const Root root = root_of_unity(i / n % count * (i % n), n);
    return i / n < count ? root.re : sign * root.im;
  });
  return call.make(Op::linear, {x, weight});
}

Complex direct(Call& call, const Complex& x, int64_t count, int sign) {
  Value* of_re = product(call, x.re, count, sign);
  const Expr re(call, part_of_last(call, of_re, 0, count)),
      im(call, part_of_last(call, of_re, count, count));
  if (x.im == nullptr) return {re, im};
  Value* of_im = product(call, x.im, count, sign);
  return {re - Expr(call, part_of_last(call, of_im, count, count)),
          im + Expr(call, part_of_last(call, of_im, 0, count))};
}

Complex each(const Complex& x, const auto& function) {
  return {function(x.re), x.im == nullptr ? nullptr : function(x.im)};
}

Complex multiply(Call& call, const Complex& x, const Complex& by) {
  const Expr a(call, x.re), c(call, by.re), d(call, by.im);
  if (x.im == nullptr) return {a * c, a * d};
  const Expr b(call, x.im);
  return {a * c - b * d, a * d + b * c};
}

// The larger of the two factors of n that are nearest to each other.
int64_t larger_factor(int64_t n) {
  for (auto low = static_cast<int64_t>(std::sqrt(static_cast<double>(n))); low > 1; --low)
    if (n % low == 0) return n / low;
  return n;
}

// x[j1 * n2 + j2] -> X[k1 + n1 * k2].
Complex by_factors(Call& call, const Complex& x, int64_t n1, int64_t n2, int sign) {
  ir::Builder& builder = call.builder();
  const int64_t axis = last_axis(x.re);
  const auto transposed = [&](Value* y) {
    std::vector<int64_t> axes = range(0, axis + 2);
    std::swap(axes[axis], axes[axis + 1]);
    return builder.permute(y, axes);
  };
  const DType dtype = x.re->type.dtype;
  const auto twiddle = [&](bool imaginary) {
    return table(call, dtype, {n2, n1}, [&](int64_t i) {
      const Root root = root_of_unity(i / n1 * (i % n1), n1 * n2);
      return imaginary ? sign * root.im : root.re;
    });
  };
  const Complex rows = each(x, [&](Value* y) {
    ir::Shape shape = y->type.shape;
    shape.back() = n1;
    shape.push_back(n2);
    return transposed(builder.reshape(y, shape));
  });
  const Complex turned = multiply(call, fourier(call, rows, sign), {twiddle(false), twiddle(true)});
  const Complex columns = fourier(call, each(turned, transposed), sign);
  return each(columns, [&](Value* y) { return builder.reshape(transposed(y), x.re->type.shape); });
}

// e^(sign * pi i j^2 / n).
Root chirp(int64_t j, int64_t n, int sign) {
  const Root root = root_of_unity(j * j % (2 * n), 2 * n);
  return {root.re, sign * root.im};
}

using Roots = std::vector<Root>;

// In f64, of a power of 2.
Roots transform(const Roots& x) {
  const auto n = static_cast<int64_t>(x.size());
  if (n == 1) return x;
  Roots even, odd, result(x.size());
  for (int64_t i = 0; i < n; ++i) (i % 2 == 0 ? even : odd).push_back(x[i]);
  even = transform(even);
  odd = transform(odd);
  for (int64_t k = 0; k < n / 2; ++k) {
    const Root w = root_of_unity(-k, n);
    const Root t{w.re * odd[k].re - w.im * odd[k].im, w.re * odd[k].im + w.im * odd[k].re};
    result[k] = {even[k].re + t.re, even[k].im + t.im};
    result[k + n / 2] = {even[k].re - t.re, even[k].im - t.im};
  }
  return result;
}

// j * k = (j^2 + k^2 - (k - j)^2) / 2 makes a convolution with a chirp of the sum.
Complex by_convolution(Call& call, const Complex& x, int64_t n, int sign) {
  int64_t m = 1;
  while (m < 2 * n - 1) m *= 2;
  Roots filter(m, Root{0, 0});
  for (int64_t j = 0; j < n; ++j) filter[j] = filter[(m - j) % m] = chirp(j, n, -sign);
  filter = transform(filter);
  const DType dtype = x.re->type.dtype;
  const auto chirps = [&]() -> Complex {
    return {table(call, dtype, {n}, [&](int64_t j) { return chirp(j, n, sign).re; }),
            table(call, dtype, {n}, [&](int64_t j) { return chirp(j, n, sign).im; })};
  };
  const auto scale = static_cast<double>(m);
  const Complex by{table(call, dtype, {m}, [&](int64_t k) { return filter[k].re / scale; }),
                   table(call, dtype, {m}, [&](int64_t k) { return filter[k].im / scale; })};
  const Complex turned = multiply(call, x, chirps());
  const Complex padded = each(turned, [&](Value* y) {
    std::vector<ir::Dim> before(y->type.rank(), ir::Dim(0)), after = before;
    after.back() = m - n;
    return pad_constant(call, y, before, after);
  });
  const Complex spectrum = multiply(call, fourier(call, padded, -1), by);
  const Complex all = fourier(call, spectrum, 1);
  return multiply(call, each(all, [&](Value* y) { return part_of_last(call, y, 0, n); }), chirps());
}

}  // namespace

Complex fourier(Call& call, const Complex& x, int sign) {
  if (!x.re->type.shape.back().is_constant()) return of_any_length(call, x, sign);
  const int64_t n = length_of(call, x.re);
  const int64_t n1 = larger_factor(n);
  if (n <= kDirect || (n1 == n && n <= kDirectPrime)) return direct(call, x, n, sign);
  return n1 == n ? by_convolution(call, x, n, sign) : by_factors(call, x, n1, n / n1, sign);
}

Complex fourier_of_real(Call& call, Value* x) {
  const int64_t n = length_of(call, x), count = n / 2 + 1;
  if (n <= kDirectPrime) return direct(call, {x, nullptr}, count, -1);
  return each(fourier(call, {x, nullptr}, -1),
              [&](Value* y) { return part_of_last(call, y, 0, count); });
}

Value* inverse_to_real(Call& call, const Complex& x, int64_t n) {
  const int64_t count = n / 2 + 1, axis = last_axis(x.re);
  const DType dtype = x.re->type.dtype;
  if (n <= kDirectPrime) {
    // Every value but the first, and the middle one of an even number, stands for its conjugate too.
    const auto weight = [&](bool imaginary) {
      return table(call, dtype, {n, count}, [&](int64_t i) {
        const int64_t k = i % count;
        const Root root = root_of_unity(i / count * k, n);
        return (k == 0 || 2 * k == n ? 1 : 2) * (imaginary ? -root.im : root.re);
      });
    };
    return Expr(call, call.make(Op::linear, {x.re, weight(false)})) +
           Expr(call, call.make(Op::linear, {x.im, weight(true)}));
  }
  const auto mirrored = [&](Value* y) {
    Value* rest = part_of_last(call, y, 1, n - count);
    return call.make(Op::flip, {rest}, {{"axes", std::vector<int64_t>{axis}}});
  };
  const auto join = [&](Value* first, Value* second) {
    return call.make(Op::concat, {first, second}, {{"axis", axis}});
  };
  const Expr conjugate = -Expr(call, mirrored(x.im));
  return fourier(call, {join(x.re, mirrored(x.re)), join(x.im, conjugate)}, 1).re;
}

Complex scaled(Call& call, const Complex& x, double factor) {
  if (factor == 1) return x;
  return each(x, [&](Value* y) -> Value* { return Expr(call, y) * factor; });
}

namespace {

using Results = std::vector<Complex>;

// PyTorch's normalisation of a transform of n values; negative: of a number that varies.
double factor_of(Call& call, const std::string& norm, bool forward, double n) {
  const bool is_one = norm == (forward ? "backward" : "forward");
  call.expect(n >= 0 || is_one, "norm \"" + norm + "\" of a length that varies", "no factor");
  if (norm == "ortho") return 1 / std::sqrt(n);
  call.expect(norm == "backward" || norm == "forward", "norm \"" + norm + "\"",
              "backward, forward or ortho");
  return is_one ? 1 : 1 / n;
}

Complex self(Call& call) {
  if (call.is_complex("self")) return call.complex("self");
  return {floating(call, "self"), nullptr};
}

// Cut or filled with zeros.
Value* resized(Call& call, Value* x, int64_t axis, int64_t size) {
  if (x->type.shape[axis].is_constant(size)) return x;
  std::vector<ir::Dim> before(x->type.rank(), ir::Dim(0)), after = before;
  after[axis] = ir::Dim(size) - x->type.shape[axis];
  return pad_constant(call, x, before, after);
}

// function(x with the axis last), with the axis where it was.
Complex along(Call& call, const Complex& x, int64_t axis, const auto& function) {
  const int64_t last = last_axis(x.re);
  const Complex moved = function(each(x, [&](Value* y) { return move_axis(call, y, axis, last); }));
  return each(moved, [&](Value* y) { return move_axis(call, y, last, axis); });
}

enum class Kind { Complex, FromReal, ToReal };

// The length along an axis, or kOpen for one that varies.
constexpr int64_t kOpen = -1;

int64_t size_along(Call& call, const Complex& x, int64_t axis, Kind kind) {
  call.expect(x.re->type.rank() > 0, "a scalar", "an axis to transform");
  const ir::Dim& size = x.re->type.shape[axis];
  call.expect(size.is_constant() || kind == Kind::Complex, size.str() + " values",
              "a length that is known");
  return size.is_constant() ? size.constant() : kOpen;
}

// Axes to transform with the number of values of each.
struct Axis {
  int64_t axis, size;
};

// The axes of fft_fft (n, dim), fft_fft2 and fft_fftn (s, dim). Without sizes and axes all of them; with sizes
// the last ones.
std::vector<Axis> axes_of(Call& call, const Complex& x, Kind kind, int64_t few) {
  const size_t rank = x.re->type.rank();
  call.expect(rank > 0, "a scalar", "an axis to transform");
  std::vector<int64_t> axes, sizes = call.integers_or(few == 1 ? "n" : "s", {});
  if (call.has("dim")) {
    axes = call.integers("dim");
  } else {
    const auto all = static_cast<int64_t>(rank);
    int64_t count = !sizes.empty() ? static_cast<int64_t>(sizes.size()) : few > 0 ? few : all;
    for (; count > 0; --count) axes.push_back(-count);
  }
  call.expect(sizes.empty() || sizes.size() == axes.size(), "sizes for other axes",
              "one for each axis");
  std::vector<Axis> result;
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t axis = call.normalise_axis(axes[i], rank);
    const bool is_half = kind == Kind::ToReal && i + 1 == axes.size();
    int64_t size = i < sizes.size() ? sizes[i] : -1;
    if (size == -1) {
      size = size_along(call, x, axis, kind);
      if (is_half) size = 2 * (size - 1);
    }
    call.expect(size >= 1 || (size == kOpen && kind == Kind::Complex),
                std::to_string(size) + " values", "1 or more");
    result.push_back({axis, size});
  }
  return result;
}

Complex transformed(Call& call, Complex x, const std::vector<Axis>& axes, int sign) {
  for (const Axis& each_axis : axes)
    x = along(call, x, each_axis.axis, [&](const Complex& y) { return fourier(call, y, sign); });
  return x;
}

Complex resized(Call& call, const Complex& x, const std::vector<Axis>& axes) {
  Complex result = x;
  for (const Axis& axis : axes) {
    if (axis.size == kOpen) continue;
    result = each(result, [&](Value* y) { return resized(call, y, axis.axis, axis.size); });
  }
  return result;
}

double count_of(const std::vector<Axis>& axes) {
  double count = 1;
  for (const Axis& axis : axes) {
    if (axis.size == kOpen) return kOpen;
    count *= static_cast<double>(axis.size);
  }
  return count;
}

// Without axes: a complex copy.
Complex with_imaginary(Call& call, const Complex& x) {
  if (x.im != nullptr) return x;
  return {x.re, call.builder().expand(call.constant_like(x.re, 0), x.re->type.shape)};
}

template <int64_t few, int sign>
Results import_complex_to_complex(Call& call) {
  const Complex x = self(call);
  const std::vector<Axis> axes = axes_of(call, x, Kind::Complex, few);
  const double factor = factor_of(call, call.text_or("norm", "backward"), sign < 0, count_of(axes));
  const Complex result = transformed(call, resized(call, x, axes), axes, sign);
  return {scaled(call, with_imaginary(call, result), factor)};
}

Complex real_to_complex(Call& call, const Complex& x, std::vector<Axis> axes) {
  call.expect(x.im == nullptr && !axes.empty(), "complex numbers or no axes",
              "real numbers along an axis");
  const Complex input = resized(call, x, axes);
  const Axis last = axes.back();
  axes.pop_back();
  const Complex half =
      along(call, input, last.axis, [&](const Complex& y) { return fourier_of_real(call, y.re); });
  return transformed(call, half, axes, -1);
}

Complex complex_to_real(Call& call, const Complex& x, std::vector<Axis> axes) {
  call.expect(!axes.empty(), "no axes", "an axis to transform");
  const Axis last = axes.back();
  axes.pop_back();
  Complex input = resized(call, with_imaginary(call, x), axes);
  input = each(input, [&](Value* y) { return resized(call, y, last.axis, last.size / 2 + 1); });
  const Complex half = transformed(call, input, axes, 1);
  return along(call, half, last.axis, [&](const Complex& y) -> Complex {
    return {inverse_to_real(call, y, last.size), nullptr};
  });
}

template <int64_t few>
Results import_rfft(Call& call) {
  const Complex x = self(call);
  const std::vector<Axis> axes = axes_of(call, x, Kind::FromReal, few);
  const double factor = factor_of(call, call.text_or("norm", "backward"), true, count_of(axes));
  return {scaled(call, real_to_complex(call, x, axes), factor)};
}

template <int64_t few>
Results import_irfft(Call& call) {
  const Complex x = self(call);
  const std::vector<Axis> axes = axes_of(call, x, Kind::ToReal, few);
  const double factor = factor_of(call, call.text_or("norm", "backward"), false, count_of(axes));
  return {scaled(call, complex_to_real(call, x, axes), factor)};
}

Complex conjugate(Call& call, const Complex& x) {
  return {x.re, x.im == nullptr ? nullptr : (-Expr(call, x.im)).value()};
}

// The transform of a signal that is its own mirrored conjugate, given by its half: it is real.
template <int64_t few>
Results import_hfft(Call& call) {
  const Complex x = self(call);
  const std::vector<Axis> axes = axes_of(call, x, Kind::ToReal, few);
  const double factor = factor_of(call, call.text_or("norm", "backward"), true, count_of(axes));
  return {scaled(call, complex_to_real(call, conjugate(call, x), axes), factor)};
}

template <int64_t few>
Results import_ihfft(Call& call) {
  const Complex x = self(call);
  const std::vector<Axis> axes = axes_of(call, x, Kind::FromReal, few);
  const double factor = factor_of(call, call.text_or("norm", "backward"), false, count_of(axes));
  return {scaled(call, conjugate(call, real_to_complex(call, x, axes)), factor)};
}

// _fft_c2c, _fft_r2c and _fft_c2r, of which the others are composed: 0: no factor, 1: of the root, 2: of n.
double primitive_factor(Call& call, const std::vector<Axis>& axes) {
  const int64_t mode = call.integer_or("normalization", 0);
  const double n = count_of(axes);
  call.expect(n >= 0 || mode == 0, "a factor of a length that varies", "none");
  return mode == 0 ? 1 : mode == 1 ? 1 / std::sqrt(n) : 1 / n;
}

std::vector<Axis> primitive_axes(Call& call, const Complex& x, Kind kind) {
  std::vector<Axis> axes;
  for (const int64_t given : call.integers("dim")) {
    const int64_t axis = call.normalise_axis(given, x.re->type.rank());
    axes.push_back({axis, size_along(call, x, axis, kind)});
  }
  return axes;
}

Results import_c2c(Call& call) {
  const Complex x = self(call);
  const std::vector<Axis> axes = primitive_axes(call, x, Kind::Complex);
  const int sign = call.boolean_or("forward", true) ? -1 : 1;
  return {scaled(call, transformed(call, x, axes, sign), primitive_factor(call, axes))};
}

Results import_r2c(Call& call) {
  const Complex x = self(call);
  const std::vector<Axis> axes = primitive_axes(call, x, Kind::FromReal);
  const Complex result = call.boolean_or("onesided", true) ? real_to_complex(call, x, axes)
                                                           : transformed(call, x, axes, -1);
  return {scaled(call, result, primitive_factor(call, axes))};
}

Results import_c2r(Call& call) {
  const Complex x = self(call);
  std::vector<Axis> axes = primitive_axes(call, x, Kind::FromReal);
  call.expect(!axes.empty(), "no axes", "an axis to transform");
  axes.back().size = call.integer("last_dim_size");
  return {scaled(call, complex_to_real(call, x, axes), primitive_factor(call, axes))};
}

// Rolls axes so that the frequency 0, which comes first, is in the middle, or back.
template <bool forward>
Results import_shift(Call& call) {
  Complex x =
      call.is_complex("self") ? call.complex("self") : Complex{call.tensor("self"), nullptr};
  for (const int64_t axis : call.axes_or_all("dim", x.re->type.rank())) {
    const ir::Dim size = x.re->type.shape[axis], half = ir::floordiv(size, 2);
    const ir::Dim first = forward ? size - half : half;
    x = each(x, [&](Value* y) {
      Value* front = slice(call, y, axis, first, size - first);
      return call.make(Op::concat, {front, slice(call, y, axis, 0, first)}, {{"axis", axis}});
    });
  }
  return {x};
}

constexpr ComplexRow kRows[] = {
    {"aten.fft_fftshift.default", import_shift<true>},
    {"aten.fft_ifftshift.default", import_shift<false>},
    {"aten.fft_fft.default", import_complex_to_complex<1, -1>},
    {"aten.fft_ifft.default", import_complex_to_complex<1, 1>},
    {"aten.fft_fft2.default", import_complex_to_complex<2, -1>},
    {"aten.fft_ifft2.default", import_complex_to_complex<2, 1>},
    {"aten.fft_fftn.default", import_complex_to_complex<0, -1>},
    {"aten.fft_ifftn.default", import_complex_to_complex<0, 1>},
    {"aten.fft_rfft.default", import_rfft<1>},
    {"aten.fft_rfft2.default", import_rfft<2>},
    {"aten.fft_rfftn.default", import_rfft<0>},
    {"aten.fft_irfft.default", import_irfft<1>},
    {"aten.fft_irfft2.default", import_irfft<2>},
    {"aten.fft_irfftn.default", import_irfft<0>},
    {"aten.fft_hfft.default", import_hfft<1>},
    {"aten.fft_hfft2.default", import_hfft<2>},
    {"aten.fft_hfftn.default", import_hfft<0>},
    {"aten.fft_ihfft.default", import_ihfft<1>},
    {"aten.fft_ihfft2.default", import_ihfft<2>},
    {"aten.fft_ihfftn.default", import_ihfft<0>},
    {"aten._fft_c2c.default", import_c2c},
    {"aten._fft_r2c.default", import_r2c},
    {"aten._fft_c2r.default", import_c2r},
};

}  // namespace

ComplexRows fourier_rows() { return kRows; }

}  // namespace kiln::import
