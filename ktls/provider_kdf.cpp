// SPDX-License-Identifier: Apache-2.0
// TLS13-KDF as libssl asks for it: HKDF-Expand-Label, and HKDF-Extract with the step before it
// (RFC 8446 7.1).
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <string_view>

#include "ktls/provider.h"

namespace mesh::ktls {
namespace {

using Bytes = std::span<const std::uint8_t>;

thread_local KdfScope* current_scope = nullptr;

struct Inputs {
  int mode = -1;
  std::size_t hash = 0;
  bool has_salt = false;
  Bytes key;
  Bytes salt;
  Bytes prefix;
  Bytes label;
  Bytes data;
};

std::size_t hash_of(const OSSL_PARAM& name) {
  // OpenSSL's own name of it comes first.
  const auto is = [&](const char* text) {
    return OPENSSL_strcasecmp(static_cast<const char*>(name.data), text) == 0;
  };
  if (name.data_type != OSSL_PARAM_UTF8_STRING || name.data == nullptr) return 0;
  if (is("SHA2-256") || is("SHA256")) return 32;
  if (is("SHA2-384") || is("SHA384")) return 48;
  return 0;
}

// What is not understood fails: a derivation without it would be another one.
bool parse(const OSSL_PARAM* params, Inputs& in) {
  for (; params != nullptr && params->key != nullptr; ++params) {
    const std::string_view name(params->key);
    const Bytes bytes(static_cast<const std::uint8_t*>(params->data), params->data_size);
    if (name == OSSL_KDF_PARAM_MODE) {
      if (OSSL_PARAM_get_int(params, &in.mode) != 1) return false;
    } else if (name == OSSL_KDF_PARAM_DIGEST) {
      in.hash = hash_of(*params);
    } else if (name == OSSL_KDF_PARAM_PROPERTIES) {
      continue;  // which implementation of the hash: there is one
    } else if (params->data_type != OSSL_PARAM_OCTET_STRING) {
      return false;
    } else if (name == OSSL_KDF_PARAM_KEY) {
      in.key = bytes;
    } else if (name == OSSL_KDF_PARAM_SALT) {
      in.salt = bytes;
      in.has_salt = true;
    } else if (name == OSSL_KDF_PARAM_PREFIX) {
      in.prefix = bytes;
    } else if (name == OSSL_KDF_PARAM_LABEL) {
      in.label = bytes;
    } else if (name == OSSL_KDF_PARAM_DATA) {
      in.data = bytes;
    } else {
      return false;
    }
  }
  return in.hash != 0 && !in.prefix.empty() && !in.label.empty();
}

bool expand(std::size_t hash, Bytes secret, const Inputs& in, Bytes data,
            std::span<std::uint8_t> out) {
  if (secret.empty()) return false;
  if (KdfScope* scope = KdfScope::current())
    return hkdf_expand_label(scope->key(hash, secret), in.prefix, in.label, data, out).has_value();
  return hkdf_expand_label(HmacKey(hash, secret), in.prefix, in.label, data, out).has_value();
}

bool extract(const Inputs& in, std::span<std::uint8_t> out) {
  if (out.size() != in.hash || !in.data.empty()) return false;
  SecretBytes salt;
  if (in.has_salt) {
    // Derive-Secret(., "derived", ""): the label is in the inputs, the hash of nothing is not.
    SecretBytes nothing;
    nothing.resize(in.hash);
    sha2(in.hash, {}, nothing.data());
    salt.resize(in.hash);
    if (!expand(in.hash, in.salt, in, nothing.bytes(), {salt.data(), salt.size()})) return false;
  }
  SecretBytes zeros;
  zeros.resize(in.hash);
  HmacKey(in.hash, salt.bytes()).mac({in.key.empty() ? zeros.bytes() : in.key}, out.data());
  return true;
}

int derive(void*, unsigned char* key, std::size_t length, const OSSL_PARAM* params) {
  Inputs in;
  if (key == nullptr || !parse(params, in)) return 0;
  const std::span<std::uint8_t> out(key, length);
  if (in.mode == EVP_KDF_HKDF_MODE_EXTRACT_ONLY) return extract(in, out) ? 1 : 0;
  if (in.mode != EVP_KDF_HKDF_MODE_EXPAND_ONLY || !expand(in.hash, in.key, in, in.data, out))
    return 0;
  if (KdfScope* scope = KdfScope::current()) scope->derived(in.key, in.label, out);
  return 1;
}

// All inputs come with derive(), so that a context has nothing in it.
char no_context = 0;
void* new_context(void*) { return &no_context; }
void free_context(void*) {}
int set_parameters(void*, const OSSL_PARAM* params) {
  return params == nullptr || params->key == nullptr ? 1 : 0;
}

}  // namespace

void DerivedTraffic::wipe() {
  secret.wipe();
  keys.key.wipe();
  keys.iv.wipe();
}

KdfScope::KdfScope(DerivedTraffic& client, DerivedTraffic& server)
    : client_(client), server_(server), before_(current_scope) {
  current_scope = this;
}

KdfScope::~KdfScope() { current_scope = before_; }

KdfScope* KdfScope::current() { return current_scope; }

const HmacKey& KdfScope::key(std::size_t hash_bytes, std::span<const std::uint8_t> secret) {
  for (std::size_t i = 0; i < kept_.size(); ++i) {
    Kept& kept = kept_[i];
    if (kept.key.hash_bytes() == hash_bytes && kept.secret.size() == secret.size() &&
        CRYPTO_memcmp(secret.data(), kept.secret.data(), secret.size()) == 0) {
      oldest_ = (i + 1) % kept_.size();
      return kept.key;
    }
  }
  Kept& kept = kept_[oldest_];
  oldest_ = (oldest_ + 1) % kept_.size();
  kept.secret.assign(secret);
  kept.key.set(hash_bytes, secret);
  return kept.key;
}

void KdfScope::derived(std::span<const std::uint8_t> secret, std::span<const std::uint8_t> label,
                       std::span<const std::uint8_t> out) {
  const std::string_view text(reinterpret_cast<const char*>(label.data()), label.size());
  if (text == "c ap traffic") client_.secret.assign(out);
  if (text == "s ap traffic") server_.secret.assign(out);
  if (text != "key" && text != "iv") return;
  for (DerivedTraffic* traffic : {&client_, &server_}) {
    if (traffic->secret.size() == secret.size() &&
        CRYPTO_memcmp(traffic->secret.data(), secret.data(), secret.size()) == 0)
      (text == "key" ? traffic->keys.key : traffic->keys.iv).assign(out);
  }
}

const OSSL_DISPATCH kKdfFunctions[] = {
    {OSSL_FUNC_KDF_NEWCTX, dispatched(new_context)},
    {OSSL_FUNC_KDF_FREECTX, dispatched(free_context)},
    {OSSL_FUNC_KDF_DERIVE, dispatched(derive)},
    {OSSL_FUNC_KDF_SET_CTX_PARAMS, dispatched(set_parameters)},
    {0, nullptr},
};

}  // namespace mesh::ktls
