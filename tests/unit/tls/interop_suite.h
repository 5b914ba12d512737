// SPDX-License-Identifier: Apache-2.0
// See interop_suite.cpp; instantiated by interop_test.cpp and tests/netns/ktls_test.cpp.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/support/scratch.h"
#include "tests/unit/tls/fixture.h"

namespace mesh::ktls::test {

class InteropSuite : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override;
  // Writes a file into the test's directory and returns its path.
  std::string file(const std::string& name, const std::string& text);
  // Arguments of openssl for a certificate of the scene's CA.
  std::vector<std::string> identity(const TestCa::Leaf& leaf);

  Scene scene_;
  std::optional<mesh::test::ScratchDir> dir_;
};

}  // namespace mesh::ktls::test
