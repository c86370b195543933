#include "support/pass_control.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "support/error.h"
#include "support/nearest.h"

namespace kiln {
namespace {

namespace fs = std::filesystem;

}  // namespace

void check_disabled(const std::vector<std::string>& disabled,
                    const std::vector<std::string_view>& existing) {
  for (const std::string& name : disabled) {
    if (std::ranges::find(existing, name) != existing.end()) continue;
    throw CompileError("[passes] got \"" + name +
                       "\", expected the name of a pass; the nearest is \"" +
                       std::string(nearest_name(name, existing)) + "\"");
  }
}

void make_dump_directory(const std::string& path) {
  if (path.empty()) return;
  std::error_code error;
  fs::create_directories(path, error);
  if (error) throw CompileError("[passes] cannot make " + path + ": " + error.message());
}

PassControl::PassControl(const PassOptions& options, const std::vector<std::string_view>& existing)
    : options_(options) {
  check_disabled(options.disabled, existing);
  make_dump_directory(options.dump_directory);
}

bool PassControl::is_disabled(std::string_view pass) const {
  return std::ranges::find(options_.disabled, pass) != options_.disabled.end();
}

void PassControl::verify(const std::string& what, const std::function<void()>& verifier) const {
  if (!options_.verify) return;
  try {
    verifier();
  } catch (const InternalError& error) {
    throw InternalError("after " + what + ": " + error.what());
  }
}

void PassControl::dump(const std::string& prefix, size_t number, const std::string& name,
                       const std::function<std::string()>& text) const {
  if (options_.dump_directory.empty()) return;
  std::array<char, 24> digits;
  std::snprintf(digits.data(), digits.size(), "%03zu_", number);
  const fs::path path = fs::path(options_.dump_directory) / (prefix + digits.data() + name);
  std::ofstream out(path);
  out << text();
  if (!out.flush()) throw CompileError("[passes] cannot write " + path.string());
}

}  // namespace kiln
