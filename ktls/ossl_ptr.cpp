// SPDX-License-Identifier: Apache-2.0
#include "ktls/ossl_ptr.h"

#include <array>

namespace mesh::ktls {

tl::unexpected<Error> fail_ossl(std::string_view what) {
  const char* data = nullptr;
  int flags = 0;
  const unsigned long code = ERR_get_error_all(nullptr, nullptr, nullptr, &data, &flags);
  std::string text = "no further detail";
  if (code != 0) {
    const char* reason = ERR_reason_error_string(code);
    std::array<char, 256> buffer{};
    if (reason == nullptr) ERR_error_string_n(code, buffer.data(), buffer.size());
    text = reason != nullptr ? reason : buffer.data();
    if ((flags & ERR_TXT_STRING) != 0 && data != nullptr && *data != '\0')
      text += fmt::format(" ({})", data);
  }
  ERR_clear_error();
  return fail("{}: {}", what, text);
}

}  // namespace mesh::ktls
