#include "backends/stub/device/check_code.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace kiln::stub {
namespace {

constexpr int64_t kMostRegisters = 65536;

// The instructions of one kernel, as a step calls it.
class Checker {
 public:
  Checker(std::span<const Instruction> code, const engine::StepSpec& step)
      : code_(code), step_(step) {}

  // What is wrong; empty if nothing is.
  std::string run() {
    if (code_.empty() || code_[0].code != Code::Begin) return "it does not begin with Begin";
    registers_ = code_[0].immediate;
    if (registers_ < 1 || registers_ > kMostRegisters)
      return "its number of registers is too large";
    size_t end = 1;
    while (end < code_.size() && code_[end].code != Code::Return) ++end;
    if (end == code_.size()) return "it does not return";
    code_ = code_.first(end + 1);
    for (size_t i = 1; i < end; ++i)
      if (!is_valid(i)) return "instruction " + std::to_string(i) + " is not valid";
    return open_.empty() ? "" : "a loop does not end";
  }

 private:
  bool is_valid(size_t at) {
    const Instruction& i = code_[at];
    for (const uint16_t reg : {i.to, i.a, i.b, i.c})
      if (reg >= registers_) return false;
    if (i.code == Code::Begin || i.code > kLastCode || !has_dtype(i.dtype)) return false;
    if (writes_register(i.code) && steers_loop(i.to)) return false;
    switch (i.code) {
      case Code::Parameter:
        return is_index(i.immediate, step_.params.size());
      case Code::Load:
      case Code::Store:
        return is_index(i.immediate, step_.buffers.size());
      case Code::Note:
        return is_index(i.immediate, step_.checks.size());
      case Code::Convert:
        return i.immediate >= 0 && i.immediate < kDTypeCount &&
               has_dtype(static_cast<DType>(i.immediate));
      case Code::SkipUnless:
        return is_skip(at);
      case Code::Loop:
        open_.push_back(at);
        return is_index(i.immediate, code_.size()) &&
               code_[static_cast<size_t>(i.immediate)].code == Code::End;
      case Code::End:
        return closes_loop(at);
      default:
        return true;
    }
  }

  static bool is_index(int64_t value, size_t count) {
    return value >= 0 && static_cast<uint64_t>(value) < count;
  }

  static bool writes_register(Code code) {
    return code != Code::Store && code != Code::End && code != Code::SkipUnless &&
           code != Code::Note;
  }

  // The counter and the extent of an open loop change in no other way, so that every loop ends.
  bool steers_loop(uint16_t reg) const {
    return std::ranges::any_of(
        open_, [&](size_t begin) { return code_[begin].to == reg || code_[begin].a == reg; });
  }

  // Skipped code is further on and holds no part of a loop.
  bool is_skip(size_t at) const {
    const int64_t target = code_[at].immediate;
    if (!is_index(target, code_.size()) || static_cast<size_t>(target) <= at) return false;
    return std::none_of(code_.begin() + static_cast<std::ptrdiff_t>(at),
                        code_.begin() + static_cast<std::ptrdiff_t>(target),
                        [](const Instruction& skipped) {
                          return skipped.code == Code::Loop || skipped.code == Code::End;
                        });
  }

  bool closes_loop(size_t at) {
    if (open_.empty()) return false;
    const size_t begin = open_.back();
    open_.pop_back();
    return code_[at].immediate == static_cast<int64_t>(begin) &&
           code_[begin].immediate == static_cast<int64_t>(at);
  }

  std::span<const Instruction> code_;
  const engine::StepSpec& step_;
  int64_t registers_ = 0;
  std::vector<size_t> open_;
};

}  // namespace

Result<std::vector<Instruction>> read_code(const engine::ProgramSpec& program) {
  std::vector<Instruction> code(program.code.size() / sizeof(Instruction));
  if (!code.empty())
    std::memcpy(code.data(), program.code.data(), code.size() * sizeof(Instruction));
  for (const engine::StepSpec& step : program.steps) {
    const engine::KernelSpec& kernel = program.kernels[static_cast<size_t>(step.kernel)];
    const uint64_t entry = kernel.entry / sizeof(Instruction);
    std::string problem = "its entry is not at an instruction";
    if (kernel.entry % sizeof(Instruction) == 0 && entry < code.size())
      problem = Checker(std::span(code).subspan(entry), step).run();
    if (!problem.empty())
      return Status(StatusCode::InvalidEngine,
                    "the code of kernel " + kernel.name + " is damaged: " + problem);
  }
  return code;
}

}  // namespace kiln::stub
