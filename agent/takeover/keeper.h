// SPDX-License-Identifier: Apache-2.0
// For a successor that is not there yet: the frames of a takeover, descriptors included, wait in a
// socket whose reading end somebody keeps (a service manager, over a restart). Whoever closes that
// end ends the connections in it, by RST.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "agent/base/result.h"
#include "agent/base/unique_fd.h"
#include "agent/relay/pool.h"

namespace mesh::takeover {

// What both sides must have in common.
struct Common {
  int abi = 0;
  std::string version;     // for people
  std::string pin_dir;     // and the maps in it:
  std::uint32_t maps = 0;  // the kernel's id of one of them
};

struct KeptPair {
  UniqueFd write;
  UniqueFd read;
};
Result<KeptPair> make_kept_pair();
// Whether anybody has the reading end, which this process has closed.
bool is_kept(const UniqueFd& write);

class Keeper {
 public:
  Keeper(relay::Pool& pool, Common common) : pool_(pool), common_(std::move(common)) {}

  using Clock = std::chrono::steady_clock;

  // Accepts no more and waits, at most so long, until nothing is being set up.
  Status settle(std::chrono::milliseconds most);
  // Halts the connections, for which the workers have `most`, and writes all of it, good until
  // `deadline`; gives how many connections. It never waits for room. With an error the relay can go
  // on: resume().
  Result<std::uint32_t> keep(UniqueFd write, Clock::time_point deadline,
                             std::chrono::milliseconds most);
  void resume();

 private:
  relay::Pool& pool_;
  const Common common_;
};

}  // namespace mesh::takeover
