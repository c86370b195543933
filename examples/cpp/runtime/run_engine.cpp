// Loads an engine and runs it: run_engine model.kiln [SIZE]
//
// Dimensions that are not fixed take SIZE, else the size that the engine was optimised for. The
// inputs are made up: element i is sin(i).
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <kiln/kiln.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

std::vector<int64_t> shape_of(const kiln_tensor_info& info, std::optional<int64_t> size) {
  std::vector<int64_t> shape;
  for (int32_t d = 0; d < info.rank; ++d) {
    const kiln_dim& dim = info.dims[d];
    shape.push_back(dim.min == dim.max ? dim.min : size.value_or(dim.opt));
  }
  return shape;
}

size_t count_of(const std::vector<int64_t>& shape) {
  size_t count = 1;
  for (const int64_t extent : shape) count *= static_cast<size_t>(extent);
  return count;
}

void expect_f32(const kiln_tensor_info& info) {
  if (info.dtype != KILN_F32)
    throw std::runtime_error(std::string(info.name) + ": this example handles f32 only");
}

void print(const char* name, const std::vector<int64_t>& shape, const std::vector<float>& values) {
  std::printf("%s [", name);
  for (size_t d = 0; d < shape.size(); ++d)
    std::printf("%s%lld", d == 0 ? "" : ", ", static_cast<long long>(shape[d]));
  std::printf("]\n");
  for (const float value : values) std::printf("%.9g\n", value);
}

void run(const char* path, std::optional<int64_t> size) {
  const kiln::Engine engine = kiln::Engine::load_file(path);
  kiln::Session session(engine);

  std::vector<std::vector<float>> input_values;
  std::vector<kiln::Tensor> inputs;
  for (size_t i = 0; i < engine.num_inputs(); ++i) {
    const kiln_tensor_info info = engine.input(i);
    expect_f32(info);
    const std::vector<int64_t> shape = shape_of(info, size);
    std::vector<float>& values = input_values.emplace_back(count_of(shape));
    for (size_t k = 0; k < values.size(); ++k)
      values[k] = static_cast<float>(std::sin(static_cast<double>(k)));
    inputs.emplace_back(values, shape);
  }

  // What the engine computes goes into memory of ours.
  std::vector<std::vector<float>> output_values;
  std::vector<kiln::Tensor> outputs;
  for (const std::vector<int64_t>& shape : session.output_shapes(inputs)) {
    expect_f32(engine.output(outputs.size()));
    outputs.emplace_back(output_values.emplace_back(count_of(shape)), shape);
  }
  session.run(inputs, outputs);

  for (size_t i = 0; i < outputs.size(); ++i)
    print(engine.output(i).name, outputs[i].shape(), output_values[i]);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    std::fprintf(stderr, "usage: run_engine model.kiln [SIZE]\n");
    return 2;
  }
  try {
    run(argv[1], argc == 3 ? std::optional<int64_t>(std::atoll(argv[2])) : std::nullopt);
    return 0;
  } catch (const std::exception& error) {  // a kiln::Error says what was got and what is expected
    std::fprintf(stderr, "run_engine: %s\n", error.what());
    return 1;
  }
}
