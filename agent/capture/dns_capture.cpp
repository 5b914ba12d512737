// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/dns_capture.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "agent/base/log.h"
#include "agent/base/netns.h"
#include "agent/bpf/abi_convert.h"
#include "mesh/dns.h"

namespace mesh::capture {
namespace {

constexpr int kBacklog = 128;

Endpoint loopback4() { return {*Address::parse("127.0.0.1"), MESH_PORT_DNS}; }
Endpoint loopback6() { return {*Address::parse("::1"), MESH_PORT_DNS}; }

}  // namespace

// SO_REUSEPORT: a successor opens its sockets beside ours, so that no question is refused between.
Result<UniqueFd> DnsCapture::make(int netns_fd, const Endpoint& at, int type) const {
  UniqueFd fd;
  auto status = in_netns(netns_fd, [&]() -> Status {
    const SockAddr address(at);
    const int one = 1;
    fd.reset(::socket(address.family(), type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) return fail_errno(errno, "socket");
    if (::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) != 0)
      return fail_errno(errno, "SO_REUSEPORT");
    if (::bind(fd.get(), address.get(), address.length) != 0) return fail_errno(errno, "bind");
    // Before anybody may find it: the hooks send questions only to a socket with the mark.
    MESH_TRY(datapath_.mark_agent_socket(fd.get()), "mark");
    if (type == SOCK_STREAM && ::listen(fd.get(), kBacklog) != 0)
      return fail_errno(errno, "listen");
    return {};
  });
  if (!status) return context(std::move(status).error(), "DNS at " + at.to_string());
  return fd;
}

bool DnsCapture::open_family(const workload::Workload& workload,
                             const std::shared_ptr<const NetnsHandle>& netns, const Endpoint& at) {
  auto udp = make(netns->fd.get(), at, SOCK_DGRAM);
  auto tcp = udp ? make(netns->fd.get(), at, SOCK_STREAM) : Result<UniqueFd>(UniqueFd{});
  if (!udp || !tcp) {
    log::warn("workload {}: names of the mesh are not answered: {}", workload.hint,
              (!udp ? udp.error() : tcp.error()).what);
    return false;
  }
  dns::NamespaceSockets sockets;
  sockets.make = [netns, this](int family, dns::Transport transport) -> Result<UniqueFd> {
    const int type = transport == dns::Transport::Udp ? SOCK_DGRAM : SOCK_STREAM;
    auto made = sockets_in_netns(netns->fd.get(), family, type, 1);
    if (!made) return tl::unexpected(std::move(made).error());
    MESH_TRY(datapath_.mark_agent_socket(made->front().get()), "mark a question");
    return std::move(made->front());
  };
  sockets.resolver_of = [cookie = netns->cookie, this](
                            const Endpoint& client,
                            dns::Transport transport) -> std::optional<Endpoint> {
    if (transport == dns::Transport::Udp) return datapath_.dns_resolver(cookie, client.port);
    auto target = datapath_.relay_target(cookie, client);
    // Without the flag it is the record of a relayed client with the same port: what is asked there
    // would leave the pod in clear.
    if (!target || !*target || ((*target)->flags & MESH_TARGET_DNS) == 0) return std::nullopt;
    return Endpoint{bpf::from_abi((*target)->addr), (*target)->port};
  };
  std::vector<UniqueFd> udps, tcps;
  udps.push_back(std::move(*udp));
  tcps.push_back(std::move(*tcp));
  server_.serve(netns->cookie, std::move(sockets), std::move(udps), std::move(tcps));
  return true;
}

void DnsCapture::open(const workload::Workload& workload,
                      const std::shared_ptr<const NetnsHandle>& netns) {
  Opened& opened = opened_[workload.cookie];
  if (workload.has_ipv4_loopback && !opened.v4)
    opened.v4 = open_family(workload, netns, loopback4());
  if (workload.has_ipv6_loopback && !opened.v6)
    opened.v6 = open_family(workload, netns, loopback6());
}

void DnsCapture::drop(std::uint64_t netns_cookie) {
  if (opened_.erase(netns_cookie) != 0) server_.drop(netns_cookie);
}

void DnsCapture::seed() {
  catalog::Catalog::Services services;
  for (const auto& [address, label] : datapath_.vips.content()) {
    const auto name = datapath_.names.content().find(label);
    if (name == datapath_.names.content().end()) continue;
    catalog::Service& service = services[name->second.name];
    service.name = name->second.name;
    const Address vip = bpf::from_abi(address);
    (vip.is_v4() ? service.vip4 : service.vip6) = vip;
  }
  if (!services.empty()) set_catalog(std::make_shared<const catalog::Catalog>(std::move(services)));
}

void DnsCapture::set_catalog(std::shared_ptr<const catalog::Catalog> catalog) {
  server_.set_catalog(std::move(catalog),
                      [this](const catalog::Service&, const catalog::Instance& instance) {
                        return health_.usable(instance.id);
                      });
}

}  // namespace mesh::capture
