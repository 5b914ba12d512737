// SPDX-License-Identifier: Apache-2.0
// What somebody else has undone under a running agent, and what of it can be put right: pins that
// were deleted, programs that were detached.
#include "agent/base/log.h"
#include "agent/bpf/datapath.h"

namespace mesh::bpf {

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
  auto back = programs_.reattach();
  if (!back) {
    if (back.error().what != lost_hooks_)
      log::error("programs have been detached, and pods are without them: {}", back.error().what);
    lost_hooks_ = back.error().what;
    return;
  }
  lost_hooks_.clear();
  for (const auto& name : *back) count_reattached(name);
}

void Datapath::count_reattached(std::string_view what) {
  reattached_.fetch_add(1, std::memory_order_relaxed);
  log::error(
      "{} had been detached by somebody and is attached again; what that means for connections of "
      "the last second: bpf/README.md, \"When a hook is taken away\"",
      what);
}

}  // namespace mesh::bpf
