// SPDX-License-Identifier: Apache-2.0
// Durations as Go reads and refuses them.
#include "agent/syntax/duration.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>

namespace mesh::syntax {
namespace {

struct Case {
  std::string text;
  std::int64_t nanoseconds;
};

TEST(Duration, ReadsWhatGoReads) {
  const Case cases[] = {
      {"0", 0},
      {"+0", 0},
      {"-0", 0},
      {"0s", 0},
      {"1s", 1'000'000'000},
      {"-1s", -1'000'000'000},
      {"+1s", 1'000'000'000},
      {"15s", 15'000'000'000},
      {"1m30s", 90'000'000'000},
      {"1.5h", 5'400'000'000'000},
      {".5s", 500'000'000},
      {"5.s", 5'000'000'000},
      {"100us", 100'000},
      {"100\xc2\xb5s", 100'000},
      {"100\xce\xbcs", 100'000},
      {"3ms4ns", 3'000'004},
      {"1h1h", 7'200'000'000'000},
      {"0.1s", 100'000'000},
      {"0.3h", 1'080'000'000'000},
      {"0.000000001s", 1},
      {"0.0000000009s", 0},
      {"0.1000000000000000000000000000000000001s", 100'000'000},
      {"0.33333333333333333333h", 1'200'000'000'000 - 1},
      {"9223372036854775807ns", std::numeric_limits<std::int64_t>::max()},
      {"-9223372036854775808ns", std::numeric_limits<std::int64_t>::min()},
      {"9223372036s854775807ns", std::numeric_limits<std::int64_t>::max()},
  };
  for (const auto& c : cases) {
    auto parsed = parse_duration(c.text);
    ASSERT_TRUE(parsed) << c.text << ": " << parsed.error().what;
    EXPECT_EQ(parsed->count(), c.nanoseconds) << c.text;
  }
}

TEST(Duration, RefusesWhatGoRefuses) {
  const std::string cases[] = {"",
                               "3",
                               "-",
                               "+",
                               "s",
                               ".",
                               ".s",
                               "1",
                               "1.5",
                               "1d",
                               "1S",
                               "1 s",
                               " 1s",
                               "1s ",
                               "1s1",
                               "--1s",
                               "1s-1s",
                               "1e3s",
                               "1x",
                               "1,5s",
                               "0x1s",
                               "1\xc2s",
                               "3000000h",
                               "9223372036854775808ns",
                               "-9223372036854775809ns",
                               "2562047h48m",
                               "1.1.1s",
                               "9223372036854775807s",
                               "9223372036854775808ns9223372036854775808ns",
                               "99999999999999999999999999s"};
  for (const auto& text : cases) {
    auto parsed = parse_duration(text);
    ASSERT_FALSE(parsed) << text << " is " << parsed->count();
    EXPECT_NE(parsed.error().what.find("expected a duration"), std::string::npos);
  }
}

TEST(Duration, TheMessageIsBounded) {
  auto parsed = parse_duration(std::string(100'000, '\n'));
  ASSERT_FALSE(parsed);
  EXPECT_LT(parsed.error().what.size(), 512U);
}

}  // namespace
}  // namespace mesh::syntax
