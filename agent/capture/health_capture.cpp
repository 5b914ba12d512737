// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/health_capture.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/post.hpp>

#include "agent/base/netns.h"
#include "agent/bpf/abi_convert.h"

namespace mesh::capture {
namespace {

// To the loopback as the agent itself, which no hook judges. To the workload's own address as a leg
// whose client is the workload: it may always talk to itself, and its application sees its address.
health::MakeSocket socket_maker(std::shared_ptr<const NetnsHandle> netns,
                                const bpf::Datapath& datapath) {
  return [netns = std::move(netns), &datapath](const Endpoint& to) -> Result<UniqueFd> {
    auto made = sockets_in_netns(netns->fd.get(), SockAddr(to).family(), SOCK_STREAM, 1);
    if (!made) return tl::unexpected(std::move(made).error());
    UniqueFd fd = std::move(made->front());
    if (to.address.is_loopback()) {
      MESH_TRY(datapath.mark_agent_socket(fd.get()), "mark a check");
      return fd;
    }
    mesh_leg self{};
    self.client_addr = bpf::to_abi(to.address);
    self.source = MESH_LABEL_NODE;
    self.path = MESH_PATH_LOCAL;
    MESH_TRY(datapath.mark_leg(fd.get(), self), "mark a check");
    return fd;
  };
}

}  // namespace

HealthCapture::HealthCapture(boost::asio::io_context& io, const bpf::Datapath& datapath,
                             std::string own_prefix, std::function<void()> changed)
    : datapath_(datapath),
      own_prefix_(std::move(own_prefix)),
      runner_(table_, [&io, changed = std::move(changed)] { boost::asio::post(io, changed); }) {}

void HealthCapture::add_tasks(const catalog::Instance& instance, const Placement& placement,
                              const NetnsDirectory& directory,
                              std::vector<health::Task>& tasks) const {
  const auto* holder = placement.holder(instance.address);
  const auto netns = holder == nullptr ? nullptr : directory.find(instance.address);
  for (const auto& check : instance.details->checks) {
    health::Task task;
    task.instance = instance.id;
    task.check = check;
    if (!instance.id.starts_with(own_prefix_)) task.check.deregister_after = {};
    if (const auto carried = carried_.find(instance.id); carried != carried_.end())
      task.carried = carried->second;
    if (netns) {
      task.netns = netns->cookie;
      task.own = holder->addresses;
      task.make_socket = socket_maker(netns, datapath_);
    } else {
      task.absent = fmt::format("no workload of this node has {}", instance.address.to_string());
    }
    tasks.push_back(std::move(task));
  }
}

void HealthCapture::update(const NodeState& node, const catalog::Catalog& catalog,
                           const NetnsDirectory& directory) {
  const Placement placement(node, catalog);
  const auto is_own = [&](const Address& address) {
    return std::any_of(node.node_cidrs.begin(), node.node_cidrs.end(),
                       [&](const Cidr& cidr) { return cidr.contains(address); });
  };
  std::vector<health::Task> tasks;
  for (const auto& service : catalog.services().pointers())
    for (const auto& instance : service->instances)
      if (!instance.details->checks.empty() && is_own(instance.address))
        add_tasks(instance, placement, directory, tasks);
  for (const auto& instance : kept_)
    if (is_own(instance.address)) add_tasks(instance, placement, directory, tasks);
  if (!tasks.empty()) carried_.clear();
  runner_.set(std::move(tasks));
}

}  // namespace mesh::capture
