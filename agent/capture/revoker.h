// SPDX-License-Identifier: Apache-2.0
// Ends the connections that intentions no longer allow, those from other nodes whose client the
// catalog has somebody else for, and those from outside that a service which was permissive has let
// in. A thread of its own: a walk over many sockets takes longer than the control thread may be
// away.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>

#include "agent/bpf/datapath.h"
#include "agent/capture/mesh_view.h"
#include "agent/capture/netns_directory.h"
#include "agent/capture/policy_view.h"
#include "agent/relay/pool.h"

namespace mesh::capture {

class Revoker {
 public:
  // How a connection was carried that has been ended. The text is the value of a metric label.
  enum class Path : std::uint8_t {
    Local,
    Sockmap,
    Twoleg,
    MeshOutbound,
    MeshInbound,
    Passthrough  // from outside, to a port that is strict
  };
  static constexpr std::size_t kPaths = 6;
  static std::string_view to_string(Path path);

  struct Counts {
    std::array<std::uint64_t, kPaths> revoked{};
    std::uint64_t misplaced = 0;  // MeshInbound, by the catalog
    std::uint64_t passes = 0;
    std::uint64_t failures = 0;  // sockets that could not be ended; tried again
    std::uint64_t last_pass_ns = 0;
  };

  // `mesh` may be null.
  Revoker(const bpf::Datapath& datapath, relay::Pool& relay,
          std::shared_ptr<const NetnsDirectory> directory,
          std::shared_ptr<const PolicyDirectory> policy, std::shared_ptr<const MeshDirectory> mesh);
  ~Revoker();  // waits for a pass that is under way
  Revoker(const Revoker&) = delete;
  Revoker& operator=(const Revoker&) = delete;

  // Something that decides has changed, and the hooks have it: look at everything that is open, now
  // and once more for what was between two states. Any thread.
  void wake();
  [[nodiscard]] Counts counts() const;  // any thread

 private:
  using Clock = std::chrono::steady_clock;
  struct Pass;

  void run();
  // False: something is left that should not be.
  bool pass();
  void end_relayed(const std::shared_ptr<Pass>& pass);
  void end_sockets(Pass& pass);
  void report(Pass& pass);

  const bpf::Datapath& datapath_;
  relay::Pool& relay_;
  const std::shared_ptr<const NetnsDirectory> directory_;
  const std::shared_ptr<const PolicyDirectory> policy_;
  const std::shared_ptr<const MeshDirectory> mesh_;

  struct Revoked {
    std::array<std::atomic<std::uint64_t>, kPaths> by_path{};
    std::atomic<std::uint64_t> misplaced{0};
  };
  // Shared with what the workers have been asked: one that stalled may come to it after the pass.
  const std::shared_ptr<Revoked> revoked_ = std::make_shared<Revoked>();
  std::atomic<std::uint64_t> passes_{0};
  std::atomic<std::uint64_t> failures_{0};
  std::atomic<std::uint64_t> last_pass_ns_{0};

  std::mutex mutex_;  // the three below
  std::condition_variable changed_;
  unsigned wanted_ = 0;  // passes still to be made
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace mesh::capture
