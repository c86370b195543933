// Times one contraction through the whole stack: graph, engine, session.
//
//   contraction THREADS matmul M N K
//   contraction THREADS convolution B H W C O KERNEL STRIDE PADDING GROUPS
//   contraction THREADS attention B HEADS M N D CAUSAL
//   contraction THREADS -                                 one problem after another from the lines of stdin
//
// With --variant x86-64-v3 before THREADS: the program for that level of CPU. With --seconds S: how long
// each is measured. One thread is timed by its CPU time, which other work on the machine disturbs less. Prints, for each: milliseconds (the best of many runs), GF/s, and percent of what all
// threads could do if they did nothing but multiply and add, measured right after it.
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <iostream>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "backends/cpu/device/cpu_features.h"
#include "compiler/driver.h"
#include "ir/builder.h"
#include "runtime/session.h"

namespace {

using kiln::DType;
using kiln::ir::Graph;
using kiln::ir::Literal;
using kiln::ir::Op;
using kiln::ir::Shape;
using kiln::ir::Value;
using std::chrono::duration;
using std::chrono::steady_clock;

struct Problem {
  Graph graph;
  std::vector<std::vector<int64_t>> input_shapes;
  double operations = 0;
};

struct Options {
  std::string variant;   // empty: the best that this machine can run
  double seconds = 1.0;  // for each problem
  int threads = 1;
};

double now(const Options& options) {
  if (options.threads > 1) return duration<double>(steady_clock::now().time_since_epoch()).count();
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double best_seconds(const Options& options, const std::function<void()>& run) {
  double best = 1e9, spent = 0;
  for (int repeats = 0; repeats < 5 || spent < options.seconds; ++repeats) {
    const double start = now(options);
    run();
    const double seconds = now(options) - start;
    best = std::min(best, seconds);
    spent += seconds;
  }
  return best;
}

constexpr int kSums = 12;  // AVX2 has 16 registers
constexpr int kSteps = 4096;

__attribute__((target("avx512f"))) float multiply_add_512() {
  __m512 sums[kSums], factor = _mm512_set1_ps(0.999F);
  for (auto& sum : sums) sum = _mm512_set1_ps(1.0F);
  for (int step = 0; step < kSteps; ++step) {
#pragma GCC unroll 16
    for (auto& sum : sums) sum = _mm512_fmadd_ps(sum, factor, factor);
  }
  float total = 0;
  for (auto& sum : sums) total += _mm512_cvtss_f32(sum);
  return total;
}

__attribute__((target("avx2,fma"))) float multiply_add_256() {
  __m256 sums[kSums], factor = _mm256_set1_ps(0.999F);
  for (auto& sum : sums) sum = _mm256_set1_ps(1.0F);
  for (int step = 0; step < kSteps; ++step) {
#pragma GCC unroll 16
    for (auto& sum : sums) sum = _mm256_fmadd_ps(sum, factor, factor);
  }
  float total = 0;
  for (auto& sum : sums) total += _mm256_cvtss_f32(sum);
  return total;
}

// Of one thread.
double ceiling_gflops(const Options& options) {
  const bool wide = kiln::cpu::has_cpu_feature("avx512") && options.variant != "x86-64-v3";
  volatile float sink = 0;
  const double seconds =
      best_seconds(options, [&] { sink = wide ? multiply_add_512() : multiply_add_256(); });
  return 2e-9 * kSums * kSteps * (wide ? 16 : 8) / seconds;
}

Value* random_constant(kiln::ir::Builder& builder, const std::vector<int64_t>& shape) {
  std::byte* bytes = nullptr;
  Literal literal = Literal::allocate(DType::F32, shape, &bytes);
  std::mt19937 generator(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::generate_n(reinterpret_cast<float*>(bytes), literal.elements(),
                  [&] { return uniform(generator); });
  return builder.constant(std::move(literal));
}

Value* add_input(Problem& problem, const std::string& name, const std::vector<int64_t>& shape) {
  problem.input_shapes.push_back(shape);
  return problem.graph.add_input(name, {DType::F32, Shape(shape.begin(), shape.end())});
}

Problem make_matmul(const std::vector<int64_t>& sizes) {
  const int64_t m = sizes.at(0), n = sizes.at(1), k = sizes.at(2);
  Problem problem;
  kiln::ir::Builder builder(problem.graph);
  Value* x = add_input(problem, "x", {m, k});
  problem.graph.set_outputs({builder.value(Op::linear, {x, random_constant(builder, {n, k})})});
  problem.operations = 2.0 * m * n * k;
  return problem;
}

Problem make_convolution(const std::vector<int64_t>& sizes) {
  const int64_t b = sizes.at(0), h = sizes.at(1), w = sizes.at(2), c = sizes.at(3), o = sizes.at(4);
  const int64_t kernel = sizes.at(5), stride = sizes.at(6), padding = sizes.at(7),
                groups = sizes.at(8);
  using Ints = std::vector<int64_t>;
  Problem problem;
  kiln::ir::Builder builder(problem.graph);
  Value* x = add_input(problem, "x", {b, h, w, c});
  Value* weight = random_constant(builder, {o, kernel, kernel, c / groups});
  const kiln::ir::Attrs attrs{{"stride", Ints{stride, stride}},
                              {"padding_before", Ints{padding, padding}},
                              {"padding_after", Ints{padding, padding}},
                              {"dilation", Ints{1, 1}},
                              {"groups", groups},
                              {"layout", std::string("nhwc")}};
  problem.graph.set_outputs({builder.value(Op::convolution, {x, weight}, attrs)});
  const int64_t rows = (h + 2 * padding - kernel) / stride + 1,
                columns = (w + 2 * padding - kernel) / stride + 1;
  problem.operations = 2.0 * b * rows * columns * o * kernel * kernel * (c / groups);
  return problem;
}

// Heads as slices of one projection, [b, m, 3, heads, d], where there are as many keys as queries.
Problem make_attention(const std::vector<int64_t>& sizes) {
  const int64_t b = sizes.at(0), heads = sizes.at(1), m = sizes.at(2), n = sizes.at(3),
                d = sizes.at(4);
  Problem problem;
  kiln::ir::Builder builder(problem.graph);
  auto head = [&](const std::string& name, int64_t rows) {
    Value* x = add_input(problem, name, {b, rows, heads, d});
    return builder.permute(x, {0, 2, 1, 3});
  };
  Value *q = head("q", m), *k = head("k", n), *v = head("v", n);
  const kiln::ir::Attrs attrs{{"scale", 1 / std::sqrt(static_cast<double>(d))},
                              {"causal", sizes.at(5) != 0}};
  Value* result = builder.value(Op::attention, {q, k, v}, attrs);
  problem.graph.set_outputs({builder.permute(result, {0, 2, 1, 3})});
  problem.operations = 4.0 * b * heads * m * n * d;
  return problem;
}

Problem make_problem(const std::string& kind, const std::vector<int64_t>& sizes) {
  if (kind == "matmul") return make_matmul(sizes);
  if (kind == "convolution") return make_convolution(sizes);
  if (kind == "attention") return make_attention(sizes);
  std::fprintf(stderr, "[contraction] got %s, expected matmul, convolution or attention\n",
               kind.c_str());
  std::exit(2);
}

struct Tensor {
  std::vector<int64_t> shape;
  std::vector<float> data;
  kiln::runtime::TensorView view() { return {data.data(), DType::F32, shape, {}, {}}; }
};

Tensor random_tensor(const std::vector<int64_t>& shape) {
  Tensor tensor{shape, {}};
  int64_t elements = 1;
  for (int64_t size : shape) elements *= size;
  std::mt19937 generator(2);
  std::uniform_real_distribution<float> uniform(-1, 1);
  tensor.data.resize(static_cast<size_t>(elements));
  std::ranges::generate(tensor.data, [&] { return uniform(generator); });
  return tensor;
}

template <typename T>
T take(kiln::Result<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", result.status().message().c_str());
    std::exit(1);
  }
  return std::move(*result);
}

// Compiles, runs and prints.
void measure(const Options& options, const std::string& kind, const std::vector<int64_t>& sizes) {
  Problem problem = make_problem(kind, sizes);
  kiln::CompileOptions compile_options;
  if (!options.variant.empty()) compile_options.targets[0].variants = {options.variant};
  const std::vector<std::byte> engine_bytes =
      kiln::compile(std::move(problem.graph), compile_options);
  auto engine = take(kiln::runtime::Engine::load_memory(engine_bytes));
  auto session = take(kiln::runtime::Session::create(engine, {options.threads}));

  std::vector<Tensor> inputs;
  std::vector<kiln::runtime::TensorView> input_views;
  for (const auto& shape : problem.input_shapes) inputs.push_back(random_tensor(shape));
  for (Tensor& input : inputs) input_views.push_back(input.view());
  const auto bound = take(session->output_shapes(input_views))[0];
  Tensor output = random_tensor({bound.shape.begin(), bound.shape.end()});
  const std::vector<kiln::runtime::TensorView> output_views{output.view()};
  const double seconds = best_seconds(options, [&] {
    const kiln::Status status = session->run(input_views, output_views);
    if (!status.ok()) std::exit(1);
  });
  const double gflops = problem.operations / seconds * 1e-9;
  std::printf("%.4f ms %.1f GF/s %.0f %%\n", seconds * 1e3, gflops,
              100 * gflops / (ceiling_gflops(options) * options.threads));
  std::fflush(stdout);
}

std::vector<int64_t> numbers(std::istream& text) {
  std::vector<int64_t> sizes;
  for (int64_t size = 0; text >> size;) sizes.push_back(size);
  return sizes;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  std::vector<std::string> words(argv + 1, argv + argc);
  while (words.size() > 1 && words[0].starts_with("--")) {
    if (words[0] == "--variant") options.variant = words[1];
    if (words[0] == "--seconds") options.seconds = std::stod(words[1]);
    words.erase(words.begin(), words.begin() + 2);
  }
  if (words.size() < 2) {
    std::fprintf(stderr,
                 "usage: contraction [--variant NAME] [--seconds S] THREADS "
                 "matmul|convolution|attention SIZES... | -\n");
    return 2;
  }
  options.threads = std::stoi(words[0]);
  std::string lines;
  if (words[1] == "-") {
    lines.assign(std::istreambuf_iterator<char>(std::cin), {});
  } else {
    for (size_t i = 1; i < words.size(); ++i) lines += words[i] + " ";
  }
  std::istringstream problems(lines);
  for (std::string line; std::getline(problems, line);) {
    std::istringstream problem(line);
    std::string kind;
    problem >> kind;
    if (!kind.empty()) measure(options, kind, numbers(problem));
  }
  return 0;
}
