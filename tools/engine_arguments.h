// What `kiln run` and `kiln bench` share: which engine, on which device, with which inputs.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "arrays.h"
#include "gpu.h"

namespace tools {

class Command;

struct EngineArguments {
  std::string engine, target, device;
  int threads = 0;
  bool no_verify = false;
  std::vector<std::string> shapes;  // of made-up inputs
};

kiln::Engine load(const EngineArguments& arguments);

// An engine that is ready to run.
struct RunnableEngine {
  // Failure and kiln::Error where it does not run here; UsageError for a target and a device that do not go
  // together.
  explicit RunnableEngine(const EngineArguments& arguments);

  double load_ms = 0;  // what loading the engine took
  kiln::Engine engine;
  std::unique_ptr<Gpu> gpu;  // null: it runs on the CPU
  kiln::Session session;
};

// On the GPU's stream, if it has one.
kiln::RunOptions run_options(const RunnableEngine& engine);

void add_engine_options(Command& command, EngineArguments& arguments);

// Made-up inputs of the given shapes: "x=8,128"; a dimension that is not given has its opt size.
std::vector<Array> random_inputs(const kiln::Engine& engine,
                                 const std::vector<std::string>& shapes);

// Index of the input of that name; Failure lists the names.
size_t input_index(const std::vector<kiln_tensor_info>& inputs, const std::string& name);

// On a GPU: of runs that are queued one behind another, by events in the stream.
struct Timing {
  double median_us = 0, p10_us = 0, p90_us = 0, min_us = 0;
  int runs = 0;
  // On a GPU: the median of runs that are waited for one by one, and its state while it was busy.
  double waited_us = 0;
  std::string gpu_state;
};
// `runs` 0: as many as fit half a second, at least 10.
Timing measure(RunnableEngine& engine, std::span<const kiln_tensor> inputs,
               std::span<const kiln_tensor> outputs, int warmup, int runs);

}  // namespace tools
