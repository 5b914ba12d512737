// SPDX-License-Identifier: Apache-2.0
#include "tests/netns/servers.h"

#include <fstream>

#include "tests/netns/mesh_test.h"
#include "tests/support/must.h"

namespace mesh::test {

void wait_listening(const Place& at, std::uint16_t port) {
  const std::string number = std::to_string(port);
  if (!eventually(
          kSettle,
          [&] {
            return at.run({"nc", "-z", "127.0.0.1", number}).ok();
          },
          "port " + number + " is served"))
    throw SetupFailed("nobody listens at port " + number);
}

Process start_nginx(const Place& at, const std::string& directory, const NginxOptions& options) {
  must(make_directory(directory + "/html"), "nginx");
  std::ofstream(directory + "/html/page") << std::string(options.page, 'p');
  std::ofstream(directory + "/html/large") << std::string(options.large, 'l');
  std::ofstream(directory + "/nginx.conf")
      << fmt::format(R"(
daemon off;
user root;
worker_processes {0};
pid pid;
error_log error.log;
events {{ worker_connections 512; }}
http {{
  {1}
  root html;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  keepalive_requests 100000;
  {2}
}}
)",
                     options.workers, options.more, options.servers);
  // Its paths are relative to the directory.
  Process nginx = at.spawn({"nginx", "-c", directory + "/nginx.conf", "-p", directory});
  for (const auto port : options.ports) wait_listening(at, port);
  return nginx;
}

Process start_redis(const Place& at, std::uint16_t port) {
  Process redis = at.spawn({"redis-server", "--port", std::to_string(port), "--save", "",
                            "--protected-mode", "no", "--daemonize", "no", "--bind", "*", "-::*"});
  wait_listening(at, port);
  return redis;
}

}  // namespace mesh::test
