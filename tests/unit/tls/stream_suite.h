// SPDX-License-Identifier: Apache-2.0
// What every pair of streams must do, whoever makes the records: run in user space natively
// (stream_test.cpp) and with the kernel on either side in the guests (tests/netns/ktls_test.cpp).
#pragma once

#include <gtest/gtest.h>

#include <ostream>
#include <string>

#include "tests/unit/tls/fixture.h"

namespace mesh::ktls::test {

struct StreamCase {
  bool client_kernel = false;
  bool server_kernel = false;
  Cipher cipher = Cipher::Aes128Gcm;
};
void PrintTo(const StreamCase& stream_case, std::ostream* out);
std::string case_name(const ::testing::TestParamInfo<StreamCase>& info);

class StreamSuite : public ::testing::TestWithParam<StreamCase> {
 protected:
  void SetUp() override;
  // Connects with the case's cipher and record layers, and checks that these came out.
  void open(int buffer = 0);
  Stream& client() { return *connected_->client.stream; }
  Stream& server() { return *connected_->server.stream; }
  [[nodiscard]] int client_fd() const { return connected_->pair.client.get(); }
  [[nodiscard]] int server_fd() const { return connected_->pair.server.get(); }

  Scene scene_;
  std::optional<Connected> connected_;
};

}  // namespace mesh::ktls::test
