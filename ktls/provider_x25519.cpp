// SPDX-License-Identifier: Apache-2.0
// X25519 key pairs. OpenSSL 3.0 makes a public key by Edwards arithmetic without assembly, which
// costs 605,000 instructions; a derivation with the base point (RFC 7748 6.1) comes to the same
// bytes and costs 365,000. Both arithmetics are OpenSSL's: this only asks for the other one.
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include <array>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>

#include "ktls/ossl_ptr.h"
#include "ktls/provider.h"

namespace mesh::ktls {
namespace {

constexpr std::size_t kBytes = 32;
constexpr char kNotOurs[] = "provider!=mesh";
constexpr char kAlgorithm[] = "X25519";

using PkeyCtxPtr = std::unique_ptr<EVP_PKEY_CTX, OsslDeleter<EVP_PKEY_CTX_free>>;
using Public = std::array<unsigned char, kBytes>;

// A peer's key has no `secret`.
struct Key {
  bool has_public = false;
  Public public_key{};
  PkeyCtxPtr secret;  // ready for derivations
};

OSSL_PARAM octets(const char* name, const unsigned char* bytes) {
  return OSSL_PARAM_construct_octet_string(name, const_cast<unsigned char*>(bytes), kBytes);
}

PkeyPtr import_key(const unsigned char* public_key, const unsigned char* secret) {
  // One of a thread: made anew it would be looked up anew.
  thread_local const PkeyCtxPtr importer(EVP_PKEY_CTX_new_from_name(nullptr, kAlgorithm, kNotOurs));
  if (!importer || EVP_PKEY_fromdata_init(importer.get()) != 1) return nullptr;
  OSSL_PARAM params[] = {octets(OSSL_PKEY_PARAM_PUB_KEY, public_key), OSSL_PARAM_construct_end(),
                         OSSL_PARAM_construct_end()};
  if (secret != nullptr) params[1] = octets(OSSL_PKEY_PARAM_PRIV_KEY, secret);
  EVP_PKEY* key = nullptr;
  const int selection = secret != nullptr ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY;
  return EVP_PKEY_fromdata(importer.get(), &key, selection, params) == 1 ? PkeyPtr(key) : nullptr;
}

// Fails for a peer's point of small order, whose result is zero (RFC 8446 7.4.2).
bool multiply(EVP_PKEY_CTX* secret, EVP_PKEY* point, unsigned char* out) {
  std::size_t length = kBytes;
  return EVP_PKEY_derive_set_peer_ex(secret, point, 0) == 1 &&
         EVP_PKEY_derive(secret, out, &length) == 1 && length == kBytes;
}

constexpr Public kBasePoint = {9};

EVP_PKEY* base_point() {
  thread_local const PkeyPtr point = import_key(kBasePoint.data(), nullptr);
  return point.get();
}

// Keys.

void* new_key(void*) { return new (std::nothrow) Key; }
void free_key(void* key) { delete static_cast<Key*>(key); }

// The parameters of a key are its type: a copy of them is an empty key. Secrets are not copied.
void* copy_key(const void* from, int selection) {
  if ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0) return nullptr;
  auto* copy = new (std::nothrow) Key;
  if (copy == nullptr || (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) == 0) return copy;
  const auto* key = static_cast<const Key*>(from);
  copy->has_public = key->has_public;
  copy->public_key = key->public_key;
  return copy;
}

int has(const void* data, int selection) {
  const auto* key = static_cast<const Key*>(data);
  if (key == nullptr) return 0;  // a key that has only a type so far
  if ((selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) != 0 && !key->has_public) return 0;
  if ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0 && !key->secret) return 0;
  return 1;
}

int match(const void* one, const void* other, int selection) {
  const auto* a = static_cast<const Key*>(one);
  const auto* b = static_cast<const Key*>(other);
  if ((selection & OSSL_KEYMGMT_SELECT_KEYPAIR) == 0) return 1;
  return a->has_public && b->has_public && a->public_key == b->public_key ? 1 : 0;
}

int get_parameters(void* data, OSSL_PARAM* params) {
  const auto* key = static_cast<const Key*>(data);
  constexpr int kBits = 253;
  constexpr int kSecurityBits = 128;
  for (OSSL_PARAM* p = params; p != nullptr && p->key != nullptr; ++p) {
    const std::string_view name(p->key);
    int done = 1;
    if (name == OSSL_PKEY_PARAM_BITS) done = OSSL_PARAM_set_int(p, kBits);
    if (name == OSSL_PKEY_PARAM_SECURITY_BITS) done = OSSL_PARAM_set_int(p, kSecurityBits);
    if (name == OSSL_PKEY_PARAM_MAX_SIZE) done = OSSL_PARAM_set_int(p, kBytes);
    if (name == OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY)
      done = key->has_public ? OSSL_PARAM_set_octet_string(p, key->public_key.data(), kBytes) : 0;
    if (done != 1) return 0;
  }
  return 1;
}

int set_parameters(void* data, const OSSL_PARAM* params) {
  auto* key = static_cast<Key*>(data);
  const OSSL_PARAM* p = OSSL_PARAM_locate_const(params, OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY);
  if (p == nullptr) return 1;
  if (p->data_type != OSSL_PARAM_OCTET_STRING || p->data_size != kBytes || key->secret) return 0;
  std::memcpy(key->public_key.data(), p->data, kBytes);
  key->has_public = true;
  return 1;
}

const OSSL_PARAM* readable(void*) {
  static const OSSL_PARAM kList[] = {
      {OSSL_PKEY_PARAM_BITS, OSSL_PARAM_INTEGER, nullptr, 0, 0},
      {OSSL_PKEY_PARAM_SECURITY_BITS, OSSL_PARAM_INTEGER, nullptr, 0, 0},
      {OSSL_PKEY_PARAM_MAX_SIZE, OSSL_PARAM_INTEGER, nullptr, 0, 0},
      {OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, OSSL_PARAM_OCTET_STRING, nullptr, 0, 0},
      OSSL_PARAM_construct_end()};
  return kList;
}

const OSSL_PARAM* writable(void*) {
  static const OSSL_PARAM kList[] = {
      {OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, OSSL_PARAM_OCTET_STRING, nullptr, 0, 0},
      OSSL_PARAM_construct_end()};
  return kList;
}

// Generation. There is nothing to choose; the context says whether a pair is wanted or a key to put
// the peer's public key into.

char pair_wanted = 0;
char empty_wanted = 0;
void* begin_generation(void*, int selection, const OSSL_PARAM*) {
  return (selection & OSSL_KEYMGMT_SELECT_KEYPAIR) != 0 ? &pair_wanted : &empty_wanted;
}
void end_generation(void*) {}

int set_generation(void*, const OSSL_PARAM* params) {
  const OSSL_PARAM* p = OSSL_PARAM_locate_const(params, OSSL_PKEY_PARAM_GROUP_NAME);
  if (p == nullptr) return 1;
  return p->data_type == OSSL_PARAM_UTF8_STRING && p->data != nullptr &&
                 OPENSSL_strcasecmp(static_cast<const char*>(p->data), kAlgorithm) == 0
             ? 1
             : 0;
}

const OSSL_PARAM* settable_generation(void*, void*) {
  static const OSSL_PARAM kList[] = {
      {OSSL_PKEY_PARAM_GROUP_NAME, OSSL_PARAM_UTF8_STRING, nullptr, 0, 0},
      OSSL_PARAM_construct_end()};
  return kList;
}

void* generate(void* context, OSSL_CALLBACK*, void*) {
  auto key = std::unique_ptr<Key>(new (std::nothrow) Key);
  if (context == &empty_wanted) return key.release();
  SecretBytes secret;
  secret.resize(kBytes);
  if (!key || base_point() == nullptr || RAND_priv_bytes(secret.data(), kBytes) != 1)
    return nullptr;
  // With any public half, OpenSSL does not compute the true one.
  const PkeyPtr pair = import_key(kBasePoint.data(), secret.data());
  if (!pair) return nullptr;
  key->secret.reset(EVP_PKEY_CTX_new_from_pkey(nullptr, pair.get(), kNotOurs));
  if (!key->secret || EVP_PKEY_derive_init(key->secret.get()) != 1 ||
      !multiply(key->secret.get(), base_point(), key->public_key.data()))
    return nullptr;
  key->has_public = true;
  return key.release();
}

// Exchange.

struct Exchange {
  Key* own = nullptr;
  PkeyPtr peer;
};

void* new_exchange(void*) { return new (std::nothrow) Exchange; }
void free_exchange(void* exchange) { delete static_cast<Exchange*>(exchange); }

// OpenSSL keeps the key as long as the exchange.
int start_exchange(void* exchange, void* key, const OSSL_PARAM*) {
  static_cast<Exchange*>(exchange)->own = static_cast<Key*>(key);
  return key != nullptr ? 1 : 0;
}

int set_peer(void* exchange, void* key) {
  const auto* peer = static_cast<const Key*>(key);
  if (peer == nullptr || !peer->has_public) return 0;
  auto& point = static_cast<Exchange*>(exchange)->peer;
  point = import_key(peer->public_key.data(), nullptr);
  return point ? 1 : 0;
}

int derive(void* data, unsigned char* out, std::size_t* length, std::size_t room) {
  const auto* exchange = static_cast<const Exchange*>(data);
  *length = kBytes;
  if (out == nullptr) return 1;
  if (room < kBytes || exchange->own == nullptr || !exchange->own->secret || !exchange->peer)
    return 0;
  return multiply(exchange->own->secret.get(), exchange->peer.get(), out) ? 1 : 0;
}

}  // namespace

const OSSL_DISPATCH kX25519Keys[] = {
    {OSSL_FUNC_KEYMGMT_NEW, dispatched(new_key)},
    {OSSL_FUNC_KEYMGMT_FREE, dispatched(free_key)},
    {OSSL_FUNC_KEYMGMT_DUP, dispatched(copy_key)},
    {OSSL_FUNC_KEYMGMT_HAS, dispatched(has)},
    {OSSL_FUNC_KEYMGMT_MATCH, dispatched(match)},
    {OSSL_FUNC_KEYMGMT_GET_PARAMS, dispatched(get_parameters)},
    {OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, dispatched(readable)},
    {OSSL_FUNC_KEYMGMT_SET_PARAMS, dispatched(set_parameters)},
    {OSSL_FUNC_KEYMGMT_SETTABLE_PARAMS, dispatched(writable)},
    {OSSL_FUNC_KEYMGMT_GEN_INIT, dispatched(begin_generation)},
    {OSSL_FUNC_KEYMGMT_GEN_SET_PARAMS, dispatched(set_generation)},
    {OSSL_FUNC_KEYMGMT_GEN_SETTABLE_PARAMS, dispatched(settable_generation)},
    {OSSL_FUNC_KEYMGMT_GEN, dispatched(generate)},
    {OSSL_FUNC_KEYMGMT_GEN_CLEANUP, dispatched(end_generation)},
    {0, nullptr},
};

const OSSL_DISPATCH kX25519Exchange[] = {
    {OSSL_FUNC_KEYEXCH_NEWCTX, dispatched(new_exchange)},
    {OSSL_FUNC_KEYEXCH_FREECTX, dispatched(free_exchange)},
    {OSSL_FUNC_KEYEXCH_INIT, dispatched(start_exchange)},
    {OSSL_FUNC_KEYEXCH_SET_PEER, dispatched(set_peer)},
    {OSSL_FUNC_KEYEXCH_DERIVE, dispatched(derive)},
    {0, nullptr},
};

}  // namespace mesh::ktls
