// SPDX-License-Identifier: Apache-2.0
// The one table of Consul's defaults: what a field means that is not given. README.md has the same
// with what follows from it.
#pragma once

#include <chrono>
#include <cstdint>

#include "agent/config/protocol.h"

namespace mesh::config::defaults {

using namespace std::chrono_literals;

inline constexpr Protocol kProtocol = Protocol::Tcp;

// Timeouts. A request timeout below zero is none.
inline constexpr std::chrono::milliseconds kConnectTimeout = 5s;   // resolver and upstream
inline constexpr std::chrono::milliseconds kRequestTimeout = 15s;  // router and resolver
inline constexpr std::chrono::milliseconds kLocalConnectTimeout = 5s;
inline constexpr std::chrono::milliseconds kLocalRequestTimeout = 15s;

// UpstreamConfig.Limits
inline constexpr std::uint32_t kMaxConnections = 1024;
inline constexpr std::uint32_t kMaxPendingRequests = 1024;
inline constexpr std::uint32_t kMaxConcurrentRequests = 1024;
inline constexpr std::uint32_t kMaxInboundConnections = 0;  // any number

// PassiveHealthCheck; without one these hold all the same.
inline constexpr std::chrono::milliseconds kPassiveInterval = 10s;
inline constexpr std::uint32_t kPassiveMaxFailures = 5;
inline constexpr std::uint32_t kPassiveEnforcing5xx = 100;       // percent
inline constexpr std::uint32_t kPassiveMaxEjectionPercent = 10;  // but one endpoint at least
inline constexpr std::chrono::milliseconds kBaseEjectionTime = 30s;
inline constexpr std::chrono::milliseconds kMaxEjectionTime = 300s;

// Retries: none, unless one of the fields for them is given; then this many if NumRetries is not.
inline constexpr std::uint32_t kRetriesIfAsked = 1;
inline constexpr std::chrono::milliseconds kRetryBackoff = 25ms;

// LoadBalancer
inline constexpr std::uint64_t kMinRingSize = 1024;
inline constexpr std::uint64_t kMaxRingSize = 8'388'608;
inline constexpr std::uint32_t kChoiceCount = 2;
inline constexpr std::uint32_t kMaxChoices = 16;  // what more than this is taken for

inline constexpr std::uint16_t kOutboundListenerPort = 15001;
inline constexpr std::uint32_t kWeightPassing = 1;
inline constexpr std::uint32_t kWeightWarning = 1;

}  // namespace mesh::config::defaults
