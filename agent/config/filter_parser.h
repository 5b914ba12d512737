// SPDX-License-Identifier: Apache-2.0
// Text of a filter to its tree. Selectors and literals are checked here, against each other too.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "agent/config/filter.h"

namespace mesh::config {

tl::expected<std::pair<Filter::Node, std::vector<Filter::Term>>, FilterError> parse_filter(
    std::string_view text);

}  // namespace mesh::config
