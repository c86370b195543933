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
  checks.spec.steps[1].checks = {{"embedding", kiln::engine::CheckKind::Index, 0, 1},
                                 {"fmod", kiln::engine::CheckKind::Nonzero, -1, -1}};
  const bool ok = save(kiln::testing::make_add_engine(), folder + "/add.kiln") &&
                  save(kiln::testing::make_sample_engine(), folder + "/sample.kiln") &&
                  save(checks, folder + "/checks.kiln") && save(many, folder + "/constants.kiln");
  return ok ? 0 : 1;
}
