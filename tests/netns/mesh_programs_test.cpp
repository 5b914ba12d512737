// SPDX-License-Identifier: Apache-2.0
// Programs that know nothing of a mesh, on two nodes.
#include "tests/netns/mesh_programs.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

const char* const kPythonEcho = R"(
import socket, sys, threading
def serve(c):
    with c, c.makefile("rwb") as f:
        for line in f:
            f.write(line.upper())
            f.flush()
s = socket.create_server((sys.argv[1], int(sys.argv[2])))
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
)";

const char* const kPythonClient = R"(
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) as c, c.makefile("rwb") as f:
    for i in range(200):
        line = b"line %d %s\n" % (i, b"x" * (i * 37 % 5000))
        f.write(line)
        f.flush()
        assert f.readline() == line.upper(), i
    c.shutdown(socket.SHUT_WR)
    assert f.read() == b""
print("fine")
)";

// io.Copy takes splice(2) from socket to socket in the server, and ReadFrom and WriteTo in the
// client.
const char* const kGo = R"(
package main

import ("crypto/sha256"; "fmt"; "io"; "math/rand"; "net"; "os")

func fail(err error) { if err != nil { fmt.Println(err); os.Exit(1) } }

func main() {
	if os.Args[1] == "serve" {
		l, err := net.Listen("tcp", os.Args[2])
		fail(err)
		fmt.Println("listening")
		for {
			c, err := l.Accept()
			fail(err)
			go func() { io.Copy(c, c); c.(*net.TCPConn).CloseWrite(); c.Close() }()
		}
	}
	c, err := net.Dial("tcp", os.Args[2])
	fail(err)
	sent, got := sha256.New(), sha256.New()
	go func() {
		source := io.LimitReader(rand.New(rand.NewSource(7)), 24<<20)
		_, err := io.Copy(c, io.TeeReader(source, sent))
		fail(err)
		fail(c.(*net.TCPConn).CloseWrite())
	}()
	n, err := io.Copy(got, c)
	fail(err)
	fmt.Println(n, string(sent.Sum(nil)) == string(got.Sum(nil)))
}
)";

TEST_F(MeshPrograms, WrkAndH2load) {
  Process nginx = start_nginx();
  const std::string wrk =
      expect_ok({"wrk", "-t1", "-c16", "-d2s", "http://" + vip4("web") + "/page"});
  EXPECT_THAT(wrk, HasSubstr(" requests in "));
  EXPECT_EQ(wrk.find("Socket errors"), std::string::npos) << wrk;
  EXPECT_EQ(wrk.find("Non-2xx"), std::string::npos) << wrk;
  const std::string h2 = expect_ok(
      {"h2load", "-n", "2000", "-c", "4", "-m", "20", "http://" + server_->addr4 + ":81/page"});
  EXPECT_THAT(h2, HasSubstr("2000 succeeded, 0 failed, 0 errored")) << h2;
}

TEST_F(MeshPrograms, RedisAndIperf3) {
  Process redis = start_redis(*server_);
  Process iperf = server_->spawn({"iperf3", "-s", "--forceflush"});
  const auto& to = server_->addr4;
  const std::string out = expect_ok({"redis-benchmark", "-h", to, "-n", "3000", "-c", "10", "-P",
                                     "4", "-d", "500", "-t", "lpush,get", "--csv"});
  EXPECT_THAT(out, HasSubstr("LPUSH"));
  EXPECT_EQ(expect_ok({"redis-cli", "-h", to, "llen", "mylist"}), "3000\n");
  ASSERT_TRUE(iperf.wait_output("listening", 30s));
  for (const bool reverse : {false, true}) {
    std::vector<std::string> argv{"iperf3", "-c", to, "-n", "40M", "-P", "2", "-J"};
    if (reverse) argv.push_back("-R");
    const auto result = nlohmann::json::parse(expect_ok(argv), nullptr, false);
    ASSERT_FALSE(result.is_discarded());
    EXPECT_GE(result["end"]["sum_sent"]["bytes"].get<double>(), 40 * 1024 * 1024);
    EXPECT_GT(result["end"]["sum_received"]["bytes"].get<double>(), 0);
  }
}

TEST_F(MeshPrograms, PostgresKnowsItsClientByAddress) {
  const std::string programs = "/usr/lib/postgresql/15/bin/";
  const std::string directory = fmt::format("/tmp/{}", scratch_name("pg"));
  const ScratchDir scratch = must(ScratchDir::create(directory), "postgres");
  ASSERT_EQ(std::system(fmt::format("chown postgres {}", directory).c_str()), 0);
  const std::string data = directory + "/data";
  const auto as_postgres = [](std::vector<std::string> argv) {
    argv.insert(argv.begin(),
                {"setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--"});
    return argv;
  };
  const RunResult made =
      server_->run(as_postgres({programs + "initdb", "-D", data, "-N", "-A", "reject"}));
  ASSERT_TRUE(made.ok()) << made.describe();
  std::ofstream(data + "/pg_hba.conf") << fmt::format("host all all {}/32 trust\n", client_->addr4);
  Process postgres = server_->spawn(
      as_postgres({programs + "postgres", "-D", data, "-c", "listen_addresses=*", "-c", "fsync=off",
                   "-c", "unix_socket_directories=" + directory}));
  wait_listening(*server_, 5432);
  const auto& to = server_->addr4;
  const RunResult stranger =
      second_->run({programs + "psql", "-h", to, "-U", "postgres", "-c", "select 1"});
  EXPECT_FALSE(stranger.ok());
  EXPECT_THAT(stranger.err,
              HasSubstr(fmt::format("no pg_hba.conf entry for host \"{}\"", second_->addr4)));
  EXPECT_EQ(expect_ok({programs + "psql", "-h", to, "-U", "postgres", "-Atc",
                       "select host(inet_client_addr())"}),
            client_->addr4 + "\n");
  expect_ok({programs + "pgbench", "-h", to, "-U", "postgres", "-i", "-q", "postgres"});
  const std::string bench = expect_ok(
      {programs + "pgbench", "-h", to, "-U", "postgres", "-c", "4", "-t", "50", "-n", "postgres"});
  EXPECT_THAT(bench, HasSubstr("number of transactions actually processed: 200/200")) << bench;
}

TEST_F(MeshPrograms, PythonThatBlocks) {
  Process server = server_->spawn({"/usr/bin/python3", "-c", kPythonEcho, "0.0.0.0", "7000"});
  wait_listening(*server_, 7000);
  std::vector<Process> clients;
  for (int i = 0; i < 4; ++i)
    clients.push_back(
        client_->spawn({"/usr/bin/python3", "-c", kPythonClient, server_->addr4, "7000"}));
  for (auto& client : clients) {
    const auto status = client.wait(60s);
    ASSERT_TRUE(status) << status.error().what;
    EXPECT_TRUE(status->ok()) << client.err();
    EXPECT_EQ(client.out(), "fine\n");
  }
}

TEST_F(MeshPrograms, GoCopies) {
  const std::string directory = a_->work_dir() + "/go";
  must(make_directory(directory), "go");
  std::ofstream(directory + "/main.go") << kGo;
  SpawnOptions options;
  options.env = {{"GO111MODULE", "off"}, {"CGO_ENABLED", "0"}, {"GOFLAGS", ""}};
  const auto built =
      must(run({"go", "build", "-o", directory + "/copy", directory + "/main.go"}, options, 240s),
           "go build");
  ASSERT_TRUE(built.ok()) << built.describe();
  Process server = server_->spawn({directory + "/copy", "serve", "0.0.0.0:7001"});
  ASSERT_TRUE(server.wait_output("listening", 30s));
  EXPECT_EQ(expect_ok({directory + "/copy", "dial", server_->addr4 + ":7001"}),
            fmt::format("{} true\n", 24 << 20));
}

}  // namespace
}  // namespace mesh::test
