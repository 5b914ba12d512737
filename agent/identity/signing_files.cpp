// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/signing_files.h"

#include <algorithm>

#include "agent/base/trusted_file.h"
#include "agent/identity/issue.h"
#include "ktls/verify.h"
#include "ktls/x509_util.h"

namespace mesh::identity {
namespace {

// A leaf that is thrown away: whether a peer with the same roots would take it, and until when.
Result<std::chrono::sys_seconds> try_leaf(const SigningFiles& files, const std::string& node,
                                          std::chrono::sys_seconds now) {
  auto id = ktls::SpiffeId::parse("spiffe://" + files.bundle->trust_domain + "/try");
  if (!id) return tl::unexpected(std::move(id).error());
  auto key = make_key();
  if (!key) return tl::unexpected(std::move(key).error());
  auto leaf = make_leaf({files.chain[0].get(), files.key.get()}, key->get(), *id,
                        {now - std::chrono::minutes(1), now + std::chrono::years(100)});
  if (!leaf) return tl::unexpected(std::move(leaf).error());
  std::unique_ptr<STACK_OF(X509), void (*)(STACK_OF(X509)*)> behind(
      sk_X509_new_null(), [](STACK_OF(X509) * stack) { sk_X509_free(stack); });
  for (const auto& certificate : files.chain)
    if (!behind || sk_X509_push(behind.get(), certificate.get()) == 0)
      return ktls::fail_ossl("certificate chain");
  auto peer = ktls::verify_peer(leaf->get(), behind.get(), *files.bundle, now);
  if (!peer)
    return fail("peers would refuse SVIDs of this node ({}: {}): run mesh-agent ca issue-node",
                ktls::to_string(peer.error().reason), peer.error().what);
  if (!node.empty() && peer->node != node)
    return fail(
        "the certificate is that of node {}, this is {}: run mesh-agent ca issue-node --node {}, "
        "or start the agent with --node-name {}",
        peer->node, node, node, peer->node);
  return peer->not_after;
}

}  // namespace

Result<std::string> trust_domain_of(X509* certificate) {
  const auto sans = ktls::uri_sans(certificate);
  if (sans.malformed || sans.uris.size() != 1) return fail("the certificate has no SPIFFE ID");
  auto id = ktls::SpiffeId::parse(sans.uris.front());
  if (!id) return tl::unexpected(std::move(id).error());
  if (!id->path().empty()) return fail("{} is not a trust domain", id->uri());
  return std::string(id->trust_domain());
}

Result<SigningFiles> read_signing_files(const std::string& directory, const std::string& node,
                                        std::chrono::sys_seconds now) {
  auto chain = read_trusted_file(directory + "/node.pem");
  if (!chain) return tl::unexpected(std::move(chain).error());
  auto key = read_secret_file(directory + "/node.key");
  if (!key) return tl::unexpected(std::move(key).error());
  auto trust = read_trusted_file(directory + "/trust.pem");
  if (!trust) return tl::unexpected(std::move(trust).error());

  SigningFiles files;
  auto certificates = ktls::certificates_from_pem(*chain, ktls::kMaxChain - 2);
  if (!certificates) return context(std::move(certificates).error(), directory + "/node.pem");
  files.chain = std::move(*certificates);
  auto own_key = ktls::key_from_pem(key->view());
  if (!own_key) return context(std::move(own_key).error(), directory + "/node.key");
  files.key = std::move(*own_key);
  if (X509_check_private_key(files.chain[0].get(), files.key.get()) != 1) {
    ERR_clear_error();
    return fail("{}/node.key is not the key of node.pem: run mesh-agent ca issue-node", directory);
  }
  auto trust_domain = trust_domain_of(files.chain[0].get());
  if (!trust_domain) return context(std::move(trust_domain).error(), directory + "/node.pem");
  auto bundle = ktls::bundle_from_pem(std::move(*trust_domain), *trust);
  if (!bundle) return context(std::move(bundle).error(), directory + "/trust.pem");
  files.bundle = std::move(*bundle);
  auto end = try_leaf(files, node, now);
  if (!end) return context(std::move(end).error(), directory);
  files.not_after = *end;
  return files;
}

bool same_roots(const ktls::TrustBundle& a, const ktls::TrustBundle& b) {
  const auto within = [](const ktls::TrustBundle& x, const ktls::TrustBundle& y) {
    return std::all_of(x.roots.begin(), x.roots.end(), [&](const ktls::X509Ptr& root) {
      return std::any_of(y.roots.begin(), y.roots.end(), [&](const ktls::X509Ptr& other) {
        return X509_cmp(root.get(), other.get()) == 0;
      });
    });
  };
  return a.trust_domain == b.trust_domain && within(a, b) && within(b, a);
}

}  // namespace mesh::identity
