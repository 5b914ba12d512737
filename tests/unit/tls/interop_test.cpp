// SPDX-License-Identifier: Apache-2.0
// The suite with records made in user space.
#include "tests/unit/tls/interop_suite.h"

namespace mesh::ktls::test {
namespace {

INSTANTIATE_TEST_SUITE_P(UserSpace, InteropSuite, ::testing::Values(false),
                         [](const auto&) { return std::string("User"); });

}  // namespace
}  // namespace mesh::ktls::test
