#include "arrays.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <random>

namespace tools {
namespace {

template <typename T, typename Next>
void fill(std::vector<std::byte>& data, const Next& next) {
  for (size_t i = 0; i + sizeof(T) <= data.size(); i += sizeof(T)) {
    const T value = next();
    std::memcpy(data.data() + i, &value, sizeof(T));
  }
}

// A small float as float16 or bfloat16, rounded towards zero: enough for made-up inputs.
uint16_t truncate_to_half(float value, bool bfloat16) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  if (bfloat16) return static_cast<uint16_t>(bits >> 16);
  const int exponent = static_cast<int>(bits >> 23 & 0xff) - 127 + 15;
  if (exponent <= 0) return 0;
  return static_cast<uint16_t>((bits >> 16 & 0x8000) | exponent << 10 | (bits >> 13 & 0x3ff));
}

}  // namespace

std::vector<kiln_tensor_info> inputs_of(const kiln::Engine& engine) {
  std::vector<kiln_tensor_info> infos;
  for (size_t i = 0; i < engine.num_inputs(); ++i) infos.push_back(engine.input(i));
  return infos;
}

std::vector<kiln_tensor_info> outputs_of(const kiln::Engine& engine) {
  std::vector<kiln_tensor_info> infos;
  for (size_t i = 0; i < engine.num_outputs(); ++i) infos.push_back(engine.output(i));
  return infos;
}

std::string type_text(const kiln_tensor_info& info) {
  std::string text = std::string(dtype_name(info.dtype)) + "[";
  for (int32_t i = 0; i < info.rank; ++i) {
    const kiln_dim& dim = info.dims[i];
    if (i > 0) text += ", ";
    text += std::to_string(dim.min);
    if (dim.min != dim.max) text += ".." + std::to_string(dim.opt) + ".." + std::to_string(dim.max);
  }
  return text + "]";
}

Array random_array(kiln_dtype dtype, std::vector<int64_t> shape) {
  Array array{dtype, std::move(shape), {}, {}};
  const size_t bytes = static_cast<size_t>(element_count(array.shape)) * element_size(dtype);
  // Where memory is promised freely, the process would be ended while it writes.
  const auto pages = static_cast<size_t>(sysconf(_SC_PHYS_PAGES));
  if (bytes / static_cast<size_t>(sysconf(_SC_PAGESIZE)) > pages) throw std::bad_alloc();
  array.data.resize(bytes);
  std::minstd_rand generator(42);
  const auto real = [&] { return static_cast<float>(generator() % 65536) / 32768.0f - 1.0f; };
  const auto bit = [&] { return generator() / 1024 % 2 == 0 ? 0 : 1; };
  switch (dtype) {
    case KILN_F32:
      fill<float>(array.data, real);
      break;
    case KILN_F64:
      fill<double>(array.data, real);
      break;
    case KILN_F16:
    case KILN_BF16:
      fill<uint16_t>(array.data, [&] { return truncate_to_half(real(), dtype == KILN_BF16); });
      break;
    case KILN_F8E4M3:  // the bits of an f16, less those that it has more: without NaN
      fill<uint8_t>(array.data, [&] {
        const uint16_t half = truncate_to_half(real() / 256, false);
        return static_cast<uint8_t>((half >> 8 & 0x80) | (half >> 7 & 0x7f));
      });
      break;
    case KILN_I8:
    case KILN_U8:
    case KILN_BOOL:
      fill<uint8_t>(array.data, bit);
      break;
    case KILN_I16:
      fill<int16_t>(array.data, bit);
      break;
    case KILN_I32:
      fill<int32_t>(array.data, bit);
      break;
    case KILN_I64:
      fill<int64_t>(array.data, bit);
      break;
  }
  return array;
}

std::vector<Array> make_outputs(const kiln::Engine& engine, kiln::Session& session,
                                const std::vector<Array>& inputs) {
  const std::vector<std::vector<int64_t>> shapes = session.output_shapes(as_tensors(inputs));
  std::vector<Array> outputs;
  for (size_t i = 0; i < shapes.size(); ++i) {
    constexpr int64_t kUnbounded = int64_t{1} << 46;
    if (std::ranges::any_of(shapes[i], [](int64_t size) { return size > kUnbounded; }))
      throw kiln::Error(KILN_UNSUPPORTED, std::string("output ") + engine.output(i).name +
                                              ": its size depends on data and has no bound");
    Array output{engine.output(i).dtype, shapes[i], {}, {}};
    const auto count = static_cast<size_t>(element_count(output.shape));
    output.data.resize(count * element_size(output.dtype));
    outputs.push_back(std::move(output));
  }
  return outputs;
}

std::vector<kiln::Tensor> as_tensors(const std::vector<Array>& arrays) {
  std::vector<kiln::Tensor> tensors;
  for (const Array& array : arrays) tensors.push_back(as_tensor(array));
  return tensors;
}

}  // namespace tools
