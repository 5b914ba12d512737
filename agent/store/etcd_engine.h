// SPDX-License-Identifier: Apache-2.0
// etcd v3 through its JSON gateway as an engine. README.md says what it does about each failure.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/base/backoff.h"
#include "agent/store/address.h"
#include "agent/store/engine.h"
#include "agent/store/etcd_codec.h"
#include "agent/store/http.h"

namespace mesh::store {

struct EtcdOptions {
  StoreAddress address;
  StoreAccess access;
  std::string prefix = "mesh-agent/";
  std::chrono::milliseconds connect_limit{2000};
  std::chrono::milliseconds request_limit{4000};
  std::chrono::milliseconds load_limit{20'000};  // one page
  // A linearizable read every so often shows that the member is there and has a quorum behind it.
  std::chrono::milliseconds probe_interval{2000};
  // How often at most it is checked, where revisions go on without changes of ours, that the
  // stream has lost none: the member reads all keys for it.
  std::chrono::milliseconds check_interval{10'000};
  std::chrono::milliseconds backoff_first{100};
  std::chrono::milliseconds backoff_most{5000};
  std::size_t page_keys = 4000;
  std::size_t max_keys = kMaxKeys;
  // Read before all others, so that too many of those do not hide them; sorted, none within
  // another.
  std::vector<std::string> first;
  std::size_t max_answer_bytes = 24 * 1024 * 1024;
};

class EtcdEngine final : public Engine {
 public:
  // Everything is used on the thread that runs `io`.
  EtcdEngine(boost::asio::io_context& io, EtcdOptions options);
  ~EtcdEngine() override;

  void start(Handlers handlers) override;
  void stop() override;
  boost::asio::awaitable<Result<Commit>> commit(Transaction transaction) override;
  boost::asio::awaitable<Result<LeaseId>> grant(std::chrono::seconds ttl) override;
  boost::asio::awaitable<Result<std::chrono::seconds>> renew(LeaseId lease) override;
  [[nodiscard]] const EngineCounters& counters() const override { return counters_; }
  [[nodiscard]] std::string describe() const override;

 private:
  // What belongs to one endpoint while it is used.
  struct Session {
    explicit Session(const boost::asio::any_io_executor& executor)
        : probe_timer(executor), ended(executor) {}

    StoreEndpoint endpoint;
    std::shared_ptr<boost::asio::ssl::context> tls;  // null: plain
    std::string token;
    std::vector<std::shared_ptr<HttpConnection>> idle;
    std::vector<std::weak_ptr<HttpConnection>> open;  // idle or busy
    std::shared_ptr<HttpConnection> stream;
    boost::asio::steady_timer probe_timer;
    boost::asio::steady_timer ended;  // expires when nothing of the session runs any more
    bool probing = false;
    bool closed = false;
    std::string reason;  // why it was closed
  };
  using SessionPtr = std::shared_ptr<Session>;
  // What asks for `body` at `path`; errors of the gateway are errors.
  struct Failure {
    std::string what;
    etcd::GatewayError gateway;
    bool too_large = false;
  };
  using Answer = tl::expected<std::string, Failure>;

  boost::asio::awaitable<void> run();
  boost::asio::awaitable<Status> run_session(SessionPtr session);
  boost::asio::awaitable<Status> login(SessionPtr session);
  boost::asio::awaitable<Status> load(SessionPtr session, bool other_history);
  // What is under way of a load.
  struct Loading {
    Snapshot snapshot;
    etcd::Header header;
    std::size_t bytes = 0;  // of values
  };
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> ranges() const;
  boost::asio::awaitable<Status> load_range(SessionPtr session, std::string from, std::string end,
                                            Loading& loading);
  boost::asio::awaitable<Result<std::string>> skip_large_key(SessionPtr session, std::string from,
                                                             std::string end, Revision at,
                                                             Snapshot& out);
  boost::asio::awaitable<Status> watch(SessionPtr session);
  boost::asio::awaitable<void> probe(SessionPtr session);
  // One look at the member; what is wrong with it or with the stream.
  boost::asio::awaitable<Status> probe_once(SessionPtr session);
  boost::asio::awaitable<Answer> call(SessionPtr session, std::string path, std::string body,
                                      std::chrono::milliseconds limit);
  boost::asio::awaitable<Answer> call_once(SessionPtr session, std::string path, std::string body,
                                           std::chrono::milliseconds limit);
  boost::asio::awaitable<Result<std::shared_ptr<HttpConnection>>> take_connection(
      SessionPtr session);
  boost::asio::awaitable<Answer> call_current(std::string path, std::string body);
  static void close(Session& session, std::string reason);
  // Whether the answers come from the cluster and the history that was loaded.
  [[nodiscard]] bool same_history(const etcd::Header& header) const;
  void remember(const etcd::Header& header);
  Status on_watch_answer(Session& session, etcd::WatchAnswer answer);
  void set_state(bool connected, std::string reason);
  [[nodiscard]] std::string own_key(const std::string& full) const {
    return full.substr(options_.prefix.size());
  }

  boost::asio::io_context& io_;
  EtcdOptions options_;
  Handlers handlers_;
  EngineCounters counters_;
  EngineState state_;
  Backoff backoff_;
  boost::asio::steady_timer wait_;
  SessionPtr session_;  // the one that is connected
  SessionPtr opening_;  // the one that is not yet
  std::size_t next_endpoint_ = 0;
  bool stopped_ = false;

  bool loaded_ = false;
  std::optional<etcd::Header> seen_;  // highest revision and term of the history that is loaded
  Revision applied_ = 0;              // everything up to here was told
  bool must_load_ = false;            // changes after applied_ cannot be followed any more
  Revision behind_ = -1;              // applied_ at the last probe, if there was more than that
  std::chrono::steady_clock::time_point next_check_;
  etcd::BatchBuilder batches_;
};

}  // namespace mesh::store
