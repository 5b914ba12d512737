// SPDX-License-Identifier: Apache-2.0
#include "ktls/provider.h"

#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/provider.h>

#include "ktls/ossl_ptr.h"

namespace mesh::ktls {
namespace {

constexpr char kName[] = "mesh";
constexpr char kProperties[] = "provider=mesh";

constexpr OSSL_ALGORITHM kNone = {nullptr, nullptr, nullptr, nullptr};
const OSSL_ALGORITHM kKdfs[] = {{OSSL_KDF_NAME_TLS1_3_KDF, kProperties, kKdfFunctions, nullptr},
                                kNone};
const OSSL_ALGORITHM kKeys[] = {{"X25519:1.3.101.110", kProperties, kX25519Keys, nullptr}, kNone};
const OSSL_ALGORITHM kExchanges[] = {{"X25519:1.3.101.110", kProperties, kX25519Exchange, nullptr},
                                     kNone};

const OSSL_ALGORITHM* query(void*, int operation, int* no_cache) {
  *no_cache = 0;
  switch (operation) {
    case OSSL_OP_KDF:
      return kKdfs;
    case OSSL_OP_KEYMGMT:
      return kKeys;
    case OSSL_OP_KEYEXCH:
      return kExchanges;
    default:
      return nullptr;
  }
}

// libssl takes a group only from the provider that has its keys.
int capabilities(void*, const char* name, OSSL_CALLBACK* take, void* argument) {
  if (OPENSSL_strcasecmp(name, "TLS-GROUP") != 0) return 1;
  char tls_name[] = "x25519";
  char algorithm[] = "X25519";
  unsigned int id = 0x1d;  // RFC 8446 4.2.7
  unsigned int security_bits = 128;
  int min_tls = TLS1_3_VERSION;
  int max_tls = 0;  // no limit
  int no_dtls = -1;
  const OSSL_PARAM group[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_CAPABILITY_TLS_GROUP_NAME, tls_name, 0),
      OSSL_PARAM_construct_utf8_string(OSSL_CAPABILITY_TLS_GROUP_NAME_INTERNAL, algorithm, 0),
      OSSL_PARAM_construct_utf8_string(OSSL_CAPABILITY_TLS_GROUP_ALG, algorithm, 0),
      OSSL_PARAM_construct_uint(OSSL_CAPABILITY_TLS_GROUP_ID, &id),
      OSSL_PARAM_construct_uint(OSSL_CAPABILITY_TLS_GROUP_SECURITY_BITS, &security_bits),
      OSSL_PARAM_construct_int(OSSL_CAPABILITY_TLS_GROUP_MIN_TLS, &min_tls),
      OSSL_PARAM_construct_int(OSSL_CAPABILITY_TLS_GROUP_MAX_TLS, &max_tls),
      OSSL_PARAM_construct_int(OSSL_CAPABILITY_TLS_GROUP_MIN_DTLS, &no_dtls),
      OSSL_PARAM_construct_int(OSSL_CAPABILITY_TLS_GROUP_MAX_DTLS, &no_dtls),
      OSSL_PARAM_construct_end()};
  return take(group, argument);
}

int start(const OSSL_CORE_HANDLE*, const OSSL_DISPATCH*, const OSSL_DISPATCH** out,
          void** context) {
  static const OSSL_DISPATCH kFunctions[] = {
      {OSSL_FUNC_PROVIDER_QUERY_OPERATION, dispatched(query)},
      {OSSL_FUNC_PROVIDER_GET_CAPABILITIES, dispatched(capabilities)},
      {0, nullptr}};
  static char unused = 0;
  *out = kFunctions;
  *context = &unused;
  return 1;
}

}  // namespace

Status load_provider() {
  static const Status loaded = []() -> Status {
    MESH_TRY(find_x25519(), "load our OpenSSL provider");
    // Contexts that are alive at exit have references of their own.
    static ProviderPtr provider;
    if (OSSL_PROVIDER_add_builtin(nullptr, kName, &start) != 1)
      return fail_ossl("register our OpenSSL provider");
    provider.reset(OSSL_PROVIDER_load(nullptr, kName));
    if (!provider) return fail_ossl("load our OpenSSL provider");
    return {};
  }();
  return loaded;
}

}  // namespace mesh::ktls
