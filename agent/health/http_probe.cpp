// SPDX-License-Identifier: Apache-2.0
#include <boost/beast/core/ostream.hpp>
#include <boost/beast/http/write.hpp>
#include <sstream>

#include "agent/health/probe_kinds.h"

namespace mesh::health {
namespace http = boost::beast::http;
namespace {

constexpr unsigned kMaxRedirects = 5;
constexpr std::uint32_t kMaxHeader = 16 * 1024;
constexpr std::uint64_t kMaxBody = 1024 * 1024;  // more is not read

// The definition has refused control characters in every part.
std::vector<std::uint8_t> request_text(const catalog::HealthCheck& check, const Target& target) {
  http::request<http::string_body> request;
  request.method_string(check.method);
  request.target(target.path);
  request.version(11);
  request.set(http::field::host, authority(target));
  request.set(http::field::user_agent, "mesh-agent health check");
  request.set(http::field::accept, "text/plain, text/*, */*");
  for (const auto& [name, values] : check.header) {
    request.erase(name);
    for (const auto& value : values) request.insert(name, value);
  }
  request.set(http::field::connection, "close");
  request.body() = check.body;
  request.prepare_payload();
  std::ostringstream text;
  text << request;
  const std::string bytes = text.str();
  return {bytes.begin(), bytes.end()};
}

}  // namespace

void TcpProbe::connected() {
  finish(CheckStatus::Passing, "TCP connect " + authority(target_) + ": success");
}

void HttpProbe::connected() {
  parser_.emplace();
  parser_->header_limit(kMaxHeader);
  parser_->body_limit(kMaxBody);
  if (check_.method == "HEAD") parser_->skip(true);
  rest_.clear();
  wire_->write(request_text(check_, target_),
               [self = shared_from_this(), this](const std::string& error) {
                 if (!error.empty()) return finish(CheckStatus::Critical, error);
                 read();
               });
}

void HttpProbe::read() {
  wire_->read([self = shared_from_this(), this](std::span<const std::uint8_t> bytes,
                                                const std::string& error) {
    if (!error.empty()) return finish(CheckStatus::Critical, error);
    on_bytes(bytes);
  });
}

void HttpProbe::on_bytes(std::span<const std::uint8_t> bytes) {
  boost::system::error_code code;
  if (bytes.empty()) {
    parser_->put_eof(code);
    if (code || !parser_->is_done())
      return finish(CheckStatus::Critical, "the connection ended before the answer did");
    return conclude();
  }
  rest_.insert(rest_.end(), bytes.begin(), bytes.end());
  std::size_t used = 0;
  while (used < rest_.size() && !parser_->is_done()) {
    const auto n =
        parser_->put(boost::asio::buffer(rest_.data() + used, rest_.size() - used), code);
    used += n;
    if (code == http::error::need_more) break;
    // A long answer says enough by its status.
    if (code == http::error::body_limit) return conclude();
    if (code) return finish(CheckStatus::Critical, "the answer is no HTTP: " + code.message());
    if (n == 0) break;
  }
  rest_.erase(rest_.begin(), rest_.begin() + static_cast<std::ptrdiff_t>(used));
  if (parser_->is_done()) return conclude();
  read();
}

void HttpProbe::conclude() {
  const auto& response = parser_->get();
  const unsigned status = response.result_int();
  const auto location = response.find(http::field::location);
  if (check_.follow_redirects && location != response.end() &&
      (status == 301 || status == 302 || status == 303 || status == 307 || status == 308)) {
    if (++redirects_ > kMaxRedirects) return finish(CheckStatus::Critical, "more than 5 redirects");
    const auto target = redirect(target_, {location->value().data(), location->value().size()});
    if (!target) return finish(CheckStatus::Critical, target.error().what);
    return open(*target);
  }
  const CheckStatus result = status / 100 == 2 ? CheckStatus::Passing
                             : status == 429   ? CheckStatus::Warning
                                               : CheckStatus::Critical;
  finish(result, "HTTP " + check_.method + " " + check_.target + ": " + std::to_string(status) +
                     " Output: " + response.body().substr(0, kMaxOutput));
}

}  // namespace mesh::health
