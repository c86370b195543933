// Subcommands with their options. The parser is behind it, in one file: its headers take longer to compile than all
// the rest of the command.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace tools {

enum class Number { Any, NonNegative, Positive };

// What an option has besides a name.
struct Rules {
  bool required = false;
  Number number = Number::Any;  // of options with a number
  bool comma_separated = false;
  const char* excludes = nullptr;  // another option of the subcommand
  const char* needs = nullptr;     // another option of the subcommand
};

// One subcommand. Values have to live until the command line was parsed. Names are "--name",
// "-n,--name", or "name" for one that stands alone.
class Command {
 public:
  explicit Command(CLI::App& app) : app_(app) {}

  void option(const char* names, std::string& value, const char* text, const Rules& rules = {});
  void option(const char* names, std::vector<std::string>& values, const char* text,
              const Rules& rules = {});
  void option(const char* names, int& value, const char* text, const Rules& rules = {});
  void option(const char* names, int64_t& value, const char* text, const Rules& rules = {});
  void flag(const char* names, bool& value, const char* text, const Rules& rules = {});
  // --kernels: libraries that are loaded before the action.
  void kernels_option();
  // What the subcommand does, called when it was parsed.
  void action(std::function<void()> run);

 private:
  CLI::App& app_;
  std::shared_ptr<std::vector<std::string>> kernels_;
};

class CommandLine {
 public:
  CommandLine(const char* description, const char* name, const std::string& version);
  ~CommandLine();

  Command add(const char* name, const char* text);
  // Runs what was asked for. 0, or 2 for wrong usage, which was printed; what an action throws.
  int run(int argc, char** argv);

 private:
  std::unique_ptr<CLI::App> app_;
};

}  // namespace tools
