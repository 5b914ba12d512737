// SPDX-License-Identifier: Apache-2.0
#include "agent/syntax/go_integer.h"

#include <gtest/gtest.h>

#include <limits>

namespace mesh::syntax {
namespace {

std::optional<std::int64_t> value(std::string_view text) {
  const auto parsed = parse_go_integer(text);
  return parsed ? parsed->value() : std::nullopt;
}

TEST(GoInteger, HasTheBasesOfGo) {
  EXPECT_EQ(value("0"), 0);
  EXPECT_EQ(value("10"), 10);
  EXPECT_EQ(value("+10"), 10);
  EXPECT_EQ(value("-10"), -10);
  EXPECT_EQ(value("0x1F"), 31);
  EXPECT_EQ(value("-0X1f"), -31);
  EXPECT_EQ(value("0b101"), 5);
  EXPECT_EQ(value("0o17"), 15);
  EXPECT_EQ(value("017"), 15);
}

TEST(GoInteger, IsNothingElse) {
  for (const auto* text : {"", "-", "+", "0x", "0b2", "0o8", "08", "1 ", " 1", "1.0", "1_000",
                           "--1", "+-1", "x", "0x-1", "18446744073709551616"})
    EXPECT_FALSE(parse_go_integer(text)) << text;
}

TEST(GoInteger, KnowsItsLimits) {
  EXPECT_EQ(value("9223372036854775807"), std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(value("-9223372036854775808"), std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(value("9223372036854775808"), std::nullopt);
  EXPECT_EQ(value("-9223372036854775809"), std::nullopt);
  const auto large = parse_go_integer("18446744073709551615");
  ASSERT_TRUE(large);
  EXPECT_EQ(large->magnitude, std::numeric_limits<std::uint64_t>::max());
  EXPECT_FALSE(large->signed_text);
  EXPECT_TRUE(parse_go_integer("+1")->signed_text);
}

}  // namespace
}  // namespace mesh::syntax
