// The code image: what may be in it, and that equal programs give equal bytes.
#include <llvm/IR/IRBuilder.h>
#include <llvm/IR/Module.h>

#include "backends/common/compile_program.h"
#include "backends/cpu/compile/cpu_backend.h"
#include "backends/cpu/compile/image/image.h"
#include "backends/cpu/compile/image/machine.h"
#include "backends/cpu/device/cpu_features.h"
#include "cpu/nest_harness.h"
#include "support/error.h"

namespace kiln::cpu {
namespace {

// A module with the function `i32 kernel(i32)`, whose body is emitted by `emit`.
FlatObject compile(const std::function<llvm::Value*(llvm::IRBuilder<>&, llvm::Module&)>& emit) {
  llvm::LLVMContext context;
  llvm::Module module("test", context);
  const Machine machine(all_targets().back());
  machine.prepare(module);
  llvm::IRBuilder<> ir(context);
  auto* type = llvm::FunctionType::get(ir.getInt32Ty(), {ir.getInt32Ty()}, false);
  auto* function =
      llvm::Function::Create(type, llvm::GlobalValue::ExternalLinkage, "kernel", module);
  function->setDSOLocal(true);
  function->setDoesNotThrow();
  function->addFnAttr(llvm::Attribute::NoRedZone);
  ir.SetInsertPoint(llvm::BasicBlock::Create(context, "entry", function));
  ir.CreateRet(emit(ir, module));
  return flatten(machine.compile(module));
}

std::string refusal(const std::function<llvm::Value*(llvm::IRBuilder<>&, llvm::Module&)>& emit) {
  try {
    compile(emit);
  } catch (const InternalError& error) {
    return error.what();
  }
  return "";
}

TEST(ImageTest, PlacesCodeAndConstants) {
  const FlatObject object = compile([](llvm::IRBuilder<>& ir, llvm::Module& module) {
    auto* table = llvm::ConstantDataArray::get(ir.getContext(), llvm::ArrayRef<uint32_t>{7, 8, 9});
    auto* global = new llvm::GlobalVariable(module, table->getType(), true,
                                            llvm::GlobalValue::PrivateLinkage, table, "table");
    global->setDSOLocal(true);
    llvm::Value* index =
        ir.CreateZExt(ir.GetInsertBlock()->getParent()->getArg(0), ir.getInt64Ty());
    return ir.CreateLoad(ir.getInt32Ty(), ir.CreateGEP(ir.getInt32Ty(), global, index));
  });
  ASSERT_EQ(object.functions.size(), 1U);
  EXPECT_EQ(object.functions[0].name, "kernel");
  EXPECT_EQ(object.functions[0].offset, 0U);
  EXPECT_EQ(object.functions[0].stack_bytes, 0U);
  EXPECT_GT(object.bytes.size(), 64U);  // the table comes after the text
}

TEST(ImageTest, ReportsStackFrames) {
  const FlatObject object = compile([](llvm::IRBuilder<>& ir, llvm::Module&) {
    llvm::Value* slots = ir.CreateAlloca(ir.getInt32Ty(), ir.getInt32(100));
    llvm::Value* index = ir.GetInsertBlock()->getParent()->getArg(0);
    llvm::Value* slot = ir.CreateGEP(ir.getInt32Ty(), slots, index);
    ir.CreateStore(index, slot, true);
    return ir.CreateLoad(ir.getInt32Ty(), slot, true);
  });
  EXPECT_GE(object.functions.at(0).stack_bytes, 400U);
}

TEST(ImageTest, RefusesUndefinedSymbols) {
  const std::string message =
      refusal([](llvm::IRBuilder<>& ir, llvm::Module& module) -> llvm::Value* {
        auto* type = llvm::FunctionType::get(ir.getInt32Ty(), false);
        return ir.CreateCall(module.getOrInsertFunction("somewhere_else", type));
      });
  EXPECT_NE(message.find("undefined somewhere_else"), std::string::npos) << message;
}

TEST(ImageTest, RefusesLibraryCalls) {
  const std::string message = refusal([](llvm::IRBuilder<>& ir, llvm::Module&) -> llvm::Value* {
    llvm::Value* x = ir.CreateSIToFP(ir.GetInsertBlock()->getParent()->getArg(0), ir.getFloatTy());
    return ir.CreateFPToSI(ir.CreateUnaryIntrinsic(llvm::Intrinsic::exp, x), ir.getInt32Ty());
  });
  EXPECT_NE(message.find("undefined expf"), std::string::npos) << message;
}

TEST(ImageTest, RefusesWritableData) {
  const std::string message =
      refusal([](llvm::IRBuilder<>& ir, llvm::Module& module) -> llvm::Value* {
        auto* global =
            new llvm::GlobalVariable(module, ir.getInt32Ty(), false,
                                     llvm::GlobalValue::InternalLinkage, ir.getInt32(1), "state");
        global->setDSOLocal(true);
        ir.CreateStore(ir.GetInsertBlock()->getParent()->getArg(0), global, true);
        return ir.CreateLoad(ir.getInt32Ty(), global, true);
      });
  EXPECT_NE(message.find("writable section .data"), std::string::npos) << message;
}

// --- Whole programs -----------------------------------------------------------------------------

const char* kLayers =
    " %a = layer_norm(%x, %w1, %b1) {axes = 1, eps = 1e-05}\n"
    " %b = softmax(%a) {axis = 1}\n"
    " %c = layer_norm(%b, %w2, %b2) {axes = 1, eps = 1e-05}\n"
    " %y = softmax(%c) {axis = 1}\n";

plan::Program layers() {
  const std::string inputs =
      "%x: f32[s0, 100], %w1: f32[100], %b1: f32[100], %w2: f32[100], %b2: f32[100]";
  return plan::lower(plan::make_graph(test::graph_text(inputs, kLayers)), cpu_backend().traits);
}

std::vector<std::byte> code_of(const CompiledProgram& program) {
  std::vector<std::byte> bytes;
  for (const auto& code : program.code) bytes.insert(bytes.end(), code.begin(), code.end());
  return bytes;
}

TEST(ImageTest, EqualBytesForAnyNumberOfThreads) {
  const plan::Program program = layers();
  const CompiledProgram one = backend::compile_program(cpu_backend(), program, {{}, 1});
  const CompiledProgram three = backend::compile_program(cpu_backend(), program, {{}, 3});
  const CompiledProgram again = backend::compile_program(cpu_backend(), program, {{}, 3});
  EXPECT_EQ(code_of(one), code_of(three));
  EXPECT_EQ(code_of(three), code_of(again));
  ASSERT_EQ(one.spec.programs.size(), 2U);
  EXPECT_EQ(one.spec.programs[0].variant, "x86-64-v4");
  for (size_t p = 0; p < 2; ++p)
    for (size_t i = 0; i < one.spec.programs[p].kernels.size(); ++i)
      EXPECT_EQ(one.spec.programs[p].kernels[i].entry, three.spec.programs[p].kernels[i].entry);
}

TEST(ImageTest, EqualKernelsShareTheirCode) {
  const plan::Program program = layers();
  const CompiledProgram compiled = backend::compile_program(cpu_backend(), program, {{}, 1});
  for (const engine::ProgramSpec& part : compiled.spec.programs) {
    EXPECT_EQ(part.steps.size(), 4U);
    EXPECT_EQ(part.kernels.size(), 2U);
    EXPECT_NE(part.steps[0].buffers, part.steps[2].buffers);
  }
  const std::string inputs =
      "%x: f32[s0, 100], %w1: f32[100], %b1: f32[100], %w2: f32[100], %b2: f32[100]";
  test::expect_compiled(test::graph_text(inputs, kLayers));
}

// The compiler and the device know the same names, though neither includes the other.
TEST(ImageTest, ProgramsAskForKnownFeatures) {
  const CompiledProgram compiled = backend::compile_program(cpu_backend(), layers(), {{}, 1});
  for (const engine::ProgramSpec& part : compiled.spec.programs) {
    EXPECT_FALSE(part.features.empty());
    for (const std::string& name : part.features)
      EXPECT_NE(find_cpu_feature(name), nullptr) << name;
  }
}

TEST(ImageTest, AProgramCanBeLeftOut) {
  const plan::Program program = layers();
  const CompiledProgram both = backend::compile_program(cpu_backend(), program, {{}, 1});
  const CompiledProgram one = backend::compile_program(cpu_backend(), program, {{"x86-64-v3"}, 1});
  ASSERT_EQ(one.spec.programs.size(), 1U);
  EXPECT_EQ(one.spec.programs[0].variant, "x86-64-v3");
  EXPECT_EQ(one.code[0], both.code[1]);
}

TEST(ImageTest, RefusesUnknownVariants) {
  EXPECT_THROW(backend::compile_program(cpu_backend(), layers(), {{"x86-64-v9"}, 1}), CompileError);
}

}  // namespace
}  // namespace kiln::cpu
