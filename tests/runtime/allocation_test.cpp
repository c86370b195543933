// Runs of shapes that were seen before allocate nothing.
#include <array>
#include <atomic>
#include <cstdlib>
#include <new>

#include "runtime/sessions.h"

namespace {

std::atomic<int64_t> allocations{0};

void* counted(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}

}  // namespace

// All of this program's; the forms that are not replaced call these.
void* operator new(std::size_t size) { return counted(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace kiln::runtime {
namespace {

using kiln::testing::expect_ok;
using kiln::testing::LoadedEngine;
using kiln::testing::make_sample_engine;
using kiln::testing::Tensor;

TEST(Allocations, OfRunsWithKnownShapesThereAreNone) {
  const LoadedEngine engine(make_sample_engine());
  for (const int threads : {1, 2}) {
    for (const bool profiling : {false, true}) {
      const auto session = engine.session(threads);
      session->enable_profiling(profiling);
      Tensor x({32, 4}), y({32, 4}), out({32, 4});
      const std::array inputs = {x.view(), y.view()};
      const std::array outputs = {out.view()};
      for (int i = 0; i < 3; ++i) expect_ok(session->run(inputs, outputs));
      const int64_t before = allocations;
      EXPECT_GT(before, 0);
      for (int i = 0; i < 100; ++i)
        if (!session->run(inputs, outputs).ok()) FAIL();
      EXPECT_EQ(allocations - before, 0) << threads << " threads, profiling " << profiling;
    }
  }
}

}  // namespace
}  // namespace kiln::runtime
