// Products of one row with weights that come from memory: how much of the read bandwidth they reach.
//
//   stream [--variant NAME] [--seconds S] [--megabytes M] THREADS FORMAT N K
//
// FORMAT: f32, bf16, int8, int4-32, int4-128 (int4 with groups, and scales of bf16). A chain of layers [N, K] and [K, N]
// with M megabytes of weights, 256 if nothing is said, takes turns with a loop that reads as many bytes with as many
// threads. Prints milliseconds, GB/s of both (the best of many turns) and the share.
#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include "compiler/driver.h"
#include "ir/builder.h"
#include "runtime/session.h"
#include "support/aligned_buffer.h"
#include "support/thread_pool.h"

namespace {

using kiln::DType;
using kiln::TaskRange;
using kiln::ir::Literal;
using kiln::ir::Op;
using kiln::ir::Value;

struct Options {
  std::string variant, format = "f32";
  double seconds = 2, megabytes = 256;
  int threads = 1;
  int64_t n = 2048, k = 2048;
  int64_t group() const { return format.starts_with("int4-") ? std::stoll(format.substr(5)) : 0; }
};

// One thread is timed by its CPU time, which other work on the machine disturbs less.
double now(int threads) {
  timespec time{};
  clock_gettime(threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Of one layer: weights and scales.
int64_t layer_bytes(const Options& options) {
  const int64_t elements = options.n * options.k;
  if (const int64_t group = options.group()) return elements / 2 + elements / group * 2;
  return elements * (options.format == "f32" ? 4 : options.format == "bf16" ? 2 : 1);
}

Value* constant(kiln::ir::Builder& builder, DType dtype, const std::vector<int64_t>& shape,
                double low, double high) {
  static std::mt19937 generator(1);
  std::byte* data = nullptr;
  Literal literal = Literal::allocate(dtype, shape, &data);
  std::vector<double> values(997);  // repeated: made quickly
  std::uniform_real_distribution<double> uniform(low, high);
  std::ranges::generate(values, [&] { return uniform(generator); });
  for (int64_t i = 0; i < literal.elements(); ++i) {
    const double value = values[static_cast<size_t>(i % 997)];
    if (kiln::is_floating(dtype))
      Literal::set(data, dtype, i, value);
    else
      Literal::set_int(data, dtype, i, static_cast<int64_t>(value));
  }
  return builder.constant(std::move(literal));
}

Value* weight(kiln::ir::Builder& builder, const Options& options, int64_t n, int64_t k) {
  if (options.format == "f32") return constant(builder, DType::F32, {n, k}, -0.1, 0.1);
  if (options.format == "bf16") return constant(builder, DType::BF16, {n, k}, -0.1, 0.1);
  const bool nibbles = options.group() != 0;
  const double high = nibbles ? 7.9 : 127;
  const std::vector<int64_t> scales = {n, nibbles ? k / options.group() : 1};
  return builder.value(Op::dequantize,
                       {constant(builder, DType::I8, {n, k}, -high, high),
                        constant(builder, nibbles ? DType::BF16 : DType::F32, scales, 0.001, 0.01)},
                       {{"dtype", DType::F32}});
}

kiln::ir::Graph make_graph(const Options& options, int layers) {
  kiln::ir::Graph graph;
  kiln::ir::Builder builder(graph);
  const DType dtype = options.format == "bf16" ? DType::BF16 : DType::F32;
  Value* x = graph.add_input("x", {dtype, {1, options.k}});
  for (int i = 0; i < layers; ++i) {
    const bool back = i % 2 == 1;
    Value* w = weight(builder, options, back ? options.k : options.n, back ? options.n : options.k);
    x = builder.value(Op::linear, {x, w});
  }
  graph.set_outputs({x});
  return graph;
}

__attribute__((target("avx2"))) int64_t read(const std::byte* from, int64_t bytes) {
  __m256i sums[4] = {};
  for (int64_t i = 0; i + 128 <= bytes; i += 128) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const auto* at = reinterpret_cast<const __m256i*>(from + i + 32 * j);
      sums[j] = _mm256_xor_si256(sums[j], _mm256_load_si256(at));
    }
  }
  const __m256i all =
      _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3]));
  return _mm256_extract_epi64(all, 0) ^ _mm256_extract_epi64(all, 3);
}

template <typename T>
T take(kiln::Result<T> result) {
  if (!result.ok()) {
    std::fprintf(stderr, "%s\n", result.status().message().c_str());
    std::exit(1);
  }
  return std::move(*result);
}

void measure(const Options& options) {
  const int64_t layer = layer_bytes(options);
  const int layers = std::max(2, static_cast<int>(options.megabytes * 1e6 / layer) / 2 * 2);
  const int64_t bytes = layer * layers;
  kiln::CompileOptions compile_options;
  if (!options.variant.empty()) compile_options.targets[0].variants = {options.variant};
  const std::vector<std::byte> file = kiln::compile(make_graph(options, layers), compile_options);
  auto engine = take(kiln::runtime::Engine::load_memory(file));
  auto session = take(kiln::runtime::Session::create(engine, {options.threads}));
  const DType dtype = options.format == "bf16" ? DType::BF16 : DType::F32;
  std::vector<std::byte> x(static_cast<size_t>(options.k) * 4), y(x.size());
  const std::vector<int64_t> shape = {1, options.k};
  const std::vector<kiln::runtime::TensorView> in{{x.data(), dtype, shape, {}, {}}},
      out{{y.data(), dtype, shape, {}, {}}};

  kiln::AlignedBuffer memory = take(kiln::AlignedBuffer::allocate(static_cast<size_t>(bytes)));
  std::memset(memory.data(), 1, static_cast<size_t>(bytes));
  kiln::ThreadPool pool;
  const int64_t parts = 64 * options.threads, part = bytes / parts / 64 * 64;
  std::atomic<int64_t> sink{0};
  double best = 1e9, best_read = 1e9;
  const double end = now(options.threads) + options.seconds;
  for (int turn = 0; turn < 3 || now(options.threads) < end; ++turn) {
    double start = now(options.threads);
    if (!session->run(in, out).ok()) std::exit(1);
    best = std::min(best, now(options.threads) - start);
    start = now(options.threads);
    pool.run(parts, options.threads, 1, [&](const TaskRange& range) {
      sink += read(memory.data() + range.begin * part, (range.end - range.begin) * part);
    });
    best_read = std::min(best_read, now(options.threads) - start);
  }
  std::printf("%s %ld x %ld, %d threads: %.3f ms %.1f GB/s, read %.1f GB/s, %.0f %%\n",
              options.format.c_str(), options.n, options.k, options.threads, best * 1e3,
              1e-9 * static_cast<double>(bytes) / best,
              1e-9 * static_cast<double>(bytes) / best_read, 100 * best_read / best);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  std::vector<std::string> words(argv + 1, argv + argc);
  while (words.size() > 1 && words[0].starts_with("--")) {
    if (words[0] == "--variant") options.variant = words[1];
    if (words[0] == "--seconds") options.seconds = std::stod(words[1]);
    if (words[0] == "--megabytes") options.megabytes = std::stod(words[1]);
    words.erase(words.begin(), words.begin() + 2);
  }
  if (words.size() != 4) {
    std::fprintf(
        stderr,
        "usage: stream [--variant NAME] [--seconds S] [--megabytes M] THREADS FORMAT N K\n");
    return 2;
  }
  options.threads = std::stoi(words[0]);
  options.format = words[1];
  options.n = std::stoll(words[2]);
  options.k = std::stoll(words[3]);
  measure(options);
  return 0;
}
