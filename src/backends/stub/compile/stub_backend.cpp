// A backend that is as small as one can be, and complete: tests/conformance runs it beside the
// CPU's, and docs/adding_a_backend.md walks through it. Its machine is an interpreter, and all that
// it knows are loop nests. It is in no product.
#include "backends/stub/compile/stub_backend.h"

#include <cstring>

#include "backends/common/generated_kernel.h"
#include "backends/common/parallel.h"
#include "backends/stub/compile/kernel_writer.h"
#include "support/error.h"

namespace kiln {
namespace stub {
namespace {

// No kernel forms but loop nests, and nothing fused that is not free.
const plan::TargetTraits& traits() {
  static const plan::TargetTraits kTraits = {};
  return kTraits;
}

// One, without a name, which needs nothing of the machine.
const std::vector<Variant>& variants() {
  static const std::vector<Variant> kVariants = {{.name = "", .features = {}}};
  return kVariants;
}

class Generator : public KernelGenerator {
 public:
  backend::GeneratedKernel generate(const plan::Program& program,
                                    const plan::Kernel& kernel) override {
    const auto* nest = std::get_if<plan::LoopNest>(&kernel.body);
    KILN_CHECK(nest != nullptr, "the traits of the stub allow loop nests only");
    backend::GeneratedKernel result(program);
    const std::vector<Instruction> code = KernelWriter(program, result.interface).write(*nest);
    result.code.resize(code.size() * sizeof(Instruction));
    std::memcpy(result.code.data(), code.data(), result.code.size());
    return result;
  }
};

std::unique_ptr<KernelGenerator> make_generator(const Variant&, const GeneratorOptions&) {
  return std::make_unique<Generator>();
}

}  // namespace
}  // namespace stub

const Backend& stub_backend() {
  static const Backend kBackend = {.name = "stub",
                                   .traits = stub::traits(),
                                   .variants = stub::variants(),
                                   .make_generator = stub::make_generator,
                                   .run_workers = backend::run_workers,
                                   .derive_constant = nullptr,
                                   .toolchain = nullptr};
  return kBackend;
}

}  // namespace kiln
