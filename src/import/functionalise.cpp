#include "import/functionalise.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "import/mutation.h"
#include "import/views.h"

namespace kiln::import {
namespace {

template <typename T>
std::optional<T> argument(const ProgramNode& node, std::string_view name) {
  for (const auto& [given, value] : node.inputs)
    if (const T* found = std::get_if<T>(&value); given == name && found) return *found;
  return std::nullopt;
}

std::optional<int64_t> constant_size(const TensorMeta& meta, int64_t dim) {
  const auto rank = static_cast<int64_t>(meta.sizes.size());
  if (dim < 0) dim += rank;
  if (dim < 0 || dim >= rank) return std::nullopt;
  const SizeExpression& size = meta.sizes[static_cast<size_t>(dim)];
  if (!size.expression.empty()) return std::nullopt;
  return size.constant;
}

// One graph on its way.
class Functionaliser {
 public:
  // By the name of an input: whether it may end changed.
  using Inputs = std::map<std::string, bool, std::less<>>;

  Functionaliser(ProgramGraph& graph, const Inputs& inputs) : graph_(graph), inputs_(inputs) {}

  void run() {
    std::vector<ProgramNode> nodes = std::move(graph_.nodes);
    graph_.nodes.clear();
    for (ProgramNode& node : nodes) {
      if (functional_target(node.target))
        change(std::move(node));
      else
        add(std::move(node));
    }
    for (Argument& output : graph_.outputs) rename(output);
  }

  // What a name means at the end, if it was changed.
  std::optional<std::string> changed(const std::string& root) const {
    const auto found = names_.find(root);
    if (found == names_.end() || found->second.version == 0) return std::nullopt;
    return found->second.now;
  }
  void rename(Argument& argument) {
    if (auto* one = std::get_if<TensorName>(&argument)) one->name = value_of(one->name);
    if (auto* many = std::get_if<std::vector<TensorName>>(&argument))
      for (TensorName& tensor : *many) tensor.name = value_of(tensor.name);
  }

 private:
  // A name of the program. `view` is the node that made it of `base`, with the names of the program.
  struct Name {
    std::string now;   // the name of its value
    int version = 0;   // of the root's memory when that was computed; a root's own: the newest
    std::string base;  // empty: a root
    std::optional<ProgramNode> view;
    Back back = Back::Same;
    // Of a root, by their indices: the node that changed it last, and the one that changed something
    // that may be this memory, or may not.
    std::optional<size_t> changed_by, doubtful;
    bool is_shared = false;  // of a root: other roots may be the same memory
  };

  Name& name_of(const std::string& name) {
    Name& found = names_[name];
    if (found.now.empty()) found.now = name;
    return found;
  }
  std::string root_of(std::string name) {
    while (!name_of(name).base.empty()) name = name_of(name).base;
    return name;
  }

  std::string fresh(const std::string& name) {
    std::string result;
    for (int i = 1; result.empty() || graph_.tensor_values.contains(result); ++i)
      result = name + "_" + std::to_string(i);
    if (const auto meta = graph_.tensor_values.find(name); meta != graph_.tensor_values.end())
      graph_.tensor_values[result] = meta->second;
    return result;
  }

  // The change at `index` cannot be imported. The first reason is the one that is told.
  void refuse(size_t index, std::string_view why) {
    std::string& refusal = graph_.nodes[index].refusal;
    if (refusal.empty())
      refusal = "got a change in place of " + std::string(why) +
                ", expected a functional graph "
                "(torch.export.export(...).run_decompositions({}) gives one)";
  }

  // The name of the value that `name` has here, for who is about to use it.
  std::string value_of(const std::string& name) {
    if (name.empty()) return name;
    const Name& root = name_of(root_of(name));
    const int version = root.version;
    if (root.doubtful)
      refuse(*root.doubtful, "what may be the memory of " + name + ", which is used later");
    if (name_of(name).base.empty() || name_of(name).version == version) return name_of(name).now;
    if (name_of(name).back == Back::None) {
      refuse(root.changed_by.value(),
             "memory that " + name + " may be a view of, which is used later");
      return name_of(name).now;
    }
    const std::string base = value_of(name_of(name).base);
    Name& stale = name_of(name);
    if (stale.back != Back::Same) {
      take_again(*stale.view, base, version);
      return name_of(name).now;
    }
    stale.now = base;
    stale.version = version;
    return stale.now;
  }

  // All results of a view, of the new value of what it shows.
  void take_again(ProgramNode node, const std::string& base, int version) {
    std::get<TensorName>(first_tensor(node)).name = base;
    for (Argument& output : node.outputs) {
      const auto renew = [&](TensorName& tensor) {
        if (tensor.name.empty()) return;
        Name& name = name_of(tensor.name);
        name.now = tensor.name = fresh(tensor.name);
        name.version = version;
      };
      if (auto* one = std::get_if<TensorName>(&output)) renew(*one);
      if (auto* many = std::get_if<std::vector<TensorName>>(&output))
        for (TensorName& tensor : *many) renew(tensor);
    }
    node.made = true;
    graph_.nodes.push_back(std::move(node));
  }

  static Argument& first_tensor(ProgramNode& node) {
    return std::ranges::find_if(
               node.inputs,
               [](const auto& input) { return std::holds_alternative<TensorName>(input.second); })
        ->second;
  }
  static bool has_tensor(const ProgramNode& node) {
    return std::ranges::any_of(node.inputs, [](const auto& input) {
      return std::holds_alternative<TensorName>(input.second);
    });
  }

  // A node that changes nothing.
  void add(ProgramNode node) {
    const ViewRule* rule = find_view(operator_name(node.target));
    if (rule != nullptr && !has_tensor(node)) {
      share(node);
    } else if (rule != nullptr) {
      const std::string base = std::get<TensorName>(first_tensor(node)).name;
      const int version = name_of(root_of(base)).version;
      for (const std::string& output : node.output_names()) {
        if (output.empty() || converts(rule->name, base, output)) continue;
        names_[output] = {output, version, base, node, rule->back};
      }
    }
    ProgramNode renamed = node;
    for (auto& [name, argument] : renamed.inputs) rename(argument);
    graph_.nodes.push_back(std::move(renamed));
  }

  // Results of a list of tensors may be views of any of them.
  void share(const ProgramNode& node) {
    for (const auto& [name, argument] : node.inputs)
      if (const auto* many = std::get_if<std::vector<TensorName>>(&argument))
        for (const TensorName& tensor : *many) name_of(root_of(tensor.name)).is_shared = true;
    for (const std::string& output : node.output_names()) name_of(output).is_shared = true;
  }

  // `to` of another type is a copy.
  bool converts(std::string_view name, const std::string& from, const std::string& to) const {
    const auto old = graph_.tensor_values.find(from), made = graph_.tensor_values.find(to);
    return name == "to" && old != graph_.tensor_values.end() &&
           made != graph_.tensor_values.end() && old->second.dtype.code != made->second.dtype.code;
  }

  void change(ProgramNode node) {
    const std::string result = node.name();
    if (!has_tensor(node)) {
      node.refusal = std::string("got no operand, expected a tensor to change in place");
      graph_.nodes.push_back(std::move(node));
      return;
    }
    const std::string operand = std::get<TensorName>(first_tensor(node)).name;
    node.target = *functional_target(node.target);
    for (auto& [name, argument] : node.inputs) rename(argument);
    node.changes = name_of(operand).now;
    graph_.nodes.push_back(std::move(node));
    const size_t index = graph_.nodes.size() - 1;
    put_back(operand, result, index);
    names_[result] = {result, name_of(root_of(operand)).version, operand, std::nullopt, Back::Same};
  }

  // What `name` shows is `value` now.
  void put_back(const std::string& name, std::string value, size_t changing) {
    const std::string root = root_of(name);
    const int version = name_of(root).version + 1;
    for (std::string at = name; at != root;) {
      const std::string base = name_of(at).base;
      const std::string whole = value_of(base);
      Name& view = name_of(at);
      view.now = value;
      view.version = version;
      const std::optional<std::string> made = join(at, whole, value);
      if (!made) return detach(at, root, changing);
      value = *made;
      at = base;
    }
    if (const auto input = inputs_.find(root); input != inputs_.end() && !input->second)
      refuse(changing, "the constant " + root);
    if (name_of(root).is_shared) refuse(changing, root + ", whose memory other tensors may share");
    name_of(root).now = value;
    name_of(root).version = version;
    name_of(root).changed_by = changing;
  }

  // What `name` shows cannot be put back into `root`: right if nobody looks at that again.
  void detach(const std::string& name, const std::string& root, size_t changing) {
    name_of(name).base.clear();
    name_of(name).version = name_of(root).version + 1;  // later than all views of it
    name_of(name).changed_by = changing;
    name_of(root).doubtful = changing;
    if (inputs_.contains(root)) refuse(changing, "what may be the memory of the input " + root);
    if (name_of(root).is_shared) refuse(changing, root + ", whose memory other tensors may share");
  }

  // `whole` with the elements that `name` shows from `part`.
  std::optional<std::string> join(const std::string& name, const std::string& whole,
                                  const std::string& part) {
    const Name& view = name_of(name);
    if (view.back == Back::Same) return part;
    if (!view.view || view.back == Back::None) return std::nullopt;
    const ProgramNode& taken = *view.view;
    ProgramNode node;
    node.location = taken.location;
    node.made = true;
    node.inputs = {{"self", TensorName{whole}}, {"src", TensorName{part}}};
    if (!set_join(node, view.back, taken, name, part)) return std::nullopt;
    const std::string made = fresh(view.base);
    node.outputs = {TensorName{made}};
    graph_.nodes.push_back(std::move(node));
    return made;
  }

  bool set_join(ProgramNode& node, Back back, const ProgramNode& taken, const std::string& name,
                const std::string& part) const {
    const auto take_arguments = [&](const std::string& target) {
      node.target = target;
      for (size_t i = 1; i < taken.inputs.size(); ++i) node.inputs.push_back(taken.inputs[i]);
    };
    const auto slice = [&](int64_t dim, int64_t start, int64_t length) {
      node.target = "torch.ops.aten.slice_scatter.default";
      node.inputs.insert(node.inputs.end(),
                         {{"dim", dim}, {"start", start}, {"end", start + length}});
      return start >= 0;  // from the end: it might be the end of the sequence
    };
    switch (back) {
      case Back::Reshape:
        node.target = "torch.ops.aten.reshape_as.default";
        std::swap(node.inputs[0].second, node.inputs[1].second);
        node.inputs[1].first = "other";
        return true;
      case Back::Again:
        node = taken;
        node.made = true;
        std::get<TensorName>(first_tensor(node)).name = part;
        return true;
      case Back::Permute: {
        const auto dims = argument<std::vector<SizeArgument>>(taken, "dims");
        if (!dims) return false;
        std::vector<SizeArgument> inverse(dims->size());
        for (size_t i = 0; i < dims->size(); ++i) {
          int64_t dim = std::get<int64_t>((*dims)[i]);
          if (dim < 0) dim += static_cast<int64_t>(dims->size());
          inverse.at(static_cast<size_t>(dim)) = static_cast<int64_t>(i);
        }
        node.target = taken.target;
        node.inputs = {{"self", TensorName{part}}, {"dims", inverse}};
        return true;
      }
      case Back::Scatter:
        take_arguments(operator_name(taken.target) == "select"
                           ? "torch.ops.aten.select_scatter.default"
                           : "torch.ops.aten.slice_scatter.default");
        return true;
      case Back::Narrow: {
        const auto dim = argument<int64_t>(taken, "dim"), start = argument<int64_t>(taken, "start"),
                   length = argument<int64_t>(taken, "length");
        return dim && start && length && slice(*dim, *start, *length);
      }
      case Back::Pieces:
        return set_piece(taken, name, slice);
      case Back::Elements: {
        const std::vector<std::string> all = taken.output_names();
        node.target = "torch.ops.aten.select_scatter.default";
        node.inputs.insert(node.inputs.end(),
                           {{"dim", argument<int64_t>(taken, "dim").value_or(0)},
                            {"index", std::ranges::find(all, name) - all.begin()}});
        return true;
      }
      case Back::None:
      case Back::Same:
        return false;
    }
    return false;
  }

  // Where the pieces in front of one end.
  template <typename Slice>
  bool set_piece(const ProgramNode& taken, const std::string& name, const Slice& slice) const {
    const int64_t dim = argument<int64_t>(taken, "dim").value_or(0);
    int64_t start = 0;
    for (const std::string& piece : taken.output_names()) {
      const auto meta = graph_.tensor_values.find(piece);
      if (meta == graph_.tensor_values.end()) return false;
      const std::optional<int64_t> size = constant_size(meta->second, dim);
      if (!size) return false;
      if (piece == name) return slice(dim, start, *size);
      start += *size;
    }
    return false;
  }

  ProgramGraph& graph_;
  const Inputs& inputs_;
  std::map<std::string, Name, std::less<>> names_;
};

const char* kind_of_update(const InputSpec& input) {
  if (input.kind == InputKind::User) return "user_input_mutation";
  return input.kind == InputKind::Weight && input.in_state ? "buffer_mutation" : nullptr;
}

}  // namespace

void functionalise(Program& program) {
  std::map<std::string, bool, std::less<>> inputs;
  for (const InputSpec& input : program.inputs)
    inputs[input.name] = kind_of_update(input) != nullptr;
  Functionaliser functionaliser(program.graph, inputs);
  functionaliser.run();
  for (OutputSpec& output : program.outputs) functionaliser.rename(output.argument);
  for (const InputSpec& input : program.inputs) {
    const auto now = functionaliser.changed(input.name);
    if (!now) continue;
    if (const char* kind = kind_of_update(input))
      program.outputs.push_back(
          {kind, TensorName{*now}, input.kind == InputKind::User ? input.name : input.source});
  }
}

}  // namespace kiln::import
