// SPDX-License-Identifier: Apache-2.0
// X25519 key pairs. OpenSSL 3.0 makes a public key by Edwards arithmetic without assembly, which
// costs 605,000 instructions; a derivation with the base point (RFC 7748 6.1) comes to the same
// bytes and costs 365,000. Both arithmetics are OpenSSL's: this only asks for the other one.
#include <openssl/core_names.h>
#include <openssl/params.h>
#include <openssl/provider.h>
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
constexpr char kAlgorithm[] = "X25519";

using Public = std::array<unsigned char, kBytes>;

// OpenSSL's own X25519, called without EVP around it, which would look up names for longer than
// the keys take to set up. Null: not there.
struct Inner {
  void* context = nullptr;
  OSSL_FUNC_keymgmt_new_fn* key_new = nullptr;
  OSSL_FUNC_keymgmt_free_fn* key_free = nullptr;
  OSSL_FUNC_keymgmt_import_fn* key_import = nullptr;
  OSSL_FUNC_keyexch_newctx_fn* exchange_new = nullptr;
  OSSL_FUNC_keyexch_freectx_fn* exchange_free = nullptr;
  OSSL_FUNC_keyexch_init_fn* exchange_init = nullptr;
  OSSL_FUNC_keyexch_set_peer_fn* exchange_peer = nullptr;
  OSSL_FUNC_keyexch_derive_fn* exchange_derive = nullptr;

  [[nodiscard]] bool complete() const {
    return key_new != nullptr && key_free != nullptr && key_import != nullptr &&
           exchange_new != nullptr && exchange_free != nullptr && exchange_init != nullptr &&
           exchange_peer != nullptr && exchange_derive != nullptr;
  }
};
Inner inner;

template <typename Function>
void take(const OSSL_DISPATCH* table, int id, Function*& into) {
  for (; table != nullptr && table->function_id != 0; ++table)
    if (table->function_id == id) into = reinterpret_cast<Function*>(table->function);
}

const OSSL_DISPATCH* x25519_of(OSSL_PROVIDER* provider, int operation) {
  int no_cache = 0;
  const OSSL_ALGORITHM* list = OSSL_PROVIDER_query_operation(provider, operation, &no_cache);
  for (; list != nullptr && list->algorithm_names != nullptr; ++list) {
    // "X25519:1.3.101.110"
    const std::string_view names(list->algorithm_names);
    if (names.substr(0, names.find(':')) == kAlgorithm) return list->implementation;
  }
  return nullptr;
}

struct InnerKeyDeleter {
  void operator()(void* key) const { inner.key_free(key); }
};
struct InnerExchangeDeleter {
  void operator()(void* exchange) const { inner.exchange_free(exchange); }
};
using InnerKey = std::unique_ptr<void, InnerKeyDeleter>;
using InnerExchange = std::unique_ptr<void, InnerExchangeDeleter>;

OSSL_PARAM octets(const char* name, const unsigned char* bytes) {
  return OSSL_PARAM_construct_octet_string(name, const_cast<unsigned char*>(bytes), kBytes);
}

InnerKey import_key(const unsigned char* public_key, const unsigned char* secret) {
  InnerKey key(inner.key_new(inner.context));
  OSSL_PARAM params[] = {octets(OSSL_PKEY_PARAM_PUB_KEY, public_key), OSSL_PARAM_construct_end(),
                         OSSL_PARAM_construct_end()};
  if (secret != nullptr) params[1] = octets(OSSL_PKEY_PARAM_PRIV_KEY, secret);
  const int selection =
      secret != nullptr ? OSSL_KEYMGMT_SELECT_KEYPAIR : OSSL_KEYMGMT_SELECT_PUBLIC_KEY;
  if (!key || inner.key_import(key.get(), selection, params) != 1) return nullptr;
  return key;
}

// Fails for a peer's point of small order, whose result is zero (RFC 8446 7.4.2).
bool multiply(void* secret, const Public& point, unsigned char* out) {
  const InnerKey peer = import_key(point.data(), nullptr);
  const InnerExchange exchange(inner.exchange_new(inner.context));
  std::size_t length = 0;
  return peer && exchange && inner.exchange_init(exchange.get(), secret, nullptr) == 1 &&
         inner.exchange_peer(exchange.get(), peer.get()) == 1 &&
         inner.exchange_derive(exchange.get(), out, &length, kBytes) == 1 && length == kBytes;
}

constexpr Public kBasePoint = {9};

// A peer's key has no `secret`.
struct Key {
  bool has_public = false;
  Public public_key{};
  InnerKey secret;  // for multiply() only: its own public half is not the true one
};

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
  if (!key || RAND_priv_bytes(secret.data(), kBytes) != 1) return nullptr;
  // With any public half, OpenSSL does not compute the true one.
  key->secret = import_key(kBasePoint.data(), secret.data());
  if (!key->secret || !multiply(key->secret.get(), kBasePoint, key->public_key.data()))
    return nullptr;
  key->has_public = true;
  return key.release();
}

// Exchange.

struct Exchange {
  const Key* own = nullptr;  // its EVP_PKEY_CTX keeps it
  bool has_peer = false;
  Public peer{};
};

void* new_exchange(void*) { return new (std::nothrow) Exchange; }
void free_exchange(void* exchange) { delete static_cast<Exchange*>(exchange); }

int start_exchange(void* exchange, void* key, const OSSL_PARAM*) {
  static_cast<Exchange*>(exchange)->own = static_cast<const Key*>(key);
  return key != nullptr ? 1 : 0;
}

int set_peer(void* exchange, void* key) {
  const auto* peer = static_cast<const Key*>(key);
  if (peer == nullptr || !peer->has_public) return 0;
  static_cast<Exchange*>(exchange)->peer = peer->public_key;
  static_cast<Exchange*>(exchange)->has_peer = true;
  return 1;
}

int derive(void* data, unsigned char* out, std::size_t* length, std::size_t room) {
  const auto* exchange = static_cast<const Exchange*>(data);
  *length = kBytes;
  if (out == nullptr) return 1;
  if (room < kBytes || exchange->own == nullptr || !exchange->own->secret || !exchange->has_peer)
    return 0;
  return multiply(exchange->own->secret.get(), exchange->peer, out) ? 1 : 0;
}

}  // namespace

Status find_x25519() {
  // Stays loaded: its functions are called as long as the process lives.
  OSSL_PROVIDER* provider = OSSL_PROVIDER_load(nullptr, "default");
  if (provider == nullptr) return fail_ossl("OpenSSL's default provider");
  const OSSL_DISPATCH* keys = x25519_of(provider, OSSL_OP_KEYMGMT);
  const OSSL_DISPATCH* exchange = x25519_of(provider, OSSL_OP_KEYEXCH);
  inner.context = OSSL_PROVIDER_get0_provider_ctx(provider);
  take(keys, OSSL_FUNC_KEYMGMT_NEW, inner.key_new);
  take(keys, OSSL_FUNC_KEYMGMT_FREE, inner.key_free);
  take(keys, OSSL_FUNC_KEYMGMT_IMPORT, inner.key_import);
  take(exchange, OSSL_FUNC_KEYEXCH_NEWCTX, inner.exchange_new);
  take(exchange, OSSL_FUNC_KEYEXCH_FREECTX, inner.exchange_free);
  take(exchange, OSSL_FUNC_KEYEXCH_INIT, inner.exchange_init);
  take(exchange, OSSL_FUNC_KEYEXCH_SET_PEER, inner.exchange_peer);
  take(exchange, OSSL_FUNC_KEYEXCH_DERIVE, inner.exchange_derive);
  if (!inner.complete()) return fail("OpenSSL's default provider has no X25519");
  return {};
}

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
