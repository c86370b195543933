#include "conformance/engine_runner.h"

#include <algorithm>
#include <stdexcept>

#include "compiler/driver.h"
#include "conformance/device_tensors.h"
#include "runtime/session.h"

namespace kiln::conformance {
namespace {

template <typename T>
T value_of(Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().message());
  return std::move(*result);
}

void check(const Status& status) {
  if (!status.ok()) throw std::runtime_error(status.message());
}

std::vector<ir::Literal> run(runtime::Session& session, std::span<const ir::Literal> inputs) {
  const DeviceTensors given(inputs, session.device());
  const auto shapes = value_of(session.output_shapes(given.views()));
  std::vector<ir::Literal> outputs;
  for (size_t i = 0; i < shapes.size(); ++i) {
    const DType dtype = session.engine().spec().outputs[i].dtype;
    std::byte* data = nullptr;
    outputs.push_back(
        ir::Literal::allocate(dtype, {shapes[i].shape.begin(), shapes[i].shape.end()}, &data));
  }
  // What no kernel writes to is not a number, or is 0xFF.
  for (const ir::Literal& output : outputs)
    std::ranges::fill(std::span(const_cast<std::byte*>(output.bytes.data()), output.bytes.size()),
                      std::byte{0xFF});
  DeviceTensors made(outputs, session.device());
  check(session.run(given.views(), made.views()));
  check(session.synchronize());
  made.fetch();
  return outputs;
}

}  // namespace

Runner compile_and_load(ir::Graph graph, const std::string& target, const std::string& variant) {
  CompileOptions options;
  options.targets = {{target, {}}};
  options.verify_passes = true;
  if (!variant.empty()) options.targets[0].variants = {variant};
  options.compile_threads = 1;
  auto bytes = std::make_shared<std::vector<std::byte>>(compile(std::move(graph), options));
  auto engine = value_of(runtime::Engine::load_memory(*bytes));
  std::shared_ptr<runtime::Session> session =
      value_of(runtime::Session::create(engine, {.num_threads = 2}));
  return [bytes, session](std::span<const ir::Literal> inputs) { return run(*session, inputs); };
}

}  // namespace kiln::conformance
