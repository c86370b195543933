// Sorting: a block for each row, with keys and their numbers in the scratch (kernels/sort.cuh).
#include <algorithm>

#include "backends/cuda/compile/generate.h"
#include "backends/cuda/compile/kernel_texts.h"
#include "backends/cuda/compile/nest/mapping.h"
#include "plan/form/access.h"

namespace kiln::cuda {

using ir::Dim;

namespace {

constexpr int64_t kLeastThreads = 32, kMostThreads = 512;
constexpr int64_t kSmallNumber = int64_t{1} << 31;

int threads_for(int64_t keys) {
  int64_t threads = kLeastThreads;
  while (threads < kMostThreads && threads < keys) threads *= 2;
  return static_cast<int>(threads);
}

// The positions of a row in turns.
void open_turns(Emitter& emitter, const plan::Loop& loop) {
  const std::string type = position_type(Dim(loop.index)), name = emitter.fresh("i");
  emitter.open("for (" + type + " " + name + " = threadIdx.x; " + name + " < " +
               emitter.position(loop.extent()) + "; " + name + " += blockDim.x)");
  emitter.bind(loop.index, name);
}

}  // namespace

std::string sort_text(KernelContext& context, const plan::Sort& sort) {
  Emitter emitter(context);
  const Dim& size = sort.element.extent();
  const Dim rows = points_of(sort.outer);
  const std::string key = register_type(sort.key->dtype);
  const bool is_small = size.upper_bound() < kSmallNumber;
  const std::string number = is_small ? "int" : "long long";
  // Two of each for a row, the keys in front; rows begin at multiples of 8 bytes.
  const int64_t key_bytes = static_cast<int64_t>(
      dtype_size(is_16_bit_float(sort.key->dtype) ? DType::F32 : sort.key->dtype));
  const Dim keys = ir::ceildiv(size * (2 * key_bytes), Dim(int64_t{8})) * 8;
  const Dim row_bytes = keys + ir::ceildiv(size * (is_small ? 8 : 16), Dim(int64_t{8})) * 8;
  emitter.interface().scratch_bytes = rows * row_bytes;
  emitter.interface().grid = {rows};
  emitter.interface().task_writes = {{sort.out.buffer, sort.place.extent()}};

  const ir::SymbolPtr row = ir::make_loop_symbol("row", rows);
  emitter.line("const " + std::string(position_type(Dim(row))) + " row = blockIdx.x;");
  emitter.bind(row, "row");
  bind_loops(emitter, sort.outer, Dim(row));
  const std::string n = emitter.position(size);
  emitter.line("unsigned char* const own = scratch + (long long)row * " +
               emitter.position(row_bytes) + ";");
  emitter.line(key + "* keys = (" + key + "*)own;");
  emitter.line(key + "* other_keys = keys + " + n + ";");
  emitter.line(number + "* numbers = (" + number + "*)(own + " + emitter.position(keys) + ");");
  emitter.line(number + "* other_numbers = numbers + " + n + ";");
  open_turns(emitter, sort.element);
  const std::string at = emitter.position(Dim(sort.element.index));
  const std::string value = emitter.value(sort.key);
  emitter.line("keys[" + at + "] = " + value + ";");
  emitter.line("numbers[" + at + "] = " + at + ";");
  emitter.close();
  emitter.line("sort_row<" + std::string(sort.descending ? "true" : "false") +
               ">(keys, other_keys, numbers, other_numbers, " + n + ");");
  Dim offset = sort.out.offset;
  for (size_t i = 0; i < sort.outer.size(); ++i)
    offset += sort.out.strides[i] * Dim(sort.outer[i].index);
  open_turns(emitter, sort.place);
  emitter.store(sort.out.buffer, {offset + sort.out.strides.back() * Dim(sort.place.index)},
                "(long long)numbers[" + emitter.position(Dim(sort.place.index)) + "]");
  emitter.close();
  return emitter.finish(
      {.threads = threads_for(size.at_opt()), .before = std::string(kernel_text("sort.cuh"))});
}

}  // namespace kiln::cuda
