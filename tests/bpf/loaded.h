// SPDX-License-Identifier: Apache-2.0
// The programs of one test, loaded and attached to its cgroup, and their maps.
#pragma once

#include <memory>

#include "agent/bpf/datapath.h"
#include "tests/bpf/scratch.h"

namespace mesh::test {

class LoadedRun : public MeshRun {
 protected:
  void SetUp() override {
    MeshRun::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    auto programs = open();
    ASSERT_TRUE(programs) << programs.error().what;
    datapath_ = std::make_unique<bpf::Datapath>(std::move(*programs));
    ASSERT_TRUE(datapath_->policy.set({true, {}}));
  }
  void TearDown() override {
    datapath_.reset();
    MeshRun::TearDown();
  }

  std::unique_ptr<bpf::Datapath> datapath_;
};

}  // namespace mesh::test
