#include "conformance/engine_runner.h"

#include <stdexcept>

#include "compiler/driver.h"
#include "runtime/session.h"

namespace kiln::conformance {
namespace {

template <typename T>
T value_of(Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().message());
  return std::move(*result);
}

std::vector<runtime::TensorView> views_of(std::span<const ir::Literal> literals) {
  std::vector<runtime::TensorView> views;
  for (const ir::Literal& literal : literals) {
    views.push_back(
        {const_cast<std::byte*>(literal.bytes.data()), literal.dtype, literal.shape, {}, {}});
  }
  return views;
}

std::vector<ir::Literal> run(runtime::Session& session, std::span<const ir::Literal> inputs) {
  const std::vector<runtime::TensorView> input_views = views_of(inputs);
  const auto shapes = value_of(session.output_shapes(input_views));
  std::vector<ir::Literal> outputs;
  for (size_t i = 0; i < shapes.size(); ++i) {
    const DType dtype = session.engine().spec().outputs[i].dtype;
    std::byte* data = nullptr;
    outputs.push_back(
        ir::Literal::allocate(dtype, {shapes[i].shape.begin(), shapes[i].shape.end()}, &data));
  }
  const Status status = session.run(input_views, views_of(outputs));
  if (!status.ok()) throw std::runtime_error(status.message());
  return outputs;
}

}  // namespace

Runner compile_and_load(ir::Graph graph, const std::string& target, const std::string& variant) {
  CompileOptions options;
  options.target = target;
  options.verify_passes = true;
  if (!variant.empty()) options.backend.variants = {variant};
  options.backend.compile_threads = 1;
  auto bytes = std::make_shared<std::vector<std::byte>>(compile(std::move(graph), options));
  auto engine = value_of(runtime::Engine::load_memory(*bytes));
  std::shared_ptr<runtime::Session> session =
      value_of(runtime::Session::create(engine, {.num_threads = 2}));
  return [bytes, session](std::span<const ir::Literal> inputs) { return run(*session, inputs); };
}

}  // namespace kiln::conformance
