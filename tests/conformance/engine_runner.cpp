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

ir::Literal copy_of(const ir::Literal& literal) {
  std::byte* data = nullptr;
  ir::Literal copy = ir::Literal::allocate(literal.dtype, literal.shape, &data);
  std::ranges::copy(literal.bytes, data);
  return copy;
}

bool same_bytes(const ir::Literal& a, const ir::Literal& b) {
  return std::ranges::equal(a.bytes, b.bytes);
}

// The same run with what updates an input written there: it has to give what `expected` are.
void run_in_place(runtime::Session& session, std::span<const ir::Literal> inputs,
                  const std::vector<ir::Literal>& expected) {
  const std::vector<engine::TensorSpec>& specs = session.engine().spec().outputs;
  std::vector<ir::Literal> states, outputs;
  for (const ir::Literal& input : inputs) states.push_back(copy_of(input));
  for (const ir::Literal& output : expected) outputs.push_back(copy_of(output));
  DeviceTensors given(states, session.device()), made(outputs, session.device());
  std::vector<runtime::TensorView> views(made.views().begin(), made.views().end());
  for (size_t i = 0; i < specs.size(); ++i)
    if (specs[i].updates != -1)
      views[i].data = given.views()[static_cast<size_t>(specs[i].updates)].data;
  check(session.run(given.views(), views));
  check(session.synchronize());
  given.fetch();
  made.fetch();
  for (size_t i = 0; i < specs.size(); ++i) {
    const bool updates = specs[i].updates != -1;
    const ir::Literal& got = updates ? states[static_cast<size_t>(specs[i].updates)] : outputs[i];
    if (!same_bytes(got, expected[i]))
      throw std::runtime_error("output " + std::to_string(i) + " differs when run in place");
  }
}

// A run that asks for its outputs when it knows their shapes.
std::vector<ir::Literal> run_and_allocate(runtime::Session& session, const DeviceTensors& given) {
  std::vector<ir::Literal> outputs(session.engine().spec().outputs.size());
  const auto allocate = [](void* user, const runtime::OutputRequest& request) -> void* {
    std::byte* data = nullptr;
    const auto& [dtype, shape, bytes] = request.tensor;
    ir::Literal literal = ir::Literal::allocate(dtype, {shape.begin(), shape.end()}, &data);
    std::ranges::fill(std::span(data, literal.bytes.size()), std::byte{0xFF});
    (*static_cast<std::vector<ir::Literal>*>(user))[request.index] = std::move(literal);
    return data;
  };
  check(session.run(given.views(), {}, {.outputs = {&outputs, allocate}}));
  return outputs;
}

// The same into memory for the largest shapes.
void run_into_largest(runtime::Session& session, const DeviceTensors& given,
                      const std::vector<ir::Literal>& expected) {
  std::vector<ir::Literal> largest;
  for (const runtime::BoundTensor& tensor : value_of(session.output_shapes(given.views()))) {
    std::byte* data = nullptr;
    if (std::ranges::any_of(tensor.shape, [](int64_t size) { return size > 100000; })) return;
    largest.push_back(
        ir::Literal::allocate(tensor.dtype, {tensor.shape.begin(), tensor.shape.end()}, &data));
  }
  const DeviceTensors made(largest, session.device());
  check(session.run(given.views(), made.views()));
  const auto shapes = value_of(session.result_shapes());
  for (size_t i = 0; i < expected.size(); ++i) {
    const auto bytes = largest[i].bytes.first(expected[i].bytes.size());
    if (!std::ranges::equal(shapes[i].shape, expected[i].shape) ||
        !std::ranges::equal(bytes, expected[i].bytes))
      throw std::runtime_error("output " + std::to_string(i) +
                               " differs in memory for the largest shape");
  }
}

std::vector<ir::Literal> run(runtime::Session& session, std::span<const ir::Literal> inputs) {
  const DeviceTensors given(inputs, session.device());
  if (!session.engine().spec().data_sizes.empty()) {
    const std::vector<ir::Literal> outputs = run_and_allocate(session, given);
    run_into_largest(session, given, outputs);
    return outputs;
  }
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
  const auto updates = [](const engine::TensorSpec& output) { return output.updates != -1; };
  if (std::ranges::any_of(session.engine().spec().outputs, updates))
    run_in_place(session, inputs, outputs);
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
