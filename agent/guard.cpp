// SPDX-License-Identifier: Apache-2.0
// The commands that leave programs behind or take them away without running an agent.
#include <sys/socket.h>
#include <unistd.h>

#include "agent/app.h"
#include "agent/base/log.h"
#include "agent/base/netns.h"
#include "agent/bpf/datapath.h"
#include "agent/capture/desired.h"
#include "agent/catalog/own_node.h"

namespace mesh {

Status require_privileges() {
  if (::geteuid() != 0)
    return fail(
        "mesh-agent loads BPF programs and enters network namespaces: run it as root (see "
        "`mesh-agent "
        "preflight`)");
  return {};
}

// What pods are, from the catalog if nobody said it: an agent has to know before it attaches.
Status find_node_cidrs(Options& options) {
  if (!options.node_cidrs.empty() || options.config_dir.empty()) return {};
  auto ranges = catalog::ranges_of_node(options.config_dir, options.node_name);
  if (!ranges)
    return context(std::move(ranges).error(), "find this node's ranges, without --node-cidr");
  std::vector<std::string> texts;
  for (const auto& cidr : *ranges) texts.push_back(cidr.to_string());
  MESH_TRY(set_node_cidrs(options, std::move(*ranges), "cidrs of node " + options.node_name),
           "without --node-cidr");
  log::info("pods of this node are those in {}, as the catalog has it for node {}",
            fmt::join(texts, " "), options.node_name);
  return {};
}

Status close_mesh(bpf::Datapath& datapath, const Options& options) {
  // The node's own processes are not workloads: they pass. Everybody else is unclassified.
  UniqueFd probe(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!probe) return fail_errno(errno, "socket");
  auto cookie = netns_cookie(probe.get());
  if (!cookie) return context(std::move(cookie).error(), "own network namespace");
  MESH_TRY(datapath.netns.put(*cookie, mesh_netns{MESH_NETNS_HOST, MESH_LABEL_NODE, {}, {}}),
           "namespaces");
  capture::NodeState node;
  node.node_cidrs = options.node_cidrs;
  node.vip_cidrs = {*Cidr::parse(kVipCidr4), *options.vip_cidr6};
  node.mesh_cidrs = options.mesh_cidrs;
  // What an earlier agent knew beyond that stays until this one knows more.
  return datapath.cidrs.sync(capture::known_cidrs(node), /*only_additions=*/true);
}

int run_guard(const Options& given) {
  Options options = given;
  const auto guard = [&]() -> Status {
    if (auto status = find_node_cidrs(options); !status) {
      if (options.mesh_cidrs.empty()) return status;
      log::warn("only --mesh-cidr is guarded: {}", status.error().what);
    }
    MESH_TRY(require_privileges(), "guard");
    auto programs = bpf::Programs::open(
        {options.pin_dir, options.cgroup_root, /*disable_tracing=*/options.disable_tracing});
    if (!programs) return tl::unexpected(std::move(programs).error());
    bpf::Datapath datapath(std::move(*programs));
    MESH_TRY(close_mesh(datapath, options), "guard");
    return datapath.set_accel(datapath.accel());
  };
  if (auto status = guard(); !status) {
    log::error("{}", status.error().what);
    return 1;
  }
  log::info("mesh destinations are refused until mesh-agent starts (pins in {})", options.pin_dir);
  return 0;
}

int run_cleanup(const Options& options) {
  auto removed = bpf::Pins::cleanup(options.pin_dir);
  if (!removed) {
    log::error("cleanup: {}", removed.error().what);
    return 1;
  }
  log::info("cleanup: {} pins removed from {}", removed->size(), options.pin_dir);
  return 0;
}

}  // namespace mesh
