// Every case of the conformance suite as kernels for GPUs: they compile, for each generation, and no
// register spills. What they compute is a matter of the conformance suite itself, on a GPU.
#include <gtest/gtest.h>

#include "backends/cuda/compile/nvrtc.h"
#include "conformance/cases.h"
#include "cuda/kernels.h"

namespace kiln::test {
namespace {

struct Job {
  conformance::Case test;
  size_t number = 0;
};

std::ostream& operator<<(std::ostream& out, const Job& job) { return out << job.test.name; }

std::vector<Job> all_jobs() {
  std::vector<Job> jobs;
  for (const conformance::Case& test : conformance::cases_for_gpus())
    jobs.push_back({test, jobs.size()});
  return jobs;
}

class CudaCase : public testing::TestWithParam<Job> {};

// The generations take turns; the texts of the nests are the same for all of them.
TEST_P(CudaCase, CompilesWithoutSpills) {
  if (const std::string obstacle = cuda::nvrtc_obstacle(); !obstacle.empty())
    GTEST_SKIP() << obstacle;
  const auto& [test, number] = GetParam();
  const cuda::Target& target = cuda::all_targets()[number % cuda::all_targets().size()];
  const plan::Program program = plan_for_cuda(conformance::make_graph(test), 0, target.name);
  for (const cuda::KernelText& kernel : kernel_texts(program, target)) {
    const std::string problem = problem_of(kernel.text, target);
    EXPECT_EQ(problem, "") << target.name << "\n" << kernel.text.substr(kernel.text.find("extern"));
  }
}

INSTANTIATE_TEST_SUITE_P(All, CudaCase, testing::ValuesIn(all_jobs()),
                         [](const testing::TestParamInfo<Job>& info) {
                           return info.param.test.name;
                         });

}  // namespace
}  // namespace kiln::test
