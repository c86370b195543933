// Programs of one contraction, run for every CPU level this machine has and compared with
// plan::interpret.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "plan/form/program.h"

namespace kiln::test {

// A program under construction. Values are small integers: their products and sums are exact in
// f32, in any order.
struct ContractionProgram {
  plan::Program program;
  std::vector<ir::Literal> inputs;
  DType dtype = DType::F32;  // of inputs, constants and outputs

  ir::SymbolPtr symbol(const std::string& name, int64_t min, int64_t max, int64_t opt);
  // An input whose type may mention symbols; `shape` is the shape that it has in the test.
  plan::BufferId input(const ir::Shape& type, const std::vector<int64_t>& shape);
  plan::BufferId input_of(const ir::Shape& type, ir::Literal literal);
  plan::BufferId constant(const std::vector<int64_t>& shape);
  plan::BufferId output(const ir::Shape& type);
  void add_kernel(decltype(plan::Kernel::body) body);

  // What lowering makes of operands of that dtype.
  plan::Formats formats() const;
  // The epilogue that stores the sum as it is.
  plan::Expr sum(const plan::Formats& formats) const;

  // Next small integer in [-3, 3].
  float next_value();
  ir::Literal random_literal(const std::vector<int64_t>& shape);

 private:
  uint32_t state_ = 12345;
};

// Every floating dtype.
inline constexpr DType kFloatingTypes[] = {DType::F32, DType::F16, DType::BF16, DType::F64};

// The same values, rounded to another dtype.
ir::Literal converted(const ir::Literal& literal, DType dtype);
ir::Literal float_literal(const std::vector<int64_t>& shape, const std::function<float()>& value);
ir::Literal bool_literal(const std::vector<int64_t>& shape, const std::function<bool()>& value);

// The CPU levels that this machine can run, without those that gain by products of bytes alone or of tiles.
std::vector<std::string> runnable_variants();

// Sanitizers look at what generates code and not at what the code computes, for which the interpreter takes minutes there.
#ifdef KILN_SANITIZES_ADDRESSES
inline constexpr bool kTakesLarge = false;
#else
inline constexpr bool kTakesLarge = true;
#endif

// Compiles for one CPU level and runs twice, tasks of a step in one call and in several: the bits are the same. Checks that nothing
// is written outside of outputs and scratch.
std::vector<ir::Literal> run_variant(const plan::Program& program, const std::string& variant,
                                     const std::vector<ir::Literal>& inputs);

// Whether an engine for a program has code for a level that gains by some programs alone.
bool serves(const std::string& variant, const plan::Program& program);
// Why this machine cannot run what AMX has; nothing if it can.
std::string missing_amx();

// Constants that kernels derive can be made again from the key that the engine keeps, for every variant
// that there is: what a refit does.
void expect_constants_derivable(const plan::Program& program);

// How far a result may be from that of plan::interpret, relative to max(1, |expected|).
struct Tolerance {
  Tolerance(double usual = 0) : usual(usual), bf16(usual) {}  // NOLINT(google-explicit-constructor)
  double usual;
  double bf16;  // on levels with AVX512-BF16 or AMX
};

// Code of the level with AMX alone, which has to serve the program, gives what plan::interpret gives.
void expect_tiles_match_interpreter(const ContractionProgram& contraction,
                                    Tolerance tolerance = {});

// Every runnable variant gives what plan::interpret gives.
void expect_matches_interpreter(const ContractionProgram& contraction, Tolerance tolerance = {});

// The same for runs of one program, without constants, that differ in their run-time sizes: it is
// compiled once for each variant.
void expect_runs_match_interpreter(const std::vector<ContractionProgram>& runs,
                                   Tolerance tolerance = {});

}  // namespace kiln::test
