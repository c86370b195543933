// kiln ops: what can be compiled.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "command_line.h"
#include "commands.h"
#include "failure.h"
#include "kiln/kiln.hpp"

namespace tools {
namespace {

struct OpsArguments {
  std::string model;
  bool json = false;
};

void print_supported(bool as_json) {
  kiln_bytes* bytes = nullptr;
  kiln::check(kiln_supported_ops(&bytes));
  const auto ops = nlohmann::ordered_json::parse(kiln::Bytes(bytes).text());
  if (as_json) {
    std::printf("%s\n", ops.dump(2).c_str());
    return;
  }
  for (const auto& target : ops["aten"]) std::printf("%s\n", target.get<std::string>().c_str());
}

// What of one model cannot be compiled; a Failure if anything.
void check_model(const OpsArguments& arguments) {
  const kiln::Model model = kiln::Model::open_file(arguments.model);
  const auto report = nlohmann::ordered_json::parse(model.check_support());
  size_t unsupported = 0;
  for (const auto& node : report["nodes"])
    if (!node["supported"].get<bool>()) {
      ++unsupported;
      if (!arguments.json)
        std::printf("%s: %s: %s\n", node["name"].get<std::string>().c_str(),
                    node["target"].get<std::string>().c_str(),
                    node["reason"].get<std::string>().c_str());
    }
  if (arguments.json) std::printf("%s\n", report.dump(2).c_str());
  if (unsupported > 0)
    throw Failure(std::to_string(unsupported) + " of " + std::to_string(report["nodes"].size()) +
                  " nodes of " + arguments.model + " cannot be compiled");
  if (!arguments.json)
    std::printf("all %zu nodes of %s can be compiled\n", report["nodes"].size(),
                arguments.model.c_str());
}

}  // namespace

void add_ops(CommandLine& line) {
  auto arguments = std::make_shared<OpsArguments>();
  Command command = line.add("ops", "List the operators that can be compiled");
  command.option("model", arguments->model, "A .pt2 archive: list what in it cannot be compiled");
  command.flag("--json", arguments->json, "Print JSON");
  command.kernels_option();
  command.action([arguments] {
    if (arguments->model.empty())
      print_supported(arguments->json);
    else
      check_model(*arguments);
  });
}

}  // namespace tools
