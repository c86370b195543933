#include "backends/cuda/compile/tune/timing_gpu.h"

#include <dlfcn.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <random>
#include <utility>
#include <vector>

#include "support/aligned_buffer.h"

namespace kiln::cuda {
namespace {

// What the device half has no use for.
// NOLINTBEGIN(readability-identifier-naming): the names are NVIDIA's
struct ContextFunctions {
  api::CUresult (*cuCtxCreate_v2)(api::CUcontext* context, unsigned flags, api::CUdevice device);
  api::CUresult (*cuCtxDestroy_v2)(api::CUcontext context);
};
// NOLINTEND(readability-identifier-naming)

struct Driver {
  api::Functions functions;
  ContextFunctions contexts = {};
  int version = 0;
  std::string problem;  // empty: it works

  Driver() { problem = open(); }

  template <typename Function>
  static bool find(void* library, const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    return function != nullptr;
  }

  std::string open() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return "there is no NVIDIA driver on this machine";
    bool whole = find(library, "cuCtxCreate_v2", contexts.cuCtxCreate_v2) &&
                 find(library, "cuCtxDestroy_v2", contexts.cuCtxDestroy_v2);
#define KILN_CUDA_FIND(name, ...) whole = find(library, #name, functions.name) && whole;
    KILN_CUDA_FUNCTIONS(KILN_CUDA_FIND)
#undef KILN_CUDA_FIND
    if (!whole) return "the NVIDIA driver is older than CUDA 12.0";
    if (functions.cuInit(0) != api::kSuccess) return "the NVIDIA driver does not start";
    functions.cuDriverGetVersion(&version);
    return "";
  }
};

// Never destroyed: the driver is the process's.
const Driver& driver() {
  static const Driver& driver = *new Driver;
  return driver;
}

Status failure(api::CUresult result, const std::string& what) {
  const char* name = nullptr;
  driver().functions.cuGetErrorName(result, &name);
  return Status(StatusCode::Internal, what + ": " + (name == nullptr ? "error" : name));
}

#define KILN_RETURN_IF_FAILED(call, what)                                \
  if (const api::CUresult result = driver().functions.call; result != 0) \
  return failure(result, what)

struct Found {
  int sm = 0;
  std::string name;
};

Result<Found> describe(int index) {
  api::CUdevice device = 0;
  int major = 0, minor = 0;
  char name[256] = {};
  KILN_RETURN_IF_FAILED(cuDeviceGet(&device, index), "opening a GPU");
  KILN_RETURN_IF_FAILED(cuDeviceGetName(name, sizeof(name) - 1, device), "naming a GPU");
  KILN_RETURN_IF_FAILED(cuDeviceGetAttribute(&major, api::kMajor, device), "naming a GPU");
  KILN_RETURN_IF_FAILED(cuDeviceGetAttribute(&minor, api::kMinor, device), "naming a GPU");
  return Found{10 * major + minor, name};
}

int gpu_count() {
  int count = 0;
  if (driver().problem.empty()) driver().functions.cuDeviceGetCount(&count);
  return count;
}

class CurrentContext {
 public:
  explicit CurrentContext(api::CUcontext context)
      : pushed_(driver().functions.cuCtxPushCurrent_v2(context) == api::kSuccess) {}
  ~CurrentContext() {
    api::CUcontext popped = nullptr;
    if (pushed_) driver().functions.cuCtxPopCurrent_v2(&popped);
  }
  CurrentContext(const CurrentContext&) = delete;
  CurrentContext& operator=(const CurrentContext&) = delete;

 private:
  const bool pushed_;
};

// Gives something of the driver's back at the end of a scope.
template <typename Handle>
struct Owned {
  api::CUresult (*destroy)(Handle handle);
  Handle handle = nullptr;
  explicit Owned(api::CUresult (*function)(Handle)) : destroy(function) {}
  ~Owned() {
    if (handle != nullptr) destroy(handle);
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
};

constexpr uint64_t kAlignment = 256;
// More than any second-level cache holds: constants that were used so long ago are in none, as the
// weights of a network are when their turn comes. What the kernel in front has written is there, if it
// is not too much.
constexpr uint64_t kColdBytes = uint64_t{192} << 20, kWarmBytes = uint64_t{16} << 20;
constexpr uint64_t kMostSets = 24, kMostWarmSets = 4;
constexpr int kMostRepeats = 24, kFewestRepeats = 3;
constexpr double kGraphNanoseconds = 3e6;  // that one run of a graph may take, about
constexpr float kEnoughMilliseconds = 20;
constexpr int kMostRuns = 100;

uint64_t padded(int64_t bytes) { return align_up(static_cast<uint64_t>(bytes), kAlignment); }

// A kernel's launch with several sets of operands, in turns.
struct Launches {
  api::CUlaunchConfig config;
  api::CUlaunchAttribute programmatic;
  std::vector<std::vector<uint64_t>> values;  // of each set: pointers, then sizes
  std::vector<std::vector<api::CUtensorMap>> maps;
  std::vector<std::vector<void*>> arguments;  // of each set, to values and maps
};

unsigned size_of(const std::vector<ir::Dim>& sizes, size_t axis) {
  return axis < sizes.size() ? static_cast<unsigned>(sizes[axis].at_opt()) : 1;
}

Status encode(const backend::TensorMapSpec& spec, uint64_t address, api::CUtensorMap& map) {
  constexpr int kF16 = 6, kBf16 = 9, kTf32 = 11, kPromotion = 3;
  const int type = spec.dtype == DType::F32 ? kTf32 : spec.dtype == DType::BF16 ? kBf16 : kF16;
  const int swizzle = spec.swizzle == 128 ? 3 : spec.swizzle == 64 ? 2 : spec.swizzle == 32 ? 1 : 0;
  std::vector<uint64_t> sizes, strides;
  for (const ir::Dim& size : spec.sizes) sizes.push_back(static_cast<uint64_t>(size.at_opt()));
  for (const ir::Dim& stride : spec.strides)
    strides.push_back(static_cast<uint64_t>(stride.at_opt()));
  std::vector<uint32_t> steps(spec.element_strides.begin(), spec.element_strides.end());
  steps.resize(sizes.size(), 1);
  const std::vector<uint32_t> box(spec.box.begin(), spec.box.end());
  const std::vector<int> lower(spec.lower_corner.begin(), spec.lower_corner.end());
  const std::vector<int> upper(spec.upper_corner.begin(), spec.upper_corner.end());
  const auto rank = static_cast<uint32_t>(sizes.size());
  void* const begin =
      reinterpret_cast<void*>(address + static_cast<uint64_t>(spec.offset.at_opt()));
  const api::CUresult result =
      lower.empty()
          ? driver().functions.cuTensorMapEncodeTiled(&map, type, rank, begin, sizes.data(),
                                                      strides.data(), box.data(), steps.data(), 0,
                                                      swizzle, kPromotion, 0)
          : driver().functions.cuTensorMapEncodeIm2col(
                &map, type, rank, begin, sizes.data(), strides.data(), lower.data(), upper.data(),
                static_cast<uint32_t>(spec.box_channels), static_cast<uint32_t>(spec.box_pixels),
                steps.data(), 0, swizzle, kPromotion, 0);
  return result == api::kSuccess ? Status() : failure(result, "mapping a tensor");
}

}  // namespace

std::vector<int64_t> operand_bytes(const plan::Program& program,
                                   const backend::GeneratedKernel& kernel) {
  std::vector<int64_t> bytes;
  for (const plan::BufferId id : kernel.interface.buffers) {
    const auto* derived = kernel.constants.find(id);
    // What is made of a constant is filled up to whole vectors, at most several times as large.
    constexpr int64_t kMostFilling = 8, kSlack = 1 << 16;
    const plan::Buffer& buffer =
        program.buffers[static_cast<size_t>(derived != nullptr ? derived->original : id)];
    const int64_t plain = ir::product(buffer.type.shape).at_opt() *
                          static_cast<int64_t>(dtype_size(buffer.type.dtype));
    bytes.push_back(derived != nullptr ? kMostFilling * plain + kSlack : plain);
  }
  return bytes;
}

// Memory that stays between measurements: numbers, and zeros for what is no floating-point number.
struct TimingGpu::Memory {
  uint64_t numbers_size = 0, zeros_size = 0;
  api::CUdeviceptr numbers = 0, zeros = 0;
  std::mutex mutex;  // of the whole GPU

  static Status fill(api::CUdeviceptr to, uint64_t size, bool zeros, api::CUstream stream) {
    constexpr size_t kWords = size_t{1} << 20;
    std::vector<uint32_t> words(kWords, 0);
    std::mt19937 random(1);
    // Signs and fractions at random; below 1 as f16, as bf16 and as f32.
    if (!zeros)
      for (uint32_t& word : words) word = static_cast<uint32_t>(random()) & 0xbbffbbffU;
    for (uint64_t at = 0; at < size; at += 4 * kWords)
      KILN_RETURN_IF_FAILED(cuMemcpyHtoDAsync_v2(to + at, words.data(),
                                                 std::min(size - at, uint64_t{4} * kWords), stream),
                            "filling memory");
    KILN_RETURN_IF_FAILED(cuStreamSynchronize(stream), "filling memory");
    return Status();
  }

  static Status grow(api::CUdeviceptr& memory, uint64_t& size, uint64_t wanted, bool zeros,
                     api::CUstream stream) {
    if (size >= wanted) return Status();
    if (memory != 0) driver().functions.cuMemFree_v2(memory);
    memory = size = 0;
    KILN_RETURN_IF_FAILED(cuMemAlloc_v2(&memory, wanted),
                          "allocating " + std::to_string(wanted >> 20) + " MiB");
    size = wanted;
    return fill(memory, size, zeros, stream);
  }

  // As many sets of operands as are needed for constants to have left the caches when their turn comes.
  Status place(const plan::Program& program, const KernelText& kernel, Launches& launches,
               api::CUstream stream);
};

namespace {

// Where the operands of a launch lie. A set of warm ones begins with a word for checks and the scratch.
class Layout {
 public:
  Layout(const plan::Program& program, const backend::GeneratedKernel& kernel)
      : bytes_(operand_bytes(program, kernel)) {
    const backend::KernelInterface& interface = kernel.interface;
    scratch_ = interface.scratch_bytes.at_opt();
    for (const plan::BufferId id : interface.buffers)
      places_.push_back(place_of(program, kernel, id));
    if (!fits()) return;
    warm_ += padded(scratch_);
    for (size_t i = 0; i < bytes_.size(); ++i) {
      const uint64_t size = padded(bytes_[i]);
      if (places_[i] == Place::Warm) warm_ += size;
      if (places_[i] == Place::Cold) cold_ += size;
      if (places_[i] == Place::Zeros) zeros_ = std::max(zeros_, size);
    }
  }

  // Whether sums stay in range: no GPU has as much.
  bool fits() const {
    constexpr int64_t kMost = int64_t{1} << 40;
    const auto is_sane = [](int64_t bytes) { return bytes >= 0 && bytes <= kMost; };
    return is_sane(scratch_) && std::ranges::all_of(bytes_, is_sane);
  }
  uint64_t warm() const { return warm_; }
  uint64_t cold() const { return cold_; }
  uint64_t zeros() const { return zeros_; }

  // Of every operand.
  std::vector<uint64_t> addresses(uint64_t warm, uint64_t cold, uint64_t zeros) const {
    std::vector<uint64_t> result;
    warm += kAlignment + padded(scratch_);
    for (size_t i = 0; i < bytes_.size(); ++i) {
      uint64_t& at = places_[i] == Place::Warm ? warm : cold;
      result.push_back(places_[i] == Place::Zeros ? zeros : at);
      if (places_[i] != Place::Zeros) at += padded(bytes_[i]);
    }
    return result;
  }

 private:
  enum class Place { Warm, Cold, Zeros };

  // What is read and no floating-point number is an index at times: zeros are right for all.
  static Place place_of(const plan::Program& program, const backend::GeneratedKernel& kernel,
                        plan::BufferId id) {
    if (kernel.constants.find(id) != nullptr) return Place::Cold;
    const plan::Buffer& buffer = program.buffers[static_cast<size_t>(id)];
    if (!kernel.interface.task_writes.contains(id) && !is_floating(buffer.type.dtype))
      return Place::Zeros;
    return buffer.kind == plan::BufferKind::Constant ? Place::Cold : Place::Warm;
  }

  std::vector<int64_t> bytes_;
  std::vector<Place> places_;
  int64_t scratch_ = 0;
  uint64_t warm_ = kAlignment, cold_ = 0, zeros_ = kAlignment;
};

// The arguments of one set, whose operands are in launches.values already.
Status add_arguments(const backend::KernelInterface& interface, uint64_t word, size_t set,
                     Launches& launches) {
  std::vector<uint64_t>& values = launches.values[set];
  std::vector<api::CUtensorMap>& maps = launches.maps[set];
  for (const backend::TensorMapSpec& map : interface.tensor_maps) {
    const auto buffer = std::ranges::find(interface.buffers, map.buffer);
    const auto index = static_cast<size_t>(buffer - interface.buffers.begin());
    KILN_RETURN_IF_ERROR(encode(map, values[index], maps.emplace_back()));
  }
  for (const ir::Dim& param : interface.params)
    values.push_back(static_cast<uint64_t>(param.at_opt()));
  if (!interface.scratch_bytes.is_constant(0)) values.push_back(word + kAlignment);
  if (!interface.checks.empty()) values.push_back(word);
  std::vector<void*>& arguments = launches.arguments[set];
  for (uint64_t& value : values) arguments.push_back(&value);
  for (api::CUtensorMap& map : maps) arguments.push_back(&map);
  return Status();
}

}  // namespace

Status TimingGpu::Memory::place(const plan::Program& program, const KernelText& kernel,
                                Launches& launches, api::CUstream stream) {
  const Layout layout(program, kernel.kernel);
  if (!layout.fits()) return Status(StatusCode::OutOfMemory, "an operand is too large");
  const uint64_t least = layout.warm() + layout.cold();
  KILN_RETURN_IF_ERROR(grow(numbers, numbers_size, std::max(least, kColdBytes), false, stream));
  KILN_RETURN_IF_ERROR(grow(zeros, zeros_size, layout.zeros(), true, stream));
  const uint64_t warm_sets = std::clamp<uint64_t>(kWarmBytes / layout.warm(), 1, kMostWarmSets);
  const uint64_t warm_bytes = warm_sets * layout.warm() + layout.cold() <= numbers_size
                                  ? warm_sets * layout.warm()
                                  : layout.warm();
  const uint64_t cold_sets =
      layout.cold() == 0 ? kMostSets : (numbers_size - warm_bytes) / layout.cold();
  const auto sets = std::clamp<uint64_t>(cold_sets, 1, kMostSets);
  launches.values.resize(sets);
  launches.maps.resize(sets);
  launches.arguments.resize(sets);
  for (size_t i = 0; i < sets; ++i) {
    const uint64_t warm = numbers + i % (warm_bytes / layout.warm()) * layout.warm();
    const uint64_t cold = numbers + warm_bytes + i * layout.cold();
    launches.values[i] = layout.addresses(warm, cold, zeros);
    KILN_RETURN_IF_ERROR(add_arguments(kernel.kernel.interface, warm, i, launches));
  }
  return Status();
}

Result<std::shared_ptr<TimingGpu>> TimingGpu::open(int sm) {
  static std::mutex mutex;
  static std::weak_ptr<TimingGpu> used;
  const std::lock_guard lock(mutex);
  if (!driver().problem.empty()) return Status(StatusCode::Unsupported, driver().problem);
  for (int i = 0; i < gpu_count(); ++i) {
    const Result<Found> found = describe(i);
    if (!found.ok() || found->sm != sm) continue;
    const std::string name = found->name + "; " + std::to_string(driver().version);
    if (auto shared = used.lock(); shared != nullptr && shared->name_ == name) return shared;
    std::shared_ptr<TimingGpu> gpu(new TimingGpu);
    gpu->name_ = name;
    KILN_RETURN_IF_ERROR(gpu->start(i));
    used = gpu;
    return gpu;
  }
  return Status(StatusCode::Unsupported,
                "this machine has no GPU of the generation sm_" + std::to_string(sm));
}

std::string TimingGpu::machine() {
  std::string names;
  for (int i = 0; i < gpu_count(); ++i)
    if (const Result<Found> found = describe(i); found.ok()) names += found->name + "; ";
  return names.empty() ? "" : names + std::to_string(driver().version);
}

Status TimingGpu::start(int index) {
  api::CUdevice device = 0;
  KILN_RETURN_IF_FAILED(cuDeviceGet(&device, index), "opening a GPU");
  if (const api::CUresult made = driver().contexts.cuCtxCreate_v2(&context_, 0, device); made != 0)
    return failure(made, "opening a context on " + name_);
  api::CUcontext popped = nullptr;
  driver().functions.cuCtxPopCurrent_v2(&popped);
  const CurrentContext current(context_);
  KILN_RETURN_IF_FAILED(cuStreamCreate(&stream_, api::kNonBlocking), "making a stream");
  memory_ = std::make_unique<Memory>();
  return Status();
}

// Everything that is left of a context goes with it.
TimingGpu::~TimingGpu() {
  if (context_ == nullptr) return;
  {
    const CurrentContext current(context_);
    if (memory_ != nullptr && memory_->numbers != 0)
      driver().functions.cuMemFree_v2(memory_->numbers);
    if (memory_ != nullptr && memory_->zeros != 0) driver().functions.cuMemFree_v2(memory_->zeros);
    if (stream_ != nullptr) driver().functions.cuStreamDestroy_v2(stream_);
  }
  driver().contexts.cuCtxDestroy_v2(context_);
}

namespace {

Status capture(api::CUfunction function, Launches& launches, int count, api::CUstream stream,
               api::CUgraphExec& exec) {
  KILN_RETURN_IF_FAILED(cuStreamBeginCapture_v2(stream, api::kCaptureThreadLocal), "capturing");
  api::CUresult launched = api::kSuccess;
  for (int i = 0; i < count && launched == api::kSuccess; ++i)
    launched = driver().functions.cuLaunchKernelEx(
        &launches.config, function,
        launches.arguments[static_cast<size_t>(i) % launches.arguments.size()].data(), nullptr);
  Owned<api::CUgraph> graph(driver().functions.cuGraphDestroy);
  const api::CUresult ended = driver().functions.cuStreamEndCapture(stream, &graph.handle);
  if (launched != api::kSuccess) return failure(launched, "launching");
  if (ended != api::kSuccess) return failure(ended, "capturing");
  KILN_RETURN_IF_FAILED(cuGraphInstantiateWithFlags(&exec, graph.handle, 0), "making a graph");
  return Status();
}

// Nanoseconds of a launch, out of a graph of `count`: the best of several runs, which take so many
// milliseconds in all at least. A GPU that was idle takes some to reach its clock.
Result<double> time_graph(api::CUfunction function, Launches& launches, int count, float enough,
                          api::CUstream stream) {
  Owned<api::CUgraphExec> exec(driver().functions.cuGraphExecDestroy);
  KILN_RETURN_IF_ERROR(capture(function, launches, count, stream, exec.handle));
  Owned<api::CUevent> begin(driver().functions.cuEventDestroy_v2),
      end(driver().functions.cuEventDestroy_v2);
  KILN_RETURN_IF_FAILED(cuEventCreate(&begin.handle, 0), "making an event");
  KILN_RETURN_IF_FAILED(cuEventCreate(&end.handle, 0), "making an event");
  float best = std::numeric_limits<float>::max(), all = 0;
  for (int run = 0; run < 2 || (run < kMostRuns && all < enough); ++run) {
    KILN_RETURN_IF_FAILED(cuEventRecord(begin.handle, stream), "timing");
    KILN_RETURN_IF_FAILED(cuGraphLaunch(exec.handle, stream), "launching");
    KILN_RETURN_IF_FAILED(cuEventRecord(end.handle, stream), "timing");
    KILN_RETURN_IF_FAILED(cuEventSynchronize(end.handle), "running");
    float milliseconds = 0;
    KILN_RETURN_IF_FAILED(cuEventElapsedTime(&milliseconds, begin.handle, end.handle), "timing");
    all += milliseconds;
    if (run > 0) best = std::min(best, milliseconds);  // the first fills the caches with code
  }
  return 1e6 * static_cast<double>(best) / count;
}

}  // namespace

Result<double> TimingGpu::time(const plan::Program& program, const KernelText& kernel,
                               std::span<const std::byte> cubin) {
  const std::lock_guard lock(memory_->mutex);
  const CurrentContext current(context_);
  const backend::KernelInterface& interface = kernel.kernel.interface;
  Owned<api::CUmodule> code(driver().functions.cuModuleUnload);
  api::CUfunction function = nullptr;
  KILN_RETURN_IF_FAILED(cuModuleLoadData(&code.handle, cubin.data()), "loading code");
  KILN_RETURN_IF_FAILED(cuModuleGetFunction(&function, code.handle, kernel.kernel.function.c_str()),
                        "loading code");
  const int64_t shared = interface.shared_bytes.at_opt();
  KILN_RETURN_IF_FAILED(
      cuFuncSetAttribute(function, api::kMaxDynamicShared, static_cast<int>(shared)),
      "asking for shared memory");
  Launches launches;
  launches.config = {.grid_x = size_of(interface.grid, 0),
                     .grid_y = size_of(interface.grid, 1),
                     .grid_z = size_of(interface.grid, 2),
                     .block_x = size_of(interface.block, 0),
                     .block_y = size_of(interface.block, 1),
                     .block_z = size_of(interface.block, 2),
                     .shared_bytes = static_cast<unsigned>(shared),
                     .stream = stream_,
                     .attributes = &launches.programmatic};
  if (launches.config.grid_x * launches.config.grid_y * launches.config.grid_z == 0) return 0.0;
  constexpr int kProgrammaticGraphs = 12030;
  launches.programmatic = {
      .id = api::kProgrammaticSerialization, .pad = {}, .value = {.bytes = {1}}};
  launches.config.num_attributes =
      interface.programmatic && driver().version >= kProgrammaticGraphs ? 1 : 0;
  KILN_RETURN_IF_ERROR(memory_->place(program, kernel, launches, stream_));
  const Result<double> once = time_graph(function, launches, 1, 0, stream_);
  if (!once.ok()) return once;
  const int count = static_cast<int>(std::clamp(kGraphNanoseconds / std::max(*once, 1.0),
                                                double{kFewestRepeats}, double{kMostRepeats}));
  return time_graph(function, launches, count, kEnoughMilliseconds, stream_);
}

}  // namespace kiln::cuda
