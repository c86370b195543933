// What loading and calling a saved model costs in C++, by its ending:
//   call model.pt2|FOLDER|model.ts|model.kiln ROWS COLUMNS INPUTS
// One line: load ms, us per call. Inputs are f32 of ROWS x COLUMNS; one thread.
#include <ATen/Parallel.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/script.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kiln/kiln.hpp"

namespace {

using Clock = std::chrono::steady_clock;
using Call = std::function<void()>;

struct Shape {
  int64_t rows, columns;
  size_t inputs;
};

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::vector<at::Tensor> make_inputs(const Shape& shape) {
  std::vector<at::Tensor> inputs;
  for (size_t i = 0; i < shape.inputs; ++i)
    inputs.push_back(torch::rand({shape.rows, shape.columns}));
  return inputs;
}

Call load_script(const std::string& path, const Shape& shape) {
  auto module = std::make_shared<torch::jit::Module>(torch::jit::load(path));
  const std::vector<at::Tensor> inputs = make_inputs(shape);
  return [module, values = std::vector<c10::IValue>(inputs.begin(), inputs.end())] {
    (void)module->forward(values);
  };
}

Call load_package(const std::string& path, const Shape& shape) {
  auto loader = std::make_shared<torch::inductor::AOTIModelPackageLoader>(path);
  return [loader, inputs = make_inputs(shape)] { (void)loader->run(inputs); };
}

// The outputs of a call have the shape of an input.
Call load_engine(const std::string& path, const Shape& shape) {
  auto session = std::make_shared<kiln::Session>(kiln::Engine::load_file(path), 1);
  auto memory = std::make_shared<std::vector<std::vector<float>>>(
      shape.inputs + 1, std::vector<float>(static_cast<size_t>(shape.rows * shape.columns), 1));
  return [session, memory, shape] {
    std::vector<kiln::Tensor> views;
    for (std::vector<float>& values : *memory)
      views.emplace_back(values.data(), std::vector<int64_t>{shape.rows, shape.columns});
    const std::vector<kiln_tensor> outputs_before{views.back().view()};
    std::vector<kiln_tensor> inputs, outputs = outputs_before;
    for (size_t i = 0; i < shape.inputs; ++i) inputs.push_back(views[i].view());
    session->run(inputs, outputs);
  };
}

Call load(const std::string& path, const Shape& shape) {
  if (ends_with(path, ".ts")) return load_script(path, shape);
  if (ends_with(path, ".kiln")) return load_engine(path, shape);
  return load_package(path, shape);
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double microseconds_per_call(const Call& call) {
  constexpr int kCalls = 2000, kRepeats = 9;
  std::vector<double> times;
  for (int i = 0; i < kRepeats; ++i) {
    const auto start = Clock::now();
    for (int j = 0; j < kCalls; ++j) call();
    times.push_back(seconds_since(start) * 1e6 / kCalls);
  }
  return *std::ranges::min_element(times);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: call FILE ROWS COLUMNS INPUTS\n");
    return 2;
  }
  at::set_num_threads(1);
  const torch::InferenceMode inference;
  const Shape shape{std::atoll(argv[2]), std::atoll(argv[3]),
                    static_cast<size_t>(std::atoll(argv[4]))};
  try {
    const auto start = Clock::now();
    const Call call = load(argv[1], shape);
    const double load_ms = seconds_since(start) * 1e3;
    call();
    const bool small = shape.rows * shape.columns < 1000;
    std::printf("%.3f %.3f\n", load_ms, small ? microseconds_per_call(call) : 0.0);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "call: %s\n", error.what());
    return 1;
  }
  return 0;
}
