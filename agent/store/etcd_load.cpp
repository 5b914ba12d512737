// SPDX-License-Identifier: Apache-2.0
// How the etcd engine reads all keys: page by page, at one revision.
#include <algorithm>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

#include "agent/store/etcd_engine.h"

namespace mesh::store {

namespace net = boost::asio;

// Every key of the prefix once: what is first, then what is between.
std::vector<std::pair<std::string, std::string>> EtcdEngine::ranges() const {
  std::vector<std::pair<std::string, std::string>> all;
  for (const auto& first : options_.first)
    all.emplace_back(options_.prefix + first, etcd::range_end(options_.prefix + first));
  std::string from = options_.prefix;
  for (const auto& first : options_.first) {
    all.emplace_back(from, options_.prefix + first);
    from = etcd::range_end(options_.prefix + first);
  }
  all.emplace_back(from, etcd::range_end(options_.prefix));
  return all;
}

net::awaitable<Status> EtcdEngine::load(SessionPtr session, bool other_history) {
  Loading loading;
  auto& snapshot = loading.snapshot;
  snapshot.other_history = other_history;
  std::size_t done = 0;
  for (auto& [from, end] : ranges()) {
    auto status = co_await load_range(session, std::move(from), std::move(end), loading);
    if (!status) co_return context(std::move(status).error(), "load");
    if (snapshot.entries.size() > options_.max_keys) {
      snapshot.first_cut = done < options_.first.size();
      break;
    }
    ++done;
  }
  seen_ = loading.header;
  applied_ = snapshot.revision;
  loaded_ = true;
  must_load_ = false;
  ++counters_.snapshots;
  counters_.restores += other_history ? 1 : 0;
  counters_.revision = applied_;
  if (auto handler = handlers_.on_snapshot) handler(std::move(snapshot));
  co_return Status{};
}

net::awaitable<Status> EtcdEngine::load_range(SessionPtr session, std::string from, std::string end,
                                              Loading& loading) {
  auto& snapshot = loading.snapshot;
  std::size_t limit = options_.page_keys;
  while (true) {
    auto answer = co_await call(session, "/v3/kv/range",
                                etcd::range_request(from, end, limit, snapshot.revision, false),
                                options_.load_limit);
    if (!answer && answer.error().too_large) {
      ++counters_.too_large;
      if (limit > 1) {
        limit = std::max<std::size_t>(1, limit / 8);
        continue;
      }
      auto next = co_await skip_large_key(session, from, end, snapshot.revision, snapshot);
      if (!next) co_return tl::unexpected(std::move(next).error());
      if (next->empty()) co_return Status{};
      from = std::move(*next);
      limit = options_.page_keys;
      continue;
    }
    if (!answer) co_return fail("{}", answer.error().what);
    auto page = etcd::read_range(*answer);
    if (!page) co_return tl::unexpected(std::move(page).error());
    if (snapshot.revision == 0) {
      snapshot.revision = page->header.revision;
      loading.header = page->header;
    }
    if (page->header.cluster != loading.header.cluster) co_return fail("the cluster changed");
    for (auto& kv : page->entries) {
      if (!kv.key.starts_with(options_.prefix) || kv.key < from)
        co_return fail("a key that was not asked for: {}", key_text(kv.key));
      from = kv.key + '\0';
      kv.key = own_key(kv.key);
      if (loading.bytes + kv.value.size() > kMaxTotalBytes) {
        kv.too_large = true;
        kv.value = {};
      }
      loading.bytes += kv.value.size();
      counters_.too_large += kv.too_large ? 1 : 0;
      // One more than may be, so that who reads it sees that there are too many.
      if (snapshot.entries.size() <= options_.max_keys) snapshot.entries.push_back(std::move(kv));
    }
    if (!page->more || page->entries.empty() || snapshot.entries.size() > options_.max_keys)
      co_return Status{};
    limit = std::min(limit * 2, options_.page_keys);
  }
}

// An answer with one entry that is too large to read: its key alone, and where to go on (empty: it
// was the last). `at` may be 0.
net::awaitable<Result<std::string>> EtcdEngine::skip_large_key(SessionPtr session, std::string from,
                                                               std::string end, Revision at,
                                                               Snapshot& out) {
  auto answer = co_await call(session, "/v3/kv/range", etcd::range_request(from, end, 1, at, true),
                              options_.request_limit);
  if (!answer) co_return fail("{}", answer.error().what);
  auto page = etcd::read_range(*answer);
  if (!page) co_return tl::unexpected(std::move(page).error());
  if (page->entries.empty()) co_return std::string();
  KeyValue kv = std::move(page->entries.front());
  if (!kv.key.starts_with(options_.prefix)) co_return fail("a key that was not asked for");
  std::string next = kv.key + '\0';
  kv.key = own_key(kv.key);
  kv.too_large = true;
  out.entries.push_back(std::move(kv));
  co_return page->more ? next : std::string();
}

}  // namespace mesh::store
