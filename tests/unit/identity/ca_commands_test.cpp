// SPDX-License-Identifier: Apache-2.0
// `mesh-agent ca` from its command line to its files.
#include "agent/identity/ca_commands.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <sstream>

#include "agent/identity/signing_files.h"
#include "ktls/x509_util.h"
#include "tests/unit/identity/fixture.h"

namespace mesh::identity {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class CaCommands : public ::testing::Test {
 protected:
  // As `mesh-agent ARGS...` with one directory in front of --dir and --out; what it says.
  Result<std::string> run(std::vector<std::string> args) {
    CaOptions options;
    bool chosen = false;
    CLI::App app{"", "mesh-agent"};
    add_ca_commands(app, options, [&] { chosen = true; });
    std::reverse(args.begin(), args.end());  // CLI11 takes them from the back
    try {
      app.parse(args);
    } catch (const CLI::ParseError& error) {
      std::ostringstream out, err;
      (void)app.exit(error, out, err);
      return fail("usage: {}{}", out.str(), err.str());
    }
    EXPECT_TRUE(chosen);
    return run_ca(options, clock.second());
  }
  std::string error(std::vector<std::string> args) { return error_of(run(std::move(args))); }
  std::string at(const std::string& name) const { return dir.path(name); }

  void init() {
    must(run({"ca", "init", "--trust-domain", "example.org", "--dir", at("ca")}), "init");
  }
  std::vector<std::string> issue_args(const std::string& node, const std::string& out) const {
    return {"ca", "issue-node", "--dir", at("ca"), "--node", node, "--out", at(out)};
  }
  std::vector<ktls::X509Ptr> certificates(const std::string& name) const {
    return must(ktls::certificates_from_pem(read_text(at(name)), 8), name);
  }

  Clock clock;
  TempDir dir;
};

TEST_F(CaCommands, InitMakesARoot) {
  const auto told = run({"ca", "init", "--trust-domain", "example.org", "--dir", at("ca")});
  ASSERT_TRUE(told) << told.error().what;
  EXPECT_THAT(*told, HasSubstr("ca issue-node --dir " + at("ca")));
  EXPECT_EQ(mode_of(at("ca")), 0700u);
  EXPECT_EQ(mode_of(at("ca/root.key")), 0600u);
  EXPECT_EQ(read_text(at("ca/root.pem")), read_text(at("ca/trust.pem")));
  const auto roots = certificates("ca/root.pem");
  ASSERT_EQ(roots.size(), 1u);
  X509* root = roots[0].get();
  EXPECT_EQ(X509_check_ca(root), 1);
  EXPECT_EQ(X509_self_signed(root, 1), 1);
  EXPECT_EQ(X509_get_key_usage(root), static_cast<unsigned>(KU_KEY_CERT_SIGN));
  EXPECT_EQ(ktls::uri_sans(root).uris, std::vector<std::string>{"spiffe://example.org"});
  EXPECT_EQ(*ktls::to_time(X509_get0_notAfter(root)), clock.second() + hours(87'600));
  EXPECT_EQ(ktls::weak_certificate(root), nullptr);
}

TEST_F(CaCommands, InitRefusesToOverwrite) {
  init();
  const auto before = read_text(at("ca/root.key"));
  const std::vector<std::string> again{"ca",          "init",  "--trust-domain",
                                       "example.org", "--dir", at("ca")};
  EXPECT_THAT(error(again), AllOf(HasSubstr("exists"), HasSubstr("ca rotate")));
  ASSERT_EQ(::unlink(at("ca/root.pem").c_str()), 0);
  EXPECT_THAT(error(again), HasSubstr("root.key exists"));
  EXPECT_EQ(read_text(at("ca/root.key")), before);
}

TEST_F(CaCommands, InitChecksTheTrustDomainAndThePlace) {
  for (const char* name : {"Example.org", "a/b", "spiffe://td", "", "a b", "td,DNS:x"})
    EXPECT_THAT(error({"ca", "init", "--trust-domain", name, "--dir", at("ca")}),
                testing::AnyOf(HasSubstr("not a trust domain"), HasSubstr("usage")))
        << name;
  EXPECT_THAT(error({"ca", "init", "--trust-domain", ".td", "--dir", at("ca")}),
              HasSubstr("begins with a dot"));
  EXPECT_THAT(error({"ca", "init", "--trust-domain", "td", "--dir", at("no/such")}),
              HasSubstr("No such file"));
  dir.write("file", "");
  EXPECT_THAT(error({"ca", "init", "--trust-domain", "td", "--dir", at("file")}),
              HasSubstr("not a directory"));
}

TEST_F(CaCommands, IssueNodeMakesASigningCertificate) {
  init();
  const auto told = run(issue_args("node-1", "n1"));
  ASSERT_TRUE(told) << told.error().what;
  EXPECT_EQ(mode_of(at("n1/node.key")), 0600u);
  EXPECT_EQ(read_text(at("n1/trust.pem")), read_text(at("ca/trust.pem")));
  const auto chain = certificates("n1/node.pem");
  ASSERT_EQ(chain.size(), 1u);
  X509* node = chain[0].get();
  EXPECT_EQ(ktls::node_name_of(node), "node-1");
  EXPECT_EQ(X509_check_ca(node), 1);
  EXPECT_EQ(X509_get_pathlen(node), 0);
  EXPECT_EQ(X509_get_key_usage(node), static_cast<unsigned>(KU_KEY_CERT_SIGN));
  EXPECT_EQ(*ktls::to_time(X509_get0_notAfter(node)), clock.second() + hours(8760));
  auto files = read_signing_files(at("n1"), "node-1", clock.second());
  ASSERT_TRUE(files) << files.error().what;
  EXPECT_EQ(files->bundle->trust_domain, "example.org");
}

TEST_F(CaCommands, TheNodeMayNotSignForAnotherTrustDomain) {
  init();
  must(run(issue_args("node-1", "n1")), "issue");
  const auto chain = certificates("n1/node.pem");
  const auto key = must(ktls::key_from_pem(read_text(at("n1/node.key"))), "key");
  test::Cert signer;
  (void)X509_up_ref(chain[0].get());
  (void)EVP_PKEY_up_ref(key.get());
  signer.certificate.reset(chain[0].get());
  signer.key.reset(key.get());
  const auto leaf = test::make_cert(test::leaf_spec("spiffe://other.org/a"), &signer);
  // Even under a bundle that claims the root for the other trust domain.
  ktls::TrustBundle bundle;
  bundle.trust_domain = "other.org";
  bundle.roots = certificates("ca/root.pem");
  const auto peer =
      ktls::verify_peer(leaf.x509(), test::stack_of({&signer}).get(), bundle, test::now_seconds());
  ASSERT_FALSE(peer);
  EXPECT_EQ(peer.error().reason, ktls::PeerReject::NameConstraint) << peer.error().what;
}

TEST_F(CaCommands, IssueNodeTakesATtl) {
  init();
  auto args = issue_args("node-1", "n1");
  args.insert(args.end(), {"--ttl", "90s"});
  ASSERT_TRUE(run(args));
  EXPECT_EQ(*ktls::to_time(X509_get0_notAfter(certificates("n1/node.pem")[0].get())),
            clock.second() + seconds(90));
  args.back() = "9999999h";
  EXPECT_THAT(error(args), HasSubstr("--ttl"));
  args.back() = "soon";
  EXPECT_THAT(error(args), HasSubstr("'soon' is not a time"));
}

TEST_F(CaCommands, IssueNodeDoesNotOutliveTheRoot) {
  init();
  clock.time += hours(87'600 - 24);
  const auto told = run(issue_args("node-1", "n1"));
  ASSERT_TRUE(told);
  EXPECT_THAT(*told, HasSubstr("the end of the root"));
  EXPECT_EQ(*ktls::to_time(X509_get0_notAfter(certificates("n1/node.pem")[0].get())),
            clock.second() + hours(24));
  clock.time += hours(24);
  EXPECT_THAT(error(issue_args("node-1", "n1")), HasSubstr("ca rotate"));
}

TEST_F(CaCommands, RefusesADirectoryThatOthersMayChange) {
  const std::vector<std::string> make{"ca",          "init",  "--trust-domain",
                                      "example.org", "--dir", at("ca")};
  ASSERT_EQ(::mkdir(at("ca").c_str(), 0700), 0);
  ASSERT_EQ(::chmod(at("ca").c_str(), 0775), 0);
  EXPECT_THAT(error(make), HasSubstr("chmod go-w " + at("ca")));
  EXPECT_FALSE(std::filesystem::exists(at("ca/root.key")));
  ASSERT_EQ(::chmod(at("ca").c_str(), 0755), 0);
  EXPECT_TRUE(run(make));
}

TEST_F(CaCommands, IssueNodeRefuses) {
  EXPECT_THAT(error(issue_args("node-1", "n1")), HasSubstr("ca init"));
  init();
  for (const char* name : {"node 1", "a/b", "a,b", "n\xc3\xb6"})
    EXPECT_THAT(error(issue_args(name, "n1")), HasSubstr("not a node name")) << name;
  EXPECT_THAT(error(issue_args(std::string(65, 'n'), "n1")), HasSubstr("not a node name"));
  EXPECT_TRUE(run(issue_args(std::string(64, 'n'), "n64")));
  ASSERT_TRUE(run(issue_args("node-1", "n1")));
  EXPECT_TRUE(run(issue_args("node-1", "n1"))) << "anew for the same node";
  EXPECT_THAT(error(issue_args("node-2", "n1")), HasSubstr("certificate of node node-1"));

  ASSERT_EQ(::chmod(at("ca/root.key").c_str(), 0640), 0);
  EXPECT_THAT(error(issue_args("node-1", "n1")), HasSubstr("chmod 0600 " + at("ca/root.key")));
  ASSERT_EQ(::chmod(at("ca/root.key").c_str(), 0600), 0);
  EXPECT_THAT(error(issue_args("node-1", "no/such")), HasSubstr("No such file"));
  dir.write("ca/root.key", test::make_cert(test::root_spec("td"), nullptr).key_pem());
  EXPECT_THAT(error(issue_args("node-1", "n1")), HasSubstr("not the key of root.pem"));
}

TEST_F(CaCommands, RotateAndRetire) {
  init();
  const std::vector<std::string> rotate{"ca", "rotate", "--dir", at("ca")};
  const std::vector<std::string> retire{"ca", "retire-root", "--dir", at("ca")};
  EXPECT_THAT(error(retire), HasSubstr("one root only"));
  const auto old_root = read_text(at("ca/root.pem"));
  const auto old_key = read_text(at("ca/root.key"));
  clock.time += hours(1);
  const auto told = run(rotate);
  ASSERT_TRUE(told) << told.error().what;
  EXPECT_THAT(*told, AllOf(HasSubstr("1. copy " + at("ca/trust.pem")), HasSubstr("retire-root")));
  const auto new_root = read_text(at("ca/root.pem"));
  EXPECT_NE(new_root, old_root);
  EXPECT_NE(read_text(at("ca/root.key")), old_key);
  EXPECT_EQ(mode_of(at("ca/root.key")), 0600u);
  EXPECT_EQ(read_text(at("ca/trust.pem")), new_root + old_root);
  EXPECT_FALSE(std::filesystem::exists(at("ca/root.pem.new")));
  EXPECT_THAT(error(rotate), AllOf(HasSubstr("under way"), HasSubstr("retire-root")));

  ASSERT_TRUE(run(issue_args("node-1", "n1")));
  EXPECT_EQ(read_text(at("n1/trust.pem")), new_root + old_root);
  EXPECT_TRUE(read_signing_files(at("n1"), "node-1", clock.second()));

  ASSERT_TRUE(run(retire));
  EXPECT_EQ(read_text(at("ca/trust.pem")), new_root);
  EXPECT_THAT(error(retire), HasSubstr("one root only"));
  EXPECT_TRUE(run(rotate)) << "the next one";
}

// Every place where rotate may have been stopped.
TEST_F(CaCommands, AnInterruptedRotationIsFinishedOrBegunAnew) {
  init();
  const std::vector<std::string> rotate{"ca", "rotate", "--dir", at("ca")};
  const auto old_root = read_text(at("ca/root.pem"));
  const auto next = test::make_cert(test::root_spec("example.org"), nullptr);

  dir.write("ca/root.pem.new", next.pem());
  EXPECT_TRUE(run(issue_args("node-1", "n1"))) << "the old root is in force";
  EXPECT_EQ(read_text(at("ca/root.pem")), old_root);

  dir.write("ca/trust.pem", next.pem() + old_root);
  EXPECT_TRUE(run(issue_args("node-1", "n1")));
  EXPECT_TRUE(read_signing_files(at("n1"), "node-1", clock.second()));
  // trust.pem has two roots, so rotate asks for retire-root, which leaves the one in force.
  EXPECT_THAT(error(rotate), HasSubstr("retire-root"));
  ASSERT_TRUE(run({"ca", "retire-root", "--dir", at("ca")}));
  EXPECT_EQ(read_text(at("ca/trust.pem")), old_root);

  dir.write("ca/trust.pem", next.pem() + old_root);
  dir.write("ca/root.key", next.key_pem());
  EXPECT_TRUE(run(issue_args("node-1", "n1"))) << "the new key is in force";
  EXPECT_EQ(read_text(at("ca/root.pem")), next.pem());
  EXPECT_FALSE(std::filesystem::exists(at("ca/root.pem.new")));
  EXPECT_TRUE(read_signing_files(at("n1"), "node-1", clock.second()));
}

TEST_F(CaCommands, UsageSaysWhatIsMissing) {
  EXPECT_THAT(error({"ca"}), HasSubstr("ubcommand"));
  EXPECT_THAT(error({"ca", "init", "--dir", "x"}), HasSubstr("--trust-domain is required"));
  EXPECT_THAT(error({"ca", "issue-node", "--dir", "x", "--out", "y"}),
              HasSubstr("--node is required"));
  EXPECT_THAT(error({"ca", "rotate"}), HasSubstr("--dir is required"));
  EXPECT_THAT(error({"ca", "frobnicate"}), HasSubstr("ubcommand"));
}

TEST_F(CaCommands, HelpTeachesTheSteps) {
  EXPECT_THAT(error({"ca", "--help"}), AllOf(HasSubstr("ca init --trust-domain example.org"),
                                             HasSubstr("ca issue-node --dir")));
  EXPECT_THAT(error({"ca", "rotate", "--help"}),
              AllOf(HasSubstr("2. copy DIR/trust.pem"), HasSubstr("4. mesh-agent ca retire-root")));
}

TEST_F(CaCommands, TheProcessEndsWithOneSentenceAndACode) {
  CaOptions options;
  options.command = CaCommand::Init;
  options.directory = at("ca");
  options.trust_domain = "example.org";
  testing::internal::CaptureStdout();
  EXPECT_EQ(run_ca_command(options), 0);
  EXPECT_THAT(testing::internal::GetCapturedStdout(), HasSubstr("root of example.org until"));
  testing::internal::CaptureStderr();
  EXPECT_EQ(run_ca_command(options), 1);
  const auto said = testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, testing::StartsWith("mesh-agent: ca: "));
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
}

TEST(ParseTtl, TakesUnits) {
  EXPECT_EQ(*parse_ttl("90s"), seconds(90));
  EXPECT_EQ(*parse_ttl("15m"), seconds(900));
  EXPECT_EQ(*parse_ttl("8760h"), hours(8760));
  EXPECT_EQ(*parse_ttl("365d"), hours(8760));
  for (const char* text : {"", "90", "s", "-1h", "0s", "1w", "1 h", "1h ", "99999999999999999999s",
                           "9223372036854775807h", "101y", "36501d"})
    EXPECT_FALSE(parse_ttl(text)) << text;
}

}  // namespace
}  // namespace mesh::identity
