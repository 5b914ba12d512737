// SPDX-License-Identifier: Apache-2.0
#include "agent/store/tls.h"

#include "agent/base/trusted_file.h"

namespace mesh::store {
namespace ssl = boost::asio::ssl;
namespace {

Status load_own(ssl::context& tls, const StoreAccess& access) {
  auto chain = read_trusted_file(access.cert_file);
  if (!chain) return context(std::move(chain).error(), "--store-cert-file");
  auto key = read_secret_file(access.key_file);
  if (!key) return context(std::move(key).error(), "--store-key-file");
  boost::system::error_code code;
  // The outcome of each call is in `code`, its return value is the same.
  (void)tls.use_certificate_chain(boost::asio::buffer(*chain), code);
  if (code) return fail("--store-cert-file {}: {}", access.cert_file, code.message());
  (void)tls.use_private_key(boost::asio::buffer(key->view()), ssl::context::pem, code);
  if (code) return fail("--store-key-file {}: {}", access.key_file, code.message());
  return {};
}

}  // namespace

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
  if (access.ca_file.empty()) {
    (void)tls->set_default_verify_paths(code);
  } else {
    auto roots = read_trusted_file(access.ca_file);
    if (!roots) return context(std::move(roots).error(), "--store-ca-file");
    (void)tls->add_certificate_authority(boost::asio::buffer(*roots), code);
  }
  if (code) return fail("--store-ca-file {}: {}", access.ca_file, code.message());
  if (access.cert_file.empty()) return tls;
  if (auto loaded = load_own(*tls, access); !loaded)
    return tl::unexpected(std::move(loaded).error());
  return tls;
}

}  // namespace mesh::store
