#include "cpu/contraction_harness.h"

#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "backends/common/compile_program.h"
#include "backends/cpu/compile/cpu_backend.h"
#include "backends/cpu/device/cpu_features.h"
#include "backends/cpu/device/made_constants.h"
#include "ir/scalar.h"
#include "plan/form/interpret.h"
#include "plan/form/text.h"

namespace kiln::test {

namespace {

constexpr size_t kGuard = 256;  // bytes on both sides of what a kernel may write
constexpr int kGuardByte = 0x5A;

// Memory between guards; `check` fails the test if a guard was written.
class GuardedMemory {
 public:
  explicit GuardedMemory(size_t bytes) : bytes_(bytes) {
    const size_t total = (bytes + 2 * kGuard + 63) / 64 * 64;
    memory_.reset(static_cast<std::byte*>(std::aligned_alloc(64, total)));
    std::memset(memory_.get(), kGuardByte, total);
    std::memset(data(), 0xFF, bytes);  // NaN, for reads of what was never written
  }
  std::byte* data() const { return memory_.get() + kGuard; }
  void check(const std::string& what) const {
    auto intact = [](const std::byte* from) {
      return std::all_of(from, from + kGuard,
                         [](std::byte b) { return b == std::byte{kGuardByte}; });
    };
    EXPECT_TRUE(intact(memory_.get())) << "written before " << what;
    EXPECT_TRUE(intact(data() + bytes_)) << "written after " << what;
  }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  size_t bytes_;
};

class CodeMapping {
 public:
  explicit CodeMapping(std::span<const std::byte> code) : size_(code.size()) {
    memory_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    std::memcpy(memory_, code.data(), size_);
    mprotect(memory_, size_, PROT_READ | PROT_EXEC);
  }
  ~CodeMapping() { munmap(memory_, size_); }
  CodeMapping(const CodeMapping&) = delete;
  CodeMapping& operator=(const CodeMapping&) = delete;
  engine::CpuKernel kernel(uint64_t offset) const {
    return reinterpret_cast<engine::CpuKernel>(static_cast<std::byte*>(memory_) + offset);
  }

 private:
  void* memory_;
  size_t size_;
};

int64_t floor_division(int64_t a, int64_t b) {
  int64_t quotient = a / b;
  return quotient * b != a && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

int64_t evaluate(const engine::SizeInstruction& instruction, const std::vector<int64_t>& slots,
                 const std::vector<int64_t>& symbols) {
  const int64_t a = instruction.a >= 0 ? slots[static_cast<size_t>(instruction.a)] : 0;
  const int64_t b = instruction.b >= 0 ? slots[static_cast<size_t>(instruction.b)] : 0;
  switch (instruction.op) {
    case engine::SizeOp::Constant:
      return instruction.immediate;
    case engine::SizeOp::Symbol:
      return symbols[static_cast<size_t>(instruction.immediate)];
    case engine::SizeOp::Add:
      return a + b;
    case engine::SizeOp::Sub:
      return a - b;
    case engine::SizeOp::Mul:
      return a * b;
    case engine::SizeOp::FloorDiv:
      return floor_division(a, b);
    case engine::SizeOp::Mod:
      return a - floor_division(a, b) * b;
    case engine::SizeOp::Min:
      return std::min(a, b);
    case engine::SizeOp::Max:
      return std::max(a, b);
  }
  return 0;
}

std::vector<int64_t> evaluate_sizes(const engine::Spec& spec,
                                    const std::vector<ir::Literal>& inputs) {
  std::vector<int64_t> symbols, slots;
  for (const engine::SymbolSpec& symbol : spec.symbols) {
    symbols.push_back(
        inputs[static_cast<size_t>(symbol.input)].shape[static_cast<size_t>(symbol.dim)]);
  }
  for (const auto* sizes : {&spec.sizes, &spec.programs[0].sizes})
    for (const engine::SizeInstruction& instruction : *sizes)
      slots.push_back(evaluate(instruction, slots, symbols));
  return slots;
}

// One compiled program with its memory.
class Execution {
 public:
  Execution(const CompiledProgram& compiled, const std::vector<ir::Literal>& inputs)
      : compiled_(compiled),
        program_(compiled.spec.programs[0]),
        sizes_(evaluate_sizes(compiled.spec, inputs)),
        code_(program_.code) {
    const auto& buffers = program_.buffers;
    const auto& constants = compiled.constants[0];
    for (size_t i = 0; i < buffers.size(); ++i) {
      const engine::BufferSpec& buffer = buffers[i];
      if (buffer.alias_of >= 0) {
        memory_.push_back(memory_[static_cast<size_t>(buffer.alias_of)]);
        continue;
      }
      const auto bytes = static_cast<size_t>(buffer.kind == engine::BufferKind::Constant
                                                 ? static_cast<int64_t>(buffer.constant_bytes)
                                                 : size(buffer.bytes));
      memory_.push_back(std::make_shared<GuardedMemory>(bytes));
      if (buffer.kind == engine::BufferKind::Constant && !buffer.is_made_at_load())
        copy(constants[i], i);
      if (buffer.kind == engine::BufferKind::Input)
        copy(inputs[static_cast<size_t>(buffer.index)], i);
    }
    for (size_t i = 0; i < buffers.size(); ++i)
      if (buffers[i].is_made_at_load())
        cpu::make_winograd_filters(
            buffers[i].winograd, memory_[static_cast<size_t>(buffers[i].winograd.filters)]->data(),
            memory_[i]->data(), 1);
  }

  // All tasks of a step in one call, or in several.
  void run(bool is_whole) {
    for (const engine::StepSpec& step : program_.steps) run_step(step, is_whole);
    for (size_t i = 0; i < memory_.size(); ++i) memory_[i]->check("buffer " + std::to_string(i));
  }

  ir::Literal output(size_t index) const {
    const engine::TensorSpec& tensor = compiled_.spec.outputs[index];
    std::vector<int64_t> shape;
    for (engine::Slot slot : tensor.shape) shape.push_back(size(slot));
    std::byte* bytes = nullptr;
    ir::Literal result = ir::Literal::allocate(tensor.dtype, shape, &bytes);
    const auto& buffers = program_.buffers;
    for (size_t i = 0; i < buffers.size(); ++i) {
      if (buffers[i].kind == engine::BufferKind::Output &&
          buffers[i].index == static_cast<int32_t>(index)) {
        if (!result.bytes.empty()) std::memcpy(bytes, memory_[i]->data(), result.bytes.size());
      }
    }
    return result;
  }

 private:
  int64_t size(engine::Slot slot) const { return sizes_[static_cast<size_t>(slot)]; }
  void copy(const ir::Literal& literal, size_t buffer) {
    std::ranges::copy(literal.bytes, memory_[buffer]->data());
  }

  void run_step(const engine::StepSpec& step, bool is_whole) {
    std::vector<void*> buffers;
    std::vector<int64_t> params;
    for (int32_t buffer : step.buffers)
      buffers.push_back(memory_[static_cast<size_t>(buffer)]->data());
    for (engine::Slot slot : step.params) params.push_back(size(slot));
    GuardedMemory scratch(step.scratch_bytes < 0 ? 0
                                                 : static_cast<size_t>(size(step.scratch_bytes)));
    const engine::CpuKernel kernel =
        code_.kernel(program_.kernels[static_cast<size_t>(step.kernel)].entry);
    const int64_t tasks = size(step.tasks);
    // As a thread that helps others may come to them; keys stay in scratch from call to call.
    const int64_t third = is_whole ? tasks : (tasks + 2) / 3, rest = (tasks + third) / 2;
    for (const auto& [begin, end] : {std::pair(rest, tasks), {0, third}, {third, rest}})
      if (begin < end) kernel(buffers.data(), params.data(), scratch.data(), begin, end);
    scratch.check("scratch");
  }

  const CompiledProgram& compiled_;
  const engine::ProgramSpec& program_;
  std::vector<int64_t> sizes_;
  CodeMapping code_;
  std::vector<std::shared_ptr<GuardedMemory>> memory_;
};

void expect_close(const ir::Literal& actual, const ir::Literal& expected, double tolerance) {
  ASSERT_EQ(actual.shape, expected.shape);
  int64_t shown = 0;
  for (int64_t i = 0; i < expected.elements() && shown < 5; ++i) {
    const double a = actual.as_double(i), e = expected.as_double(i);
    const bool same = (std::isnan(a) && std::isnan(e)) || a == e ||
                      std::fabs(a - e) <= tolerance * std::max(1.0, std::fabs(e));
    EXPECT_TRUE(same) << "element " << i << ": got " << a << ", expected " << e;
    if (!same) ++shown;
  }
}

}  // namespace

ir::SymbolPtr ContractionProgram::symbol(const std::string& name, int64_t min, int64_t max,
                                         int64_t opt) {
  program.symbols.push_back(ir::make_size_symbol(name, min, max, opt));
  return program.symbols.back();
}

plan::BufferId ContractionProgram::input(const ir::Shape& type, const std::vector<int64_t>& shape) {
  return input_of(type, random_literal(shape));
}

plan::BufferId ContractionProgram::input_of(const ir::Shape& type, ir::Literal literal) {
  plan::Buffer buffer;
  buffer.kind = plan::BufferKind::Input;
  buffer.name = "input" + std::to_string(inputs.size());
  buffer.type = {literal.dtype, type};
  inputs.push_back(std::move(literal));
  program.inputs.push_back(program.add_buffer(std::move(buffer)));
  return program.inputs.back();
}

plan::BufferId ContractionProgram::constant(const std::vector<int64_t>& shape) {
  plan::Buffer buffer;
  buffer.kind = plan::BufferKind::Constant;
  buffer.name = "constant" + std::to_string(program.buffers.size());
  buffer.type = {dtype, ir::Shape(shape.begin(), shape.end())};
  buffer.literal = random_literal(shape);
  return program.add_buffer(std::move(buffer));
}

plan::BufferId ContractionProgram::output(const ir::Shape& type) {
  plan::Buffer buffer;
  buffer.kind = plan::BufferKind::Output;
  buffer.name = "output";
  buffer.type = {dtype, type};
  program.outputs.push_back(program.add_buffer(std::move(buffer)));
  return program.outputs.back();
}

void ContractionProgram::add_kernel(decltype(plan::Kernel::body) body) {
  plan::Kernel kernel;
  kernel.name = "contraction" + std::to_string(program.kernels.size());
  kernel.body = std::move(body);
  program.kernels.push_back(std::move(kernel));
}

float ContractionProgram::next_value() {
  state_ = state_ * 1664525u + 1013904223u;
  return static_cast<float>(static_cast<int32_t>((state_ >> 16) % 7) - 3);
}

ir::Literal ContractionProgram::random_literal(const std::vector<int64_t>& shape) {
  return converted(float_literal(shape, [&] { return next_value(); }), dtype);
}

plan::Formats ContractionProgram::formats() const {
  const DType computed = is_16_bit_float(dtype) ? DType::F32 : dtype;
  return {computed, computed, computed, computed};
}

plan::Expr ContractionProgram::sum(const plan::Formats& formats) const {
  return plan::cast(plan::accumulator(formats.accumulator), dtype);
}

ir::Literal converted(const ir::Literal& literal, DType dtype) {
  if (literal.dtype == dtype) return literal;
  std::byte* bytes = nullptr;
  ir::Literal result = ir::Literal::allocate(dtype, literal.shape, &bytes);
  for (int64_t i = 0; i < literal.elements(); ++i)
    ir::set_element(bytes, i, ir::convert(ir::element(literal, i), dtype));
  return result;
}

ir::Literal float_literal(const std::vector<int64_t>& shape, const std::function<float()>& value) {
  std::byte* bytes = nullptr;
  ir::Literal literal = ir::Literal::allocate(DType::F32, shape, &bytes);
  auto* data = reinterpret_cast<float*>(bytes);
  std::generate(data, data + literal.elements(), value);
  return literal;
}

ir::Literal bool_literal(const std::vector<int64_t>& shape, const std::function<bool()>& value) {
  std::byte* bytes = nullptr;
  ir::Literal literal = ir::Literal::allocate(DType::Bool, shape, &bytes);
  for (int64_t i = 0; i < literal.elements(); ++i)
    bytes[i] = std::byte{static_cast<uint8_t>(value() ? 1 : 0)};
  return literal;
}

std::vector<std::string> runnable_variants() {
  std::vector<std::string> variants;
  if (cpu::has_cpu_feature("avx2")) variants.emplace_back("x86-64-v3");
  if (cpu::has_cpu_feature("avx512")) variants.emplace_back("x86-64-v4");
  if (cpu::has_cpu_feature("avx512bf16")) variants.emplace_back("x86-64-v4-bf16");
#ifdef KILN_SANITIZES_ADDRESSES  // looks at what generates code, for which one in turn does
  static size_t turn = 0;
  if (!variants.empty()) return {variants[turn++ % variants.size()]};
#endif
  return variants;
}

namespace {

// Those that a program has code of its own for.
std::vector<std::string> variants_of(const plan::Program& program) {
  std::vector<std::string> variants = runnable_variants();
  for (const Variant& variant : cpu_backend().variants) {
    const bool runs = std::ranges::all_of(
        variant.features, [](const std::string& feature) { return cpu::has_cpu_feature(feature); });
    if (variant.name.ends_with("amx") && !missing_amx().empty()) continue;
    const bool is_for_some = variant.name.ends_with("vnni") || variant.name.ends_with("amx");
    if (runs && is_for_some && variant.serves(program)) variants.push_back(variant.name);
  }
  return variants;
}

bool multiplies_bf16(const std::string& variant) {
  return variant.ends_with("bf16") || variant.ends_with("amx");
}

std::vector<ir::Literal> run_compiled(const CompiledProgram& compiled,
                                      const std::vector<ir::Literal>& inputs) {
  std::vector<ir::Literal> outputs;
  for (const bool is_whole : {true, false}) {
    Execution execution(compiled, inputs);
    execution.run(is_whole);
    for (size_t i = 0; i < compiled.spec.outputs.size(); ++i) {
      ir::Literal output = execution.output(i);
      if (is_whole)
        outputs.push_back(std::move(output));
      else
        EXPECT_TRUE(std::ranges::equal(output.bytes, outputs[i].bytes))
            << "output " << i << " depends on how many tasks a call has";
    }
  }
  return outputs;
}

}  // namespace

std::vector<ir::Literal> run_variant(const plan::Program& program, const std::string& variant,
                                     const std::vector<ir::Literal>& inputs) {
  return run_compiled(backend::compile_program(cpu_backend(), program, {{variant}, 1}), inputs);
}

bool serves(const std::string& variant, const plan::Program& program) {
  const auto found = std::ranges::find(cpu_backend().variants, variant, &Variant::name);
  return found != cpu_backend().variants.end() && found->serves(program);
}

std::string missing_amx() {
  if (!cpu::has_cpu_feature("amxbf16") || !cpu::has_cpu_feature("amxint8"))
    return "this CPU has no AMX for bf16 and bytes";
  return cpu::allow_tiles() ? "" : "the operating system does not let this process use AMX";
}

void expect_constants_derivable(const plan::Program& program) {
  for (const Variant& variant : cpu_backend().variants) {
    const CompiledProgram compiled =
        backend::compile_program(cpu_backend(), program, {{variant.name}, 1});
    const engine::ProgramSpec& part = compiled.spec.programs[0];
    int derived = 0;
    for (size_t i = 0; i < part.buffers.size(); ++i) {
      const engine::BufferSpec& buffer = part.buffers[i];
      if (buffer.kind != engine::BufferKind::Constant || buffer.transform.empty()) continue;
      const auto original = static_cast<size_t>(buffer.source);
      const ir::Literal again =
          cpu_backend().derive_constant(buffer.transform, program.buffers.at(original).literal);
      EXPECT_TRUE(std::ranges::equal(again.bytes, compiled.constants[0][i].bytes))
          << variant.name << ": " << buffer.transform;
      ++derived;
    }
    EXPECT_GT(derived, 0) << variant.name;
  }
}

void expect_matches_interpreter(const ContractionProgram& contraction, Tolerance tolerance) {
  expect_runs_match_interpreter({contraction}, tolerance);
}

void expect_tiles_match_interpreter(const ContractionProgram& contraction, Tolerance tolerance) {
  const std::string variant = "x86-64-v4-amx";
  ASSERT_TRUE(serves(variant, contraction.program));
  const auto expected = plan::interpret(contraction.program, contraction.inputs);
  const auto actual = run_variant(contraction.program, variant, contraction.inputs);
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) expect_close(actual[i], expected[i], tolerance.bf16);
}

void expect_runs_match_interpreter(const std::vector<ContractionProgram>& runs,
                                   Tolerance tolerance) {
  const plan::Program& program = runs.at(0).program;
  std::vector<std::vector<ir::Literal>> expected;
  for (const ContractionProgram& run : runs) {
    ASSERT_EQ(plan::to_text(run.program), plan::to_text(program));
    expected.push_back(plan::interpret(run.program, run.inputs));
  }
  for (const std::string& variant : variants_of(program)) {
    const CompiledProgram compiled =
        backend::compile_program(cpu_backend(), program, {{variant}, 1});
    for (size_t r = 0; r < runs.size(); ++r) {
      SCOPED_TRACE(variant + ", run " + std::to_string(r));
      const std::vector<ir::Literal> actual = run_compiled(compiled, runs[r].inputs);
      ASSERT_EQ(actual.size(), expected[r].size());
      for (size_t i = 0; i < actual.size(); ++i) {
        expect_close(actual[i], expected[r][i],
                     multiplies_bf16(variant) ? tolerance.bf16 : tolerance.usual);
      }
    }
  }
}

}  // namespace kiln::test
