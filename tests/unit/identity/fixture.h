// SPDX-License-Identifier: Apache-2.0
// A CA in a scratch directory, a clock that the test moves, and a source whose handlers write down
// what they were told.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/identity/ca_commands.h"
#include "agent/identity/node_ca.h"
#include "agent/identity/source.h"
#include "ktls/verify.h"
#include "tests/support/certs.h"
#include "tests/support/must.h"
#include "tests/unit/catalog/temp_dir.h"

namespace mesh::identity {

using catalog::TempDir;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::sys_seconds;
using test::must;

struct Clock {
  std::chrono::system_clock::time_point time = test::now_seconds();
  [[nodiscard]] sys_seconds second() const { return std::chrono::floor<seconds>(time); }
  std::function<std::chrono::system_clock::time_point()> function() {
    return [this] { return time; };
  }
};

inline std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline mode_t mode_of(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 ? st.st_mode & 07777 : 0;
}

inline std::string error_of(const Result<std::string>& result) {
  return result ? "accepted" : result.error().what;
}

// The `ca` commands below one directory.
class TestCa {
 public:
  explicit TestCa(Clock& clock, std::string trust_domain = "example.org")
      : clock_(clock), trust_domain_(std::move(trust_domain)) {}

  [[nodiscard]] std::string path(const std::string& name = "") const { return dir_.path(name); }
  [[nodiscard]] const TempDir& dir() const { return dir_; }
  Result<std::string> run(CaCommand command, const std::string& node = "",
                          const std::string& ttl = "8760h") {
    CaOptions options;
    options.command = command;
    options.directory = path("ca");
    options.trust_domain = trust_domain_;
    options.node = node;
    options.out = path(node);
    options.ttl = ttl;
    return run_ca(options, clock_.second());
  }
  void init() { must(run(CaCommand::Init), "init"); }
  void issue(const std::string& node, const std::string& ttl = "8760h") {
    must(run(CaCommand::IssueNode, node, ttl), "issue-node");
  }
  void copy_trust(const std::string& node) {
    dir_.write(node + "/trust.pem", read_text(path("ca/trust.pem")));
  }

 private:
  Clock& clock_;
  std::string trust_domain_;
  TempDir dir_;
};

// A source, its io_context and what it said.
class Running {
 public:
  using Make = std::function<std::unique_ptr<Source>(boost::asio::io_context&)>;
  explicit Running(const Make& make) : source(make(io)) {}

  Status start() {
    Source::Handlers handlers;
    handlers.on_svid = [this](const std::string& service, const ktls::SvidPtr& svid) {
      svids[service].push_back(svid);
      if (on_svid) on_svid(service);
    };
    handlers.on_gone = [this](const std::string& service) { gone.push_back(service); };
    handlers.on_bundle = [this](const ktls::TrustBundlePtr& bundle) { bundles.push_back(bundle); };
    handlers.on_error = [this](const std::string& what) { errors.push_back(what); };
    handlers.on_good = [this] { ++good; };
    return source->start(std::move(handlers));
  }

  bool until(const std::function<bool()>& condition, milliseconds limit = seconds(10)) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      turn(milliseconds(2));
    }
    return true;
  }
  void turn(milliseconds time) {
    io.restart();
    io.run_for(time);
  }
  // Long enough for several looks at the files.
  void settle() { turn(milliseconds(150)); }

  // The SVID after a request, or null; `error` says why.
  ktls::SvidPtr request(const std::string& service) {
    bool done = false;
    ktls::SvidPtr svid;
    source->directory()->request(service, [&](Result<Identity> identity) {
      done = true;
      if (identity)
        svid = identity->svid;
      else
        error = identity.error().what;
    });
    EXPECT_TRUE(until([&] { return done; })) << service;
    return svid;
  }
  [[nodiscard]] ktls::SvidPtr svid(const std::string& service) const {
    return source->current(service).svid;
  }

  boost::asio::io_context io;
  std::unique_ptr<Source> source;
  std::map<std::string, std::vector<ktls::SvidPtr>> svids;
  std::vector<std::string> gone;
  std::vector<ktls::TrustBundlePtr> bundles;
  std::vector<std::string> errors;
  int good = 0;
  std::string error;
  std::function<void(const std::string&)> on_svid;
};

// What a peer with these roots says: a node's name, or the reason to refuse.
inline std::string seen_by_peer(const ktls::SvidPtr& svid, const ktls::TrustBundlePtr& bundle,
                                sys_seconds now) {
  if (!svid) return "no SVID";
  test::StackPtr behind = test::stack_of({});
  for (const auto& certificate : svid->intermediates) {
    (void)X509_up_ref(certificate.get());
    sk_X509_push(behind.get(), certificate.get());
  }
  auto peer = ktls::verify_peer(svid->leaf.get(), behind.get(), *bundle, now);
  return peer ? peer->node : std::string(ktls::to_string(peer.error().reason));
}

}  // namespace mesh::identity
