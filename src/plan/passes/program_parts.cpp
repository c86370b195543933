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
  const std::vector<Kernel>& kernels = program.kernels;
  size_t known = 0;
  for (size_t first = 0, end = 0; first < kernels.size(); first = end) {
    // All that are read at one place are known behind it.
    while (known < reads.size() && reads[known] <= first) ++known;
    const size_t most = known < reads.size() ? reads[known] : kernels.size();
    for (end = first + 1; end < most && kernels[end].repeat == kernels[first].repeat;) ++end;
    repeats_.push_back(kernels[first].repeat);
    parts_.push_back(make_part({first, end, known, kernels[first].repeat}, shared_.emplace_back()));
  }
  program.kernels.clear();
}

Program ProgramParts::make_part(const Cut& cut, Shared& shared) const {
  Program part;
  part.name = program_.name;
  part.checks = program_.checks;
  part.traits = program_.traits;
  const size_t unknown = program_.data_sizes.size() - cut.known;
  part.symbols.assign(program_.symbols.begin(),
                      program_.symbols.end() - static_cast<std::ptrdiff_t>(unknown));
  std::vector<BufferId> read_ids(program_.buffers.size(), -1), write_ids = read_ids;
  const std::vector<Uses> all_uses = find_uses(program_, cut.first, cut.end);
  const auto add = [&](size_t buffer, BufferKind kind) {
    part.buffers.push_back(program_.buffers[buffer]);
    part.buffers.back().kind = kind;
    const auto id = static_cast<BufferId>(part.buffers.size() - 1);
    if (kind == BufferKind::Input) {
      part.inputs.push_back(id);
      shared.inputs.push_back(static_cast<BufferId>(buffer));
    } else if (kind == BufferKind::Output) {
      part.outputs.push_back(id);
      shared.outputs.push_back(static_cast<BufferId>(buffer));
    }
    return id;
  };
  for (size_t i = 0; i < read_ids.size(); ++i) {
    const auto id = static_cast<BufferId>(i);
    const Uses& uses = all_uses[i];
    if (!uses.used) continue;
    const bool is_carried = uses.written_before && uses.written;
    KILN_CHECK(!is_carried || cut.repeat != -1, "two parts write " + program_.buffers[i].name);
    const bool is_wanted = uses.read_behind || is_count(program_, id) || is_condition(program_, id);
    if (is_carried) {
      read_ids[i] = add(i, BufferKind::Input);
      write_ids[i] = add(i, BufferKind::Output);
      part.updates[part.outputs.size() - 1] = part.inputs.size() - 1;
    } else {
      const BufferKind kind = uses.written_before         ? BufferKind::Input
                              : uses.written && is_wanted ? BufferKind::Output
                                                          : program_.buffers[i].kind;
      read_ids[i] = write_ids[i] = add(i, kind);
    }
  }
  for (size_t i = cut.first; i < cut.end; ++i) {
    Kernel& kernel = part.kernels.emplace_back(program_.kernels[i]);
    kernel.repeat = -1;
    const std::vector<BufferId> written = writes(kernel);
    std::vector<BufferId> ids = read_ids;
    for (const BufferId buffer : written) ids[buffer] = write_ids[buffer];
    renumber_buffers(kernel, ids);
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
      if (ids[i] == -1) ids[i] = program_.add_buffer(part.buffers[i]);
    // Of what is a part's own: what an output of a part updates is the same buffer of the program.
    for (size_t i = 0; i < ids.size(); ++i)
      if (const BufferId alias = part.buffers[i].alias_of;
          alias != -1 && part.buffers[i].kind == BufferKind::Temporary)
        program_.buffers[ids[i]].alias_of = ids[alias];
    for (Kernel& kernel : part.kernels) {
      renumber_buffers(kernel, ids);
      kernel.repeat = repeats_[p];
      for (int i = 1; !names.insert(kernel.name).second; ++i)
        kernel.name += "_" + std::to_string(i);
      program_.kernels.push_back(std::move(kernel));
    }
  }
  parts_.clear();
}

}  // namespace kiln::plan
