// SPDX-License-Identifier: Apache-2.0
// A pin directory and a cgroup of one test; both are gone when it ends.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "agent/bpf/programs.h"

namespace mesh::test {

class MeshRun : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      ASSERT_FALSE(std::getenv("MESH_REQUIRE_ROOT")) << "needs root";
      GTEST_SKIP() << "needs root";
    }
    std::ifstream mounts("/proc/self/mounts");
    std::string device, at, type;
    for (std::string line; std::getline(mounts, line) && mount_.empty();) {
      std::istringstream(line) >> device >> at >> type;
      if (type == "cgroup2") mount_ = at;
    }
    ASSERT_FALSE(mount_.empty()) << "no cgroup2 mount";
    const std::string name = "mt-run-" + std::to_string(::getpid());
    pins_ = "/sys/fs/bpf/" + name;
    cgroup_ = mount_ + "/" + name;
    std::filesystem::create_directory(cgroup_);
  }
  void TearDown() override {
    if (pins_.empty()) return;
    (void)bpf::Pins::cleanup(pins_);
    (void)::rmdir(cgroup_.c_str());
    EXPECT_FALSE(std::filesystem::exists(pins_)) << "pins were left";
  }

  Result<bpf::Programs> open() { return bpf::Programs::open({pins_, cgroup_, disable_tracing_}); }

  std::string mount_, pins_, cgroup_;
  bool disable_tracing_ = true;
};

}  // namespace mesh::test
