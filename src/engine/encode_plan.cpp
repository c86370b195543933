#include <algorithm>
#include <iterator>

#include "engine/engine_generated.h"
#include "engine/plan_codec.h"

namespace kiln::engine {
namespace {

using flatbuffers::FlatBufferBuilder;
using flatbuffers::Offset;

// Encodes each element of a list as a table.
template <typename Item, typename Encode>
auto encode_tables(FlatBufferBuilder& builder, const std::vector<Item>& items, Encode encode) {
  std::vector<decltype(encode(builder, items[0]))> tables;
  for (const Item& item : items) tables.push_back(encode(builder, item));
  return builder.CreateVector(tables);
}

Offset<fbs::Symbol> encode(FlatBufferBuilder& builder, const SymbolSpec& symbol) {
  return fbs::CreateSymbol(builder, builder.CreateString(symbol.name), symbol.input, symbol.dim,
                           symbol.min, symbol.max, symbol.opt, symbol.factor, symbol.offset);
}

Offset<fbs::Tensor> encode(FlatBufferBuilder& builder, const TensorSpec& tensor) {
  return fbs::CreateTensor(builder, builder.CreateString(tensor.name),
                           static_cast<uint8_t>(tensor.dtype), builder.CreateVector(tensor.shape));
}

// Absent when empty: most buffers have none.
Offset<flatbuffers::String> encode_optional(FlatBufferBuilder& builder, const std::string& text) {
  return text.empty() ? Offset<flatbuffers::String>() : builder.CreateString(text);
}

Offset<fbs::Buffer> encode(FlatBufferBuilder& builder, const BufferSpec& buffer) {
  const auto transform = encode_optional(builder, buffer.transform);
  const fbs::Hash hash(flatbuffers::span<const uint8_t, 16>(buffer.content_hash));
  return fbs::CreateBuffer(builder, static_cast<uint8_t>(buffer.kind), buffer.index, buffer.offset,
                           buffer.constant_bytes, buffer.bytes, buffer.first_step, buffer.last_step,
                           buffer.alias_of, buffer.source, transform,
                           buffer.content_hash == Hash128{} ? nullptr : &hash);
}

Offset<fbs::Kernel> encode(FlatBufferBuilder& builder, const KernelSpec& kernel) {
  const auto name = builder.CreateString(kernel.name);
  const auto kind = builder.CreateString(kernel.kind);
  const auto sources = builder.CreateVectorOfStrings(kernel.sources);
  return fbs::CreateKernel(builder, name, kind, sources, encode_optional(builder, kernel.key));
}

Offset<fbs::Check> encode(FlatBufferBuilder& builder, const CheckSpec& check) {
  return fbs::CreateCheck(builder, builder.CreateString(check.operation),
                          static_cast<uint8_t>(check.kind), check.size, check.input);
}

// Absent when empty: most steps check nothing.
auto encode_checks(FlatBufferBuilder& builder, const std::vector<CheckSpec>& checks) {
  const auto encode_check = [](FlatBufferBuilder& to, const CheckSpec& check) {
    return encode(to, check);
  };
  using List = decltype(encode_tables(builder, checks, encode_check));
  return checks.empty() ? List() : encode_tables(builder, checks, encode_check);
}

Offset<fbs::Step> encode(FlatBufferBuilder& builder, const StepSpec& step) {
  const auto buffers = builder.CreateVector(step.buffers);
  const auto params = builder.CreateVector(step.params);
  const auto writes = step.writes.empty() ? flatbuffers::Offset<flatbuffers::Vector<int32_t>>()
                                          : builder.CreateVector(step.writes);
  const auto checks = encode_checks(builder, step.checks);
  return fbs::CreateStep(builder, step.kernel, buffers, params, step.tasks,
                         step.min_tasks_per_thread, step.scratch_bytes, writes, checks);
}

Offset<fbs::Variant> encode(FlatBufferBuilder& builder, const CodeVariant& variant) {
  const auto name = builder.CreateString(variant.name);
  return fbs::CreateVariant(builder, name, variant.cpu_features,
                            builder.CreateVector(variant.entry));
}

template <typename Item>
auto encode_list(FlatBufferBuilder& builder, const std::vector<Item>& items) {
  return encode_tables(builder, items,
                       [](FlatBufferBuilder& to, const Item& item) { return encode(to, item); });
}

auto encode_sizes(FlatBufferBuilder& builder, const std::vector<SizeInstruction>& sizes) {
  std::vector<fbs::SizeInstruction> encoded;
  for (const SizeInstruction& size : sizes)
    encoded.emplace_back(size.immediate, size.a, size.b, static_cast<uint8_t>(size.op));
  return builder.CreateVectorOfStructs(encoded);
}

}  // namespace

std::vector<std::byte> encode_plan(const Spec& spec) {
  FlatBufferBuilder builder(1 << 16);
  const auto name = builder.CreateString(spec.name);
  const auto producer = builder.CreateString(spec.producer);
  const auto target = builder.CreateString(spec.target);
  const auto symbols = encode_list(builder, spec.symbols);
  const auto sizes = encode_sizes(builder, spec.sizes);
  const auto inputs = encode_list(builder, spec.inputs);
  const auto outputs = encode_list(builder, spec.outputs);
  const auto buffers = encode_list(builder, spec.buffers);
  const auto kernels = encode_list(builder, spec.kernels);
  const auto steps = encode_list(builder, spec.steps);
  const auto variants = encode_list(builder, spec.variants);
  const auto program_hash = encode_optional(builder, spec.program_hash);
  const auto metadata = encode_optional(builder, spec.metadata);
  const auto disabled_passes = builder.CreateVectorOfStrings(spec.disabled_passes);
  fbs::FinishPlanBuffer(
      builder,
      fbs::CreatePlan(builder, name, producer, target, symbols, sizes, inputs, outputs, buffers,
                      kernels, steps, variants, program_hash, disabled_passes, spec.refittable,
                      metadata, spec.emulate_precision_casts, spec.unchecked));
  const auto* begin = reinterpret_cast<const std::byte*>(builder.GetBufferPointer());
  return {begin, begin + builder.GetSize()};
}

}  // namespace kiln::engine
