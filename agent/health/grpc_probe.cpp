// SPDX-License-Identifier: Apache-2.0
// grpc.health.v1.Health/Check over HTTP/2 by nghttp2. The two messages have one field each, which
// is less than a protobuf library.
#include <algorithm>
#include <cstring>

#include "agent/health/probe_kinds.h"

namespace mesh::health {
namespace {

constexpr std::size_t kMaxResponse = 4096;
constexpr std::size_t kPrefix = 5;  // a byte of flags and the length
constexpr std::uint8_t kServiceField = 1 << 3 | 2;
constexpr std::uint8_t kStatusField = 1 << 3 | 0;
constexpr std::uint8_t kServing = 1;

nghttp2_nv header(const std::string& name, const std::string& value) {
  // nghttp2 copies both unless told otherwise.
  return {reinterpret_cast<std::uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<std::uint8_t*>(const_cast<char*>(value.data())), name.size(),
          value.size(), NGHTTP2_NV_FLAG_NONE};
}

// HealthCheckRequest{service}, with gRPC's prefix.
std::vector<std::uint8_t> request_of(const std::string& service) {
  std::vector<std::uint8_t> message;
  if (!service.empty()) {
    message.push_back(kServiceField);
    std::size_t left = service.size();
    for (; left > 127; left >>= 7) message.push_back(static_cast<std::uint8_t>(left | 0x80));
    message.push_back(static_cast<std::uint8_t>(left));
    message.insert(message.end(), service.begin(), service.end());
  }
  std::vector<std::uint8_t> framed(kPrefix, 0);
  for (std::size_t i = 0; i < 4; ++i)
    framed[1 + i] = static_cast<std::uint8_t>(message.size() >> (8 * (3 - i)));
  framed.insert(framed.end(), message.begin(), message.end());
  return framed;
}

}  // namespace

GrpcProbe::~GrpcProbe() { nghttp2_session_del(session_); }

void GrpcProbe::connected() {
  if (!submit()) return finish(CheckStatus::Critical, "HTTP/2 cannot be set up");
  pump();
  read();
}

bool GrpcProbe::submit() {
  nghttp2_session_callbacks* callbacks = nullptr;
  if (nghttp2_session_callbacks_new(&callbacks) != 0) return false;
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
  const int made = nghttp2_session_client_new(&session_, callbacks, this);
  nghttp2_session_callbacks_del(callbacks);
  if (made != 0 || nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, nullptr, 0) != 0)
    return false;
  request_ = request_of(target_.path);
  const std::string scheme = target_.tls ? "https" : "http";
  const std::string host = authority(target_);
  const std::string names[] = {":method",      ":scheme", ":authority", ":path",
                               "content-type", "te",      "user-agent"};
  const std::string values[] = {"POST",
                                scheme,
                                host,
                                "/grpc.health.v1.Health/Check",
                                "application/grpc",
                                "trailers",
                                "mesh-agent-health-check"};
  std::vector<nghttp2_nv> headers;
  for (std::size_t i = 0; i < std::size(names); ++i) headers.push_back(header(names[i], values[i]));
  nghttp2_data_provider body{};
  body.source.ptr = this;
  body.read_callback = on_body;
  return nghttp2_submit_request(session_, nullptr, headers.data(), headers.size(), &body, this) > 0;
}

void GrpcProbe::pump() {
  if (writing_ || over()) return;
  std::vector<std::uint8_t> out;
  for (;;) {
    const std::uint8_t* bytes = nullptr;
    const auto n = nghttp2_session_mem_send(session_, &bytes);
    if (n < 0) return finish(CheckStatus::Critical, nghttp2_strerror(static_cast<int>(n)));
    if (n == 0) break;
    out.insert(out.end(), bytes, bytes + n);
  }
  if (out.empty()) return;
  writing_ = true;
  wire_->write(std::move(out), [self = shared_from_this(), this](const std::string& error) {
    writing_ = false;
    if (!error.empty()) return finish(CheckStatus::Critical, error);
    pump();
  });
}

void GrpcProbe::read() {
  if (over()) return;
  wire_->read([self = shared_from_this(), this](std::span<const std::uint8_t> bytes,
                                                const std::string& error) {
    if (!error.empty()) return finish(CheckStatus::Critical, error);
    if (bytes.empty())
      return finish(CheckStatus::Critical, "the connection ended before the answer did");
    const auto n = nghttp2_session_mem_recv(session_, bytes.data(), bytes.size());
    if (n < 0) return finish(CheckStatus::Critical, "the answer is no HTTP/2");
    if (closed_) return conclude();
    pump();
    read();
  });
}

void GrpcProbe::conclude() {
  if (http_status_ != "200")
    return finish(CheckStatus::Critical,
                  "HTTP status " + (http_status_.empty() ? "none" : http_status_));
  if (stream_error_ != 0)
    return finish(CheckStatus::Critical,
                  std::string("the stream was reset: ") + nghttp2_http2_strerror(stream_error_));
  if (grpc_status_ != "0")
    return finish(CheckStatus::Critical, "gRPC status " +
                                             (grpc_status_.empty() ? "none" : grpc_status_) + " " +
                                             grpc_message_.substr(0, 256));
  // An absent field is 0, UNKNOWN.
  const bool serving = response_.size() >= kPrefix + 2 && response_[0] == 0 &&
                       response_[kPrefix] == kStatusField && response_[kPrefix + 1] == kServing;
  finish(serving ? CheckStatus::Passing : CheckStatus::Critical,
         "gRPC check " + check_.target + ": " + (serving ? "SERVING" : "not SERVING"));
}

ssize_t GrpcProbe::on_body(nghttp2_session*, std::int32_t, std::uint8_t* into, std::size_t size,
                           std::uint32_t* flags, nghttp2_data_source* source, void*) {
  auto& self = *static_cast<GrpcProbe*>(source->ptr);
  const std::size_t n = std::min(size, self.request_.size() - self.request_sent_);
  std::memcpy(into, self.request_.data() + self.request_sent_, n);
  self.request_sent_ += n;
  if (self.request_sent_ == self.request_.size()) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return static_cast<ssize_t>(n);
}

int GrpcProbe::on_header(nghttp2_session*, const nghttp2_frame*, const std::uint8_t* name,
                         std::size_t name_size, const std::uint8_t* value, std::size_t value_size,
                         std::uint8_t, void* user) {
  auto& self = *static_cast<GrpcProbe*>(user);
  const std::string_view key(reinterpret_cast<const char*>(name), name_size);
  const std::string_view text(reinterpret_cast<const char*>(value), value_size);
  if (key == ":status")
    self.http_status_ = text;
  else if (key == "grpc-status")
    self.grpc_status_ = text;
  else if (key == "grpc-message")
    self.grpc_message_ = text;
  return 0;
}

int GrpcProbe::on_data(nghttp2_session*, std::uint8_t, std::int32_t, const std::uint8_t* bytes,
                       std::size_t size, void* user) {
  auto& self = *static_cast<GrpcProbe*>(user);
  if (self.response_.size() + size > kMaxResponse) return NGHTTP2_ERR_CALLBACK_FAILURE;
  self.response_.insert(self.response_.end(), bytes, bytes + size);
  return 0;
}

int GrpcProbe::on_close(nghttp2_session*, std::int32_t, std::uint32_t error, void* user) {
  auto& self = *static_cast<GrpcProbe*>(user);
  self.closed_ = true;
  self.stream_error_ = error;
  return 0;
}

}  // namespace mesh::health
