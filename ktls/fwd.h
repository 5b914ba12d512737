// SPDX-License-Identifier: Apache-2.0
// Names of the types that are made of OpenSSL's objects, for headers that only pass them on.
#pragma once

#include <memory>

namespace mesh::ktls {

struct Svid;
struct TrustBundle;
using SvidPtr = std::shared_ptr<const Svid>;
using TrustBundlePtr = std::shared_ptr<const TrustBundle>;

}  // namespace mesh::ktls
