// kiln refit: an engine with the weights of another model of the same structure.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

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

// Beside its final place and renamed, so that the engine that is refitted may be the output.
void write_file(const std::string& path, std::span<const std::byte> bytes) {
  const std::string temporary = path + ".tmp";
  std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  file.close();
  std::error_code error;
  if (file) std::filesystem::rename(temporary, path, error);
  if (file && !error) return;
  std::filesystem::remove(temporary, error);
  throw Failure("cannot write " + path);
}

void refit(const RefitArguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<char> engine = read_file(arguments.engine);
  const kiln::Model model = kiln::Model::open_file(arguments.model);
  kiln_compile_options options{};
  options.struct_size = sizeof(options);
  options.num_threads = arguments.threads;
  const kiln::Bytes result = model.refit(std::as_bytes(std::span(engine)), &options);
  write_file(arguments.output, result.span());
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf("%s: %.1f MB, refitted in %.1f s\n", arguments.output.c_str(),
              static_cast<double>(result.span().size()) / 1e6, seconds.count());
}

}  // namespace

void add_refit(CLI::App& app) {
  auto arguments = std::make_shared<RefitArguments>();
  CLI::App* command = app.add_subcommand("refit", "Give an engine the weights of another model");
  command->add_option("engine", arguments->engine, "The engine file")->required();
  command->add_option("model", arguments->model, "The archive (.pt2) with the new weights")
      ->required();
  command->add_option("-o,--output", arguments->output, "The engine file to write")->required();
  command->add_option("--threads", arguments->threads, "Threads to use (default: one per core)")
      ->check(CLI::NonNegativeNumber);
  command->callback([arguments] { refit(*arguments); });
}

}  // namespace tools
