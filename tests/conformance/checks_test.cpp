// Indices and divisors that PyTorch refuses: every backend reports them wherever they stand, and
// the next run is right.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "backends/reference/reference.h"
#include "conformance/backend.h"
#include "conformance/cases.h"
#include "ir/text.h"
#include "support/error.h"

namespace kiln::conformance {
namespace {

struct CheckCase {
  std::string name;
  std::string dtype;  // of what is checked: input %i, of shape [s]
  std::vector<int64_t> good, bad;
  std::string operation;
  std::string body;        // gives %y; the other inputs are %w: f32[5, 7] and %c: bool[s]
  std::string fault = "";  // what the error says, if the check does
};

constexpr int64_t kLeast = std::numeric_limits<int64_t>::min();
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
const std::vector<int64_t> kRows = {0, 4, 2, 1, 3}, kNoRows = {5, -1, 6, 1 << 20, kLeast, kMost};

const std::string kRow =
    "  %j = check_index(%i) {size = 5, negative = false, operator = \"rows\"}\n";
const std::string kTake = kRow + "  %g = gather(%w, %j) {axis = 0}\n";

std::vector<CheckCase> index_cases() {
  const std::string wide =
      "  %i64 = cast(%i) {dtype = i64}\n"
      "  %j = check_index(%i64) {size = 5, negative = false, "
      "operator = \"rows\"}\n  %y = gather(%w, %j) {axis = 0}\n";
  return {
      {"rows", "i64", kRows, kNoRows, "rows", kTake + "  %y = neg(%g)\n"},
      {"columns", "i64", kRows, kNoRows, "rows",
       kRow + "  %t = permute(%w) {axes = [1, 0]}\n  %y = gather(%t, %j) {axis = 1}\n"},
      {"from_either_end",
       "i64",
       {-5, 4, -1, 0},
       {5, -6, kLeast, kMost},
       "either",
       "  %j = check_index(%i) {size = 5, negative = true, operator = \"either\"}\n"
       "  %y = gather(%w, %j) {axis = 0}\n"},
      {"narrow", "i32", kRows, {5, -1, INT32_MIN, INT32_MAX}, "rows", wide},
      {"elements", "i64", kRows, kNoRows, "rows",
       kRow +
           "  %k = expand(%j) {shape = [3, s]}\n  %x = slice(%w) {axis = 1, start = 0, size = 3, "
           "step = 1}\n  %t = permute(%x) {axes = [1, 0]}\n"
           "  %y = gather_elements(%t, %k) {axis = 1}\n"},
      {"summed", "i64", kRows, kNoRows, "rows",
       kTake + "  %y = reduce_sum(%g) {axes = [0], keepdim = false}\n"},
      {"summed_in_rows", "i64", kRows, kNoRows, "rows",
       kTake + "  %y = reduce_sum(%g) {axes = [1], keepdim = false}\n"},
      {"normalised", "i64", kRows, kNoRows, "rows", kTake + "  %y = softmax(%g) {axis = 1}\n"},
      {"one_column_used", "i64", kRows, kNoRows, "rows",
       kTake + "  %y = slice(%g) {axis = 1, start = 3, size = 1, step = 1}\n"},
      {"first_row_used", "i64", kRows, kNoRows, "rows",
       kTake + "  %y = slice(%g) {axis = 0, start = 0, size = 1, step = 1}\n"},
      {"padded", "i64", kRows, kNoRows, "rows",
       kTake + "  %y = pad(%g) {before = [1, 2], after = [3, 1], value = 0.0, "
               "mode = \"constant\"}\n"},
      {"cropped", "i64", kRows, kNoRows, "rows",
       kTake + "  %z = pad(%g) {before = [1, 0], after = [0, -6], value = 0.0, "
               "mode = \"constant\"}\n  %y = neg(%z)\n"},
      {"joined", "i64", kRows, kNoRows, "rows",
       kTake + "  %z = concat(%g, %w) {axis = 0}\n  %y = neg(%z)\n"},
      {"not_chosen", "i64", kRows, kNoRows, "rows",
       kTake + "  %d = reshape(%c) {shape = [s, 1]}\n  %z = neg(%g)\n  %zero = full() {shape = [], "
               "dtype = f32, value = 0.0}\n  %y = where(%d, %z, %zero)\n"},
      {"counted",
       "i64",
       {-1, 3, 0},
       {4, -2, 100},
       "rows",
       "  %one = full() {shape = [], dtype = i64, value = 1.0}\n  %n = add(%i, %one)\n"
       "  %j = check_index(%n) {size = 5, negative = false, operator = \"rows\"}\n"
       "  %y = gather(%w, %j) {axis = 0}\n"},
      {"multiplied", "i64", kRows, kNoRows, "rows",
       kTake + "  %m = constant() {value = f32[3, 7] splat 0.5}\n  %y = linear(%g, %m)\n"},
      {"in_an_epilogue", "i64", kRows, kNoRows, "rows",
       kTake + "  %m = constant() {value = f32[7, 7] splat 0.5}\n  %l = linear(%w, %m)\n"
               "  %z = gather(%l, %j) {axis = 0}\n  %y = add(%z, %g)\n"},
      {"one_hot", "i64", kRows, kNoRows, "rows",
       kRow +
           "  %k = reshape(%j) {shape = [s, 1]}\n  %n = iota() {size = 5, dtype = i64, start = 0, "
           "step = 1}\n  %y = eq(%k, %n)\n"},
      {"uniform_table", "i64", kRows, kNoRows, "rows",
       kRow +
           "  %m = constant() {value = f32[5, 7] splat 0.5}\n  %y = gather(%m, %j) {axis = 0}\n"},
      {"two_indices", "i64", kRows, kNoRows, "rows",
       kRow + "  %n = iota() {size = s, dtype = i64, start = 0, step = 0}\n"
              "  %y = gather_nd(%w, %j, %n) {axis = 0}\n"},
  };
}

std::vector<CheckCase> division_cases() {
  std::vector<CheckCase> cases;
  for (const char* op : {"div", "floor_div", "remainder", "fmod"}) {
    for (const char* dtype : {"i8", "u8", "i16", "i32", "i64"}) {
      cases.push_back({std::string(op) + "_" + dtype,
                       dtype,
                       {1, 3, 127, 2},
                       {0},
                       "div",
                       "  %d = check_nonzero(%i) {operator = \"div\"}\n  %n = full() {shape = [], "
                       "dtype = " +
                           std::string(dtype) + ", value = 7.0}\n  %y = " + op + "(%n, %d)\n"});
    }
  }
  return cases;
}

// Of all elements together: nothing reads what is checked, and what it is made of goes into a kernel with others.
std::vector<CheckCase> condition_cases() {
  const std::string least = "  %m = reduce_min(%i) {axes = [0], keepdim = false}\n",
                    check =
                        "  %d = check_nonzero(%m) {operator = \"least\", fault = \"got zero\"}\n";
  return {
      {"condition_unused",
       "i64",
       {1, 3, 127, 2},
       {0},
       "least",
       least + check + "  %y = neg(%i)\n",
       "got zero"},
      {"condition_beside_a_reader",
       "i64",
       {1, 3, 127, 2},
       {0},
       "least",
       least + check + "  %y = sub(%i, %m)\n",
       "got zero"},
  };
}

std::vector<CheckCase> all_check_cases() {
  std::vector<CheckCase> cases = index_cases();
  for (CheckCase& test : division_cases()) cases.push_back(std::move(test));
  for (CheckCase& test : condition_cases()) cases.push_back(std::move(test));
  return cases;
}

ir::Literal integers(DType dtype, const std::vector<int64_t>& values) {
  std::byte* data = nullptr;
  ir::Literal literal = ir::Literal::allocate(dtype, {static_cast<int64_t>(values.size())}, &data);
  const size_t size = dtype_size(dtype);  // little-endian: the low bytes come first
  for (size_t i = 0; i < values.size(); ++i) std::memcpy(data + i * size, &values[i], size);
  return literal;
}

std::vector<ir::Literal> inputs_of(const ir::Graph& graph, const std::vector<int64_t>& values) {
  std::byte *table = nullptr, *chosen = nullptr;
  std::vector<ir::Literal> inputs = {ir::Literal::allocate(DType::F32, {5, 7}, &table)};
  for (int i = 0; i < 35; ++i) {
    const auto number = static_cast<float>(i);
    std::memcpy(table + static_cast<size_t>(i) * sizeof number, &number, sizeof number);
  }
  inputs.push_back(
      ir::Literal::allocate(DType::Bool, {static_cast<int64_t>(values.size())}, &chosen));
  for (size_t i = 0; i < values.size(); ++i) chosen[i] = std::byte{0};
  inputs.push_back(integers(graph.inputs()[2]->type.dtype, values));
  return inputs;
}

class Checks : public testing::TestWithParam<std::tuple<Backend, CheckCase>> {
 protected:
  void SetUp() override {
    const auto& [backend, test] = GetParam();
    if (const std::string reason = backend.unavailable(); !reason.empty()) GTEST_SKIP() << reason;
    const Gap* gap = backend.gap("check_" + test.name);
    text_ = "graph main(%w: f32[5, 7], %c: bool[s], %i: " + test.dtype +
            "[s]) symbols s in [1, 600] opt 20 {\n" + test.body + "  return %y as \"y\"\n}\n";
    if (gap == nullptr) {
      run_ = backend.compile(ir::parse_graph(text_));
      return;
    }
    EXPECT_THROW(backend.compile(ir::parse_graph(text_)), CompileError)
        << "it compiles: take it out of the gaps of " << backend.name;
    GTEST_SKIP() << gap->reason;
  }

  std::vector<int64_t> good(size_t size) const {
    const std::vector<int64_t>& values = std::get<1>(GetParam()).good;
    std::vector<int64_t> result;
    for (size_t i = 0; i < size; ++i) result.push_back(values[i % values.size()]);
    return result;
  }

  std::string error_of(const std::vector<int64_t>& values) const {
    try {
      run_(inputs_of(ir::parse_graph(text_), values));
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "no error";
  }

  void expect_right(const std::vector<int64_t>& values) const {
    const ir::Graph graph = ir::parse_graph(text_);
    const std::vector<ir::Literal> inputs = inputs_of(graph, values);
    const ir::Literal got = run_(inputs).at(0), expected = reference::run(graph, inputs).at(0);
    ASSERT_EQ(got.shape, expected.shape);
    for (int64_t i = 0; i < got.elements(); ++i) {
      ASSERT_NEAR(got.as_double(i), expected.as_double(i), 1e-4) << "element " << i;
    }
  }

  std::string text_;
  Runner run_;
};

// Around the widths of vectors, and where a loop has whole vectors, single ones and a rest.
TEST_P(Checks, AreMadeForEveryElement) {
  const CheckCase& test = std::get<1>(GetParam());
  std::vector<size_t> sizes = {600};
  for (size_t size = 1; size <= 33; ++size) sizes.push_back(size);
  for (const size_t size : sizes) {
    expect_right(good(size));
    for (const size_t place : {size_t{0}, size / 2, size - 1}) {
      std::vector<int64_t> values = good(size);
      values[place] = test.bad[(size + place) % test.bad.size()];
      const std::string error = error_of(values);
      ASSERT_EQ(error.rfind("[" + test.operation + "] ", 0), 0U)
          << error << ": " << values[place] << " at " << place << " of " << size;
    }
    expect_right(good(size));
  }
}

TEST_P(Checks, RefuseEveryBadValue) {
  const CheckCase& test = std::get<1>(GetParam());
  for (const int64_t bad : test.bad) {
    std::vector<int64_t> values = good(19);
    values[18] = bad;
    EXPECT_EQ(error_of(values).rfind("[" + test.operation + "] " + test.fault, 0), 0U) << bad;
    EXPECT_THROW(reference::run(ir::parse_graph(text_), inputs_of(ir::parse_graph(text_), values)),
                 CompileError)
        << bad;
  }
}

class EmptyTable : public testing::TestWithParam<Backend> {};

// Any index is wrong where there is no row; none is right.
TEST_P(EmptyTable, HasNoRow) {
  const Backend& backend = GetParam();
  if (const std::string reason = backend.unavailable(); !reason.empty()) GTEST_SKIP() << reason;
  for (const char* negative : {"false", "true"}) {
    const Runner run = backend.compile(ir::parse_graph(
        "graph main(%w: f32[n, 7], %i: i64[s]) symbols n in [0, 8] opt 4, s in [0, 40] opt 20 {\n"
        "  %j = check_index(%i) {size = n, negative = " +
        std::string(negative) +
        ", operator = \"rows\"}\n  %y = gather(%w, %j) {axis = 0}\n  return %y as \"y\"\n}\n"));
    std::byte* data = nullptr;
    const ir::Literal none = ir::Literal::allocate(DType::F32, {0, 7}, &data);
    const ir::Literal two = ir::Literal::allocate(DType::F32, {2, 7}, &data);
    std::memset(data, 0, 2 * 7 * sizeof(float));
    const auto rows = [&](const ir::Literal& table, const std::vector<int64_t>& index) {
      const std::vector<ir::Literal> inputs = {table, integers(DType::I64, index)};
      return run(inputs).at(0).shape.at(0);
    };
    EXPECT_EQ(rows(none, {}), 0);
    EXPECT_EQ(rows(two, {}), 0);
    EXPECT_EQ(rows(two, {1}), 1);
    for (const size_t size : {1, 8, 17, 40}) {
      EXPECT_THROW(rows(none, std::vector<int64_t>(size, 0)), std::runtime_error);
      EXPECT_THROW(rows(none, std::vector<int64_t>(size, -1)), std::runtime_error);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, EmptyTable, testing::ValuesIn(all_backends()),
                         [](const testing::TestParamInfo<Backend>& info) {
                           return test_name(info.param.name);
                         });

INSTANTIATE_TEST_SUITE_P(All, Checks,
                         testing::Combine(testing::ValuesIn(all_backends()),
                                          testing::ValuesIn(all_check_cases())),
                         [](const testing::TestParamInfo<std::tuple<Backend, CheckCase>>& info) {
                           return test_name(std::get<0>(info.param).name + "_" +
                                            std::get<1>(info.param).name);
                         });

}  // namespace

std::vector<std::string> check_case_names() {
  std::vector<std::string> names;
  for (const CheckCase& test : all_check_cases()) names.push_back(test.name);
  return names;
}

}  // namespace kiln::conformance
