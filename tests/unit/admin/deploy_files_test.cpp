// SPDX-License-Identifier: Apache-2.0
// What scripts/deploy ships is at least well formed: systemd and a YAML parser read it.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

namespace mesh {
namespace {

namespace fs = std::filesystem;
const std::string kDir = MESH_DEPLOY_DIR;

bool have(const std::string& program) {
  return std::system(("command -v " + program + " >/dev/null 2>&1").c_str()) == 0;
}

// The exit status; what the command printed goes to `output`.
int run(const std::string& command, std::string& output) {
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return -1;
  char chunk[4096];
  while (std::size_t n = std::fread(chunk, 1, sizeof chunk, pipe)) output.append(chunk, n);
  return ::pclose(pipe);
}

// systemd-analyze wants the programs of the units to exist: a copy that names /bin/true is judged.
TEST(DeployFiles, SystemdAcceptsTheUnits) {
  if (!have("systemd-analyze")) GTEST_SKIP() << "systemd-analyze is not installed";
  std::string dir = (fs::temp_directory_path() / "mesh-units-XXXXXX").string();
  ASSERT_NE(::mkdtemp(dir.data()), nullptr);
  std::string output;
  const int status =
      run("cd " + dir +
              " && for unit in mesh-agent.service mesh-agent-guard.service; do"
              " sed 's,/usr/local/sbin/mesh-agent,/bin/true,' " +
              kDir +
              "/$unit >$unit || exit 1; done;"
              " systemd-analyze verify ./mesh-agent.service ./mesh-agent-guard.service",
          output);
  fs::remove_all(dir);
  EXPECT_EQ(status, 0) << output;
  // An unknown key or section is only a warning to systemd.
  EXPECT_EQ(output.find("mesh-agent"), std::string::npos) << output;
}

TEST(DeployFiles, YamlAndJsonAreWellFormed) {
  std::string output;
  EXPECT_EQ(run("python3 " + kDir + "/check_manifests.py " + kDir, output), 0) << output;
}

}  // namespace
}  // namespace mesh
