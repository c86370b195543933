#include "torch/aoti/size_program.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <stdexcept>
#include <string>

namespace kiln::aoti {
namespace {

template <typename Integer>
bool parse_integer(std::string_view text, Integer& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

[[noreturn]] void fail(std::string_view text, const char* expected) {
  throw std::runtime_error("got the size \"" + std::string(text) + "\", expected " + expected);
}

}  // namespace

void SizeProgram::add(std::string_view function, std::string_view left, std::string_view right) {
  const auto known = size_function_named(function);
  if (!known) fail(function, "a function, such as add");
  instructions_.push_back({*known, operand(left), operand(right)});
}

SizeOperand SizeProgram::operand(std::string_view text) const {
  SizeOperand result;
  if (text.starts_with('i')) {
    const size_t split = std::min(text.find('_'), text.size() - 1);
    result.kind = SizeOperand::Kind::Size;
    auto& [input, dim] = result.size;
    if (!parse_integer(text.substr(1, split - 1), input) ||
        !parse_integer(text.substr(split + 1), dim) || input >= ranks_.size() ||
        dim >= static_cast<size_t>(ranks_[input])) {
      fail(text, "i<input>_<dimension> of an input that there is");
    }
  } else if (text.starts_with('#')) {
    result.kind = SizeOperand::Kind::Result;
    if (!parse_integer(text.substr(1), result.instruction) ||
        result.instruction >= instructions_.size()) {
      fail(text, "the number of an earlier instruction");
    }
  } else if (!parse_integer(text, result.constant)) {
    fail(text, "a number, i<input>_<dimension> or #<instruction>");
  }
  return result;
}

std::vector<InputSize> SizeProgram::sizes_of(const SizeOperand& operand) const {
  std::vector<bool> needed(instructions_.size());
  std::set<InputSize> sizes;
  const auto see = [&](const SizeOperand& each) {
    if (each.kind == SizeOperand::Kind::Result) needed[each.instruction] = true;
    if (each.kind == SizeOperand::Kind::Size) sizes.insert(each.size);
  };
  see(operand);
  for (size_t i = instructions_.size(); i-- > 0;) {
    if (!needed[i]) continue;
    see(instructions_[i].left);
    see(instructions_[i].right);
  }
  return {sizes.begin(), sizes.end()};
}

SizeValues::SizeValues(const SizeProgram& program, std::span<const kiln_tensor> inputs)
    : inputs_(inputs) {
  results_.reserve(program.instructions_.size());
  for (const auto& [function, left, right] : program.instructions_) {
    results_.push_back(apply_size_function(function, find(left), find(right)));
  }
}

SizeValue SizeValues::find(const SizeOperand& operand) const {
  switch (operand.kind) {
    case SizeOperand::Kind::Constant:
      return operand.constant;
    case SizeOperand::Kind::Size:
      return inputs_[operand.size.input].shape[operand.size.dim];
    case SizeOperand::Kind::Result:
      return results_[operand.instruction];
  }
  return std::nullopt;
}

int64_t SizeValues::get(const SizeOperand& operand) const {
  const SizeValue value = find(operand);
  if (!value) {
    throw std::runtime_error("a size overflows or divides by zero for these input shapes");
  }
  return *value;
}

}  // namespace kiln::aoti
