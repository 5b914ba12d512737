// SPDX-License-Identifier: Apache-2.0
// A node of the mesh in miniature: a namespace that plays the host, a bridge with pods, a cgroup,
// and machines outside of it. Every function throws SetupFailed when it cannot do what it is for.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/result.h"
#include "tests/support/cgroup.h"
#include "tests/support/netns.h"
#include "tests/support/process.h"
#include "tests/support/scratch.h"

namespace mesh::test {

constexpr std::chrono::milliseconds kRunLimit{60000};

// A place where processes run: a namespace and (except outside) a cgroup below the node's.
class Place {
 public:
  Place(Netns netns, std::string cgroup) : netns_(std::move(netns)), cgroup_(std::move(cgroup)) {}

  [[nodiscard]] Netns& netns() { return netns_; }
  [[nodiscard]] const Netns& netns() const { return netns_; }
  [[nodiscard]] const std::string& cgroup() const { return cgroup_; }  // empty: not in the node's
  [[nodiscard]] SpawnOptions options() const;  // of this place, to be completed

  Process spawn(const std::vector<std::string>& argv, bool stdin_pipe = false) const;
  Process fork_function(const std::function<int()>& body) const;
  RunResult run(const std::vector<std::string>& argv,
                std::chrono::milliseconds limit = kRunLimit) const;
  void ip(std::string_view lines) const;  // `ip -batch`
  void sysctl(std::string_view key, std::string_view value) const;

 private:
  Netns netns_;
  std::string cgroup_;
};

struct Pod : Place {
  std::string name;
  std::string addr4;      // or empty
  std::string addr6;      // or empty
  std::string host_veth;  // the other end of eth0, in the node's namespace
};

struct Outside : Place {
  std::string name;
  std::string addr4;
  std::string addr6;
  std::string node4;  // the node's address on this link
  std::string node6;
};

enum class PodKind { Named, Anonymous };

class Node {
 public:
  // The ranges differ between test processes that run at the same time, so that an agent which
  // looks at all namespaces of the machine sees only the pods of its own test.
  explicit Node(std::string name);
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // With the next free addresses of both families, or with the given ones (empty: none).
  Pod& add_pod(const std::string& name);
  Pod& add_pod(const std::string& name, const std::string& addr4, const std::string& addr6,
               PodKind kind = PodKind::Named);
  Pod& pod(const std::string& name);
  // Kills its processes and deletes its namespace. The name and the addresses are free afterwards.
  void remove_pod(const std::string& name);

  // A machine on another interface of the node; its processes are not in the node's cgroup.
  Outside& add_outside(const std::string& name);
  // Masquerades what comes from outside to a pod behind the node's bridge address (nft, in the
  // node).
  void masquerade_outside();

  [[nodiscard]] const std::string& name() const { return name_; }
  // Which of the nodes that this process has now: a small number, that of one that is gone again.
  [[nodiscard]] unsigned slot() const { return slot_; }
  // Processes of the node itself (kubelet, say): in the cgroup, in the node's namespace.
  [[nodiscard]] const Place& host() const { return *host_; }
  [[nodiscard]] const std::string& cidr4() const { return cidr4_; }  // a.b.c.0/24
  [[nodiscard]] const std::string& cidr6() const { return cidr6_; }  // .../64
  [[nodiscard]] const std::string& gateway4() const { return gateway4_; }
  [[nodiscard]] const std::string& gateway6() const { return gateway6_; }
  [[nodiscard]] std::string address4(unsigned host) const;  // of the /24
  [[nodiscard]] std::string address6(unsigned host) const;  // of the /64
  [[nodiscard]] const std::string& cgroup_root() const { return cgroup_.path(); }
  [[nodiscard]] std::string pin_dir() const;
  [[nodiscard]] std::string config_dir() const { return work_.path() + "/config"; }
  [[nodiscard]] std::string admin_socket() const { return work_.path() + "/agent.sock"; }
  [[nodiscard]] const std::string& work_dir() const { return work_.path(); }

  // Writes <config_dir>/<file> by rename. An empty text deletes it.
  void write_config(const std::string& file, std::string_view text);

 private:
  std::string name_;
  unsigned slot_;  // which /24
  ScratchDir work_;
  ScratchCgroup cgroup_;
  std::string cidr4_, cidr6_, gateway4_, gateway6_;
  std::unique_ptr<Place> host_;
  std::map<std::string, std::unique_ptr<Pod>> pods_;
  std::map<std::string, std::unique_ptr<Outside>> outsides_;
  unsigned next_pod_ = 10;

  friend void link_nodes(Node& a, Node& b);
};

// A cable between two nodes, with routes to each other's pods; every two may have one.
void link_nodes(Node& a, Node& b);
// Of `at` on its cable to `other`: 172.31.N.1 of the node that was made first, .2 of the other one.
// N is 0 for the first two nodes of a process.
std::string cable_address4(const Node& at, const Node& other);
// The end of the cable towards `other`, in the namespace of the node at the near end.
std::string cable_device(const Node& other);

}  // namespace mesh::test
