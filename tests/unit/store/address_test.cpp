// SPDX-License-Identifier: Apache-2.0
#include "agent/store/address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
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
  ASSERT_EQ(::chmod(name, 0640), 0);
  auto readable = read_password(name);
  ASSERT_FALSE(readable);
  EXPECT_THAT(readable.error().what, HasSubstr(std::string("chmod 0600 ") + name));
  ::unlink(name);
  EXPECT_FALSE(read_password(name));
}

TEST(StoreAddress, TakesCertificatesAndKeysThatAreNobodyElses) {
  char dir[] = "/tmp/mesh-store-tls-XXXXXX";
  ASSERT_NE(::mkdtemp(dir), nullptr);
  const std::string cert = std::string(dir) + "/cert.pem";
  const std::string key = std::string(dir) + "/key.pem";
  ASSERT_EQ(std::system(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
                         "-days 2 -subj /CN=n -keyout " +
                         key + " -out " + cert + " 2>/dev/null")
                            .c_str()),
            0);
  const auto error = [&] {
    auto tls = make_tls({cert, cert, key, "", ""});
    return tls ? std::string("made") : tls.error().what;
  };
  ASSERT_EQ(::chmod(cert.c_str(), 0644), 0);
  ASSERT_EQ(::chmod(key.c_str(), 0600), 0);
  EXPECT_EQ(error(), "made");
  ASSERT_EQ(::chmod(key.c_str(), 0640), 0);
  EXPECT_THAT(error(), HasSubstr("--store-key-file: " + key));
  EXPECT_THAT(error(), HasSubstr("chmod 0600 " + key));
  ASSERT_EQ(::chmod(key.c_str(), 0400), 0);
  EXPECT_EQ(error(), "made");
  ASSERT_EQ(::chmod(cert.c_str(), 0664), 0);
  EXPECT_THAT(error(), HasSubstr("--store-ca-file: " + cert));
  EXPECT_THAT(error(), HasSubstr("chmod go-w " + cert));
  auto own = make_tls({"", cert, key, "", ""});
  ASSERT_FALSE(own);
  EXPECT_THAT(own.error().what, HasSubstr("--store-cert-file: " + cert));
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace mesh::store
