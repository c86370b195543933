#include "api.h"

#include <array>
#include <cstring>
#include <random>

namespace tools {
namespace {

std::vector<kiln_tensor> as_tensors(std::vector<Array>& arrays) {
  std::vector<kiln_tensor> tensors;
  for (Array& array : arrays) tensors.push_back(as_tensor(array));
  return tensors;
}

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

void check(kiln_status status) {
  if (status != KILN_OK) throw Failure(kiln_last_error());
}

Engine load_engine(const std::string& path, const std::string& cpu_variant) {
  kiln_load_options options{};
  options.struct_size = sizeof(options);
  if (!cpu_variant.empty()) options.cpu_variant = cpu_variant.c_str();
  kiln_engine* engine = nullptr;
  check(kiln_engine_load_file(path.c_str(), &options, &engine));
  return Engine(engine);
}

Session make_session(const Engine& engine, int threads) {
  kiln_session_options options{};
  options.struct_size = sizeof(options);
  options.num_threads = threads;
  kiln_session* session = nullptr;
  check(kiln_session_create(engine.get(), &options, &session));
  return Session(session);
}

std::vector<kiln_tensor_info> inputs_of(const Engine& engine) {
  std::vector<kiln_tensor_info> infos(kiln_engine_num_inputs(engine.get()));
  for (size_t i = 0; i < infos.size(); ++i) check(kiln_engine_input(engine.get(), i, &infos[i]));
  return infos;
}

std::vector<kiln_tensor_info> outputs_of(const Engine& engine) {
  std::vector<kiln_tensor_info> infos(kiln_engine_num_outputs(engine.get()));
  for (size_t i = 0; i < infos.size(); ++i) check(kiln_engine_output(engine.get(), i, &infos[i]));
  return infos;
}

std::string text_of(const Bytes& bytes) {
  return {static_cast<const char*>(kiln_bytes_data(bytes.get())), kiln_bytes_size(bytes.get())};
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
  array.data.resize(static_cast<size_t>(element_count(array.shape)) * element_size(dtype));
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

std::vector<Array> make_outputs(const Engine& engine, const Session& session,
                                std::vector<Array>& inputs) {
  const std::vector<kiln_tensor_info> infos = outputs_of(engine);
  const std::vector<kiln_tensor> tensors = as_tensors(inputs);
  std::vector<std::array<int64_t, KILN_MAX_RANK>> shapes(infos.size());
  check(kiln_session_output_shapes(session.get(), tensors.data(), tensors.size(),
                                   reinterpret_cast<int64_t(*)[KILN_MAX_RANK]>(shapes.data()),
                                   shapes.size()));
  std::vector<Array> outputs;
  for (size_t i = 0; i < infos.size(); ++i) {
    Array output{infos[i].dtype, {shapes[i].begin(), shapes[i].begin() + infos[i].rank}, {}, {}};
    const auto count = static_cast<size_t>(element_count(output.shape));
    output.data.resize(count * element_size(output.dtype));
    outputs.push_back(std::move(output));
  }
  return outputs;
}

void run(const Session& session, std::vector<Array>& inputs, std::vector<Array>& outputs) {
  const std::vector<kiln_tensor> in = as_tensors(inputs);
  std::vector<kiln_tensor> out = as_tensors(outputs);
  check(kiln_session_run(session.get(), in.data(), in.size(), out.data(), out.size()));
}

}  // namespace tools
