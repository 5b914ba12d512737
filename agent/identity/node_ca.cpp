// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/node_ca.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <array>
#include <random>
#include <utility>

#include "agent/identity/files.h"
#include "agent/identity/issue.h"
#include "agent/identity/signing_files.h"
#include "agent/identity/source_base.h"
#include "ktls/verify.h"

namespace mesh::identity {
namespace {

using std::chrono::floor;
using std::chrono::seconds;
using std::chrono::sys_seconds;

class NodeCa final : public SourceBase {
 public:
  NodeCa(boost::asio::io_context& io, NodeCaOptions options)
      : SourceBase(io, {options.poll, options.max_identities, options.now}),
        options_(std::move(options)) {}

 private:
  Status load() override {
    if (options_.ttl < seconds(2)) return fail("identities: a TTL below 2 s cannot be renewed");
    seen_ = stamps();
    auto files = read_files();
    if (!files) return context(std::move(files).error(), "identities");
    files_ = std::move(*files);
    set_trust_domain(files_.bundle->trust_domain);
    set_bundle(files_.bundle);
    return {};
  }

  void look() override {
    const auto stamps_now = stamps();
    // Several files are replaced one after the other: wait until one look finds nothing new.
    if (stamps_now != seen_) {
      seen_ = stamps_now;
      settled_ = false;
    } else if (!settled_) {
      settled_ = true;
      reload();
    }
    report_end();
  }

  void reload() {
    auto files = read_files();
    if (files && files->bundle->trust_domain != trust_domain())
      files = fail("{}: the trust domain is {} now, and was {}: restart the agent to change it",
                   options_.directory, files->bundle->trust_domain, trust_domain());
    if (!files) {
      ++count().bad_reloads;
      return report("files", files.error().what);
    }
    report("files", {});
    const bool other_roots = !same_roots(*files->bundle, *files_.bundle);
    const bool other_node = X509_cmp(files->chain[0].get(), files_.chain[0].get()) != 0;
    if (!other_roots && !other_node) return;
    ++count().reloads;
    if (!other_roots) files->bundle = files_.bundle;
    files_ = std::move(*files);
    if (other_node) make_all_again();
    if (other_roots) set_bundle(files_.bundle);
  }

  Result<Made> make(const std::string& service) override {
    auto id =
        ktls::SpiffeId::of_service(trust_domain(), {options_.ns, options_.datacenter, service});
    if (!id) return tl::unexpected(std::move(id).error());
    const Time time = now();
    const auto second = floor<seconds>(time);
    const auto end = std::min(second + options_.ttl, files_.not_after);
    if (end <= second)
      return fail("the certificate of this node has ended: run mesh-agent ca issue-node");
    auto key = make_key();
    if (!key) return tl::unexpected(std::move(key).error());
    auto leaf = make_leaf({files_.chain[0].get(), files_.key.get()}, key->get(), *id,
                          {second - options_.backdate, end});
    if (!leaf) return tl::unexpected(std::move(leaf).error());

    auto svid = std::make_shared<ktls::Svid>();
    svid->id = std::move(*id);
    svid->leaf = std::move(*leaf);
    svid->key = std::move(*key);
    svid->not_before = second - options_.backdate;
    svid->not_after = end;
    for (const auto& certificate : files_.chain) {
      (void)X509_up_ref(certificate.get());  // cannot fail on a live object
      svid->intermediates.emplace_back(certificate.get());
    }
    Made made;
    made.svid = std::move(svid);
    // One that ends with the node's certificate cannot be prolonged; the next certificate does it.
    if (end < files_.not_after) made.renew_at = time + half_life(end - time);
    return made;
  }

  // Within 10 % of the half, so that SVIDs made together are not renewed together.
  std::chrono::milliseconds half_life(Time::duration life) {
    std::uniform_real_distribution<double> jitter(0.45, 0.55);
    const std::chrono::duration<double, std::milli> milliseconds(life);
    return std::chrono::milliseconds(
        static_cast<std::int64_t>(milliseconds.count() * jitter(random_)));
  }

  Result<SigningFiles> read_files() {
    return read_signing_files(options_.directory, options_.node_name, floor<seconds>(now()));
  }

  std::array<FileStamp, 3> stamps() const {
    return {stamp_of(options_.directory + "/node.pem"), stamp_of(options_.directory + "/node.key"),
            stamp_of(options_.directory + "/trust.pem")};
  }

  void report_end() {
    const auto left = files_.not_after - floor<seconds>(now());
    if (left >= options_.ttl) return report("end", {});
    report("end", fmt::format(
                      "the certificate of this node {} at {:%Y-%m-%dT%H:%M:%SZ}: run mesh-agent ca "
                      "issue-node",
                      left <= seconds(0) ? "has ended" : "ends",
                      fmt::gmtime(files_.not_after.time_since_epoch().count())));
  }

  const NodeCaOptions options_;
  SigningFiles files_;
  std::array<FileStamp, 3> seen_{};
  bool settled_ = true;
  std::minstd_rand random_{std::random_device{}()};
};

}  // namespace

std::unique_ptr<Source> make_node_ca(boost::asio::io_context& io, NodeCaOptions options) {
  return std::make_unique<NodeCa>(io, std::move(options));
}

}  // namespace mesh::identity
