// The compiling half of the C API, on models written as torch.export JSON here.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kiln/kiln.h"

namespace {

using nlohmann::json;

constexpr const char* kModel = R"({
  "graph_module": {
    "graph": {
      "inputs": [{"as_tensor": {"name": "x"}}, {"as_tensor": {"name": "y"}}],
      "outputs": [{"as_tensor": {"name": "add"}}],
      "nodes": [{
        "target": "torch.ops.aten.TARGET.Tensor",
        "inputs": [{"name": "self", "arg": {"as_tensor": {"name": "x"}}, "kind": 1},
                   {"name": "other", "arg": {"as_tensor": {"name": "y"}}, "kind": 1}],
        "outputs": [{"as_tensor": {"name": "add"}}],
        "metadata": {}, "is_hop_single_tensor_return": null, "name": "add"
      }],
      "tensor_values": {"x": META, "y": META, "add": META},
      "sym_int_values": {}, "sym_bool_values": {}, "sym_float_values": {},
      "is_single_tensor_return": true, "custom_obj_values": {}
    },
    "signature": {
      "input_specs": [{"user_input": {"arg": {"as_tensor": {"name": "x"}}}},
                      {"user_input": {"arg": {"as_tensor": {"name": "y"}}}}],
      "output_specs": [{"user_output": {"arg": {"as_tensor": {"name": "add"}}}}]
    },
    "module_call_graph": [], "metadata": {}, "treespec_namedtuple_fields": {}
  },
  "opset_version": {"aten": 10},
  "range_constraints": {},
  "schema_version": {"major": 8, "minor": 14},
  "verifiers": ["ATEN"],
  "torch_version": "2.13.0",
  "guards_code": []
})";

// dtype 7 is float32 in torch.export's schema.
constexpr const char* kMeta = R"({"dtype": 7, "sizes": [{"as_int": 2}, {"as_int": 3}],
  "requires_grad": false, "device": {"type": "cpu", "index": null},
  "strides": [{"as_int": 3}, {"as_int": 1}], "storage_offset": {"as_int": 0}, "layout": 7})";

std::string model_json(const std::string& target) {
  std::string text = kModel;
  const auto replace = [&](const std::string& from, const std::string& to) {
    for (size_t at = text.find(from); at != std::string::npos; at = text.find(from))
      text.replace(at, from.size(), to);
  };
  replace("META", kMeta);
  replace("TARGET", target);
  return text;
}

struct OpenModel {
  explicit OpenModel(const std::string& target) {
    const std::string text = model_json(target);
    status = kiln_model_open_memory(text.data(), text.size(), nullptr, nullptr, 0, &model);
  }
  ~OpenModel() { kiln_model_destroy(model); }
  OpenModel(const OpenModel&) = delete;
  OpenModel& operator=(const OpenModel&) = delete;

  kiln_model* model = nullptr;
  kiln_status status = KILN_INTERNAL;
};

std::string take(kiln_bytes* bytes) {
  std::string text(static_cast<const char*>(kiln_bytes_data(bytes)), kiln_bytes_size(bytes));
  kiln_bytes_destroy(bytes);
  return text;
}

std::string compile(const std::string& target, const kiln_compile_options* options = nullptr) {
  const OpenModel model(target);
  EXPECT_EQ(model.status, KILN_OK) << kiln_last_error();
  kiln_bytes* engine = nullptr;
  EXPECT_EQ(kiln_compile(model.model, options, &engine), KILN_OK) << kiln_last_error();
  return engine == nullptr ? "" : take(engine);
}

TEST(Compile, EngineFromMemoryRuns) {
  const std::string bytes = compile("mul");
  kiln_engine* engine = nullptr;
  ASSERT_EQ(kiln_engine_load_memory(bytes.data(), bytes.size(), nullptr, &engine), KILN_OK)
      << kiln_last_error();
  kiln_session* session = nullptr;
  ASSERT_EQ(kiln_session_create(engine, nullptr, &session), KILN_OK) << kiln_last_error();
  float x[6] = {1, 2, 3, 4, 5, 6}, y[6] = {6, 5, 4, 3, 2, 1}, out[6] = {};
  const int64_t shape[2] = {2, 3};
  const kiln_tensor inputs[2] = {{sizeof(kiln_tensor), x, KILN_F32, 2, shape, nullptr, {}},
                                 {sizeof(kiln_tensor), y, KILN_F32, 2, shape, nullptr, {}}};
  kiln_tensor output = {sizeof(kiln_tensor), out, KILN_F32, 2, shape, nullptr, {}};
  ASSERT_EQ(kiln_session_run(session, inputs, 2, &output, 1, nullptr), KILN_OK)
      << kiln_last_error();
  for (int i = 0; i < 6; ++i) EXPECT_FLOAT_EQ(out[i], x[i] * y[i]);
  kiln_session_destroy(session);
  kiln_engine_destroy(engine);
}

TEST(Compile, SameModelGivesTheSameBytes) { EXPECT_EQ(compile("add"), compile("add")); }

TEST(Compile, FileHasTheBytesOfMemory) {
  const std::string path = testing::TempDir() + "compile_test.kiln";
  const OpenModel model("add");
  ASSERT_EQ(kiln_compile_to_file(model.model, nullptr, path.c_str()), KILN_OK) << kiln_last_error();
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  EXPECT_EQ(bytes, compile("add"));
}

TEST(Compile, PathThatCannotBeWrittenIsAnError) {
  const OpenModel model("add");
  const char* path = "/nonexistent/folder/x.kiln";
  const kiln_status status = kiln_compile_to_file(model.model, nullptr, path);
  EXPECT_TRUE(status == KILN_IO_ERROR || status == KILN_NOT_FOUND) << status;
  EXPECT_NE(std::string(kiln_last_error()).find("/nonexistent/folder"), std::string::npos)
      << kiln_last_error();
}

TEST(Compile, UnsupportedOperatorIsNamed) {
  const OpenModel model("no_such_operator");
  ASSERT_EQ(model.status, KILN_OK) << kiln_last_error();
  kiln_bytes* engine = nullptr;
  EXPECT_EQ(kiln_compile(model.model, nullptr, &engine), KILN_UNSUPPORTED);
  EXPECT_EQ(engine, nullptr);
  EXPECT_NE(std::string(kiln_last_error()).find("no_such_operator"), std::string::npos)
      << kiln_last_error();

  kiln_bytes* report = nullptr;
  ASSERT_EQ(kiln_model_check(model.model, &report), KILN_OK) << kiln_last_error();
  const json nodes = json::parse(take(report))["nodes"];
  ASSERT_EQ(nodes.size(), 1u);
  EXPECT_FALSE(nodes[0]["supported"].get<bool>());
  EXPECT_NE(nodes[0]["reason"].get<std::string>(), "");
}

TEST(Compile, ProgressGoesFromZeroToOne) {
  std::vector<double> fractions;
  kiln_compile_options options{};
  options.struct_size = sizeof(options);
  options.progress_user = &fractions;
  options.progress = [](void* user, const char*, double fraction) {
    static_cast<std::vector<double>*>(user)->push_back(fraction);
  };
  compile("add", &options);
  ASSERT_GE(fractions.size(), 3u);
  EXPECT_EQ(fractions.front(), 0.0);
  EXPECT_EQ(fractions.back(), 1.0);
  for (size_t i = 1; i < fractions.size(); ++i) EXPECT_GE(fractions[i], fractions[i - 1]);
}

TEST(Compile, VariantsAreThoseAskedFor) {
  kiln_compile_options options{};
  options.struct_size = sizeof(options);
  options.targets = "cpu:x86-64-v3";
  const std::string bytes = compile("add", &options);
  kiln_engine* engine = nullptr;
  ASSERT_EQ(kiln_engine_load_memory(bytes.data(), bytes.size(), nullptr, &engine), KILN_OK)
      << kiln_last_error();
  EXPECT_STREQ(kiln_engine_variant(engine), "x86-64-v3");
  kiln_engine_destroy(engine);
}

void expect_refused(const kiln_compile_options& options, const std::string& mentioned) {
  const OpenModel model("add");
  kiln_bytes* engine = nullptr;
  EXPECT_EQ(kiln_compile(model.model, &options, &engine), KILN_INVALID_ARGUMENT);
  EXPECT_NE(std::string(kiln_last_error()).find(mentioned), std::string::npos) << kiln_last_error();
}

// The programs of an engine by name, the best first.
std::string programs_of(const char* targets) {
  kiln_compile_options options{};
  options.struct_size = sizeof(options);
  options.targets = targets;
  const std::string bytes = compile("add", &options);
  kiln_load_options load{};
  load.struct_size = sizeof(load);
  load.describe_only = 1;
  kiln_engine* engine = nullptr;
  EXPECT_EQ(kiln_engine_load_memory(bytes.data(), bytes.size(), &load, &engine), KILN_OK)
      << kiln_last_error();
  EXPECT_STREQ(kiln_engine_target(engine), "");
  EXPECT_STREQ(kiln_engine_variant(engine), "");
  kiln_bytes* described = nullptr;
  EXPECT_EQ(kiln_engine_describe(engine, &described), KILN_OK);
  kiln_engine_destroy(engine);
  std::string names;
  const json description = json::parse(take(described));
  for (const json& program : description["programs"])
    names +=
        program["target"].get<std::string>() + ":" + program["variant"].get<std::string>() + " ";
  return names;
}

TEST(Compile, TargetsNameThePrograms) {
  const std::string all = "cpu:x86-64-v4 cpu:x86-64-v3 ";
  EXPECT_EQ(programs_of(nullptr), all);
  EXPECT_EQ(programs_of("cpu"), all);
  EXPECT_EQ(programs_of("cpu:x86-64-v3"), "cpu:x86-64-v3 ");
  EXPECT_EQ(programs_of("cpu:x86-64-v3,cpu:x86-64-v4"), all);
  EXPECT_EQ(programs_of("cpu:x86-64-v3,cpu"), all);
}

// Where NVRTC is missing, that is what compiling for a GPU says.
bool can_compile_for_gpus() {
  const OpenModel model("add");
  kiln_compile_options options{};
  options.struct_size = sizeof(options);
  options.targets = "cuda:sm_90";
  kiln_bytes* engine = nullptr;
  const kiln_status status = kiln_compile(model.model, &options, &engine);
  kiln_bytes_destroy(engine);
  const bool is_missing = std::string(kiln_last_error()).find("NVRTC") != std::string::npos;
  EXPECT_TRUE(status == KILN_OK || is_missing) << kiln_last_error();
  return status == KILN_OK;
}

TEST(Compile, SeveralTargetsGoIntoOneEngine) {
  if (!can_compile_for_gpus()) GTEST_SKIP() << kiln_last_error();
  const std::string cpu = "cpu:x86-64-v4 cpu:x86-64-v3 ";
  EXPECT_EQ(programs_of("cpu,cuda:sm_90"), cpu + "cuda:sm_90 ");
  EXPECT_EQ(programs_of("cuda:sm_90,cpu"), "cuda:sm_90 " + cpu);
  EXPECT_EQ(programs_of("cpu:x86-64-v3,cuda:sm_90,cuda:sm_80"),
            programs_of("cpu:x86-64-v3,cuda:sm_90,cuda:sm_80"));
  EXPECT_EQ(programs_of("cuda:sm_90,cpu:x86-64-v3,cpu"), "cuda:sm_90 " + cpu);
}

TEST(Compile, EveryTargetOfAListIsChecked) {
  kiln_compile_options options{};
  options.struct_size = sizeof(options);
  options.targets = "cpu,npu";
  const OpenModel model("add");
  kiln_bytes* engine = nullptr;
  EXPECT_EQ(kiln_compile(model.model, &options, &engine), KILN_INVALID_ARGUMENT);
  EXPECT_STREQ(kiln_last_error(), "[target] got \"npu\", expected one of cpu, cuda");
}

TEST(Compile, OptionsOfANewerHeaderAreNotLeftUndone) {
  struct Newer {
    kiln_compile_options options;
    uint64_t more;
  } newer{};
  newer.options.struct_size = sizeof(newer);
  EXPECT_NE(compile("add", &newer.options), "");
  newer.more = 1;
  const OpenModel model("add");
  kiln_bytes* engine = nullptr;
  EXPECT_EQ(kiln_compile(model.model, &newer.options, &engine), KILN_UNSUPPORTED);
  // It ends in a field: see GrowingStructsHaveNoPaddingAtTheEnd.
  EXPECT_EQ(offsetof(kiln_compile_options, calibration) + sizeof(const kiln_samples*),
            sizeof(kiln_compile_options));
  EXPECT_EQ(offsetof(kiln_samples, names) + sizeof(const char* const*), sizeof(kiln_samples));
}

TEST(Compile, WrongOptionsAreRefusedByName) {
  kiln_compile_options options{};
  expect_refused(options, "struct_size");

  options.struct_size = sizeof(options);
  options.disabled_passes = "fold_constant";
  expect_refused(options, "fold_constants");

  options.disabled_passes = nullptr;
  options.targets = "cpu:x86-64-v9";
  expect_refused(options, "x86-64-v9");
  options.targets = "npu";
  expect_refused(options, "[target] got \"npu\", expected one of cpu");
  options.targets = "x86 64";
  expect_refused(options, "[target] got \"x86 64\"");
  options.targets = "";
  expect_refused(options, "[target] got \"\"");

  options.targets = nullptr;
  const kiln_dim_range unknown = {"z", 0, 1, 1, 1};
  options.ranges = &unknown;
  options.num_ranges = 1;
  expect_refused(options, "z");
}

TEST(Compile, OlderOptionsStructWorks) {
  kiln_compile_options options{};
  options.struct_size = offsetof(kiln_compile_options, targets);
  options.targets = reinterpret_cast<const char*>(1);  // past the caller's struct: not read
  EXPECT_NE(compile("add", &options), "");
}

// A folder that is gone at the end.
struct Folder {
  std::filesystem::path path = std::filesystem::path(testing::TempDir()) / "kiln_capi_cache";
  Folder() { std::filesystem::remove_all(path); }
  ~Folder() { std::filesystem::remove_all(path); }
};

TEST(Cache, ResultSaysWhereTheEngineCameFrom) {
  const Folder folder;
  const std::string directory = folder.path.string();
  kiln_compile_options options{};
  options.struct_size = sizeof(options);
  options.cache_directory = directory.c_str();
  int32_t result = 99;
  options.cache_result = &result;
  options.cache_mode = KILN_CACHE_READ;
  const std::string first = compile("add", &options);
  EXPECT_EQ(result, KILN_CACHE_MISS);
  options.cache_mode = KILN_CACHE_WRITE;
  compile("add", &options);
  EXPECT_EQ(result, KILN_CACHE_MISS);
  options.cache_mode = KILN_CACHE_READ_WRITE;
  EXPECT_EQ(compile("add", &options), first);
  EXPECT_EQ(result, KILN_CACHE_HIT);
  options.cache_mode = 3;
  expect_refused(options, "cache mode");
}

TEST(Compile, NumbersOfTf32AndTuningAreChecked) {
  kiln_compile_options options{};
  options.struct_size = sizeof(options);
  options.tf32 = 4;
  expect_refused(options, "tf32");
  options.tf32 = KILN_TF32_MATMUL | KILN_TF32_CONVOLUTION;
  options.tuning_candidates = -1;
  expect_refused(options, "tuning_candidates");
}

TEST(Cache, FolderThatCannotBeUsedIsAProblemAndNoFailure) {
  kiln_compile_options options{};
  options.struct_size = sizeof(options);
  options.cache_directory = "/proc/kiln";
  int32_t result = 99;
  options.cache_result = &result;
  std::vector<std::string> warnings;
  options.warning = [](void* user, const char* text) {
    static_cast<std::vector<std::string>*>(user)->emplace_back(text);
  };
  options.warning_user = &warnings;
  EXPECT_EQ(kiln_model_open_file(nullptr, nullptr), KILN_INVALID_ARGUMENT);
  const std::string failure = kiln_last_error();
  EXPECT_EQ(compile("add", &options), compile("add"));
  EXPECT_EQ(result, KILN_CACHE_PROBLEM);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("/proc/kiln"), std::string::npos) << warnings[0];
  EXPECT_EQ(kiln_last_error(), failure);  // of the last call that failed
  options.warning = nullptr;
  EXPECT_EQ(compile("add", &options), compile("add"));
  EXPECT_EQ(result, KILN_CACHE_PROBLEM);
}

TEST(Cache, LoadsWhatWasStoredUnderTheKey) {
  const Folder folder;
  const std::string directory = folder.path.string();
  const OpenModel model("add");
  kiln_bytes* key_bytes = nullptr;
  ASSERT_EQ(kiln_compile_key(model.model, nullptr, &key_bytes), KILN_OK) << kiln_last_error();
  const std::string key = take(key_bytes), engine = compile("add");
  EXPECT_EQ(key.size(), 32u);
  kiln_bytes* found = nullptr;
  EXPECT_EQ(kiln_cache_load(directory.c_str(), key.c_str(), &found), KILN_NOT_FOUND);
  ASSERT_EQ(kiln_cache_store(directory.c_str(), 0, key.c_str(), engine.data(), engine.size()),
            KILN_OK)
      << kiln_last_error();
  ASSERT_EQ(kiln_cache_load(directory.c_str(), key.c_str(), &found), KILN_OK);
  EXPECT_EQ(take(found), engine);
  EXPECT_EQ(kiln_cache_store(directory.c_str(), 0, key.c_str(), "text", 4), KILN_INVALID_ENGINE);
  EXPECT_EQ(kiln_cache_store(directory.c_str(), 1, key.c_str(), engine.data(), engine.size()),
            KILN_OUT_OF_RANGE);
}

TEST(Refit, GivesTheEngineOfTheModel) {
  const OpenModel model("add"), other("mul");
  const std::string engine = compile("add");
  kiln_bytes* result = nullptr;
  ASSERT_EQ(kiln_refit(engine.data(), engine.size(), model.model, nullptr, &result), KILN_OK)
      << kiln_last_error();
  EXPECT_EQ(take(result), engine);
  result = nullptr;
  EXPECT_EQ(kiln_refit(engine.data(), engine.size(), other.model, nullptr, &result),
            KILN_INVALID_ARGUMENT);
  EXPECT_EQ(kiln_refit("text", 4, model.model, nullptr, &result), KILN_INVALID_ENGINE);
  EXPECT_EQ(kiln_refit(nullptr, 0, model.model, nullptr, &result), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(result, nullptr);
}

TEST(Model, WhatIsNoModelIsRefused) {
  kiln_model* model = nullptr;
  EXPECT_EQ(kiln_model_open_memory("{", 1, nullptr, nullptr, 0, &model), KILN_INVALID_ARGUMENT);
  EXPECT_NE(std::string(kiln_last_error()), "");
  EXPECT_EQ(kiln_model_open_file("/nonexistent.pt2", &model), KILN_NOT_FOUND);
  EXPECT_NE(std::string(kiln_last_error()).find("/nonexistent.pt2"), std::string::npos);
  EXPECT_EQ(kiln_model_open_file(nullptr, &model), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(model, nullptr);
}

TEST(Model, WeightsThatCannotBeTakenAreRefused) {
  const int64_t shape[2] = {2, 3}, strides[2] = {1, 2};
  float data[6] = {};
  const kiln_tensor good = {sizeof(kiln_tensor), data, KILN_F32, 2, shape, nullptr, {}};
  const std::string text = model_json("add");
  const char* const names[] = {"v", "w"};
  kiln_model* model = nullptr;
  const auto expect_refused = [&](const kiln_tensor& bad, const char* mentioned) {
    const kiln_tensor tensors[] = {good, bad};
    EXPECT_EQ(kiln_model_open_memory(text.data(), text.size(), names, tensors, 2, &model),
              KILN_INVALID_ARGUMENT);
    EXPECT_NE(std::string(kiln_last_error()).find(mentioned), std::string::npos)
        << kiln_last_error();
  };
  kiln_tensor bad = good;
  bad.strides = strides;
  expect_refused(bad, "[w] got a strided tensor");
  bad = good;
  bad.device = {KILN_CUDA, 0};
  expect_refused(bad, "[w] got a tensor on another device");
  bad = good;
  bad.struct_size = 8;
  expect_refused(bad, "tensor 1: got struct_size 8");
  bad = good;
  bad.data = nullptr;
  expect_refused(bad, "[w] its data is null");
  EXPECT_EQ(kiln_model_open_memory(text.data(), text.size(), nullptr, &good, 1, &model),
            KILN_INVALID_ARGUMENT);
  const char* const nameless[] = {nullptr};
  EXPECT_EQ(kiln_model_open_memory(text.data(), text.size(), nameless, &good, 1, &model),
            KILN_INVALID_ARGUMENT);
  EXPECT_EQ(model, nullptr);
}

TEST(SupportedOps, ListsOperatorsAndOps) {
  kiln_bytes* bytes = nullptr;
  ASSERT_EQ(kiln_supported_ops(&bytes), KILN_OK) << kiln_last_error();
  const json ops = json::parse(take(bytes));
  EXPECT_NE(std::find(ops["aten"].begin(), ops["aten"].end(), "aten.add.Tensor"),
            ops["aten"].end());
  EXPECT_GT(ops["ops"].size(), 50u);
}

TEST(Passes, AreNamesThatCanBeDisabled) {
  kiln_bytes* bytes = nullptr;
  ASSERT_EQ(kiln_passes(&bytes), KILN_OK) << kiln_last_error();
  const json passes = json::parse(take(bytes));
  std::string names;
  for (const char* stage : {"graph", "plan"}) {
    EXPECT_GT(passes[stage].size(), 5u) << stage;
    for (const json& pass : passes[stage]) {
      EXPECT_FALSE(pass["summary"].get<std::string>().empty()) << pass;
      names += (names.empty() ? "" : ",") + pass["name"].get<std::string>();
    }
  }
  const OpenModel opened("add");
  kiln_compile_options options{};
  options.struct_size = sizeof(options);
  options.disabled_passes = names.c_str();
  kiln_bytes* engine = nullptr;
  ASSERT_EQ(kiln_compile(opened.model, &options, &engine), KILN_OK) << kiln_last_error();
  kiln_bytes_destroy(engine);
}

}  // namespace
