#include "import/input_paths.h"

#include <optional>

#include "support/error.h"

namespace kiln::import {
namespace {

constexpr int kMaxDepth = 64;

using Path = std::optional<std::string>;  // none: in a structure that is not looked into

// The keys of a dictionary: ["a", 0].
std::vector<Path> read_keys(const std::string& context) {
  std::vector<Path> keys;
  const JsonDocument document(context, "a structure of inputs");
  for (const JsonElement key : json_array(document.root(), "context")) {
    if (key.is_string()) {
      keys.emplace_back(name_key(json_string(key, "context")));
    } else if (key.is_int64()) {
      keys.emplace_back(position_key(std::to_string(json_integer(key, "context"))));
    } else {
      keys.emplace_back();
    }
  }
  return keys;
}

// Walks a structure as torch.utils._pytree writes it.
class Walker {
 public:
  explicit Walker(std::vector<std::string> parameters) : parameters_(std::move(parameters)) {}

  // (args, kwargs)
  void walk_arguments(JsonElement node) {
    std::vector<JsonElement> parts = children(node);
    if (parts.size() != 2) return;
    size_t index = 0;
    for (const JsonElement argument : children(parts[0])) {
      const bool named = index < parameters_.size();
      walk(argument, named ? Path(name_key(parameters_[index])) : Path(), 0);
      ++index;
    }
    walk(parts[1], "", 0);
  }

  const std::vector<Path>& leaves() const { return leaves_; }

 private:
  static std::vector<JsonElement> children(JsonElement node) {
    std::vector<JsonElement> result;
    for (const JsonElement child : json_array(json_member(node, "children_spec"), "children_spec"))
      result.push_back(child);
    return result;
  }

  void walk(JsonElement node, const Path& path, int depth) {
    if (depth > kMaxDepth)
      throw CompileError("[model] got inputs nested too deeply, expected at most 64 levels");
    const auto type = json_find(node, "type");
    if (!type) return leaves_.push_back(path);
    const std::vector<JsonElement> parts = children(node);
    const std::vector<Path> keys = keys_of(json_string(*type, "type"), node, parts.size());
    for (size_t i = 0; i < parts.size(); ++i) {
      const bool known = path && i < keys.size() && keys[i];
      walk(parts[i], known ? Path(*path + *keys[i]) : Path(), depth + 1);
    }
  }

  static std::vector<Path> keys_of(const std::string& type, JsonElement node, size_t count) {
    std::vector<Path> keys;
    if (type == "builtins.tuple" || type == "builtins.list") {
      for (size_t i = 0; i < count; ++i) keys.emplace_back(position_key(std::to_string(i)));
    } else if (type == "builtins.dict" || type == "collections.OrderedDict") {
      keys = read_keys(json_string_member(node, "context"));
    }
    return keys;
  }

  std::vector<std::string> parameters_;
  std::vector<Path> leaves_;
};

// The paths of the leaves in the signature of the whole model; empty where there is none.
std::vector<Path> read_leaves(JsonElement module_calls) {
  for (const JsonElement entry : json_array(module_calls, "module_call_graph")) {
    const auto signature = json_find(entry, "signature");
    if (!signature || !json_string_member(entry, "fqn").empty()) continue;
    std::vector<std::string> parameters;
    if (const auto names = json_find(*signature, "forward_arg_names"))
      for (const JsonElement name : json_array(*names, "forward_arg_names"))
        parameters.push_back(json_string(name, "forward_arg_names"));
    const JsonDocument document(json_string_member(*signature, "in_spec"), "in_spec");
    Walker walker(std::move(parameters));
    // [version, structure]
    for (const JsonElement part : json_array(document.root(), "in_spec"))
      if (part.is_object()) walker.walk_arguments(part);
    return walker.leaves();
  }
  return {};
}

// "args_1", a parameter of *args: 'args'[1].
Path star_path(const std::string& name) {
  const size_t end = name.rfind('_');
  if (end == std::string::npos || end + 1 == name.size()) return {};
  const std::string number = name.substr(end + 1);
  if (number.find_first_not_of("0123456789") != std::string::npos) return {};
  return name_key(name.substr(0, end)) + position_key(number);
}

}  // namespace

std::string name_key(const std::string& name) { return "'" + name + "'"; }
std::string position_key(const std::string& number) { return "[" + number + "]"; }

std::map<std::string, std::string, std::less<>> read_input_paths(
    JsonElement module_calls, const std::vector<std::string>& inputs) {
  std::map<std::string, std::string, std::less<>> paths;
  const auto add = [&](const Path& path, const std::string& input) {
    if (path && !input.empty()) paths.emplace(*path, input);
  };
  const std::vector<Path> leaves = read_leaves(module_calls);
  for (size_t i = 0; leaves.size() == inputs.size() && i < leaves.size(); ++i)
    add(leaves[i], inputs[i]);
  for (size_t i = 0; i < inputs.size(); ++i)
    add(name_key("flat_args") + position_key(std::to_string(i)), inputs[i]);
  for (const std::string& input : inputs) {
    add(name_key(input), input);
    add(star_path(input), input);
  }
  return paths;
}

}  // namespace kiln::import
