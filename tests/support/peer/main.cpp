// SPDX-License-Identifier: Apache-2.0
// mesh-test-peer: plays the application side of a connection. Results are JSON, one line each.
#include <signal.h>

#include <CLI/CLI.hpp>

#include "tests/support/peer/commands.h"

namespace mesh::peer {
namespace {

void add_listen(CLI::App& command, ListenOptions& options, bool port_required = true) {
  command.add_option("--bind", options.bind, "Address; the default :: takes both families")
      ->capture_default_str();
  auto* port = command.add_option("--port", options.port, "Port");
  if (port_required) port->required();
  command.add_flag("--v6only", options.v6only, "IPV6_V6ONLY");
  command.add_flag("--mptcp", options.mptcp, "IPPROTO_MPTCP");
  command.add_option("--backlog", options.backlog, "listen(2) backlog")->capture_default_str();
  command.add_option("--threads", options.threads, "Connections at a time")->capture_default_str();
  command.add_flag("--quiet", options.quiet, "No lines for single connections");
}

void add_connect(CLI::App& command, ConnectOptions& options, bool required = true) {
  auto* to = command.add_option("--to", options.to, "Address");
  if (required) {
    to->required();
    command.add_option("--port", options.port, "Port")->required();
    command.add_flag("--mptcp", options.mptcp, "IPPROTO_MPTCP");
  }
  command.add_flag("--mapped", options.mapped, "Reach IPv4 by an AF_INET6 socket");
  command.add_option("--from", options.bind, "Bind to this address first");
  command.add_option("--device", options.device, "SO_BINDTODEVICE");
  command.add_flag("--nonblock-connect", options.nonblock, "Non-blocking connect(2)");
  command.add_flag("--poll", options.poll, "Wait in poll(2), not in recv(2)");
  command.add_option("--timeout", options.timeout_ms, "Milliseconds for every step")
      ->capture_default_str();
}

}  // namespace
}  // namespace mesh::peer

int main(int argc, char** argv) {
  using namespace mesh::peer;
  (void)::signal(SIGPIPE, SIG_IGN);
  CLI::App app{"Plays the application side of a TCP connection in tests"};
  app.require_subcommand(1);
  int code = 0;

  EchoOptions echo_options;
  auto* echo = app.add_subcommand("echo-server", "Sends back what it receives");
  add_listen(*echo, echo_options.listen);
  echo->add_flag("--epoll", echo_options.epoll, "One thread, non-blocking");
  echo->add_option("--name", echo_options.name, "Put before the first reply of a connection");
  echo->callback([&] { code = echo_server(echo_options); });

  ClientOptions client_options;
  auto* client_command = app.add_subcommand("client", "Connects, sends a text, prints the reply");
  add_connect(*client_command, client_options.connect);
  client_command->add_option("--text", client_options.text, "Text")->capture_default_str();
  client_command->add_flag("--read-first", client_options.read_first, "The server speaks first");
  client_command->add_flag("--no-shutdown", client_options.no_shutdown,
                           "Keep the sending side open; the reply is as long as the text");
  client_command->add_flag("--interactive", client_options.interactive,
                           "Send the lines of stdin, one reply line each");
  client_command->add_option("--repeat", client_options.repeat, "Connections, one after the other");
  client_command->add_option("--pause", client_options.pause_ms, "Milliseconds between them");
  client_command->add_flag("--brief", client_options.brief,
                           "Print + for each that was served, - for each that was not");
  client_command->callback([&] { code = client(client_options); });

  SinkOptions sink_options;
  auto* sink_command = app.add_subcommand("sink", "Reads everything");
  add_listen(*sink_command, sink_options.listen);
  sink_command->add_option("--readers", sink_options.readers, "Threads that read a connection")
      ->check(CLI::Range(1, 64));
  sink_command->add_flag("--poll", sink_options.poll, "Readers wait in poll(2), not in recv(2)");
  sink_command->add_option("--slow", sink_options.slow_us, "Microseconds of pause after a read");
  sink_command->callback([&] { code = sink(sink_options); });

  SourceOptions source_options;
  auto* source_command = app.add_subcommand("source", "Sends bytes");
  add_connect(*source_command, source_options.connect);
  source_command->add_option("--bytes", source_options.bytes, "How many")->capture_default_str();
  source_command->add_option("--write-size", source_options.write_size, "Bytes a write")
      ->check(CLI::Range(1, 16 << 20))
      ->capture_default_str();
  source_command->add_option(
      "--until-blocked", source_options.until_blocked_ms,
      "Stop when nothing can be queued for so many ms; hold until stdin ends");
  source_command->add_option("--text", source_options.text, "What is sent, again and again");
  source_command->add_option("--repeat", source_options.repeat, "Connections, one after the other");
  source_command->add_option("--pause", source_options.pause_ms, "Milliseconds between them");
  source_command->callback([&] { code = source(source_options); });

  DuplexOptions duplex_options;
  auto* duplex_command =
      app.add_subcommand("pattern-duplex", "Checked bytes both ways; server without --to");
  add_listen(*duplex_command, duplex_options.listen);
  add_connect(*duplex_command, duplex_options.connect, false);
  duplex_command->add_option("--seed", duplex_options.seed, "Key of the bytes and sizes");
  duplex_command->add_option("--send", duplex_options.send, "Bytes that this side sends");
  duplex_command->add_option("--receive", duplex_options.receive,
                             "Bytes that the other side sends");
  duplex_command->add_option("--max-chunk", duplex_options.max_chunk, "Largest read or write")
      ->check(CLI::Range(1, 16 << 20));
  duplex_command->add_flag("--nonblock", duplex_options.nonblock, "poll(2) and non-blocking calls");
  duplex_command->add_flag("--half-close", duplex_options.half_close,
                           "End the sending side without waiting for the other direction");
  duplex_command->add_option("--hold-back", duplex_options.hold_back,
                             "Send so many of the bytes only after the other side has ended its "
                             "sending side (--half-close)");
  duplex_command->add_option("--slow", duplex_options.slow_us,
                             "Microseconds of pause after a read");
  duplex_command->add_option("--connections", duplex_options.connections,
                             "Client: at a time. Server: ends after so many");
  duplex_command->callback([&] {
    duplex_options.connect.port = duplex_options.listen.port;
    code = duplex(duplex_options);
  });

  GreeterOptions greeter_options;
  auto* greeter_command = app.add_subcommand("greeter", "Speaks first");
  add_listen(*greeter_command, greeter_options.listen);
  greeter_command->add_option("--text", greeter_options.text, "Greeting");
  greeter_command->callback([&] { code = greeter(greeter_options); });

  RstOptions rst_options;
  auto* rst_command = app.add_subcommand("rst", "Resets after some bytes; server without --to");
  add_listen(*rst_command, rst_options.listen);
  add_connect(*rst_command, rst_options.connect, false);
  rst_command->add_option("--after", rst_options.after, "Bytes")->check(CLI::Range(1, 1 << 20));
  rst_command->callback([&] {
    rst_options.connect.port = rst_options.listen.port;
    code = rst(rst_options);
  });

  NoReadOptions no_read_options;
  no_read_options.listen.threads = 4096;
  auto* no_read_command =
      app.add_subcommand("no-read", "Accepts and never reads; SIGUSR1 prints what is queued");
  add_listen(*no_read_command, no_read_options.listen);
  no_read_command->add_flag("--shut-read", no_read_options.shut_read,
                            "shutdown(SHUT_RD) first, then send a line");
  no_read_command->callback([&] { code = no_read(no_read_options); });

  ManyOptions hold_options;
  auto* hold_command =
      app.add_subcommand("hold", "Opens N connections, keeps them until stdin ends");
  hold_command->add_option("count", hold_options.count, "N")->required();
  hold_command->add_flag("--echo", hold_options.echo, "One byte and its echo each");
  hold_command->add_option("--at-once", hold_options.at_once,
                           "With --echo: open no more while so many wait for theirs (0: all)");
  hold_command->add_option("--fill", hold_options.fill_ms,
                           "Once all are open, send to all until nothing can be queued for so "
                           "many ms");
  add_connect(*hold_command, hold_options.connect);
  hold_command->callback([&] { code = hold(hold_options); });

  ManyOptions short_options;
  auto* short_command = app.add_subcommand("shortlived", "N times connect, one byte, close");
  short_command->add_option("count", short_options.count, "N")->required();
  short_command->add_option("--parallel", short_options.parallel, "Threads")
      ->check(CLI::Range(1, 256));
  add_connect(*short_command, short_options.connect);
  short_command->callback([&] { code = shortlived(short_options); });

  LoadOptions load_options;
  auto* load_command = app.add_subcommand(
      "load", "N connections to an echo server, checked bytes on all of them until stdin ends");
  load_command->add_option("count", load_options.count, "N")->required();
  load_command->add_option("--chunk", load_options.chunk, "Bytes a send")
      ->check(CLI::Range(1, 1 << 20));
  load_command->add_option("--interval", load_options.interval_ms,
                           "Milliseconds between two sends of a connection, all of them one after "
                           "the other in this time; 0: as much as it takes");
  load_command->add_option("--at-once", load_options.at_once,
                           "Open no more while so many wait for their first echo (0: all)");
  load_command->add_option("--connects", load_options.connects,
                           "Threads that connect and close all the time");
  add_connect(*load_command, load_options.connect);
  load_command->callback([&] { code = load(load_options); });

  UdpOptions udp_server_options;
  auto* udp_server_command = app.add_subcommand("udp-server", "Echoes datagrams");
  udp_server_command->add_option("--bind", udp_server_options.bind, "Address");
  udp_server_command->add_option("--port", udp_server_options.port, "Port")->required();
  udp_server_command->callback([&] { code = udp_server(udp_server_options); });

  UdpOptions udp_client_options;
  auto* udp_client_command = app.add_subcommand("udp-client", "Sends a datagram, prints the reply");
  add_connect(*udp_client_command, udp_client_options.connect);
  udp_client_command->add_option("--text", udp_client_options.text, "Text");
  udp_client_command->add_flag("--connected", udp_client_options.connected, "connect(2) first");
  udp_client_command->callback([&] { code = udp_client(udp_client_options); });

  CLI11_PARSE(app, argc, argv);
  return code;
}
