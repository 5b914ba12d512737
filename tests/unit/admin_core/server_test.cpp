// SPDX-License-Identifier: Apache-2.0
// The admin socket: what it answers, to whom, and that nobody can hold it up.
#include "agent/admin/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "agent/admin/client.h"
#include "agent/base/unique_fd.h"

namespace mesh::admin {
namespace {

using nlohmann::json;
using testing::HasSubstr;
namespace fs = std::filesystem;

UniqueFd dial(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval limit{10, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return {};
  return fd;
}

std::string read_all(int fd) {
  std::string all;
  char chunk[4096];
  for (ssize_t n; (n = ::recv(fd, chunk, sizeof chunk, 0)) > 0;)
    all.append(chunk, static_cast<std::size_t>(n));
  return all;
}

class AdminServer : public testing::Test {
 protected:
  AdminServer() {
    char name[] = "/tmp/mesh-admin-XXXXXX";
    dir_ = ::mkdtemp(name);
    ::chmod(dir_.c_str(), 0755);
    path_ = dir_ / "run" / "agent.sock";
  }
  ~AdminServer() override {
    io_.stop();
    if (thread_.joinable()) thread_.join();
    server_.reset();
    fs::remove_all(dir_);
  }

  void start(std::chrono::milliseconds deadline = std::chrono::seconds(5)) {
    auto server = Server::create(io_, path_, deadline);
    ASSERT_TRUE(server) << server.error().what;
    server_ = std::move(*server);
    server_->handle("echo", [](const json& request) -> Result<json> { return request; });
    server_->handle("fail", [](const json&) -> Result<json> { return fail("it cannot"); });
    server_->handle("big",
                    [](const json&) -> Result<json> { return json(std::string(8 << 20, 'x')); });
    server_->start();
    thread_ = std::thread([this] { io_.run(); });
  }

  std::string talk(const std::string& line) {
    auto fd = dial(path_);
    if (!fd) return "no connection";
    (void)::send(fd.get(), line.data(), line.size(), MSG_NOSIGNAL);
    return read_all(fd.get());
  }

  fs::path dir_, path_;
  boost::asio::io_context io_{1};
  std::unique_ptr<Server> server_;
  std::thread thread_;
};

TEST_F(AdminServer, AnswersACommandAndCloses) {
  start();
  auto answer = ask(path_, {{"command", "echo"}, {"x", 7}});
  ASSERT_TRUE(answer) << answer.error().what;
  EXPECT_EQ((*answer)["x"], 7);
  auto failed = ask(path_, {{"command", "fail"}});
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().what, "it cannot");
}

TEST_F(AdminServer, RefusesWhatIsNotARequest) {
  start();
  for (const char* line : {"\n", "nonsense\n", "[]\n", "{}\n", "{\"command\":7}\n", "null\n",
                           "{\"command\":\"echo\"\n", "\xff\xfe\n"})
    EXPECT_THAT(talk(line), HasSubstr("a request is a JSON object with a command")) << line;
  EXPECT_THAT(talk("{\"command\":\"no-such\"}\n"), HasSubstr("unknown command"));
  EXPECT_EQ(talk(std::string(5000, '[') + "\n"), "");  // longer than a request may be
  EXPECT_TRUE(ask(path_, {{"command", "echo"}}));
}

TEST_F(AdminServer, IsForItsOwnUserOnly) {
  start();
  struct stat st {};
  ASSERT_EQ(::stat(path_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
}

TEST_F(AdminServer, RefusesAnotherUserEvenIfTheFileLetsThemIn) {
  if (::geteuid() != 0) {
    ASSERT_FALSE(std::getenv("MESH_REQUIRE_ROOT")) << "needs root";
    GTEST_SKIP() << "needs root";
  }
  start();
  ASSERT_EQ(::chmod(path_.c_str(), 0666), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setuid(65534) != 0) ::_exit(3);
    auto fd = dial(path_);
    if (!fd) ::_exit(4);
    const std::string line = "{\"command\":\"echo\"}\n";
    (void)::send(fd.get(), line.data(), line.size(), MSG_NOSIGNAL);
    if (!read_all(fd.get()).empty()) ::_exit(5);
    // Closed with the question unread or before it, which are two errors to a client: one answer.
    for (int i = 0; i < 20; ++i) {
      const auto answer = ask(path_, {{"command", "echo"}});
      if (answer || answer.error().what.find("only root") == std::string::npos) ::_exit(6);
    }
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(AdminServer, ClosesAClientThatNeverAsksAtTheDeadline) {
  start(std::chrono::milliseconds(100));
  const auto before = std::chrono::steady_clock::now();
  EXPECT_EQ(talk("{\"command\":"), "");
  const auto took = std::chrono::steady_clock::now() - before;
  EXPECT_GE(took, std::chrono::milliseconds(90));
  EXPECT_LT(took, std::chrono::seconds(8));
  EXPECT_TRUE(ask(path_, {{"command", "echo"}}));
}

TEST_F(AdminServer, ClosesAClientThatNeverReadsAtTheDeadline) {
  start(std::chrono::milliseconds(200));
  auto fd = dial(path_);
  const std::string line = "{\"command\":\"big\"}\n";
  ASSERT_GT(::send(fd.get(), line.data(), line.size(), MSG_NOSIGNAL), 0);
  std::this_thread::sleep_for(std::chrono::seconds(1));
  EXPECT_LT(read_all(fd.get()).size(), 8u << 20);  // cut off, what was queued is still there
}

TEST_F(AdminServer, AnAnswerThatIsCutOffIsNotTakenForARefusal) {
  struct Row {
    std::string answer, error;
  };
  for (const auto& [answer, error] :
       {Row{"{\"result\":\"xxx", "was cut off after 14 bytes"}, Row{"", "only root"},
        Row{"[]\n", "is no mesh-agent"}, Row{"{}\n", "is no mesh-agent"}}) {
    const std::string path = dir_ / "other.sock";
    UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::listen(listener.get(), 1), 0);
    std::thread agent([&, answer = answer] {
      UniqueFd client(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      char question[4096];
      (void)::recv(client.get(), question, sizeof question, 0);
      (void)::send(client.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    });
    const auto asked = ask(path, {{"command", "echo"}});
    agent.join();
    ASSERT_FALSE(asked);
    EXPECT_THAT(asked.error().what, HasSubstr(error));
    ASSERT_EQ(::unlink(path.c_str()), 0);
  }
}

TEST_F(AdminServer, ServesOthersWhileTheClientsAreTooMany) {
  start(std::chrono::milliseconds(300));
  std::vector<UniqueFd> silent;
  for (int i = 0; i < 40; ++i) silent.push_back(dial(path_));
  Result<json> answer = fail("not asked");
  for (int i = 0; i < 100 && !answer; ++i) {
    answer = ask(path_, {{"command", "echo"}});
    if (!answer) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_TRUE(answer) << answer.error().what;  // the silent ones were closed at the deadline
}

TEST_F(AdminServer, ReplacesAStaleSocketButNotALiveOne) {
  fs::create_directories(path_.parent_path());
  {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.string().copy(address.sun_path, sizeof address.sun_path - 1);
    UniqueFd dead(::socket(AF_UNIX, SOCK_STREAM, 0));
    ASSERT_EQ(::bind(dead.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  start();
  EXPECT_TRUE(ask(path_, {{"command", "echo"}}));
  auto second = Server::create(io_, path_);
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().what, HasSubstr("another mesh-agent answers there"));
  EXPECT_TRUE(ask(path_, {{"command", "echo"}}));
}

TEST_F(AdminServer, LeavesAFileThatIsNoSocketAlone) {
  fs::create_directories(path_.parent_path());
  std::ofstream(path_) << "precious";
  EXPECT_FALSE(Server::create(io_, path_));
  EXPECT_EQ(fs::file_size(path_), 8u);
}

TEST_F(AdminServer, RefusesAPathThatIsTooLong) {
  auto server = Server::create(io_, "/tmp/" + std::string(200, 'x'));
  ASSERT_FALSE(server);
  EXPECT_THAT(server.error().what, HasSubstr("longer than"));
}

TEST_F(AdminServer, RemovesItsSocketWhenItStops) {
  start();
  io_.stop();
  thread_.join();
  server_->stop();
  EXPECT_FALSE(fs::exists(path_));
}

}  // namespace
}  // namespace mesh::admin
