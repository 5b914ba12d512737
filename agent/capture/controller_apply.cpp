// SPDX-License-Identifier: Apache-2.0
// From what is desired to the maps: in which order, and whether it is still there.
#include <array>
#include <cstring>
#include <string_view>
#include <utility>

#include "agent/base/log.h"
#include "agent/capture/controller.h"

namespace mesh::capture {
namespace {

constexpr unsigned kVerifyAllEvery = 120;  // calls: ten minutes; 0.1 s for 100,000 endpoints

using Ports = decltype(Identities::ports);

// Whether no port is strict that was not. One that was nobody's may have been permissive before:
// what came in then stayed when it left the catalog. Looks only at what the two do not share.
bool as_strict(const Ports& before, const Ports& now) {
  for (std::size_t i = 0; i < Ports::kShards; ++i) {
    if (before.shares(i, now)) continue;
    for (const auto& [at, port] : now.shard(i)) {
      if ((port.flags & MESH_SVC_PERMISSIVE) != 0) continue;
      const auto it = before.find(at);
      if (it == before.end() || (it->second.flags & MESH_SVC_PERMISSIVE) != 0) return false;
    }
  }
  return true;
}

// Whether nothing that is open can be allowed by one and denied by the other.
bool decides_alike(const PolicyView* before, const PolicyView& now) {
  if (before == nullptr) return false;  // an earlier agent may have let in what this one does not
  if (now.trivial()) return as_strict(before->identities().ports, now.identities().ports);
  if (&before->table() != &now.table() && !(before->table() == now.table())) return false;
  const Identities& a = before->identities();
  const Identities& b = now.identities();
  return a.ports == b.ports && a.residents == b.residents && a.addrs == b.addrs &&
         a.netns == b.netns;
}

// Nor any address be somebody's whose it was not: a connection of the one who had it earlier stays
// when he leaves the catalog, and ends when it is somebody else's. Pods that go are no reason to
// walk over all that is open.
bool places_alike(const PolicyView* before, const PolicyView& now) {
  if (before == nullptr) return false;
  const auto& was = before->identities().addrs;
  const auto& is = now.identities().addrs;
  for (std::size_t i = 0; i < was.kShards; ++i) {
    if (was.shares(i, is)) continue;
    for (const auto& [address, owner] : is.shard(i))
      if (const auto it = was.find(address); it == was.end() || it->second.label != owner.label)
        return false;
  }
  return true;
}

struct Part {
  std::string_view name;
  Result<std::size_t> (*repair)(bpf::Datapath&);
};
constexpr std::array kParts{
    Part{"services", [](bpf::Datapath& maps) { return maps.repair_services(); }},
    Part{"addresses", [](bpf::Datapath& maps) { return maps.addrs.repair(); }},
    Part{"ports", [](bpf::Datapath& maps) { return maps.ports.repair(); }},
    Part{"VIPs", [](bpf::Datapath& maps) { return maps.vips.repair(); }},
    Part{"residents", [](bpf::Datapath& maps) { return maps.residents.repair(); }},
    Part{"namespaces", [](bpf::Datapath& maps) { return maps.netns.repair(); }},
    Part{"CIDRs", [](bpf::Datapath& maps) { return maps.cidrs.repair(); }},
};

}  // namespace

// Without a catalog nobody knows the services of a workload. One that an earlier agent knew keeps
// its label; an address that has gone or changed hands leaves the services it was in.
// So do other nodes and their workloads: without them their addresses would be outside the mesh.
Status Controller::adopt_services(Desired& desired) {
  for (const auto& [cidr, kind] : datapath_.cidrs.content())
    if (kind == MESH_CIDR_REMOTE || kind == MESH_CIDR_MESH) desired.cidrs.emplace(cidr, kind);
  const auto namespaces = desired.netns;
  for (auto [cookie, netns] : namespaces)
    if (auto it = datapath_.netns.content().find(cookie); it != datapath_.netns.content().end()) {
      netns.label = it->second.label;
      desired.netns.insert_or_assign(cookie, netns);
    }
  for (const auto& [address, before] : datapath_.addrs.content()) {
    auto now = desired.addrs.find(address);
    if (now == desired.addrs.end() && before.kind == MESH_ADDR_REMOTE) {
      desired.addrs.emplace(address, before);
      continue;
    }
    if (now != desired.addrs.end() && now->second.netns == before.netns) {
      mesh_addr_owner owner = now->second;
      owner.label = before.label;
      desired.addrs.insert_or_assign(address, owner);
      continue;
    }
    MESH_TRY(datapath_.drop_endpoints(address), "services");
    MESH_TRY(datapath_.residents.erase(address), "residents");
    std::vector<mesh_port_key> stale;
    for (const auto& [key, port] : datapath_.ports.content())
      if (std::memcmp(&key.addr, &address, sizeof address) == 0) stale.push_back(key);
    for (const auto& key : stale) MESH_TRY(datapath_.ports.erase(key), "ports");
  }
  return {};
}

// Before anybody is told who is where: a name that is new is judged from the start. The hooks, the
// dialers and whoever ends what is open get the same.
Status Controller::apply_policy(const DesiredState::Changes& changes) {
  auto& made = intentions_;
  const bool other_entries = made.entries != catalog_->shared_entries();
  if (!made.policy || other_entries ||
      (changes.protocols && !catalog_->entries().intentions.empty())) {
    made.entries = catalog_->shared_entries();
    made.policy = policy_of(*catalog_, options_.default_policy);
    made.table = nullptr;
  }
  if (!made.table || made.names != labels_.names()) {
    made.names = labels_.names();
    made.table =
        std::make_shared<const bpf::PolicyTable>(compile(*made.policy, made.names->by_name));
    made.in_maps = false;
  }
  if (changes.all || !made.in_maps) {
    made.in_maps = false;
    MESH_TRY(datapath_.policy.set(*made.table), "intentions");
    made.in_maps = true;
  }
  auto view = std::make_shared<const PolicyView>(
      made.policy, std::make_shared<const Identities>(state_.desired()), made.names, made.table);
  policy_->publish(view);
  const bool alike = decides_alike(judged_.get(), *view);
  const bool at_home = options_.mesh == nullptr || (judged_nodes_ == catalog_->shared_nodes() &&
                                                    places_alike(judged_.get(), *view));
  if (!alike || !at_home) {
    revoker_.wake();
    judge_again_ = true;
  }
  judged_ = std::move(view);
  judged_nodes_ = catalog_->shared_nodes();
  return {};
}

Status Controller::apply_names() {
  if (named_ == labels_.all().size()) return {};
  for (const auto& [name, label] : labels_.all()) {
    mesh_name value{};
    std::strncpy(value.name, name.c_str(), sizeof value.name - 1);
    MESH_TRY(datapath_.names.put(label, value), "names");
  }
  named_ = labels_.all().size();
  return {};
}

// Until the first catalog is there, services stay as an earlier agent left them: only who is who
// is brought up to date.
Status Controller::apply_without_catalog() {
  static const catalog::Catalog kEmpty;
  auto desired = compute(node_, kEmpty, labels_);
  if (!desired) return tl::unexpected(std::move(desired).error());
  MESH_TRY(adopt_services(*desired), "adopt");
  MESH_TRY(apply_names(), "adopt");
  return apply_identities(*desired);
}

Status Controller::apply_identities(const Identities& desired) {
  // New ranges before old ones go: between two ways of writing a range it is never left out.
  MESH_TRY(datapath_.cidrs.sync(desired.cidrs, /*only_additions=*/true), "CIDRs");
  MESH_TRY(datapath_.cidrs.sync(desired.cidrs), "CIDRs");
  // Who somebody is before where services are: an address never answers for its former owner.
  MESH_TRY(datapath_.addrs.sync(desired.addrs), "addresses");
  return datapath_.netns.sync(desired.netns);
}

Status Controller::apply_services(const DesiredState::Changes& changes) {
  const auto& all = state_.desired().services;
  const auto put = [&](std::uint32_t label, const DesiredService& service) {
    return datapath_.set_service(label, service.flags, service.endpoints, service.balance);
  };
  if (changes.all) {
    for (const auto& [label, service] : all) MESH_TRY(put(label, service), "services");
  } else {
    for (const auto label : changes.services)
      if (const auto it = all.find(label); it != all.end())
        MESH_TRY(put(label, it->second), "services");
  }
  MESH_TRY(datapath_.vips.sync(state_.desired().vips), "VIPs");
  if (changes.all) {
    for (const auto label : datapath_.services())
      if (all.count(label) == 0) MESH_TRY(datapath_.erase_service(label), "services");
  } else {
    for (const auto label : changes.services)
      if (all.count(label) == 0) MESH_TRY(datapath_.erase_service(label), "services");
  }
  return {};
}

Status Controller::apply_now() {
  node_.host_cookie = discovery_->host_cookie();
  const bool other_workloads = std::exchange(workloads_touched_, false);
  if (other_workloads) {
    node_.workloads.clear();
    for (const auto& [cookie, enrolled] : enrolled_) node_.workloads.push_back(enrolled.workload);
    publish_directory();
  }
  if (!catalog_) return apply_without_catalog();
  if (options_.health != nullptr) node_.health = options_.health->table().all();
  auto changes = state_.update(node_, catalog_, labels_);
  if (!changes) return tl::unexpected(std::move(changes).error());
  if (options_.health != nullptr && (changes->checks || apply_all_)) {
    options_.health->update(node_, *catalog_, *directory_);
    // Of checks that are new here.
    if (auto health = options_.health->table().all(); health != node_.health) {
      node_.health = std::move(health);
      auto more = state_.update(node_, catalog_, labels_);
      if (!more) return tl::unexpected(std::move(more).error());
      changes->services.merge(more->services);
    }
  }
  changes->all |= std::exchange(apply_all_, true);  // until all of this is done
  publish_mesh();  // what it takes away; the rest when it is settled

  const Desired& desired = state_.desired();
  MESH_TRY(apply_names(), "names");
  MESH_TRY(apply_policy(*changes), "policy");
  if (options_.mesh != nullptr) options_.mesh->settle();
  // Of addresses that come: before them. Of those that go: after.
  MESH_TRY(datapath_.residents.sync(desired.residents, /*only_additions=*/true), "residents");
  MESH_TRY(apply_identities(desired), "identities");
  if (state_.any_http()) MESH_TRY(datapath_.programs().attach_sniffer(), "services");
  MESH_TRY(datapath_.ports.sync(desired.ports), "ports");
  MESH_TRY(apply_services(*changes), "services");
  if (!state_.any_http()) MESH_TRY(datapath_.programs().detach_sniffer(), "services");
  MESH_TRY(datapath_.residents.sync(desired.residents), "residents");
  apply_all_ = false;
  catalog_applied_ = true;
  // What came in by the ports as they were until now, while this was written or could not be.
  if (std::exchange(judge_again_, false)) revoker_.wake();
  return {};
}

// One part a call. Now and then what is wanted is made anew and compared too: if it differs, that
// is a mistake of ours, and what is made anew holds.
void Controller::verify() {
  if (frozen_ || !catalog_applied_ || apply_scheduled_) return;
  if (++verified_ % kVerifyAllEvery == 0) {
    const auto right = state_.verify(labels_);
    if (!right) return log::error("verify: {}", right.error().what);
    if (*right) return;
    datapath_.add_repaired(1);
    log::error("what the maps should hold was not what it is by the catalog: made anew");
    return apply();
  }
  const auto& [part, repair] = kParts[verified_ % kParts.size()];
  const auto mended = repair(datapath_);
  if (!mended) {
    log::error("verify: {}: {}", part, mended.error().what);
    return;
  }
  datapath_.add_repaired(*mended);
  if (*mended != 0)
    log::warn("{} entries of the maps ({}) were not as this agent has written them, and are again",
              *mended, part);
}

}  // namespace mesh::capture
