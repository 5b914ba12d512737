// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/source_base.h"
#include "ktls/svid.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <utility>

namespace mesh::identity {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;

constexpr std::size_t kSlice = 16;  // SVIDs a turn of the io_context: a few milliseconds
constexpr milliseconds kShortestTimer{10};
constexpr milliseconds kRetryMin{200};
constexpr milliseconds kRetryMax{30'000};
constexpr std::chrono::seconds kClockStep{5};  // back by more than this: somebody set the clock

// After a failure: soon enough to try several times before the end.
milliseconds retry_after(Time now, const ktls::SvidPtr& svid) {
  if (!svid) return kRetryMax;
  const auto left = std::chrono::duration_cast<milliseconds>(svid->not_after - now);
  return std::clamp(left / 8, kRetryMin, kRetryMax);
}

bool same_certificates(const ktls::Svid& a, const ktls::Svid& b) {
  return X509_cmp(a.leaf.get(), b.leaf.get()) == 0 &&
         std::equal(a.intermediates.begin(), a.intermediates.end(), b.intermediates.begin(),
                    b.intermediates.end(), [](const ktls::X509Ptr& x, const ktls::X509Ptr& y) {
                      return X509_cmp(x.get(), y.get()) == 0;
                    });
}

}  // namespace

SourceBase::SourceBase(asio::io_context& io, BaseOptions options)
    : io_(io), options_(std::move(options)), timer_(io) {
  if (!options_.now) options_.now = [] { return std::chrono::system_clock::now(); };
}

SourceBase::~SourceBase() { stop(); }

Status SourceBase::start(Handlers handlers) {
  last_tick_ = now();
  if (auto loaded = load(); !loaded) return loaded;
  handlers_ = std::move(handlers);
  running_ = true;
  next_look_ = std::chrono::steady_clock::now() + options_.poll;
  directory_->on_demand(
      [this, &io = io_, alive = std::weak_ptr<char>(alive_)](const std::string& service) {
        asio::post(io, [this, alive, service] {
          if (!alive.expired()) want(service);
        });
      });
  // What load() reported could not be passed on from inside start().
  asio::post(io_, [this, alive = std::weak_ptr<char>(alive_)] {
    if (!alive.expired() && running_) tick();
  });
  return {};
}

void SourceBase::stop() {
  if (!std::exchange(running_, false)) return;
  timer_.cancel();
  handlers_ = {};
  queue_.clear();
  directory_->on_demand(nullptr);
  directory_->refuse_all(Error{{}, "identities: stopped"});
}

void SourceBase::allow(const std::vector<std::string>& services) {
  allowed_ = {services.begin(), services.end()};
  std::vector<std::string> left;
  for (const auto& [service, entry] : entries_)
    if (!allowed_.contains(service)) left.push_back(service);
  for (const auto& service : left) {
    const auto found = entries_.find(service);  // a handler may have changed them
    if (found == entries_.end() || allowed_.contains(service)) continue;
    Entry entry = std::move(found->second);
    entries_.erase(found);
    forget(service);
    lose(service, entry, "no workload of this node has this service any more");
  }
}

void SourceBase::want(const std::string& service) {
  if (!running_) return directory_->refuse(service, Error{{}, "identities: stopped"});
  if (!allowed_.contains(service))
    return refuse(service, "no workload of this node has this service");
  const auto found = entries_.find(service);
  if (found != entries_.end()) {
    // With an SVID the request has been answered by put(); queued, it will be.
    if (!found->second.svid && !found->second.queued) refuse(service, found->second.why);
    return;
  }
  if (entries_.size() >= options_.max_identities)
    return refuse(service,
                  fmt::format("the bound of {} identities is reached", options_.max_identities));
  enqueue(service, entries_[service]);
}

void SourceBase::refuse(const std::string& service, const std::string& why) {
  ++counters_.refused;
  directory_->refuse(service, Error{{}, fmt::format("{}: {}", service, why)});
}

void SourceBase::enqueue(const std::string& service, Entry& entry) {
  if (entry.queued) return;
  entry.queued = true;
  queue_.push_back(service);
  if (std::exchange(pumping_, true)) return;
  asio::post(io_, [this, alive = std::weak_ptr<char>(alive_)] {
    if (!alive.expired()) pump();
  });
}

void SourceBase::pump() {
  for (std::size_t i = 0; i < kSlice && running_ && !queue_.empty(); ++i) {
    const std::string service = std::move(queue_.front());
    queue_.pop_front();
    const auto found = entries_.find(service);
    if (found == entries_.end() || !found->second.queued) continue;
    found->second.queued = false;
    make_one(service, found->second);
  }
  pumping_ = running_ && !queue_.empty();
  if (pumping_)
    asio::post(io_, [this, alive = std::weak_ptr<char>(alive_)] {
      if (!alive.expired()) pump();
    });
  else if (running_)
    arm();
}

void SourceBase::make_one(const std::string& service, Entry& entry) {
  auto result = make(service);
  if (!result) return failed(service, entry, result.error().what);
  if (result->svid) return made(service, entry, std::move(*result));
  entry.renew_at = kNever;
  lose(service, entry, result->why);
}

// The handlers come last: they may have changed everything when they return.
void SourceBase::made(const std::string& service, Entry& entry, Made made) {
  entry.renew_at = made.renew_at;
  entry.why.clear();
  report("service " + service, {});
  if (entry.svid && same_certificates(*entry.svid, *made.svid)) return;
  ++(entry.svid ? counters_.renewed : counters_.issued);
  if (!entry.svid) ++counters_.identities;
  entry.svid = made.svid;
  directory_->put(service, made.svid);
  if (auto handler = handlers_.on_svid) handler(service, made.svid);
}

// An SVID that is still good stays.
void SourceBase::failed(const std::string& service, Entry& entry, const std::string& why) {
  ++counters_.failed;
  entry.renew_at = now() + retry_after(now(), entry.svid);
  if (!entry.svid) {
    entry.why = why;
    directory_->refuse(service, Error{{}, fmt::format("{}: {}", service, why)});
  }
  report("service " + service, why);
}

void SourceBase::lose(const std::string& service, Entry& entry, const std::string& why) {
  entry.why = why;
  entry.queued = false;
  const bool had = entry.svid != nullptr;
  entry.svid = nullptr;
  if (had) {
    --counters_.identities;
    ++counters_.gone;
    directory_->remove(service);
  }
  directory_->refuse(service, Error{{}, fmt::format("{}: {}", service, why)});
  report("service " + service, {});
  if (!had) return;
  if (auto handler = handlers_.on_gone) handler(service);
}

void SourceBase::set_bundle(ktls::TrustBundlePtr bundle) {
  directory_->set_bundle(bundle);
  if (auto handler = handlers_.on_bundle) handler(bundle);
}

void SourceBase::make_again(const std::string& service) {
  if (const auto found = entries_.find(service); found != entries_.end())
    enqueue(service, found->second);
}

void SourceBase::make_all_again() {
  for (auto& [service, entry] : entries_) enqueue(service, entry);
}

void SourceBase::report(const std::string& concern, const std::string& what) {
  if (what.empty())
    problems_.erase(concern);
  else
    problems_[concern] = what;
}

void SourceBase::tick() {
  const auto steady = std::chrono::steady_clock::now();
  if (steady >= next_look_) {
    next_look_ = steady + options_.poll;
    look();
    if (!running_) return;
  }
  const Time time = now();
  // A clock that was ahead: what was made then is not valid yet for the peers.
  const bool set_back = time + kClockStep < last_tick_;
  last_tick_ = time;
  std::vector<std::string> ended;
  for (auto& [service, entry] : entries_) {
    if (entry.svid && entry.svid->not_after <= time) ended.push_back(service);
    if (entry.renew_at <= time || set_back) enqueue(service, entry);
  }
  for (const auto& service : ended) {
    const auto found = entries_.find(service);
    if (found == entries_.end() || !found->second.svid) continue;
    const bool queued = found->second.queued;
    lose(service, found->second, "the SVID has ended");
    if (!running_) return;
    // Due anyway: perhaps it can be made anew.
    if (const auto again = entries_.find(service); queued && again != entries_.end())
      again->second.queued = true;
  }
  std::string all;
  for (const auto& [concern, what] : problems_) {
    if (!all.empty()) all += "; ";
    all += what;
    if (all.size() > 1024) break;  // many services: the first are enough to begin with
  }
  if (all != std::exchange(reported_, all)) {
    auto bad = handlers_.on_error;
    auto good = handlers_.on_good;
    if (!all.empty() && bad) bad(all);
    if (all.empty() && good) good();
    if (!running_) return;
  }
  arm();
}

// At the next poll, or when something is due before.
void SourceBase::arm() {
  const auto steady = std::chrono::steady_clock::now();
  auto wait = std::chrono::ceil<milliseconds>(next_look_ - steady);
  const Time time = now();
  for (const auto& [service, entry] : entries_) {
    Time due = entry.queued ? kNever : entry.renew_at;
    if (entry.svid) due = std::min<Time>(due, entry.svid->not_after);
    if (due != kNever) wait = std::min(wait, std::chrono::ceil<milliseconds>(due - time));
  }
  timer_.expires_after(std::max(wait, kShortestTimer));
  timer_.async_wait(
      [this, alive = std::weak_ptr<char>(alive_)](const boost::system::error_code& code) {
        if (!code && !alive.expired() && running_) tick();
      });
}

}  // namespace mesh::identity
