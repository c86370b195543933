// The JSON of torch.export's schema, imported into a graph. Weights of the seed's names and shapes
// are there.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "import/import.h"
#include "support/error.h"

namespace {

std::vector<kiln::import::Model::NamedTensor> make_weights() {
  static const std::array<float, 12> zeros{};
  const auto tensor = [](const char* name, std::vector<int64_t> shape, size_t elements) {
    kiln::ir::Literal literal;
    literal.dtype = kiln::DType::F32;
    literal.shape = std::move(shape);
    literal.bytes = std::as_bytes(std::span(zeros).first(elements));
    return kiln::import::Model::NamedTensor{name, literal};
  };
  return {tensor("a.weight", {3, 4}, 12), tensor("a.bias", {3}, 3)};
}

}  // namespace

// Anything but a CompileError is a finding.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const std::string_view json(reinterpret_cast<const char*>(data), size);
    const auto model = kiln::import::Model::open_memory(json, make_weights());
    (void)kiln::import::check_support(*model);
    (void)kiln::import::import_graph(*model);
  } catch (const kiln::CompileError&) {
  }
  return 0;
}
