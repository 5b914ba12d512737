// SPDX-License-Identifier: Apache-2.0
// Loading and verifying certificates: arbitrary PEM, a good chain with bytes changed, and chains
// that are well signed but whose names and extensions are arbitrary. Whatever is accepted must name
// exactly one workload of the trust domain and its node.
#include <fuzzer/FuzzedDataProvider.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "ktls/svid.h"
#include "ktls/verify.h"
#include "tests/support/certs.h"

namespace {

using namespace mesh;
using test::Cert;
using test::CertSpec;

constexpr const char* kUri = "spiffe://td/ns/default/dc/dc1/svc/web";
const std::chrono::sys_seconds kNow{std::chrono::seconds(1'900'000'000)};

void require(bool condition, const char* what) {
  if (condition) return;
  (void)std::fprintf(stderr, "violated: %s\n", what);
  std::abort();
}

struct Good {
  Cert root = test::make_cert(test::root_spec("td", kNow), nullptr);
  Cert node = test::make_cert(test::node_spec("td", "node-1", kNow), &root);
  Cert leaf = test::make_cert(test::leaf_spec(kUri, kNow), &node);
  ktls::TrustBundlePtr bundle = test::bundle_of("td", {&root});
};

const Good& good() {
  static const Good one;
  return one;
}

void check_verdict(X509* leaf, STACK_OF(X509) * behind) {
  const auto peer = ktls::verify_peer(leaf, behind, *good().bundle, kNow);
  require(ERR_peek_error() == 0, "error queue");
  if (!peer) {
    require(peer.error().reason != ktls::PeerReject::Count, "reason");
    require(!peer.error().what.empty() && peer.error().what.size() < 4096, "message");
    return;
  }
  require(peer->id.trust_domain() == "td" && !peer->id.path().empty(), "identity");
  require(!peer->node.empty() && peer->node.size() <= 64, "node");
  require(peer->not_after >= kNow, "ended");
  require(X509_check_ca(leaf) == 0, "leaf is a CA");
}

void load(std::string_view chain, std::string_view key) {
  if (const auto svid = ktls::svid_from_pem(chain, key)) {
    require(!(*svid)->id.path().empty() && (*svid)->intermediates.size() <= 3, "SVID");
    require(X509_check_private_key((*svid)->leaf.get(), (*svid)->key.get()) == 1, "key");
  }
  require(ERR_peek_error() == 0, "error queue");
}

void arbitrary_pem(FuzzedDataProvider& data) {
  const auto chain = data.ConsumeRandomLengthString();
  const auto key = data.ConsumeRemainingBytesAsString();
  load(chain, key);
  load(chain, good().leaf.key_pem());
  load(good().leaf.pem() + chain, good().leaf.key_pem());
  (void)ktls::bundle_from_pem("td", chain);
}

ktls::X509Ptr change(const Cert& cert, FuzzedDataProvider& data) {
  unsigned char* der = nullptr;
  const int size = i2d_X509(cert.x509(), &der);
  std::string bytes(reinterpret_cast<char*>(der), static_cast<std::size_t>(size));
  OPENSSL_free(der);
  for (int edits = data.ConsumeIntegralInRange(0, 8); edits > 0; --edits) {
    const auto at = data.ConsumeIntegralInRange<std::size_t>(0, bytes.size() - 1);
    bytes[at] = data.ConsumeIntegral<char>();
  }
  if (data.ConsumeBool()) bytes.resize(data.ConsumeIntegralInRange<std::size_t>(0, bytes.size()));
  const auto* from = reinterpret_cast<const unsigned char*>(bytes.data());
  ktls::X509Ptr changed(d2i_X509(nullptr, &from, static_cast<long>(bytes.size())));
  ERR_clear_error();
  return changed;
}

void changed_bytes(FuzzedDataProvider& data) {
  auto leaf = change(good().leaf, data);
  auto node = change(good().node, data);
  if (!leaf || !node) return;
  auto behind = test::stack_of({});
  sk_X509_push(behind.get(), node.release());
  check_verdict(leaf.get(), behind.get());
}

// Leaves an extension as it is, takes it out, or gives it arbitrary bytes.
void distort(std::string& value, const char* oid, CertSpec& spec, FuzzedDataProvider& data) {
  const auto choice = data.ConsumeIntegralInRange(0, 3);
  if (choice < 2) return;
  value.clear();
  if (choice == 2) return;
  spec.raw.push_back({oid, data.ConsumeBool(), data.ConsumeRandomLengthString(64)});
}

void distort(CertSpec& spec, FuzzedDataProvider& data) {
  distort(spec.san, "subjectAltName", spec, data);
  distort(spec.key_usage, "keyUsage", spec, data);
  distort(spec.extended_key_usage, "extendedKeyUsage", spec, data);
  distort(spec.basic_constraints, "basicConstraints", spec, data);
  distort(spec.name_constraints, "nameConstraints", spec, data);
  if (data.ConsumeIntegralInRange(0, 3) == 3) {
    auto name = data.ConsumeRandomLengthString(64);
    for (char& c : name) c = static_cast<char>(c & 0x7f);  // the builder wants UTF-8
    if (!name.empty()) spec.common_names = {name};
  }
}

void well_signed(FuzzedDataProvider& data) {
  auto node_spec = test::node_spec("td", "node-1", kNow);
  auto leaf_spec = test::leaf_spec(kUri, kNow);
  distort(leaf_spec, data);
  distort(node_spec, data);
  const Cert node = test::make_cert(node_spec, &good().root);
  const Cert leaf = test::make_cert(leaf_spec, &node);
  check_verdict(leaf.x509(), test::stack_of({&node}).get());
  load(leaf.pem() + node.pem(), leaf.key_pem());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  FuzzedDataProvider data(bytes, size);
  switch (data.ConsumeIntegralInRange(0, 2)) {
    case 0:
      arbitrary_pem(data);
      break;
    case 1:
      changed_bytes(data);
      break;
    default:
      well_signed(data);
  }
  return 0;
}
