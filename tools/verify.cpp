// kiln verify: whether a file is as it was written.
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

using nlohmann::ordered_json;

ordered_json verify_file(const std::string& path) {
  kiln_bytes* json = nullptr;
  kiln::check(kiln_verify_file(path.c_str(), &json));
  return ordered_json::parse(kiln::Bytes(json).text());
}

void verify(const std::string& path) {
  const ordered_json report = verify_file(path);
  for (const ordered_json& problem : report.at("problems")) {
    const auto offset = problem.at("offset").get<uint64_t>();
    const auto size = problem.at("size").get<uint64_t>();
    std::printf("%s: bytes %llu to %llu: %s\n", problem.at("where").get<std::string>().c_str(),
                static_cast<unsigned long long>(offset),
                static_cast<unsigned long long>(size == 0 ? offset : offset + size - 1),
                problem.at("what").get<std::string>().c_str());
  }
  if (!report.at("sound").get<bool>()) throw Failure(path + " is damaged");
  const size_t engines = report.at("engines").size();
  std::printf("%s: sound, %zu engine%s", path.c_str(), engines, engines == 1 ? "" : "s");
  const size_t unchecked = report.at("unchecked").size();
  if (unchecked > 0) std::printf(" (%zu compressed entries are not checked)", unchecked);
  std::printf("\n");
}

}  // namespace

void add_verify(CommandLine& line) {
  auto path = std::make_shared<std::string>();
  Command command = line.add("verify", "Check every byte of an engine or a saved model");
  command.option("file", *path, "An engine, or a saved model (.ep, .ts, .pt2)", {.required = true});
  command.action([path] { verify(*path); });
}

}  // namespace tools
