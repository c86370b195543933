// Constants that a load makes: numbers, shared memory, and what is refused.
#include "backends/cpu/device/made_constants.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "support/half.h"

namespace kiln::testing {
namespace {

using engine::BufferKind;
using engine::BufferSpec;
using engine::ProgramSpec;
using engine::WinogradSpec;
using Bytes = std::vector<std::byte>;

// Filters by output, channel and tap, as packed elements hold them.
struct Filters {
  Bytes packed;
  std::vector<double> values;  // [outputs][channels][9]
};

Filters make_filters(const WinogradSpec& w) {
  Filters filters;
  filters.packed.resize(static_cast<size_t>(engine::winograd_filter_bytes(w)));
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  const int64_t k_count = 9 * w.channels, step = w.filter_step;
  for (int64_t o = 0; o < w.outputs; ++o) {
    for (int64_t c = 0; c < w.channels; ++c) {
      for (int64_t tap = 0; tap < 9; ++tap) {
        const int64_t k = tap * w.channels + c, panel = o / w.filter_width;
        const int64_t at = panel * k_count * w.filter_width + k / step * step * w.filter_width +
                           o % w.filter_width * step + k % step;
        float value = normal(random);
        if (w.dtype == DType::F32) {
          std::memcpy(filters.packed.data() + at * 4, &value, 4);
        } else {
          const bool is_f16 = w.dtype == DType::F16;
          const uint16_t bits = is_f16 ? f32_to_f16(value) : f32_to_bf16(value);
          std::memcpy(filters.packed.data() + at * 2, &bits, 2);
          value = is_f16 ? f16_to_f32(bits) : bf16_to_f32(bits);
        }
        filters.values.push_back(static_cast<double>(value));
      }
    }
  }
  return filters;
}

// G by Lagrange: powers of a point over its differences from the others.
std::vector<std::array<double, 3>> matrix(int32_t results) {
  const double root = std::sqrt(2.0);
  const std::vector<double> points = results == 2
                                         ? std::vector<double>{0, 1, -1}
                                         : std::vector<double>{0, root, -root, 1 / root, -1 / root};
  std::vector<std::array<double, 3>> g;
  for (const double p : points) {
    double product = 1;
    for (const double q : points) product *= p == q ? 1 : p - q;
    g.push_back({1 / product, p / product, p * p / product});
  }
  if (results == 2) g[0][0] = -g[0][0];
  g.push_back({0, 0, 1});
  return g;
}

void expect_transformed(const WinogradSpec& w) {
  const Filters filters = make_filters(w);
  const auto size = static_cast<size_t>(engine::winograd_bytes(w));
  Bytes made(size + 64, std::byte{0x5a}), again(size + 64, std::byte{0x5a});
  cpu::make_winograd_filters(w, filters.packed.data(), made.data(), 1);
  cpu::make_winograd_filters(w, filters.packed.data(), again.data(), 3);
  EXPECT_EQ(made, again);
  EXPECT_TRUE(std::all_of(made.begin() + static_cast<std::ptrdiff_t>(size), made.end(),
                          [](std::byte b) { return b == std::byte{0x5a}; }));
  const auto g = matrix(w.results);
  const auto side = static_cast<int64_t>(g.size());
  const int64_t panels = (w.outputs + w.width - 1) / w.width;
  const auto* at = reinterpret_cast<const float*>(made.data());
  for (int64_t panel = 0; panel < panels; ++panel)
    for (int64_t point = 0; point < side * side; ++point)
      for (int64_t c = 0; c < w.channels; ++c)
        for (int64_t i = 0; i < w.width; ++i, ++at) {
          const int64_t o = panel * w.width + i;
          double expected = 0, magnitude = 0;
          for (size_t tap = 0; o < w.outputs && tap < 9; ++tap) {
            const double term = g[static_cast<size_t>(point / side)][tap / 3] *
                                g[static_cast<size_t>(point % side)][tap % 3] *
                                filters.values[static_cast<size_t>(o * w.channels + c) * 9 + tap];
            expected += term;
            magnitude += std::abs(term);
          }
          // Rounded once to f32.
          ASSERT_NEAR(*at, expected, std::abs(expected) * 6e-8 + magnitude * 1e-14)
              << "panel " << panel << ", point " << point << ", channel " << c << ", column " << i;
        }
}

TEST(MadeConstants, FiltersOfWinogradTiles) {
  for (const int32_t results : {2, 4}) {
    for (const DType dtype : {DType::F32, DType::F16, DType::BF16}) {
      expect_transformed({0, dtype, results, 5, 40, 16, 16, 1});
      expect_transformed({0, dtype, results, 3, 70, 48, 64, 1});
      expect_transformed({0, dtype, results, 20, 33, 64, 16, 1});
      expect_transformed({0, dtype, results, 1, 1, 1, 64, 1});
    }
    expect_transformed({0, DType::BF16, results, 6, 40, 48, 32, 2});
    expect_transformed({0, DType::BF16, results, 18, 64, 64, 64, 2});
  }
}

// A program with filters at these places of the weights, which are all made alike.
ProgramSpec make_program(const std::vector<uint64_t>& offsets, const WinogradSpec& winograd) {
  ProgramSpec program;
  program.target = "cpu";
  for (const uint64_t offset : offsets) {
    BufferSpec filters, made;
    filters.kind = made.kind = BufferKind::Constant;
    filters.offset = offset;
    filters.constant_bytes = static_cast<uint64_t>(engine::winograd_filter_bytes(winograd));
    made.winograd = winograd;
    made.winograd.filters = static_cast<int32_t>(program.buffers.size());
    made.constant_bytes = static_cast<uint64_t>(engine::winograd_bytes(winograd));
    program.buffers.insert(program.buffers.end(), {filters, made});
  }
  return program;
}

TEST(MadeConstants, WhatIsMadeAlikeOfOnePlaceIsMadeOnce) {
  const WinogradSpec winograd{0, DType::F32, 4, 2, 16, 16, 16, 1};
  const Bytes packed = make_filters(winograd).packed;
  Bytes weights(2 * packed.size(), std::byte{0});
  std::ranges::copy(packed, weights.begin());
  const ProgramSpec program = make_program({0, 0, packed.size()}, winograd);
  const auto made = cpu::MadeConstants::make(program, weights, false);
  ASSERT_TRUE(made.ok()) << made.status().message();
  EXPECT_EQ(made->of(1), made->of(3));
  EXPECT_NE(made->of(1), made->of(5));
  Bytes expected(static_cast<size_t>(engine::winograd_bytes(winograd)));
  cpu::make_winograd_filters(winograd, packed.data(), expected.data(), 1);
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), made->of(3)));
  const auto* zeros = reinterpret_cast<const float*>(made->of(5));
  EXPECT_TRUE(std::all_of(zeros, zeros + expected.size() / sizeof(float),
                          [](float value) { return value == 0; }));
}

TEST(MadeConstants, NothingIsMadeOfAStrippedEngine) {
  const auto made =
      cpu::MadeConstants::make(make_program({0}, {0, DType::F32, 4, 2, 16, 16, 16, 1}), {}, true);
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(made->of(1), nullptr);
}

// A small file cannot ask for much memory by naming the same filters in many ways.
TEST(MadeConstants, MemoryIsInProportionToTheWeights) {
  ProgramSpec program;
  const Bytes weights(static_cast<size_t>(9 * 64 * 2), std::byte{0});
  for (int32_t width = 1; width <= 64; ++width) {
    for (const DType dtype : {DType::F16, DType::BF16}) {
      const ProgramSpec part = make_program({0}, {0, dtype, 4, 1, 64, width, 64, 1});
      program.buffers.insert(program.buffers.end(), part.buffers.begin(), part.buffers.end());
      program.buffers.back().winograd.filters = static_cast<int32_t>(program.buffers.size()) - 2;
    }
  }
  const auto made = cpu::MadeConstants::make(program, weights, false);
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.status().code(), StatusCode::InvalidEngine);
  EXPECT_NE(made.status().message().find("of 1152 bytes of weights"), std::string::npos)
      << made.status().message();
}

}  // namespace
}  // namespace kiln::testing
