// kiln inspect: what is in an engine file.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "api.h"
#include "commands.h"

namespace tools {
namespace {

using nlohmann::ordered_json;

struct InspectArguments {
  std::string engine;
  bool json = false;
};

std::string scalar_text(const ordered_json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// One object on one line: "name: weights, offset: 4096, ..."
std::string object_text(const ordered_json& object) {
  std::string text;
  for (const auto& [key, value] : object.items())
    text += (text.empty() ? "" : ", ") + key + " " + scalar_text(value);
  return text;
}

// The library's description, one line for each fact.
void print_description(const ordered_json& description) {
  for (const auto& [key, value] : description.items()) {
    if (key == "inputs" || key == "outputs") continue;
    if (!value.is_array() && !value.is_object()) {
      std::printf("%s: %s\n", key.c_str(), scalar_text(value).c_str());
      continue;
    }
    if (value.is_object()) {
      std::printf("%s: %s\n", key.c_str(), object_text(value).c_str());
      continue;
    }
    std::printf("%s: %zu\n", key.c_str(), value.size());
    for (const ordered_json& item : value)
      std::printf("  %s\n", (item.is_object() ? object_text(item) : scalar_text(item)).c_str());
  }
}

void print_tensors(const char* title, const std::vector<kiln_tensor_info>& infos) {
  std::printf("%s: %zu\n", title, infos.size());
  for (const kiln_tensor_info& info : infos)
    std::printf("  %s: %s\n", info.name, type_text(info).c_str());
}

void inspect(const InspectArguments& arguments) {
  const Engine engine = load_engine(arguments.engine, "");
  kiln_bytes* bytes = nullptr;
  check(kiln_engine_describe(engine.get(), &bytes));
  const ordered_json description = ordered_json::parse(text_of(Bytes(bytes)));
  if (arguments.json) {
    std::printf("%s\n", description.dump(2).c_str());
    return;
  }
  print_tensors("inputs", inputs_of(engine));
  print_tensors("outputs", outputs_of(engine));
  print_description(description);
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
