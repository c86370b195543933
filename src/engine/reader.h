// Reads and validates engines; treats the bytes as hostile.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "engine/format.h"
#include "engine/spec.h"
#include "support/status.h"

namespace kiln::engine {

struct SectionInfo {
  std::string name;  // "interface", "program:cpu:x86-64-v4", "code:cpu:x86-64-v4", "weights"
  uint64_t offset = 0, size = 0;
  std::string hash;  // XXH3-128, hexadecimal, as stored
};

// The sections of a program.
struct ProgramSections {
  SectionEntry body, code;
};

// A validated engine over borrowed bytes: spec.programs[i].code and weights point into them.
struct View {
  Spec spec;
  std::span<const std::byte> bytes, weights;
  std::vector<SectionInfo> sections;
  std::vector<ProgramSections> programs;
  // Of the header, which has the hashes of all sections: identifies the engine.
  std::string content_hash;
  uint32_t format_version = 0;
  bool stripped = false;  // no weights: only a refit can use it
};

struct ReadOptions {
  bool verify_weights = false;  // hash the weights as well
};

// The interface, and what each program is for: of the programs there are no more than their heads
// until read_program gets the rest. Nothing else of the file is touched.
Result<View> read_interface(std::span<const std::byte> bytes, const ReadOptions& options = {});
// Reads one program with its code. One that this version does not know is no error: see
// ProgramSpec::unknown.
Status read_program(View& view, size_t index);
// All of it. Everything that the runtime relies on is checked here: bounds, alignment, hashes of
// interface, programs and code, slots in order, kernel and buffer numbers, entry points inside the
// code. InvalidEngine says what is wrong and where.
Result<View> read(std::span<const std::byte> bytes, const ReadOptions& options = {});

}  // namespace kiln::engine
