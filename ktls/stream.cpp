// SPDX-License-Identifier: Apache-2.0
#include "ktls/stream.h"

#include "ktls/kernel_stream.h"
#include "ktls/user_stream.h"

namespace mesh::ktls {

Result<std::unique_ptr<Stream>> import_stream(StreamState state) {
  if (state.kernel) return std::unique_ptr<Stream>(new KernelStream(std::move(state)));
  auto stream = UserStream::create(std::move(state));
  if (!stream) return context(stream.error(), "import a stream");
  return std::unique_ptr<Stream>(std::move(*stream));
}

}  // namespace mesh::ktls
