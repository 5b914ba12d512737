// SPDX-License-Identifier: Apache-2.0
// Reads small files that the agent's security rests on, after a look at who could have written
// them, and for secrets at who else can read them. The look is at what has been opened, behind any
// symbolic links. Blocking, for local disks.
#pragma once

#include <string>

#include "agent/base/result.h"
#include "agent/base/secret_text.h"

namespace mesh {

// Certificates, roots. At most 256 KiB of a regular file that is root's or this user's, and that
// neither group nor others may write. The error names the path and the command that mends it.
Result<std::string> read_trusted_file(const std::string& path);
// Private keys, passwords. The same, and group and others have no permission on it at all.
Result<SecretText> read_secret_file(const std::string& path);

// A directory that exists, with the same rule as for read_trusted_file().
Status check_trusted_directory(const std::string& path);

}  // namespace mesh
