#include "engine_arguments.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>

#include "failure.h"
#include "shape_argument.h"

namespace tools {
namespace {

std::vector<int64_t> opt_shape(const kiln_tensor_info& info) {
  std::vector<int64_t> shape;
  for (int32_t i = 0; i < info.rank; ++i) shape.push_back(info.dims[i].opt);
  return shape;
}

}  // namespace

kiln::Engine load(const EngineArguments& arguments) {
  return kiln::Engine::load_file(
      arguments.engine, {.target = arguments.target, .verify_weights = !arguments.no_verify});
}

void add_engine_options(CLI::App& command, EngineArguments& arguments) {
  command.add_option("engine", arguments.engine, "The engine file")->required();
  command.add_option("--threads", arguments.threads, "Threads to run on (default: one per core)")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--target", arguments.target,
                     "The program to run: cpu, cpu:x86-64-v3 (default: the first that this machine "
                     "runs)");
  command.add_flag("--no-verify", arguments.no_verify,
                   "Do not check the hash of the weights, which reads all of them");
  command.add_option("--shape", arguments.shapes, "Sizes of a made-up input: x=8,128");
}

size_t input_index(const std::vector<kiln_tensor_info>& inputs, const std::string& name) {
  std::string names;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].name == name) return i;
    names += (names.empty() ? "" : ", ") + std::string(inputs[i].name);
  }
  throw Failure("got input '" + name + "', expected one of " + names);
}

std::vector<Array> random_inputs(const kiln::Engine& engine,
                                 const std::vector<std::string>& shapes) {
  const std::vector<kiln_tensor_info> infos = inputs_of(engine);
  std::vector<std::vector<int64_t>> sizes;
  for (const kiln_tensor_info& info : infos) sizes.push_back(opt_shape(info));
  for (const std::string& text : shapes) {
    const ShapeArgument argument = parse_shape(text);
    std::vector<int64_t>& shape = sizes[input_index(infos, argument.input)];
    shape.clear();
    for (const kiln_dim& dim : argument.dims) shape.push_back(dim.opt);
  }
  std::vector<Array> inputs;
  for (size_t i = 0; i < infos.size(); ++i)
    inputs.push_back(random_array(infos[i].dtype, sizes[i]));
  return inputs;
}

Timing measure(kiln::Session& session, const std::vector<Array>& inputs,
               const std::vector<Array>& outputs, int warmup, int runs) {
  constexpr double kBudgetUs = 5e5;
  const std::vector<kiln::Tensor> in = as_tensors(inputs), out = as_tensors(outputs);
  std::vector<kiln_tensor> in_views, out_views;
  for (const kiln::Tensor& tensor : in) in_views.push_back(tensor.view());
  for (const kiln::Tensor& tensor : out) out_views.push_back(tensor.view());
  const auto time_once = [&] {
    const auto start = std::chrono::steady_clock::now();
    session.run(in_views, out_views);
    const auto end = std::chrono::steady_clock::now();
    return std::chrono::duration<double, std::micro>(end - start).count();
  };

  double once = time_once();
  for (int i = 1; i < warmup; ++i) once = time_once();
  if (runs == 0) runs = std::clamp(static_cast<int>(kBudgetUs / std::max(once, 1.0)), 10, 10000);
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) times.push_back(time_once());
  std::ranges::sort(times);
  const auto percentile = [&](double p) {
    return times[static_cast<size_t>(p * static_cast<double>(times.size() - 1))];
  };
  return {percentile(0.5), percentile(0.1), percentile(0.9), times.front(), runs};
}

}  // namespace tools
