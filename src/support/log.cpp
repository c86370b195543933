#include "support/log.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace kiln {
namespace {

constexpr std::array<std::string_view, 5> kNames = {"off", "error", "warn", "info", "debug"};

}  // namespace

LogLevel log_level_from_name(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i)
    if (name == kNames[i]) return static_cast<LogLevel>(i);
  return LogLevel::Off;
}

LogLevel log_level() {
  static const LogLevel kLevel = [] {
    const char* name = std::getenv("KILN_LOG");
    return name == nullptr ? LogLevel::Off : log_level_from_name(name);
  }();
  return kLevel;
}

void log(LogLevel level, std::string_view text) {
  if (!log_enabled(level)) return;
  std::string line = "kiln ";
  line.append(kNames[static_cast<size_t>(level)]).append(": ").append(text).append("\n");
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace kiln
