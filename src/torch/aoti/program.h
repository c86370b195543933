// What a package does: the text "program.kiln.txt" beside the engines.
//
// One statement per line, words separated by spaces. Values are numbered: first the inputs, then
// the constants, then the results of the calls, in the order in which they are written.
//
//   kiln-program 1
//   in_spec <JSON to the end of the line>          structure of the inputs, as torch.utils._pytree
//   out_spec <JSON>                                has it
//   device cuda                                    where it runs; without this on the CPU
//   size <function> <operand> <operand>            instructions of the size program are numbered
//   needs_torch <major> <minor>                    the first version that runs the package right
//   input <name> <dtype> <dim>... [strides <size>...]
//   check <size> <text to the end of the line>     is not to be zero
//   changes <input>                                the model writes to this input
//   constant <dtype> <offset in constants.bin> <size>... [strides <stride>...]
//   host_constant ...                              the same, in memory of the CPU whatever the device
//   state ...                                      the same, as it is to begin with: calls change it
//   engine <file>                                  engines are numbered
//   model <file>                                   a library that AOTInductor compiled
//   run_engine <engine> inputs <value>... results <count> [states <count>] [layouts <text>]
//   run_model inputs <value>... engines <engine>... results <count>
//   run_aten <name> <extern node> ints <size>... inputs <value>... results <count>
//   result <value> | result none
//
// The last inputs of an engine with states, which are inputs or states, are changed in place.
//
// A size is an operand of the size program (size_program.h). A dim is a number, a range "1..32" or
// "1.." of a size that others are computed from, or "=" and a size that it has to equal. Strides
// are given where they have to be those, and layouts (torch/layouts.h) where a result is not
// row-major.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kiln/kiln.h"
#include "torch/aoti/size_program.h"
#include "torch/layouts.h"

namespace kiln::aoti {

struct InputDim {
  int64_t min = 0, max = 0;  // used if `equal` is not there
  std::optional<SizeOperand> equal;
};

struct InputSpec {
  std::string name;
  kiln_dtype dtype = KILN_F32;
  std::vector<InputDim> dims;
  std::vector<SizeOperand> strides;  // empty: any
  bool is_changed = false;           // by a compiled library
};

// What sizes of the inputs have to do with each other.
struct SizeCheck {
  SizeOperand condition;
  std::string text;  // for people: "x.size(1) == y.size(0) * 2"
};

struct ConstantSpec {
  kiln_dtype dtype = KILN_F32;
  uint64_t offset = 0;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  // empty: row-major
  bool is_on_host = false;       // whatever the program's device is
  bool is_state = false;         // in memory of its own
};

struct Call {
  enum class Kind { Engine, Model, Aten };

  Kind kind = Kind::Engine;
  std::string name;               // of an operator
  size_t target = 0;              // engine or extern node
  std::vector<SizeOperand> ints;  // integer arguments of an operator
  std::vector<size_t> inputs;
  std::vector<size_t> engines;  // that a compiled library calls
  size_t num_results = 0;
  size_t num_states = 0;      // of an engine: its last inputs
  torch_op::Layouts layouts;  // of an engine's results and inputs
  std::vector<size_t> dead;   // values that nothing needs after this call
};

struct TorchVersion {
  uint64_t major = 0, minor = 0;
};

struct Program {
  std::string in_spec, out_spec;
  kiln_device_type device = KILN_CPU;
  SizeProgram sizes;
  TorchVersion needs_torch;
  std::vector<InputSpec> inputs;
  std::vector<SizeCheck> checks;
  std::vector<ConstantSpec> constants;
  std::vector<std::string> engine_files;
  std::string model_file;  // empty: none
  std::vector<Call> calls;
  std::vector<std::optional<size_t>> results;  // nullopt: None
  size_t num_values = 0;
};

// Throws std::runtime_error with the line for text that is not a program.
Program parse_program(const std::string& text);

}  // namespace kiln::aoti
