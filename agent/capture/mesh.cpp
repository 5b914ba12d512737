// SPDX-License-Identifier: Apache-2.0
#include "agent/capture/mesh.h"

#include <set>

#include "agent/base/log.h"
#include "agent/identity/file_source.h"
#include "agent/identity/node_ca.h"

namespace mesh::capture {
namespace {

std::unique_ptr<identity::Source> make_source(boost::asio::io_context& io,
                                              const Mesh::Options& options) {
  if (!options.svid_dir.empty()) {
    identity::FileSourceOptions files;
    files.directory = options.svid_dir;
    files.node_name = options.node_name;
    files.datacenter = options.datacenter;
    return identity::make_file_source(io, std::move(files));
  }
  identity::NodeCaOptions ca;
  ca.directory = options.identity_dir;
  ca.node_name = options.node_name;
  ca.datacenter = options.datacenter;
  ca.ttl = options.leaf_ttl;
  return identity::make_node_ca(io, std::move(ca));
}

}  // namespace

Result<std::unique_ptr<Mesh>> Mesh::create(boost::asio::io_context& io, const Options& options,
                                           relay::Pool& relay) {
  std::unique_ptr<Mesh> mesh(new Mesh(options, relay));
  MESH_TRY(mesh->start(io), "identity");
  return mesh;
}

Mesh::~Mesh() { stop(); }

Status Mesh::start(boost::asio::io_context& io) {
  source_ = make_source(io, options_);
  MESH_TRY(source_->start({
               .on_svid =
                   [](const std::string& service, const ktls::SvidPtr&) {
                     log::debug("identity: {} has a new SVID", service);
                   },
               .on_gone = [this](const std::string& service) { on_gone(service); },
               .on_bundle = [this](const ktls::TrustBundlePtr&) { on_bundle(); },
               .on_error =
                   [this](const std::string& what) {
                     identity_error_ = what;
                     log::error("identity: {}", what);
                   },
               .on_good =
                   [this] {
                     identity_error_.clear();
                     log::info("identity: good again");
                   },
           }),
           options_.svid_dir.empty() ? options_.identity_dir : options_.svid_dir);
  ktls::ContextOptions context_options;
  context_options.keylog_file = options_.keylog_file;
  if (!options_.kernel_tls)
    no_kernel_tls_ = "switched off (--disable-kernel-tls)";
  else if (auto probed = ktls::probe_kernel_tls(); !probed)
    no_kernel_tls_ = probed.error().what;
  context_options.kernel = no_kernel_tls_.empty();
  contexts_ = std::make_shared<MeshContexts>(source_->directory(), psks_, context_options);
  return {};
}

void Mesh::stop() {
  if (source_) source_->stop();
  pool_->clear();
}

std::unique_ptr<const MeshDialer> Mesh::outbound(
    const bpf::Datapath& datapath, std::shared_ptr<const NetnsDirectory> directory) const {
  return std::make_unique<MeshDialer>(datapath, std::move(directory), view_, contexts_, pool_);
}

std::shared_ptr<relay::Dialer> Mesh::inbound(const bpf::Datapath& datapath,
                                             std::shared_ptr<const NetnsDirectory> directory,
                                             std::shared_ptr<const PolicyDirectory> policy) const {
  return std::make_shared<InboundDialer>(datapath, std::move(directory), std::move(policy), view_,
                                         contexts_);
}

void Mesh::publish(MeshView view) {
  view.node_name = options_.node_name;
  view.trust_domain = source_->trust_domain();
  view.datacenter = options_.datacenter;
  std::set<std::string> services;
  for (const auto& [address, service] : view.own) services.insert(service);
  source_->allow({services.begin(), services.end()});
  view_->publish(std::move(view));
  for (const auto& service : services) source_->want(service);
}

// Its SVID has ended or its last workload has gone: so do its connections, within this second.
void Mesh::on_gone(const std::string& service) {
  const auto view = view_->get();
  if (!view) return;
  auto id = view->id_of(service);
  if (!id) return;
  psks_->drop_identity(*id);
  auto aborted = relay_.abort_where([uri = id->uri()](const relay::ConnectionRecord& c) {
    return c.security && c.security->own_id == uri;
  });
  pool_->clear();
  log::warn("identity {} has ended: {} connections were reset", id->uri(), aborted.value_or(0));
}

// Who was trusted may not be any more. Open connections stay, as they were verified by the roots of
// their time. Nothing new goes by them: dialed legs belong to a context that is forgotten, and of
// accepted ones InboundDialer asks again.
void Mesh::on_bundle() {
  psks_->new_epoch();
  contexts_->forget();
  pool_->clear();
  log::info("the trusted roots have changed: new connections use them");
}

bool Mesh::has_identities() const {
  const auto view = view_->get();
  if (!view) return false;
  for (const auto& [address, service] : view->own)
    if (!source_->directory()->find(service).svid) return false;
  return true;
}

std::string Mesh::identity_of(const Address& address) const {
  const auto view = view_->get();
  if (!view) return {};
  auto own = view->own.find(address);
  if (own == view->own.end()) return {};
  if (!source_->directory()->find(own->second).svid) return {};
  return view->id_of(own->second).value_or(ktls::SpiffeId{}).uri();
}

}  // namespace mesh::capture
