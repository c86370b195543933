#include "compiler/backends.h"

#include <gtest/gtest.h>

#include "compiler/driver.h"
#include "ir/text.h"
#include "support/error.h"

namespace kiln {
namespace {

TEST(Backends, AreFoundByTarget) {
  const Backend& cpu = find_backend("cpu");
  EXPECT_EQ(cpu.name, "cpu");
  EXPECT_FALSE(cpu.variants.empty());
  EXPECT_NE(cpu.derive_constant, nullptr);
}

TEST(Backends, AnUnknownTargetIsAnErrorThatNamesTheOthers) {
  CompileOptions options;
  options.targets = {{"npu", {}}};
  try {
    compile(ir::parse_graph("graph main(%x: f32[4]) {\n  %y = neg(%x)\n  return %y as \"y\"\n}\n"),
            options);
    FAIL();
  } catch (const CompileError& error) {
    EXPECT_STREQ(error.what(), "[target] got \"npu\", expected one of cpu, cuda");
  }
}

}  // namespace
}  // namespace kiln
