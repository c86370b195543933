#include "import/operand.h"

#include <gtest/gtest.h>

#include "ir/graph.h"

namespace kiln::import {
namespace {

TEST(OperandTest, PromotesPairsOfTypes) {
  EXPECT_EQ(promote_types(DType::F16, DType::BF16), DType::F32);
  EXPECT_EQ(promote_types(DType::I64, DType::F16), DType::F16);
  EXPECT_EQ(promote_types(DType::U8, DType::I8), DType::I16);
  EXPECT_EQ(promote_types(DType::U8, DType::I32), DType::I32);
  EXPECT_EQ(promote_types(DType::Bool, DType::I8), DType::I8);
  EXPECT_EQ(promote_types(DType::F32, DType::F64), DType::F64);
}

class ResultTypeTest : public testing::Test {
 protected:
  Operand tensor(DType dtype) { return graph_.add_input("x", {dtype, {ir::Dim(3)}}); }
  Operand zero_dim(DType dtype) { return graph_.add_input("x", {dtype, {}}); }
  Operand number(double value) { return Number(value); }
  Operand number(int64_t value) { return Number(value); }
  DType result(std::vector<Operand> operands) { return result_type(operands); }

  ir::Graph graph_;
};

TEST_F(ResultTypeTest, NumbersOnlyRaiseTheCategory) {
  EXPECT_EQ(result({tensor(DType::F16), number(2.5)}), DType::F16);
  EXPECT_EQ(result({tensor(DType::I8), number(int64_t{1000})}), DType::I8);
  EXPECT_EQ(result({tensor(DType::I32), number(2.5)}), DType::F32);
  EXPECT_EQ(result({tensor(DType::Bool), number(int64_t{1})}), DType::I64);
  EXPECT_EQ(result({tensor(DType::Bool), Number(true)}), DType::Bool);
}

TEST_F(ResultTypeTest, TensorsWithoutAxesOnlyRaiseTheCategory) {
  EXPECT_EQ(result({tensor(DType::F16), zero_dim(DType::F64)}), DType::F16);
  EXPECT_EQ(result({tensor(DType::I32), zero_dim(DType::I64)}), DType::I32);
  EXPECT_EQ(result({tensor(DType::I32), zero_dim(DType::F64)}), DType::F64);
  EXPECT_EQ(result({zero_dim(DType::I32), number(2.5)}), DType::F32);
  EXPECT_EQ(result({zero_dim(DType::F64), number(2.5)}), DType::F64);
}

TEST_F(ResultTypeTest, FloatingResultsDefaultToF32) {
  const std::vector<Operand> integers{tensor(DType::I64), number(int64_t{2})};
  EXPECT_EQ(floating_result_type(integers), DType::F32);
  const std::vector<Operand> halves{tensor(DType::BF16), number(int64_t{2})};
  EXPECT_EQ(floating_result_type(halves), DType::BF16);
}

}  // namespace
}  // namespace kiln::import
