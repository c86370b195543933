#include "runtime/workspace.h"

#include <gtest/gtest.h>

#include <random>

#include "support/aligned_buffer.h"

namespace kiln::runtime {
namespace {

using engine::BufferKind;
using engine::BufferSpec;
using engine::ProgramSpec;

struct Temporary {
  int64_t bytes;
  int32_t first, last;
  int32_t alias_of = -1;
};

// One size slot per buffer.
struct Problem {
  ProgramSpec program;
  std::vector<int64_t> sizes;

  explicit Problem(const std::vector<Temporary>& temporaries) {
    for (const Temporary& temporary : temporaries) {
      BufferSpec buffer;
      buffer.bytes = static_cast<engine::Slot>(sizes.size());
      buffer.first_step = temporary.first;
      buffer.last_step = temporary.last;
      buffer.alias_of = temporary.alias_of;
      program.buffers.push_back(buffer);
      sizes.push_back(temporary.bytes);
    }
  }
  WorkspacePlan plan() const {
    auto result = plan_workspace(program, sizes);
    EXPECT_TRUE(result.ok());
    return *result;
  }
};

TEST(Workspace, SharesMemoryOverTime) {
  const WorkspacePlan plan = Problem({{100, 0, 1}, {100, 1, 2}, {100, 2, 3}}).plan();
  EXPECT_EQ(plan.size, 256u);
  EXPECT_EQ(plan.offsets[0], plan.offsets[2]);
  EXPECT_NE(plan.offsets[0], plan.offsets[1]);
}

TEST(Workspace, UsesTheSmallestGap) {
  // Two gaps at step 2 between blocks that stay: 256 bytes where 0 was, 64 bytes where 2 was.
  const WorkspacePlan plan =
      Problem({{512, 0, 9}, {256, 0, 1}, {192, 0, 9}, {64, 0, 1}, {128, 0, 9}, {64, 2, 3}}).plan();
  EXPECT_EQ(plan.size, 512u + 256u + 192u + 128u + 64u);
  EXPECT_TRUE(plan.offsets[5] == plan.offsets[3] || plan.offsets[5] == plan.offsets[1]);
}

TEST(Workspace, AliasesShareMemoryAndTime) {
  const WorkspacePlan plan =
      Problem({{64, 0, 1}, {640, 1, 3, 0}, {64, 2, 3, 1}, {64, 3, 4}}).plan();
  EXPECT_EQ(plan.offsets[0], plan.offsets[1]);
  EXPECT_EQ(plan.offsets[0], plan.offsets[2]);
  EXPECT_NE(plan.offsets[0], plan.offsets[3]);
  EXPECT_EQ(plan.size, 640u + 64u);
}

TEST(Workspace, MayBeEmpty) {
  EXPECT_EQ(Problem({}).plan().size, 0u);
  EXPECT_EQ(Problem({{0, 0, 5}}).plan().size, 0u);
}

TEST(Workspace, RefusesWhatNoMachineHas) {
  const Problem problem({{int64_t{1} << 46, 0, 1}, {int64_t{1} << 46, 0, 1}});
  EXPECT_EQ(plan_workspace(problem.program, problem.sizes).status().code(),
            StatusCode::OutOfMemory);
}

// Work grows with the number of temporaries and no faster, whatever a file asks for: all live at
// once, one after another, and aliases of each other in either direction.
TEST(Workspace, ManyTemporariesAreLittleWork) {
  constexpr int32_t kMany = 100000;
  std::vector<std::vector<Temporary>> problems(4);
  for (int32_t i = 0; i < kMany; ++i) {
    problems[0].push_back({64 + i % 7 * 64, 0, kMany});
    problems[1].push_back({64 + i % 7 * 64, i, i + 3});
    problems[2].push_back({64, i, i, i - 1});
    problems[3].push_back({64, i, i, i + 1 == kMany ? -1 : i + 1});
  }
  for (const std::vector<Temporary>& temporaries : problems) {
    const WorkspacePlan plan = Problem(temporaries).plan();
    EXPECT_LE(plan.visits, 4u * kMany);
    EXPECT_EQ(plan.offsets.size(), static_cast<size_t>(kMany));
  }
  EXPECT_EQ(Problem(problems[2]).plan().size, 64u);
  EXPECT_EQ(Problem(problems[3]).plan().size, 64u);
  EXPECT_LE(Problem(problems[1]).plan().size, 4u * 448 * 3);
  std::vector<Temporary> most(kMostPlacedBySize, {64, 0, 1});
  EXPECT_LE(Problem(most).plan().visits, kMostPlacedBySize * kMostPlacedBySize);
}

TEST(Workspace, LiveBuffersNeverOverlap) {
  std::mt19937 random(1);
  const auto below = [&](uint32_t limit) { return static_cast<int64_t>(random() % limit); };
  for (int round = 0; round < 51; ++round) {
    std::vector<Temporary> temporaries;
    const int count = round < 50 ? 60 : static_cast<int>(kMostPlacedBySize) + 500;
    for (int i = 0; i < count; ++i) {
      const auto first = static_cast<int32_t>(below(40));
      temporaries.push_back({below(5000), first, first + static_cast<int32_t>(below(8)), -1});
    }
    const WorkspacePlan plan = Problem(temporaries).plan();
    for (size_t i = 0; i < temporaries.size(); ++i) {
      const Temporary& a = temporaries[i];
      const uint64_t a_end = plan.offsets[i] + static_cast<uint64_t>(a.bytes);
      EXPECT_EQ(plan.offsets[i] % kTensorAlignment, 0u);
      EXPECT_LE(a_end, plan.size);
      for (size_t j = 0; j < i; ++j) {
        const Temporary& b = temporaries[j];
        const bool live_together = a.first <= b.last && b.first <= a.last;
        const uint64_t b_end = plan.offsets[j] + static_cast<uint64_t>(b.bytes);
        const bool overlap = plan.offsets[i] < b_end && plan.offsets[j] < a_end;
        EXPECT_FALSE(live_together && overlap && a.bytes > 0 && b.bytes > 0);
      }
    }
  }
}

}  // namespace
}  // namespace kiln::runtime
