// Messages to stderr for people who debug. Off unless the environment variable KILN_LOG is error,
// warn, info or debug.
#pragma once

#include <string_view>

namespace kiln {

enum class LogLevel : int { Off = 0, Error = 1, Warn = 2, Info = 3, Debug = 4 };

// Off for unknown names.
LogLevel log_level_from_name(std::string_view name);
// Read from the environment once.
LogLevel log_level();
inline bool log_enabled(LogLevel level) { return level <= log_level(); }
// One line, written whole: "kiln info: text".
void log(LogLevel level, std::string_view text);

}  // namespace kiln
