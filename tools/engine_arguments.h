// What `kiln run` and `kiln bench` share: which engine, on how many threads, with which inputs.
#pragma once

#include <string>
#include <vector>

#include "arrays.h"

namespace CLI {
class App;
}

namespace tools {

struct EngineArguments {
  std::string engine, target;
  int threads = 0;
  bool no_verify = false;
  std::vector<std::string> shapes;  // of made-up inputs
};

kiln::Engine load(const EngineArguments& arguments);

void add_engine_options(CLI::App& command, EngineArguments& arguments);

// Made-up inputs of the given shapes: "x=8,128"; a dimension that is not given has its opt size.
std::vector<Array> random_inputs(const kiln::Engine& engine,
                                 const std::vector<std::string>& shapes);

// Index of the input of that name; Failure lists the names.
size_t input_index(const std::vector<kiln_tensor_info>& inputs, const std::string& name);

struct Timing {
  double median_us = 0, p10_us = 0, p90_us = 0, min_us = 0;
  int runs = 0;
};
// `runs` 0: as many as fit half a second, at least 10.
Timing measure(kiln::Session& session, const std::vector<Array>& inputs,
               const std::vector<Array>& outputs, int warmup, int runs);

}  // namespace tools
