// The text of kernels: nests/*.txt. KILN_REGENERATE=1 rewrites the expectations.
#include <gtest/gtest.h>

#include <algorithm>

#include "cuda/kernels.h"
#include "helpers/golden.h"
#include "helpers/random_values.h"

namespace kiln::test {
namespace {

// The kernels of a graph without what is in front of each of them.
std::string texts(const std::vector<std::string>& targets, const std::string& graph) {
  const plan::Program program = plan_for_cuda(
      graph_with_constants(graph, {}, [](const ir::SymbolPtr& symbol) { return symbol->opt; }));
  std::string result;
  for (const cuda::KernelText& kernel : kernel_texts(program, target_named(targets.at(0)))) {
    const auto& interface = kernel.kernel.interface;
    const size_t body = kernel.text.find("DEVICE void body(");
    const size_t entry = kernel.text.find("extern \"C\"");
    result += kernel.text.substr(std::min(body, entry));
    result +=
        "grid " + interface.grid.at(0).str() + ", block " + interface.block.at(0).str() + "\n";
  }
  return result;
}

class CudaGolden : public testing::TestWithParam<std::string> {};

TEST_P(CudaGolden, Matches) { expect_golden(GetParam(), texts); }

INSTANTIATE_TEST_SUITE_P(Nests, CudaGolden, testing::ValuesIn(golden_files(KILN_TEST_DATA)),
                         golden_name);

}  // namespace
}  // namespace kiln::test
