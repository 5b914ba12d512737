// SPDX-License-Identifier: Apache-2.0
// Child processes inside a namespace and a cgroup, with bounded capture and deadlines.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/base/result.h"

namespace mesh::test {

class Netns;

struct ExitStatus {
  bool exited = false;  // false: ended by `signal`
  int code = -1;
  int signal = 0;
  [[nodiscard]] bool ok() const { return exited && code == 0; }
  [[nodiscard]] std::string to_string() const;
};

struct SpawnOptions {
  const Netns* netns = nullptr;                          // null: the test's own
  std::string cgroup;                                    // directory; empty: the test's own
  std::vector<std::pair<std::string, std::string>> env;  // added to the test's own
  bool stdin_pipe = false;                               // else /dev/null, or:
  std::string stdin_text;  // written to stdin, which is then closed (at most one pipe buffer)
  std::size_t max_output =
      4u << 20;  // bytes kept of stdout and of stderr; the rest is counted and dropped
};

struct RunResult {
  ExitStatus status;
  bool timed_out = false;  // it was killed at the deadline
  std::string out;
  std::string err;
  [[nodiscard]] bool ok() const { return !timed_out && status.ok(); }
  [[nodiscard]] std::string describe() const;  // status and both outputs, for a failure message
};

// One child in a process group of its own. Killed (the whole group) when the object goes, or when
// the thread that spawned it ends.
class Process {
 public:
  static Result<Process> spawn(const std::vector<std::string>& argv, const SpawnOptions& options);
  // Runs `body` in a forked child that has no descriptors but 0..2; its value is the exit code.
  static Result<Process> fork_function(const std::function<int()>& body,
                                       const SpawnOptions& options);

  Process(Process&&) noexcept;
  Process& operator=(Process&&) noexcept;
  ~Process();

  [[nodiscard]] pid_t pid() const;
  [[nodiscard]] bool running();
  // The status once it ended and its output was read; an error when the time is up first.
  Result<ExitStatus> wait(std::chrono::milliseconds limit);
  void signal(int number);
  void kill();  // SIGKILL to the group, and reaps
  [[nodiscard]] std::string out() const;
  [[nodiscard]] std::string err() const;
  [[nodiscard]] std::size_t dropped_output() const;
  // True as soon as stdout contains `text`; false when the process ended without it or the time is
  // up.
  bool wait_output(std::string_view text, std::chrono::milliseconds limit);
  // True as soon as stdout has `count` complete lines.
  bool wait_lines(std::size_t count, std::chrono::milliseconds limit);
  Status write_stdin(std::string_view text);
  void close_stdin();

 private:
  struct State;
  explicit Process(std::unique_ptr<State> state);
  static Result<Process> start(const SpawnOptions& options, const std::vector<std::string>* argv,
                               const std::function<int()>* body);
  std::unique_ptr<State> state_;
};

// spawn + wait; kills at the deadline.
Result<RunResult> run(const std::vector<std::string>& argv, const SpawnOptions& options,
                      std::chrono::milliseconds limit);

// run() of a tool that must succeed: a non-zero status is an error with its output. Gives its
// stdout.
Result<std::string> run_tool(const std::vector<std::string>& argv, const SpawnOptions& options,
                             std::chrono::milliseconds limit);

}  // namespace mesh::test
