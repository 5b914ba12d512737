// SPDX-License-Identifier: Apache-2.0
#include "agent/store/client.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <optional>
#include <utility>

#include "agent/store/content.h"

namespace mesh::store {
namespace {

namespace net = boost::asio;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kGiveUp{10'000};
constexpr milliseconds kLoad{60'000};
constexpr milliseconds kFollow{1000};
constexpr milliseconds kSlack{2000};  // beyond the limits that requests have themselves

EtcdOptions below(EtcdOptions options, const std::string& under) {
  options.prefix += under;
  if (under.empty()) options.first = kReadFirst;
  return options;
}

}  // namespace

StoreClient::StoreClient(EtcdOptions options, std::string under)
    : under_(std::move(under)), engine_(io_, below(std::move(options), under_)) {}

StoreClient::~StoreClient() {
  engine_.stop();
  // What is under way refers to the engine: it ends with an error now.
  io_.restart();
  io_.run();
}

Result<std::unique_ptr<StoreClient>> StoreClient::open(EtcdOptions options, std::string under) {
  std::unique_ptr<StoreClient> client(new StoreClient(std::move(options), std::move(under)));
  Engine::Handlers handlers;
  handlers.on_snapshot = [&self = *client](Snapshot snapshot) {
    self.entries_.clear();
    for (auto& kv : snapshot.entries) {
      kv.key.insert(0, self.under_);
      std::string key = kv.key;
      self.entries_.insert_or_assign(std::move(key), std::move(kv));
    }
    self.loaded_ = true;
  };
  handlers.on_batch = [&self = *client](Batch batch) {
    for (auto& change : batch.changes) {
      std::string key = self.under_ + change.kv.key;
      change.kv.key = key;
      if (change.deleted)
        self.entries_.erase(key);
      else
        self.entries_.insert_or_assign(std::move(key), std::move(change.kv));
    }
  };
  handlers.on_state = [&self = *client](const EngineState& state) { self.state_ = state; };
  client->engine_.start(std::move(handlers));
  const auto& self = *client;
  const auto give_up = Clock::now() + kGiveUp;
  const auto ready = [&] { return self.loaded_ && self.state_.connected; };
  const auto failed = [&] { return !self.state_.reason.empty() && Clock::now() >= give_up; };
  (void)client->run_until([&] { return ready() || failed(); }, kLoad);
  if (!ready())
    return fail("{}: {}", client->engine_.describe(),
                self.state_.reason.empty() ? "no answer" : self.state_.reason);
  return client;
}

const KeyValue* StoreClient::find(std::string_view key) const {
  const auto it = entries_.find(key);
  return it == entries_.end() ? nullptr : &it->second;
}

bool StoreClient::run_until(const std::function<bool()>& done, milliseconds limit) {
  const auto end = Clock::now() + limit;
  io_.restart();
  while (!done()) {
    if (Clock::now() >= end) return false;
    (void)io_.run_one_until(end);  // how many ran does not matter
  }
  return true;
}

Result<Commit> StoreClient::commit(Transaction transaction) {
  // On the heap: what runs may outlive this call, until the destructor ends it.
  auto answer = std::make_shared<std::optional<Result<Commit>>>();
  const auto run = [](EtcdEngine& engine, Transaction wanted,
                      std::shared_ptr<std::optional<Result<Commit>>> out) -> net::awaitable<void> {
    *out = co_await engine.commit(std::move(wanted));
  };
  net::co_spawn(io_, run(engine_, std::move(transaction), answer), net::detached);
  const EtcdOptions limits;
  if (!run_until([&] { return answer->has_value(); },
                 limits.connect_limit + limits.request_limit + kSlack))
    return fail("no answer");
  return std::move(**answer);
}

void StoreClient::follow() {
  const auto before = revision();
  // In vain: it is asked again with what there is.
  (void)run_until([&] { return revision() > before; }, kFollow);
}

}  // namespace mesh::store
