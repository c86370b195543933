#include "runtime/check_failure.h"

#include <bit>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "runtime/size_program.h"

namespace kiln::runtime {
namespace {

using engine::CheckKind;
using engine::CheckSpec;

int64_t integer_at(const TensorView& tensor, const std::byte* place) {
  const auto read = [place]<typename T>(T value) -> int64_t {
    std::memcpy(&value, place, sizeof value);
    return value;
  };
  switch (tensor.dtype) {
    case DType::I8:
      return read(int8_t{});
    case DType::U8:
      return read(uint8_t{});
    case DType::I16:
      return read(int16_t{});
    case DType::I32:
      return read(int32_t{});
    default:
      return read(int64_t{});
  }
}

// The first integer of a tensor, in row-major order, that lies outside of [least, end).
std::optional<int64_t> first_outside(const TensorView& tensor, int64_t least, int64_t end) {
  const size_t size = dtype_size(tensor.dtype);
  size_t count = 1;
  for (const int64_t extent : tensor.shape) count *= static_cast<size_t>(extent);
  if (count == 0 || tensor.data == nullptr || !is_integer(tensor.dtype)) return std::nullopt;
  std::vector<std::byte> elements(count * size);
  if (!kHostMemory.copy_strided(copy_of(tensor, elements.data()), 0, nullptr).ok())
    return std::nullopt;
  for (size_t i = 0; i < count; ++i) {
    const int64_t value = integer_at(tensor, elements.data() + i * size);
    if (value < least || value >= end) return value;
  }
  return std::nullopt;
}

Status division_by_zero(const std::string& operation) {
  return Status(StatusCode::DivisionByZero, "[" + operation +
                                                "] ZeroDivisionError: got a division of integers "
                                                "by zero, expected divisors other than 0");
}

std::string index_text(const engine::Spec& spec, const CheckSpec& check, int64_t least, int64_t end,
                       std::span<const TensorView> inputs) {
  if (check.input >= 0 && !inputs.empty()) {
    const auto input = static_cast<size_t>(check.input);
    if (const auto value = first_outside(inputs[input], least, end))
      return "the index " + std::to_string(*value) + " in the input \"" + spec.inputs[input].name +
             "\"";
  }
  return "an index that is out of range";
}

}  // namespace

Status check_failure(const engine::Spec& spec, const FailedStep& step,
                     std::span<const int64_t> symbols, std::span<const TensorView> inputs) {
  const std::vector<CheckSpec>& checks = step.program.steps[step.step].checks;
  const auto first = static_cast<size_t>(std::countr_zero(step.failed));
  if (first >= checks.size())
    return Status(StatusCode::Internal, "a kernel reports a check that it does not have");
  const CheckSpec& check = checks[first];
  if (!check.fault.empty())
    return Status(StatusCode::InvalidArgument, "[" + check.operation + "] " + check.fault);
  if (check.kind == CheckKind::Nonzero) return division_by_zero(check.operation);
  const Result<std::vector<int64_t>> sizes = evaluate_sizes(spec, step.program, symbols);
  if (!sizes.ok()) return sizes.status();
  const int64_t size = (*sizes)[static_cast<size_t>(check.size)];
  const int64_t least = check.kind == CheckKind::IndexFromEnd ? -size : 0;
  return Status(StatusCode::IndexError,
                "[" + check.operation + "] got " + index_text(spec, check, least, size, inputs) +
                    ", expected " + std::to_string(least) + " <= index < " + std::to_string(size));
}

}  // namespace kiln::runtime
