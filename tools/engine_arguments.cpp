#include "engine_arguments.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <utility>

#include "command_line.h"
#include "failure.h"
#include "shape_argument.h"

namespace tools {
namespace {

std::vector<int64_t> opt_shape(const kiln_tensor_info& info) {
  std::vector<int64_t> shape;
  for (int32_t i = 0; i < info.rank; ++i) shape.push_back(info.dims[i].opt);
  return shape;
}

// "cuda:1" of --device.
struct DeviceName {
  std::string target;  // empty: none was asked for
  int index = 0;
};

DeviceName parse_device(const std::string& text) {
  const size_t colon = text.find(':');
  DeviceName device{text.substr(0, colon), 0};
  bool is_right = text.empty() || device.target == "cpu" || device.target == "cuda";
  if (colon != std::string::npos) {
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data() + colon + 1, end, device.index);
    is_right = device.target == "cuda" && parsed.ec == std::errc() && parsed.ptr == end &&
               device.index >= 0;
  }
  if (!is_right) throw UsageError("--device: got \"" + text + "\", expected cpu, cuda or cuda:N");
  return device;
}

// What --target and --device together say of the program.
std::string wanted_target(const EngineArguments& arguments, const DeviceName& device) {
  const std::string& target = arguments.target;
  if (target.empty() || device.target.empty()) return target.empty() ? device.target : target;
  if (target.substr(0, target.find(':')) != device.target)
    throw UsageError("--target " + target + " does not run on --device " + arguments.device);
  return target;
}

Timing summary(std::vector<double> times) {
  std::ranges::sort(times);
  const auto percentile = [&](double p) {
    return times[static_cast<size_t>(p * static_cast<double>(times.size() - 1))];
  };
  Timing timing;
  timing.median_us = percentile(0.5);
  timing.p10_us = percentile(0.1);
  timing.p90_us = percentile(0.9);
  timing.min_us = times.front();
  timing.runs = static_cast<int>(times.size());
  return timing;
}

// The same, and how long it took.
kiln::Engine load(const EngineArguments& arguments, double& milliseconds) {
  const auto start = std::chrono::steady_clock::now();
  kiln::Engine engine = tools::load(arguments);
  const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
  milliseconds = time.count();
  return engine;
}

}  // namespace

kiln::Engine load(const EngineArguments& arguments) {
  return kiln::Engine::load_file(
      arguments.engine, {.target = wanted_target(arguments, parse_device(arguments.device)),
                         .verify_weights = !arguments.no_verify});
}

RunnableEngine::RunnableEngine(const EngineArguments& arguments)
    : engine(load(arguments, load_ms)),
      session(engine, kiln::SessionOptions{.num_threads = arguments.threads,
                                           .device = parse_device(arguments.device).index}) {
  if (session.device().type == KILN_CUDA) gpu = std::make_unique<Gpu>(session.device().index);
}

kiln::RunOptions run_options(const RunnableEngine& engine) {
  kiln::RunOptions options;
  if (engine.gpu != nullptr) options.stream = engine.gpu->stream();
  return options;
}

void add_engine_options(Command& command, EngineArguments& arguments) {
  command.option("engine", arguments.engine, "The engine file", {.required = true});
  command.option("--threads", arguments.threads, "Threads to run on (default: one per core)",
                 {.number = Number::NonNegative});
  command.option("--target", arguments.target,
                 "The program to run: cpu, cpu:x86-64-v3, cuda (default: the first that this "
                 "machine runs)");
  command.option("--device", arguments.device,
                 "Where to run: cpu, cuda or cuda:N (default: where the program runs)");
  command.flag("--no-verify", arguments.no_verify,
               "Do not check the hash of the weights, which reads all of them");
  command.option("--shape", arguments.shapes, "Sizes of a made-up input: x=8,128");
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

Timing measure(RunnableEngine& engine, std::span<const kiln_tensor> inputs,
               std::span<const kiln_tensor> outputs, int warmup, int runs) {
  constexpr double kBudgetUs = 5e5;
  const kiln::RunOptions options = run_options(engine);
  const auto time_once = [&] {
    const auto start = std::chrono::steady_clock::now();
    engine.session.run(inputs, outputs, options);
    if (engine.gpu != nullptr) engine.session.synchronize();
    const auto end = std::chrono::steady_clock::now();
    return std::chrono::duration<double, std::micro>(end - start).count();
  };

  double once = time_once();
  for (int i = 1; i < warmup; ++i) once = time_once();
  if (runs == 0) runs = std::clamp(static_cast<int>(kBudgetUs / std::max(once, 1.0)), 10, 10000);
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) times.push_back(time_once());
  if (engine.gpu == nullptr) return summary(std::move(times));

  const double waited = summary(std::move(times)).median_us;
  engine.gpu->mark();
  for (int i = 0; i < runs; ++i) {
    engine.session.run(inputs, outputs, options);
    engine.gpu->mark();
  }
  const std::string state = engine.gpu->state();  // most of the runs are on their way
  Timing timing = summary(engine.gpu->take_times());
  engine.session.synchronize();  // what failed in the data
  timing.waited_us = waited;
  timing.gpu_state = state;
  return timing;
}

}  // namespace tools
