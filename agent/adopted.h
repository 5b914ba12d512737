// SPDX-License-Identifier: Apache-2.0
// What becomes of connections that another agent process has begun and this one goes on with, when
// their identity went before this process could see it go.
#pragma once

#include <boost/asio/io_context.hpp>

#include "agent/capture/mesh.h"
#include "agent/relay/pool.h"

namespace mesh {

// Resets those whose own identity has no SVID here, once it is known which identities there are: by
// the first catalog, when each of them has its SVID or has not got one for 10 s. Any thread; works
// on that of `io`, which must not run any more when the other two are gone.
void judge_adopted(boost::asio::io_context& io, const capture::Mesh& mesh, relay::Pool& relay);

}  // namespace mesh
