// SPDX-License-Identifier: Apache-2.0
// What handshakes and streams need of certificates, made of tests/support/certs.h: a root, a
// signing certificate for each leaf, the leaf's times and size.
#pragma once

#include <chrono>
#include <string>

#include "ktls/svid.h"
#include "tests/support/certs.h"

namespace mesh::ktls::test {

using std::chrono::sys_seconds;

inline sys_seconds wall_now() { return mesh::test::now_seconds(); }

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
  mesh::test::Cert root_;
};

}  // namespace mesh::ktls::test
