// SPDX-License-Identifier: Apache-2.0
// Accepts on one listening socket, holds the limits, and hands each connection to a worker.
// Lives on its home worker's thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "agent/relay/dialer.h"
#include "agent/relay/handover.h"
#include "agent/relay/load.h"
#include "agent/relay/options.h"
#include "agent/relay/worker.h"

namespace mesh::relay {

struct ListenerSetup {
  UniqueFd socket;
  ListenerId id = 0;
  std::uint64_t netns_cookie = 0;
  std::shared_ptr<Dialer> dialer;
  std::shared_ptr<Load> total;
  std::shared_ptr<Load> netns;
  Endpoint at;  // where the socket listens
};

class Listener final : public EventSink, private Timed {
 public:
  using Workers = std::vector<std::unique_ptr<Worker>>;
  Listener(Worker& home, const Workers& workers, const PoolOptions& options,
           std::atomic<std::uint64_t>& next_connection, ListenerSetup setup);

  // These on the home worker's thread.
  Status open();             // does not accept yet
  Status start_accepting();  // an error: not yet, and it is tried again
  void stop_accepting();
  void close();  // idempotent
  Result<HandedListener> duplicate() const;

  [[nodiscard]] Worker& home() const { return home_; }
  [[nodiscard]] std::uint64_t netns_cookie() const { return setup_.netns_cookie; }
  [[nodiscard]] std::uint16_t port() const { return setup_.at.port; }
  [[nodiscard]] const std::shared_ptr<Dialer>& dialer() const { return setup_.dialer; }

  void on_events(std::uint32_t events) override;

 private:
  void on_deadline() override;  // end of a pause
  void pause();
  [[nodiscard]] Worker& choose() const;

  Worker& home_;
  const Workers& workers_;
  const PoolOptions& options_;
  std::atomic<std::uint64_t>& next_connection_;
  ListenerSetup setup_;
  bool accepting_ = false;
  Endpoint local_;  // of all connections, when the listener has one address; else unset
};

}  // namespace mesh::relay
