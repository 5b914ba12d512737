// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/report.h"

#include <time.h>

#include <array>

#include "agent/admin/balance_report.h"
#include "agent/admin/health_report.h"
#include "agent/admin/tls_report.h"
#include "agent/bpf/abi_convert.h"

namespace mesh::admin {
namespace {

using nlohmann::json;

std::string_view path_name(std::uint8_t path) {
  switch (path) {
#define MESH_X(id, text) \
  case MESH_PATH_##id:   \
    return text;
    MESH_PATHS(MESH_X)
#undef MESH_X
  }
  return "unknown";
}

std::string label_name(const bpf::Datapath& datapath, std::uint32_t label) {
  switch (label) {
    case MESH_LABEL_UNKNOWN:
      return "unknown";
    case MESH_LABEL_EXTERNAL:
      return "external";
    case MESH_LABEL_NODE:
      return "node";
    case MESH_LABEL_OUTSIDE:
      return "outside";
  }
  const auto& names = datapath.names.content();
  auto it = names.find(label);
  return it == names.end() ? fmt::format("label-{}", label) : it->second.name;
}

json strings(const std::vector<Address>& addresses) {
  json all = json::array();
  for (const auto& address : addresses) all.push_back(address.to_string());
  return all;
}

double seconds_since(std::uint64_t monotonic_ns) {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9 -
         static_cast<double>(monotonic_ns) / 1e9;
}

}  // namespace

json status_report(const ReportSources& s) {
  const auto& node = s.controller.node();
  json workloads = json::array();
  for (const auto& workload : node.workloads) {
    json services = json::array();
    if (const auto* catalog = s.controller.catalog())
      for (const auto& address : workload.addresses)
        for (const auto* service : catalog->services_at(address)) services.push_back(service->name);
    json identity;
    for (const auto& address : workload.addresses)
      if (auto id = s.mesh != nullptr ? s.mesh->identity_of(address) : ""; !id.empty())
        identity = std::move(id);
    json missing = json::array();
    for (const auto& [listener, why] : s.controller.missing_listeners(workload.cookie))
      missing.push_back({{"listener", listener}, {"reason", why}});
    workloads.push_back({{"name", workload.hint},
                         {"identity", std::move(identity)},
                         {"netns_cookie", workload.cookie},
                         {"addresses", strings(workload.addresses)},
                         {"missing_listeners", std::move(missing)},
                         {"services", std::move(services)}});
  }
  json services = json::array();
  json nodes = json::array();
  if (const auto* catalog = s.controller.catalog()) {
    const capture::Placement placement(node, *catalog);
    const auto& labels = s.controller.labels().all();
    for (const auto& [name, one] : catalog->nodes()) {
      json cidrs = json::array();
      for (const auto& cidr : one.cidrs) cidrs.push_back(cidr.to_string());
      nodes.push_back({{"name", name},
                       {"address", one.address.to_string()},
                       {"cidrs", std::move(cidrs)},
                       {"gone", one.gone},
                       {"self", name == node.name}});
    }
    for (const auto& [name, service] : catalog->services()) {
      json endpoints = json::array();
      const auto label = labels.find(name);
      const auto id = label == labels.end() ? 0 : label->second;
      const auto open = s.datapath.open_connections(id);
      std::array<std::size_t, 3> count{};
      for (const auto& instance : service.instances) {
        const auto place = placement.of(instance.address);
        ++count[static_cast<std::size_t>(place)];
        const auto* at = catalog->node_of(instance.address);
        endpoints.push_back({{"id", instance.id},
                             {"address", instance.endpoint().to_string()},
                             {"node", at == nullptr ? json() : json(at->name)},
                             {"place", capture::to_string(place)},
                             {"health", catalog::to_string(node.status_of(instance.id))},
                             {"enrolled", place == capture::Place::Local}});
        if (const auto it = open.find(instance.endpoint()); it != open.end())
          endpoints.back()["connections"] = it->second;
      }
      const auto counted = [&](capture::Place place) {
        return count[static_cast<std::size_t>(place)];
      };
      services.push_back({{"name", name},
                          {"protocol", to_string(service.protocol)},
                          {"vip4", service.vip4.to_string()},
                          {"vip6", service.vip6.to_string()},
                          {"path", service.flags.twoleg ? "twoleg" : "local"},
                          {"acceleration", service.flags.sockmap ? "sockmap" : "none"},
                          {"inbound", service.flags.permissive ? "permissive" : "strict"},
                          {"balance", balance_report(s.datapath, *catalog, name, id)},
                          {"endpoints",
                           {{"local", counted(capture::Place::Local)},
                            {"remote", counted(capture::Place::Remote)},
                            {"unreachable", counted(capture::Place::Unreachable)}}},
                          {"instances", std::move(endpoints)}});
    }
  }
  json unguarded = json::array();
  for (const auto& cidr : s.controller.unguarded()) unguarded.push_back(cidr.to_string());
  json degraded = json::array();
  for (const auto& feature : s.degraded)
    if (feature.active)
      degraded.push_back({{"feature", feature.feature}, {"reason", feature.reason}});
  json programs = json::array();
  for (const auto& program : s.datapath.programs().verified())
    programs.push_back(
        {{"name", program.name}, {"verified_instructions", program.verified_instructions}});
  json intentions;  // null before the first catalog
  if (const auto policy = s.controller.policy())
    intentions = {{"default", to_string(policy->policy().default_verdict())},
                  {"count", policy->policy().intentions().size()}};
  const auto accel = s.datapath.accel();
  const auto relay = s.relay.counters();
  return {{"version", MESH_VERSION},
          {"abi", MESH_ABI_VERSION},
          {"node", s.node_name},
          {"pins", s.datapath.programs().adopted() ? "adopted" : "fresh"},
          {"generation", s.datapath.programs().generation()},
          {"host_addresses", strings(node.host_addresses)},
          {"workloads", std::move(workloads)},
          {"nodes", std::move(nodes)},
          {"unguarded_cidrs", std::move(unguarded)},
          {"services", std::move(services)},
          {"intentions", std::move(intentions)},
          {"checks", checks_report(s.health)},
          {"degraded", std::move(degraded)},
          {"config_errors", s.config_errors},
          {"store", s.store},
          {"datapath_error", s.controller.last_failure()},
          {"sockmap",
           {{"enabled", accel.enabled},
            {"budget_bytes", accel.budget_bytes},
            {"max_write_bytes", accel.max_write_bytes}}},
          {"relay",
           {{"open", s.relay.active()},
            {"accepted", relay.accepted.get()},
            {"reset", relay.reset.get()}}},
          {"programs", std::move(programs)}};
}

Result<json> connections_report(const bpf::Datapath& datapath, relay::Pool& relay,
                                const capture::Controller& controller) {
  auto connections = datapath.connections();
  if (!connections) return tl::unexpected(std::move(connections).error());
  json all = json::array();
  const TlsReport tls(relay, controller.netns());
  for (const auto& c : *connections) {
    const Endpoint local{bpf::from_abi(c.tuple.local), c.tuple.local_port};
    const Endpoint remote{bpf::from_abi(c.tuple.remote), c.tuple.remote_port};
    const Endpoint peer{bpf::from_abi(c.peer_addr), c.peer_port};
    json one = {{"id", c.cookie},
                {"netns_cookie", c.netns},
                {"reporter", c.series.reporter == MESH_REPORTER_SOURCE ? "source" : "destination"},
                {"source", label_name(datapath, c.series.source)},
                {"destination", label_name(datapath, c.series.destination)},
                {"path", path_name(c.series.path)},
                {"local", local.to_string()},
                {"remote", remote.to_string()},
                {"peer", peer.to_string()},
                {"sent_bytes", c.sent_bytes},
                {"received_bytes", c.received_bytes},
                {"age_seconds", seconds_since(c.opened_ns)}};
    if ((c.flags & MESH_SOCK_ACCEL) != 0) one["sockmap_redirected_bytes"] = c.redirected_bytes;
    if (auto leg = tls.of(c); !leg.is_null()) one["tls"] = std::move(leg);
    all.push_back(std::move(one));
  }
  json namespaces = tls.namespaces();
  for (const auto& workload : controller.node().workloads)
    if (auto at = namespaces.find(std::to_string(workload.cookie)); at != namespaces.end())
      (*at)["workload"] = workload.hint;
  return json{{"connections", std::move(all)}, {"namespaces", std::move(namespaces)}};
}

}  // namespace mesh::admin
