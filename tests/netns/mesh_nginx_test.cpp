// SPDX-License-Identifier: Apache-2.0
// nginx and curl on two nodes: the real programs that run in the guests, too.
#include "tests/netns/mesh_programs.h"

namespace mesh::test {
namespace {

using ::testing::HasSubstr;

TEST_F(MeshPrograms, NginxAndCurl) {
  Process nginx = start_nginx();
  const std::string body = a_->work_dir() + "/out";
  for (const auto& base : {"http://" + vip4("web"), "http://[" + vip6("web6") + "]"}) {
    EXPECT_EQ(expect_ok({"curl", "-sS", "-o", body, "-w", "%{http_code} ", base + "/page?[1-5]"}),
              "200 200 200 200 200 ");
    EXPECT_EQ(std::filesystem::file_size(body), 3000u);
    expect_ok({"curl", "-sS", "-o", body, base + "/large"});
    EXPECT_EQ(std::filesystem::file_size(body), large_);
    EXPECT_EQ(expect_ok({"curl", "-sS", "-o", body, "-w", "%{http_code}", "-d",
                         std::string(20'000, 'd'), base + "/page"}),
              "405");
  }
  // nginx knows the client by its own address.
  EXPECT_THAT(access_log(), HasSubstr(client_->addr4 + " 200 /page"));
  EXPECT_THAT(access_log(), HasSubstr(client_->addr6 + " 200 /page"));
  EXPECT_EQ(expect_ok({"curl", "-sS", "--http2-prior-knowledge", "-o", body, "-w",
                       "%{http_version}", "http://" + server_->addr4 + ":81/page"}),
            "2");
}

}  // namespace
}  // namespace mesh::test
