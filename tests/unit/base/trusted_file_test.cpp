// SPDX-License-Identifier: Apache-2.0
#include "agent/base/trusted_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace mesh {
namespace {

using ::testing::HasSubstr;

class TrustedFile : public ::testing::Test {
 protected:
  TrustedFile() { EXPECT_NE(::mkdtemp(dir_.data()), nullptr); }
  ~TrustedFile() override { std::filesystem::remove_all(dir_); }
  std::string file(const std::string& name, const std::string& text, mode_t mode) {
    const auto path = dir_ + "/" + name;
    std::ofstream(path) << text;
    EXPECT_EQ(::chmod(path.c_str(), mode), 0);
    return path;
  }
  static std::string trusted(const std::string& path) {
    auto text = read_trusted_file(path);
    return text ? *text : text.error().what;
  }
  static std::string secret(const std::string& path) {
    auto text = read_secret_file(path);
    return text ? std::string(text->view()) : text.error().what;
  }

  std::string dir_ = (std::filesystem::temp_directory_path() / "mesh-files-XXXXXX").string();
};

TEST_F(TrustedFile, NobodyElseMayWriteIt) {
  const auto path = file("trust.pem", "roots", 0644);
  EXPECT_EQ(trusted(path), "roots");
  for (const mode_t mode : {0664u, 0646u, 0620u, 0602u, 0666u}) {
    ASSERT_EQ(::chmod(path.c_str(), mode), 0);
    EXPECT_THAT(trusted(path), HasSubstr("run chmod go-w " + path)) << mode;
  }
  ASSERT_EQ(::chmod(path.c_str(), 0444), 0);
  EXPECT_EQ(trusted(path), "roots");
}

TEST_F(TrustedFile, NobodyElseMayReadASecret) {
  const auto path = file("node.key", "key", 0600);
  EXPECT_EQ(secret(path), "key");
  for (const mode_t mode : {0640u, 0604u, 0660u, 0601u, 0644u}) {
    ASSERT_EQ(::chmod(path.c_str(), mode), 0);
    EXPECT_THAT(secret(path), HasSubstr("run chmod 0600 " + path)) << mode;
  }
  ASSERT_EQ(::chmod(path.c_str(), 0400), 0);
  EXPECT_EQ(secret(path), "key");
}

// As kubelet lays out a Secret: links to links, whose own modes say nothing.
TEST_F(TrustedFile, WhatALinkLeadsToCounts) {
  std::filesystem::create_directory(dir_ + "/..2026_01_01");
  const auto path = file("..2026_01_01/node.key", "key", 0400);
  std::filesystem::create_directory_symlink("..2026_01_01", dir_ + "/..data");
  const auto link = dir_ + "/node.key";
  std::filesystem::create_symlink("..data/node.key", link);
  EXPECT_EQ(secret(link), "key");
  ASSERT_EQ(::chmod(path.c_str(), 0440), 0);
  EXPECT_THAT(secret(link), HasSubstr("run chmod 0600 " + link));
}

TEST_F(TrustedFile, AnotherUserMayNotOwnIt) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root gives files away";
  const auto path = file("trust.pem", "roots", 0600);
  ASSERT_EQ(::chown(path.c_str(), 65'534, 0), 0);
  EXPECT_THAT(trusted(path), HasSubstr("user 65534 owns it"));
  EXPECT_THAT(trusted(path), HasSubstr("run chown 0 " + path));
  EXPECT_THAT(secret(path), HasSubstr("run chown 0 " + path));
  ASSERT_EQ(::chown(dir_.c_str(), 65'534, 0), 0);
  EXPECT_THAT(check_trusted_directory(dir_).error().what, HasSubstr("run chown 0 " + dir_));
}

TEST_F(TrustedFile, DirectoriesToo) {
  EXPECT_TRUE(check_trusted_directory(dir_));
  ASSERT_EQ(::chmod(dir_.c_str(), 0777), 0);
  auto refused = check_trusted_directory(dir_);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().what, HasSubstr("run chmod go-w " + dir_));
  ASSERT_EQ(::chmod(dir_.c_str(), 0755), 0);
  EXPECT_TRUE(check_trusted_directory(dir_));
}

TEST_F(TrustedFile, OnlySmallRegularFiles) {
  EXPECT_THAT(trusted(dir_), HasSubstr("not a regular file"));
  EXPECT_THAT(trusted(dir_ + "/none"), HasSubstr("No such file"));
  ASSERT_EQ(::mkfifo((dir_ + "/fifo").c_str(), 0600), 0);
  EXPECT_THAT(secret(dir_ + "/fifo"), HasSubstr("not a regular file"));
  EXPECT_EQ(trusted(file("empty", "", 0600)), "");
  const std::string most(256 * 1024, 'x');
  EXPECT_TRUE(trusted(file("most", most, 0600)) == most);
  EXPECT_THAT(trusted(file("more", most + "x", 0600)), HasSubstr("larger than 256 KiB"));
}

// What is given back to it has to be zero.
struct Watching : std::allocator<char> {
  static inline std::size_t given_back = 0;
  static inline bool clean = true;
  void deallocate(char* at, std::size_t count) {
    given_back += count;
    clean = clean && std::all_of(at, at + count, [](char c) { return c == 0; });
    std::allocator<char>::deallocate(at, count);
  }
};

TEST(SecretText, IsWipedAlsoWhereItGrew) {
  {
    std::vector<char, WipingAllocator<char, Watching>> text(100, 'k');
    text.resize(10'000, 'k');
    EXPECT_GE(Watching::given_back, 100u);
  }
  EXPECT_GE(Watching::given_back, 10'100u);
  EXPECT_TRUE(Watching::clean);
}

TEST(SecretText, LeavesNothingWhereItWasMovedFrom) {
  SecretText from("k");
  const char* at = from.view().data();
  const SecretText to(std::move(from));
  EXPECT_EQ(to.view(), "k");
  EXPECT_EQ(to.view().data(), at) << "moved, not copied";
}

}  // namespace
}  // namespace mesh
