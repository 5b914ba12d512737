// SPDX-License-Identifier: Apache-2.0
// What somebody else has undone under a running agent, and what of it can be put right: pins that
// were deleted, programs that were detached.
#include <utility>

#include "agent/base/log.h"
#include "agent/bpf/datapath.h"

namespace mesh::bpf {
namespace {

void note_lost(std::string& lost, std::string why) {
  if (!why.empty() && why != lost)
    log::error("programs have been detached, and pods are without them: {}", why);
  lost = std::move(why);
}

}  // namespace

void Datapath::keep_pins() {
  auto restored = programs_.restore_pins();
  if (!restored) {
    if (restored.error().what != lost_pins_)
      log::error(
          "pins have been deleted and cannot be made again, so the datapath ends with this "
          "process: {}",
          restored.error().what);
    lost_pins_ = restored.error().what;
    return;
  }
  lost_pins_.clear();
  if (*restored == 0) return;
  restored_pins_.fetch_add(*restored, std::memory_order_relaxed);
  log::warn("{} pins had been deleted by somebody and were made again", *restored);
}

void Datapath::keep_attached() {
  // Whose hooks they are while somebody else has made pins is not for this agent to say.
  if (!lost_pins_.empty()) return;
  const auto result = programs_.reattach();
  for (const auto& name : result.back) count_reattached(name);
  note_lost(lost_hooks_, result.failed ? "" : result.failed.error().what);
}

void Datapath::set_lost_inbound(std::string why) { note_lost(lost_inbound_, std::move(why)); }

void Datapath::count_reattached(std::string_view what) {
  reattached_.fetch_add(1, std::memory_order_relaxed);
  log::error(
      "{} had been detached by somebody and is attached again; what that means for connections of "
      "the last second: bpf/README.md, \"When a hook is taken away\"",
      what);
}

}  // namespace mesh::bpf
