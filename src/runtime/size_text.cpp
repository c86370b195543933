#include "runtime/size_text.h"

#include <cstdio>

#include "runtime/size_program.h"

namespace kiln::runtime {
namespace {

using engine::SizeInstruction;
using engine::SizeOp;
using engine::Slot;
using engine::Spec;
using engine::SymbolSpec;

constexpr int32_t kUnneeded = -2, kNone = -1;

using Text = SizeText::Operand;

template <typename... Numbers>
Text format(const char* form, Numbers... numbers) {
  Text text;
  std::snprintf(text.data(), text.size(), form, static_cast<long long>(numbers)...);
  return text;
}

Text input_size(const SymbolSpec& symbol) { return format("i%lld_%lld", symbol.input, symbol.dim); }
Text result_of(int32_t instruction) { return format("#%lld", instruction); }

void write(JsonWriter& json, SizeFunction function, const Text& left, const Text& right) {
  std::array<char, 3 * sizeof(Text)> text;
  std::snprintf(text.data(), text.size(), "%s %s %s", size_function_name(function).data(),
                left.data(), right.data());
  json.value(text.data());
}

}  // namespace

SizeText::SizeText(const Spec& spec) : spec_(spec), results_(spec.sizes.size(), kUnneeded) {
  const auto need = [&](Slot slot) { results_[static_cast<size_t>(slot)] = kNone; };
  for (const auto* tensors : {&spec.inputs, &spec.outputs})
    for (const engine::TensorSpec& tensor : *tensors)
      for (const Slot slot : tensor.shape) need(slot);
  for (const engine::DataSizeSpec& size : spec.data_sizes)
    if (size.bound != -1) need(size.bound);
  for (size_t slot = results_.size(); slot-- > 0;) {
    const SizeInstruction& size = spec.sizes[slot];
    if (results_[slot] == kUnneeded || !is_function(size.op)) continue;
    need(size.a);
    need(size.b);
  }
  int32_t count = 0;
  for (size_t slot = 0; slot < results_.size(); ++slot) {
    const SizeInstruction& size = spec.sizes[slot];
    if (results_[slot] == kUnneeded || size.op == SizeOp::Constant) continue;
    const int32_t before = count;
    if (is_function(size.op))
      ++count;
    else if (!is_data_size(size))
      count += (symbol(size).offset != 0 ? 1 : 0) + (symbol(size).factor != 1 ? 1 : 0);
    if (count > before) results_[slot] = count - 1;
  }
}

const SymbolSpec& SizeText::symbol(const SizeInstruction& size) const {
  return spec_.symbols[static_cast<size_t>(size.immediate)];
}

bool SizeText::is_data_size(const SizeInstruction& size) const {
  return size.immediate >= static_cast<int64_t>(spec_.symbols.size());
}

SizeText::Operand SizeText::operand(Slot slot) const {
  const SizeInstruction& size = spec_.sizes[static_cast<size_t>(slot)];
  const int32_t result = results_[static_cast<size_t>(slot)];
  if (result != kNone) return result_of(result);
  if (size.op == SizeOp::Symbol && is_data_size(size))
    return format("u%lld", size.immediate - static_cast<int64_t>(spec_.symbols.size()));
  return size.op == SizeOp::Constant ? format("%lld", size.immediate) : input_size(symbol(size));
}

void SizeText::write_instructions(JsonWriter& json) const {
  json.begin_array();
  for (size_t slot = 0; slot < results_.size(); ++slot) {
    const SizeInstruction& size = spec_.sizes[slot];
    if (results_[slot] < 0) continue;
    if (is_function(size.op)) {
      write(json, function_of(size.op), operand(size.a), operand(size.b));
      continue;
    }
    // A size of an input is factor * symbol + offset.
    Text value = input_size(symbol(size));
    const int64_t offset = symbol(size).offset, factor = symbol(size).factor;
    if (offset != 0) {
      write(json, SizeFunction::Sub, value, format("%lld", offset));
      value = result_of(results_[slot] - 1);
    }
    if (factor != 1) write(json, SizeFunction::FloorDiv, value, format("%lld", factor));
  }
  json.end_array();
}

}  // namespace kiln::runtime
