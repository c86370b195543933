// kiln bench: latency of an engine, shape by shape.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "command_line.h"
#include "commands.h"
#include "engine_arguments.h"
#include "peaks.h"
#include "placed_arrays.h"
#include "roofline.h"

namespace tools {
namespace {

struct BenchArguments {
  EngineArguments engine;
  int runs = 0, warmup = 3;
  bool roofline = false;
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
  EngineArguments unverified = arguments.engine;  // as a program would load it
  unverified.no_verify = true;
  RunnableEngine runnable(unverified);
  const kiln::Engine& engine = runnable.engine;
  std::printf("loaded in %.2f ms, program %s:%s\n", runnable.load_ms,
              kiln_engine_target(engine.get()), kiln_engine_variant(engine.get()));
  if (!arguments.engine.no_verify) (void)load(arguments.engine);
  const bool is_gpu = runnable.gpu != nullptr;
  if (is_gpu) std::printf("on %s\n", runnable.gpu->name().c_str());
  Peaks peaks;
  if (arguments.roofline) {
    peaks = is_gpu ? peaks_of(*runnable.gpu)
                   : measure_cpu(kiln_engine_variant(engine.get()), runnable.session.num_threads());
    print_peaks(peaks, !is_gpu);
  }
  std::printf("%-32s %12s %12s %12s %12s %8s%s\n", "inputs", "median us", "p10 us", "p90 us",
              "min us", "runs", is_gpu ? "    waited us" : "");
  for (const std::vector<std::string>& shapes : cases_of(arguments.engine.shapes)) {
    std::vector<Array> inputs = random_inputs(engine, shapes);
    std::vector<Array> outputs = make_outputs(engine, runnable.session, inputs);
    const PlacedArrays in(inputs, runnable.gpu.get()), out(outputs, runnable.gpu.get());
    const Timing timing =
        measure(runnable, in.views(), out.views(), arguments.warmup, arguments.runs);
    std::printf("%-32s %12.1f %12.1f %12.1f %12.1f %8d", shape_text(inputs).c_str(),
                timing.median_us, timing.p10_us, timing.p90_us, timing.min_us, timing.runs);
    if (is_gpu) std::printf(" %12.1f", timing.waited_us);
    std::printf("\n");
    if (!timing.gpu_state.empty()) std::printf("  %s\n", timing.gpu_state.c_str());
    if (arguments.roofline) print_roofline(runnable, in.views(), out.views(), peaks);
  }
}

}  // namespace

void add_bench(CommandLine& line) {
  auto arguments = std::make_shared<BenchArguments>();
  Command command = line.add("bench", "Measure the latency of an engine");
  add_engine_options(command, arguments->engine);
  command.option("--runs", arguments->runs, "Runs per shape (default: half a second's worth)",
                 {.number = Number::NonNegative});
  command.option("--warmup", arguments->warmup, "Runs before those that are timed",
                 {.number = Number::Positive});
  command.flag("--roofline", arguments->roofline,
               "Show each kernel's time beside what the machine could do");
  command.kernels_option();
  command.action([arguments] { bench(*arguments); });
}

}  // namespace tools
