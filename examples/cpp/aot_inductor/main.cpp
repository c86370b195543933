// Loads a package of AOTInductor and runs it on tensors of ones:
//
//   run_package model.pt2 4x16 4x3      one shape per input
//
// Several threads may share a loader, as the second run here does.
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/torch.h>

#include <chrono>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

using torch::inductor::AOTIModelPackageLoader;

std::vector<int64_t> parse_shape(const std::string& text) {
  std::vector<int64_t> shape;
  std::istringstream words(text);
  for (std::string size; std::getline(words, size, 'x');) {
    shape.push_back(std::stoll(size));
  }
  return shape;
}

void run_in_threads(AOTIModelPackageLoader& loader, const std::vector<at::Tensor>& inputs) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int run = 0; run < 100; ++run) {
        loader.run(inputs);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

double microseconds_per_call(AOTIModelPackageLoader& loader,
                             const std::vector<at::Tensor>& inputs) {
  constexpr int kCalls = 1000;
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kCalls; ++i) {
    loader.run(inputs);
  }
  const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - start;
  return time.count() / kCalls;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: run_package model.pt2 [4x16 ...]\n";
    return 2;
  }
  try {
    const c10::InferenceMode inference;
    AOTIModelPackageLoader loader(argv[1]);
    std::vector<at::Tensor> inputs;
    for (int i = 2; i < argc; ++i) {
      inputs.push_back(torch::ones(parse_shape(argv[i])));
    }
    for (const at::Tensor& output : loader.run(inputs)) {
      std::cout << "output " << output.sizes() << " sum " << output.sum().item<double>() << '\n';
    }
    run_in_threads(loader, inputs);
    std::cout << "microseconds per call: " << microseconds_per_call(loader, inputs) << '\n';
  } catch (const std::exception& error) {
    std::cerr << "run_package: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
