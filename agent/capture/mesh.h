// SPDX-License-Identifier: Apache-2.0
// What makes a mesh of nodes, put together: identities, TLS contexts, PSKs, the pool of legs and
// the two dialers. Control thread, unless it says otherwise.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/capture/inbound_dialer.h"
#include "agent/capture/leg_pool.h"
#include "agent/capture/mesh_contexts.h"
#include "agent/capture/mesh_dialer.h"
#include "agent/capture/mesh_view.h"
#include "agent/identity/source.h"
#include "agent/relay/pool.h"

namespace mesh::capture {

class Mesh {
 public:
  struct Options {
    std::string identity_dir;  // of the built-in CA's node; or
    std::string svid_dir;      // PEM files
    std::string node_name;
    std::string datacenter;
    std::chrono::seconds leaf_ttl{};
    bool kernel_tls = true;
    std::string keylog_file;  // tests only
  };

  // Reads the identities; fails when they are not usable.
  static Result<std::unique_ptr<Mesh>> create(boost::asio::io_context& io, const Options& options,
                                              relay::Pool& relay);
  ~Mesh();

  [[nodiscard]] std::unique_ptr<const MeshDialer> outbound(
      const bpf::Datapath& datapath, std::shared_ptr<const NetnsDirectory> directory) const;
  [[nodiscard]] std::shared_ptr<relay::Dialer> inbound(
      const bpf::Datapath& datapath, std::shared_ptr<const NetnsDirectory> directory,
      std::shared_ptr<const PolicyDirectory> policy) const;
  [[nodiscard]] std::shared_ptr<const MeshDirectory> directory() const { return view_; }

  // The services of this node's workloads have identities from now on, others have not. settle():
  // its intentions are in force, so whoever is new to it may come.
  void publish(MeshView view);
  void settle() { view_->settle(); }
  void close_idle_legs() { pool_->clear(); }  // any thread
  void drop_namespace(std::uint64_t netns) { pool_->drop_namespace(netns); }
  void sweep() { pool_->sweep(); }  // about once a second
  void stop();

  // Why records are made in user space; empty: the kernel makes them.
  [[nodiscard]] const std::string& no_kernel_tls() const { return no_kernel_tls_; }
  // Why the last good identities are still in force; empty: nothing is wrong.
  [[nodiscard]] const std::string& identity_error() const { return identity_error_; }
  [[nodiscard]] const std::string& trust_domain() const { return source_->trust_domain(); }
  [[nodiscard]] const identity::Counters& identities() const { return source_->counters(); }
  [[nodiscard]] ktls::PskStore::Counts psks() const { return psks_->counts(); }  // any thread
  // Without PSKs every new leg proves itself by certificates. Legs that stand idle are not used
  // again after a change.
  void set_psk(bool on) { contexts_->set_psk(on); }
  [[nodiscard]] bool psk() const { return contexts_->psk(); }
  // Legs that are kept for each pair of workloads; 0: every connection has its own.
  void set_idle_legs(std::size_t limit) { pool_->set_max_idle_per_key(limit); }
  [[nodiscard]] LegPool::Counts idle_legs() const { return pool_->counts(); }  // any thread
  // Every service of this node's workloads has its SVID.
  [[nodiscard]] bool has_identities() const;
  // The SPIFFE ID that the workload at an address has an SVID for now; empty if none.
  [[nodiscard]] std::string identity_of(const Address& address) const;

 private:
  Mesh(const Options& options, relay::Pool& relay) : options_(options), relay_(relay) {}
  Status start(boost::asio::io_context& io);
  void on_gone(const std::string& service);
  void on_bundle();

  const Options options_;
  relay::Pool& relay_;
  std::unique_ptr<identity::Source> source_;
  std::shared_ptr<ktls::PskStore> psks_ = std::make_shared<ktls::PskStore>();
  std::shared_ptr<LegPool> pool_ = std::make_shared<LegPool>();
  std::shared_ptr<MeshDirectory> view_ = std::make_shared<MeshDirectory>();
  std::shared_ptr<MeshContexts> contexts_;
  std::string no_kernel_tls_;
  std::string identity_error_;
};

}  // namespace mesh::capture
