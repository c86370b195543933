// Errors of the run side: values, never exceptions.
#pragma once

#include <cassert>
#include <memory>
#include <string>
#include <utility>
#include <variant>

namespace kiln {

// Mirrors kiln_status_code in include/kiln/kiln.h: append, never renumber.
enum class StatusCode : int {
  Ok = 0,
  InvalidArgument = 1,  // wrong count, dtype, rank, null pointer
  OutOfRange = 2,       // a dimension outside the engine's range
  NotFound = 3,         // no such file, name or index
  InvalidEngine = 4,    // truncated, corrupted, foreign or newer file
  Unsupported = 5,      // a CPU without AVX2, a missing GPU, an unsupported operator
  IoError = 6,
  OutOfMemory = 7,
  Internal = 8,
  IndexError = 9,       // an index in the data that is out of range
  DivisionByZero = 10,  // a division of integers by zero
  Cancelled = 11,       // the caller ended the run
  KernelFailed = 12,    // a kernel of the user's own
};

// A null pointer unless something failed: runs pass through many of these, and none of them fails.
class [[nodiscard]] Status {
 public:
  Status() = default;
  // `code` is not Ok.
  [[gnu::cold]] Status(StatusCode code, std::string message)
      : failure_(new Failure{code, std::move(message)}) {
    assert(code != StatusCode::Ok);
  }
  Status(const Status& other) : failure_(other.ok() ? nullptr : new Failure(*other.failure_)) {}
  Status& operator=(const Status& other) { return *this = Status(other); }
  Status(Status&&) noexcept = default;
  Status& operator=(Status&&) noexcept = default;
  ~Status() = default;

  bool ok() const { return failure_ == nullptr; }
  StatusCode code() const { return ok() ? StatusCode::Ok : failure_->code; }
  const std::string& message() const {
    static const std::string kNone;
    return ok() ? kNone : failure_->message;
  }

 private:
  struct Failure {
    StatusCode code;
    std::string message;
  };

  std::unique_ptr<Failure> failure_;
};

// A value or the reason why there is none.
//   Result<Engine> engine = Engine::load(path);
//   if (!engine.ok()) return engine.status();
//   use(*engine);
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}
  Result(Status status) : state_(std::move(status)) { assert(!this->status().ok()); }

  bool ok() const { return std::holds_alternative<T>(state_); }
  const Status& status() const {
    static const Status kOk;
    return ok() ? kOk : std::get<Status>(state_);
  }
  T& operator*() { return std::get<T>(state_); }
  const T& operator*() const { return std::get<T>(state_); }
  T* operator->() { return &std::get<T>(state_); }
  const T* operator->() const { return &std::get<T>(state_); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace kiln

#define KILN_RETURN_IF_ERROR(expression)                                                     \
  do {                                                                                       \
    if (::kiln::Status kiln_status_ = (expression); !kiln_status_.ok()) return kiln_status_; \
  } while (false)
