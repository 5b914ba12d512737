// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/ca_commands.h"

#include <fmt/chrono.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>

#include "agent/base/trusted_file.h"
#include "agent/identity/files.h"
#include "agent/identity/issue.h"
#include "agent/identity/signing_files.h"
#include "ktls/x509_util.h"

namespace mesh::identity {
namespace {

using std::chrono::seconds;
using std::chrono::sys_seconds;

constexpr auto kRootLife = std::chrono::hours(87'600);  // 10 years
constexpr auto kBackdate = std::chrono::minutes(5);     // clocks of the nodes that are behind
constexpr seconds kMinTtl{1};

constexpr const char* kCaHelp =
    "The built-in CA: a root that is kept in one directory, away from the nodes, and a signing\n"
    "certificate for each node with which its agent issues short-lived identities to its own\n"
    "workloads.\n\n"
    "  mesh-agent ca init --trust-domain example.org --dir /etc/mesh-ca\n"
    "  mesh-agent ca issue-node --dir /etc/mesh-ca --node node-1 --out node-1\n"
    "Copy the directory node-1 to that node with its modes; repeat issue-node before the\n"
    "certificate ends.\n"
    "An agent that runs takes new files within seconds.";

constexpr const char* kRotateHelp =
    "Replaces the root without an interruption:\n"
    "  1. mesh-agent ca rotate --dir DIR          a new root; DIR/trust.pem has both\n"
    "  2. copy DIR/trust.pem to every node        first, so that nobody meets a root it does not "
    "know\n"
    "  3. mesh-agent ca issue-node ...            for every node, and copy the files there\n"
    "  4. mesh-agent ca retire-root --dir DIR     DIR/trust.pem has the new root alone\n"
    "  5. copy DIR/trust.pem to every node\n"
    "The key of the old root is deleted in step 1.";

std::string in(const std::string& directory, std::string_view name) {
  return fmt::format("{}/{}", directory, name);
}

std::string to_text(sys_seconds time) {
  return fmt::format("{:%Y-%m-%d %H:%M:%S} UTC",
                     fmt::gmtime(static_cast<std::time_t>(time.time_since_epoch().count())));
}

bool is_there(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

struct Root {
  Certified own;
  std::string trust_domain;
  std::string pem;
  std::vector<ktls::X509Ptr> trusted;  // trust.pem
};

Status finish_rotation(const std::string& directory, EVP_PKEY* key);

Result<Root> read_root(const std::string& directory) {
  if (!is_there(in(directory, "root.pem")))
    return fail(
        "{} has no root.pem: make a root with mesh-agent ca init --trust-domain TD --dir {}",
        directory, directory);
  auto key_text = read_secret_file(in(directory, "root.key"));
  if (!key_text) return tl::unexpected(std::move(key_text).error());
  auto key = ktls::key_from_pem(key_text->view());
  if (!key) return context(std::move(key).error(), in(directory, "root.key"));
  MESH_TRY(finish_rotation(directory, key->get()), "an interrupted ca rotate");

  Root root;
  auto pem = read_trusted_file(in(directory, "root.pem"));
  if (!pem) return tl::unexpected(std::move(pem).error());
  auto certificate = ktls::certificates_from_pem(*pem, 1);
  if (!certificate) return context(std::move(certificate).error(), in(directory, "root.pem"));
  root.pem = std::move(*pem);
  root.own = {std::move(certificate->front()), std::move(*key)};
  if (X509_check_private_key(root.own.certificate.get(), root.own.key.get()) != 1) {
    ERR_clear_error();
    return fail("{}/root.key is not the key of root.pem: restore both from one backup", directory);
  }
  auto trust_domain = trust_domain_of(root.own.certificate.get());
  if (!trust_domain) return context(std::move(trust_domain).error(), in(directory, "root.pem"));
  root.trust_domain = std::move(*trust_domain);
  auto trust = read_trusted_file(in(directory, "trust.pem"));
  if (!trust) return tl::unexpected(std::move(trust).error());
  auto trusted = ktls::certificates_from_pem(*trust, ktls::kMaxRoots);
  if (!trusted) return context(std::move(trusted).error(), in(directory, "trust.pem"));
  root.trusted = std::move(*trusted);
  return root;
}

// rotate replaces the key before the certificate; in between, root.pem.new is the key's.
Status finish_rotation(const std::string& directory, EVP_PKEY* key) {
  const auto path = in(directory, "root.pem.new");
  if (!is_there(path)) return {};
  auto pem = read_trusted_file(path);
  if (!pem) return tl::unexpected(std::move(pem).error());
  auto certificate = ktls::certificates_from_pem(*pem, 1);
  if (!certificate) return context(std::move(certificate).error(), path);
  const bool ours = X509_check_private_key(certificate->front().get(), key) == 1;
  ERR_clear_error();
  if (!ours) return {};  // it had not come to the key: nothing has changed, rotate begins anew
  if (::rename(path.c_str(), in(directory, "root.pem").c_str()) != 0)
    return fail_errno(errno, path);
  return {};
}

Result<std::string> init(const CaOptions& options, sys_seconds now) {
  for (const char* name : {"root.pem", "root.key", "trust.pem"})
    if (is_there(in(options.directory, name)))
      return fail(
          "{} exists: a CA is not overwritten; use ca rotate for a new root, or another --dir",
          in(options.directory, name));
  auto root = make_root(options.trust_domain, {now - kBackdate, now + kRootLife});
  if (!root) return tl::unexpected(std::move(root).error());
  auto pem = to_pem(root->certificate.get());
  if (!pem) return tl::unexpected(std::move(pem).error());
  auto key = to_pem(root->key.get());
  if (!key) return tl::unexpected(std::move(key).error());
  MESH_TRY(make_directory(options.directory), "make the directory");
  MESH_TRY(replace_file(in(options.directory, "root.key"), key->view(), 0600),
           "write the root's key");
  MESH_TRY(replace_file(in(options.directory, "trust.pem"), *pem, 0644), "write trust.pem");
  MESH_TRY(replace_file(in(options.directory, "root.pem"), *pem, 0644), "write root.pem");
  return fmt::format(
      "root of {} until {}; keep {}/root.key secret and safe\n"
      "next, for each node: mesh-agent ca issue-node --dir {} --node NAME --out NODEDIR\n",
      options.trust_domain, to_text(now + kRootLife), options.directory, options.directory);
}

// A directory that has another node's certificate is not this node's.
Status check_out(const CaOptions& options) {
  const auto path = in(options.out, "node.pem");
  if (!is_there(path)) return {};
  auto pem = read_trusted_file(path);
  if (!pem) return tl::unexpected(std::move(pem).error());
  auto chain = ktls::certificates_from_pem(*pem, ktls::kMaxChain);
  if (!chain) return {};  // broken: replacing it is the way out
  const auto name = ktls::node_name_of(chain->front().get());
  if (!name.empty() && name != options.node)
    return fail("{} is the certificate of node {}: choose another --out", path, name);
  return {};
}

Result<std::string> issue_node(const CaOptions& options, sys_seconds now) {
  auto ttl = parse_ttl(options.ttl);
  if (!ttl) return context(std::move(ttl).error(), "--ttl");
  auto root = read_root(options.directory);
  if (!root) return tl::unexpected(std::move(root).error());
  if (auto checked = check_out(options); !checked)
    return tl::unexpected(std::move(checked).error());
  auto root_end = ktls::to_time(X509_get0_notAfter(root->own.certificate.get()));
  if (!root_end) return context(std::move(root_end).error(), in(options.directory, "root.pem"));
  if (*root_end <= now)
    return fail("the root has ended at {}: make a new one with mesh-agent ca rotate --dir {}",
                to_text(*root_end), options.directory);
  const auto end = std::min(now + *ttl, *root_end);
  auto node = make_node_certificate({root->own.certificate.get(), root->own.key.get()},
                                    root->trust_domain, options.node, {now - kBackdate, end});
  if (!node) return tl::unexpected(std::move(node).error());
  auto pem = to_pem(node->certificate.get());
  if (!pem) return tl::unexpected(std::move(pem).error());
  auto key = to_pem(node->key.get());
  if (!key) return tl::unexpected(std::move(key).error());
  auto trust = read_trusted_file(in(options.directory, "trust.pem"));
  if (!trust) return tl::unexpected(std::move(trust).error());
  MESH_TRY(make_directory(options.out), "make the directory");
  MESH_TRY(replace_file(in(options.out, "trust.pem"), *trust, 0644), "write trust.pem");
  MESH_TRY(replace_file(in(options.out, "node.key"), key->view(), 0600), "write the node's key");
  MESH_TRY(replace_file(in(options.out, "node.pem"), *pem, 0644), "write node.pem");
  return fmt::format(
      "node {} may sign for {} until {}{}\n"
      "next: put {} on that node and start its agent with it; issue anew before it ends\n",
      options.node, root->trust_domain, to_text(end),
      end < now + *ttl ? " (the end of the root; ca rotate makes a new one)" : "", options.out);
}

Result<std::string> rotate(const CaOptions& options, sys_seconds now) {
  auto old = read_root(options.directory);
  if (!old) return tl::unexpected(std::move(old).error());
  if (old->trusted.size() > 1)
    return fail(
        "{}/trust.pem has {} roots, so a rotation is under way: issue every node anew, then run "
        "mesh-agent ca retire-root --dir {}",
        options.directory, old->trusted.size(), options.directory);
  auto root = make_root(old->trust_domain, {now - kBackdate, now + kRootLife});
  if (!root) return tl::unexpected(std::move(root).error());
  auto pem = to_pem(root->certificate.get());
  if (!pem) return tl::unexpected(std::move(pem).error());
  auto key = to_pem(root->key.get());
  if (!key) return tl::unexpected(std::move(key).error());
  const auto& dir = options.directory;
  // The key decides which root is in force; read_root() finishes what stops after it.
  MESH_TRY(replace_file(in(dir, "root.pem.new"), *pem, 0644), "write the new root");
  MESH_TRY(replace_file(in(dir, "trust.pem"), *pem + old->pem, 0644), "write trust.pem");
  MESH_TRY(replace_file(in(dir, "root.key"), key->view(), 0600), "write the root's key");
  MESH_TRY(finish_rotation(dir, root->key.get()), "write root.pem");
  return fmt::format(
      "new root of {} until {}; {}/trust.pem has the old one too\n"
      "next: 1. copy {}/trust.pem to every node  2. mesh-agent ca issue-node for every node\n"
      "      3. mesh-agent ca retire-root --dir {}  4. copy {}/trust.pem to every node\n",
      old->trust_domain, to_text(now + kRootLife), dir, dir, dir, dir);
}

Result<std::string> retire_root(const CaOptions& options) {
  auto root = read_root(options.directory);
  if (!root) return tl::unexpected(std::move(root).error());
  if (root->trusted.size() < 2)
    return fail("{}/trust.pem has one root only: there is none to retire", options.directory);
  MESH_TRY(replace_file(in(options.directory, "trust.pem"), root->pem, 0644), "write trust.pem");
  return fmt::format(
      "{0}/trust.pem has the new root alone\n"
      "next: copy {0}/trust.pem to every node; one that was not issued anew refuses it and says "
      "so\n",
      options.directory);
}

}  // namespace

Result<seconds> parse_ttl(std::string_view text) {
  std::int64_t count = 0;
  const char* end = text.data() + text.size();
  const auto [stop, code] = std::from_chars(text.data(), end, count);
  const std::string_view unit(stop, static_cast<std::size_t>(end - stop));
  std::int64_t factor = 0;
  if (unit == "s") factor = 1;
  if (unit == "m") factor = 60;
  if (unit == "h") factor = 3600;
  if (unit == "d") factor = 86'400;
  constexpr std::int64_t kMax = 100LL * 365 * 86'400;
  if (code != std::errc{} || factor == 0 || count < 1 || count > kMax / factor)
    return fail("'{}' is not a time such as 90s, 15m, 8760h or 365d", text);
  return std::max(seconds(count * factor), kMinTtl);
}

Result<std::string> run_ca(const CaOptions& options, sys_seconds now) {
  switch (options.command) {
    case CaCommand::Init:
      return init(options, now);
    case CaCommand::IssueNode:
      return issue_node(options, now);
    case CaCommand::Rotate:
      return rotate(options, now);
    case CaCommand::RetireRoot:
      return retire_root(options);
  }
  return fail("unknown ca command");
}

int run_ca_command(const CaOptions& options) {
  const auto now = std::chrono::floor<seconds>(std::chrono::system_clock::now());
  auto told = run_ca(options, now);
  if (!told) {
    fmt::print(stderr, "mesh-agent: ca: {}\n", told.error().what);
    return 1;
  }
  fmt::print("{}", *told);
  return 0;
}

void add_ca_commands(CLI::App& app, CaOptions& options, const std::function<void()>& chosen) {
  auto* ca = app.add_subcommand("ca", "Make and renew the certificates of the built-in CA");
  ca->footer(kCaHelp);
  ca->require_subcommand(1);
  const auto add = [&](const char* name, const char* help, CaCommand command) {
    auto* sub = ca->add_subcommand(name, help);
    sub->add_option("--dir", options.directory, "Directory of root.pem, root.key and trust.pem")
        ->required()
        ->type_name("DIR");
    sub->callback([&options, chosen, command] {
      options.command = command;
      chosen();
    });
    return sub;
  };
  add("init", "Make a new root; never overwrites one", CaCommand::Init)
      ->add_option("--trust-domain", options.trust_domain,
                   "Name of the trust domain: [a-z0-9._-], as in example.org")
      ->required()
      ->type_name("TD");
  auto* issue =
      add("issue-node", "Make or renew a node's signing certificate: node.pem, node.key, trust.pem",
          CaCommand::IssueNode);
  issue->add_option("--node", options.node, "Name of the node, as its agent's --node-name")
      ->required()
      ->type_name("NAME");
  issue->add_option("--out", options.out, "Directory for the node's files")
      ->required()
      ->type_name("NODEDIR");
  issue->add_option("--ttl", options.ttl, "How long it is valid: 90s, 15m, 8760h, 365d")
      ->capture_default_str()
      ->type_name("TIME");
  add("rotate", "Replace the root, first step", CaCommand::Rotate)->footer(kRotateHelp);
  add("retire-root", "Replace the root, last step: trust the new one alone", CaCommand::RetireRoot)
      ->footer(kRotateHelp);
}

}  // namespace mesh::identity
