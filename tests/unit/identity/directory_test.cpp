// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/directory.h"

#include <atomic>
#include <thread>

#include "tests/unit/identity/fixture.h"

namespace mesh::identity {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class DirectoryTest : public ::testing::Test {
 protected:
  test::TestMesh mesh;
  Directory directory;
  std::vector<std::string> asked;
  std::vector<std::string> answers;

  void listen() {
    directory.on_demand([this](const std::string& service) { asked.push_back(service); });
  }
  void request(const std::string& service) {
    directory.request(service, [this](Result<Identity> identity) {
      answers.push_back(identity ? identity->svid->id.uri() : identity.error().what);
    });
  }
};

TEST_F(DirectoryTest, GivesSvidBundleAndEpochTogether) {
  EXPECT_FALSE(directory.find("web").svid);
  EXPECT_FALSE(directory.find("web").bundle);
  EXPECT_EQ(directory.epoch(), 0u);
  directory.set_bundle(mesh.bundle());
  const auto svid = mesh.svid("web");
  directory.put("web", svid);
  const auto identity = directory.find("web");
  EXPECT_EQ(identity.svid, svid);
  EXPECT_EQ(identity.bundle, mesh.bundle());
  EXPECT_EQ(identity.epoch, 1u);
  EXPECT_EQ(directory.size(), 1u);
  directory.set_bundle(test::TestMesh().bundle());
  EXPECT_EQ(directory.find("web").epoch, 2u);
  EXPECT_EQ(directory.epoch(), 2u);
  directory.remove("web");
  EXPECT_FALSE(directory.find("web").svid);
  EXPECT_TRUE(directory.find("web").bundle);
}

TEST_F(DirectoryTest, AsksOnceForManyRequestsOfAService) {
  listen();
  request("web");
  request("web");
  request("db");
  EXPECT_THAT(asked, ElementsAre("web", "db"));
  EXPECT_TRUE(answers.empty());
  directory.put("web", mesh.svid("web"));
  EXPECT_THAT(answers, ElementsAre(mesh.uri("web"), mesh.uri("web")));
  directory.refuse("db", Error{{}, "db: no"});
  EXPECT_EQ(answers.size(), 3u);
  EXPECT_EQ(answers[2], "db: no");
  request("web");
  EXPECT_EQ(answers.size(), 4u) << "at once";
  EXPECT_EQ(asked.size(), 2u);
  request("db");
  EXPECT_EQ(asked.size(), 3u) << "a refusal is not remembered here";
}

TEST_F(DirectoryTest, RefusesWithoutASource) {
  request("web");
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_THAT(answers[0], HasSubstr("no source"));
}

TEST_F(DirectoryTest, WaitingIsBounded) {
  listen();
  for (std::size_t i = 0; i < kMaxWaiting; ++i) request(i % 2 == 0 ? "a" : "b");
  EXPECT_TRUE(answers.empty());
  request("a");
  request("c");
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_THAT(answers[1], HasSubstr("too many"));
  directory.refuse("a", Error{{}, "no"});
  EXPECT_EQ(answers.size(), 2 + kMaxWaiting / 2);
  request("c");
  EXPECT_EQ(answers.size(), 2 + kMaxWaiting / 2) << "there is room again";
  directory.refuse_all(Error{{}, "no"});
  EXPECT_EQ(answers.size(), 3 + kMaxWaiting);
}

TEST_F(DirectoryTest, ManyThreadsReadWhileOneWrites) {
  const std::vector<ktls::SvidPtr> svids{mesh.svid("web"), mesh.svid("web")};
  const std::vector<ktls::TrustBundlePtr> bundles{mesh.bundle(), test::TestMesh().bundle()};
  directory.set_bundle(bundles[1]);  // epoch 1: every odd epoch has this one
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> wrong{0};
  std::atomic<std::uint64_t> answered{0};
  listen();
  std::vector<std::thread> readers;
  for (int i = 0; i < 4; ++i)
    readers.emplace_back([&] {
      std::uint64_t last = 0;
      while (!stop) {
        const auto identity = directory.find("web");
        if (identity.bundle != bundles[identity.epoch % 2] || identity.epoch < last) ++wrong;
        last = identity.epoch;
      }
    });
  for (int i = 0; i < 2000; ++i) {
    directory.put("web", svids[static_cast<std::size_t>(i % 2)]);
    directory.set_bundle(bundles[static_cast<std::size_t>(i % 2)]);
    directory.remove("web");
    directory.request("web", [&](Result<Identity>) { ++answered; });
  }
  stop = true;
  for (auto& reader : readers) reader.join();
  directory.refuse_all(Error{{}, "end"});
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(answered, 2000u);
}

}  // namespace
}  // namespace mesh::identity
