// What the kernels of loop nests compute, without a GPU: their text is compiled as C++ and run thread by
// thread, for every case of the conformance suite. Buffers of callers begin at odd places in half of the
// runs, threads run in either order, and memory around the buffers must stay as it is.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>

#include "backends/reference/reference.h"
#include "conformance/cases.h"
#include "conformance/compare.h"
#include "cuda/emulation/host_kernels.h"
#include "cuda/kernels.h"

namespace kiln::test {
namespace {

using conformance::Case;
using conformance::Sizes;

// What the tests do not write has this value, and a gap of it is behind each buffer.
constexpr std::byte kUntouched{0xa5};
constexpr size_t kGap = 64, kAlignment = 256;
constexpr uint64_t kScratch = 0xa5a5a5a5a5a5a5a5;

struct Step {
  cuda::KernelText kernel;
  size_t number = 0;  // of its text
};

struct Planned {
  Case test;
  plan::Program program;
  std::vector<Step> steps;
};

// All cases, and the library of their kernels, once for the process.
struct Suite {
  std::map<std::string, Planned> cases;
  std::unique_ptr<HostKernels> kernels;
};

const Suite& suite() {
  static const Suite kSuite = [] {
    Suite suite;
    std::map<std::string, size_t> numbers;
    std::vector<std::string> texts;
    for (const Case& test : conformance::cases_for_gpus()) {
      Planned planned{test, plan_nests(conformance::make_graph(test)), {}};
      for (const plan::Kernel& kernel : planned.program.kernels) {
        // The text of newer generations, but that these wait for the kernel in front.
        cuda::KernelText made = cuda::generate_text(planned.program, kernel, target_named("sm_89"));
        const auto [it, fresh] = numbers.try_emplace(made.text, texts.size());
        if (fresh) texts.push_back(made.text);
        planned.steps.push_back({std::move(made), it->second});
      }
      suite.cases.emplace(test.name, std::move(planned));
    }
    suite.kernels = std::make_unique<HostKernels>(texts);
    return suite;
  }();
  return kSuite;
}

struct Options {
  Sizes sizes = Sizes::Opt;
  bool shifted = false;     // inputs and outputs begin one element off
  bool descending = false;  // the last thread runs first
};

// One run of a program: its memory, and what it does.
class ProgramRun {
 public:
  ProgramRun(const Planned& planned, const Options& options)
      : planned_(planned), options_(options) {
    const auto& buffers = planned.program.buffers;
    places_.resize(buffers.size());
    for (size_t i = 0; i < buffers.size(); ++i) {
      const plan::Buffer& buffer = buffers[i];
      if (buffer.alias_of >= 0) {
        places_[i] = places_[static_cast<size_t>(buffer.alias_of)];
        continue;
      }
      const bool is_callers =
          buffer.kind == plan::BufferKind::Input || buffer.kind == plan::BufferKind::Output;
      const size_t shift = options.shifted && is_callers ? dtype_size(buffer.type.dtype) : 0;
      const size_t begin = (end_ + kGap + kAlignment - 1) / kAlignment * kAlignment + shift;
      places_[i] = {begin, bytes_of(buffer)};
      end_ = begin + places_[i].bytes;
    }
    memory_.resize(end_ + kGap + kAlignment, kUntouched);
    const auto address = reinterpret_cast<uintptr_t>(memory_.data());
    base_ = memory_.data() + (kAlignment - address % kAlignment) % kAlignment;
    for (size_t i = 0; i < buffers.size(); ++i) {
      if (buffers[i].kind == plan::BufferKind::Constant) put(i, buffers[i].literal);
    }
  }

  std::vector<ir::Literal> outputs(std::span<const ir::Literal> inputs) {
    for (size_t i = 0; i < inputs.size(); ++i)
      put(static_cast<size_t>(planned_.program.inputs[i]), inputs[i]);
    for (const Step& step : planned_.steps) launch(step);
    std::vector<ir::Literal> result;
    for (plan::BufferId output : planned_.program.outputs) result.push_back(get(output));
    return result;
  }

  // Expects that nothing but the buffers was written, no check failed, and that what blocks say they
  // write is enough for all outputs.
  void expect_sound() {
    for (const Place& place : places_) std::fill_n(base_ + place.begin, place.bytes, kUntouched);
    EXPECT_TRUE(std::ranges::all_of(memory_, [](std::byte byte) { return byte == kUntouched; }))
        << "something was written outside of the buffers";
    EXPECT_EQ(failed_, 0u);
    for (plan::BufferId output : planned_.program.outputs) {
      const plan::Buffer& buffer = planned_.program.buffers[static_cast<size_t>(output)];
      if (buffer.alias_of >= 0) continue;  // what it leaves of an input is not written
      const auto elements = static_cast<int64_t>(bytes_of(buffer) / dtype_size(buffer.type.dtype));
      EXPECT_GE(writes_[output], elements) << "of output " << buffer.name;
    }
  }

 private:
  struct Place {
    size_t begin = 0, bytes = 0;
  };

  int64_t value(const ir::Dim& dim) const {
    return dim.evaluate([&](const ir::SymbolPtr& symbol) {
      return options_.sizes == Sizes::Opt ? symbol->opt : symbol->min;
    });
  }
  size_t bytes_of(const plan::Buffer& buffer) const {
    return static_cast<size_t>(value(buffer.type.elements())) * dtype_size(buffer.type.dtype);
  }

  void put(size_t buffer, const ir::Literal& literal) {
    ASSERT_EQ(literal.bytes.size(), places_[buffer].bytes);
    std::ranges::copy(literal.bytes, base_ + places_[buffer].begin);
  }
  ir::Literal get(plan::BufferId id) const {
    const ir::Type& type = planned_.program.buffers[static_cast<size_t>(id)].type;
    std::vector<int64_t> shape;
    for (const ir::Dim& dim : type.shape) shape.push_back(value(dim));
    std::byte* data = nullptr;
    ir::Literal literal = ir::Literal::allocate(type.dtype, shape, &data);
    const Place& place = places_[static_cast<size_t>(id)];
    std::copy_n(base_ + place.begin, place.bytes, data);
    return literal;
  }

  void launch(const Step& step) {
    const backend::KernelInterface& interface = step.kernel.kernel.interface;
    std::vector<std::byte*> pointers;
    std::vector<long long> params;
    uint64_t* failed = &failed_;
    for (plan::BufferId id : interface.buffers)
      pointers.push_back(base_ + places_[static_cast<size_t>(id)].begin);
    for (const ir::Dim& param : interface.params) params.push_back(value(param));
    std::vector<void*> arguments;
    for (std::byte*& pointer : pointers) arguments.push_back(&pointer);
    for (long long& param : params) arguments.push_back(&param);
    const auto scratch_bytes = static_cast<size_t>(value(interface.scratch_bytes));
    std::vector<uint64_t> scratch((scratch_bytes + 7) / 8 + 1, kScratch);
    uint64_t* scratch_begin = scratch.data();
    if (!interface.scratch_bytes.is_constant(0)) arguments.push_back(&scratch_begin);
    arguments.push_back(&failed);
    const int64_t blocks = value(interface.grid.at(0));
    for (const auto& [id, elements] : interface.task_writes)
      writes_[id] += blocks * value(elements);
    EXPECT_EQ(run_grid({suite().kernels->find(step.number), arguments.data(), blocks,
                        static_cast<int>(value(interface.block.at(0))), options_.descending}),
              "");
    EXPECT_EQ(scratch[(scratch_bytes + 7) / 8], kScratch) << "something was written behind scratch";
  }

  const Planned& planned_;
  const Options options_;
  std::vector<Place> places_;  // by buffer
  size_t end_ = 0;
  std::vector<std::byte> memory_;
  std::byte* base_ = nullptr;
  uint64_t failed_ = 0;
  std::map<plan::BufferId, int64_t> writes_;
};

class CudaEmulation : public testing::TestWithParam<std::string> {};

TEST_P(CudaEmulation, MatchesReference) {
  const Planned& planned = suite().cases.at(GetParam());
  const ir::Graph graph = conformance::make_graph(planned.test);
  for (Sizes sizes : {Sizes::Opt, Sizes::Min}) {
    const auto inputs = conformance::make_inputs(planned.test, graph, sizes);
    const auto expected = reference::run(graph, inputs);
    for (bool other : {false, true}) {
      ProgramRun run(planned, {.sizes = sizes, .shifted = other, .descending = other});
      const std::vector<ir::Literal> got = run.outputs(inputs);
      ASSERT_EQ(got.size(), expected.size());
      for (size_t i = 0; i < got.size(); ++i)
        EXPECT_EQ(conformance::difference(got[i], expected[i]), "") << "output " << i;
      run.expect_sound();
    }
  }
}

std::vector<std::string> case_names() {
  std::vector<std::string> names;
  for (const Case& test : conformance::cases_for_gpus()) names.push_back(test.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(All, CudaEmulation, testing::ValuesIn(case_names()),
                         [](const testing::TestParamInfo<std::string>& info) {
                           return info.param;
                         });

// A kernel whose threads do not all come to its barrier is seen.
TEST(CudaEmulationItself, SeesBarriersThatSomeThreadsMiss) {
  const HostKernels kernels(
      {"#define DEVICE inline\nextern \"C\" __global__ void __launch_bounds__(64) kernel(int* x) "
       "{\n"
       "  if (threadIdx.x < 40) __syncthreads();\n  x[threadIdx.x] = 1;\n}\n"});
  std::vector<int> memory(64);
  int* pointer = memory.data();
  void* arguments[] = {&pointer};
  EXPECT_NE(run_grid({kernels.find(0), arguments, 1, 64}), "");
}

// One that reads what other threads write without a barrier gives something else in one of the orders.
TEST(CudaEmulationItself, OrdersOfThreadsShowMissingBarriers) {
  const HostKernels kernels(
      {"#define DEVICE inline\nextern \"C\" __global__ void __launch_bounds__(64) kernel(int* x) "
       "{\n"
       "  x[threadIdx.x] = (int)threadIdx.x + 1;\n"
       "  x[64 + threadIdx.x] = x[(threadIdx.x + 1) % 64];\n}\n"});
  std::vector<int> results[2];
  for (bool descending : {false, true}) {
    std::vector<int>& memory = results[descending];
    memory.resize(128);
    int* pointer = memory.data();
    void* arguments[] = {&pointer};
    EXPECT_EQ(run_grid({kernels.find(0), arguments, 1, 64, descending}), "");
  }
  EXPECT_NE(results[0], results[1]);
}

}  // namespace
}  // namespace kiln::test
