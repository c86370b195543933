// Which nests of several stores get blocks for each of them: programs that no pass makes, so that they are not
// among nests/*.txt.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "cuda/kernels.h"
#include "plan/form/access.h"

namespace kiln::test {
namespace {

using ir::Dim;
using plan::BufferId;
using plan::BufferKind;

constexpr int64_t kElements = 4096;

class PieceNest : public testing::Test {
 protected:
  BufferId add_buffer(BufferKind kind, BufferId alias_of = -1) {
    plan::Buffer buffer;
    buffer.kind = kind;
    buffer.type = {DType::F32, ir::Shape{kElements}};
    buffer.alias_of = alias_of;
    return program_.add_buffer(buffer);
  }

  // For every point of a loop of its own: to[j] = op(from[j]).
  static plan::Stage store(BufferId to, ir::Op op, BufferId from) {
    const plan::Loop loop = plan::make_loop("j", kElements);
    const Dim at(loop.index);
    return plan::Store{
        to, {loop}, {at}, plan::apply(op, {plan::load_at(from, DType::F32, {at})}), {}};
  }

  // Whether the stores have blocks of their own, of which there are as many as their points take.
  bool is_in_pieces(std::vector<plan::Stage> stages) {
    plan::Kernel kernel;
    kernel.name = "stores";
    const size_t stores = stages.size();
    kernel.body = plan::LoopNest{{}, std::move(stages)};
    const cuda::KernelText made = generate_text(program_, kernel, target_named("sm_90"));
    const bool apart = made.text.find("blockIdx.x >= ") != std::string::npos;
    const auto& interface = made.kernel.interface;
    const Dim threads = interface.grid.at(0) * interface.block.at(0);
    EXPECT_EQ(apart, threads == Dim(kElements) * static_cast<int64_t>(stores)) << made.text;
    return apart;
  }

  plan::Program program_;
};

TEST_F(PieceNest, StoresOfMemoryOfTheirOwnRunSideBySide) {
  const BufferId x = add_buffer(BufferKind::Temporary), y = add_buffer(BufferKind::Temporary),
                 z = add_buffer(BufferKind::Temporary);
  EXPECT_TRUE(is_in_pieces({store(y, ir::Op::exp, x), store(z, ir::Op::neg, x)}));
}

TEST_F(PieceNest, AStoreInPlaceOfWhatAnotherReadsComesBehindIt) {
  const BufferId x = add_buffer(BufferKind::Temporary), y = add_buffer(BufferKind::Temporary),
                 z = add_buffer(BufferKind::Temporary, x);
  EXPECT_FALSE(is_in_pieces({store(y, ir::Op::exp, x), store(z, ir::Op::neg, x)}));
  // Or in place of what is in place of it, or beside it.
  const BufferId again = add_buffer(BufferKind::Temporary, z);
  EXPECT_FALSE(is_in_pieces({store(y, ir::Op::exp, x), store(again, ir::Op::neg, y)}));
  EXPECT_FALSE(is_in_pieces({store(y, ir::Op::exp, z), store(again, ir::Op::neg, y)}));
}

TEST_F(PieceNest, AnOutputThatUpdatesAnInputComesBehindWhatReadsIt) {
  const BufferId x = add_buffer(BufferKind::Input), y = add_buffer(BufferKind::Output),
                 z = add_buffer(BufferKind::Input);
  const BufferId updated = add_buffer(BufferKind::Output, x);
  EXPECT_FALSE(is_in_pieces({store(y, ir::Op::exp, x), store(updated, ir::Op::neg, z)}));
  EXPECT_TRUE(is_in_pieces({store(y, ir::Op::exp, z), store(updated, ir::Op::neg, z)}));
}

TEST_F(PieceNest, WhatAStoreReadsOfAnotherComesBehindIt) {
  const BufferId x = add_buffer(BufferKind::Temporary), y = add_buffer(BufferKind::Temporary),
                 z = add_buffer(BufferKind::Temporary);
  EXPECT_FALSE(is_in_pieces({store(y, ir::Op::exp, x), store(z, ir::Op::neg, y)}));
}

}  // namespace
}  // namespace kiln::test
