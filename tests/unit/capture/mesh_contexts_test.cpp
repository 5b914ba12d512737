// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/mesh_contexts.h"

#include <gtest/gtest.h>

#include "tests/support/certs.h"

namespace mesh::capture {
namespace {

class MeshContextsTest : public ::testing::Test {
 protected:
  MeshContextsTest() {
    identities_->set_bundle(mesh_.bundle());
    identities_->put("web", mesh_.svid("web"));
  }
  ktls::ContextPtr find() { return contexts_.find("web").value_or(nullptr); }

  test::TestMesh mesh_;
  std::shared_ptr<identity::Directory> identities_ = std::make_shared<identity::Directory>();
  std::shared_ptr<ktls::PskStore> psks_ = std::make_shared<ktls::PskStore>();
  MeshContexts contexts_{identities_, psks_, {}};
};

TEST_F(MeshContextsTest, AContextServesForAsLongAsNothingChanges) {
  const auto first = find();
  ASSERT_TRUE(first);
  EXPECT_EQ(find(), first);
  identities_->put("web", mesh_.svid("web"));
  const auto renewed = find();
  EXPECT_NE(renewed, first);
  identities_->remove("web");
  EXPECT_FALSE(find());
}

// It may have been made of the new roots before the epoch rose, and would keep no PSK for as long
// as its SVID lasts.
TEST_F(MeshContextsTest, AContextOfAnOldEpochIsMadeAgain) {
  const auto first = find();
  psks_->new_epoch();
  const auto second = find();
  ASSERT_TRUE(second);
  EXPECT_NE(second, first);
  EXPECT_EQ(find(), second);
}

TEST_F(MeshContextsTest, TrustsWhoeverHasARootOfNow) {
  const test::TestMesh other;
  ktls::Peer peer;
  EXPECT_FALSE(contexts_.trusts(peer));
  peer.root = mesh_.bundle()->ids.at(0);
  EXPECT_TRUE(contexts_.trusts(peer));
  identities_->set_bundle(test::bundle_of(mesh_.trust_domain(), {&mesh_.root(), &other.root()}));
  EXPECT_TRUE(contexts_.trusts(peer)) << "one more root";
  identities_->set_bundle(other.bundle());
  EXPECT_FALSE(contexts_.trusts(peer));
}

}  // namespace
}  // namespace mesh::capture
