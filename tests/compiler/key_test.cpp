// Whatever decides an engine decides its key.
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "compiler/cached_compile.h"
#include "compiler/linear_model.h"

namespace kiln::testing {
namespace {

std::string key_of(const std::function<void(LinearModel&)>& change) {
  LinearModel model;
  change(model);
  return compile_key(*model.open(), quick_options());
}

std::string key_with(const std::function<void(CompileOptions&)>& change) {
  CompileOptions options = quick_options();
  change(options);
  return compile_key(*LinearModel().open(), options);
}

TEST(CompileKey, IsTheSameForTheSameModel) {
  const std::string key = key_of([](LinearModel&) {});
  EXPECT_EQ(key.size(), 32u);
  EXPECT_EQ(key, key_of([](LinearModel&) {}));
}

TEST(CompileKey, DependsOnEveryPartOfTheModel) {
  std::set<std::string> keys = {key_of([](LinearModel&) {})};
  const std::vector<std::function<void(LinearModel&)>> changes = {
      [](LinearModel& m) { std::swap(m.left, m.right); },  // edges
      [](LinearModel& m) { m.eps = "1e-06"; },             // a scalar argument
      [](LinearModel& m) { m.activation = "sigmoid"; },    // an operator
      [](LinearModel& m) { m.max_batch = 16; },            // a constraint
      [](LinearModel& m) { m.weight[7] += 1; },            // a value
      [](LinearModel& m) { std::swap(m.weight[0], m.weight[1]); },
      [](LinearModel& m) { std::swap(m.scale, m.shift); },  // the same contents, elsewhere
  };
  for (size_t i = 0; i < changes.size(); ++i)
    EXPECT_TRUE(keys.insert(key_of(changes[i])).second) << "change " << i;
}

TEST(CompileKey, DependsOnTheDtypeAndShapeOfAWeight) {
  const LinearModel model;
  const auto key = [&](DType dtype, std::vector<int64_t> shape) {
    return compile_key(
        *import::Model::open_memory(
            R"({"graph_module":{"graph":{"inputs":[],"outputs":[],"nodes":[],)"
            R"("tensor_values":{},"sym_int_values":{},"sym_bool_values":{},)"
            R"("is_single_tensor_return":false},"signature":{"input_specs":[)"
            R"({"parameter":{"arg":{"name":"w"},"parameter_name":"w"}}],)"
            R"("output_specs":[]},"module_call_graph":[]},"opset_version":{},)"
            R"("range_constraints":{},"schema_version":{"major":8,"minor":14},)"
            R"("verifiers":[],"torch_version":"2.13.0"})",
            {{"w", {dtype, std::move(shape), std::as_bytes(std::span(model.weight)), nullptr}}}),
        quick_options());
  };
  const std::set<std::string> keys = {key(DType::F32, {4, 4}), key(DType::F32, {2, 8}),
                                      key(DType::F32, {16}), key(DType::I32, {16}),
                                      key(DType::I64, {8})};
  EXPECT_EQ(keys.size(), 5u);
}

TEST(CompileKey, DependsOnEveryOptionThatDecidesTheBytes) {
  std::set<std::string> keys = {key_with([](CompileOptions&) {})};
  const std::vector<std::function<void(CompileOptions&)>> changes = {
      [](CompileOptions& o) { o.ranges = {{"x", 0, 1, 2, 4}}; },
      [](CompileOptions& o) { o.ranges = {{"x", 0, 1, 3, 4}}; },
      [](CompileOptions& o) { o.ranges = {{"x", 1, 1, 2, 4}}; },
      [](CompileOptions& o) { o.targets[0].variants = {"x86-64-v4"}; },
      [](CompileOptions& o) { o.targets[0].variants = {}; },
      [](CompileOptions& o) { o.disabled_passes = {"fold_constants"}; },
      [](CompileOptions& o) { o.refittable = true; },
      [](CompileOptions& o) { o.emulate_precision_casts = true; },
      [](CompileOptions& o) { o.strip_weights = true; },
      [](CompileOptions& o) { o.tf32 = engine::kTf32Products; },
      [](CompileOptions& o) { o.quantisation.scheme = passes::Quantisation::Scheme::Int8; },
      [](CompileOptions& o) { o.quantisation.group_size = 32; },
      [](CompileOptions& o) { o.quantisation.exclude = "mm"; },
      [](CompileOptions& o) { o.quantisation.method = CalibrationMethod::Extremes; },
      [](CompileOptions& o) { o.quantisation.calibration.names = {"x"}; },
      [](CompileOptions& o) { o.quantisation.calibration.sets = {{}}; },
      [](CompileOptions& o) { o.tf32 = engine::kTf32Convolutions; },
      [](CompileOptions& o) { o.metadata = "text"; },
      [](CompileOptions& o) { o.targets = {{"cuda", {}}}; },
      [](CompileOptions& o) { o.targets = {{"cuda", {"sm_90"}}}; },
      [](CompileOptions& o) {
        o.targets = {{"cuda", {"sm_90"}}};
        o.tuning.candidates = 4;
      },
      [](CompileOptions& o) {
        o.targets = {{"cuda", {"sm_90"}}};
        o.tuning.candidates = 5;
      },
      [](CompileOptions& o) { o.targets = {{"cpu", {}}, {"cuda", {"sm_90"}}}; },
      [](CompileOptions& o) { o.targets = {{"cuda", {"sm_90"}}, {"cpu", {}}}; },
      [](CompileOptions& o) { o.targets = {{"cpu", {}}, {"cuda", {"sm_80", "sm_90"}}}; },
  };
  for (size_t i = 0; i < changes.size(); ++i)
    EXPECT_TRUE(keys.insert(key_with(changes[i])).second) << "change " << i;
}

TEST(CompileKey, DoesNotDependOnWhatDoesNotShow) {
  const std::string key = key_of([](LinearModel&) {});
  EXPECT_EQ(key, key_of([](LinearModel& m) { m.source_line = "elsewhere.py"; }));
  EXPECT_EQ(key, key_with([](CompileOptions& o) { o.compile_threads = 3; }));
  EXPECT_EQ(key, key_with([](CompileOptions& o) { o.verify_passes = true; }));
  EXPECT_EQ(key, key_with([](CompileOptions& o) { o.cache.directory = "/nowhere"; }));
  EXPECT_EQ(key, key_with([](CompileOptions& o) { o.tuning.candidates = 4; }));  // of a CPU's
  EXPECT_EQ(key, key_with([](CompileOptions& o) { o.tuning.cache_file = "/nowhere/times"; }));
}

}  // namespace
}  // namespace kiln::testing
