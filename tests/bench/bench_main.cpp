// SPDX-License-Identifier: Apache-2.0
// Command line of the bench: server and client in one program, and the report over their results.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "tests/bench/client.h"
#include "tests/bench/report.h"
#include "tests/bench/server.h"

namespace {

using mesh::Status;
using mesh::bench::Io;
using mesh::bench::Mode;
using mesh::bench::Run;
using mesh::bench::Security;

const std::map<std::string, Io> kIoNames{{"blocking", Io::kBlocking}, {"epoll", Io::kEpoll}};

// One line of JSON on standard output; report.h reads them back.
Status measure(const Run& run, const std::string& mode, const std::string& row) {
  const auto result = mesh::bench::run_client(run);
  if (!result) return mesh::context(result.error(), row + " " + mode);
  const nlohmann::json line{{"row", row},
                            {"mode", mode},
                            {"request", run.request},
                            {"response", run.response},
                            {"count", run.count},
                            {"io", run.io == Io::kEpoll ? "epoll" : "blocking"},
                            {"ns", *result}};
  std::puts(line.dump().c_str());
  return {};
}

void add_client(CLI::App& app, const std::string& name, Mode mode, const std::string& help,
                Run& run, std::string& row, Status& status) {
  auto* command = app.add_subcommand(name, help);
  command
      ->add_option("--connect", run.connect, "ADDRESS:PORT of the server, or of what leads to it")
      ->required();
  command->add_option("--row", row, "name of the row in the table")->required();
  command->add_option("--io", run.io, "how the client waits")
      ->transform(CLI::CheckedTransformer(kIoNames));
  command->add_flag_callback(
      "--kernel-tls", [&run] { run.security = Security::kKernelTls; }, "of the bench's own keys");
  command->add_option("--count", run.count, "operations a repeat (bulk: MiB)")
      ->check(CLI::PositiveNumber);
  command->add_option("--warmup", run.warmup, "operations before the first repeat (bulk: MiB)");
  command->add_option("--repeats", run.repeats, "how often to measure")->check(CLI::PositiveNumber);
  if (mode != Mode::kBulk) {
    command->add_option("--request", run.request, "bytes of a request")->check(CLI::PositiveNumber);
    command->add_option("--response", run.response, "bytes of a response (http: headers included)")
        ->check(CLI::PositiveNumber);
  }
  command->callback([mode, name, &run, &row, &status] {
    run.mode = mode;
    status = measure(run, name, row);
  });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Measures round trips, connections and bulk; under QEMU's -icount 1 ns is 1 instruction"};
  app.require_subcommand(1);
  Status status;

  std::vector<std::string> listen;
  Io server_io = Io::kEpoll;
  auto* server = app.add_subcommand("server", "answer all modes until killed");
  server->add_option("--listen", listen, "ADDRESS:PORT, repeatable")->required();
  server->add_option("--io", server_io, "epoll, or one blocking connection after the other")
      ->transform(CLI::CheckedTransformer(kIoNames));
  Security server_security = Security::kNone;
  server->add_flag_callback(
      "--kernel-tls", [&] { server_security = Security::kKernelTls; }, "of the bench's own keys");
  server->callback([&] { status = mesh::bench::run_server(listen, server_io, server_security); });

  Run run;
  std::string row;
  add_client(app, "rr", Mode::kRoundTrips, "round trips on one connection", run, row, status);
  add_client(app, "crr", Mode::kConnect, "connect, one round trip, close", run, row, status);
  add_client(app, "bulk", Mode::kBulk, "64 KiB writes, acknowledged at the end", run, row, status);
  add_client(app, "http", Mode::kHttp, "HTTP/1.1 GETs on one connection", run, row, status);

  auto* hold = app.add_subcommand("hold", "open connections and keep them until killed");
  hold->add_option("--connect", run.connect, "ADDRESS:PORT")->required();
  hold->add_option("--count", run.count, "connections")->check(CLI::PositiveNumber);
  hold->add_flag_callback(
      "--kernel-tls", [&] { run.security = Security::kKernelTls; }, "of the bench's own keys");
  hold->callback([&] { status = mesh::bench::hold_connections(run); });

  std::string wait_connect;
  bool wait_http = false;
  unsigned wait_ms = 3'600'000;  // see kWaitLimitMs in socket.cpp
  auto* wait = app.add_subcommand("wait", "until one connection has been served");
  wait->add_option("--connect", wait_connect, "ADDRESS:PORT")->required();
  wait->add_flag("--http", wait_http, "with a GET");
  wait->add_option("--limit-ms", wait_ms, "give up after");
  wait->callback([&] {
    status =
        mesh::bench::wait_until_served(wait_connect, wait_http, std::chrono::milliseconds(wait_ms));
  });

  mesh::bench::ReportOptions report;
  auto* table = app.add_subcommand("report", "Markdown table and targets from result lines");
  table->add_option("--results", report.results, "file of JSON lines")->required();
  table->add_option("--note", report.notes, "line above the table, repeatable");
  table->add_flag("--mesh", report.mesh, "results are of two nodes");
  table->add_flag("--wall", report.wall, "results are rounds on the wall clock");
  table->add_flag("--strict", report.strict, "exit with 2 when a target is missed or not measured");
  int exit_status = 0;
  table->callback([&] {
    const auto missed = mesh::bench::report(report);
    if (!missed) {
      status = tl::unexpected(missed.error());
    } else if (report.strict && *missed > 0) {
      exit_status = 2;
    }
  });

  CLI11_PARSE(app, argc, argv);
  if (!status) {
    std::fprintf(stderr, "mesh-bench: %s\n", status.error().what.c_str());
    return 1;
  }
  return exit_status;
}
