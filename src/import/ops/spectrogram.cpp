// Transforms of overlapping windows of a signal, and back.
#include "import/ops/fourier.h"

#include <cmath>

namespace kiln::import {
namespace {

using Results = std::vector<Complex>;
using ir::Dim;

// The most pieces of a step that a window may have.
constexpr int64_t kMostSteps = 256;

struct Windows {
  int64_t size, step, taper;  // n_fft, hop_length, win_length
};

Windows windows_of(Call& call) {
  const int64_t size = call.integer("n_fft");
  const Windows result{size, call.integer_or("hop_length", size / 4),
                       call.integer_or("win_length", size)};
  call.expect(size >= 1 && result.step >= 1, std::to_string(result.step) + " steps", "1 or more");
  call.expect(result.taper >= 1 && result.taper <= size,
              "win_length " + std::to_string(result.taper), "1 to n_fft");
  return result;
}

Value* pad_last(Call& call, Value* x, const Dim& before, const Dim& after,
                const std::string& mode = "constant") {
  std::vector<Dim> first(x->type.rank(), Dim(0)), last = first;
  first.back() = before;
  last.back() = after;
  return call.make(Op::pad, {x},
                   {{"before", first}, {"after", last}, {"value", 0.0}, {"mode", mode}});
}

// The factors of a window's values, zeros around them; null for none.
Value* taper_of(Call& call, const Windows& windows, DType dtype) {
  call.expect(!call.is_complex("window"), "a complex window", "a real one");
  Value* taper = call.optional_tensor("window");
  if (taper == nullptr && windows.taper == windows.size) return nullptr;
  if (taper == nullptr)
    taper = call.builder().expand(call.builder().scalar(dtype, 1), {Dim(windows.taper)});
  const int64_t before = (windows.size - windows.taper) / 2;
  if (windows.taper == windows.size) return call.builder().cast(taper, dtype);
  return pad_last(call, call.builder().cast(taper, dtype), before,
                  windows.size - windows.taper - before);
}

// [.., length] -> [.., windows, size]
Value* cut(Call& call, Value* x, const Windows& windows) {
  const Dim count = ir::floordiv(x->type.shape.back() - windows.size, windows.step) + 1;
  const Expr start(call, unsqueeze(call, iota(call, count), 1));
  Value* index = start * static_cast<double>(windows.step) + Expr(call, iota(call, windows.size));
  return call.make(Op::gather, {x, index}, {{"axis", static_cast<int64_t>(x->type.rank()) - 1}});
}

Complex each(const Complex& x, const auto& function) {
  return {function(x.re), x.im == nullptr ? nullptr : function(x.im)};
}

Value* swap_last_two(Call& call, Value* x) {
  const auto rank = static_cast<int64_t>(x->type.rank());
  return move_axis(call, x, rank - 2, rank - 1);
}

Results import_stft(Call& call) {
  call.expect(!call.boolean_or("align_to_window", false), "align_to_window", "none");
  const Windows windows = windows_of(call);
  const bool is_complex = call.is_complex("self");
  Complex x = is_complex ? call.complex("self") : Complex{call.tensor("self"), nullptr};
  if (call.node().target.ends_with(".center") && call.boolean_or("center", true)) {
    const std::string mode = call.text_or("pad_mode", "reflect");
    x = each(x,
             [&](Value* y) { return pad_last(call, y, windows.size / 2, windows.size / 2, mode); });
  }
  Value* taper = taper_of(call, windows, x.re->type.dtype);
  x = each(x, [&](Value* y) -> Value* {
    Value* frames = cut(call, y, windows);
    return taper == nullptr ? frames : Expr(call, frames) * Expr(call, taper);
  });
  const bool half = call.boolean_or("onesided", !is_complex);
  call.expect(!half || !is_complex, "onesided for complex numbers", "onesided=False");
  x = half ? fourier_of_real(call, x.re) : fourier(call, x, -1);
  if (call.boolean_or("normalized", false))
    x = scaled(call, x, 1 / std::sqrt(static_cast<double>(windows.size)));
  x = each(x, [&](Value* y) { return swap_last_two(call, y); });
  if (call.boolean_or("return_complex", is_complex)) return {x};
  return {{join_parts(call.builder(), x), nullptr}};
}

// [.., windows, size] -> [.., size + step * (windows - 1)]: overlapping windows are added. A window is cut into pieces
// of a step, and all first pieces side by side are a signal, as are all second ones, a step later.
Value* overlap(Call& call, Value* x, const Windows& windows) {
  const int64_t pieces = (windows.size + windows.step - 1) / windows.step;
  call.expect(pieces <= kMostSteps, std::to_string(pieces) + " steps in a window",
              "at most " + std::to_string(kMostSteps));
  const Dim count = x->type.shape[x->type.rank() - 2];
  x = pad_last(call, x, 0, pieces * windows.step - windows.size);
  const ir::Shape flat(x->type.shape.begin(), x->type.shape.end() - 2);
  std::optional<Expr> sum;
  for (int64_t i = 0; i < pieces; ++i) {
    Value* piece =
        slice(call, x, static_cast<int64_t>(x->type.rank()) - 1, i * windows.step, windows.step);
    ir::Shape joined = flat;
    joined.push_back(count * windows.step);
    const Expr placed(call, pad_last(call, call.builder().reshape(piece, joined), i * windows.step,
                                     (pieces - 1 - i) * windows.step));
    sum = sum ? *sum + placed : placed;
  }
  return slice(call, *sum, static_cast<int64_t>(flat.size()), 0,
               (count - 1) * windows.step + windows.size);
}

Results import_istft(Call& call) {
  call.expect(!call.boolean_or("return_complex", false), "return_complex", "a real signal");
  const Windows windows = windows_of(call);
  ir::Builder& builder = call.builder();
  Complex x = each(call.complex("self"), [&](Value* y) { return swap_last_two(call, y); });
  const int64_t half = windows.size / 2 + 1;
  x = each(x, [&](Value* y) {
    return slice(call, y, static_cast<int64_t>(y->type.rank()) - 1, 0, half);
  });
  const double size = static_cast<double>(windows.size);
  const double factor = call.boolean_or("normalized", false) ? 1 / std::sqrt(size) : 1 / size;
  Expr frames = Expr(call, inverse_to_real(call, x, windows.size)) * factor;
  const DType dtype = frames.value()->type.dtype;
  Value* taper = taper_of(call, windows, dtype);
  if (taper == nullptr) taper = builder.expand(builder.scalar(dtype, 1), {Dim(windows.size)});
  frames = frames * Expr(call, taper);
  const Expr square = Expr(call, taper) * Expr(call, taper);
  const Dim count = frames.value()->type.shape[frames.value()->type.rank() - 2];
  Value* squares = builder.expand(square, {count, Dim(windows.size)});
  Value *signal = overlap(call, frames, windows), *envelope = overlap(call, squares, windows);
  const Dim whole = envelope->type.shape[0];
  const int64_t edge = call.boolean_or("center", true) ? windows.size / 2 : 0;
  const Dim wanted = call.has("length") ? call.dim("length") : whole - 2 * edge;
  const Dim present = ir::min(wanted, whole - edge);
  const auto axis = static_cast<int64_t>(signal->type.rank()) - 1;
  const Expr result = Expr(call, slice(call, signal, axis, edge, present)) /
                      Expr(call, slice(call, envelope, 0, edge, present));
  if (wanted == present) return {{result, nullptr}};
  return {{pad_last(call, result, 0, wanted - present), nullptr}};
}

constexpr ComplexRow kRows[] = {
    {"aten.stft.default", import_stft},
    {"aten.stft.center", import_stft},
    {"aten.istft.default", import_istft},
};

}  // namespace

ComplexRows spectrogram_rows() { return kRows; }

}  // namespace kiln::import
