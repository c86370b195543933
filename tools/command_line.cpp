#include "command_line.h"

#include <CLI/CLI.hpp>
#include <utility>

#include "kiln/kiln.hpp"

namespace tools {
namespace {

void apply(CLI::App& app, CLI::Option& option, const Rules& rules) {
  option.required(rules.required);
  if (rules.number == Number::NonNegative) option.check(CLI::NonNegativeNumber);
  if (rules.number == Number::Positive) option.check(CLI::PositiveNumber);
  if (rules.comma_separated) option.delimiter(',');
  if (rules.excludes != nullptr) option.excludes(app.get_option(rules.excludes));
  if (rules.needs != nullptr) option.needs(app.get_option(rules.needs));
}

}  // namespace

void Command::option(const char* names, std::string& value, const char* text, const Rules& rules) {
  apply(app_, *app_.add_option(names, value, text), rules);
}

void Command::option(const char* names, std::vector<std::string>& values, const char* text,
                     const Rules& rules) {
  apply(app_, *app_.add_option(names, values, text), rules);
}

void Command::option(const char* names, int& value, const char* text, const Rules& rules) {
  apply(app_, *app_.add_option(names, value, text), rules);
}

void Command::option(const char* names, int64_t& value, const char* text, const Rules& rules) {
  apply(app_, *app_.add_option(names, value, text), rules);
}

void Command::flag(const char* names, bool& value, const char* text, const Rules& rules) {
  apply(app_, *app_.add_flag(names, value, text), rules);
}

void Command::kernels_option() {
  kernels_ = std::make_shared<std::vector<std::string>>();
  app_.add_option("--kernels", *kernels_,
                  "A library of kernels for operators that Kiln does not know; may be repeated")
      ->allow_extra_args(false);
}

void Command::action(std::function<void()> run) {
  app_.callback([kernels = kernels_, run = std::move(run)] {
    if (kernels != nullptr)
      for (const std::string& path : *kernels) kiln::load_kernels(path);
    run();
  });
}

CommandLine::CommandLine(const char* description, const char* name, const std::string& version)
    : app_(std::make_unique<CLI::App>(description, name)) {
  app_->set_version_flag("--version", version);
  app_->require_subcommand(1);
  app_->failure_message(CLI::FailureMessage::simple);
}

CommandLine::~CommandLine() = default;

Command CommandLine::add(const char* name, const char* text) {
  return Command(*app_->add_subcommand(name, text));
}

int CommandLine::run(int argc, char** argv) {
  try {
    app_->parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& error) {
    return app_->exit(error) == 0 ? 0 : 2;
  }
}

}  // namespace tools
