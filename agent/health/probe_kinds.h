// SPDX-License-Identifier: Apache-2.0
// The kinds of probes, for Probe::make().
#pragma once

#include <nghttp2/nghttp2.h>

#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <memory>
#include <optional>
#include <vector>

#include "agent/health/probe.h"

namespace mesh::health {

class TcpProbe final : public Probe {
 public:
  using Probe::Probe;

 private:
  void connected() override;
};

class HttpProbe final : public Probe {
 public:
  using Probe::Probe;

 private:
  using Parser = boost::beast::http::response_parser<boost::beast::http::string_body>;

  void connected() override;
  void read();
  void on_bytes(std::span<const std::uint8_t> bytes);
  void conclude();

  std::optional<Parser> parser_;
  std::vector<std::uint8_t> rest_;  // what the parser has not taken yet
  unsigned redirects_ = 0;
};

class GrpcProbe final : public Probe {
 public:
  using Probe::Probe;
  ~GrpcProbe() override;

 private:
  void connected() override;
  [[nodiscard]] bool http2() const override { return true; }
  bool submit();
  void pump();
  void read();
  void conclude();

  static ssize_t on_body(nghttp2_session*, std::int32_t, std::uint8_t* into, std::size_t size,
                         std::uint32_t* flags, nghttp2_data_source* source, void*);
  static int on_header(nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name,
                       std::size_t name_size, const std::uint8_t* value, std::size_t value_size,
                       std::uint8_t, void* self);
  static int on_data(nghttp2_session*, std::uint8_t, std::int32_t, const std::uint8_t* bytes,
                     std::size_t size, void* self);
  static int on_close(nghttp2_session*, std::int32_t, std::uint32_t error, void* self);

  nghttp2_session* session_ = nullptr;
  std::vector<std::uint8_t> request_;
  std::size_t request_sent_ = 0;
  std::vector<std::uint8_t> response_;
  std::string http_status_, grpc_status_, grpc_message_;
  bool writing_ = false;
  bool reading_ = false;
  bool closed_ = false;  // the stream has ended
  std::uint32_t stream_error_ = 0;
};

}  // namespace mesh::health
