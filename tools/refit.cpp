// kiln refit: an engine with the weights of another model of the same structure.
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "command_line.h"
#include "commands.h"
#include "failure.h"
#include "kiln/kiln.hpp"

namespace tools {
namespace {

struct RefitArguments {
  std::string engine, model, output;
  int threads = 0;
};

std::vector<char> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Failure("cannot open " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

void refit(const RefitArguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<char> engine = read_file(arguments.engine);
  const kiln::Model model = kiln::Model::open_file(arguments.model);
  kiln_compile_options options{};
  options.struct_size = sizeof(options);
  options.num_threads = arguments.threads;
  model.refit_to_file(std::as_bytes(std::span(engine)), arguments.output, &options);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf("%s: %.1f MB, refitted in %.1f s\n", arguments.output.c_str(),
              static_cast<double>(std::filesystem::file_size(arguments.output)) / 1e6,
              seconds.count());
}

}  // namespace

void add_refit(CommandLine& line) {
  auto arguments = std::make_shared<RefitArguments>();
  Command command = line.add("refit", "Give an engine the weights of another model");
  command.option("engine", arguments->engine, "The engine file", {.required = true});
  command.option("model", arguments->model, "The archive (.pt2) with the new weights",
                 {.required = true});
  command.option("-o,--output", arguments->output, "The engine file to write", {.required = true});
  command.option("--threads", arguments->threads, "Threads to use (default: one per core)",
                 {.number = Number::NonNegative});
  command.kernels_option();
  command.action([arguments] { refit(*arguments); });
}

}  // namespace tools
