#include "backends/cuda/device/upload.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "support/thread_pool.h"

namespace kiln::cuda {
namespace {

constexpr size_t kPiece = size_t{16} << 20;     // bytes of one pinned buffer
constexpr size_t kPerThread = size_t{2} << 20;  // fewer bytes are not worth another thread
constexpr size_t kMostThreads = 8;

// Two pinned buffers, each with the event that says when it may be filled again.
class Staging {
 public:
  Status open(size_t bytes) {
    KILN_RETURN_IF_CUDA_ERROR(driver().cuStreamCreate(&stream_, api::kNonBlocking),
                              "making a stream");
    for (Buffer& buffer : buffers_) {
      KILN_RETURN_IF_CUDA_ERROR(driver().cuMemHostAlloc(&buffer.data, bytes, api::kHostPortable),
                                "allocating pinned memory for an upload");
      KILN_RETURN_IF_CUDA_ERROR(driver().cuEventCreate(&buffer.free, api::kNoTiming),
                                "making an event");
    }
    return Status();
  }

  ~Staging() {
    if (stream_ != nullptr) driver().cuStreamSynchronize(stream_);
    for (const Buffer& buffer : buffers_) {
      if (buffer.free != nullptr) driver().cuEventDestroy_v2(buffer.free);
      if (buffer.data != nullptr) driver().cuMemFreeHost(buffer.data);
    }
    if (stream_ != nullptr) driver().cuStreamDestroy_v2(stream_);
  }

  Status send(std::span<const std::byte> from, api::CUdeviceptr to) {
    Buffer& buffer = buffers_[next_];
    next_ = 1 - next_;
    if (buffer.used)
      KILN_RETURN_IF_CUDA_ERROR(driver().cuEventSynchronize(buffer.free), "an upload");
    fill(static_cast<std::byte*>(buffer.data), from);
    KILN_RETURN_IF_CUDA_ERROR(driver().cuMemcpyHtoDAsync_v2(to, buffer.data, from.size(), stream_),
                              "an upload");
    KILN_RETURN_IF_CUDA_ERROR(driver().cuEventRecord(buffer.free, stream_), "an upload");
    buffer.used = true;
    return Status();
  }

  Status finish() {
    KILN_RETURN_IF_CUDA_ERROR(driver().cuStreamSynchronize(stream_), "an upload");
    return Status();
  }

 private:
  struct Buffer {
    void* data = nullptr;
    api::CUevent free = nullptr;
    bool used = false;
  };

  static void fill(std::byte* to, std::span<const std::byte> from) {
    const size_t wanted = std::min(
        {kMostThreads, static_cast<size_t>(available_cpus()), from.size() / kPerThread + 1});
    const size_t share = (from.size() + wanted - 1) / wanted;
    std::vector<std::thread> threads;
    for (size_t begin = share; begin < from.size(); begin += share)
      threads.emplace_back([=] {
        std::memcpy(to + begin, from.data() + begin, std::min(share, from.size() - begin));
      });
    std::memcpy(to, from.data(), std::min(share, from.size()));
    for (std::thread& thread : threads) thread.join();
  }

  api::CUstream stream_ = nullptr;
  Buffer buffers_[2];
  size_t next_ = 0;
};

}  // namespace

Status upload(std::span<const Upload> uploads) {
  size_t largest = 0;
  for (const Upload& one : uploads) largest = std::max(largest, one.from.size());
  if (largest == 0) return Status();
  Staging staging;
  KILN_RETURN_IF_ERROR(staging.open(std::min(largest, kPiece)));
  for (const Upload& one : uploads)
    for (size_t begin = 0; begin < one.from.size(); begin += kPiece)
      KILN_RETURN_IF_ERROR(staging.send(
          one.from.subspan(begin, std::min(kPiece, one.from.size() - begin)), one.to + begin));
  return staging.finish();
}

}  // namespace kiln::cuda
