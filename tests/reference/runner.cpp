// Runs models with the reference interpreter: what the Python conformance tests compare PyTorch
// with.
//
//   kiln_reference_runner [--passes] model.pt2 output_folder input0.npy ...
//   kiln_reference_runner --targets
//
// The second form lists the operators that can be imported. The first imports the model, verifies
// the graph, runs the standard passes if asked to, and writes output_folder/0.npy, 1.npy ...
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "backends/reference/reference.h"
#include "import/import.h"
#include "ir/verify.h"
#include "passes/pass.h"
#include "reference/npy.h"
#include "support/error.h"

namespace {

using kiln::ir::Literal;

void run_passes(kiln::ir::Graph& graph) {
  kiln::passes::PassContext context;
  context.evaluate = [](const kiln::ir::Node& node, std::span<const Literal* const> inputs) {
    return kiln::reference::evaluate(
        node, inputs, [](const kiln::ir::SymbolPtr& symbol) -> int64_t {
          throw kiln::InternalError("a constant depends on the size " + symbol->name);
        });
  };
  kiln::passes::run_pipeline(graph, context,
                             {.disabled = {}, .verify = true, .dump_directory = ""});
}

void list_targets() {
  for (const std::string& target : kiln::import::supported_targets())
    std::printf("%s\n", target.c_str());
}

void run(std::vector<std::string> arguments) {
  if (arguments == std::vector<std::string>{"--targets"}) return list_targets();
  const bool passes = !arguments.empty() && arguments[0] == "--passes";
  if (passes) arguments.erase(arguments.begin());
  if (arguments.size() < 2)
    throw kiln::CompileError("usage: kiln_reference_runner [--passes] model folder inputs...");
  const auto model = kiln::import::Model::open_file(arguments[0]);
  kiln::ir::Graph graph = kiln::import::import_graph(*model);
  kiln::ir::verify(graph);
  if (passes) run_passes(graph);
  std::vector<Literal> inputs;
  for (size_t i = 2; i < arguments.size(); ++i)
    inputs.push_back(kiln::test::read_npy(arguments[i]));
  const std::vector<Literal> outputs = kiln::reference::run(graph, inputs);
  for (size_t i = 0; i < outputs.size(); ++i) {
    kiln::test::write_npy(arguments[1] + "/" + std::to_string(i) + ".npy", outputs[i]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(std::vector<std::string>(argv + 1, argv + argc));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
