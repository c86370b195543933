// Outputs that update inputs are written to the memory of these. Where that is right without a copy,
// only what changes is written: a cache of keys costs what a step puts into it.
//
// Output o updates input i: from here on both are one memory, which holds i to begin with. So
//  - what would copy an element of i to its own place is left out: stores of a nest, the initial
//    elements of a Scatter;
//  - versions of i on the way to o, each a Scatter or some stores over the one before, are o: the
//    kernels write one after another to the same memory;
//  - no kernel reads i after one that writes o. The writer is moved behind the readers if nobody needs
//    what it writes before that; it may read i itself where it works in place.
// Where that cannot be, o is computed in memory of its own and copied at the end, when nobody reads i
// any more.
#include <algorithm>

#include "plan/form/kernels.h"
#include "plan/form/parts.h"
#include "plan/passes/fusion.h"
#include "plan/passes/in_place.h"
#include "plan/passes/pass.h"

namespace kiln::plan {
namespace {

bool contains(const std::vector<BufferId>& buffers, BufferId buffer) {
  return std::ranges::find(buffers, buffer) != buffers.end();
}

bool has_any(const std::vector<BufferId>& buffers, const std::vector<BufferId>& others) {
  return std::ranges::any_of(others, [&](BufferId id) { return contains(buffers, id); });
}

void rename(Kernel& kernel, BufferId from, BufferId to) {
  transform_exprs(kernel, [&](const Expr& expr) {
    return rewrite(expr, [&](const ExprNode& node) -> Expr {
      if (node.kind != ExprKind::Load || node.buffer != from) return nullptr;
      return load(to, node.dtype, node.args, node.predicate);
    });
  });
  for (BufferId* id : buffer_slots(kernel))
    if (*id == from) *id = to;
}

class Update {
 public:
  Update(Program& program, BufferId output, BufferId input)
      : program_(program), output_(output), input_(input) {}

  void run() {
    const std::vector<Kernel> kernels = program_.kernels;
    if (!program_.repeats.empty()) {
      if (!write_behind_readers()) {
        program_.kernels = kernels;
        copy_at_end();
      }
    } else if (!write_in_place(true)) {
      program_.kernels = kernels;
      if (!write_in_place(false)) {
        program_.kernels = kernels;
        copy_at_end();
      }
    }
    program_.buffers[output_].alias_of = input_;
  }

 private:
  static constexpr size_t kNone = ~size_t{0};

  // `versions`: those in between are joined.
  bool write_in_place(bool versions) {
    while (versions && join_version()) {
    }
    drop_identity(input_);
    if (!move_behind_readers()) return false;
    const size_t first = first_writer();
    if (first == kNone) return true;
    const Kernel& kernel = program_.kernels[first];
    return !contains(reads(kernel), input_) || works_in_place(program_, kernel, input_, output_);
  }

  // Nothing moves into a repeat or out of it: whoever reads the input does it before all that write the output,
  // again or for the first time.
  bool write_behind_readers() {
    if (!is_read_before()) return false;
    drop_identity(input_);
    return true;
  }

  bool is_read_before() const {
    const size_t writer = first_writer(), reader = last_reader(input_);
    if (writer == kNone || reader == kNone) return true;
    const int32_t repeat = repeat_below(program_, program_.kernels[writer]);
    if (repeat != -1) return reader < repeat_ranges(program_)[static_cast<size_t>(repeat)].first;
    const Kernel& kernel = program_.kernels[writer];
    return reader < writer ||
           (reader == writer && works_in_place(program_, kernel, input_, output_));
  }

  size_t first_writer() const {
    for (size_t i = 0; i < program_.kernels.size(); ++i)
      if (contains(writes(program_.kernels[i]), output_)) return i;
    return kNone;
  }

  size_t last_reader(BufferId buffer) const {
    for (size_t i = program_.kernels.size(); i-- > 0;)
      if (contains(reads(program_.kernels[i]), buffer)) return i;
    return kNone;
  }

  // --- What is there already ---

  bool is_load_at(const Expr& expr, BufferId from, const Index& offset) const {
    if (expr->kind != ExprKind::Load || expr->buffer != from || expr->predicate) return false;
    const auto at = load_indices(*expr);
    return at && linearize(program_.buffers[from].type.shape, *at) == offset;
  }

  bool is_identity(const Stage& stage, BufferId from) const {
    const auto* store = std::get_if<Store>(&stage);
    return store && store->buffer == output_ && !store->scan &&
           is_load_at(store->value, from,
                      linearize(program_.buffers[output_].type.shape, store->indices));
  }

  void drop_identity(Scatter& scatter, BufferId from) const {
    if (scatter.out.buffer != output_ || !scatter.initial) return;
    const std::vector<Loop> loops =
        with_loops(with_loops(scatter.outer, {scatter.position}), scatter.inner);
    Index offset = scatter.out.offset;
    for (size_t i = 0; i < loops.size(); ++i)
      offset += scatter.out.strides[i] * Index(loops[i].index);
    if (is_load_at(scatter.initial, from, offset)) scatter.initial = nullptr;
  }

  // Copies of elements of `from`, which is or becomes the output's memory, to their own places.
  void drop_identity(BufferId from) {
    for (Kernel& kernel : program_.kernels) {
      if (auto* scatter = std::get_if<Scatter>(&kernel.body)) drop_identity(*scatter, from);
      auto* nest = std::get_if<LoopNest>(&kernel.body);
      if (!nest) continue;
      const auto dropped =
          std::erase_if(nest->stages, [&](const Stage& stage) { return is_identity(stage, from); });
      if (dropped != 0 && writes(kernel).empty()) make_empty(kernel);
    }
    remove_empty(program_);
  }

  // --- Versions in between ---

  // Joins one that the writers of the output begin with, and that nobody needs afterwards.
  bool join_version() {
    if (writers_read_input()) return false;
    for (BufferId version : read_by_writers()) {
      const Buffer& buffer = program_.buffers[version];
      if (buffer.kind != BufferKind::Temporary || !(buffer.type == program_.buffers[output_].type))
        continue;
      const std::vector<Kernel> kernels = program_.kernels;
      if (try_join(version)) return true;
      program_.kernels = kernels;
    }
    return false;
  }

  std::vector<BufferId> read_by_writers() const {
    std::vector<BufferId> result;
    for (const Kernel& kernel : program_.kernels) {
      if (!contains(writes(kernel), output_)) continue;
      for (BufferId id : reads(kernel))
        if (!contains(result, id)) result.push_back(id);
    }
    return result;
  }

  // Such a kernel could put back what a version before it had changed.
  bool writers_read_input() const {
    return std::ranges::any_of(program_.kernels, [&](const Kernel& kernel) {
      return contains(writes(kernel), output_) && contains(reads(kernel), input_);
    });
  }

  // Only where writers leave what is there: what is read otherwise is read before, and made before.
  bool try_join(BufferId version) {
    drop_identity(version);
    for (size_t i = first_writer(); i < program_.kernels.size(); ++i) {
      const Kernel& kernel = program_.kernels[i];
      if (contains(reads(kernel), version) || contains(writes(kernel), version)) return false;
    }
    for (Kernel& kernel : program_.kernels) rename(kernel, version, output_);
    return true;
  }

  // --- Readers of what is overwritten ---

  // Whether a kernel may change places with one that comes before it.
  bool commute(const Kernel& before, const Kernel& kernel) const {
    const std::vector<BufferId> written = writes(before), later = writes(kernel);
    if (has_any(reads(kernel), written) || has_any(later, written)) return false;
    if (std::ranges::any_of(written, [&](BufferId id) { return is_count(program_, id); }))
      return false;
    const std::vector<BufferId> read = reads(before);
    return std::ranges::none_of(later, [&](BufferId id) {
      return contains(read, id) || contains(read, program_.buffers[id].alias_of);
    });
  }

  bool move_behind_readers() {
    const size_t writer = first_writer(), reader = last_reader(input_);
    if (writer == kNone || reader == kNone || reader <= writer) return true;
    auto& kernels = program_.kernels;
    for (size_t i = writer + 1; i <= reader; ++i)
      if (!commute(kernels[writer], kernels[i])) return false;
    const auto at = kernels.begin() + static_cast<std::ptrdiff_t>(writer);
    std::rotate(at, at + 1, kernels.begin() + static_cast<std::ptrdiff_t>(reader) + 1);
    return true;
  }

  // --- The copy ---

  void copy_at_end() {
    Buffer own = program_.buffers[output_];
    own.kind = BufferKind::Temporary;
    const std::string name = "update_" + own.name;
    const ir::Type type = own.type;
    const BufferId made = program_.add_buffer(std::move(own));
    for (Kernel& kernel : program_.kernels) rename(kernel, output_, made);
    const LoopSpace space = make_loops(type.shape);
    Store store{output_, {}, space.indices, load_at(made, type.dtype, space.indices), std::nullopt};
    program_.kernels.push_back({unused(name), LoopNest{space.loops, {std::move(store)}}, {}});
  }

  std::string unused(const std::string& stem) const {
    const auto is_taken = [&](const std::string& name) {
      return std::ranges::find(program_.kernels, name, &Kernel::name) != program_.kernels.end();
    };
    std::string name = stem;
    for (int i = 1; is_taken(name); ++i) name = stem + "_" + std::to_string(i);
    return name;
  }

  Program& program_;
  const BufferId output_, input_;
};

}  // namespace

void update_inputs(Program& program) {
  for (const auto& [output, input] : program.updates)
    Update(program, program.outputs.at(output), program.inputs.at(input)).run();
}

}  // namespace kiln::plan
