// A loaded engine: immutable, shared by any number of sessions and threads.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backends/executable.h"
#include "engine/reader.h"
#include "runtime/choose_program.h"
#include "support/aligned_buffer.h"
#include "support/file_map.h"
#include "support/status.h"

namespace kiln::runtime {

struct LoadOptions {
  std::string target, variant;  // of the program to run; empty: the first that runs here
  bool verify_weights = false;  // reads all weights to check their hash
  // Loads no program: the engine can be described, on any machine, and not run. `target` and `variant`
  // say which program the description goes into.
  bool describe_only = false;
};

// One dimension of an input or output. Static: all three are equal.
struct DimInfo {
  int64_t min = 0, opt = 0, max = 0;
};

class Engine {
 public:
  // Maps the file: weights are not copied. It must not be changed in place while the engine lives.
  static Result<std::shared_ptr<const Engine>> load_file(const std::string& path,
                                                         const LoadOptions& options = {});
  // Borrows the bytes until the engine is gone. Weights are copied if `bytes` are not 64-byte
  // aligned.
  static Result<std::shared_ptr<const Engine>> load_memory(std::span<const std::byte> bytes,
                                                           const LoadOptions& options = {});

  const engine::Spec& spec() const { return view_.spec; }
  // Of the programs, the one that runs is there; the others are no more than their heads.
  const engine::View& view() const { return view_; }

  // Null for an engine that is only described.
  const Executable* executable() const { return chosen_.executable.get(); }
  // What it runs on; null likewise.
  const Device* device() const { return chosen_.device; }
  // The one that runs; null likewise.
  const engine::ProgramSpec* program() const {
    return executable() == nullptr ? nullptr : &spec().programs[chosen_.index];
  }

  // What the caller asked for.
  const ProgramName& wanted() const { return wanted_; }

  // The bytes of a Constant buffer.
  const std::byte* constant(const engine::BufferSpec& buffer) const;
  const std::vector<DimInfo>& input_dims(size_t index) const { return input_dims_[index]; }
  const std::vector<DimInfo>& output_dims(size_t index) const { return output_dims_[index]; }

 private:
  enum class Source { File, Memory };
  using Loaded = Result<std::shared_ptr<const Engine>>;

  static Loaded load(std::span<const std::byte> bytes, Source source, const LoadOptions& options,
                     FileMap file);
  Status load_program(Source source);
  Status align_weights();
  void find_dims();

  ProgramName wanted_;
  FileMap file_;
  engine::View view_;
  AlignedBuffer weights_copy_;
  ChosenProgram chosen_;  // refers to what is above
  std::vector<std::vector<DimInfo>> input_dims_, output_dims_;
};

}  // namespace kiln::runtime
