// SPDX-License-Identifier: Apache-2.0
// The entry of kind mesh.
#include <fmt/format.h>

#include "agent/config/entry_fields.h"

namespace mesh::config {
namespace {

using syntax::Fields;

enum class TlsVersion : std::uint8_t { Auto, V10, V11, V12, V13 };

struct ProxyFields {
  bool destinations_only = false;
};
struct TlsDirectionFields {};
struct TlsFields {};
struct IncomingFields {
  RequestNormalization normalization;
};
struct HttpFields {
  bool sanitize = false;
  IncomingFields incoming;
};
struct PeeringFields {};

std::array<syntax::Word<TlsVersion>, 6> decode_words(TlsVersion) {
  return {{{"", TlsVersion::Auto},
           {"TLS_AUTO", TlsVersion::Auto},
           {"TLSv1_0", TlsVersion::V10},
           {"TLSv1_1", TlsVersion::V11},
           {"TLSv1_2", TlsVersion::V12},
           {"TLSv1_3", TlsVersion::V13}}};
}

void decode_fields(Fields& f, ProxyFields& out) {
  f.get("MeshDestinationsOnly", out.destinations_only);
  if (out.destinations_only)
    f.error("MeshDestinationsOnly",
            "connections to what is outside of the mesh cannot be refused by this agent yet, so "
            "this is not accepted");
}

void decode_fields(Fields& f, TlsDirectionFields&) {
  TlsVersion min = TlsVersion::Auto;
  TlsVersion max = TlsVersion::Auto;
  std::vector<std::string> suites;
  f.get("TLSMinVersion", min, {"tls_min_version"});
  f.get("TLSMaxVersion", max, {"tls_max_version"});
  f.get("CipherSuites", suites);
  if (min != TlsVersion::Auto && max != TlsVersion::Auto && max < min)
    f.error("TLSMaxVersion", "is below TLSMinVersion");
  if (max != TlsVersion::Auto && max != TlsVersion::V13)
    f.warn("TLSMaxVersion", "has no effect: nodes speak TLS 1.3 and nothing else");
  inert(f, {"CipherSuites"}, "has no effect: they are of TLS below 1.3, which is not spoken");
}

void decode_fields(Fields& f, TlsFields&) {
  TlsDirectionFields incoming;
  TlsDirectionFields outgoing;
  f.get("Incoming", incoming);
  f.get("Outgoing", outgoing);
}

void decode_fields(Fields& f, IncomingFields& out) {
  f.get("RequestNormalization", out.normalization);
  inert(f, {"RequestNormalization"}, kNoRequests);
}

void decode_fields(Fields& f, HttpFields& out) {
  f.get("SanitizeXForwardedClientCert", out.sanitize);
  inert(f, {"SanitizeXForwardedClientCert"}, kNoRequests);
  f.get("Incoming", out.incoming);
}

void decode_fields(Fields& f, PeeringFields&) {
  bool gateways = false;
  f.get("PeerThroughMeshGateways", gateways);
  inert(f, {"PeerThroughMeshGateways"}, kNoGateways);
}

}  // namespace

std::array<syntax::Word<EscapedSlashes>, 6> decode_words(EscapedSlashes) {
  return {{{"", EscapedSlashes::Default},
           {"IMPLEMENTATION_SPECIFIC_DEFAULT", EscapedSlashes::Default},
           {"KEEP_UNCHANGED", EscapedSlashes::KeepUnchanged},
           {"REJECT_REQUEST", EscapedSlashes::Reject},
           {"UNESCAPE_AND_REDIRECT", EscapedSlashes::UnescapeAndRedirect},
           {"UNESCAPE_AND_FORWARD", EscapedSlashes::UnescapeAndForward}}};
}

std::array<syntax::Word<HeaderUnderscores>, 4> decode_words(HeaderUnderscores) {
  return {{{"", HeaderUnderscores::Allow},
           {"ALLOW", HeaderUnderscores::Allow},
           {"REJECT_REQUEST", HeaderUnderscores::Reject},
           {"DROP_HEADER", HeaderUnderscores::Drop}}};
}

void decode_fields(Fields& f, RequestNormalization& out) {
  f.get("InsecureDisablePathNormalization", out.disable_path_normalization);
  f.get("MergeSlashes", out.merge_slashes);
  f.get("PathWithEscapedSlashesAction", out.escaped_slashes);
  f.get("HeadersWithUnderscoresAction", out.header_underscores);
}

void read_fields(Fields& f, Mesh& out) {
  ProxyFields proxy;
  f.get("TransparentProxy", proxy);
  out.mesh_destinations_only = proxy.destinations_only;
  f.get("AllowEnablingPermissiveMutualTLS", out.allow_enabling_permissive_mutual_tls);
  TlsFields tls;
  f.get("TLS", tls);
  HttpFields http;
  f.get("HTTP", http);
  out.sanitize_x_forwarded_client_cert = http.sanitize;
  out.normalization = http.incoming.normalization;
  PeeringFields peering;
  f.get("Peering", peering);
  f.get("ValidateClusters", out.validate_clusters);
  inert(f, {"ValidateClusters"}, kNoRequests);
}

}  // namespace mesh::config
