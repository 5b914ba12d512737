// SPDX-License-Identifier: Apache-2.0
#include "agent/store/address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>

#include "agent/store/tls.h"

namespace mesh::store {
namespace {

using ::testing::HasSubstr;

TEST(StoreAddress, ReadsEveryForm) {
  auto one = parse_store("etcd://h1");
  ASSERT_TRUE(one) << one.error().what;
  EXPECT_FALSE(one->tls);
  EXPECT_EQ(one->endpoints, (std::vector<StoreEndpoint>{{"h1", "2379"}}));
  auto many = parse_store("etcds://h1.example:1,10.0.0.1,[fd00::1]:3,[::1]");
  ASSERT_TRUE(many) << many.error().what;
  EXPECT_TRUE(many->tls);
  EXPECT_EQ(many->endpoints,
            (std::vector<StoreEndpoint>{
                {"h1.example", "1"}, {"10.0.0.1", "2379"}, {"fd00::1", "3"}, {"::1", "2379"}}));
  EXPECT_EQ(many->endpoints[2].to_string(), "[fd00::1]:3");
}

TEST(StoreAddress, RefusesWhatItCannotMean) {
  for (const char* text : {"", "h1:1", "http://h1", "etcd://", "etcd://h1,", "etcd://,h1",
                           "etcd://h1:0", "etcd://h1:65536", "etcd://h1:x", "etcd://h1:",
                           "etcd://fd00::1", "etcd://[fd00::1", "etcd://[h1]:1", "etcd://[::1]x",
                           "etcd://h 1", "etcd://h1/path", "etcd://u:p@h1", "etcd://h1:1,h1:1"})
    EXPECT_FALSE(parse_store(text)) << text;
}

TEST(StoreAddress, PairsWhatGoesTogether) {
  const auto plain = *parse_store("etcd://h");
  const auto secure = *parse_store("etcds://h");
  EXPECT_TRUE(check_access(plain, {}));
  EXPECT_TRUE(check_access(secure, {"ca", "cert", "key", "user", "file"}));
  EXPECT_FALSE(check_access(plain, {"ca", "", "", "", ""}));
  EXPECT_FALSE(check_access(secure, {"", "cert", "", "", ""}));
  EXPECT_FALSE(check_access(secure, {"", "", "key", "", ""}));
  EXPECT_FALSE(check_access(secure, {"", "", "", "user", ""}));
  EXPECT_FALSE(check_access(secure, {"", "", "", "", "file"}));
}

TEST(StoreAddress, ReadsThePasswordAndNamesTheFileThatIsWrong) {
  char name[] = "/tmp/mesh-password-XXXXXX";
  ::close(::mkstemp(name));
  EXPECT_FALSE(read_password(name));
  std::ofstream(name) << "pass word\r\nmore\n";
  EXPECT_EQ(*read_password(name), "pass word");
  auto tls = make_tls({name, "", "", "", ""});
  ASSERT_FALSE(tls);
  EXPECT_THAT(tls.error().what, HasSubstr(name));
  ::unlink(name);
  EXPECT_FALSE(read_password(name));
}

}  // namespace
}  // namespace mesh::store
