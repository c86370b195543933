// Convolutions, transposed ones included.
#include "import/onnx/ops/convolution.h"

namespace kiln::import::onnx {

std::vector<int64_t> kernel_of(NodeCall& call, const Value* weight) {
  call.expect(weight->type.rank() >= 3, "a weight of shape " + shape_text(weight->type.shape),
              "rank 3 or more");
  std::vector<int64_t> kernel;
  for (const Dim& size : spatial_sizes(weight))
    kernel.push_back(known_size(call, size, "a kernel"));
  call.expect(call.integers_or("kernel_shape", kernel) == kernel, "another kernel_shape",
              "that of the weight: " + shape_text(weight->type.shape));
  return kernel;
}

Value* convolve(NodeCall& call, Value* x, Value* weight, Value* bias) {
  const std::vector<int64_t> kernel = kernel_of(call, weight);
  call.expect(x->type.rank() == kernel.size() + 2, "an input of shape " + shape_text(x->type.shape),
              "rank " + std::to_string(kernel.size() + 2));
  const Window window = read_window(call, kernel, spatial_sizes(x));
  std::vector<Value*> operands{x, weight};
  if (bias != nullptr) operands.push_back(bias);
  return call.make(Op::convolution, operands,
                   {{"stride", window.stride},
                    {"padding_before", window.before},
                    {"padding_after", window.after},
                    {"dilation", window.dilation},
                    {"groups", call.integer_or("group", 1)},
                    {"layout", std::string("nchw")}});
}

namespace {

Value* import_conv(NodeCall& call) {
  return convolve(call, call.input(0), call.input(1), call.optional_input(2));
}

struct Transposed {
  Window window;
  std::vector<int64_t> extra;  // output_padding
};

// Where auto_pad or output_shape say the result's size, the padding follows from it.
void fit_output(NodeCall& call, const Shape& sizes, Transposed& geometry) {
  const std::string mode = call.text_or("auto_pad", "NOTSET");
  const std::vector<int64_t> wanted = call.integers_or("output_shape", {});
  const bool same = mode == "SAME_UPPER" || mode == "SAME_LOWER";
  if (wanted.empty() && !same) return;
  Window& window = geometry.window;
  const size_t count = sizes.size();
  call.expect(wanted.empty() || wanted.size() >= count,
              std::to_string(wanted.size()) + " sizes in output_shape", std::to_string(count));
  for (size_t i = 0; i < count; ++i) {
    const int64_t reach = window.dilation[i] * (window.kernel[i] - 1) + 1;
    int64_t total = reach + geometry.extra[i] - window.stride[i];  // of stride times the size
    if (!wanted.empty()) {
      const int64_t size = known_size(call, sizes[i], "output_shape");
      total = window.stride[i] * (size - 1) + geometry.extra[i] + reach -
              wanted[wanted.size() - count + i];
    }
    // What the result lacks comes behind it.
    if (total < 0) geometry.extra[i] -= total;
    total = std::max<int64_t>(0, total);
    window.before[i] = mode == "SAME_UPPER" ? total / 2 : total - total / 2;
    window.after[i] = total - window.before[i];
  }
}

// PyTorch's with no padding, and what the padding takes off cut off.
Value* import_conv_transpose(NodeCall& call) {
  Value *x = call.input(0), *weight = call.input(1);
  const std::vector<int64_t> kernel = kernel_of(call, weight);
  const size_t count = kernel.size();
  call.expect(x->type.rank() == count + 2, "an input of shape " + shape_text(x->type.shape),
              "rank " + std::to_string(count + 2));
  // SAME is about the result here.
  Transposed geometry{read_window(call, kernel, Shape(count, Dim(1))),
                      call.integers_or("output_padding", std::vector<int64_t>(count, 0))};
  call.expect(geometry.extra.size() == count, "another number of output_padding",
              std::to_string(count));
  fit_output(call, spatial_sizes(x), geometry);
  const Window& window = geometry.window;
  Value* bias = call.optional_input(2);
  const bool even = window.before == window.after;
  Value* result = call.aten("aten.convolution.default",
                            {{"input", x},
                             {"weight", weight},
                             {"bias", bias},
                             {"stride", window.stride},
                             {"padding", even ? window.before : std::vector<int64_t>(count, 0)},
                             {"dilation", window.dilation},
                             {"transposed", true},
                             {"output_padding", geometry.extra},
                             {"groups", Dim(call.integer_or("group", 1))}});
  for (size_t i = 0; !even && i < count; ++i) {
    const Dim size = result->type.shape[i + 2] - window.before[i] - window.after[i];
    result = slice(call.call(), result, static_cast<int64_t>(i) + 2, window.before[i], size);
  }
  return result;
}

constexpr OperatorRow kRows[] = {
    {"Conv", import_conv},
    {"ConvTranspose", import_conv_transpose},
};

}  // namespace

OperatorRows convolution_operators() { return kRows; }

}  // namespace kiln::import::onnx
