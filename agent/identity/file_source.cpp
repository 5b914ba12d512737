// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/file_source.h"

#include <map>
#include <utility>

#include "agent/base/trusted_file.h"
#include "agent/identity/files.h"
#include "agent/identity/signing_files.h"
#include "agent/identity/source_base.h"
#include "ktls/verify.h"
#include "ktls/x509_util.h"

namespace mesh::identity {
namespace {

using std::chrono::floor;
using std::chrono::seconds;

class FileSource final : public SourceBase {
 public:
  FileSource(boost::asio::io_context& io, FileSourceOptions options)
      : SourceBase(io, {options.poll, options.max_identities, options.now}),
        options_(std::move(options)) {}

 private:
  struct Pair {
    FileStamp chain, key;
    bool operator==(const Pair&) const = default;
  };

  std::string path(std::string_view name) const {
    return fmt::format("{}/{}", options_.directory, name);
  }

  Status load() override {
    trust_seen_ = stamp_of(path("trust.pem"));
    auto bundle = read_bundle();
    if (!bundle) return context(std::move(bundle).error(), "identities");
    bundle_ = std::move(*bundle);
    set_trust_domain(bundle_->trust_domain);
    set_bundle(bundle_);
    return {};
  }

  Result<ktls::TrustBundlePtr> read_bundle() {
    auto text = read_trusted_file(path("trust.pem"));
    if (!text) return tl::unexpected(std::move(text).error());
    std::string name = trust_domain();
    if (name.empty()) {
      auto roots = ktls::certificates_from_pem(*text, ktls::kMaxRoots);
      if (!roots) return context(std::move(roots).error(), path("trust.pem"));
      auto found = trust_domain_of(roots->front().get());
      if (!found)
        return fail(
            "{}: {}: the first root has to name the trust domain (URI SAN spiffe://TRUST-DOMAIN)",
            path("trust.pem"), found.error().what);
      name = std::move(*found);
    }
    auto bundle = ktls::bundle_from_pem(std::move(name), *text);
    if (!bundle) return context(std::move(bundle).error(), path("trust.pem"));
    return bundle;
  }

  void look() override {
    look_at_trust();
    std::vector<std::string> changed;
    for (auto& [service, file] : files_) {
      const auto stamps = stamps_of(service);
      // Two files are replaced one after the other: wait until one look finds nothing new. A
      // removal needs no waiting.
      if (stamps != file.seen) {
        file.seen = stamps;
        file.settled = false;
        if (stamps.chain.exists()) continue;
      }
      if (std::exchange(file.settled, true)) continue;
      changed.push_back(service);
    }
    for (const auto& service : changed) {
      ++count().reloads;
      make_again(service);
    }
  }

  void look_at_trust() {
    const auto stamp = stamp_of(path("trust.pem"));
    if (stamp != trust_seen_) {
      trust_seen_ = stamp;
      trust_settled_ = false;
      return;
    }
    if (std::exchange(trust_settled_, true)) return;
    auto bundle = read_bundle();
    if (!bundle) {
      ++count().bad_reloads;
      return report("files", bundle.error().what);
    }
    report("files", {});
    if (same_roots(**bundle, *bundle_)) return;
    ++count().reloads;
    bundle_ = std::move(*bundle);
    set_bundle(bundle_);
    make_all_again();  // SVIDs that the new roots do not cover are reported
  }

  Result<Made> make(const std::string& service) override {
    // The name becomes part of a path.
    if (!ktls::SpiffeId::of_service(trust_domain(), id_parts(service)))
      return fail("'{}' cannot be the name of a file", service);
    files_[service] = {stamps_of(service), true};
    if (!files_[service].seen.chain.exists())
      return Made{nullptr, kNever, fmt::format("{} is not there", path(service + ".pem"))};
    auto chain = read_trusted_file(path(service + ".pem"));
    if (!chain) return tl::unexpected(std::move(chain).error());
    auto key = read_secret_file(path(service + ".key"));
    if (!key) return tl::unexpected(std::move(key).error());
    auto svid = ktls::svid_from_pem(*chain, key->view());
    if (!svid) return context(std::move(svid).error(), path(service + ".pem"));
    if (auto checked = check(**svid, service); !checked)
      return context(std::move(checked).error(), path(service + ".pem"));
    return Made{std::move(*svid), kNever, {}};
  }

  void forget(const std::string& service) override { files_.erase(service); }

  [[nodiscard]] ktls::ConsulService id_parts(const std::string& service) const {
    return {"default", options_.datacenter, service};
  }

  // As a peer would: by the rules, and by what the catalog has for this service on this node.
  Status check(const ktls::Svid& svid, const std::string& service) {
    std::unique_ptr<STACK_OF(X509), void (*)(STACK_OF(X509)*)> behind(
        sk_X509_new_null(), [](STACK_OF(X509) * stack) { sk_X509_free(stack); });
    for (const auto& certificate : svid.intermediates)
      if (!behind || sk_X509_push(behind.get(), certificate.get()) == 0)
        return ktls::fail_ossl("certificate chain");
    auto peer = ktls::verify_peer(svid.leaf.get(), behind.get(), *bundle_, floor<seconds>(now()));
    if (!peer)
      return fail("peers would refuse it ({}: {})", ktls::to_string(peer.error().reason),
                  peer.error().what);
    const auto expected = ktls::SpiffeId::of_service(trust_domain(), id_parts(service));
    if (!expected) return tl::unexpected(expected.error());
    if (svid.id != *expected)
      return fail("peers would refuse it: {} is not the identity of service {}, which is {}",
                  svid.id.uri(), service, expected->uri());
    if (peer->node != options_.node_name)
      return fail("peers would refuse it: node '{}' has signed it, and this is node '{}'",
                  peer->node, options_.node_name);
    return {};
  }

  Pair stamps_of(const std::string& service) const {
    return {stamp_of(path(service + ".pem")), stamp_of(path(service + ".key"))};
  }

  struct Watched {
    Pair seen;
    bool settled = true;
  };

  const FileSourceOptions options_;
  ktls::TrustBundlePtr bundle_;
  FileStamp trust_seen_;
  bool trust_settled_ = true;
  std::map<std::string, Watched> files_;  // of the services that were asked for
};

}  // namespace

std::unique_ptr<Source> make_file_source(boost::asio::io_context& io, FileSourceOptions options) {
  return std::make_unique<FileSource>(io, std::move(options));
}

}  // namespace mesh::identity
