// kiln inspect: what is in an engine file.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "arrays.h"
#include "commands.h"

namespace tools {
namespace {

using nlohmann::ordered_json;

struct InspectArguments {
  std::string engine;
  bool json = false;
};

std::string text_at(const ordered_json& object, const char* key) {
  const ordered_json& value = object.at(key);
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// "12.3 MB", "456 bytes"; "unknown" for null.
std::string bytes_text(const ordered_json& bytes) {
  if (bytes.is_null()) return "unknown";
  const double count = bytes.get<double>();
  char text[32];
  if (count < 10e3)
    std::snprintf(text, sizeof(text), "%.0f bytes", count);
  else if (count < 10e6)
    std::snprintf(text, sizeof(text), "%.1f kB", count / 1e3);
  else
    std::snprintf(text, sizeof(text), "%.1f MB", count / 1e6);
  return text;
}

void print_tensors(const char* title, const std::vector<kiln_tensor_info>& infos,
                   const ordered_json& described) {
  std::printf("%s\n", title);
  for (size_t i = 0; i < infos.size(); ++i)
    std::printf("  %s: %s  %s\n", infos[i].name, type_text(infos[i]).c_str(),
                text_at(described.at(i), "shape").c_str());
}

void print_memory(const ordered_json& memory) {
  const bool stripped = memory.at("stripped").get<bool>();
  std::printf("memory\n  weights %s\n", stripped ? "stripped: fill them in with kiln refit"
                                                 : bytes_text(memory.at("weights_bytes")).c_str());
  std::printf("  workspace %s at opt, %s at min, %s at max\n",
              bytes_text(memory.at("workspace_bytes_at_opt")).c_str(),
              bytes_text(memory.at("workspace_bytes_at_min")).c_str(),
              bytes_text(memory.at("workspace_bytes_at_max")).c_str());
}

// "cpu:x86-64-v4"
std::string name_text(const ordered_json& program) {
  const std::string variant = text_at(program, "variant");
  return text_at(program, "target") + (variant.empty() ? "" : ":") + variant;
}

void print_programs(const ordered_json& programs) {
  std::printf("programs\n");
  for (const ordered_json& program : programs) {
    std::string needs;
    for (const ordered_json& feature : program.at("needs"))
      needs += " " + feature.get<std::string>();
    std::printf("  %s: %s of code, needs%s (%s)\n", name_text(program).c_str(),
                bytes_text(program.at("code_bytes")).c_str(),
                needs.empty() ? " nothing more" : needs.c_str(),
                program.at("runs_here").get<bool>()
                    ? "runs here"
                    : ("does not run here: " + text_at(program, "obstacle")).c_str());
  }
}

// How many there are of each kind, then each with the values of the model that it computes.
void print_kernels(const ordered_json& kernels) {
  std::map<std::string, int> kinds;
  for (const ordered_json& kernel : kernels) ++kinds[text_at(kernel, "kind")];
  std::printf("kernels: %zu", kernels.size());
  for (const auto& [kind, count] : kinds) std::printf(", %d %s", count, kind.c_str());
  std::printf("\n");
  for (const ordered_json& kernel : kernels) {
    std::string sources;
    for (const ordered_json& source : kernel.at("sources"))
      sources += (sources.empty() ? "" : ", ") + source.get<std::string>();
    std::printf("  %-32s %-12s %s\n", text_at(kernel, "name").c_str(),
                text_at(kernel, "kind").c_str(), sources.c_str());
  }
}

void print_sections(const ordered_json& sections) {
  std::printf("sections\n");
  for (const ordered_json& section : sections)
    std::printf("  %-26s at %-10s %-12s %s\n", text_at(section, "name").c_str(),
                text_at(section, "offset").c_str(), bytes_text(section.at("size")).c_str(),
                text_at(section, "hash").c_str());
}

void print_description(const kiln::Engine& engine, const ordered_json& description) {
  std::printf("engine %s, made by %s, format %s\n", text_at(description, "name").c_str(),
              text_at(description, "producer").c_str(),
              text_at(description, "format_version").c_str());
  std::printf("content %s\n", text_at(description, "content_hash").c_str());
  std::printf("plan %s%s\n", text_at(description, "program_hash").c_str(),
              description.at("refittable").get<bool>() ? ", refittable with any weights" : "");
  print_tensors("inputs", inputs_of(engine), description.at("inputs"));
  print_tensors("outputs", outputs_of(engine), description.at("outputs"));
  print_programs(description.at("programs"));
  std::printf("the program %s %s here\n", name_text(description).c_str(),
              description.at("runs_here").get<bool>() ? "is what runs" : "does not run");
  print_memory(description.at("memory"));
  print_kernels(description.at("kernels"));
  print_sections(description.at("sections"));
}

void inspect(const InspectArguments& arguments) {
  const kiln::Engine engine = kiln::Engine::load_file(arguments.engine, {.describe_only = true});
  const ordered_json description = ordered_json::parse(engine.describe());
  if (arguments.json)
    std::printf("%s\n", description.dump(2).c_str());
  else
    print_description(engine, description);
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto arguments = std::make_shared<InspectArguments>();
  CLI::App* command = app.add_subcommand("inspect", "Show what is in an engine file");
  command->add_option("engine", arguments->engine, "The engine file")->required();
  command->add_flag("--json", arguments->json, "Print JSON");
  command->callback([arguments] { inspect(*arguments); });
}

}  // namespace tools
