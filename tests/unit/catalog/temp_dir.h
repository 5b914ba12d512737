// SPDX-License-Identifier: Apache-2.0
// A directory that is gone after the test.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace mesh::catalog {

class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "mesh-catalog-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) std::abort();
    path_ = pattern;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;  // a leftover directory does no harm
    std::filesystem::remove_all(path_, ignored);
  }

  [[nodiscard]] std::string path(std::string_view name = "") const {
    return name.empty() ? path_.string() : (path_ / name).string();
  }
  void write(std::string_view name, std::string_view text) const {
    std::ofstream out(path(name), std::ios::binary | std::ios::trunc);
    out << text;
    out.close();
    if (!out) std::abort();
  }

 private:
  std::filesystem::path path_;
};

inline std::string service_text(std::string_view name, std::string_view address, int port = 80) {
  return "{\"service\": {\"name\": \"" + std::string(name) + "\", \"address\": \"" +
         std::string(address) + "\", \"port\": " + std::to_string(port) + "}}\n";
}

}  // namespace mesh::catalog
