// Walks the nodes of an ONNX model and builds the graph.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "import/equal_sizes.h"
#include "import/import.h"
#include "import/onnx/body_loop.h"
#include "import/onnx/call.h"
#include "import/onnx/registry.h"

namespace kiln::import::onnx {

// Whether the model leaves the size of an input's dimension open.
bool size_is_open(const ModelProto& model, const std::string& input, int32_t dim);

// What names mean in one graph: a model's, a branch's, or a function's.
struct Names {
  const Names* outer = nullptr;  // null for a function, which sees nothing of its caller
  const Opsets* opsets = nullptr;
  bool are_the_models = false;  // what the model says of types is about these
  std::map<std::string, Value*, std::less<>> values;
  std::map<std::string, const Tensor*, std::less<>> initializers;  // become values when used
  std::map<std::string, std::string, std::less<>> failed;          // why a name has no value
};

class Importer {
 public:
  Importer(const ModelProto& model, TensorFiles files, std::span<const DimRange> ranges,
           bool replaceable_weights, EqualSizes equal = {});

  ir::Graph import_graph();
  std::vector<NodeSupport> check_support();

 private:
  void check_versions() const;
  void bind_inputs(Names& names);
  ir::Type input_type(const ValueInfo& input);
  ir::Dim input_size(const ValueInfo& input, size_t dim, const Dimension& size);
  void bind_initializers(Names& names, const Graph& graph);
  Value* find(Names& names, const std::string& name);
  void import_nodes(Names& names, const std::vector<Node>& nodes, int depth);
  void import_node(Names& names, const Node& node, int depth);
  std::vector<Value*> import_operator(const Node& node, int64_t version,
                                      std::vector<Value*> inputs);
  std::vector<Value*> import_function(const Function& function, const Node& node,
                                      const std::vector<Value*>& inputs, int depth);
  std::vector<Value*> import_if(Names& names, const Node& node, int64_t version, Value* condition,
                                int depth);
  std::vector<Value*> import_loop(Names& names, const Node& node, int64_t version,
                                  const std::vector<Value*>& inputs, int depth);
  std::vector<Value*> repeat_loop(Names& names, NodeCall& call, const BodyLoop& loop, int depth);
  Dim count_steps(Names& names, NodeCall& call, const BodyLoop& loop, bool goes_on, int depth);
  bool always_goes_on(NodeCall& call, const Graph& body);
  std::vector<Value*> import_scan(Names& names, const Node& node, int64_t version,
                                  const std::vector<Value*>& inputs, int depth);
  std::vector<Value*> run_body(Names& names, NodeCall& call, const BodyLoop& loop, int depth);
  std::vector<Value*> unroll_body(const Names& names, NodeCall& call, const BodyLoop& loop,
                                  int depth);
  std::vector<Value*> repeat_body(Names& names, NodeCall& call, const BodyLoop& loop, int depth);
  std::vector<Value*> import_step(Names& inner, NodeCall& call, const BodyLoop& loop,
                                  std::span<Value* const> operands, int depth);
  OuterValues outer_values(Names& names, const Graph& body);
  void bind_outer(Names& inner, NodeCall& call, const OuterValues& outer,
                  std::span<Value* const> values);
  void expect_same_type(NodeCall& call, const Value* next, const ir::Type& type) const;
  std::vector<Value*> import_branch(const Names& names, const Graph& branch, int depth);
  void bind_outputs(Names& names, const Node& node, const std::vector<Value*>& values,
                    uint32_t first_id);
  void check_declared(const Value* value, const std::string& name) const;
  void set_outputs(Names& names);
  const Function* find_function(const Node& node) const;

  const ModelProto& model_;
  TensorFiles files_;
  std::vector<DimRange> ranges_;
  const bool replaceable_weights_;
  const EqualSizes equal_;
  Symbols symbols_;  // by dim_param
  std::map<std::string, const ValueInfo*, std::less<>> declared_;
  size_t imported_nodes_ = 0;
  ir::Graph graph_;
  ir::Builder builder_;
  KnownElements known_;
  Context context_;
};

}  // namespace kiln::import::onnx
