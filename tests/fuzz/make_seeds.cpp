// Writes the seeds of the engine fuzzer: engines that are sound. Usage: make_seeds <folder>
#include <cstdio>
#include <string>

#include "engine/sample_engine.h"
#include "engine/writer.h"

namespace {

bool save(const kiln::testing::SampleEngine& sample, const std::string& path) {
  const kiln::Status status = kiln::engine::write_file(sample.spec, sample.constants(), path);
  if (!status.ok()) std::fprintf(stderr, "make_seeds: %s\n", status.message().c_str());
  return status.ok();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_seeds <folder>\n");
    return 2;
  }
  const std::string folder = argv[1];
  kiln::testing::SampleEngine many = kiln::testing::make_sample_engine();
  kiln::testing::add_constant(many, std::vector<std::byte>(300, std::byte{1}));
  kiln::testing::add_constant(many, std::vector<std::byte>(300, std::byte{1}));
  kiln::testing::SampleEngine checks = kiln::testing::make_sample_engine();
  for (auto& program : checks.spec.programs)
    program.steps[1].checks = {{"embedding", kiln::engine::CheckKind::Index, 0, 1},
                               {"fmod", kiln::engine::CheckKind::Nonzero, -1, -1}};
  const kiln::testing::SampleEngine made = kiln::testing::make_winograd_engine();
  kiln::testing::SampleEngine foreign = kiln::testing::make_sample_engine();
  kiln::testing::add_program(foreign, 1, kiln::testing::foreign_program());
  kiln::testing::SampleEngine steps = kiln::testing::make_add_engine();
  for (auto& program : steps.spec.programs) {
    program.sizes = {{kiln::engine::SizeOp::Add, 0, 3, 0}};
    program.kernels[0].function = "add";
    program.steps.push_back(program.steps[0]);
    program.steps[0].kind = kiln::engine::StepKind::Launch;
    program.steps[0].launch = {{0, 1, 5}, {1}, 4};
    program.steps[1].kind = kiln::engine::StepKind::Call;
  }
  kiln::testing::SampleEngine single = kiln::testing::make_sample_engine();
  kiln::testing::remove_program(single, 0);
  const bool ok = save(kiln::testing::make_add_engine(), folder + "/add.kiln") &&
                  save(kiln::testing::make_sample_engine(), folder + "/sample.kiln") &&
                  save(checks, folder + "/checks.kiln") &&
                  save(foreign, folder + "/foreign.kiln") && save(steps, folder + "/steps.kiln") &&
                  save(single, folder + "/single.kiln") && save(made, folder + "/made.kiln") &&
                  save(many, folder + "/constants.kiln");
  return ok ? 0 : 1;
}
