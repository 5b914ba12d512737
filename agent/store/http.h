// SPDX-License-Identifier: Apache-2.0
// One HTTP/1.1 connection to an endpoint of a store, plain or TLS: requests one after another, or
// one whose answer never ends. Every operation has a time limit; answers are bounded.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ssl/context.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "agent/base/address.h"
#include "agent/base/result.h"
#include "agent/store/address.h"

namespace mesh::store {

struct HttpAnswer {
  unsigned status = 0;
  std::string body;
  bool too_large = false;  // the body was over the limit and is not here; the connection is closed
};

struct HttpRequest {
  std::string path;
  std::string body;
  std::string token;            // empty: none
  bool require_leader = false;  // the member ends the answer when it knows no leader
};

class HttpConnection {
 public:
  using Limit = std::chrono::milliseconds;

  // `tls` null: plain. The server's name is checked against endpoint.host.
  static boost::asio::awaitable<Result<std::shared_ptr<HttpConnection>>> open(
      boost::asio::any_io_executor executor, StoreEndpoint endpoint,
      std::shared_ptr<boost::asio::ssl::context> tls, Limit limit);
  ~HttpConnection();
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  boost::asio::awaitable<Result<HttpAnswer>> post(HttpRequest request, std::size_t max_body,
                                                  Limit limit);
  // Sends the request and reads the head of the answer. A status other than 200 comes with its
  // body; with 200, read() gives the body bit by bit.
  boost::asio::awaitable<Result<HttpAnswer>> open_stream(HttpRequest request, std::size_t max_body,
                                                         Limit limit);
  // The next bytes; an error when the stream has ended. No limit: 0.
  boost::asio::awaitable<Result<std::string_view>> read(Limit limit);

  // Whatever is under way ends with an error. Idempotent.
  void close();
  [[nodiscard]] bool usable() const;
  [[nodiscard]] Address local_address() const;

 private:
  struct Impl;
  explicit HttpConnection(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mesh::store
