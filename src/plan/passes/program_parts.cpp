#include "plan/passes/program_parts.h"

#include <algorithm>
#include <set>

#include "plan/form/kernels.h"
#include "plan/form/parts.h"
#include "support/error.h"

namespace kiln::plan {
namespace {

// Which kernels touch a buffer: those before a part, in it and behind it.
struct Uses {
  bool written_before = false, written = false, read_behind = false, used = false;
};

std::vector<Uses> find_uses(const Program& program, size_t first, size_t end) {
  std::vector<Uses> result(program.buffers.size());
  for (size_t i = 0; i < program.kernels.size(); ++i) {
    const bool is_inside = first <= i && i < end;
    for (const BufferId buffer : reads(program.kernels[i])) {
      result[buffer].used |= is_inside;
      result[buffer].read_behind |= i >= end;
    }
    for (const BufferId buffer : writes(program.kernels[i])) {
      result[buffer].used |= is_inside;
      result[buffer].written |= is_inside;
      result[buffer].written_before |= i < first;
    }
  }
  return result;
}

}  // namespace

ProgramParts::ProgramParts(Program& program) : program_(program) {
  const std::vector<size_t> reads = reads_of_sizes(program);
  size_t known = 0;
  for (size_t first = 0, end = 0; first < program.kernels.size(); first = end) {
    // All that are read at one place are known behind it.
    while (known < reads.size() && reads[known] <= first) ++known;
    end = known < reads.size() ? reads[known] : program.kernels.size();
    parts_.push_back(make_part(first, end, known, shared_.emplace_back()));
  }
  program.kernels.clear();
}

Program ProgramParts::make_part(size_t first, size_t end, size_t known, Shared& shared) const {
  Program part;
  part.name = program_.name;
  part.checks = program_.checks;
  part.traits = program_.traits;
  const size_t unknown = program_.data_sizes.size() - known;
  part.symbols.assign(program_.symbols.begin(),
                      program_.symbols.end() - static_cast<std::ptrdiff_t>(unknown));
  std::vector<BufferId> ids(program_.buffers.size(), -1);
  const std::vector<Uses> all_uses = find_uses(program_, first, end);
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto id = static_cast<BufferId>(i);
    const Uses& uses = all_uses[i];
    if (!uses.used) continue;
    Buffer buffer = program_.buffers[i];
    KILN_CHECK(!uses.written_before || !uses.written, "two parts write " + buffer.name);
    if (uses.written_before) buffer.kind = BufferKind::Input;
    if (uses.written && (uses.read_behind || is_count(program_, id)))
      buffer.kind = BufferKind::Output;
    ids[i] = part.add_buffer(std::move(buffer));
    if (part.buffers.back().kind == BufferKind::Input) {
      part.inputs.push_back(ids[i]);
      shared.inputs.push_back(id);
    } else if (part.buffers.back().kind == BufferKind::Output) {
      part.outputs.push_back(ids[i]);
      shared.outputs.push_back(id);
    }
  }
  for (size_t i = first; i < end; ++i) {
    part.kernels.push_back(program_.kernels[i]);
    renumber_buffers(part.kernels.back(), ids);
  }
  return part;
}

void ProgramParts::join() {
  std::set<std::string> names;
  for (size_t p = 0; p < parts_.size(); ++p) {
    Program& part = parts_[p];
    std::vector<BufferId> ids(part.buffers.size(), -1);
    for (size_t i = 0; i < part.inputs.size(); ++i) ids[part.inputs[i]] = shared_[p].inputs[i];
    for (size_t i = 0; i < part.outputs.size(); ++i) ids[part.outputs[i]] = shared_[p].outputs[i];
    for (size_t i = 0; i < ids.size(); ++i)
      if (ids[i] == -1) ids[i] = program_.add_buffer(std::move(part.buffers[i]));
    for (Kernel& kernel : part.kernels) {
      renumber_buffers(kernel, ids);
      for (int i = 1; !names.insert(kernel.name).second; ++i)
        kernel.name += "_" + std::to_string(i);
      program_.kernels.push_back(std::move(kernel));
    }
  }
  parts_.clear();
}

}  // namespace kiln::plan
