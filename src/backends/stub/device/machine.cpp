#include "backends/stub/device/machine.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace kiln::stub {
namespace {

template <typename T>
T read(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <typename T>
void write(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

Register integer(int64_t value) { return {.integer = value}; }
Register number(double value) { return {.number = value}; }
Register truth(bool value) { return integer(value ? 1 : 0); }

Register load(DType dtype, const std::byte* from) {
  switch (dtype) {
    case DType::F32:
      return number(read<float>(from));
    case DType::F64:
      return number(read<double>(from));
    case DType::I32:
      return integer(read<int32_t>(from));
    case DType::Bool:
      return integer(read<uint8_t>(from));
    default:
      return integer(read<int64_t>(from));
  }
}

void store(DType dtype, std::byte* to, Register value) {
  switch (dtype) {
    case DType::F32:
      return write(to, static_cast<float>(value.number));
    case DType::F64:
      return write(to, value.number);
    case DType::I32:
      return write(to, static_cast<int32_t>(value.integer));
    case DType::Bool:
      return write(to, static_cast<uint8_t>(value.integer));
    default:
      return write(to, value.integer);
  }
}

// Values of a dtype: f32 is rounded, integers wrap around.
Register rounded(DType dtype, double value) {
  return number(dtype == DType::F32 ? static_cast<float>(value) : value);
}
Register wrapped(DType dtype, uint64_t value) {
  if (dtype == DType::I32) return integer(static_cast<int32_t>(value));
  if (dtype == DType::Bool) return truth(value != 0);
  return integer(static_cast<int64_t>(value));
}

// What does not fit is the least value, as on x86.
Register truncated(DType dtype, double value) {
  if (dtype == DType::Bool) return truth(value != 0);
  const double limit = dtype == DType::I32 ? 0x1p31 : 0x1p63, whole = std::trunc(value);
  if (whole >= -limit && whole < limit) return integer(static_cast<int64_t>(whole));
  return integer(dtype == DType::I32 ? std::numeric_limits<int32_t>::min()
                                     : std::numeric_limits<int64_t>::min());
}

Register convert(DType from, DType to, Register value) {
  if (is_floating(from)) {
    return is_floating(to) ? rounded(to, value.number) : truncated(to, value.number);
  }
  if (!is_floating(to)) return wrapped(to, static_cast<uint64_t>(value.integer));
  // In one step: by way of a double, an i64 would round twice.
  return number(to == DType::F32 ? static_cast<float>(value.integer)
                                 : static_cast<double>(value.integer));
}

int64_t divide(int64_t a, int64_t b) {
  if (b == 0) return 0;
  return b == -1 ? static_cast<int64_t>(0 - static_cast<uint64_t>(a)) : a / b;
}
int64_t floor_divide(int64_t a, int64_t b) {
  if (b == 0 || b == -1) return divide(a, b);
  return a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
}
int64_t modulo(int64_t a, int64_t b) {
  if (b == 0 || b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

// NaN if either is.
double larger(double a, double b) { return a != a || a > b ? a : b; }
double smaller(double a, double b) { return a != a || a < b ? a : b; }

Register on_numbers(const Instruction& i, double a, double b) {
  switch (i.code) {
    case Code::Negate:
      return number(-a);
    case Code::Absolute:
      return number(std::fabs(a));
    case Code::Exp:
      return rounded(i.dtype, std::exp(a));
    case Code::Log:
      return rounded(i.dtype, std::log(a));
    case Code::Sqrt:
      return rounded(i.dtype, std::sqrt(a));
    case Code::Tanh:
      return rounded(i.dtype, std::tanh(a));
    case Code::Erf:
      return rounded(i.dtype, std::erf(a));
    case Code::Floor:
      return number(std::floor(a));
    case Code::IsNan:
      return truth(std::isnan(a));
    case Code::Add:
      return rounded(i.dtype, a + b);
    case Code::Subtract:
      return rounded(i.dtype, a - b);
    case Code::Multiply:
      return rounded(i.dtype, a * b);
    case Code::Divide:
      return rounded(i.dtype, a / b);
    case Code::Maximum:
      return number(larger(a, b));
    case Code::Minimum:
      return number(smaller(a, b));
    case Code::Equal:
      return truth(a == b);
    case Code::Less:
      return truth(a < b);
    case Code::LessEqual:
      return truth(a <= b);
    default:
      return number(std::numeric_limits<double>::quiet_NaN());  // forged: for integers alone
  }
}

Register on_integers(const Instruction& i, int64_t a, int64_t b) {
  const auto x = static_cast<uint64_t>(a), y = static_cast<uint64_t>(b);
  switch (i.code) {
    case Code::Negate:
      return wrapped(i.dtype, 0 - x);
    case Code::Absolute:
      return wrapped(i.dtype, a < 0 ? 0 - x : x);
    case Code::Add:
      return wrapped(i.dtype, x + y);
    case Code::Subtract:
      return wrapped(i.dtype, x - y);
    case Code::Multiply:
      return wrapped(i.dtype, x * y);
    case Code::Divide:
      return wrapped(i.dtype, static_cast<uint64_t>(divide(a, b)));
    case Code::FloorDivide:
      return wrapped(i.dtype, static_cast<uint64_t>(floor_divide(a, b)));
    case Code::Modulo:
      return integer(modulo(a, b));
    case Code::And:
      return integer(a & b);
    case Code::Or:
      return integer(a | b);
    case Code::Xor:
      return integer(a ^ b);
    case Code::Maximum:
      return integer(a > b ? a : b);
    case Code::Minimum:
      return integer(a < b ? a : b);
    case Code::Equal:
      return truth(a == b);
    case Code::Less:
      return truth(a < b);
    case Code::LessEqual:
      return truth(a <= b);
    default:
      return integer(0);  // forged: for floating types alone
  }
}

// Null for an element that is not in the buffer.
std::byte* element(const Memory& memory, DType dtype, int64_t index) {
  const uint64_t size = dtype_size(dtype), at = static_cast<uint64_t>(index);
  return at < memory.bytes / size ? memory.data + at * size : nullptr;
}

}  // namespace

TaskOutcome run_task(const Call& call, int64_t task, std::vector<Register>& registers) {
  TaskOutcome outcome;
  registers.assign(static_cast<size_t>(call.code->immediate), integer(0));
  registers[0].integer = task;
  for (size_t at = 1; call.code[at].code != Code::Return; ++at) {
    const Instruction& i = call.code[at];
    Register& to = registers[i.to];
    const Register a = registers[i.a], b = registers[i.b];
    switch (i.code) {
      case Code::Constant:
        to.integer = i.immediate;
        break;
      case Code::Parameter:
        to.integer = call.params[static_cast<size_t>(i.immediate)];
        break;
      case Code::Load:
      case Code::Store: {
        const Memory& memory = call.buffers[static_cast<size_t>(i.immediate)];
        std::byte* const place = element(memory, i.dtype, a.integer);
        const bool allowed = place != nullptr && (i.code == Code::Load || memory.writable);
        if (!allowed) return {outcome.failed_checks, true};
        if (i.code == Code::Load)
          to = load(i.dtype, place);
        else
          store(i.dtype, place, b);
        break;
      }
      case Code::Loop:
        to.integer = 0;
        if (a.integer <= 0) at = static_cast<size_t>(i.immediate);
        break;
      case Code::End: {
        const auto begin = static_cast<size_t>(i.immediate);
        const Instruction& loop = call.code[begin];
        if (++registers[loop.to].integer < registers[loop.a].integer) at = begin;
        break;
      }
      case Code::SkipUnless:
        if (a.integer == 0) at = static_cast<size_t>(i.immediate) - 1;
        break;
      case Code::Note:
        if (a.integer < 0) outcome.failed_checks |= uint64_t{1} << i.immediate;
        break;
      case Code::Convert:
        to = convert(static_cast<DType>(i.immediate), i.dtype, a);
        break;
      case Code::Select:
        to = a.integer != 0 ? b : registers[i.c];
        break;
      default:
        to = is_floating(i.dtype) ? on_numbers(i, a.number, b.number)
                                  : on_integers(i, a.integer, b.integer);
        break;
    }
  }
  return outcome;
}

}  // namespace kiln::stub
