// SPDX-License-Identifier: Apache-2.0
#include "agent/heart.h"

#include <gmock/gmock.h>

#include <atomic>

namespace mesh {
namespace {

using namespace std::chrono_literals;

class HeartTest : public ::testing::Test {
 protected:
  // Until so many beats have been seen in all.
  [[nodiscard]] bool reaches(int beats) const {
    for (int i = 0; i < 500 && beats_ < beats; ++i) std::this_thread::sleep_for(10ms);
    return beats_ >= beats;
  }
  // Longer than two beats are apart.
  [[nodiscard]] bool is_still() const {
    const int before = beats_;
    std::this_thread::sleep_for(3 * Heart::kBeat);
    return beats_ == before;
  }

  std::atomic<int> beats_{0};
  std::atomic<bool> works_{true};
  std::function<Status()> beat_ = [this]() -> Status {
    ++beats_;
    if (!works_) return fail("the map is gone");
    return {};
  };
};

TEST_F(HeartTest, DoesNotBeatBeforeSomebodyIsHeard) {
  Heart heart(beat_);
  EXPECT_TRUE(is_still());
  EXPECT_EQ(beats_, 0);
  heart.heard();
  EXPECT_EQ(beats_, 1);
}

TEST_F(HeartTest, BeatsOnItsOwnWhileSomebodyIsBusy) {
  Heart heart(beat_);
  heart.heard();
  EXPECT_TRUE(reaches(4));
}

TEST_F(HeartTest, StopsWhenNobodyIsHeardForTooLongAndGoesOnAfterwards) {
  Heart heart(beat_, 300ms);
  heart.heard();
  std::this_thread::sleep_for(1s);
  EXPECT_GT(beats_, 1);
  EXPECT_TRUE(is_still());
  const int before = beats_;
  heart.heard();
  EXPECT_TRUE(reaches(before + 2));
}

TEST_F(HeartTest, AfterStopNothingBeatsUntilSomebodyIsHeard) {
  Heart heart(beat_);
  heart.heard();
  heart.stop();
  EXPECT_TRUE(is_still());
  const int before = beats_;
  heart.heard();
  EXPECT_TRUE(reaches(before + 2));
}

TEST_F(HeartTest, ABeatThatFailsIsTriedAgain) {
  Heart heart(beat_);
  works_ = false;
  heart.heard();
  EXPECT_TRUE(reaches(3));
}

}  // namespace
}  // namespace mesh
