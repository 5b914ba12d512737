// SPDX-License-Identifier: Apache-2.0
#include "agent/options_help.h"

#include <sstream>

namespace mesh::help {
namespace {

constexpr std::size_t kNameColumns = 34;
constexpr std::size_t kColumns = 100;

// Breaks lines between words; a word that is longer keeps a line of its own.
std::string wrap(const std::string& text, std::size_t columns) {
  std::string out;
  std::size_t used = 0;
  std::istringstream words(text);
  for (std::string word; words >> word; used += word.size()) {
    if (used != 0 && used + 1 + word.size() > columns) {
      out += '\n';
      used = 0;
    } else if (used != 0) {
      out += ' ';
      ++used;
    }
    out += word;
  }
  return out;
}

}  // namespace

Formatter::Formatter() { column_width(kNameColumns); }

std::string Formatter::make_option_desc(const CLI::Option* option) const {
  return wrap(option->get_description(), kColumns - kNameColumns);
}

std::string Formatter::make_subcommand(const CLI::App* command) const {
  std::ostringstream out;
  CLI::detail::format_help(out, command->get_display_name(true),
                           wrap(command->get_description(), kColumns - kNameColumns), kNameColumns);
  return out.str();
}

// The program's own has its lines already.
std::string Formatter::make_description(const CLI::App* command) const {
  if (command->get_parent() == nullptr) return CLI::Formatter::make_description(command);
  return wrap(command->get_description(), kColumns) + '\n';
}

}  // namespace mesh::help
