// What the compile half of a backend offers: a row of the table in src/compiler/backends.cpp.
// Whatever does not depend on a machine is done by backends/common, which calls the row.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/spec.h"
#include "plan/form/program.h"

namespace kiln {

namespace backend {
class CodeStore;         // backends/common/code_store.h
struct GeneratedKernel;  // backends/common/generated_kernel.h
class Tuning;            // backends/common/tuning.h
}  // namespace backend

// One kind of program that a backend makes, such as that for a level of CPU. Its names are those of
// engine::ProgramSpec.
struct Variant {
  std::string name;
  std::vector<std::string> features;  // that a machine needs in order to run it
  // Whether a program gains by it: engines whose options name no variants have the others alone.
  // Null: every program does.
  bool (*serves)(const plan::Program& program) = nullptr;
};

// Generates kernels for one variant. Each thread has its own.
class KernelGenerator {
 public:
  virtual ~KernelGenerator() = default;
  // The same program and kernel give the same bytes, whatever was generated before. CompileError
  // for a kernel that the backend cannot do.
  virtual backend::GeneratedKernel generate(const plan::Program& program,
                                            const plan::Kernel& kernel) = 0;
};

// What generators know besides the kernel. None of it decides what a kernel computes.
struct GeneratorOptions {
  // Where there are several ways to do a kernel, the fastest on a GPU of this machine is taken. Null: a
  // model of the machine chooses.
  backend::Tuning* tuning = nullptr;
  backend::CodeStore* code = nullptr;  // what was compiled before; null: nothing is known or kept
};

// Runs worker(i) once for each i in [0, count), on at most `threads` threads (0: one per core), each
// with a worker of its own. report(done), of the calls that came back, is called on the caller's
// thread. If calls fail, the first exception in the order of the indices is thrown.
using Worker = std::function<void(size_t i)>;
using RunWorkers = void (*)(size_t count, int threads, const std::function<Worker()>& make_worker,
                            const std::function<void(size_t done)>& report);

struct Backend {
  std::string_view name;                 // engine::ProgramSpec::target
  const plan::TargetTraits& traits;      // what programs are planned by, for any of the variants
  const std::vector<Variant>& variants;  // the best first
  std::unique_ptr<KernelGenerator> (*make_generator)(const Variant& variant,
                                                     const GeneratorOptions& options);
  // backend::run_workers, unless the code generator needs threads of its own kind.
  RunWorkers run_workers;
  // What a derived constant's key says, done to the contents of another original: the key is all
  // that it needs. CompileError for a text that is no such key, or that does not fit the literal.
  // Null: no kernel derives constants.
  ir::Literal (*derive_constant)(const std::string& key, const ir::Literal& original);
  // The version of a code generator that is not part of Kiln, which engines are cached by. Null: there
  // is none.
  std::string (*toolchain)();
  // What tuned engines are cached by: the machine that kernels are timed on. Null: there is only one way
  // to do each kernel.
  std::string (*tuning_machine)() = nullptr;
  // What programs for these variants alone are planned by; empty: for all. Null: `traits`.
  const plan::TargetTraits& (*traits_of)(const std::vector<std::string>& variants) = nullptr;
};

// Contents of the Constant buffers of an engine's programs, by program and buffer (empty for other
// buffers). Borrowed from literals or owned; what programs share is there once.
using EngineConstants = std::vector<std::vector<ir::Literal>>;

// An engine without its weights, and the bytes it points to.
struct CompiledProgram {
  engine::Spec spec;
  std::vector<std::vector<std::byte>> code;  // storage behind spec.programs[i].code
  EngineConstants constants;
};

struct BackendOptions {
  // Which variants to make a program for; empty: all that serve it. CPU: "x86-64-v3", "x86-64-v4",
  // "x86-64-v4-bf16", "x86-64-v4-vnni", "x86-64-v3-vnni".
  std::vector<std::string> variants;
  int compile_threads = 0;     // 0: one per core
  std::string dump_directory;  // where the texts of kernels go, for people; empty: nowhere
  GeneratorOptions generators;
  // Called now and then with the share of the work that is done, from the calling thread only. May
  // be null.
  std::function<void(double fraction)> progress;
};

}  // namespace kiln
