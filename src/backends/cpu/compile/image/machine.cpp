#include "backends/cpu/compile/image/machine.h"

#include <llvm/Bitcode/BitcodeWriter.h>
#include <llvm/Config/llvm-config.h>
#include <llvm/IR/LegacyPassManager.h>
#include <llvm/IR/Verifier.h>
#include <llvm/MC/TargetRegistry.h>
#include <llvm/Support/TargetSelect.h>
#include <llvm/Support/raw_ostream.h>
#include <llvm/Target/TargetMachine.h>
#include <llvm/Target/TargetOptions.h>

#include <span>

#include "backends/cpu/compile/image/llvm_threads.h"
#include "support/error.h"

namespace kiln::cpu {

namespace {

constexpr const char* kTriple = "x86_64-unknown-linux-gnu";

const llvm::Target& x86() {
  static const llvm::Target* target = [] {
    install_llvm_handlers();
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    std::string error;
    return llvm::TargetRegistry::lookupTarget(kTriple, error);
  }();
  KILN_CHECK(target != nullptr, "LLVM has no x86-64 code generator");
  return *target;
}

}  // namespace

const std::vector<Target>& all_targets() {
  using enum Feature;
  static const std::vector<Target> kTargets = {
      {"x86-64-v4-amx",  // what has AMX has AVX512-BF16 and VNNI
       "x86-64-v4",
       {Avx2, Fma, F16c, Avx512F, Avx512Bw, Avx512Dq, Avx512Vl, Avx512Bf16, Avx512Vnni, AmxTile,
        AmxBf16, AmxInt8},
       512,
       32},
      {"x86-64-v4-bf16",  // what has AVX512-BF16 has VNNI
       "x86-64-v4",
       {Avx2, Fma, F16c, Avx512F, Avx512Bw, Avx512Dq, Avx512Vl, Avx512Bf16, Avx512Vnni},
       512,
       32},
      {"x86-64-v4-vnni",
       "x86-64-v4",
       {Avx2, Fma, F16c, Avx512F, Avx512Bw, Avx512Dq, Avx512Vl, Avx512Vnni},
       512,
       32},
      {"x86-64-v4", "x86-64-v4", {Avx2, Fma, F16c, Avx512F, Avx512Bw, Avx512Dq, Avx512Vl}, 512, 32},
      {"x86-64-v3-vnni", "x86-64-v3", {Avx2, Fma, F16c, AvxVnni}, 256, 16},
      {"x86-64-v3", "x86-64-v3", {Avx2, Fma, F16c}, 256, 16}};
  return kTargets;
}

Machine::Machine(const Target& target) {
  llvm::TargetOptions options;
  options.EmitStackSizeSection = true;  // for the spill guard
  options.UnsafeFPMath = false;
  machine_.reset(x86().createTargetMachine(kTriple, target.cpu, "", options, llvm::Reloc::PIC_,
                                           llvm::CodeModel::Small, llvm::CodeGenOptLevel::Default));
  KILN_CHECK(machine_ != nullptr, "LLVM does not know the CPU " + target.name);
}

Machine::Machine(Machine&&) noexcept = default;
Machine::~Machine() = default;

void Machine::prepare(llvm::Module& module) const {
  module.setTargetTriple(kTriple);
  module.setDataLayout(machine_->createDataLayout());
  module.setPICLevel(llvm::PICLevel::SmallPIC);
  module.setSourceFileName("kernel");
}

Hash128 Machine::code_key(const llvm::Module& module) const {
  std::string text = "LLVM " LLVM_VERSION_STRING ";" + machine_->getTargetCPU().str() + ";";
  llvm::raw_string_ostream stream(text);
  llvm::WriteBitcodeToFile(module, stream);
  return hash128(std::as_bytes(std::span(stream.str())));
}

std::vector<std::byte> Machine::compile(llvm::Module& module) const {
  std::string problem;
  llvm::raw_string_ostream problems(problem);
  KILN_CHECK(!llvm::verifyModule(module, &problems),
             "the module " + module.getName().str() + " is malformed: " + problem);
  llvm::SmallVector<char, 0> object;
  llvm::raw_svector_ostream stream(object);
  llvm::legacy::PassManager passes;
  const bool refused =
      machine_->addPassesToEmitFile(passes, stream, nullptr, llvm::CodeGenFileType::ObjectFile);
  KILN_CHECK(!refused, "LLVM cannot write object files");
  passes.run(module);
  const auto* bytes = reinterpret_cast<const std::byte*>(object.data());
  return {bytes, bytes + object.size()};
}

}  // namespace kiln::cpu
