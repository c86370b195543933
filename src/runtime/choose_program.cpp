#include "runtime/choose_program.h"

#include <algorithm>

#include "engine/validate.h"
#include "runtime/devices.h"

namespace kiln::runtime {
namespace {

using engine::ProgramSpec;
using engine::Spec;

void append(std::string& list, const std::string& item) {
  list.append(list.empty() ? "" : ", ").append(item);
}

Status unknown_name(const Spec& spec, const ProgramName& wanted) {
  std::string names;
  for (const ProgramSpec& program : spec.programs) append(names, program.name());
  const std::string separator = wanted.target.empty() || wanted.variant.empty() ? "" : ":";
  return Status(StatusCode::InvalidArgument, "got the program \"" + wanted.target + separator +
                                                 wanted.variant + "\", expected one of " + names);
}

std::string unknown_text(const std::string& what) {
  return "this version of Kiln does not know " + what;
}

}  // namespace

Status check_name(const Spec& spec, const ProgramName& wanted) {
  const auto fits = [&](const ProgramSpec& program) { return wanted.fits(program); };
  return std::ranges::any_of(spec.programs, fits) ? Status() : unknown_name(spec, wanted);
}

std::string obstacle_to(const ProgramSpec& program) {
  if (!program.unknown.empty()) return unknown_text(program.unknown);
  const std::string unknown = engine::unknown_of_head(program);
  if (!unknown.empty()) return unknown_text(unknown);
  const Result<const Device*> device = find_device(program.target);
  return device.ok() ? (*device)->obstacle(program) : device.status().message();
}

bool runs_slowly(const ProgramSpec& program) {
  if (!obstacle_to(program).empty()) return false;
  const Device* device = *find_device(program.target);  // it had no obstacle
  return device->runs_slowly != nullptr && device->runs_slowly(program);
}

Result<ChosenProgram> load_program(engine::View& view, const ProgramName& wanted,
                                   LoadRequest request) {
  KILN_RETURN_IF_ERROR(check_name(view.spec, wanted));
  std::string obstacles;
  for (const bool slow : {false, true}) {
    for (size_t i = 0; i < view.spec.programs.size(); ++i) {
      const ProgramSpec& program = view.spec.programs[i];
      if (!wanted.fits(program) || runs_slowly(program) != slow) continue;
      std::string obstacle = obstacle_to(program);
      if (obstacle.empty()) {
        KILN_RETURN_IF_ERROR(engine::read_program(view, i));
        obstacle = obstacle_to(program);
      }
      if (obstacle.empty()) {
        request.program = &program;
        const Device* device = *find_device(program.target);  // it had no obstacle
        Result<std::unique_ptr<Executable>> loaded = device->load(request);
        if (loaded.ok()) return ChosenProgram{i, device, std::move(*loaded)};
        if (loaded.status().code() != StatusCode::Unsupported) return loaded.status();
        obstacle = loaded.status().message();
      }
      append(obstacles, program.name() + " (" + obstacle + ")");
    }
  }
  return Status(StatusCode::Unsupported,
                "this machine runs no program of the engine: " + obstacles);
}

}  // namespace kiln::runtime
