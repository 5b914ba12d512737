// SPDX-License-Identifier: Apache-2.0
#include "tests/support/clock.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/base/unique_fd.h"
#include "tests/support/must.h"

namespace mesh::test {

ShiftedClock::ShiftedClock(std::string file) : file_(std::move(file)) {
  UniqueFd fd(::open(file_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd || ::ftruncate(fd.get(), sizeof *shift_) != 0) throw SetupFailed(file_);
  void* at = ::mmap(nullptr, sizeof *shift_, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) throw SetupFailed(file_);
  shift_ = static_cast<volatile std::int64_t*>(at);
}

ShiftedClock::~ShiftedClock() { ::munmap(const_cast<std::int64_t*>(shift_), sizeof *shift_); }

void ShiftedClock::set(std::chrono::seconds from_true_time) { *shift_ = from_true_time.count(); }

std::vector<std::pair<std::string, std::string>> ShiftedClock::env() const {
  // With sanitizers the run-time of theirs would want to be the first library.
  return {{"LD_PRELOAD", MESH_TEST_CLOCK_LIBRARY},
          {"MESH_TEST_CLOCK_SHIFT", file_},
          {"ASAN_OPTIONS", "verify_asan_link_order=0"}};
}

}  // namespace mesh::test
