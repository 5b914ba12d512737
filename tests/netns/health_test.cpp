// SPDX-License-Identifier: Apache-2.0
// Endpoints follow their checks: TCP, HTTP, gRPC and TTL, from inside the pods.
#include <fstream>

#include "tests/netns/mesh_test.h"
#include "tests/support/must.h"

namespace mesh::test {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

// An HTTP server whose health is a file that is there or not.
constexpr const char* kHttp = R"py(
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if os.path.exists(sys.argv[2]) else 503)
        self.send_header('Content-Length', '0')
        self.end_headers()
    def log_message(self, *args): pass
print('serving', flush=True)
http.server.HTTPServer(('0.0.0.0', int(sys.argv[1])), Handler).serve_forever()
)py";

// A real gRPC server with the health service, written with generic handlers: SERVING for "good",
// NOT_SERVING for all else.
constexpr const char* kGrpc = R"py(
import grpc, sys
from concurrent import futures
def check(request, context):
    return b'\x08\x01' if request == b'\x0a\x04good' else b'\x08\x02'
handler = grpc.method_handlers_generic_handler('grpc.health.v1.Health', {
    'Check': grpc.unary_unary_rpc_method_handler(check, request_deserializer=None, response_serializer=None)})
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((handler,))
server.add_insecure_port('0.0.0.0:' + sys.argv[1])
server.start()
print('serving', flush=True)
server.wait_for_termination()
)py";

class Health : public MeshTest {
 protected:
  void SetUp() override {
    MeshTest::SetUp();
    if (!node_) return;
    client_ = &node().add_pod("client");
    one_ = &node().add_pod("one");
    two_ = &node().add_pod("two");
    echo_one_.emplace(start_server(*one_, {"echo-server", "--port", "8080"}));
    echo_two_.emplace(start_server(*two_, {"echo-server", "--port", "8080"}));
  }

  // Two instances of "web"; each with these checks.
  void serve(const json& of_one, const json& of_two) {
    const auto instance = [](const char* id, const Pod& pod, const json& checks) {
      return json{
          {"id", id}, {"name", "web"}, {"address", pod.addr4}, {"port", 8080}, {"checks", checks}};
    };
    const json all{{"services",
                    {instance("web-1", *one_, of_one),
                     instance("web-2", *two_, of_two),
                     {{"name", "caller"}, {"address", client_->addr4}, {"port", 1}}}}};
    node().write_config("services.json", all.dump());
    if (!agent_) agent_.emplace(node());
    for (const auto* pod : {client_, one_, two_}) wait_enrolled(*pod);
  }

  // The status of a check; "" before there is one.
  std::string status_of(const std::string& id) {
    const auto status = agent().status_json();
    for (const auto& check : status["checks"])
      if (check["check"] == id) return check["status"];
    return {};
  }
  void becomes(const std::string& id, const std::string& wanted) {
    EXPECT_TRUE(eventually(
        kSettle, [&] { return status_of(id) == wanted; }, id + " " + wanted))
        << agent().status_json()["checks"];
  }
  // Which pods answer when the VIP is asked eight times.
  std::set<std::string> who_answers() {
    std::set<std::string> who;
    const auto count = [](Process& echo) { return wait_events(echo, "accept", 0).size(); };
    const auto before_one = count(*echo_one_), before_two = count(*echo_two_);
    for (int i = 0; i < 8; ++i) EXPECT_EQ(run_client(*client_, vip4("web"), 80)["ok"], true);
    EXPECT_TRUE(eventually(
        kSettle,
        [&] {
          const auto one = count(*echo_one_) - before_one, two = count(*echo_two_) - before_two;
          if (one > 0) who.insert("one");
          if (two > 0) who.insert("two");
          return one + two >= 8;
        },
        "the servers tell of eight"));
    return who;
  }
  void answers(const std::set<std::string>& wanted) {
    EXPECT_TRUE(eventually(
        kSettle, [&] { return who_answers() == wanted; }, "who answers"));
  }

  Pod* client_ = nullptr;
  Pod* one_ = nullptr;
  Pod* two_ = nullptr;
  std::optional<Process> echo_one_, echo_two_;
};

TEST_F(Health, EndpointsFollowHttpChecksAndAServiceIsNeverEmptied) {
  const std::string well = node().work_dir() + "/well";
  std::ofstream(well) << "yes";
  Process http = one_->spawn({"/usr/bin/python3", "-c", kHttp, "9000", well});
  ASSERT_TRUE(http.wait_output("serving", kSettle));
  serve(json::array({{{"id", "h"}, {"http", "http://localhost:9000/health"}, {"interval", "1s"}}}),
        json::array());
  becomes("h", "passing");
  answers({"one", "two"});
  must(run_tool({"rm", well}, {}, 10s), "rm");
  becomes("h", "critical");
  answers({"two"});
  // The last one fails too: better a sick endpoint than none.
  serve(json::array({{{"id", "h"}, {"http", "http://localhost:9000/health"}, {"interval", "1s"}}}),
        json::array({{{"id", "t"}, {"tcp", "localhost:1"}, {"interval", "1s"}}}));
  becomes("t", "critical");
  answers({"one", "two"});
  std::ofstream(well) << "yes";
  becomes("h", "passing");
  answers({"one"});
  EXPECT_GT(agent().metrics().value("mesh_health_probes_total", {{"result", "passing"}}), 0);
  EXPECT_EQ(agent().metrics().value("mesh_health_checks", {{"status", "critical"}}), 1);
}

TEST_F(Health, TcpOnThePodsOwnAddressAndGrpc) {
  Process grpc = two_->spawn({"/usr/bin/python3", "-c", kGrpc, "9001"});
  ASSERT_TRUE(grpc.wait_output("serving", kSettle)) << grpc.err();
  serve(json::array({{{"id", "own"}, {"tcp", one_->addr4 + ":8080"}, {"interval", "1s"}},
                     {{"id", "stranger"}, {"tcp", two_->addr4 + ":8080"}, {"interval", "1s"}}}),
        json::array({{{"id", "good"}, {"grpc", "localhost:9001/good"}, {"interval", "1s"}},
                     {{"id", "all"}, {"grpc", two_->addr4 + ":9001"}, {"interval", "1s"}}}));
  becomes("own", "passing");
  becomes("good", "passing");
  // They begin as critical; what was found is said once they have run.
  const auto says = [&](const std::string& id, const std::string& what) {
    return eventually(
        kSettle,
        [&] {
          const auto status = agent().status_json();
          for (const auto& check : status["checks"])
            if (check["check"] == id)
              return check["status"] == "critical" &&
                     check["output"].get<std::string>().find(what) != std::string::npos;
          return false;
        },
        id + " says " + what);
  };
  EXPECT_TRUE(says("all", "not SERVING"));
  EXPECT_TRUE(says("stranger", "not an address of the workload"));
}

TEST_F(Health, TtlChecksAreToldAndChecksHoldNoNamespace) {
  serve(json::array({{{"id", "heart"}, {"ttl", "3s"}}}), json::array());
  becomes("heart", "critical");
  answers({"two"});
  const auto told = agent().cli({"check", "pass", "heart", "beating"});
  EXPECT_TRUE(told.ok()) << told.describe();
  becomes("heart", "passing");
  answers({"one", "two"});
  becomes("heart", "critical");  // by itself
  EXPECT_FALSE(agent().cli({"check", "pass", "nobody"}).ok());
  // A probe that hangs does not keep the pod's namespace.
  Process silent = start_server(*one_, {"no-read", "--port", "9002"});
  serve(json::array({{{"id", "hangs"},
                      {"http", "http://localhost:9002/"},
                      {"interval", "1s"},
                      {"timeout", "60s"}}}),
        json::array());
  std::this_thread::sleep_for(1500ms);
  const auto veth = one_->host_veth;
  echo_one_.reset();
  silent.kill();
  node().remove_pod("one");
  EXPECT_TRUE(eventually(
      kWithinOneSecond, [&] { return !node().host().netns().has_link(veth); },
      "the namespace goes"));
}

}  // namespace
}  // namespace mesh::test
