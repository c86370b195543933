// Kernels of the user's own, from a library in C (custom_kernels.c), in models written as torch.export JSON here.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "kiln/kiln.hpp"

namespace {

using nlohmann::json;
using Shape = std::vector<json>;  // numbers, or "s0"

json size_json(const json& size) {
  if (size.is_number()) return {{"as_int", size}};
  const std::string symbol = size.get<std::string>();
  return {{"as_expr",
           {{"expr_str", "Symbol('" + symbol + "', positive=True, integer=True)"},
            {"hint", {{"as_int", 4}}}}}};
}

// The codes of torch.export for those of kiln_dtype.
int scalar_type(kiln_dtype dtype) {
  constexpr int kCodes[] = {7, 8, 6, 13, 2, 1, 3, 4, 5, 12, 29};
  return kCodes[dtype];
}

// A program: tensors, and nodes that take and give them.
class Program {
 public:
  Program& tensor(const std::string& name, kiln_dtype dtype, const Shape& shape) {
    json sizes = json::array(), strides = json::array();
    for (const json& size : shape) {
      sizes.push_back(size_json(size));
      strides.push_back({{"as_int", 1}});
    }
    tensors_[name] = {{"dtype", scalar_type(dtype)},
                      {"sizes", sizes},
                      {"requires_grad", false},
                      {"device", {{"type", "cpu"}, {"index", nullptr}}},
                      {"strides", strides},
                      {"storage_offset", {{"as_int", 0}}},
                      {"layout", 7}};
    return *this;
  }
  Program& input(const std::string& name, kiln_dtype dtype, const Shape& shape) {
    inputs_.push_back(name);
    return tensor(name, dtype, shape);
  }
  // `arguments`: names, and as the schema has them.
  Program& node(const std::string& target, const json& arguments,
                const std::vector<std::string>& outputs) {
    json inputs = json::array(), results = json::array();
    for (const auto& [name, value] : arguments.items())
      inputs.push_back({{"name", value["name"]}, {"arg", value["arg"]}, {"kind", 1}});
    for (const std::string& output : outputs) results.push_back(as_tensor(output));
    nodes_.push_back({{"target", "torch.ops." + target},
                      {"inputs", inputs},
                      {"outputs", results},
                      {"metadata", json::object()}});
    return *this;
  }
  static json as_tensor(const std::string& name) { return {{"as_tensor", {{"name", name}}}}; }
  static json tensor_argument(const std::string& name, const std::string& tensor) {
    return {{"name", name}, {"arg", as_tensor(tensor)}};
  }

  kiln::Model open(const std::vector<std::string>& outputs) const {
    json in = json::array(), out = json::array(), in_specs = json::array(),
         out_specs = json::array();
    for (const std::string& name : inputs_) {
      in.push_back(as_tensor(name));
      in_specs.push_back({{"user_input", {{"arg", as_tensor(name)}}}});
    }
    for (const std::string& name : outputs) {
      out.push_back(as_tensor(name));
      out_specs.push_back({{"user_output", {{"arg", as_tensor(name)}}}});
    }
    const json program = {{"graph_module",
                           {{"graph",
                             {{"inputs", in},
                              {"outputs", out},
                              {"nodes", nodes_},
                              {"tensor_values", tensors_},
                              {"sym_int_values", json::object()},
                              {"sym_bool_values", json::object()},
                              {"is_single_tensor_return", false}}},
                            {"signature", {{"input_specs", in_specs}, {"output_specs", out_specs}}},
                            {"module_call_graph", json::array()}}},
                          {"opset_version", {{"aten", 10}}},
                          {"range_constraints", {{"s0", {{"min_val", 0}, {"max_val", 64}}}}},
                          {"schema_version", {{"major", 8}, {"minor", 14}}},
                          {"guards_code", json::array()},
                          {"torch_version", "2.13.0"}};
    const std::string text = program.dump();
    return kiln::Model::open_memory(text, {});
  }

 private:
  std::vector<std::string> inputs_;
  json nodes_ = json::array(), tensors_ = json::object();
};

json with_number(const char* name, double value) {
  return {{"name", name}, {"arg", {{"as_float", value}}}};
}

// sum, difference = sum_and_difference(a, b, scale=2.5)
Program two_results(const Shape& shape) {
  Program program;
  program.input("a", KILN_F32, shape).input("b", KILN_F32, shape);
  program.tensor("sum", KILN_F32, shape).tensor("difference", KILN_F32, shape);
  return program.node("test.sum_and_difference.default",
                      {Program::tensor_argument("a", "a"), Program::tensor_argument("b", "b"),
                       with_number("scale", 2.5)},
                      {"sum", "difference"});
}

Program copied(kiln_dtype dtype, const Shape& shape) {
  Program program;
  program.input("x", dtype, shape).tensor("y", dtype, shape);
  return program.node("test.copy.default", json::array({Program::tensor_argument("x", "x")}),
                      {"y"});
}

Program checked(const Shape& shape) {
  Program program;
  program.input("x", KILN_F32, shape).tensor("y", KILN_F32, shape);
  return program.node("test.positive.checked", json::array({Program::tensor_argument("x", "x")}),
                      {"y"});
}

template <typename Call>
std::pair<kiln_status, std::string> failure(const Call& call) {
  try {
    call();
  } catch (const kiln::Error& error) {
    return {error.status(), error.what()};
  }
  return {KILN_OK, ""};
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class CustomKernels : public testing::Test {
 protected:
  static void SetUpTestSuite() { kiln::load_kernels(KILN_TEST_KERNELS); }
};

kiln::Engine engine_of(const kiln::Bytes& bytes) { return kiln::Engine::load_memory(bytes.span()); }

TEST_F(CustomKernels, GiveSeveralResults) {
  const kiln::Bytes bytes = two_results({2, 3}).open({"difference", "sum"}).compile();
  const kiln::Engine engine = engine_of(bytes);
  kiln::Session session(engine);
  std::vector<float> a{1, 2, 3, 4, 5, 6}, b{6, 5, 4, 3, 2, 0}, sum(6), difference(6);
  session.run({kiln::Tensor(a, {2, 3}), kiln::Tensor(b, {2, 3})},
              {kiln::Tensor(difference, {2, 3}), kiln::Tensor(sum, {2, 3})});
  EXPECT_EQ(sum, (std::vector<float>{17.5, 17.5, 17.5, 17.5, 17.5, 15}));
  EXPECT_EQ(difference, (std::vector<float>{-5, -3, -1, 1, 3, 6}));
}

TEST_F(CustomKernels, TakeSizesOfEachRun) {
  const kiln::Bytes bytes = two_results({"s0", 2}).open({"sum", "difference"}).compile();
  const kiln::Engine engine = engine_of(bytes);
  kiln::Session session(engine);
  for (const int64_t rows : {3, 0, 64, 1}) {
    const auto count = static_cast<size_t>(rows) * 2;
    std::vector<float> a(count, 3), b(count, 1), sum(count), difference(count);
    session.run({kiln::Tensor(a, {rows, 2}), kiln::Tensor(b, {rows, 2})},
                {kiln::Tensor(sum, {rows, 2}), kiln::Tensor(difference, {rows, 2})});
    EXPECT_EQ(sum, std::vector<float>(count, 10)) << rows;
    EXPECT_EQ(difference, std::vector<float>(count, 2)) << rows;
  }
}

TEST_F(CustomKernels, TakeOneTensorTwiceAndMayGoUnused) {
  Program program;
  program.input("x", KILN_F32, {3});
  for (const char* name : {"y", "unused", "sum", "difference"}) program.tensor(name, KILN_F32, {3});
  program.node("aten.relu.default", json::array({Program::tensor_argument("self", "x")}), {"y"});
  program.node("test.copy.default", json::array({Program::tensor_argument("x", "x")}), {"unused"});
  program.node("test.sum_and_difference.default",
               {Program::tensor_argument("a", "y"), Program::tensor_argument("b", "y")},
               {"sum", "difference"});
  const kiln::Bytes bytes = program.open({"sum"}).compile();
  const kiln::Engine engine = engine_of(bytes);
  kiln::Session session(engine);
  std::vector<float> x{-1, 2, 3}, sum(3);
  session.run({kiln::Tensor(x, {3})}, {kiln::Tensor(sum, {3})});
  EXPECT_EQ(sum, (std::vector<float>{0, 4, 6}));
}

TEST_F(CustomKernels, TakeEveryDtypeScalarsAndNothing) {
  for (int code = KILN_F32; code <= KILN_F8E4M3; ++code) {
    const auto dtype = static_cast<kiln_dtype>(code);
    for (const Shape& shape : {Shape{5}, Shape{}, Shape{0}, Shape{2, 0, 3}, Shape{1, 2, 2}}) {
      const kiln::Bytes bytes = copied(dtype, shape).open({"y"}).compile();
      const kiln::Engine engine = engine_of(bytes);
      kiln::Session session(engine);
      std::vector<int64_t> sizes;
      for (const json& size : shape) sizes.push_back(size);
      std::vector<uint8_t> x(64, 1), y(64, 9);
      size_t count = std::vector<size_t>{4, 8, 2, 2, 1, 1, 2, 4, 8, 1, 1}[code];
      for (const int64_t size : sizes) count *= static_cast<size_t>(size);
      session.run({kiln::Tensor(x.data(), dtype, sizes)}, {kiln::Tensor(y.data(), dtype, sizes)});
      EXPECT_TRUE(std::equal(y.begin(), y.begin() + static_cast<std::ptrdiff_t>(count), x.begin()));
      EXPECT_TRUE(std::all_of(y.begin() + static_cast<std::ptrdiff_t>(count), y.end(),
                              [](uint8_t byte) { return byte == 9; }))
          << code << " " << count;
    }
  }
}

TEST_F(CustomKernels, ThatFailEndTheRunAndNotTheSession) {
  const kiln::Bytes bytes = checked({2}).open({"y"}).compile();
  const kiln::Engine engine = engine_of(bytes);
  kiln::Session session(engine);
  const auto run = [&](std::vector<float> x) {
    std::vector<float> y(2);
    session.run({kiln::Tensor(x, {2})}, {kiln::Tensor(y, {2})});
    return y;
  };
  EXPECT_EQ(failure([&] { run({1, -1}); }),
            std::pair(KILN_KERNEL_FAILED,
                      std::string("[test::positive.checked] the kernel failed: it returned 3")));
  EXPECT_EQ(run({1, 2}), (std::vector<float>{1, 2}));
  EXPECT_EQ(
      failure([&] { run({-2, 1}); }),
      std::pair(KILN_KERNEL_FAILED,
                std::string("[test::positive.checked] the kernel failed: got a number below -1")));
  session.enable_profiling(true);
  EXPECT_EQ(failure([&] { run({1, -1}); }).first, KILN_KERNEL_FAILED);
  EXPECT_EQ(run({3, 2}), (std::vector<float>{3, 2}));
  EXPECT_TRUE(contains(session.profile(), R"("kind":"custom")")) << session.profile();
}

TEST_F(CustomKernels, ThatChangeAnInputFail) {
  Program program;
  for (const char* name : {"x", "unchanged", "y"}) program.tensor(name, KILN_F32, {"s0"});
  program.input("x", KILN_F32, {"s0"});
  program.node("test.copy.default", json::array({Program::tensor_argument("x", "x")}),
               {"unchanged"});
  program.node("test.bump.default", json::array({Program::tensor_argument("x", "unchanged")}),
               {"y"});
  const kiln::Bytes bytes = program.open({"unchanged", "y"}).compile();
  const kiln::Engine engine = engine_of(bytes);
  kiln::Session session(engine);
  const auto run = [&](const std::vector<int64_t>& shape) {
    std::vector<float> x(3, 1), unchanged(3), y(3);
    session.run(
        {kiln::Tensor(x.data(), KILN_F32, shape)},
        {kiln::Tensor(unchanged.data(), KILN_F32, shape), kiln::Tensor(y.data(), KILN_F32, shape)});
  };
  for (const int64_t size : {3, 1}) {
    const auto [status, text] = failure([&] { run({size}); });
    EXPECT_EQ(status, KILN_KERNEL_FAILED);
    EXPECT_TRUE(contains(text, "[test::bump] the kernel failed: it changed its input 0")) << text;
  }
  run({0});
}

TEST_F(CustomKernels, RunInSeveralSessionsAtOnce) {
  const kiln::Bytes bytes = two_results({"s0", 2}).open({"sum", "difference"}).compile();
  const kiln::Engine engine = engine_of(bytes);
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      kiln::Session session(engine);
      for (int64_t rows = 1; rows < 60; ++rows) {
        const auto count = static_cast<size_t>(rows) * 2;
        std::vector<float> a(count, static_cast<float>(t)), b(count, 1), sum(count), other(count);
        session.run({kiln::Tensor(a, {rows, 2}), kiln::Tensor(b, {rows, 2})},
                    {kiln::Tensor(sum, {rows, 2}), kiln::Tensor(other, {rows, 2})});
        wrong += sum != std::vector<float>(count, static_cast<float>(t + 1) * 2.5F);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST_F(CustomKernels, AreNamedByEnginesAndModels) {
  const kiln::Model model = two_results({2}).open({"sum"});
  const json nodes = json::parse(model.check_support())["nodes"];
  EXPECT_EQ(nodes[0]["kernels"], json::array({"test::sum_and_difference"}));
  EXPECT_EQ(nodes[0]["supported"], true);
  const kiln::Bytes bytes = model.compile();
  const json described = json::parse(engine_of(bytes).describe());
  EXPECT_EQ(described["custom_kernels"], json::array({"test::sum_and_difference"}));
  EXPECT_EQ(described["kernels"][0]["function"], "test::sum_and_difference");
  EXPECT_EQ(described["kernels"][0]["arguments"], R"({"scale":2.5})");
}

TEST_F(CustomKernels, AreRefusedForGpus) {
  kiln_compile_options options{};
  options.struct_size = sizeof(options);
  options.targets = "cuda";
  const auto [status, text] = failure([&] { two_results({2}).open({"sum"}).compile(&options); });
  EXPECT_NE(status, KILN_OK);
  EXPECT_TRUE(contains(text, "custom kernels run on CPUs")) << text;
}

TEST_F(CustomKernels, UnknownOperatorsStayUnknown) {
  Program program;
  program.input("x", KILN_F32, {2}).tensor("y", KILN_F32, {2});
  program.node("test.absent.default", json::array({Program::tensor_argument("x", "x")}), {"y"});
  EXPECT_EQ(failure([&] { program.open({"y"}).compile(); }).first, KILN_UNSUPPORTED);
}

TEST_F(CustomKernels, ResultsWhoseSizesDependOnDataAreRefused) {
  Program program;
  program.input("x", KILN_F32, {2}).tensor("y", KILN_F32, {"u0"});
  program.node("test.copy.default", json::array({Program::tensor_argument("x", "x")}), {"y"});
  const auto [status, text] = failure([&] { program.open({"y"}).compile(); });
  EXPECT_EQ(status, KILN_UNSUPPORTED);
  EXPECT_TRUE(contains(text, "are known before it runs")) << text;
}

int nothing(void*, const kiln_kernel_call*) { return 0; }
int other(void*, const kiln_kernel_call*) { return 0; }

TEST_F(CustomKernels, AreRegisteredOnce) {
  kiln::register_kernel("test::nothing", nothing);
  kiln::register_kernel("test::nothing", nothing);
  kiln::register_kernel("test::nothing.default", nothing);
  EXPECT_TRUE(kiln::has_kernel("test::nothing.default"));
  EXPECT_FALSE(kiln::has_kernel("test::nothing.other"));
  static int number = 0;
  const auto refused = [](kiln_kernel_function function, void* user) {
    EXPECT_EQ(failure([&] { kiln::register_kernel("test::nothing", function, user); }),
              std::pair(KILN_INVALID_ARGUMENT,
                        std::string(
                            "got another kernel for test::nothing, expected the one that it has")));
  };
  refused(other, nullptr);
  refused(nothing, &number);
  for (const char* name :
       {"", "nothing", "::nothing", "test::", "te st::nothing", "test::a.", "test:::a"})
    EXPECT_EQ(failure([&] { kiln::register_kernel(name, nothing); }).first, KILN_INVALID_ARGUMENT)
        << name;
  EXPECT_EQ(kiln_register_kernel(nullptr, nothing, nullptr), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(kiln_register_kernel("test::null", nullptr, nullptr), KILN_INVALID_ARGUMENT);
  EXPECT_EQ(kiln_has_kernel(nullptr), 0);
}

TEST_F(CustomKernels, LibrariesAreLoadedAgainAndOthersRefused) {
  kiln::load_kernels(KILN_TEST_KERNELS);
  EXPECT_EQ(failure([] { kiln::load_kernels("/no/such/library.so"); }).first, KILN_NOT_FOUND);
  const std::string text = testing::TempDir() + "no_library.so";
  std::ofstream(text) << "text";
  EXPECT_EQ(failure([&] { kiln::load_kernels(text); }).first, KILN_INVALID_ARGUMENT);
  const auto [status, message] = failure([] { kiln::load_kernels("libm.so.6"); });
  EXPECT_EQ(status, KILN_INVALID_ARGUMENT);
  EXPECT_TRUE(contains(message, "without a function kiln_kernels")) << message;
}

#ifdef KILN_COMMAND
std::pair<int, std::string> command(const std::string& arguments) {
  std::string text;
  FILE* pipe = popen((std::string(KILN_COMMAND) + " " + arguments + " 2>&1").c_str(), "r");
  char buffer[256];
  while (std::fgets(buffer, sizeof(buffer), pipe) != nullptr) text += buffer;
  return {pclose(pipe), text};
}

TEST_F(CustomKernels, AnEngineSaysWhatItLacks) {
  const std::string path = testing::TempDir() + "custom_kernels.kiln";
  const kiln::Bytes bytes = two_results({2, 3}).open({"sum"}).compile();
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.span().data()),
             static_cast<std::streamsize>(bytes.span().size()));
  const auto [lacking, message] = command("run --random " + path);
  EXPECT_NE(lacking, 0);
  EXPECT_TRUE(contains(message, "needs a kernel for test::sum_and_difference")) << message;
  EXPECT_TRUE(contains(message, "--kernels")) << message;
  const auto [found, result] = command("run --random --kernels " KILN_TEST_KERNELS " " + path);
  EXPECT_EQ(found, 0) << result;
  EXPECT_TRUE(contains(result, "sum: float32[2, 3]")) << result;
  const auto [inspected, description] = command("inspect " + path);
  EXPECT_EQ(inspected, 0);
  EXPECT_TRUE(contains(description, "calls test::sum_and_difference")) << description;
  EXPECT_TRUE(contains(description, "needs kernels of your own")) << description;
}
#endif

}  // namespace
