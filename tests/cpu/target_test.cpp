// Levels of CPU and their features.
#include "backends/cpu/compile/emit/target.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <llvm/IR/Module.h>

#include "backends/cpu/compile/image/machine.h"

namespace kiln::cpu {
namespace {

using Names = std::vector<std::string>;

TEST(TargetTest, LevelsRequireWhatTheirCodeUses) {
  for (const Target& target : all_targets()) {
    const bool wide = target.cpu == "x86-64-v4";
    Names required = {"avx2"};
    if (wide) required.emplace_back("avx512");
    const bool has_tiles = target.name == "x86-64-v4-amx";
    if (target.name == "x86-64-v4-bf16" || has_tiles) required.emplace_back("avx512bf16");
    if (wide && target.name != "x86-64-v4") required.emplace_back("avx512vnni");
    if (target.name == "x86-64-v3-vnni") required.emplace_back("avxvnni");
    if (has_tiles) required.insert(required.end(), {"amxtile", "amxbf16", "amxint8"});
    EXPECT_EQ(target.features.required(), required);
    EXPECT_EQ(target.has(Feature::Avx512Bw), wide);
    EXPECT_EQ(target.lanes(), wide ? 16 : 8);
  }
}

TEST(TargetTest, AFeatureBeyondALevelIsRequiredToo) {
  const FeatureSet features = {Feature::Avx2, Feature::Avx512F, Feature::Avx512Bf16};
  EXPECT_EQ(features.required(), Names({"avx2", "avx512", "avx512bf16"}));
  EXPECT_EQ(features.llvm_str(), "+avx2,+avx512f,+avx512bf16");
}

TEST(TargetTest, FunctionsKnowTheFeaturesOfTheirTarget) {
  llvm::LLVMContext context;
  llvm::Module module("test", context);
  auto* type = llvm::FunctionType::get(llvm::Type::getVoidTy(context), false);
  auto* function =
      llvm::Function::Create(type, llvm::GlobalValue::ExternalLinkage, "kernel", module);
  llvm::IRBuilder<> ir(llvm::BasicBlock::Create(context, "entry", function));
  EXPECT_FALSE(has_feature(ir, Feature::Avx2));
  const FeatureSet features = {Feature::Avx2, Feature::Avx512Bw};
  function->addFnAttr("target-features", features.llvm_str());
  EXPECT_TRUE(has_feature(ir, Feature::Avx2));
  EXPECT_TRUE(has_feature(ir, Feature::Avx512Bw));
  EXPECT_FALSE(has_feature(ir, Feature::Avx512F));
}

}  // namespace
}  // namespace kiln::cpu
