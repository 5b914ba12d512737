// SPDX-License-Identifier: Apache-2.0
#include "agent/store/health_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "agent/base/result.h"
#include "agent/syntax/json.h"

namespace mesh::store {
namespace {

using catalog::CheckStatus;

constexpr std::array kStatuses{CheckStatus::Passing, CheckStatus::Warning, CheckStatus::Critical};

// {"health": {"status": "passing"|"warning"|"critical", "output": TEXT}}, and nothing else.
Result<CheckStatus> read_health(const KeyValue& kv) {
  if (kv.too_large || kv.value.size() > HealthKeys::kMaxBytes)
    return fail("the value has more than {} bytes", HealthKeys::kMaxBytes);
  const auto value = syntax::read_json(kv.value);
  if (!value) return fail("{}", value.error().what);
  const auto wrong = [] {
    return fail(
        "expected {{\"health\": {{\"status\": \"passing\", \"warning\" or \"critical\"}}}}");
  };
  const auto* whole = value->get<syntax::Object>();
  const auto* health = whole != nullptr && whole->size() == 1 && whole->front().key == "health"
                           ? whole->front().value.get<syntax::Object>()
                           : nullptr;
  if (health == nullptr) return wrong();
  const std::string* status = nullptr;
  for (const auto& member : *health) {
    const auto* text = member.value.get<std::string>();
    if (text == nullptr) return wrong();
    if (member.key == "status" && status == nullptr)
      status = text;
    else if (member.key != "output")
      return wrong();
  }
  if (status != nullptr)
    for (const auto one : kStatuses)
      if (catalog::to_string(one) == *status) return one;
  return wrong();
}

std::string health_value(CheckStatus status, std::string_view output) {
  nlohmann::json health{{"status", catalog::to_string(status)}};
  if (!output.empty() && status != CheckStatus::Passing) {
    std::string text(output.substr(0, HealthKeys::kMaxOutput));
    for (char& c : text)
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
    health["output"] = std::move(text);
  }
  return nlohmann::json{{"health", std::move(health)}}.dump(
      -1, ' ', false, nlohmann::json::error_handler_t::replace);
}

CheckStatus initial_of(const catalog::Instance& instance) {
  auto worst = CheckStatus::Passing;
  for (const auto& check : instance.details->checks) worst = std::max(worst, check.initial);
  return worst;
}

// <service>/<instance> of a key.
std::pair<std::string_view, std::string_view> split(std::string_view id) {
  const auto slash = id.find('/');
  return {id.substr(0, slash), id.substr(slash + 1)};
}

}  // namespace

std::string health_key(std::string_view node, std::string_view service, std::string_view id) {
  return fmt::format("health/{}/{}/{}", node, service, id);
}

void HealthKeys::put(std::string_view node, std::string_view id, const KeyValue& kv) {
  const auto [service, instance] = split(id);
  auto health = read_health(kv);
  if (node == own_node_) {
    // Our own word comes from our checks; only of before they began, from here.
    if (first_load_ && health) carried_.insert_or_assign(std::string(instance), *health);
    return;
  }
  auto at = records_.find(service);
  const std::string name = fmt::format("{}/{}", node, instance);
  const bool exists = at != records_.end() && at->second.contains(name);
  if (!exists) {
    if (count_ >= kMaxKeys) {
      ++over_limit_;
      return;
    }
    ++count_;
    if (at == records_.end()) at = records_.emplace(std::string(service), Records{}).first;
  }
  auto& record = at->second[name];
  const auto before = std::exchange(record, {health ? *health : CheckStatus::Passing,
                                             health ? "" : health.error().what, record.use});
  if (!exists || before.status != record.status || before.refused != record.refused)
    touched_.insert(at->first);
}

void HealthKeys::erase(std::string_view node, std::string_view id) {
  const auto [service, instance] = split(id);
  const auto at = records_.find(service);
  if (at == records_.end()) return;
  const auto record = at->second.find(fmt::format("{}/{}", node, instance));
  if (record == at->second.end()) return;
  --count_;
  touched_.insert(at->first);
  at->second.erase(record);
  if (at->second.empty()) records_.erase(at);
}

void HealthKeys::for_each_key(const std::function<void(std::string key)>& body) const {
  for (const auto& [service, records] : records_)
    for (const auto& [name, record] : records) {
      const auto slash = name.find('/');
      body(health_key(name.substr(0, slash), service, name.substr(slash + 1)));
    }
}

void HealthKeys::want(const std::string& service, const std::string& id,
                      const catalog::Instance& instance) {
  auto& own = own_[{id, service}];
  own = {initial_of(instance), health_key(own_node_, service, id)};
  write(id, own);
}

// The files may have been read before: without this, what their checks begin as would be written
// over what an earlier agent said, until the first report.
void HealthKeys::first_load_done() {
  if (!std::exchange(first_load_, false)) return;
  for (const auto& [name, own] : own_) write(name.first, own);
}

void HealthKeys::unwant(const std::string& service, const std::string& id) {
  const auto at = own_.find({id, service});
  if (at == own_.end()) return;
  wanted_.erase(at->second.key);
  own_.erase(at);
}

// An output alone is no reason to write again: it may be another one after every probe.
void HealthKeys::write(const std::string& id, const Own& own) {
  auto status = own.initial;
  std::string_view output;
  if (const auto carried = carried_.find(id); carried != carried_.end()) status = carried->second;
  if (const auto report = reports_.find(id); report != reports_.end()) {
    status = report->second.status;
    output = report->second.output;
  }
  wanted_.insert_or_assign(own.key, health_value(status, output));
}

void HealthKeys::report(std::map<std::string, InstanceReport, std::less<>> reports) {
  const auto before = std::exchange(reports_, std::move(reports));
  for (auto& [id, report] : reports_) {
    carried_.erase(id);
    const auto old = before.find(id);
    if (old == before.end() || old->second.status != report.status) continue;
    report.output = old->second.output;  // what was seen when the status began
  }
  for (const auto& [name, own] : own_) write(name.first, own);
}

std::shared_ptr<const SharedHealth> HealthKeys::build(const catalog::Catalog& catalog) {
  if (std::exchange(all_touched_, false)) {
    for (const auto& [name, service] : catalog.services()) touched_.insert(name);
    for (const auto& [name, records] : records_) touched_.insert(name);
    for (const auto& [name, health] : unhealthy_) touched_.insert(name);
  }
  for (const auto& name : std::exchange(touched_, {})) build_service(name, catalog);
  if (!std::exchange(changed_, false)) return shared_;
  auto shared = std::make_shared<SharedHealth>();
  for (const auto& [name, health] : unhealthy_)
    for (const auto& [instance, status] : health) {
      auto& worst = shared->others[instance];
      worst = std::max(worst, status);
    }
  shared->carried = carried_;
  shared_ = std::move(shared);
  return shared_;
}

void HealthKeys::build_service(const std::string& name, const catalog::Catalog& catalog) {
  const auto at = records_.find(name);
  if (at != records_.end())
    for (auto& [told, record] : at->second) record.use = Use::Unknown;
  HealthByInstance now;
  std::string key;
  const auto* service = catalog.find(name);
  if (service != nullptr)
    for (const auto& instance : service->instances) {
      const auto* node = catalog.node_of(instance.address);
      // Nobody is reached where no node is, and our own checks speak for ours.
      if (node == nullptr || node->name == own_node_) continue;
      if (node->gone) {
        now.emplace(instance.id, CheckStatus::Critical);
        continue;
      }
      auto status = initial_of(instance);  // until its node has said something
      if (at != records_.end()) {
        key.assign(node->name).append("/").append(instance.id);
        const auto record = at->second.find(key);
        if (record != at->second.end() && record->second.refused.empty()) {
          record->second.use = Use::Counts;
          status = record->second.status;
        }
      }
      if (status != CheckStatus::Passing) now.emplace(instance.id, status);
    }
  // A word of a node about an instance that is not there.
  if (service != nullptr && at != records_.end()) {
    std::unordered_set<std::string_view> ids;
    for (const auto& instance : service->instances) ids.insert(instance.id);
    for (auto& [told, record] : at->second)
      if (record.use == Use::Unknown && record.refused.empty() &&
          ids.contains(std::string_view(told).substr(told.find('/') + 1)))
        record.use = Use::OtherNode;
  }
  const auto before = unhealthy_.find(name);
  if (before == unhealthy_.end() ? now.empty() : before->second == now) return;
  changed_ = true;
  if (now.empty())
    unhealthy_.erase(before);
  else
    unhealthy_.insert_or_assign(name, std::move(now));
}

std::size_t HealthKeys::unknown() const {
  std::size_t count = 0;
  for (const auto& [service, records] : records_)
    for (const auto& [name, record] : records)
      count += record.refused.empty() && record.use == Use::Unknown;
  return count;
}

std::size_t HealthKeys::refused() const {
  std::size_t count = over_limit_;
  for (const auto& [service, records] : records_)
    for (const auto& [name, record] : records)
      count += !record.refused.empty() || record.use == Use::OtherNode;
  return count;
}

void HealthKeys::refusals(std::size_t most, const std::function<void(Refusal)>& body) const {
  for (const auto& [service, records] : records_)
    for (const auto& [name, record] : records) {
      if (record.refused.empty() && record.use != Use::OtherNode) continue;
      if (most-- == 0) return;
      const auto slash = name.find('/');
      body({key_text(health_key(name.substr(0, slash), service, name.substr(slash + 1))),
            record.refused.empty() ? "the instance is not on that node" : record.refused});
    }
}

}  // namespace mesh::store
