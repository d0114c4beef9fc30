// Text inside XML or HTML.
#pragma once

#include <string>
#include <string_view>

namespace calm {

// The text with what would be markup, in content or between double quotes, as entities.
inline std::string escape_markup(std::string_view text) {
  std::string out;
  for (const char c : text) switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  return out;
}

}  // namespace calm
