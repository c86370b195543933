#include "import/fingerprint.h"

#include <bit>

#include "import/model.h"

namespace kiln::import {
namespace {

// Every list starts with its length and every alternative with its number: no two programs write
// the same bytes.
class Fingerprint {
 public:
  explicit Fingerprint(Hasher& hasher) : hasher_(hasher) {}

  void add(const LoadedModel& model) {
    const Program& program = model.program;
    add(program.graph);
    add(program.inputs);
    add(program.outputs);
    add(program.ranges);
    add(program.guards);
    add(program.input_paths);
    for (const InputSpec& spec : program.inputs) {
      if (spec.kind != InputKind::Weight) continue;
      const auto found = model.tensors.find(spec.source);
      add(found != model.tensors.end());
      if (found != model.tensors.end()) add(found->second);
    }
  }

 private:
  void add(uint64_t number) { hasher_.update(std::as_bytes(std::span(&number, 1))); }
  void add(int64_t number) { add(static_cast<uint64_t>(number)); }
  void add(int number) { add(static_cast<int64_t>(number)); }
  void add(bool flag) { add(uint64_t{flag}); }
  void add(double number) { add(std::bit_cast<uint64_t>(number)); }
  void add(const std::string& text) {
    add(text.size());
    hasher_.update(std::as_bytes(std::span(text)));
  }
  template <typename Item>
  void add(const std::optional<Item>& item) {
    add(item.has_value());
    if (item) add(*item);
  }
  template <typename First, typename Second>
  void add(const std::pair<First, Second>& pair) {
    add(pair.first);
    add(pair.second);
  }
  template <typename Item>
  void add(const std::vector<Item>& items) {
    add(items.size());
    for (const Item& item : items) add(item);
  }
  void add(const std::vector<bool>& flags) {
    add(flags.size());
    for (const bool flag : flags) add(flag);
  }
  template <typename Key, typename Value>
  void add(const std::map<Key, Value, std::less<>>& items) {
    add(items.size());
    for (const auto& item : items) add(item);
  }

  void add(None) {}
  void add(ScalarType type) { add(type.code); }
  void add(const ComplexNumber& number) {
    add(number.re);
    add(number.im);
  }
  void add(const TensorName& tensor) { add(tensor.name); }
  void add(const SizeName& size) { add(size.name); }
  void add(const ConditionName& condition) { add(condition.name); }
  void add(const OtherArgument& other) { add(other.kind); }
  void add(const std::shared_ptr<Subgraph>& subgraph) { add(subgraph->graph); }
  template <typename... Alternatives>
  void add(const std::variant<Alternatives...>& variant) {
    add(variant.index());
    std::visit([this](const auto& alternative) { this->add(alternative); }, variant);
  }

  void add(const SizeExpression& size) {
    add(size.constant);
    add(size.expression);
    add(size.hint);
  }
  void add(const TensorMeta& meta) {
    add(meta.dtype);
    add(meta.sizes);
    add(meta.strides);
    add(meta.storage_offset);
  }
  void add(const ProgramNode& node) {
    add(node.target);
    add(node.inputs);
    add(node.outputs);
  }
  void add(const ProgramGraph& graph) {
    add(graph.inputs);
    add(graph.outputs);
    add(graph.nodes);
    add(graph.tensor_values);
    add(graph.size_values);
    add(graph.condition_values);
  }
  void add(const InputSpec& spec) {
    add(static_cast<int>(spec.kind));
    add(spec.name);
    add(spec.source);
    add(spec.argument);
    add(spec.in_state);
  }
  void add(const OutputSpec& spec) {
    add(spec.kind);
    add(spec.argument);
    add(spec.source);
  }
  void add(const Range& range) {
    add(range.min);
    add(range.max);
  }
  void add(const ir::Literal& literal) {
    add(static_cast<int>(literal.dtype));
    add(literal.shape);
    hasher_.update(literal.bytes);
  }

  Hasher& hasher_;
};

}  // namespace

void LoadedModel::add_fingerprint(Hasher& hasher) const { Fingerprint(hasher).add(*this); }

}  // namespace kiln::import
