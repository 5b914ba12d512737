// SPDX-License-Identifier: Apache-2.0
#include "agent/adopted.h"

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "agent/base/log.h"

namespace mesh {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kUntilKnown{100};
constexpr std::chrono::seconds kPatience{10};  // from the first catalog on

class Judge : public std::enable_shared_from_this<Judge> {
 public:
  Judge(boost::asio::io_context& io, const capture::Mesh& mesh, relay::Pool& relay)
      : timer_(io), mesh_(mesh), relay_(relay) {}

  void look() {
    const auto view = mesh_.directory()->get();
    if (view && !seen_) seen_ = Clock::now();
    const bool known = view && (mesh_.has_identities() || Clock::now() > *seen_ + kPatience);
    if (!known) return look_again();
    end_others(*view);
  }

 private:
  // Once: a worker that does not answer in time does it when it gets to it.
  void end_others(const capture::MeshView& view) {
    std::set<std::string> here;
    for (const auto& [address, service] : view.own)
      if (auto id = mesh_.identity_of(address); !id.empty()) here.insert(std::move(id));
    const auto ended =
        relay_.abort_where([here = std::move(here)](const relay::ConnectionRecord& c) {
          return c.security && !here.contains(c.security->own_id);
        });
    if (!ended)
      log::warn("identities: {}", ended.error().what);
    else if (*ended != 0)
      log::warn("{} connections of the agent before this one were reset: their identity is gone",
                *ended);
  }
  void look_again() {
    timer_.expires_after(kUntilKnown);
    timer_.async_wait([self = shared_from_this()](const boost::system::error_code& code) {
      if (!code) self->look();
    });
  }

  boost::asio::steady_timer timer_;
  const capture::Mesh& mesh_;
  relay::Pool& relay_;
  std::optional<Clock::time_point> seen_;
};

}  // namespace

// on_gone of an identity source speaks of SVIDs that the process had. What went while no agent ran,
// or while one was giving its place to the next, nobody tells of.
void judge_adopted(boost::asio::io_context& io, const capture::Mesh& mesh, relay::Pool& relay) {
  boost::asio::post(io, [judge = std::make_shared<Judge>(io, mesh, relay)] { judge->look(); });
}

}  // namespace mesh
