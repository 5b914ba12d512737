// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/directory.h"

#include <utility>

namespace mesh::identity {

Identity Directory::find(std::string_view service) const {
  std::shared_lock lock(mutex_);
  const auto found = svids_.find(service);
  return {found == svids_.end() ? nullptr : found->second, bundle_,
          epoch_.load(std::memory_order_relaxed)};
}

ktls::TrustBundlePtr Directory::bundle() const {
  std::shared_lock lock(mutex_);
  return bundle_;
}

std::size_t Directory::size() const {
  std::shared_lock lock(mutex_);
  return svids_.size();
}

void Directory::request(const std::string& service, Ready ready) {
  Identity identity;
  std::shared_ptr<const Demand> demand;
  const char* refusal = nullptr;
  {
    std::unique_lock lock(mutex_);
    if (const auto found = svids_.find(service); found != svids_.end()) {
      identity = {found->second, bundle_, epoch_.load(std::memory_order_relaxed)};
    } else if (!demand_) {
      refusal = "no source of identities";
    } else if (waiters_ == kMaxWaiting) {
      refusal = "too many requests wait for an identity";
    } else {
      auto& waiting = waiting_[service];
      if (waiting.empty()) demand = demand_;  // one question a service is enough
      waiting.push_back(std::move(ready));
      ++waiters_;
      if (!demand) return;
    }
  }
  if (refusal != nullptr)
    ready(fail("{}: {}", service, refusal));
  else if (identity.svid)
    ready(std::move(identity));
  else
    (*demand)(service);
}

void Directory::put(const std::string& service, ktls::SvidPtr svid) {
  std::vector<Ready> ready;
  Identity identity;
  {
    std::unique_lock lock(mutex_);
    identity = {svid, bundle_, epoch_.load(std::memory_order_relaxed)};
    std::swap(svids_[service], svid);  // the old one is freed outside the lock
    ready = take_waiting(service);
  }
  for (auto& call : ready) call(identity);
}

void Directory::remove(const std::string& service) {
  ktls::SvidPtr old;
  std::unique_lock lock(mutex_);
  if (const auto found = svids_.find(service); found != svids_.end()) {
    old = std::move(found->second);
    svids_.erase(found);
  }
  lock.unlock();
}

void Directory::set_bundle(ktls::TrustBundlePtr bundle) {
  std::unique_lock lock(mutex_);
  std::swap(bundle_, bundle);
  epoch_.fetch_add(1, std::memory_order_release);
  lock.unlock();
}

void Directory::refuse(const std::string& service, const Error& error) {
  std::vector<Ready> ready;
  {
    std::unique_lock lock(mutex_);
    ready = take_waiting(service);
  }
  for (auto& call : ready) call(tl::unexpected(error));
}

void Directory::refuse_all(const Error& error) {
  std::map<std::string, std::vector<Ready>> waiting;
  {
    std::unique_lock lock(mutex_);
    std::swap(waiting, waiting_);
    waiters_ = 0;
  }
  for (auto& [service, ready] : waiting)
    for (auto& call : ready) call(tl::unexpected(error));
}

void Directory::on_demand(Demand demand) {
  std::unique_lock lock(mutex_);
  demand_ = demand ? std::make_shared<const Demand>(std::move(demand)) : nullptr;
}

std::vector<Directory::Ready> Directory::take_waiting(const std::string& service) {
  auto node = waiting_.extract(service);
  if (node.empty()) return {};
  waiters_ -= node.mapped().size();
  return std::move(node.mapped());
}

}  // namespace mesh::identity
