// SPDX-License-Identifier: Apache-2.0
// Makes the datapath follow the world: workloads that come and go, the catalog as it changes.
// Control thread only.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/base/backoff.h"
#include "agent/base/result.h"
#include "agent/bpf/datapath.h"
#include "agent/capture/desired_state.h"
#include "agent/capture/dns_capture.h"
#include "agent/capture/health_capture.h"
#include "agent/capture/labels.h"
#include "agent/capture/mesh.h"
#include "agent/capture/netns_directory.h"
#include "agent/capture/policy_view.h"
#include "agent/capture/revoker.h"
#include "agent/catalog/model.h"
#include "agent/catalog/vip.h"
#include "agent/relay/pool.h"
#include "agent/workload/discovery.h"

namespace mesh::capture {

class Controller {
 public:
  struct Options {
    std::vector<Cidr> node_cidrs;
    Cidr vip_cidr4;
    Cidr vip_cidr6;
    bool sockmap_available = true;
    std::string node_name;         // which of the catalog's nodes this is
    std::string datacenter;        // of this mesh
    std::vector<Cidr> mesh_cidrs;  // of all nodes; refused where nobody is known to be
    policy::Verdict default_policy = policy::Verdict::Allow;
    // Null: no identities, so port 15008 is not opened and nothing goes to other nodes.
    Mesh* mesh = nullptr;
    DnsCapture* dns = nullptr;  // null: port 53 is left alone
    HealthCapture* health = nullptr;
  };

  Controller(boost::asio::io_context& io, Options options, bpf::Datapath& datapath,
             relay::Pool& relay);

  // Names and VIPs that an earlier agent gave away.
  void seed_vips(catalog::VipAllocator& vips) const;
  // Before discovery, with the mesh's ranges in the maps (close_mesh): puts intentions in force.
  Status start();
  // After discovery has started and reported what exists: drops what an earlier agent left of dead
  // namespaces.
  Status adopted_all();

  [[nodiscard]] workload::Callbacks callbacks();
  void set_discovery(const workload::Discovery& discovery) { discovery_ = &discovery; }
  void on_catalog(std::shared_ptr<const catalog::Catalog> catalog);
  // Something beside the catalog and the workloads has changed: health.
  void refresh() { schedule_apply(); }
  // Connections are open that no change of intentions has found here.
  void judge_open() { revoker_.wake(); }
  // Tries again to enrol workloads that could not be (out of descriptors, say), and to open
  // listeners that could not be (a process of the pod has the port); attaches again the sk_lookup
  // programs that somebody has detached; and to write what could not be written into the maps (for
  // want of room or memory). About once a second.
  void retry_enrolment();

  // Looks, a part at each call, whether the maps hold what they should, and mends what somebody
  // else has changed in them or what a mistake of ours has left. Every few seconds; a call takes
  // some 50 ms for 100,000 endpoints.
  void verify();

  // While a successor prepares: what happens in between is done by thaw(), after the maps have been
  // read again.
  void freeze() { frozen_ = true; }
  void thaw();
  // Listening sockets of the agent before this one, used instead of new ones.
  void inherit(std::vector<relay::HandedListener> listeners) { inherited_ = std::move(listeners); }

  [[nodiscard]] const catalog::Catalog* catalog() const { return catalog_.get(); }
  // A catalog has been in the maps.
  [[nodiscard]] bool catalog_applied() const { return catalog_applied_; }
  [[nodiscard]] const NodeState& node() const { return node_; }
  [[nodiscard]] const NetnsDirectory& netns() const { return *directory_; }
  // What the hooks decide by; null before the first catalog.
  [[nodiscard]] std::shared_ptr<const PolicyView> policy() const { return policy_->get(); }
  [[nodiscard]] const Revoker& revoker() const { return revoker_; }
  [[nodiscard]] const Labels& labels() const { return labels_; }
  // Ranges of other nodes that no --mesh-cidr covers: until a catalog is read, after a reboot, they
  // would not be known to be the mesh's.
  [[nodiscard]] const std::vector<Cidr>& unguarded() const { return unguarded_; }
  // Listeners of a workload that could not be opened, and why: "127.0.0.1:15001" -> "...".
  using Missing = std::map<std::string, std::string>;
  [[nodiscard]] const Missing& missing_listeners(std::uint64_t netns_cookie) const;
  [[nodiscard]] std::size_t missing_listeners() const;  // of all workloads
  // Why the last apply failed; empty when the maps hold what they should.
  [[nodiscard]] const std::string& last_failure() const { return last_failure_; }

 private:
  struct Enrolled {
    workload::Workload workload;
    bool has_listener4 = false;
    bool has_listener6 = false;
    bool has_inbound4 = false;
    bool has_inbound6 = false;
    Missing missing;
    Backoff retry{std::chrono::seconds(1), std::chrono::seconds(10)};
    std::shared_ptr<const NetnsHandle> handle;
  };
  struct NotEnrolled {
    workload::Workload workload;
    std::string lost;  // why the program that it had cannot be had back; empty: it had none
  };

  void on_found(const workload::Workload& workload);
  void on_changed(const workload::Workload& workload);
  void on_gone(std::uint64_t cookie);
  Status enrol(Enrolled& enrolled);
  void open_listeners(Enrolled& enrolled, int netns_fd);
  void keep_inbound();
  // Takes an enrolled workload out of everything; it is unclassified then. Gives how many relayed
  // connections that reset.
  std::size_t withdraw(std::uint64_t cookie);
  Status unlearn(std::uint64_t cookie);
  void retry_listeners();
  Result<UniqueFd> make_listener(int netns_fd, const Endpoint& at) const;
  Result<UniqueFd> find_listener(std::uint64_t cookie, int netns_fd, const Endpoint& at);
  // True: it is kept for thaw().
  bool defer(std::function<void()> what);
  void publish_directory();
  void publish_mesh();
  Status apply_policy(const DesiredState::Changes& changes);
  void schedule_apply();
  void apply();
  Status apply_now();
  Status apply_without_catalog();
  Status apply_identities(const Identities& desired);
  Status apply_services(const DesiredState::Changes& changes);
  Status apply_names();
  Status adopt_services(Desired& desired);

  boost::asio::io_context& io_;
  Options options_;
  bpf::Datapath& datapath_;
  relay::Pool& relay_;
  const workload::Discovery* discovery_ = nullptr;
  std::shared_ptr<NetnsDirectory> directory_ = std::make_shared<NetnsDirectory>();
  std::shared_ptr<PolicyDirectory> policy_ = std::make_shared<PolicyDirectory>();
  std::shared_ptr<relay::Dialer> dialer_;
  std::shared_ptr<relay::Dialer> inbound_dialer_;    // null without a mesh
  std::shared_ptr<const catalog::Catalog> catalog_;  // null until the first good one
  std::map<std::uint64_t, Enrolled> enrolled_;
  std::map<std::uint64_t, NotEnrolled> not_enrolled_;  // unclassified, which is refused
  NodeState node_;
  bool workloads_touched_ = true;  // node_ does not have them yet
  DesiredState state_;
  // The maps may lack more than what has changed since the last time.
  bool apply_all_ = true;
  bool catalog_applied_ = false;
  std::size_t named_ = 0;  // labels that are in the maps with their names
  Labels labels_;
  bool apply_scheduled_ = false;
  bool frozen_ = false;
  std::vector<std::function<void()>> deferred_;
  std::vector<relay::HandedListener> inherited_;
  bool ready_ = false;
  std::string last_failure_;
  Backoff apply_again_{std::chrono::seconds(1), std::chrono::seconds(30)};
  std::vector<Cidr> unguarded_;
  // What intentions say, and of what it was made.
  struct {
    std::shared_ptr<const config::Entries> entries;
    std::shared_ptr<const policy::Policy> policy;
    std::shared_ptr<const LabelNames> names;
    std::shared_ptr<const bpf::PolicyTable> table;
    bool in_maps = false;
  } intentions_;
  unsigned verified_ = 0;                     // parts
  std::shared_ptr<const PolicyView> judged_;  // what open connections were last judged by
  std::shared_ptr<const catalog::Catalog::Nodes> judged_nodes_;
  bool judge_again_ = false;  // once all of that is in the maps
  Revoker revoker_;           // last: its thread uses what is above
};

}  // namespace mesh::capture
