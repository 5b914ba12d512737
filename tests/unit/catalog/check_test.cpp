// SPDX-License-Identifier: Apache-2.0
// Files and directories as validate_files() sees them.
#include "agent/catalog/check.h"

#include <gtest/gtest.h>

#include <sys/stat.h>

#include <fmt/format.h>

#include "agent/catalog/files.h"
#include "agent/syntax/json.h"
#include "tests/unit/catalog/temp_dir.h"

namespace mesh::catalog {
namespace {

std::vector<std::string> text_of(const CheckReport& report) {
  std::vector<std::string> out;
  for (const auto& error : report.errors) out.push_back(error.to_string());
  return out;
}

TEST(Check, AcceptsFilesAndDirectories) {
  TempDir dir;
  dir.write("a.json", service_text("a", "10.0.0.1"));
  dir.write("b.json", service_text("b", "10.0.0.2"));
  dir.write(".c.json", "not read");
  dir.write("d.txt", "not read");
  std::filesystem::create_directory(dir.path("e.json"));
  auto report = validate_files({dir.path()});
  EXPECT_EQ(text_of(report), std::vector<std::string>{});
  EXPECT_EQ(report.services, 2u);
  EXPECT_EQ(report.instances, 2u);
  // A file that is named is read whatever its name.
  EXPECT_EQ(validate_files({dir.path("a.json")}).services, 1u);
  EXPECT_EQ(validate_files({dir.path("d.txt")}).errors.size(), 1u);
}

TEST(Check, FilesAreOneConfiguration) {
  TempDir dir;
  dir.write("a.json", service_text("a", "10.0.0.1"));
  dir.write("b.json", service_text("b", "10.0.0.1"));
  EXPECT_TRUE(validate_files({dir.path("a.json")}).errors.empty());
  EXPECT_TRUE(validate_files({dir.path("b.json")}).errors.empty());
  EXPECT_EQ(text_of(validate_files({dir.path("a.json"), dir.path("b.json")})),
            std::vector<std::string>{fmt::format(
                "{}:1:38: service.address: 10.0.0.1:80 is an instance of service \"a\" already at "
                "{}:1:38",
                dir.path("b.json"), dir.path("a.json"))});
}

TEST(Check, WhatCannotBeRead) {
  TempDir dir;
  ASSERT_EQ(::mkfifo(dir.path("fifo.json").c_str(), 0600), 0);
  std::filesystem::create_symlink("nowhere", dir.path("link.json"));
  EXPECT_EQ(text_of(validate_files({dir.path()})),
            (std::vector<std::string>{
                dir.path("fifo.json") + ": not a regular file",
                dir.path("link.json") + ": cannot open: No such file or directory"}));
  EXPECT_EQ(
      text_of(validate_files({dir.path("none")})),
      std::vector<std::string>{dir.path("none") + ": cannot open: No such file or directory"});
}

TEST(Check, BoundsFileSizeAndTotal) {
  TempDir dir;
  std::string big = "{\"services\": []}";
  big.resize(syntax::kMaxFileBytes, ' ');
  dir.write("big.json", big);
  EXPECT_TRUE(validate_files({dir.path("big.json")}).errors.empty());
  std::vector<std::string> nine(9, dir.path("big.json"));
  EXPECT_EQ(text_of(validate_files(nine)),
            std::vector<std::string>{dir.path("big.json") +
                                     ": all files together are larger than 64 MiB"});
  dir.write("big.json", big + " ");
  EXPECT_EQ(text_of(validate_files({dir.path("big.json")})),
            std::vector<std::string>{dir.path("big.json") + ": the file is larger than 8 MiB"});
}

TEST(Check, BoundsTheNumberOfFiles) {
  TempDir dir;
  for (std::size_t i = 0; i < kMaxFiles; ++i) dir.write(fmt::format("{}.json", i), "");
  auto listed = list_config_files(dir.path());
  ASSERT_TRUE(listed) << listed.error().what;
  EXPECT_EQ(listed->size(), kMaxFiles);
  dir.write("more.json", "");
  listed = list_config_files(dir.path());
  ASSERT_FALSE(listed);
  EXPECT_EQ(listed.error().what, "more than 10000 configuration files");
}

}  // namespace
}  // namespace mesh::catalog
