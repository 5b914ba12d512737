// SPDX-License-Identifier: Apache-2.0
#include "agent/store/tls.h"

namespace mesh::store {
namespace ssl = boost::asio::ssl;

Result<std::shared_ptr<ssl::context>> make_tls(const StoreAccess& access) {
  std::shared_ptr<ssl::context> tls;
  try {
    tls = std::make_shared<ssl::context>(ssl::context::tls_client);
  } catch (const std::exception& error) {
    return fail("TLS: {}", error.what());
  }
  boost::system::error_code code;
  // The outcome of each call is in `code`, its return value is the same.
  (void)tls->set_options(
      ssl::context::default_workarounds | ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1, code);
  if (!code) (void)tls->set_verify_mode(ssl::verify_peer, code);
  if (code) return fail("TLS: {}", code.message());
  if (access.ca_file.empty())
    (void)tls->set_default_verify_paths(code);
  else
    (void)tls->load_verify_file(access.ca_file, code);
  if (code) return fail("--store-ca-file {}: {}", access.ca_file, code.message());
  if (access.cert_file.empty()) return tls;
  (void)tls->use_certificate_chain_file(access.cert_file, code);
  if (code) return fail("--store-cert-file {}: {}", access.cert_file, code.message());
  (void)tls->use_private_key_file(access.key_file, ssl::context::pem, code);
  if (code) return fail("--store-key-file {}: {}", access.key_file, code.message());
  return tls;
}

}  // namespace mesh::store
