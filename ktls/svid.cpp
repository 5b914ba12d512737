// SPDX-License-Identifier: Apache-2.0
#include "ktls/svid.h"

#include <algorithm>

#include "ktls/x509_util.h"

namespace mesh::ktls {
namespace {

bool is_self_signed(X509* certificate) {
  return X509_self_signed(certificate, 0) == 1;  // 0: by its names and key identifiers
}

}  // namespace

Result<SvidPtr> svid_from_pem(std::string_view chain, std::string_view key) {
  const ClearErrors clear;
  auto certificates = certificates_from_pem(chain, kMaxChain);
  if (!certificates) return context(std::move(certificates).error(), "certificate chain");
  auto own_key = key_from_pem(key);
  if (!own_key) return tl::unexpected(std::move(own_key).error());

  auto svid = std::make_shared<Svid>();
  svid->key = std::move(*own_key);
  svid->leaf = std::move(certificates->front());
  certificates->erase(certificates->begin());
  if (X509_check_private_key(svid->leaf.get(), svid->key.get()) != 1)
    return fail("the private key is not that of the first certificate");

  const auto sans = uri_sans(svid->leaf.get());
  if (sans.malformed) return fail("leaf: the subject alternative name does not parse");
  if (sans.uris.empty()) return fail("leaf: no URI SAN, so no SPIFFE ID");
  if (sans.uris.size() > 1) return fail("leaf: more than one URI SAN");
  auto id = SpiffeId::parse(sans.uris.front());
  if (!id) return context(std::move(id).error(), "leaf");
  if (id->path().empty()) return fail("leaf: {} is a trust domain, not a workload", id->uri());
  svid->id = std::move(*id);

  // A root at the end costs bytes in every handshake and proves nothing to the peer.
  if (!certificates->empty() && is_self_signed(certificates->back().get()))
    certificates->pop_back();
  svid->intermediates = std::move(*certificates);

  auto begin = to_time(X509_get0_notBefore(svid->leaf.get()));
  if (!begin) return context(std::move(begin).error(), "leaf: not before");
  auto end = to_time(X509_get0_notAfter(svid->leaf.get()));
  if (!end) return context(std::move(end).error(), "leaf: not after");
  svid->not_before = *begin;
  svid->not_after = *end;
  for (const auto& intermediate : svid->intermediates) {
    auto until = to_time(X509_get0_notAfter(intermediate.get()));
    if (!until) return context(std::move(until).error(), "intermediate: not after");
    svid->not_after = std::min(svid->not_after, *until);
  }
  return SvidPtr(std::move(svid));
}

Result<TrustBundlePtr> bundle_from_pem(std::string trust_domain, std::string_view roots) {
  const ClearErrors clear;
  if (!SpiffeId::valid_trust_domain(trust_domain))
    return fail("trust bundle: the trust domain is not 1 to 255 characters of [a-z0-9._-]");
  auto certificates = certificates_from_pem(roots, kMaxRoots);
  if (!certificates) return context(std::move(certificates).error(), "trust bundle");
  for (std::size_t i = 0; i < certificates->size(); ++i) {
    X509* root = (*certificates)[i].get();
    const auto wrong = [&](std::string_view what) {
      return fail("trust bundle: certificate {} {}", i + 1, what);
    };
    // Anything else would never end a chain, so somebody put the wrong file here.
    if (X509_check_ca(root) != 1) return wrong("is not a CA");
    if (!is_self_signed(root)) return wrong("is not a root (not self-signed)");
    if (const char* weak = weak_key(X509_get0_pubkey(root)); weak != nullptr)
      return wrong(fmt::format("has {}", weak));
    const auto sans = uri_sans(root);
    if (sans.malformed || sans.uris.size() > 1) return wrong("has a bad URI SAN");
    if (!sans.uris.empty() && sans.uris.front() != "spiffe://" + trust_domain)
      return wrong("belongs to another trust domain than " + trust_domain);
  }
  auto bundle = std::make_shared<TrustBundle>();
  for (const X509Ptr& root : *certificates) {
    auto id = root_id(root.get());
    if (!id) return context(std::move(id).error(), "trust bundle");
    bundle->ids.push_back(*id);
  }
  bundle->trust_domain = std::move(trust_domain);
  bundle->roots = std::move(*certificates);
  return TrustBundlePtr(std::move(bundle));
}

}  // namespace mesh::ktls
