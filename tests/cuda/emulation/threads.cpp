// The threads of a block: contexts of their own, which run one after another from barrier to barrier.
#include <ucontext.h>

#include <algorithm>
#include <vector>

#include "cuda/emulation/cuda_on_host.h"
#include "cuda/emulation/host_kernels.h"
#include "support/half.h"

namespace kiln::test {
namespace {

enum class State { Ready, AtBlockBarrier, AtWarpBarrier, Done };

struct Thread {
  ucontext_t context = {};
  std::vector<char> stack = std::vector<char>(128 << 10);
  State state = State::Done;
};

constexpr int kWarp = 32;

class Block {
 public:
  // What is wrong with the barriers; empty if nothing is.
  std::string run(const Work& work) {
    work_ = &work;
    if (threads_.size() < static_cast<size_t>(work.threads))
      threads_.resize(static_cast<size_t>(work.threads));
    for (int i = 0; i < work.threads; ++i) prepare(threads_[static_cast<size_t>(i)]);
    while (true) {
      bool ran = false;
      for (int k = 0; k < work.threads; ++k)
        ran |= step(work.descending ? work.threads - 1 - k : k);
      for (int first = 0; first < work.threads; first += kWarp)
        ran |= release(first, std::min(first + kWarp, work.threads), State::AtWarpBarrier);
      ran |= release(0, work.threads, State::AtBlockBarrier);
      if (all_done()) return "";
      if (!ran) return "not all threads come to a barrier";
    }
  }

  void wait(State state) {
    Thread& thread = threads_[kiln_host_thread.x];
    thread.state = state;
    swapcontext(&thread.context, &scheduler_);
  }

 private:
  static void start();

  void prepare(Thread& thread) {
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.data();
    thread.context.uc_stack.ss_size = thread.stack.size();
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, start, 0);
    thread.state = State::Ready;
  }

  bool step(int i) {
    Thread& thread = threads_[static_cast<size_t>(i)];
    if (thread.state != State::Ready) return false;
    kiln_host_thread.x = static_cast<unsigned>(i);
    swapcontext(&scheduler_, &thread.context);
    return true;
  }

  bool release(int begin, int end, State barrier) {
    for (int i = begin; i < end; ++i) {
      if (threads_[static_cast<size_t>(i)].state != barrier) return false;
    }
    for (int i = begin; i < end; ++i) threads_[static_cast<size_t>(i)].state = State::Ready;
    return true;
  }

  bool all_done() const {
    return std::all_of(threads_.begin(), threads_.begin() + work_->threads,
                       [](const Thread& thread) { return thread.state == State::Done; });
  }

  const Work* work_ = nullptr;
  std::vector<Thread> threads_;
  ucontext_t scheduler_ = {};
};

Block& block() {
  static Block block;
  return block;
}

void Block::start() {
  block().work_->kernel(block().work_->arguments);
  block().wait(State::Done);
}

}  // namespace

std::string run_grid(const Work& work) {
  kiln_host_block_size.x = static_cast<unsigned>(work.threads);
  for (int64_t i = 0; i < work.blocks; ++i) {
    kiln_host_block.x = static_cast<unsigned>(i);
    if (std::string problem = block().run(work); !problem.empty()) return problem;
  }
  return "";
}

}  // namespace kiln::test

#define KILN_HOST_EXPORT __attribute__((visibility("default")))

extern "C" {
KILN_HOST_EXPORT Coordinate kiln_host_thread, kiln_host_block, kiln_host_block_size;
KILN_HOST_EXPORT uint64_t kiln_host_words[1024];
KILN_HOST_EXPORT void kiln_host_sync_block() {
  kiln::test::block().wait(kiln::test::State::AtBlockBarrier);
}
KILN_HOST_EXPORT void kiln_host_sync_warp() {
  kiln::test::block().wait(kiln::test::State::AtWarpBarrier);
}
KILN_HOST_EXPORT float kiln_host_from_half(uint16_t bits) { return kiln::f16_to_f32(bits); }
KILN_HOST_EXPORT uint16_t kiln_host_to_half(float number) { return kiln::f32_to_f16(number); }
KILN_HOST_EXPORT uint16_t kiln_host_to_bfloat(float number) { return kiln::f32_to_bf16(number); }
}
