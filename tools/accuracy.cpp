// kiln accuracy: how far an engine's results are from those of the model in floats.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "command_line.h"
#include "commands.h"
#include "engine_arguments.h"
#include "failure.h"
#include "quantise_arguments.h"
#include "shape_argument.h"

namespace tools {
namespace {

struct AccuracyArguments {
  std::string model, other;
  std::vector<std::string> inputs, shapes;
  bool random = false, layers = false, json = false;
  int threads = 0;
  QuantiseArguments quantise;
};

// The bytes of an engine file, or of the engine that is made of a model.
std::vector<std::byte> other_engine(const std::string& path, const kiln_compile_options& options) {
  if (path.empty()) return {};
  const std::string file = read_file(path);
  if (file.starts_with("KILNENG")) {
    const auto bytes = std::as_bytes(std::span(file));
    return {bytes.begin(), bytes.end()};
  }
  const kiln::Bytes made = kiln::Model::open_file(path).compile(&options);
  return {made.span().begin(), made.span().end()};
}

SampleSets made_up(const kiln::Model& model, const AccuracyArguments& arguments,
                   const kiln_compile_options& options) {
  const kiln::Bytes bytes = model.compile(&options);
  const kiln::Engine engine = kiln::Engine::load_memory(bytes.span());
  std::vector<std::string> names;
  for (const kiln_tensor_info& info : inputs_of(engine)) names.emplace_back(info.name);
  return {std::move(names), random_inputs(engine, arguments.shapes)};
}

void print_row(const nlohmann::json& row, const char* note) {
  const nlohmann::json& error = row["relative_error"];
  std::printf("  %-32s %10.2e %10.2e %12.8f%s%s\n", row["name"].get<std::string>().c_str(),
              error.is_null() ? HUGE_VAL : error.get<double>(), row["worst"].get<double>(),
              row["cosine"].get<double>(), row["not_finite"].get<bool>() ? "  not finite" : "",
              note);
}

void print_report(const std::string& text) {
  const auto report = nlohmann::json::parse(text);
  std::printf("%zu sets of inputs\n\n  %-32s %10s %10s %12s\n", report["sets"].get<size_t>(),
              "output", "error", "worst", "cosine");
  for (const auto& row : report["outputs"]) print_row(row, "");
  std::vector<nlohmann::json> layers = report["layers"];
  if (layers.empty()) return;
  const auto error = [](const nlohmann::json& row) {
    return row["relative_error"].is_null() ? HUGE_VAL : row["relative_error"].get<double>();
  };
  double squares = 0;
  for (const auto& row : layers) squares += error(row) * error(row);
  std::ranges::stable_sort(layers,
                           [&](const auto& a, const auto& b) { return error(a) > error(b); });
  std::printf("\n  %-32s %10s %10s %12s   share\n", "layer, if it alone is quantised", "error",
              "worst", "cosine");
  for (const auto& row : layers) {
    const double share = squares == 0 ? 0 : 100 * error(row) * error(row) / squares;
    char note[128];
    std::snprintf(note, sizeof(note), "  %4.1f %%  %s", share,
                  row["location"].get<std::string>().c_str());
    print_row(row, note);
  }
}

void accuracy(const AccuracyArguments& arguments) {
  const bool quantises = !arguments.quantise.scheme.empty();
  if (arguments.other.empty() != quantises)
    throw UsageError("expected an engine or a model to compare with, or --quantize");
  if (arguments.inputs.empty() && !arguments.random)
    throw UsageError("no --inputs; --random makes a set of inputs up");
  const kiln::Model model = kiln::Model::open_file(arguments.model);
  kiln_compile_options options{};
  options.struct_size = sizeof(options);
  options.num_threads = arguments.threads;
  SampleSets sets =
      arguments.random ? made_up(model, arguments, options) : SampleSets(arguments.inputs);
  const std::vector<std::byte> engine = other_engine(arguments.other, options);
  QuantiseOptions quantise(arguments.quantise);
  quantise.set(options);
  const std::string text = model.accuracy(sets.view(), &options, engine, arguments.layers);
  if (arguments.json)
    std::printf("%s\n", text.c_str());
  else
    print_report(text);
}

}  // namespace

void add_accuracy(CommandLine& line) {
  auto arguments = std::make_shared<AccuracyArguments>();
  Command command =
      line.add("accuracy", "Compare an engine's results with those of its model in floats");
  command.option("model", arguments->model, "The archive (.pt2) or ONNX model", {.required = true});
  command.option("other", arguments->other,
                 "An engine, or a model whose engine it is compared with");
  command.option(
      "--inputs", arguments->inputs,
      "Sets of inputs: .npz files with arrays by the names of the inputs, or folders of them");
  command.flag("--random", arguments->random, "Make a set of inputs up", {.excludes = "--inputs"});
  command.option("--shape", arguments->shapes, "Sizes of a made-up input: x=8,128");
  add_quantise_options(command, arguments->quantise);
  command.flag("--layers", arguments->layers,
               "Quantise each layer alone, to find those that cost the most",
               {.needs = "--quantize"});
  command.flag("--json", arguments->json, "Print JSON");
  command.option("--threads", arguments->threads, "Threads to use (default: one per core)",
                 {.number = Number::NonNegative});
  command.kernels_option();
  command.action([arguments] { accuracy(*arguments); });
}

}  // namespace tools
