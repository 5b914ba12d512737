// SPDX-License-Identifier: Apache-2.0
// What the parts of an agent do when another one takes over from it, and when it takes over itself.
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "agent/admin/server.h"
#include "agent/bpf/datapath.h"
#include "agent/capture/controller.h"
#include "agent/capture/mesh.h"
#include "agent/relay/pool.h"
#include "agent/takeover/handover.h"
#include "agent/takeover/successor.h"
#include "metrics/server.h"

namespace mesh {

struct TakeoverParts {
  boost::asio::io_context& io;  // the control thread's
  bpf::Datapath& datapath;
  relay::Pool& relay;
  capture::Controller& controller;
  capture::Mesh* mesh;  // may be null
  admin::Server& admin;
  metrics::Server& metrics;
};

// Called on the control thread.
struct HeartHooks {
  std::function<void()> stop;
  std::function<void()> start;
  std::function<void(pid_t)> succeeded;  // by this process, if it is known
  std::function<void()> finished;        // nothing is left in this process
};

// Hands the parts, which must outlive it, over to a successor.
std::unique_ptr<takeover::Handover> make_handover(const TakeoverParts& parts, HeartHooks heart,
                                                  std::chrono::milliseconds drain_timeout);

// The other side, on the control thread, which does not run yet: everything is prepared as far as
// it can be beside the running agent; then its connections are taken. `not_ready` as for /readyz.
// Without error the datapath, the listeners and the connections are ours, but for those `lost`.
Status take_over(const TakeoverParts& parts, takeover::Successor& former,
                 const std::function<std::optional<std::string>()>& not_ready, std::size_t& lost);

// Runs `what` on the control thread and waits for it; from any other thread.
Status on_control(boost::asio::io_context& io, std::function<Status()> what);

}  // namespace mesh
