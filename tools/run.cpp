// kiln run: an engine on .npy files.
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "command_line.h"
#include "commands.h"
#include "engine_arguments.h"
#include "failure.h"
#include "placed_arrays.h"

namespace tools {
namespace {

struct RunArguments {
  EngineArguments engine;
  std::vector<std::string> inputs, outputs;
  bool random = false;
  int repeat = 0, warmup = 3;
};

// "name=x.npy" or "x.npy"; the latter takes the inputs (or outputs) in their order.
struct FileArgument {
  std::string name, path;
};

FileArgument parse_file(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) return {"", text};
  return {text.substr(0, equals), text.substr(equals + 1)};
}

std::vector<Array> read_inputs(const kiln::Engine& engine, const std::vector<std::string>& files) {
  const std::vector<kiln_tensor_info> infos = inputs_of(engine);
  std::vector<std::optional<Array>> arrays(infos.size());
  size_t position = 0;
  for (const std::string& text : files) {
    const FileArgument file = parse_file(text);
    const size_t index = file.name.empty() ? position++ : input_index(infos, file.name);
    if (index >= infos.size())
      throw UsageError("got " + std::to_string(files.size()) + " inputs, expected " +
                       std::to_string(infos.size()));
    arrays[index] = read_npy(file.path);
  }
  std::vector<Array> inputs;
  for (size_t i = 0; i < infos.size(); ++i) {
    if (!arrays[i])
      throw UsageError("no --input for " + std::string(infos[i].name) + " (" + type_text(infos[i]) +
                       "); --random makes inputs up");
    inputs.push_back(std::move(*arrays[i]));
  }
  return inputs;
}

void write_outputs(const kiln::Engine& engine, const std::vector<Array>& outputs,
                   const std::vector<std::string>& files) {
  const std::vector<kiln_tensor_info> infos = outputs_of(engine);
  size_t position = 0;
  for (const std::string& text : files) {
    const FileArgument file = parse_file(text);
    size_t index = position;
    if (file.name.empty())
      ++position;
    else
      for (index = 0; index < infos.size() && infos[index].name != file.name;) ++index;
    if (index >= infos.size())
      throw UsageError("--output " + text + ": the engine has no such output");
    write_npy(file.path, outputs[index]);
  }
}

void print_shapes(const kiln::Engine& engine, const std::vector<Array>& outputs) {
  const std::vector<kiln_tensor_info> infos = outputs_of(engine);
  for (size_t i = 0; i < outputs.size(); ++i) {
    std::printf("%s: %s[", infos[i].name, dtype_name(outputs[i].dtype));
    for (size_t axis = 0; axis < outputs[i].shape.size(); ++axis)
      std::printf("%s%lld", axis == 0 ? "" : ", ", static_cast<long long>(outputs[i].shape[axis]));
    std::printf("]\n");
  }
}

// What the outputs begin with: their shapes may depend on the data.
std::vector<Array> results_in(const std::vector<Array>& outputs,
                              const std::vector<std::vector<int64_t>>& shapes) {
  std::vector<Array> results = outputs;
  for (size_t i = 0; i < results.size(); ++i) {
    results[i].shape = shapes[i];
    results[i].data.resize(static_cast<size_t>(element_count(shapes[i])) *
                           element_size(results[i].dtype));
  }
  return results;
}

void run_engine(const RunArguments& arguments) {
  RunnableEngine runnable(arguments.engine);
  const kiln::Engine& engine = runnable.engine;
  std::vector<Array> inputs = arguments.random ? random_inputs(engine, arguments.engine.shapes)
                                               : read_inputs(engine, arguments.inputs);
  std::vector<Array> outputs = make_outputs(engine, runnable.session, inputs);
  const PlacedArrays in(inputs, runnable.gpu.get());
  PlacedArrays out(outputs, runnable.gpu.get());
  runnable.session.run(in.tensors(), out.tensors(), run_options(runnable));
  runnable.session.synchronize();
  out.fetch();
  const std::vector<Array> results = results_in(outputs, runnable.session.result_shapes());
  write_outputs(engine, results, arguments.outputs);
  print_shapes(engine, results);
  if (arguments.repeat > 0) {
    const Timing timing =
        measure(runnable, in.views(), out.views(), arguments.warmup, arguments.repeat);
    std::printf("time: median %.1f us, p10 %.1f us, p90 %.1f us over %d runs\n", timing.median_us,
                timing.p10_us, timing.p90_us, timing.runs);
  }
}

}  // namespace

void add_run(CommandLine& line) {
  auto arguments = std::make_shared<RunArguments>();
  Command command = line.add("run", "Run an engine on .npy files");
  add_engine_options(command, arguments->engine);
  command.option("-i,--input", arguments->inputs, "An input: x.npy or name=x.npy");
  command.option("-o,--output", arguments->outputs, "Where an output goes: y.npy or name=y.npy");
  command.flag("--random", arguments->random, "Make the inputs up", {.excludes = "--input"});
  command.option("--repeat", arguments->repeat, "Time this many further runs",
                 {.number = Number::NonNegative});
  command.option("--warmup", arguments->warmup, "Runs before those that are timed",
                 {.number = Number::Positive});
  command.kernels_option();
  command.action([arguments] { run_engine(*arguments); });
}

}  // namespace tools
