// SPDX-License-Identifier: Apache-2.0
#include "tests/support/node.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <functional>

#include "tests/support/must.h"

namespace mesh::test {
namespace {

constexpr const char* kBridge = "br0";
constexpr unsigned kSlots = 4;           // nodes of one process at a time
constexpr unsigned kRanges = 192 * 256;  // 10.64.0.0/24 .. 10.255.255.0/24

std::array<bool, kSlots> slot_used{};

unsigned take_slot() {
  for (unsigned i = 0; i < kSlots; ++i) {
    if (!slot_used[i]) {
      slot_used[i] = true;
      return i;
    }
  }
  throw SetupFailed(fmt::format("more than {} nodes at a time", kSlots));
}

unsigned range_of(unsigned slot) {
  return (static_cast<unsigned>(::getpid()) * kSlots + slot) % kRanges;
}

// Interface names have at most 15 characters.
std::string link_name(std::string_view prefix, std::string_view name) {
  return fmt::format("{}{}", prefix, name).substr(0, 15);
}

// A hardware address that follows from the pod's address, as bridge plugins do it: neighbours that
// know the address from an earlier pod reach the new one at once.
std::string hardware_address(const std::string& key) {
  const std::uint64_t hash = std::hash<std::string>{}(key);
  return fmt::format("02:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", hash & 0xff, hash >> 8 & 0xff,
                     hash >> 16 & 0xff, hash >> 24 & 0xff, hash >> 32 & 0xff);
}

// A number for every two nodes, whichever is named first.
unsigned cable_number(const Node& a, const Node& b) {
  const unsigned low = std::min(a.slot(), b.slot());
  const unsigned high = std::max(a.slot(), b.slot());
  return high * (high - 1) / 2 + low;
}

unsigned cable_end(const Node& at, const Node& other) { return at.slot() < other.slot() ? 1 : 2; }

std::string cable_address6(const Node& at, const Node& other) {
  return fmt::format("fd00:11:{:x}::{}", cable_number(at, other), cable_end(at, other));
}

}  // namespace

SpawnOptions Place::options() const {
  SpawnOptions options;
  options.netns = &netns_;
  options.cgroup = cgroup_;
  return options;
}

Process Place::spawn(const std::vector<std::string>& argv, bool stdin_pipe) const {
  SpawnOptions with = options();
  with.stdin_pipe = stdin_pipe;
  return must(Process::spawn(argv, with), fmt::format("in {}", netns_.name()));
}

Process Place::fork_function(const std::function<int()>& body) const {
  return must(Process::fork_function(body, options()), fmt::format("in {}", netns_.name()));
}

RunResult Place::run(const std::vector<std::string>& argv, std::chrono::milliseconds limit) const {
  return must(test::run(argv, options(), limit), fmt::format("in {}", netns_.name()));
}

void Place::ip(std::string_view lines) const { must(netns_.ip(lines), "ip"); }

void Place::sysctl(std::string_view key, std::string_view value) const {
  must(netns_.sysctl(key, value), fmt::format("sysctl {} in {}", key, netns_.name()));
}

Node::Node(std::string name)
    : name_(std::move(name)),
      slot_(take_slot()),
      work_(),
      cgroup_(must(ScratchCgroup::create(name_), "node")) {
  try {
    const unsigned range = range_of(slot_);
    cidr4_ = fmt::format("10.{}.{}.0/24", 64 + range / 256, range % 256);
    cidr6_ = fmt::format("fd00:10:{:x}::/64", range);
    gateway4_ = address4(1);
    gateway6_ = address6(1);
    must(ensure_bpffs(), "node");
    work_ = must(ScratchDir::create("/run/" + scratch_name(name_)), "node");
    must(make_directory(config_dir()), "node");
    host_ = std::make_unique<Place>(must(Netns::create(name_), "node"),
                                    must(cgroup_.make_child("host"), "node"));
    host_->sysctl("net.ipv4.ip_forward", "1");
    host_->sysctl("net.ipv6.conf.all.forwarding", "1");
    host_->ip(
        fmt::format("link add {0} type bridge mcast_snooping 0\n"
                    "addr add {1}/24 dev {0}\n"
                    "addr add {2}/64 dev {0} nodad\n"
                    "link set {0} up\n",
                    kBridge, gateway4_, gateway6_));
  } catch (...) {
    slot_used[slot_] = false;
    throw;
  }
}

Node::~Node() {
  (void)kill_cgroup(cgroup_.path());  // first: processes hold namespaces
  pods_.clear();
  outsides_.clear();
  host_.reset();
  (void)remove_tree(pin_dir());  // swept by the next run if it fails
  slot_used[slot_] = false;
}

std::string Node::pin_dir() const { return "/sys/fs/bpf/" + scratch_name(name_); }

std::string Node::address4(unsigned host) const {
  return fmt::format("{}.{}", cidr4_.substr(0, cidr4_.rfind('.')), host);
}

std::string Node::address6(unsigned host) const {
  return fmt::format("{}{:x}", cidr6_.substr(0, cidr6_.find('/')), host);
}

Pod& Node::add_pod(const std::string& name) {
  const unsigned host = next_pod_++;
  return add_pod(name, address4(host), address6(host));
}

Pod& Node::add_pod(const std::string& name, const std::string& addr4, const std::string& addr6,
                   PodKind kind) {
  if (pods_.contains(name)) throw SetupFailed("pod exists: " + name);
  const std::string full = fmt::format("{}-{}", name_, name);
  Netns netns = must(kind == PodKind::Named ? Netns::create(full) : Netns::create_anonymous(full),
                     fmt::format("pod {}", name));
  std::string cgroup = must(cgroup_.make_child("pod-" + name), "pod");
  const std::string veth = link_name("v-", name);
  host_->ip(
      fmt::format("link add {0} type veth peer name eth0 netns {1}\n"
                  "link set {0} master {2} up\n",
                  veth, netns.token(), kBridge));
  std::string lines = fmt::format("link set eth0 address {}\nlink set eth0 up\n",
                                  hardware_address(addr4.empty() ? full + addr6 : addr4));
  if (!addr4.empty())
    lines += fmt::format("addr add {}/24 dev eth0\nroute add default via {}\n", addr4, gateway4_);
  if (!addr6.empty()) {
    lines +=
        fmt::format("addr add {}/64 dev eth0 nodad\nroute add default via {}\n", addr6, gateway6_);
  }
  must(netns.ip(lines), fmt::format("pod {}", name));
  auto made = std::make_unique<Pod>(
      Pod{Place(std::move(netns), std::move(cgroup)), name, addr4, addr6, veth});
  return *(pods_[name] = std::move(made));
}

Pod& Node::pod(const std::string& name) {
  const auto it = pods_.find(name);
  if (it == pods_.end()) throw SetupFailed("no such pod: " + name);
  return *it->second;
}

void Node::remove_pod(const std::string& name) {
  Pod& gone = pod(name);
  must(remove_cgroup(gone.cgroup()), "remove pod");
  pods_.erase(name);
}

Outside& Node::add_outside(const std::string& name) {
  const auto n = static_cast<unsigned>(outsides_.size()) + 1;
  const std::string node4 = fmt::format("198.51.{}.1", n);
  const std::string node6 = fmt::format("2001:db8:{:x}::1", n);
  std::string addr4 = fmt::format("198.51.{}.2", n);
  std::string addr6 = fmt::format("2001:db8:{:x}::2", n);
  Netns netns = must(Netns::create(fmt::format("{}-out-{}", name_, name)), "outside");
  const std::string uplink = link_name("up-", name);
  host_->ip(
      fmt::format("link add {0} type veth peer name eth0 netns {1}\n"
                  "addr add {2}/24 dev {0}\n"
                  "addr add {3}/64 dev {0} nodad\n"
                  "link set {0} up\n",
                  uplink, netns.token(), node4, node6));
  must(netns.ip(fmt::format("link set eth0 up\n"
                            "addr add {}/24 dev eth0\n"
                            "addr add {}/64 dev eth0 nodad\n"
                            "route add default via {}\n"
                            "route add default via {}\n",
                            addr4, addr6, node4, node6)),
       "outside");
  auto outside = std::make_unique<Outside>(
      Outside{Place(std::move(netns), {}), name, addr4, addr6, node4, node6});
  return *(outsides_[name] = std::move(outside));
}

void Node::masquerade_outside() {
  const std::string rules = fmt::format(
      "table inet mesh_test {{\n"
      "chain post {{\n"
      "type nat hook postrouting priority srcnat\n"
      "iifname \"up-*\" oifname \"{}\" masquerade\n"
      "}}\n}}\n",
      kBridge);
  SpawnOptions options = host_->options();
  options.stdin_text = rules;
  (void)must(run_tool({"nft", "-f", "-"}, options, kRunLimit), "masquerade");
}

void Node::write_config(const std::string& file, std::string_view text) {
  const std::string path = fmt::format("{}/{}", config_dir(), file);
  if (text.empty()) {
    if (::unlink(path.c_str()) < 0) must(fail_errno(errno, path), "write config");
    return;
  }
  const std::string temporary = fmt::format("{}/{}.tmp", work_dir(), file);
  std::ofstream(temporary) << text;
  if (::rename(temporary.c_str(), path.c_str()) < 0) must(fail_errno(errno, path), "write config");
}

std::string cable_address4(const Node& at, const Node& other) {
  return fmt::format("172.31.{}.{}", cable_number(at, other), cable_end(at, other));
}

std::string cable_device(const Node& other) { return link_name("to-", other.name()); }

void link_nodes(Node& a, Node& b) {
  a.host_->ip(fmt::format("link add {} type veth peer name {} netns {}\n", cable_device(b),
                          cable_device(a), b.host_->netns().token()));
  const auto side = [](Node& node, const Node& other) {
    node.host_->ip(fmt::format(
        "addr add {1}/30 dev {0}\n"
        "addr add {2}/64 dev {0} nodad\n"
        "link set {0} up\n"
        "route add {3} via {4}\n"
        "route add {5} via {6}\n",
        cable_device(other), cable_address4(node, other), cable_address6(node, other),
        other.cidr4(), cable_address4(other, node), other.cidr6(), cable_address6(other, node)));
  };
  side(a, b);
  side(b, a);
}

}  // namespace mesh::test
