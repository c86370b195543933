// kiln bench: latency of an engine, shape by shape.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "commands.h"
#include "engine_arguments.h"

namespace tools {
namespace {

struct BenchArguments {
  EngineArguments engine;
  int runs = 0, warmup = 3;
};

std::string shape_text(const std::vector<Array>& inputs) {
  std::string text;
  for (const Array& input : inputs) {
    text += text.empty() ? "" : " ";
    for (size_t i = 0; i < input.shape.size(); ++i)
      text += (i == 0 ? "" : "x") + std::to_string(input.shape[i]);
    if (input.shape.empty()) text += "scalar";
  }
  return text;
}

// The shapes to measure: those asked for, "x=1,128" and "x=8,128" being two cases; else the opt
// sizes of the engine.
std::vector<std::vector<std::string>> cases_of(const std::vector<std::string>& shapes) {
  std::vector<std::vector<std::string>> cases;
  for (const std::string& shape : shapes) {
    const std::string name = shape.substr(0, shape.find('='));
    const auto names_input = [&](const std::string& other) {
      return other.substr(0, other.find('=')) == name;
    };
    if (cases.empty() || std::ranges::any_of(cases.back(), names_input)) cases.emplace_back();
    cases.back().push_back(shape);
  }
  if (cases.empty()) cases.emplace_back();
  return cases;
}

void bench(const BenchArguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  EngineArguments unverified = arguments.engine;  // as a program would load it
  unverified.no_verify = true;
  const kiln::Engine engine = load(unverified);
  const std::chrono::duration<double, std::milli> loading =
      std::chrono::steady_clock::now() - start;
  std::printf("loaded in %.2f ms, program %s:%s\n", loading.count(),
              kiln_engine_target(engine.get()), kiln_engine_variant(engine.get()));
  if (!arguments.engine.no_verify) (void)load(arguments.engine);
  std::printf("%-32s %12s %12s %12s %12s %8s\n", "inputs", "median us", "p10 us", "p90 us",
              "min us", "runs");
  kiln::Session session(engine, arguments.engine.threads);
  for (const std::vector<std::string>& shapes : cases_of(arguments.engine.shapes)) {
    const std::vector<Array> inputs = random_inputs(engine, shapes);
    const std::vector<Array> outputs = make_outputs(engine, session, inputs);
    const Timing timing = measure(session, inputs, outputs, arguments.warmup, arguments.runs);
    std::printf("%-32s %12.1f %12.1f %12.1f %12.1f %8d\n", shape_text(inputs).c_str(),
                timing.median_us, timing.p10_us, timing.p90_us, timing.min_us, timing.runs);
  }
}

}  // namespace

void add_bench(CLI::App& app) {
  auto arguments = std::make_shared<BenchArguments>();
  CLI::App* command = app.add_subcommand("bench", "Measure the latency of an engine");
  add_engine_options(*command, arguments->engine);
  command->add_option("--runs", arguments->runs, "Runs per shape (default: half a second's worth)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--warmup", arguments->warmup, "Runs before those that are timed")
      ->check(CLI::PositiveNumber);
  command->callback([arguments] { bench(*arguments); });
}

}  // namespace tools
