// SPDX-License-Identifier: Apache-2.0
// A certificate authority in memory: root, one signing certificate per node, workloads below it.
#pragma once

#include <chrono>
#include <string>

#include "ktls/svid.h"

namespace mesh::ktls::test {

using std::chrono::sys_seconds;

inline sys_seconds wall_now() {
  return std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
}

class TestCa {
 public:
  explicit TestCa(const std::string& trust_domain = "mesh.test");

  struct Leaf {
    std::string service = "web";
    std::string node = "node-a";
    sys_seconds not_before = wall_now() - std::chrono::hours(1);
    sys_seconds not_after = wall_now() + std::chrono::hours(1);
    int padding = 0;  // bytes of an extension that nobody reads
  };
  struct Pem {
    std::string leaf;
    std::string issuer;
    std::string key;
  };
  [[nodiscard]] Pem issue_pem(const Leaf& leaf) const;
  [[nodiscard]] SvidPtr issue(const Leaf& leaf) const;
  [[nodiscard]] SvidPtr issue(const std::string& service) const;
  [[nodiscard]] TrustBundlePtr bundle() const;
  [[nodiscard]] SpiffeId id(const std::string& service) const;
  [[nodiscard]] std::string root_pem() const;

 private:
  std::string trust_domain_;
  PkeyPtr root_key_;
  X509Ptr root_;
};

}  // namespace mesh::ktls::test
