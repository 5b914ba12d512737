// SPDX-License-Identifier: Apache-2.0
#include "agent/store/etcd_engine.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <random>
#include <utility>

#include "agent/base/await.h"
#include "agent/store/tls.h"

namespace mesh::store {
namespace {

namespace net = boost::asio;
using etcd::Header;

constexpr std::size_t kMaxLineBytes = 16 * 1024 * 1024;
constexpr std::size_t kMaxIdle = 2;
constexpr std::size_t kSmallAnswer = 1024 * 1024;

std::uint64_t random_seed() { return std::random_device{}(); }

}  // namespace

EtcdEngine::EtcdEngine(net::io_context& io, EtcdOptions options)
    : io_(io),
      options_(std::move(options)),
      backoff_(options_.backoff_first, options_.backoff_most, random_seed()),
      wait_(io) {
  // Agents spread over the members.
  next_endpoint_ = random_seed() % options_.address.endpoints.size();
}

EtcdEngine::~EtcdEngine() { stop(); }

std::string EtcdEngine::describe() const {
  std::string text = options_.address.tls ? "etcds://" : "etcd://";
  for (const auto& endpoint : options_.address.endpoints)
    text += (text.back() == '/' ? "" : ",") + endpoint.to_string();
  return text;
}

void EtcdEngine::start(Handlers handlers) {
  handlers_ = std::move(handlers);
  state_.reason = "not connected yet";
  net::co_spawn(io_, run(), net::detached);
}

void EtcdEngine::stop() {
  if (stopped_) return;
  stopped_ = true;
  handlers_ = {};
  wait_.cancel();
  for (const auto& session : {session_, opening_})
    if (session) close(*session, "stopped");
}

void EtcdEngine::set_state(bool connected, std::string reason) {
  if (connected == state_.connected && reason == state_.reason) return;
  state_.connected = connected;
  state_.reason = std::move(reason);
  if (auto handler = handlers_.on_state) handler(state_);
}

void EtcdEngine::close(Session& session, std::string reason) {
  if (session.closed) return;
  session.closed = true;
  session.reason = std::move(reason);
  session.probe_timer.cancel();
  for (const auto& weak : session.open)
    if (auto connection = weak.lock()) connection->close();
  session.idle.clear();
}

net::awaitable<void> EtcdEngine::run() {
  std::size_t failed_in_a_row = 0;
  while (!stopped_) {
    auto session = std::make_shared<Session>(io_.get_executor());
    session->endpoint = options_.address.endpoints[next_endpoint_];
    opening_ = session;
    const auto sessions_before = counters_.sessions.load();
    auto status = co_await run_session(session);
    // What the session closed itself for says more than the read that ended of it.
    std::string why = session->closed ? session->reason : status ? "ended" : status.error().what;
    close(*session, why);
    session_.reset();
    opening_.reset();
    // Nothing of the session may be under way when the next one begins.
    while (session->probing) {
      session->ended.expires_after(std::chrono::seconds(1));
      (void)co_await session->ended.async_wait(kAwait);  // canceled by the probe's end
    }
    if (stopped_) break;
    ++counters_.errors;
    set_state(false, session->endpoint.to_string() + ": " + why);
    next_endpoint_ = (next_endpoint_ + 1) % options_.address.endpoints.size();
    // Another member may do at once; only a round of failures is a reason to wait.
    if (counters_.sessions.load() != sessions_before) {
      backoff_.reset();
      failed_in_a_row = 0;
    }
    if (++failed_in_a_row < options_.address.endpoints.size()) continue;
    wait_.expires_after(backoff_.next());
    (void)co_await wait_.async_wait(kAwait);  // canceled only by stop()
  }
}

net::awaitable<Status> EtcdEngine::run_session(SessionPtr session) {
  if (options_.address.tls) {
    auto tls = make_tls(options_.access);
    if (!tls) co_return tl::unexpected(std::move(tls).error());
    session->tls = std::move(*tls);
  }
  if (!options_.access.user.empty())
    if (auto status = co_await login(session); !status) co_return status;

  // Linearizable: answered only with a quorum, and never older than anything that was seen.
  auto answer =
      co_await call(session, "/v3/kv/range", etcd::range_request(options_.prefix, "", 1, 0, true),
                    options_.request_limit);
  if (!answer) co_return fail("{}", answer.error().what);
  auto first = etcd::read_range(*answer);
  if (!first) co_return tl::unexpected(std::move(first).error());
  const bool other = loaded_ && !same_history(first->header);
  if (!loaded_ || other || must_load_)
    if (auto status = co_await load(session, other); !status) co_return status;
  remember(first->header);
  co_return co_await watch(session);
}

bool EtcdEngine::same_history(const Header& header) const {
  // A restored member begins its terms anew, also where the identity of the cluster is the same.
  return seen_ && header.cluster == seen_->cluster && header.revision >= applied_ &&
         header.term >= seen_->term;
}

void EtcdEngine::remember(const Header& header) {
  if (!seen_ || header.cluster != seen_->cluster) {
    seen_ = header;
    return;
  }
  seen_->revision = std::max(seen_->revision, header.revision);
  seen_->term = std::max(seen_->term, header.term);
}

net::awaitable<Status> EtcdEngine::login(SessionPtr session) {
  auto password = read_password(options_.access.password_file);
  if (!password) co_return tl::unexpected(std::move(password).error());
  session->token.clear();
  ++counters_.logins;
  auto answer = co_await call_once(session, "/v3/auth/authenticate",
                                   etcd::login_request(options_.access.user, *password),
                                   options_.request_limit);
  if (!answer) {
    // A store that asks for no login needs none.
    if (answer.error().what.find("authentication is not enabled") != std::string::npos)
      co_return Status{};
    co_return fail("login: {}", answer.error().what);
  }
  auto token = etcd::read_token(*answer);
  if (!token) co_return tl::unexpected(std::move(token).error());
  session->token = std::move(*token);
  co_return Status{};
}

net::awaitable<Status> EtcdEngine::watch(SessionPtr session) {
  auto opened = co_await HttpConnection::open(io_.get_executor(), session->endpoint, session->tls,
                                              options_.connect_limit);
  if (!opened) co_return tl::unexpected(std::move(opened).error());
  if (session->closed) co_return fail("closed");
  auto stream = *opened;
  session->stream = stream;
  session->open.push_back(stream);
  state_.endpoint = session->endpoint.to_string();
  state_.local = stream->local_address();
  HttpRequest request{"/v3/watch", etcd::watch_request(options_.prefix, applied_ + 1),
                      session->token, /*require_leader=*/true};
  auto head =
      co_await stream->open_stream(std::move(request), kSmallAnswer, options_.request_limit);
  if (!head) co_return context(std::move(head).error(), "watch");
  if (head->status != 200)
    co_return fail("watch: {}", etcd::read_error(head->status, head->body).message);

  batches_ = {};
  etcd::LineReader lines(kMaxLineBytes);
  bool created = false;
  while (!session->closed) {
    auto bytes = co_await stream->read(created ? HttpConnection::Limit(0) : options_.request_limit);
    if (!bytes) co_return context(std::move(bytes).error(), "watch");
    if (!lines.feed(*bytes)) {
      // It may be one value that nobody can use: a full load leaves it out by its key.
      ++counters_.too_large;
      must_load_ = true;
      co_return fail("watch: an answer of more than {} MiB", kMaxLineBytes >> 20);
    }
    while (auto line = lines.next()) {
      auto answer = etcd::read_watch(*line);
      if (!answer) co_return tl::unexpected(std::move(answer).error());
      const bool confirms = answer->created && !answer->canceled;
      if (auto status = on_watch_answer(*session, std::move(*answer)); !status) co_return status;
      if (session->closed) break;
      if (confirms && !created) {
        created = true;
        ++counters_.sessions;
        session_ = session;
        session->probing = true;
        net::co_spawn(io_, probe(session), net::detached);
        set_state(true, "");
      }
    }
  }
  co_return fail("closed");
}

Status EtcdEngine::on_watch_answer(Session& session, etcd::WatchAnswer answer) {
  if (answer.canceled) {
    if (answer.compacted > 0) {
      ++counters_.compactions;
      must_load_ = true;
      return fail("watch: what comes after revision {} was compacted away", applied_);
    }
    return fail("watch: canceled by the member: {}",
                answer.reason.empty() ? "no reason given" : key_text(answer.reason));
  }
  if (!seen_ || answer.header.cluster != seen_->cluster)
    return fail("watch: an answer of another cluster");
  remember(answer.header);
  // With events, the header may be ahead of what was sent; without, everything before was.
  const bool progress = answer.changes.empty() && !answer.created && !answer.fragment;
  if (progress && answer.header.revision > applied_) applied_ = answer.header.revision;
  if (!batches_.add(std::move(answer))) {
    must_load_ = true;
    return fail("watch: revisions out of order, or too many changes at once");
  }
  for (auto& batch : batches_.take()) {
    if (batch.revision <= applied_) continue;  // told before
    std::erase_if(batch.changes, [&](const Change& change) {
      return !change.kv.key.starts_with(options_.prefix);
    });
    for (auto& change : batch.changes) {
      change.kv.key = own_key(change.kv.key);
      counters_.too_large += change.kv.too_large ? 1 : 0;
    }
    counters_.events += batch.changes.size();
    applied_ = batch.revision;
    counters_.revision = applied_;
    if (auto handler = handlers_.on_batch) handler(std::move(batch));
    if (session.closed) break;
  }
  counters_.revision = applied_;
  return {};
}

// The stream says nothing when nothing changes, so silence proves nothing: ask.
net::awaitable<void> EtcdEngine::probe(SessionPtr session) {
  behind_ = -1;
  while (!session->closed) {
    session->probe_timer.expires_after(options_.probe_interval);
    (void)co_await session->probe_timer.async_wait(kAwait);  // canceled: closed
    if (session->closed) break;
    auto status = co_await probe_once(session);
    if (!status) close(*session, "probe: " + status.error().what);
  }
  session->probing = false;
  session->ended.cancel();
}

net::awaitable<Status> EtcdEngine::probe_once(SessionPtr session) {
  auto answer =
      co_await call(session, "/v3/kv/range", etcd::range_request(options_.prefix, "", 1, 0, true),
                    options_.request_limit);
  if (!answer) co_return fail("{}", answer.error().what);
  auto range = etcd::read_range(*answer);
  if (!range) co_return tl::unexpected(std::move(range).error());
  if (!same_history(range->header))
    co_return fail("the cluster has another history than what was loaded");
  remember(range->header);

  // Revisions go on without us: by other prefixes, or because the stream has stopped. The gateway
  // of 3.4 sends nothing at all any more after an event of some MiB, and says nothing about it.
  const bool waited = behind_ == applied_;
  behind_ = range->header.revision > applied_ ? applied_ : -1;
  const auto now = std::chrono::steady_clock::now();
  if (!waited || behind_ < 0 || now < next_check_) co_return Status{};
  next_check_ = now + options_.check_interval;
  const Revision from = applied_;
  answer = co_await call(session, "/v3/kv/range",
                         etcd::changed_after_request(options_.prefix, from), options_.load_limit);
  if (!answer) co_return fail("{}", answer.error().what);
  auto lost = etcd::read_range(*answer);
  if (!lost) co_return tl::unexpected(std::move(lost).error());
  if (lost->entries.empty() || applied_ != from) co_return Status{};
  must_load_ = true;
  co_return fail("the stream has lost a change of {}", key_text(lost->entries.front().key));
}

net::awaitable<Result<std::shared_ptr<HttpConnection>>> EtcdEngine::take_connection(
    SessionPtr session) {
  while (!session->idle.empty()) {
    auto connection = std::move(session->idle.back());
    session->idle.pop_back();
    if (connection->usable()) co_return connection;
  }
  auto opened = co_await HttpConnection::open(io_.get_executor(), session->endpoint, session->tls,
                                              options_.connect_limit);
  if (!opened) co_return opened;
  std::erase_if(session->open, [](const auto& weak) { return weak.expired(); });
  session->open.push_back(*opened);
  if (session->closed) {
    (*opened)->close();
    co_return fail("closed");
  }
  co_return opened;
}

net::awaitable<EtcdEngine::Answer> EtcdEngine::call_once(SessionPtr session, std::string path,
                                                         std::string body,
                                                         std::chrono::milliseconds limit) {
  auto connection = co_await take_connection(session);
  if (!connection) co_return tl::unexpected(Failure{connection.error().what, {}, false});
  HttpRequest request{std::move(path), std::move(body), session->token, false};
  auto answer = co_await (*connection)->post(std::move(request), options_.max_answer_bytes, limit);
  if (!answer) {
    ++counters_.errors;
    (*connection)->close();
    co_return tl::unexpected(Failure{answer.error().what, {}, false});
  }
  if (answer->too_large) co_return tl::unexpected(Failure{"the answer is too large", {}, true});
  if (!session->closed && (*connection)->usable() && session->idle.size() < kMaxIdle)
    session->idle.push_back(*connection);
  if (answer->status == 200) co_return std::move(answer->body);
  ++counters_.errors;
  auto error = etcd::read_error(answer->status, answer->body);
  co_return tl::unexpected(Failure{error.message, error, false});
}

net::awaitable<EtcdEngine::Answer> EtcdEngine::call(SessionPtr session, std::string path,
                                                    std::string body,
                                                    std::chrono::milliseconds limit) {
  auto answer = co_await call_once(session, path, body, limit);
  if (answer || options_.access.user.empty() || !answer.error().gateway.wants_login() ||
      session->closed)
    co_return answer;
  // Tokens expire; a change of users makes them void.
  if (auto status = co_await login(session); !status)
    co_return tl::unexpected(Failure{status.error().what, {}, false});
  co_return co_await call_once(session, std::move(path), std::move(body), limit);
}

net::awaitable<EtcdEngine::Answer> EtcdEngine::call_current(std::string path, std::string body) {
  auto session = session_;
  if (!session || session->closed)
    co_return tl::unexpected(Failure{"not connected: " + state_.reason, {}, false});
  co_return co_await call(session, std::move(path), std::move(body), options_.request_limit);
}

net::awaitable<Result<Commit>> EtcdEngine::commit(Transaction transaction) {
  if (transaction.conditions.size() + transaction.unchanged.size() > Transaction::kMaxOperations ||
      transaction.puts.size() + transaction.deletes.size() > Transaction::kMaxOperations)
    co_return fail("more than {} operations in a transaction", Transaction::kMaxOperations);
  auto answer =
      co_await call_current("/v3/kv/txn", etcd::txn_request(options_.prefix, transaction));
  if (!answer) co_return fail("write: {}", answer.error().what);
  auto txn = etcd::read_txn(*answer);
  if (!txn) co_return tl::unexpected(std::move(txn).error());
  Commit commit{txn->succeeded, txn->header.revision, {}};
  for (auto& kv : txn->present) {
    if (!kv.key.starts_with(options_.prefix)) continue;
    kv.key = own_key(kv.key);
    commit.present.push_back(std::move(kv));
  }
  co_return commit;
}

net::awaitable<Result<LeaseId>> EtcdEngine::grant(std::chrono::seconds ttl) {
  auto answer = co_await call_current("/v3/lease/grant", etcd::grant_request(ttl));
  if (!answer) co_return fail("lease: {}", answer.error().what);
  auto lease = etcd::read_grant(*answer);
  if (!lease) co_return tl::unexpected(std::move(lease).error());
  co_return lease->id;
}

net::awaitable<Result<std::chrono::seconds>> EtcdEngine::renew(LeaseId lease) {
  auto answer = co_await call_current("/v3/lease/keepalive", etcd::renew_request(lease));
  if (!answer && answer.error().gateway.lease_is_gone()) co_return std::chrono::seconds(0);
  if (!answer) co_return fail("lease: {}", answer.error().what);
  auto renewal = etcd::read_renewal(*answer);
  if (!renewal) co_return tl::unexpected(std::move(renewal).error());
  co_return renewal->ttl;
}

}  // namespace mesh::store
