// Sessions of a device that queues its work: streams, and failures that are told later. Nothing of
// its memory can be read here.
#include <optional>
#include <string>

#include "runtime/devices.h"
#include "runtime/sessions.h"

namespace kiln::runtime {
namespace {

using kiln::testing::expect_error;
using kiln::testing::expect_ok;
using kiln::testing::LoadedEngine;
using kiln::testing::make_sample_engine;
using kiln::testing::SampleEngine;

// What the machine was asked for, as "allocate 96 on 1, A"; A and B are streams, - is none.
std::vector<std::string> log;
// The device on which all work is, and the bits of the checks that the next run finds failed.
int bound_device = -1;
uint64_t next_failure = 0;

int stream_a = 0, stream_b = 0;

std::string place_of(int device, const void* stream) {
  const char* name = stream == nullptr ? "-" : stream == &stream_a ? "A" : "B";
  return " on " + std::to_string(device) + ", " + name;
}

std::vector<std::string> take_log() { return std::exchange(log, {}); }

// Addresses that nothing lies at.
Result<std::byte*> allocate(uint64_t bytes, int device, void* stream) {
  static uint64_t next = 1 << 16;
  log.push_back("allocate " + std::to_string(bytes) + place_of(device, stream));
  next += 1 << 16;
  return reinterpret_cast<std::byte*>(next);
}

void release(std::byte*, uint64_t bytes, int device, void* stream) {
  log.push_back("release " + std::to_string(bytes) + place_of(device, stream));
}

Status copy_strided(const StridedCopy&, int device, void* stream) {
  log.push_back("copy" + place_of(device, stream));
  return Status();
}

const DeviceMemory kMemory = {.type = DeviceType::Cuda,
                              .has_streams = true,
                              .count = [] { return 2; },
                              .allocate = allocate,
                              .release = release,
                              .copy_strided = copy_strided};

// Tells a failure at its next run or when it is waited for.
class QueuedProgram : public BoundProgram {
 public:
  explicit QueuedProgram(const BindRequest& request) : device_(request.device) {
    workspace_bytes_ = request.temporary_bytes;
    bound_device = device_;
  }
  RunOutcome run(const RunRequest& request) override {
    if (is_cancelled(request.cancel)) return cancelled_outcome();
    if (pending_ != 0) return synchronize();
    log.push_back("run" + place_of(device_, request.stream));
    pending_ = std::exchange(next_failure, 0);
    return {};
  }
  RunOutcome synchronize() override {
    log.push_back("wait");
    return {Status(), 0, std::exchange(pending_, 0)};
  }

 private:
  const int device_;
  uint64_t pending_ = 0;
};

class QueuedExecutable : public Executable {
 public:
  Result<std::unique_ptr<BoundProgram>> bind(const BindRequest& request) const override {
    return std::unique_ptr<BoundProgram>(new QueuedProgram(request));
  }
};

const Device kDevice = {.target = "stub",
                        .memory = &kMemory,
                        .obstacle = [](const engine::ProgramSpec&) { return std::string(); },
                        .load = [](const LoadRequest&) -> Result<std::unique_ptr<Executable>> {
                          return std::unique_ptr<Executable>(new QueuedExecutable);
                        }};

// A sample engine for the machine above, with a check in its first step and batches up to 64.
SampleEngine make_engine() {
  SampleEngine sample = make_sample_engine();
  sample.spec.symbols[0].max = 64;
  for (auto& program : sample.spec.programs) {
    program.target = "stub";
    program.features.clear();
    program.steps[0].checks = {{"rows", engine::CheckKind::Index, 1, 0}};
  }
  return sample;
}

constexpr const char* kLateFailure =
    "[rows] got an index that is out of range, expected 0 <= index < 4";

class QueuedDeviceTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { ASSERT_TRUE(add_device(kDevice)); }
  QueuedDeviceTest() : engine_(make_engine()) {
    log.clear();
    next_failure = 0;
    session_ = make_session({.num_threads = 1, .device = 1});
  }

  std::unique_ptr<Session> make_session(const SessionOptions& options) const {
    return std::move(*Session::create(engine_.get(), options));
  }

  // Tensors at addresses that nothing lies at.
  Status run(int64_t batch, void* stream, DeviceId device = {DeviceType::Cuda, 1},
             CancelFlag cancel = nullptr) {
    const std::vector<int64_t> shape = {batch, 4};
    const TensorView tensor = {this, DType::F32, shape, strides_, device};
    TensorView output = tensor;
    output.strides = {};
    const std::vector<TensorView> inputs = {tensor, output}, outputs = {output};
    return session_->run(inputs, outputs, {.stream = stream, .cancel = cancel});
  }

  LoadedEngine engine_;
  std::unique_ptr<Session> session_;
  std::vector<int64_t> strides_;
};

using Log = std::vector<std::string>;

TEST_F(QueuedDeviceTest, WorksOnTheSessionsDeviceAndTheCallersStream) {
  expect_ok(run(2, &stream_a));
  EXPECT_EQ(bound_device, 1);
  EXPECT_EQ(take_log(), (Log{"allocate 64 on 1, A", "run on 1, A"}));
  strides_ = {1, 2};
  expect_ok(run(2, &stream_a));
  EXPECT_EQ(take_log(), (Log{"allocate 32 on 1, A", "copy on 1, A", "run on 1, A"}));
  strides_.clear();
  expect_ok(run(32, &stream_a));
  EXPECT_EQ(take_log(), (Log{"release 64 on 1, A", "allocate 512 on 1, A", "run on 1, A"}));
  session_.reset();
  EXPECT_EQ(take_log(), (Log{"release 32 on 1, A", "release 512 on 1, A"}));
}

TEST_F(QueuedDeviceTest, RefusesTensorsAndDevicesOfOtherIndices) {
  expect_error(run(2, nullptr, {DeviceType::Cuda, 0}), StatusCode::InvalidArgument,
               "input \"x\": got a tensor on cuda:0, expected one on cuda:1, the session's device");
  expect_error(run(2, nullptr, {}), StatusCode::InvalidArgument,
               "input \"x\": got a tensor on the CPU, expected one on cuda:1, where the engine's "
               "program runs");
  expect_error(Session::create(engine_.get(), {.device = 2}).status(), StatusCode::InvalidArgument,
               "got device 2, expected 0..1 for a program of the target stub");
}

TEST_F(QueuedDeviceTest, FailuresAreToldByALaterRun) {
  next_failure = 1;
  expect_ok(run(2, nullptr));
  take_log();
  expect_error(run(2, nullptr), StatusCode::IndexError, kLateFailure);
  EXPECT_EQ(take_log(), Log{"wait"});  // and nothing ran
  expect_ok(run(2, nullptr));
}

TEST_F(QueuedDeviceTest, FailuresAreToldOnceWhenTheSessionIsWaitedFor) {
  next_failure = 1;
  expect_ok(run(2, &stream_a));
  next_failure = 1;
  expect_ok(run(3, &stream_a));
  take_log();
  expect_error(session_->synchronize(), StatusCode::IndexError, kLateFailure);
  EXPECT_EQ(take_log(), (Log{"wait", "wait"}));
  expect_ok(session_->synchronize());
  session_.reset();  // the caller's stream may be gone
  EXPECT_EQ(take_log(), (Log{"wait", "wait", "release 64 on 1, -"}));
}

TEST_F(QueuedDeviceTest, ARunOnAnotherStreamWaitsForTheOneBefore) {
  expect_ok(run(2, &stream_a));
  take_log();
  expect_ok(run(2, &stream_b));
  EXPECT_EQ(take_log(), (Log{"wait", "run on 1, B"}));
  next_failure = 1;
  expect_ok(run(2, &stream_b));
  take_log();
  expect_error(run(2, &stream_a), StatusCode::IndexError, kLateFailure);
  EXPECT_EQ(take_log(), Log{"wait"});
  expect_ok(run(2, &stream_a));
}

TEST_F(QueuedDeviceTest, FailuresOfForgottenShapesAreNotLost) {
  next_failure = 1;
  expect_ok(run(1, nullptr));
  std::optional<Status> failed;
  for (int64_t batch = 2; batch <= 64 && !failed; ++batch)
    if (Status status = run(batch, nullptr); !status.ok()) failed = std::move(status);
  ASSERT_TRUE(failed.has_value());
  expect_error(*failed, StatusCode::IndexError, kLateFailure);
}

TEST_F(QueuedDeviceTest, CancelledRunsAreNotQueued) {
  const int32_t flag = 1;
  EXPECT_EQ(run(2, nullptr, {DeviceType::Cuda, 1}, &flag).code(), StatusCode::Cancelled);
  expect_ok(run(2, nullptr));
}

// An output that updates the first input, at addresses that nothing lies at.
TEST_F(QueuedDeviceTest, ChangesInPlaceOnlyMemoryThatCanBeMapped) {
  SampleEngine sample = make_engine();
  sample.spec.outputs[0].updates = 0;
  for (auto& program : sample.spec.programs) program.version = engine::kProgramVersion;
  const LoadedEngine engine(sample);
  const auto session = std::move(*Session::create(engine.get(), {.num_threads = 1, .device = 1}));
  const std::vector<int64_t> shape = {2, 4};
  const auto at = [&](uintptr_t address) {
    return TensorView{
        reinterpret_cast<void*>(address), DType::F32, shape, {}, {DeviceType::Cuda, 1}};
  };
  const auto run_at = [&](uintptr_t x, uintptr_t y, uintptr_t out) {
    take_log();
    const std::vector<TensorView> inputs = {at(x), at(y)}, outputs = {at(out)};
    expect_ok(session->run(inputs, outputs, {.stream = &stream_a}));
    return take_log();
  };
  run_at(0x1000, 0x2000, 0x1000);
  EXPECT_EQ(run_at(0x1000, 0x2000, 0x1000), (Log{"run on 1, A"}));
  EXPECT_EQ(run_at(0x1000, 0x2000, 0x3000), (Log{"copy on 1, A", "run on 1, A"}));
  // Not aligned: to the session's memory and back.
  EXPECT_EQ(run_at(0x1004, 0x2000, 0x1004),
            (Log{"allocate 32 on 1, A", "copy on 1, A", "run on 1, A", "copy on 1, A"}));
  EXPECT_EQ(run_at(0x1000, 0x2000, 0x3004),
            (Log{"copy on 1, A", "copy on 1, A", "run on 1, A", "copy on 1, A"}));
  // Another input in the same memory is copied first.
  EXPECT_EQ(run_at(0x1000, 0x1010, 0x1000),
            (Log{"allocate 32 on 1, A", "copy on 1, A", "run on 1, A"}));
}

}  // namespace
}  // namespace kiln::runtime
