// SPDX-License-Identifier: Apache-2.0
// The suite with records made in user space on both ends.
#include "tests/unit/tls/stream_suite.h"

namespace mesh::ktls::test {
namespace {

INSTANTIATE_TEST_SUITE_P(UserSpace, StreamSuite,
                         ::testing::Values(StreamCase{false, false, Cipher::Aes128Gcm},
                                           StreamCase{false, false, Cipher::Aes256Gcm},
                                           StreamCase{false, false, Cipher::ChaCha20Poly1305}),
                         case_name);

}  // namespace
}  // namespace mesh::ktls::test
