#include "backends/cuda/device/upload.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

#include "support/aligned_buffer.h"
#include "support/cpu_count.h"

namespace kiln::cuda {
namespace {

constexpr size_t kPiece = size_t{1} << 20;  // bytes of one pinned buffer
constexpr size_t kPage = 4096;
constexpr size_t kHugePage = size_t{2} << 20;   // of an x86
constexpr size_t kPerThread = size_t{2} << 20;  // fewer bytes are not worth another thread
constexpr size_t kMostThreads = 8;

size_t threads_for(size_t bytes) {
  return std::min({kMostThreads, static_cast<size_t>(available_cpus()), bytes / kPerThread + 1});
}

// Calls work(0), work(1), ... at once, the first in the calling thread; that does the work of threads too
// that the system does not give.
template <typename Work>
void on_threads(size_t count, const Work& work) {
  std::vector<std::thread> threads;
  try {
    for (size_t i = 1; i < count; ++i) threads.emplace_back([&work, i] { work(i); });
  } catch (const std::system_error&) {
  }
  work(0);
  for (size_t i = threads.size() + 1; i < count; ++i) work(i);
  for (std::thread& thread : threads) thread.join();
}

// Pinned memory for the length of an upload: of huge pages, where the system has any, and in one piece,
// since pinning takes longer than the copies through it otherwise.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;
  ~PinnedMemory() {
    if (is_pinned_) driver().cuMemHostUnregister(data_);
    std::free(data_);
  }

  Status allocate(size_t bytes) {
    const size_t alignment = bytes < kHugePage ? kPage : kHugePage;
    bytes = align_up(bytes, alignment);
    data_ = static_cast<std::byte*>(std::aligned_alloc(alignment, bytes));
    if (data_ == nullptr)
      return Status(StatusCode::OutOfMemory, "there is no memory for the buffers of an upload");
    madvise(data_, bytes, MADV_HUGEPAGE);
    KILN_RETURN_IF_CUDA_ERROR(driver().cuMemHostRegister_v2(data_, bytes, api::kHostPortable),
                              "pinning " + std::to_string(bytes) + " bytes for an upload");
    is_pinned_ = true;
    return Status();
  }
  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
  bool is_pinned_ = false;
};

// The two buffers of a thread, each with the event that says when it may be filled again.
class Buffers {
 public:
  Buffers() = default;
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  ~Buffers() {
    for (const Buffer& buffer : buffers_)
      if (buffer.free != nullptr) driver().cuEventDestroy_v2(buffer.free);
  }

  Status open(std::byte* memory, size_t piece) {
    for (Buffer& buffer : buffers_) {
      buffer.data = std::exchange(memory, memory + piece);
      KILN_RETURN_IF_CUDA_ERROR(driver().cuEventCreate(&buffer.free, api::kNoTiming),
                                "making an event");
    }
    return Status();
  }

  Status send(const Upload& piece, api::CUstream stream) {
    Buffer& buffer = buffers_[next_];
    next_ = 1 - next_;
    if (buffer.used)
      KILN_RETURN_IF_CUDA_ERROR(driver().cuEventSynchronize(buffer.free), "an upload");
    std::memcpy(buffer.data, piece.from.data(), piece.from.size());
    KILN_RETURN_IF_CUDA_ERROR(
        driver().cuMemcpyHtoDAsync_v2(piece.to, buffer.data, piece.from.size(), stream),
        "an upload");
    KILN_RETURN_IF_CUDA_ERROR(driver().cuEventRecord(buffer.free, stream), "an upload");
    buffer.used = true;
    return Status();
  }

 private:
  struct Buffer {
    std::byte* data = nullptr;
    api::CUevent free = nullptr;
    bool used = false;
  };

  Buffer buffers_[2];
  size_t next_ = 0;
};

// The pieces of an upload, and how far it is.
struct Progress {
  std::span<const Upload> pieces;
  std::atomic<size_t> next = 0;
  std::atomic<bool> failed = false;
};

// Sends the next piece whenever it is done with one, until there are none or somebody failed.
Status send_pieces(Progress& progress, std::byte* memory, size_t piece, api::CUstream stream) {
  Buffers buffers;
  Status status = buffers.open(memory, piece);
  for (size_t i = progress.next++; i < progress.pieces.size() && status.ok() && !progress.failed;
       i = progress.next++)
    status = buffers.send(progress.pieces[i], stream);
  if (!status.ok()) progress.failed = true;
  return status;
}

Status send_all(std::span<const Upload> pieces, size_t num_threads, api::CUstream stream) {
  api::CUcontext context = nullptr;
  driver().cuCtxGetCurrent(&context);
  size_t piece = 0;
  for (const Upload& each : pieces) piece = std::max(piece, each.from.size());
  piece = align_up(piece, kPage);
  PinnedMemory memory;
  KILN_RETURN_IF_ERROR(memory.allocate(2 * num_threads * piece));
  Progress progress{pieces};
  std::vector<Status> statuses(num_threads);
  on_threads(num_threads, [&](size_t thread) {
    driver().cuCtxPushCurrent_v2(context);
    {
      const OutsideCapture outside;
      statuses[thread] = send_pieces(progress, memory.data() + 2 * thread * piece, piece, stream);
    }
    api::CUcontext popped = nullptr;
    driver().cuCtxPopCurrent_v2(&popped);
  });
  // Before the memory goes, whether or not all went well.
  const api::CUresult arrived = driver().cuStreamSynchronize(stream);
  for (Status& status : statuses) KILN_RETURN_IF_ERROR(std::move(status));
  return arrived == api::kSuccess ? Status() : error_status(arrived, "an upload");
}

// Of all bytes, so many at most.
std::vector<Upload> pieces_of(std::span<const Upload> uploads) {
  std::vector<Upload> pieces;
  for (const Upload& one : uploads)
    for (size_t begin = 0; begin < one.from.size(); begin += kPiece)
      pieces.push_back(
          {one.from.subspan(begin, std::min(kPiece, one.from.size() - begin)), one.to + begin});
  return pieces;
}

}  // namespace

Status upload(std::span<const Upload> uploads) {
  size_t bytes = 0;
  for (const Upload& one : uploads) bytes += one.from.size();
  if (bytes == 0) return Status();
  api::CUstream stream = nullptr;
  KILN_RETURN_IF_CUDA_ERROR(driver().cuStreamCreate(&stream, api::kNonBlocking), "making a stream");
  Status status = send_all(pieces_of(uploads), threads_for(bytes), stream);
  driver().cuStreamDestroy_v2(stream);
  return status;
}

void copy_on_host(std::byte* to, std::span<const std::byte> from) {
  const size_t threads = threads_for(from.size());
  const size_t share = (from.size() + threads - 1) / threads;
  on_threads(threads, [&](size_t i) {
    const size_t begin = std::min(i * share, from.size());
    const std::span<const std::byte> part =
        from.subspan(begin, std::min(share, from.size() - begin));
    if (!part.empty()) std::memcpy(to + begin, part.data(), part.size());
  });
}

}  // namespace kiln::cuda
