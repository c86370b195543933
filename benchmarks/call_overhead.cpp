// What the runtime itself costs: calls of an engine that adds four numbers, and loading an engine
// of 90 MB. Usage: call_overhead [calls]
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "engine/sample_engine.h"
#include "engine/writer.h"
#include "kiln/kiln.hpp"

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kLargeBytes = 90'000'000;

double median_us(int repeats, int calls, const std::function<void()>& call) {
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    const auto start = Clock::now();
    for (int j = 0; j < calls; ++j) call();
    const std::chrono::duration<double, std::micro> time = Clock::now() - start;
    times.push_back(time.count() / calls);
  }
  std::ranges::nth_element(times, times.begin() + repeats / 2);
  return times[static_cast<size_t>(repeats / 2)];
}

double resident_mb() {
  std::ifstream file("/proc/self/statm");
  double total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1e6;
}

void measure_calls(int calls) {
  const std::vector<std::byte> bytes = kiln::testing::make_add_engine().bytes();
  const kiln::Engine engine = kiln::Engine::load_memory(bytes);
  kiln::Session session(engine, 1);
  std::vector<float> x(32 * 4, 1), y(32 * 4, 2), out(32 * 4);

  const kiln::Tensor a(x.data(), {1, 4}), b(y.data(), {1, 4}), c(out.data(), {1, 4});
  const std::vector<kiln_tensor> inputs = {a.view(), b.view()};
  std::vector<kiln_tensor> outputs = {c.view()};
  std::printf("call, views kept          %8.3f us\n",
              median_us(11, calls, [&] { session.run(inputs, outputs); }));
  std::printf("call, views made          %8.3f us\n", median_us(11, calls, [&] {
                session.run({kiln::Tensor(x.data(), {1, 4}), kiln::Tensor(y.data(), {1, 4})},
                            {kiln::Tensor(out.data(), {1, 4})});
              }));

  int64_t batch = 0;
  std::printf(
      "call, shapes alternating  %8.3f us\n", median_us(11, calls, [&] {
        batch = batch % 16 + 1;
        const int64_t shape[] = {batch, 4};
        kiln_tensor in[] = {{sizeof(kiln_tensor), x.data(), KILN_F32, 2, shape, nullptr, {}},
                            {sizeof(kiln_tensor), y.data(), KILN_F32, 2, shape, nullptr, {}}};
        kiln_tensor to[] = {{sizeof(kiln_tensor), out.data(), KILN_F32, 2, shape, nullptr, {}}};
        session.run(std::span<const kiln_tensor>(in), std::span<const kiln_tensor>(to));
      }));

  kiln::Session threaded(engine, 2);
  const kiln::Tensor d(x.data(), {32, 4}), e(y.data(), {32, 4}), f(out.data(), {32, 4});
  const std::vector<kiln_tensor> wide_inputs = {d.view(), e.view()};
  std::vector<kiln_tensor> wide_outputs = {f.view()};
  std::printf("call, two threads         %8.3f us\n",
              median_us(11, calls / 10, [&] { threaded.run(wide_inputs, wide_outputs); }));
}

void measure_load() {
  kiln::testing::SampleEngine sample = kiln::testing::make_add_engine();
  std::vector<std::byte> weights(kLargeBytes);
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<std::byte>(i * 31);
  kiln::testing::add_constant(sample, weights);
  const std::string path = "/tmp/kiln_call_overhead_" + std::to_string(getpid()) + ".kiln";
  const auto start = Clock::now();
  if (!kiln::engine::write_file(sample.spec, sample.constants(), path).ok()) std::exit(1);
  const std::chrono::duration<double, std::milli> save = Clock::now() - start;
  sample.contents.clear();
  std::printf("save, 90 MB, synced       %8.3f ms\n", save.count());

  const double before = resident_mb();
  const kiln::Engine engine = kiln::Engine::load_file(path);
  std::printf("load, 90 MB: resident     %+8.3f MB\n", resident_mb() - before);
  std::printf("load, 90 MB               %8.3f ms\n",
              median_us(21, 1, [&] { (void)kiln::Engine::load_file(path); }) / 1000);
  std::printf("load, weights verified    %8.3f ms\n", median_us(5, 1, [&] {
                                                        (void)kiln::Engine::load_file(
                                                            path, {.verify_weights = true});
                                                      }) / 1000);
  std::remove(path.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  const int calls = argc > 1 ? std::atoi(argv[1]) : 100000;
  measure_calls(std::max(calls, 10));
  measure_load();
  return 0;
}
