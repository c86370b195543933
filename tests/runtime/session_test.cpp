// Runs: values, shapes, strides, threads, and every way to call wrongly.
#include "runtime/session.h"

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "backends/cpu/device/custom_kernels.h"
#include "runtime/describe.h"
#include "runtime/sessions.h"

namespace kiln::runtime {
namespace {

using kiln::testing::expect_error;
using kiln::testing::expect_ok;
using kiln::testing::kSampleFactor;
using kiln::testing::LoadedEngine;
using kiln::testing::make_add_engine;
using kiln::testing::make_sample_engine;
using kiln::testing::run;
using kiln::testing::SampleEngine;
using kiln::testing::Tensor;

// Both programs of the sample: (x + y) * 3 or (x - y) * 3.
class SessionTest : public ::testing::Test {
 protected:
  SessionTest() : engine_(make_sample_engine()) {
    sign_ = engine_.get()->program()->variant == "x86-64-v4" ? 1.0f : -1.0f;
  }

  float expected(float x, float y) const { return (x + sign_ * y) * kSampleFactor; }

  bool is_right(Session& session, int64_t batch, float seed) const {
    Tensor x({batch, 4}, seed, 1), y({batch, 4}, 2 * seed, 0.5f), out({batch, 4});
    if (!run(session, x, y, out).ok()) return false;
    for (size_t i = 0; i < out.values.size(); ++i)
      if (out.values[i] != expected(x.values[i], y.values[i])) return false;
    return true;
  }

  Status run_shapes(std::vector<int64_t> x_shape, std::vector<int64_t> y_shape) {
    const auto session = engine_.session();
    Tensor x(std::move(x_shape)), y(std::move(y_shape)), out({1, 4});
    return run(*session, x, y, out);
  }

  LoadedEngine engine_;
  float sign_ = 1;
};

TEST_F(SessionTest, RunsEveryBatchOnEveryNumberOfThreads) {
  for (const int threads : {0, 1, 2, 3, 16}) {
    const auto session = engine_.session(threads);
    for (int64_t batch = 1; batch <= 32; ++batch)
      EXPECT_TRUE(is_right(*session, batch, static_cast<float>(batch))) << batch;
    // Shapes seen before, some of them forgotten since.
    for (int64_t batch = 32; batch >= 1; batch -= 3)
      EXPECT_TRUE(is_right(*session, batch, 7)) << batch;
  }
}

TEST_F(SessionTest, ManySessionsAtOnce) {
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&, i] {
      const auto session = engine_.session(1 + i % 3);
      for (int round = 0; round < 200; ++round)
        if (!is_right(*session, 1 + (i * 7 + round) % 32, static_cast<float>(i))) ++wrong;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST_F(SessionTest, OutlivesTheCallersReferenceToTheEngine) {
  auto loaded = std::make_unique<LoadedEngine>(make_sample_engine());
  const std::weak_ptr<const Engine> engine = loaded->get();
  auto session = loaded->session();
  EXPECT_FALSE(engine.expired());
  EXPECT_TRUE(is_right(*session, 3, 1));
  session.reset();
  loaded.reset();
  EXPECT_TRUE(engine.expired());
}

TEST_F(SessionTest, TakesStridedInputs) {
  const auto session = engine_.session();
  Tensor x({3, 4}, 1, 1), y({3, 4}), out({3, 4});
  Tensor transposed({4, 3}, 1, 1);  // x as [3, 4] with strides {1, 3}
  transposed.shape = {3, 4};
  transposed.strides = {1, 3};
  expect_ok(run(*session, transposed, y, out));
  for (int64_t i = 0; i < 3; ++i)
    for (int64_t j = 0; j < 4; ++j)
      EXPECT_EQ(out.values[static_cast<size_t>(i * 4 + j)],
                expected(transposed.values[static_cast<size_t>(i + 3 * j)], 0));
}

TEST_F(SessionTest, TakesBroadcastAndReversedInputs) {
  const auto session = engine_.session();
  Tensor x({2, 4}, 1, 1), y({2, 4}, 1, 1), out({2, 4});
  x.strides = {0, 1};
  y.strides = {-4, -1};
  const std::vector<TensorView> inputs = {
      x.view(), {y.values.data() + 7, DType::F32, y.shape, y.strides, {}}};
  const std::vector<TensorView> outputs = {out.view()};
  expect_ok(session->run(inputs, outputs));
  for (size_t i = 0; i < 8; ++i)
    EXPECT_EQ(out.values[i], expected(x.values[i % 4], y.values[7 - i]));
}

TEST_F(SessionTest, StridesOfSingleElementsDoNotMatter) {
  const auto session = engine_.session();
  Tensor x({1, 4}, 1, 1), y({1, 4}), out({1, 4});
  x.strides = {999, 1};
  out.strides = {-7, 1};
  expect_ok(run(*session, x, y, out));
  EXPECT_EQ(out.values[3], expected(4, 0));
}

TEST_F(SessionTest, GivesOutputShapes) {
  const auto session = engine_.session();
  const std::vector<int64_t> shape = {9, 4};
  const std::vector<TensorView> inputs(2, {nullptr, DType::F32, shape, {}, {}});
  const auto shapes = session->output_shapes(inputs);
  ASSERT_TRUE(shapes.ok()) << shapes.status().message();
  ASSERT_EQ(shapes->size(), 1u);
  EXPECT_EQ((*shapes)[0].shape, shape);
}

TEST_F(SessionTest, RefusesShapes) {
  expect_error(run_shapes({33, 4}, {33, 4}), StatusCode::OutOfRange,
               "input \"x\" dim 0: got 33, expected 1..32");
  expect_error(run_shapes({0, 4}, {0, 4}), StatusCode::OutOfRange,
               "input \"x\" dim 0: got 0, expected 1..32");
  expect_error(run_shapes({2, 5}, {2, 4}), StatusCode::OutOfRange,
               "input \"x\" dim 1: got 5, expected 4");
  expect_error(run_shapes({2, 4}, {3, 4}), StatusCode::OutOfRange,
               "input \"y\" dim 0: got 3, expected 2 (batch, the size of input \"x\" dim 0)");
  expect_error(run_shapes({2, 4, 1}, {2, 4}), StatusCode::InvalidArgument,
               "input \"x\": got rank 3, expected 2");
}

TEST_F(SessionTest, IsUsableAfterAnError) {
  const auto session = engine_.session();
  EXPECT_TRUE(is_right(*session, 4, 1));
  Tensor x({2, 4}), y({3, 4}), out({2, 4});
  EXPECT_FALSE(run(*session, x, y, out).ok());
  EXPECT_FALSE(is_right(*session, 40, 1));
  EXPECT_TRUE(is_right(*session, 2, 1));
}

TEST_F(SessionTest, RefusesCountsTypesAndData) {
  const auto session = engine_.session();
  Tensor x({2, 4}), out({2, 4});
  const TensorView view = x.view(), to = out.view();
  const auto run = [&](std::vector<TensorView> inputs, std::vector<TensorView> outputs) {
    return session->run(inputs, outputs);
  };
  const auto with = [](TensorView tensor, auto change) {
    change(tensor);
    return tensor;
  };
  expect_error(run({view}, {to}), StatusCode::InvalidArgument, "got 1 input, expected 2");
  expect_error(run({view, view}, {}), StatusCode::InvalidArgument, "got 0 outputs, expected 1");
  const TensorView half = with(view, [](TensorView& t) { t.dtype = DType::F16; });
  expect_error(run({half, view}, {to}), StatusCode::InvalidArgument,
               "input \"x\": got dtype f16, expected f32");
  const TensorView null = with(view, [](TensorView& t) { t.data = nullptr; });
  expect_error(run({view, null}, {to}), StatusCode::InvalidArgument,
               "input \"y\": its data is null");
  expect_error(run({view, view}, {null}), StatusCode::InvalidArgument,
               "output \"out\": its data is null");
  expect_error(run({view, view}, {half}), StatusCode::InvalidArgument,
               "output \"out\": got dtype f16, expected f32");
  const std::vector<int64_t> other = {3, 4}, strides = {1, 2};
  expect_error(run({view, view}, {with(to, [&](TensorView& t) { t.shape = other; })}),
               StatusCode::InvalidArgument, "output \"out\": got shape [3, 4], expected [2, 4]");
  expect_error(run({view, view}, {with(to, [&](TensorView& t) { t.strides = strides; })}),
               StatusCode::InvalidArgument,
               "output \"out\": got a strided tensor, expected a contiguous one");
}

TEST_F(SessionTest, RefusesTensorsOfOtherDevices) {
  const auto session = engine_.session();
  EXPECT_EQ(session->device(), DeviceId());
  Tensor x({2, 4}), out({2, 4});
  TensorView view = x.view(), to = out.view(), elsewhere = view;
  elsewhere.device = {DeviceType::Cuda, 1};
  const std::vector<TensorView> right = {view, view}, wrong = {view, elsewhere}, outputs = {to},
                                wrong_outputs = {elsewhere};
  expect_error(session->run(wrong, outputs), StatusCode::InvalidArgument,
               "input \"y\": got a tensor on cuda:1, expected one on the CPU, where the engine's "
               "program runs");
  expect_error(
      session->run(right, wrong_outputs), StatusCode::InvalidArgument,
      "output \"out\": got a tensor on cuda:1, expected one on the CPU, where the engine's "
      "program runs");
  expect_ok(session->run(right, outputs));
}

TEST_F(SessionTest, RefusesDevicesThatAreNotThere) {
  for (const int device : {-1, 1})
    expect_error(
        Session::create(engine_.get(), {.device = device}).status(), StatusCode::InvalidArgument,
        "got device " + std::to_string(device) + ", expected 0..0 for a program of the target cpu");
}

// What a session asked of its caller's allocator.
struct Memory {
  std::vector<uint64_t> given, taken;
  bool is_empty = false;
  size_t offset = 0;

  AllocatorHooks hooks() {
    return {this,
            [](void* user, uint64_t bytes, uint64_t alignment, DeviceId device, void*) -> void* {
              auto* self = static_cast<Memory*>(user);
              EXPECT_EQ(device, DeviceId());
              if (self->is_empty) return nullptr;
              self->given.push_back(bytes);
              auto* data = static_cast<std::byte*>(
                  std::aligned_alloc(alignment, align_up(bytes + self->offset, alignment)));
              return data + self->offset;
            },
            [](void* user, void* data, uint64_t bytes, DeviceId, void*) {
              auto* self = static_cast<Memory*>(user);
              self->taken.push_back(bytes);
              std::free(static_cast<std::byte*>(data) - self->offset);
            }};
  }
};

TEST_F(SessionTest, TakesMemoryFromTheCallersAllocator) {
  Memory memory;
  auto session =
      std::move(*Session::create(engine_.get(), {.num_threads = 1, .allocator = memory.hooks()}));
  EXPECT_TRUE(is_right(*session, 2, 1));
  ASSERT_EQ(memory.given.size(), 1u);
  EXPECT_GE(memory.given[0], 2u * 4 * sizeof(float));  // the sum lies there
  EXPECT_TRUE(is_right(*session, 1, 1));
  EXPECT_EQ(memory.given.size(), 1u);
  EXPECT_TRUE(is_right(*session, 32, 1));  // larger
  EXPECT_EQ(memory.given.size(), 2u);
  EXPECT_EQ(memory.taken, std::vector(1, memory.given[0]));
  Tensor x({32, 4}, 1, 1), y({32, 4}), out({32, 4});
  x.strides = {1, 32};
  expect_ok(run(*session, x, y, out));
  EXPECT_EQ(out.values[1], expected(33, 0));
  ASSERT_EQ(memory.given.size(), 3u);  // the dense copy
  EXPECT_EQ(memory.given[2], 32u * 4 * sizeof(float));
  session.reset();
  EXPECT_EQ(memory.taken.size(), 3u);
}

TEST_F(SessionTest, SaysWhatIsWrongWithTheAllocator) {
  Memory memory{.is_empty = true};
  const auto session =
      std::move(*Session::create(engine_.get(), {.num_threads = 1, .allocator = memory.hooks()}));
  Tensor x({2, 4}), y({2, 4}), out({2, 4});
  expect_error(run(*session, x, y, out), StatusCode::OutOfMemory,
               "the session's allocator has no 128 bytes on the CPU");
  memory.is_empty = false;
  memory.offset = 4;
  expect_error(run(*session, x, y, out), StatusCode::InvalidArgument,
               "the session's allocator gave memory that is not aligned to 64 bytes");
  EXPECT_EQ(memory.given, memory.taken);
  memory.offset = 0;
  EXPECT_TRUE(is_right(*session, 2, 1));
}

// A kernel that counts its runs in the first input's first element.
//   mov rax, [rdi]; inc dword [rax]; xor eax, eax; ret
constexpr std::array<uint8_t, 8> kCountCode = {0x48, 0x8b, 0x07, 0xff, 0x00, 0x31, 0xc0, 0xc3};

TEST_F(SessionTest, RunsAreCancelledBetweenSteps) {
  SampleEngine sample = make_add_engine();
  for (auto& program : sample.spec.programs) {
    program.code = std::as_bytes(std::span(kCountCode));
    program.steps.resize(3, program.steps[0]);
  }
  const LoadedEngine engine(sample);
  const auto session = engine.session();
  for (const bool profiling : {false, true}) {
    session->enable_profiling(profiling);
    Tensor x({1, 4}), y({1, 4}), out({1, 4});
    const std::vector<TensorView> inputs = {x.view(), y.view()}, outputs = {out.view()};
    int32_t count = 0;
    const auto* flag = reinterpret_cast<const volatile int32_t*>(x.values.data());
    const auto counted = [&] {
      std::memcpy(&count, x.values.data(), sizeof count);
      return count;
    };
    const char* text = "the run was cancelled: what its outputs hold is unspecified";
    expect_error(session->run(inputs, outputs, {.cancel = flag}), StatusCode::Cancelled, text);
    EXPECT_EQ(counted(), 1);  // the first step set the flag
    expect_error(session->run(inputs, outputs, {.cancel = flag}), StatusCode::Cancelled, text);
    EXPECT_EQ(counted(), 1);
    expect_ok(session->run(inputs, outputs));
    EXPECT_EQ(counted(), 4);
  }
}

TEST_F(SessionTest, RefusesNumbersOfThreads) {
  for (const int threads : {-1, 100000})
    EXPECT_EQ(Session::create(engine_.get(), {.num_threads = threads}).status().code(),
              StatusCode::InvalidArgument);
}

// A kernel that waits until the first input's first element is set.
//   mov rax, [rdi]; wait: mov ecx, [rax]; test ecx, ecx; je wait; ret
constexpr std::array<uint8_t, 10> kWaitCode = {0x48, 0x8b, 0x07, 0x8b, 0x08,
                                               0x85, 0xc9, 0x74, 0xfa, 0xc3};

TEST_F(SessionTest, ServesOneThreadAtATime) {
  SampleEngine sample = make_add_engine();
  for (auto& program : sample.spec.programs) program.code = std::as_bytes(std::span(kWaitCode));
  const LoadedEngine engine(sample);
  const auto session = engine.session();
  Tensor x({1, 4}), y({1, 4}), out({1, 4});
  // The runner may find the session busy at first: so it asks again.
  std::thread runner([&] {
    while (!run(*session, x, y, out).ok()) std::this_thread::yield();
  });
  const std::vector<TensorView> inputs = {x.view(), y.view()};
  Status status;
  while (status.ok()) {
    std::this_thread::yield();
    status = session->output_shapes(inputs).status();
  }
  std::atomic_ref(x.values[0]).store(1.0f);
  runner.join();
  expect_error(status, StatusCode::InvalidArgument,
               "the session is in use by another thread: a session serves one at a time, create "
               "one each");
  EXPECT_TRUE(session->output_shapes(inputs).ok());
}

TEST_F(SessionTest, EmptyBatchIfTheRangeAllowsIt) {
  SampleEngine sample = make_sample_engine();
  sample.spec.symbols[0].min = 0;
  const LoadedEngine engine(sample);
  const auto session = engine.session(2);
  Tensor x({0, 4}), y({0, 4}), out({0, 4});
  expect_ok(run(*session, x, y, out));
  EXPECT_TRUE(is_right(*session, 2, 1));
}

TEST_F(SessionTest, ASizeThatIsNotWhatItsSymbolSaysIsRefused) {
  SampleEngine sample = make_sample_engine();
  sample.spec.symbols[0].factor =
      2;  // but the shapes of the engine say that the batch is the symbol
  sample.spec.symbols[0].offset = 1;
  const LoadedEngine engine(sample);
  const auto session = engine.session();
  Tensor x({5, 4}), y({5, 4}), out({5, 4});
  expect_error(run(*session, x, y, out), StatusCode::OutOfRange,
               "input \"x\" dim 0: got 5, expected 2 (batch, the size of input \"x\" dim 0)");
  Tensor small({1, 4}), large({66, 4});
  expect_error(run(*session, small, small, out), StatusCode::OutOfRange,
               "input \"x\" dim 0: got 1, expected 3..65");
  expect_error(run(*session, large, large, out), StatusCode::OutOfRange,
               "input \"x\" dim 0: got 66, expected 32 (batch, the size of input \"x\" dim 0)");
}

TEST_F(SessionTest, SizesThatOverflowAreErrors) {
  SampleEngine sample = make_sample_engine();
  sample.spec.symbols[0].max = int64_t{1} << 62;
  const LoadedEngine engine(sample);
  const auto session = engine.session();
  const auto shapes_for = [&](int64_t batch) {
    const std::vector<int64_t> shape = {batch, 4};
    const std::vector<TensorView> inputs(2, {nullptr, DType::F32, shape, {}, {}});
    return session->output_shapes(inputs).status();
  };
  expect_error(shapes_for(int64_t{1} << 61), StatusCode::OutOfRange,
               "the size batch*4 overflows or divides by zero for these input shapes");
  EXPECT_EQ(shapes_for(int64_t{1} << 50).code(), StatusCode::OutOfRange);
  expect_error(shapes_for(int64_t{1} << 43), StatusCode::OutOfRange,
               "\"x\" is too large: [8796093022208, 4]");
}

// Whatever made the number of tasks too small: memory that nobody wrote is no result.
TEST_F(SessionTest, EveryByteIsPromisedToSomeTask) {
  const auto run_with_tasks = [](size_t step, engine::SizeInstruction tasks) {
    SampleEngine sample = make_sample_engine();
    sample.spec.sizes.push_back(tasks);
    for (auto& program : sample.spec.programs)
      program.steps[step].tasks = static_cast<engine::Slot>(sample.spec.sizes.size() - 1);
    const LoadedEngine engine(sample);
    const auto session = engine.session();
    Tensor x({2, 4}), y({2, 4}), out({2, 4});
    return run(*session, x, y, out);
  };
  using engine::SizeOp;
  expect_error(run_with_tasks(1, {SizeOp::Constant, -1, -1, 0}), StatusCode::InvalidEngine,
               "damaged engine: its steps write at most 0 of the 32 bytes of output \"out\" for "
               "batch = 2");
  expect_error(run_with_tasks(1, {SizeOp::Constant, -1, -1, 7}), StatusCode::InvalidEngine,
               "damaged engine: its steps write at most 28 of the 32 bytes of output \"out\" for "
               "batch = 2");
  expect_error(run_with_tasks(0, {SizeOp::Constant, -1, -1, 0}), StatusCode::InvalidEngine,
               "damaged engine: its steps write at most 0 of the 32 bytes of buffer 3 for "
               "batch = 2");
  expect_ok(run_with_tasks(0, {SizeOp::Constant, -1, -1, 8}));
}

TEST_F(SessionTest, BuffersAreAsLargeAsTheirTensors) {
  SampleEngine sample = make_sample_engine();
  for (auto& program : sample.spec.programs) program.buffers[2].bytes = 1;
  const LoadedEngine engine(sample);
  const auto session = engine.session();
  Tensor x({2, 4}), y({2, 4}), out({2, 4});
  expect_error(run(*session, x, y, out), StatusCode::InvalidEngine,
               "damaged engine: buffer 2 has another size than its tensor");
}

// mov eax, failed; ret
std::array<uint8_t, 6> code_that_reports(uint8_t failed) {
  return {0xb8, failed, 0x00, 0x00, 0x00, 0xc3};
}

TEST_F(SessionTest, ChecksThatFailEndTheRun) {
  using engine::CheckKind;
  const auto status = [](uint8_t failed, const std::vector<engine::CheckSpec>& checks, int threads,
                         bool profiling) {
    const std::array<uint8_t, 6> code = code_that_reports(failed);
    SampleEngine sample = kiln::testing::make_add_engine();
    for (auto& program : sample.spec.programs) program.code = std::as_bytes(std::span(code));
    for (auto& program : sample.spec.programs) program.steps[0].checks = checks;
    const LoadedEngine engine(sample);
    const auto session = engine.session(threads);
    session->enable_profiling(profiling);
    Tensor x({32, 4}), y({32, 4}), out({32, 4});
    return run(*session, x, y, out);
  };
  const engine::CheckSpec index{"gather", CheckKind::Index, 1, -1},
      input{"rows", CheckKind::Index, 1, 0}, both{"index", CheckKind::IndexFromEnd, 0, -1},
      divisor{"fmod", CheckKind::Nonzero, -1, -1},
      condition{"linalg_inv", CheckKind::Nonzero, -1, -1, "got a singular matrix"};
  for (const int threads : {1, 2}) {
    for (const bool profiling : {false, true}) {
      expect_ok(status(0, {index, divisor}, threads, profiling));
      expect_ok(status(0xff, {}, threads, profiling));  // means nothing in a step without checks
      expect_ok(status(0xfc, {index, divisor}, threads, profiling));
      expect_error(status(1, {index, divisor}, threads, profiling), StatusCode::IndexError,
                   "[gather] got an index that is out of range, expected 0 <= index < 4");
      expect_error(status(1, {input}, threads, profiling), StatusCode::IndexError,
                   "[rows] got an index that is out of range, expected 0 <= index < 4");
      expect_error(status(3, {both, divisor}, threads, profiling), StatusCode::IndexError,
                   "[index] got an index that is out of range, expected -32 <= index < 32");
      expect_error(status(2, {index, condition}, threads, profiling), StatusCode::InvalidArgument,
                   "[linalg_inv] got a singular matrix");
      expect_error(status(2, {index, divisor}, threads, profiling), StatusCode::DivisionByZero,
                   "[fmod] ZeroDivisionError: got a division of integers by zero, expected "
                   "divisors other than 0");
    }
  }
}

TEST_F(SessionTest, RequirementsAreCheckedForEveryShape) {
  SampleEngine sample = make_sample_engine();
  const auto slot = [&](engine::SizeInstruction size) {
    sample.spec.sizes.push_back(size);
    return static_cast<engine::Slot>(sample.spec.sizes.size() - 1);
  };
  // batch % 4, and batch - 7
  const engine::Slot rest = slot({engine::SizeOp::Mod, 0, 1, 0});
  const engine::Slot seven = slot({engine::SizeOp::Constant, -1, -1, 7});
  const engine::Slot difference = slot({engine::SizeOp::Sub, 0, seven, 0});
  sample.spec.requirements = {
      {rest, engine::RequirementKind::Sizes, "", "x.size(0) % 4 != 0"},
      {difference, engine::RequirementKind::Index, "amax", "another size than 7"}};
  const LoadedEngine engine(sample);
  const auto session = engine.session();
  const auto run_batch = [&](int64_t batch) {
    Tensor x({batch, 4}), y({batch, 4}), out({batch, 4});
    return run(*session, x, y, out);
  };
  for (int round = 0; round < 3; ++round) {
    expect_ok(run_batch(5));
    expect_error(run_batch(8), StatusCode::OutOfRange,
                 "the sizes of the inputs do not fit together: got x.size(0) = 8, expected "
                 "x.size(0) % 4 != 0");
    expect_error(run_batch(7), StatusCode::IndexError,
                 "[amax] got x.size(0) = 7, expected another size than 7");
    expect_ok(run_batch(6));
  }
  Tensor x({8, 4}), y({8, 4});
  const std::vector<TensorView> inputs = {x.view(), y.view()};
  EXPECT_FALSE(session->output_shapes(inputs).ok());
  const Result<std::string> description = describe(*engine.get());
  ASSERT_TRUE(description.ok()) << description.status().message();
  const std::string& described = *description;
  EXPECT_NE(described.find(R"("operation":"amax","expected":"another size than 7")"),
            std::string::npos)
      << described;
  // The memory at min, opt and max is described whether or not these are sizes to run.
  EXPECT_EQ(described.find("null"), std::string::npos) << described;
}

TEST_F(SessionTest, TellsTheTimeOfEachStep) {
  const auto session = engine_.session(2);
  EXPECT_EQ(describe_profile(*session), "[]");
  session->enable_profiling(true);
  EXPECT_TRUE(is_right(*session, 32, 1));
  ASSERT_EQ(session->profile().size(), 2u);
  EXPECT_EQ(session->profile()[1].tasks, 128);
  EXPECT_EQ(session->profile()[1].threads, 2);
  EXPECT_GT(session->profile()[1].nanoseconds, 0);
  const std::string json = describe_profile(*session);
  EXPECT_NE(
      json.find(R"({"kernel":"scale_1","kind":"loop_nest","sources":["mul","factor"],"tasks":128)"),
      std::string::npos);
}

// The sample whose last step repeats while the first byte of the sum is not 0.
TEST(Repeats, GoOnUntilTheirConditionIsFalseOrTheRunIsCancelled) {
  SampleEngine sample = kiln::testing::make_sample_engine();
  for (engine::ProgramSpec& program : sample.spec.programs) {
    program.version = engine::kProgramVersion;
    program.steps.push_back(program.steps[1]);
    program.buffers[3].last_step = 2;
    program.repeats = {{2, 3, 3}};
  }
  const LoadedEngine engine(sample);
  const auto session = engine.session();
  Tensor x({2, 4}, 1), y({2, 4}, 1), out({2, 4});
  const std::array inputs = {x.view(), y.view()};
  const std::array outputs = {out.view()};
  expect_ok(session->run(inputs, outputs));  // 2 and 0 have zeros there
  x.values[0] = 1.1f;
  int32_t cancelled = 0;
  std::thread thread([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    __atomic_store_n(&cancelled, 1, __ATOMIC_RELAXED);
  });
  const Status status = session->run(inputs, outputs, {.cancel = &cancelled});
  thread.join();
  EXPECT_EQ(status.code(), StatusCode::Cancelled);
  EXPECT_EQ(cancelled, 1);
  x.values[0] = 1;
  expect_ok(session->run(inputs, outputs));
}

// What a step writes that may never run is not there for others.
TEST(Repeats, DoNotPromiseOutputs) {
  SampleEngine sample = kiln::testing::make_sample_engine();
  for (engine::ProgramSpec& program : sample.spec.programs) {
    program.version = engine::kProgramVersion;
    program.repeats = {{1, 2, 3}};
  }
  const LoadedEngine engine(sample);
  Tensor x({2, 4}), y({2, 4});
  const Status status = engine.session()->output_shapes(std::array{x.view(), y.view()}).status();
  EXPECT_EQ(status.code(), StatusCode::InvalidEngine);
  EXPECT_NE(status.message().find("its steps write at most 0"), std::string::npos)
      << status.message();
}

// The addition of both programs as a kernel of the user's own, whose tensors are [batch, 4] as `sizes` says.
SampleEngine calling(const std::string& kernel, std::vector<engine::Slot> sizes) {
  SampleEngine sample = make_add_engine();
  for (engine::ProgramSpec& program : sample.spec.programs) {
    program.version = engine::kProgramVersion;
    const auto first = static_cast<engine::Slot>(sample.spec.sizes.size() + program.sizes.size());
    program.sizes.push_back({.op = engine::SizeOp::Constant, .immediate = 0});
    program.sizes.push_back(
        {.op = engine::SizeOp::Constant, .immediate = static_cast<int64_t>(sizes.size())});
    engine::StepSpec& step = program.steps[0];
    step.kind = engine::StepKind::Call;
    step.writes.back() = program.buffers[2].bytes;
    for (int tensor = 0; tensor < 3; ++tensor) {
      step.params.insert(step.params.end(), {first, first + 1});
      step.params.insert(step.params.end(), sizes.begin(), sizes.end());
    }
    program.kernels[0].function = kernel + " {\"k\":1}";
  }
  return sample;
}

int add_kernel(void* user, const kiln_kernel_call* call) {
  const auto *x = static_cast<const float*>(call->inputs[0].data),
             *y = static_cast<const float*>(call->inputs[1].data);
  auto* sum = static_cast<float*>(call->outputs[0].data);
  *static_cast<std::string*>(user) = call->arguments;
  if (call->num_inputs != 2 || call->num_outputs != 1 || call->outputs[0].rank != 2) return 1;
  for (int64_t i = 0; i < call->outputs[0].shape[0] * call->outputs[0].shape[1]; ++i)
    sum[i] = x[i] + y[i];
  return 0;
}

TEST(Calls, RunTheKernelOfTheirName) {
  static std::string arguments;
  const LoadedEngine engine(calling("runtime_test::add", {0, 1}));
  const Status missing = Session::create(engine.get(), {}).status();
  EXPECT_EQ(missing.code(), StatusCode::Unsupported);
  EXPECT_NE(missing.message().find("the engine needs a kernel for runtime_test::add"),
            std::string::npos);
  const cpu::NamedKernel kernel{"runtime_test::add", {add_kernel, &arguments}};
  expect_ok(cpu::register_kernels({&kernel, 1}));
  Tensor x({2, 4}, 1, 1), y({2, 4}, 3), out({2, 4});
  expect_ok(run(*engine.session(), x, y, out));
  for (size_t i = 0; i < out.values.size(); ++i)
    EXPECT_EQ(out.values[i], x.values[i] + y.values[i]);
  EXPECT_EQ(arguments, R"({"k":1})");
}

// Made up: sizes that are valid, and not those of the buffers.
TEST(Calls, GiveNoTensorOfAnotherSizeThanItsBuffer) {
  const cpu::NamedKernel kernel{"runtime_test::copy", {add_kernel, nullptr}};
  expect_ok(cpu::register_kernels({&kernel, 1}));
  for (const std::vector<engine::Slot>& sizes :
       {std::vector<engine::Slot>{0}, {0, 1, 1}, {1, 1}, {}, {3, 3}}) {
    const LoadedEngine engine(calling("runtime_test::copy", sizes));
    Tensor x({2, 4}), y({2, 4}), out({2, 4});
    const Status status = run(*engine.session(), x, y, out);
    EXPECT_EQ(status.code(), StatusCode::InvalidEngine);
    EXPECT_NE(status.message().find("has another size than its buffer"), std::string::npos);
  }
}

// The sample without its multiplication, whose output is what x is to be.
class UpdateTest : public ::testing::Test {
 protected:
  UpdateTest() : engine_(updating()), session_(engine_.session()) {
    sign_ = engine_.get()->program()->variant == "x86-64-v4" ? 1.0f : -1.0f;
  }

  static SampleEngine updating() {
    SampleEngine sample = make_add_engine();
    sample.spec.outputs[0].updates = 0;
    for (engine::ProgramSpec& program : sample.spec.programs)
      program.version = engine::kProgramVersion;
    return sample;
  }

  Status run_views(const TensorView& x, const TensorView& y, const TensorView& out) {
    return session_->run(std::array{x, y}, std::array{out});
  }

  LoadedEngine engine_;
  std::unique_ptr<Session> session_;
  float sign_ = 1;
};

TEST_F(UpdateTest, ChangesAnInputInPlace) {
  Tensor x({3, 4}, 1, 1), y({3, 4}, 5, 2);
  for (int step = 1; step <= 3; ++step) {
    expect_ok(run_views(x.view(), y.view(), x.view()));
    for (size_t i = 0; i < 12; ++i)
      EXPECT_EQ(x.values[i],
                1 + static_cast<float>(i) +
                    static_cast<float>(step) * sign_ * (5 + 2 * static_cast<float>(i)));
  }
}

TEST_F(UpdateTest, LeavesAnInputAloneWhoseOutputIsElsewhere) {
  Tensor x({3, 4}, 1, 1), y({3, 4}, 5, 2), out({3, 4});
  const std::vector<float> before = x.values;
  expect_ok(run_views(x.view(), y.view(), out.view()));
  EXPECT_EQ(x.values, before);
  for (size_t i = 0; i < 12; ++i) EXPECT_EQ(out.values[i], x.values[i] + sign_ * y.values[i]);
}

TEST_F(UpdateTest, TakesStridedInputsWhoseOutputIsElsewhere) {
  Tensor x({4, 3}, 1, 1), y({3, 4}, 5, 2), out({3, 4});
  x.shape = {3, 4};
  x.strides = {1, 3};
  expect_ok(run_views(x.view(), y.view(), out.view()));
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 4; ++j)
      EXPECT_EQ(out.values[4 * i + j], x.values[i + 3 * j] + sign_ * y.values[4 * i + j]);
}

TEST_F(UpdateTest, ReadsOtherInputsInItsMemoryFirst) {
  Tensor x({2, 4}, 1, 1);
  TensorView reversed = x.view();
  const std::vector<int64_t> strides = {-4, -1};
  reversed.data = x.values.data() + 7;
  reversed.strides = strides;
  expect_ok(run_views(x.view(), reversed, x.view()));
  for (size_t i = 0; i < 8; ++i)
    EXPECT_EQ(x.values[i], 1 + static_cast<float>(i) + sign_ * (1 + static_cast<float>(7 - i)));
}

TEST_F(UpdateTest, RefusesAnOutputThatIsPartlyItsInput) {
  Tensor memory({4, 4}, 1, 1), y({3, 4});
  const std::vector<int64_t> shape = {3, 4}, gaps = {5, 1};
  const auto at = [&](size_t first, const std::vector<int64_t>& strides) {
    return TensorView{memory.values.data() + first, DType::F32, shape, strides, {}};
  };
  const char* message =
      "output \"out\" overlaps the input \"x\" that it updates, expected the same memory without "
      "gaps, or other memory";
  const std::vector<float> before = memory.values;
  expect_error(run_views(at(0, {}), y.view(), at(4, {})), StatusCode::InvalidArgument, message);
  expect_error(run_views(at(0, gaps), y.view(), at(0, {})), StatusCode::InvalidArgument, message);
  EXPECT_EQ(memory.values, before);
}

TEST_F(UpdateTest, IsDescribed) {
  EXPECT_NE(describe(*engine_.get())->find("\"updates\":\"x\""), std::string::npos);
}

}  // namespace
}  // namespace kiln::runtime
